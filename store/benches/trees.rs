//! The hot paths over trees: scanning a build context, copying between trees, diff and apply, archives.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cbs_store::diff::{apply, diff};
use cbs_store::edit::{CopyOptions, Owner, Selection, copy, select_digest};
use cbs_store::ingest::{Eagerness, Owners, Scan, ScanOptions, StatCache, scan};
use cbs_store::patterns::PathFilter;
use cbs_store::tar::{Attributes, ReadOptions, Whiteouts, WriteOptions, read, write};
use cbs_store::{Access, Metadata, Store, Timestamp};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Files of the context, 50 to a directory.
const FILES: usize = 50_000;

fn context(dir: &Path) {
    for folder in 0..FILES / 50 {
        let path = dir.join(format!("d{}/e{folder}", folder / 50));
        std::fs::create_dir_all(&path).expect("mkdir");
        for file in 0..50 {
            let bytes = format!("{folder} {file}\n").repeat(1 + (folder * 7 + file * 13) % 500);
            std::fs::write(path.join(format!("f{file}.txt")), bytes).expect("write");
        }
    }
}

fn options<'a>(filter: &'a PathFilter, root: &'a Metadata, cache: Option<&'a dyn StatCache>) -> ScanOptions<'a> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    ScanOptions {
        filter,
        owners: Owners::Root,
        root,
        cache,
        eagerness: Eagerness::Nothing,
        now: Timestamp {
            seconds: now.as_secs() as i64,
            nanos: now.subsec_nanos(),
        },
        threads: NonZeroUsize::new(2).expect("not zero"),
    }
}

fn copying(src: &str) -> CopyOptions<'_> {
    CopyOptions {
        source: Selection {
            src,
            dir_copy_contents: true,
            ..Selection::default()
        },
        dest: "/app/",
        owner: None,
        mode: None,
        timestamp: None,
        made: Timestamp::default(),
        create_dest_path: true,
        always_replace_existing_dest_paths: false,
    }
}

fn benches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let dir = folder.path().join("context");
    context(&dir);
    std::thread::sleep(Duration::from_millis(50));
    let open = |name: &str| Store::open(&folder.path().join(name), Access::ReadWrite).expect("open");
    let filter = PathFilter::default();
    let root = Metadata::new(0o755);
    let mut group = criterion.benchmark_group("trees");
    group.sample_size(10).measurement_time(Duration::from_secs(2));

    let mut number = 0;
    group.bench_function("scan 50k files, nothing known, and store them", |bench| {
        bench.iter_batched(
            || {
                number += 1;
                open(&format!("cold{number}"))
            },
            |store| {
                let mut options = options(&filter, &root, Some(&store));
                options.eagerness = Eagerness::SmallFiles;
                let scanned = scan(&store, &dir, &options).expect("scan");
                scanned.store(&store).expect("store");
                store.flush().expect("flush");
                store
            },
            BatchSize::PerIteration,
        );
    });
    let store = open("warm");
    let _lease = store.lease().expect("lease");
    let first: Scan = scan(&store, &dir, &options(&filter, &root, Some(&store))).expect("scan");
    first.store(&store).expect("store");
    store.flush().expect("flush");
    group.bench_function("scan 50k files, nothing changed", |bench| {
        bench.iter(|| {
            let scanned = scan(&store, &dir, &options(&filter, &root, Some(&store))).expect("scan");
            assert_eq!((scanned.read, scanned.tree), (0, first.tree));
        });
    });
    group.bench_function("the same in a new process", |bench| {
        bench.iter(|| {
            let store = open("warm");
            let scanned = scan(&store, &dir, &options(&filter, &root, Some(&store))).expect("scan");
            assert_eq!((scanned.read, scanned.tree), (0, first.tree));
        });
    });
    let empty = cbs_store::diff::empty_tree(&store).expect("tree");
    group.bench_function("copy a directory of 50k files", |bench| {
        bench.iter(|| copy(&store, &empty, &first.tree, &copying("/")).expect("copy"));
    });
    let copied = copy(&store, &empty, &first.tree, &copying("/")).expect("copy");
    group.bench_function("copy it onto itself", |bench| {
        bench.iter(|| copy(&store, &copied, &first.tree, &copying("/")).expect("copy"));
    });
    let mut owned = copying("/");
    owned.owner = Some(Owner { uid: 1, gid: 1 });
    group.bench_function("copy it with another owner", |bench| {
        bench.iter(|| copy(&store, &empty, &first.tree, &owned).expect("copy"));
    });
    let exclude = ["**/f7.txt".to_owned()];
    let selection = Selection {
        exclude: &exclude,
        ..copying("/").source
    };
    group.bench_function("key of it without some files", |bench| {
        bench.iter(|| black_box(select_digest(&store, &first.tree, &selection).expect("digest")));
    });
    let layer = diff(&store, Some(&empty), &copied).expect("diff");
    group.bench_function("apply a layer of 50k files", |bench| {
        bench.iter(|| apply(&store, Some(&empty), &layer).expect("apply"));
    });
    let options = WriteOptions {
        clamp_mtime: None,
        made_mtime: None,
        whiteouts: Whiteouts::Oci,
    };
    let mut bytes = Vec::new();
    write(&store, &layer, &mut bytes, &options).expect("write");
    group.bench_function("write it as an archive", |bench| {
        bench.iter(|| write(&store, &layer, &mut std::io::sink(), &options).expect("write"));
    });
    let options = ReadOptions {
        whiteouts: Whiteouts::Oci,
        lower: None,
        attributes: Attributes::All,
    };
    group.bench_function("read that archive again", |bench| {
        bench.iter(|| black_box(read(&store, &mut &bytes[..], &options).expect("read")));
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);

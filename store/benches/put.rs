//! The hot paths of the store: opening, small blobs in and out, directories, look-ups, the mark of gc.

use std::hint::black_box;
use std::time::Duration;

use cbs_store::{
    Access, BlobStore, CacheKey, Directory, DirectoryStore, DryRun, Entry, GcPolicy, GcRoot, Metadata, Node,
    Realisation, Snapshot, Store, TreeDigest,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

/// Files of a benchmark's tree.
const FILES: u64 = 10_000;
/// Mean size of a small file in a Debian base image is about this.
const SIZE: usize = 4 << 10;

fn new_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::open(&folder.path().join("store"), Access::ReadWrite).expect("open");
    (folder, store)
}

fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![7; SIZE];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Puts a tree of `FILES` files, 100 to a directory.
fn put_tree(store: &Store) -> TreeDigest {
    let mut root = Directory::empty_root();
    for folder in 0..FILES / 100 {
        let mut directory = Directory::default();
        for number in 0..100 {
            let bytes = content(folder * 100 + number);
            let blob = store.put_bytes(&bytes).expect("put");
            directory.set(entry(
                number,
                Node::File {
                    blob,
                    size: SIZE as u64,
                    link: None,
                },
            ));
        }
        let reference = store.put_directory(directory).expect("put directory");
        root.set(entry(folder, Node::Directory(reference)));
    }
    store.put_directory(root).expect("put directory").digest
}

fn entry(number: u64, node: Node) -> Entry {
    Entry {
        name: format!("{number:08}").into_bytes(),
        meta: Metadata::new(0o644),
        node,
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    group.throughput(Throughput::Elements(FILES));
    group.bench_function("put tree, cold", |bencher| {
        bencher.iter_batched_ref(
            new_store,
            |(_, store)| {
                put_tree(store);
                store.flush().expect("flush");
            },
            BatchSize::PerIteration,
        );
    });

    let (_folder, store) = new_store();
    let tree = put_tree(&store);
    let snapshot = Snapshot { tree, layers: vec![] };
    let root = GcRoot {
        name: "root".to_owned(),
        snapshots: vec![snapshot.clone()],
        payload: vec![],
        created: 0,
    };
    store.set_root(&root).expect("root");
    group.bench_function("put tree, all here", |bencher| bencher.iter(|| put_tree(&store)));
    group.bench_function("read blobs", |bencher| {
        let digests: Vec<_> = (0..FILES)
            .map(|number| cbs_store::BlobDigest::of(&content(number)))
            .collect();
        bencher.iter(|| {
            for digest in &digests {
                black_box(store.blob(digest).expect("look"));
            }
        });
    });
    group.bench_function("gc, nothing to do", |bencher| {
        bencher.iter(|| store.gc(&GcPolicy::default(), DryRun::Yes).expect("gc"));
    });
    group.finish();

    let key = CacheKey::from_bytes([1; 32]);
    let realisation = Realisation {
        outputs: vec![Some(snapshot)],
        name: "RUN make".to_owned(),
        duration: Duration::ZERO,
        peak_memory: 0,
        log: None,
        key_parts: vec![0; 500],
        created: 0,
    };
    store.put_realisation(&key, &realisation).expect("put");
    let mut group = criterion.benchmark_group("lookup");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("realisation", |bencher| {
        bencher.iter(|| store.realisation(&key).expect("look").expect("here"));
    });
    group.bench_function("is_complete", |bencher| {
        bencher.iter(|| assert!(store.is_complete(&tree).expect("look")));
    });
    group.bench_function("put_realisation", |bencher| {
        bencher.iter(|| store.put_realisation(&key, &realisation).expect("put"));
    });
    group.bench_function("open", |bencher| {
        bencher.iter_with_large_drop(|| Store::open(store.root(), Access::ReadWrite).expect("open"));
    });
    group.finish();
}

criterion_group!(put, benches);
criterion_main!(put);

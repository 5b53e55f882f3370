use std::collections::HashSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::*;

fn snapshot(tree: TreeDigest) -> Snapshot {
    Snapshot { tree, layers: vec![] }
}

fn root(name: &str, tree: TreeDigest) -> GcRoot {
    GcRoot {
        name: name.to_owned(),
        snapshots: vec![snapshot(tree)],
        payload: vec![],
        created: 0,
    }
}

fn run(name: &str, tree: TreeDigest) -> Realisation {
    Realisation {
        outputs: vec![Some(snapshot(tree))],
        name: name.to_owned(),
        duration: Duration::ZERO,
        peak_memory: 0,
        log: None,
        key_parts: vec![],
        created: 0,
    }
}

fn key(seed: u8) -> CacheKey {
    CacheKey::from_bytes([seed; 32])
}

/// A tree of one file.
fn tree_of(store: &Store, content: &[u8]) -> TreeDigest {
    let blob = store.put_bytes(content).expect("put");
    put_dir(store, vec![file_entry("file", blob, content.len() as u64)]).digest
}

fn prune() -> GcPolicy {
    GcPolicy::default()
}

fn collect(store: &Store, policy: &GcPolicy) -> GcReport {
    store.gc(policy, DryRun::No).expect("gc")
}

/// All files below a folder of the store.
fn files(store: &Store, folder: &str) -> usize {
    fn count(path: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(path).expect("list");
        entries
            .map(|entry| entry.expect("entry").path())
            .map(|path| if path.is_dir() { count(&path) } else { 1 })
            .sum()
    }
    count(&store.root().join(folder))
}

fn assert_sound(store: &Store) {
    let report = store.verify(Repair::No).expect("verify");
    assert_eq!(report.problems, []);
}

/// A tree: blobs by seed and size, directories of earlier nodes.
#[derive(Clone, Debug)]
struct Shape {
    blobs: Vec<(u64, usize)>,
    /// Each of some blobs and some earlier directories.
    directories: Vec<(Vec<usize>, Vec<usize>)>,
    roots: Vec<usize>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = prop_oneof![0..200_usize, 16_000..17_000_usize, 20_000..60_000_usize];
    (
        vec((0..40_u64, sizes), 1..12),
        vec((vec(0..100_usize, 0..4), vec(0..100_usize, 0..3)), 1..12),
        vec(0..100_usize, 0..4),
    )
        .prop_map(|(blobs, directories, roots)| Shape {
            blobs,
            directories,
            roots,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn gc_keeps_exactly_what_is_reachable(shape in shape(), as_runs in any::<bool>(), flush in any::<bool>()) {
        let (_folder, store) = new_store();
        let mut digests = Vec::new();
        for (seed, size) in &shape.blobs {
            let content = bytes(*seed, *size);
            digests.push((store.put_bytes(&content)?, content));
        }
        let mut trees: Vec<(DirectoryRef, HashSet<BlobDigest>, HashSet<TreeDigest>)> = Vec::new();
        for (number, (blobs, below)) in shape.directories.iter().enumerate() {
            let mut directory = Directory::empty_root();
            let (mut all_blobs, mut all_trees) = (HashSet::new(), HashSet::new());
            for blob in blobs {
                let (digest, content) = &digests[blob % digests.len()];
                directory.set(file_entry(&format!("f{blob}"), *digest, content.len() as u64));
                all_blobs.insert(*digest);
            }
            for below in below.iter().filter(|_| number > 0) {
                let (reference, blobs, trees) = &trees[below % number];
                directory.set(dir_entry(&format!("d{below}"), *reference));
                all_blobs.extend(blobs);
                all_trees.extend(trees);
            }
            let reference = store.put_directory(directory)?;
            all_trees.insert(reference.digest);
            trees.push((reference, all_blobs, all_trees));
            if flush {
                store.flush()?;
            }
        }
        let (mut blobs, mut kept) = (HashSet::new(), HashSet::<TreeDigest>::new());
        for (number, index) in shape.roots.iter().enumerate() {
            let tree = &trees[index % trees.len()];
            if as_runs {
                // Used within the last hour.
                store.put_realisation(&key(number as u8), &run("r", tree.0.digest))?;
            } else {
                store.set_root(&root(&format!("r{number}"), tree.0.digest))?;
            }
            blobs.extend(&tree.1);
            kept.extend(&tree.2);
        }
        if as_runs {
            // Age alone tells a realisation from what was put before it: make the rest old.
            make_old(&store, &["directories", "blobs"]);
        }
        let policy = GcPolicy {
            keep_duration: if as_runs { Duration::from_secs(3_600) } else { Duration::ZERO },
            ..GcPolicy::default()
        };
        let planned = store.gc(&policy, DryRun::Yes)?;
        let report = store.gc(&policy, DryRun::No)?;
        prop_assert_eq!(&planned.removed, &report.removed);
        prop_assert_eq!(planned.freed, report.freed);
        for (digest, content) in &digests {
            prop_assert_eq!(read(&store, digest).is_some(), blobs.contains(digest));
            if blobs.contains(digest) {
                prop_assert_eq!(read(&store, digest), Some(content.clone()));
            }
        }
        for (reference, ..) in &trees {
            prop_assert_eq!(store.directory(&reference.digest)?.is_some(), kept.contains(&reference.digest));
            prop_assert_eq!(store.is_complete(&reference.digest)?, kept.contains(&reference.digest));
        }
        let disk = store.disk_use()?;
        let large = blobs.iter().filter(|digest| digests.iter().any(|(d, c)| d == *digest && c.len() > 16 << 10)).count();
        prop_assert_eq!(disk.large.count, large as u64);
        prop_assert_eq!(files(&store, "blobs"), large);
        prop_assert!(store.verify(Repair::No)?.problems.is_empty());
        // And what went can come again.
        for (digest, content) in &digests {
            store.put_bytes(content)?;
            prop_assert_eq!(read(&store, digest), Some(content.clone()));
        }
    }
}

/// Makes rows look as if they were last used at the beginning of time.
fn make_old(store: &Store, tables: &[&str]) {
    store.flush().expect("flush");
    store
        .0
        .inner
        .index
        .write("make old", |transaction, _| {
            tables
                .iter()
                .try_for_each(|table| transaction.execute_batch(&format!("UPDATE {table} SET used = 1")))
        })
        .expect("make old");
}

#[test]
fn an_empty_store_can_be_collected() {
    let (_folder, store) = new_store();
    let report = collect(&store, &prune());
    assert_eq!((report.freed, report.removed), (0, vec![]));
}

#[test]
fn a_lease_keeps_what_was_put_found_or_touched_since_it_began() {
    let (_folder, store) = new_store();
    let old = tree_of(&store, b"old");
    let found = tree_of(&store, b"found");
    store.put_realisation(&key(1), &run("found", found)).expect("put");
    let complete = tree_of(&store, b"complete");
    let looked_up = store.put_bytes(b"looked up").expect("put");
    let kept = tree_of(&store, b"kept");
    store.flush().expect("flush");
    let other = Store::open(store.root(), Access::ReadWrite).expect("open again");
    let lease = other.lease().expect("lease");
    assert!(other.realisation(&key(1)).expect("look").is_some());
    assert!(other.is_complete(&complete).expect("look"));
    assert!(other.missing_blobs(&[looked_up]).expect("look").is_empty());
    lease.keep(&snapshot(kept)).expect("keep");
    let new = tree_of(&other, &bytes(1, 40_000));
    // Not flushed: gc waits for the other store's flusher.
    let report = collect(&store, &prune());
    assert!(report.freed > 0);
    for tree in [found, complete, kept, new] {
        assert!(other.is_complete(&tree).expect("look"));
    }
    assert!(!other.is_complete(&old).expect("look"));
    assert!(other.missing_blobs(&[looked_up]).expect("look").is_empty());
    let leased = report
        .kept
        .iter()
        .find(|kept| matches!(kept.item, StoreItem::Realisation(..)));
    assert!(
        matches!(
            leased,
            Some(Kept {
                because: KeptBecause::Leased { .. },
                ..
            })
        ),
        "{leased:?}"
    );
    drop((lease, other));
    collect(&store, &prune());
    for tree in [found, complete, kept, new] {
        assert!(!store.is_complete(&tree).expect("look"));
    }
    assert_eq!(files(&store, "blobs") + files(&store, "packs"), 0);
    let realisation = store.realisation(&key(1)).expect("look");
    assert!(realisation.is_some(), "a realisation outlives its content");
    collect(&store, &GcPolicy { all: true, ..prune() });
    assert_eq!(store.realisation(&key(1)).expect("look"), None);
    assert_sound(&store);
}

#[test]
fn the_least_recently_used_goes_first_until_the_size_holds() {
    let (_folder, store) = new_store();
    let mut trees = Vec::new();
    for number in 0..10_u8 {
        let tree = tree_of(&store, &bytes(u64::from(number), 1 << 20));
        store.put_realisation(&key(number), &run("step", tree)).expect("put");
        trees.push(tree);
    }
    // Found again, so newer than all others.
    store.0.inner.known.begin_lease(i64::MAX);
    assert!(store.realisation(&key(0)).expect("look").is_some());
    let limit = 8 << 20;
    let policy = GcPolicy {
        max_used: Some(limit),
        ..prune()
    };
    let used = store.disk_use().expect("measure").total();
    assert!(used > limit);
    let report = collect(&store, &policy);
    assert!(report.used_after <= limit, "{} bytes", report.used_after);
    assert_eq!(report.used_after, store.disk_use().expect("measure").total());
    let kept: Vec<usize> = (0..10)
        .filter(|n| store.is_complete(&trees[*n]).expect("look"))
        .collect();
    assert_eq!(kept, [0, 8, 9]);
    assert_eq!(
        report.freed,
        report.removed.iter().map(|removed| removed.bytes).sum::<u64>()
    );
    // Below the size nothing more goes.
    assert_eq!(collect(&store, &policy).freed, 0);
    let reserved = GcPolicy {
        max_used: Some(0),
        reserved: Some(1 << 30),
        ..prune()
    };
    assert_eq!(collect(&store, &reserved).freed, 0);
    let recent = GcPolicy {
        max_used: Some(1),
        keep_duration: Duration::from_secs(3_600),
        ..prune()
    };
    assert_eq!(
        collect(&store, &recent).freed,
        0,
        "what is recent stays whatever the size"
    );
    assert_sound(&store);
}

#[test]
fn layers_go_before_trees_and_pulled_ones_of_roots_stay() {
    let (_folder, store) = new_store();
    let tree = tree_of(&store, &bytes(1, 100_000));
    let layer = |diff_id| Layer { diff: tree, diff_id };
    let pulled = layer(Some(Sha256Digest::of(b"tar")));
    let put = |layer: &Layer, seed| {
        let content = bytes(seed, 50_000);
        let blob = OciBlob {
            digest: store.put_oci_bytes(&content).expect("put"),
            size: 50_000,
            media_type: String::new(),
            diff_id: None,
        };
        store.put_layer_blob(layer, "gzip", &blob).expect("put layer");
        blob.digest
    };
    let (outside, made) = (put(&pulled, 2), put(&layer(None), 3));
    let mut rooted = root("r", tree);
    rooted.snapshots[0].layers = vec![pulled, layer(None)];
    store.set_root(&rooted).expect("root");
    let report = collect(&store, &prune());
    assert!(store.open_oci_blob(&outside).expect("look").is_some());
    assert!(store.open_oci_blob(&made).expect("look").is_none());
    assert_eq!(report.removed[0].item, StoreItem::OciBlob(made));
    assert!(store.is_complete(&tree).expect("look"));
    assert_eq!(files(&store, "layers"), 1);
    assert!(
        store.layer_blob(&layer(None), "gzip").expect("look").is_some(),
        "what it was is remembered"
    );
}

#[test]
fn filters_choose_what_goes_and_idle_is_told() {
    let (_folder, store) = new_store();
    for (number, name) in ["keep", "drop"].into_iter().enumerate() {
        let tree = tree_of(&store, &bytes(number as u64, 20_000));
        let seed = u8::try_from(number).expect("small");
        store.put_realisation(&key(seed), &run(name, tree)).expect("put");
    }
    tree_of(&store, &bytes(9, 20_000));
    store.flush().expect("flush");
    assert!(!store.has_idle(Duration::from_secs(3_600)).expect("ask"));
    make_old(&store, &["realisations", "directories", "blobs"]);
    assert!(store.has_idle(Duration::from_secs(3_600)).expect("ask"));
    let only = |candidate: &GcCandidate<'_>| candidate.realisation.is_some_and(|run| run.name == "drop");
    let report = store.gc_where(&prune(), DryRun::No, &only).expect("gc");
    let names: Vec<String> = report.removed.iter().map(|removed| removed.item.to_string()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].contains("drop"));
    let kept = |item: &StoreItem| report.kept.iter().any(|kept| kept.item == *item);
    assert!(kept(&StoreItem::Unreferenced), "{report:?}");
    let not_chosen = |kept: &&Kept| kept.because == KeptBecause::NotChosen;
    assert_eq!(report.kept.iter().filter(not_chosen).count(), 2);
    assert_eq!(files(&store, "blobs"), 2);
    assert_sound(&store);
    collect(&store, &prune());
    assert_eq!(files(&store, "blobs"), 0);
}

#[test]
fn cache_mounts_go_when_asked_and_idle() {
    let (_folder, store) = new_store();
    let mount = |id: &str| {
        let mut mount = store
            .cache_mount(id, Sharing::Shared, &|| false)
            .expect("mount")
            .expect("not cancelled");
        mount.seeded().expect("seeded");
        std::fs::write(mount.path.join("file"), bytes(1, 10_000)).expect("write");
        mount
    };
    let (busy, idle) = (mount("busy"), mount("idle"));
    let idle_path = idle.path.clone();
    drop(idle);
    let report = collect(&store, &prune());
    assert_eq!(report.removed, []);
    assert!(report.kept.iter().all(|kept| kept.because == KeptBecause::NotAsked));
    let report = collect(&store, &GcPolicy { all: true, ..prune() });
    assert_eq!((report.removed.len(), report.freed), (1, 10_000));
    assert!(!idle_path.exists());
    assert!(busy.path.exists());
    assert!(report.kept.iter().any(|kept| kept.because == KeptBecause::Busy));
    assert!(mount_is_fresh(&store, "idle"));
    drop(busy);
    let usage = store.usage().expect("usage");
    assert_eq!(usage.caches.len(), 2);
    assert_eq!(usage.disk.caches.bytes, 10_000);
}

fn mount_is_fresh(store: &Store, id: &str) -> bool {
    store
        .cache_mount(id, Sharing::Shared, &|| false)
        .expect("mount")
        .expect("not cancelled")
        .fresh
}

#[test]
fn leftovers_of_killed_processes_go_and_packs_shrink() {
    let (_folder, store) = new_store();
    let content = bytes(1, 30_000);
    let orphan = store.blobs_dir().join(blob_path(&BlobDigest::of(&content)));
    std::fs::create_dir_all(orphan.parent().expect("parent")).expect("mkdir");
    std::fs::write(&orphan, &content).expect("write");
    std::fs::write(store.root().join("layers").join("junk"), b"junk").expect("write");
    let mut keep = Vec::new();
    for seed in 0..400 {
        let blob = store.put_bytes(&bytes(seed, 10_000)).expect("put");
        if seed % 4 == 0 {
            keep.push(file_entry(&format!("{seed}"), blob, 10_000));
        }
    }
    let tree = put_dir(&store, keep).digest;
    store.set_root(&root("r", tree)).expect("root");
    let before = store.disk_use().expect("measure");
    let report = collect(&store, &prune());
    assert!(!orphan.exists());
    let leftovers = report
        .removed
        .iter()
        .find(|removed| removed.item == StoreItem::Leftovers);
    assert_eq!(leftovers.map(|removed| removed.bytes), Some(30_004));
    let after = store.disk_use().expect("measure");
    assert_eq!((before.packs.bytes, after.packs.bytes), (8 + 4_000_000, 8 + 1_000_000));
    assert_eq!(files(&store, "packs"), 1);
    assert_sound(&store);
    assert!(store.is_complete(&tree).expect("look"));
    // The disk agrees with the account.
    let total: u64 = ["blobs", "packs", "layers", "caches", "work"]
        .iter()
        .map(|folder| crate::store::usage::tree_bytes(&store.root().join(folder)).expect("measure"))
        .sum();
    assert_eq!(after.total() - after.database - after.reserve, total);
}

#[test]
fn usage_tells_shared_from_exclusive() {
    let (_folder, store) = new_store();
    let (shared, own) = (bytes(1, 20_000), bytes(2, 1_000));
    let shared_blob = store.put_bytes(&shared).expect("put");
    let own_blob = store.put_bytes(&own).expect("put");
    let base = put_dir(&store, vec![file_entry("s", shared_blob, 20_000)]);
    let top = put_dir(
        &store,
        vec![dir_entry("base", base), file_entry("own", own_blob, 1_000)],
    );
    store.put_bytes(b"loose").expect("put");
    store.set_root(&root("base", base.digest)).expect("root");
    store.set_root(&root("top", top.digest)).expect("root");
    store.put_realisation(&key(1), &run("step", base.digest)).expect("put");
    let usage = store.usage().expect("usage");
    let encoded = |digest| store.need_directory(digest).expect("here").encode().len() as u64;
    let (base_row, top_row) = (encoded(&base.digest), encoded(&top.digest));
    let uses: Vec<_> = usage
        .roots
        .iter()
        .map(|item| (&*item.name, item.bytes, item.exclusive))
        .collect();
    let base_bytes = 20_000 + base_row;
    assert_eq!(
        uses,
        [
            ("base", base_bytes, 0),
            ("top", base_bytes + 1_000 + top_row, 1_000 + top_row)
        ]
    );
    assert_eq!(usage.realisations[0].exclusive, base_bytes);
    assert_eq!(usage.unreferenced, Amount { count: 1, bytes: 5 });
    assert_eq!(usage.disk.small, Amount { count: 2, bytes: 1_005 });
    assert_eq!(
        usage.disk.large,
        Amount {
            count: 1,
            bytes: 20_000
        }
    );
}

#[test]
fn collectors_and_writers_in_many_threads_and_stores_lose_nothing() {
    let (_folder, store) = new_store();
    let path = store.root().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let store = Store::open(&path, Access::ReadWrite).expect("open");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                collect(&store, &prune());
            }
        });
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let path = &path;
                scope.spawn(move || {
                    let store = Store::open(path, Access::ReadWrite).expect("open");
                    for round in 0..6_u64 {
                        let lease = store.lease().expect("lease");
                        let mut entries = Vec::new();
                        for number in 0..60 {
                            // The same blobs again and again, put by all and swept in between.
                            let content = bytes(number, (number as usize * 997) % 40_000);
                            let blob = store.put_bytes(&content).expect("put");
                            entries.push(file_entry(&format!("{number}"), blob, content.len() as u64));
                        }
                        let tree = put_dir(&store, entries).digest;
                        if round % 2 == 0 {
                            store.flush().expect("flush");
                        }
                        std::thread::sleep(Duration::from_millis(20));
                        assert!(
                            store.is_complete(&tree).expect("look"),
                            "writer {writer}, round {round}"
                        );
                        for number in 0..60 {
                            let content = bytes(number, (number as usize * 997) % 40_000);
                            assert_eq!(read(&store, &BlobDigest::of(&content)), Some(content));
                        }
                        drop(lease);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("writer");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        collector.join().expect("collector");
    });
    assert_sound(&store);
}

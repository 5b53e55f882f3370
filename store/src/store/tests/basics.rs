use std::time::Duration;

use super::*;
use crate::*;

/// What every store promises.
fn contract(store: &dyn ContentStore) {
    assert!(
        store
            .blob(&BlobDigest::of(b"never stored"))
            .expect("absence is no error")
            .is_none()
    );
    let large = bytes(1, 1 << 20);
    for content in [&b""[..], b"abc", &large[..16 << 10], &large[..(16 << 10) + 1], &large] {
        let digest = store.put_bytes(content).expect("put");
        assert_eq!(digest, BlobDigest::of(content));
        assert_eq!(store.put_bytes(content).expect("put twice"), digest);
        let size = content.len() as u64;
        assert_eq!(
            store.put_reader(&mut &content[..]).expect("put by reader"),
            (digest, size)
        );
        let blob = store.blob(&digest).expect("look").expect("it is here");
        assert_eq!(blob.size(), size);
        assert_eq!(read_blob(blob), content, "{size} bytes");
    }
    let reference = put_dir_of(store);
    let directory = store.directory(&reference.digest).expect("look").expect("it is here");
    assert_eq!(directory.seal().0, reference);
    let absent = TreeDigest::from_bytes([9; 32]);
    assert!(store.directory(&absent).expect("absence is no error").is_none());
    assert!(matches!(
        store.need_directory(&absent),
        Err(StoreError::MissingDirectory(_))
    ));
}

fn read_blob(blob: Blob) -> Vec<u8> {
    let mut out = Vec::new();
    blob.reader().read_to_end(&mut out).expect("read blob");
    out
}

fn put_dir_of(store: &dyn ContentStore) -> DirectoryRef {
    let mut directory = Directory::empty_root();
    directory.set(file_entry("file", BlobDigest::of(b"abc"), 3));
    store.put_directory(directory).expect("put directory")
}

#[test]
fn memory_store_keeps_the_contract() {
    contract(&MemoryStore::default());
}

#[test]
fn disk_store_keeps_the_contract_before_and_after_a_flush() {
    let (_folder, store) = new_store();
    contract(&store);
    store.flush().expect("flush");
    contract(&store);
    store.0.inner.cache.clear();
    contract(&store);
}

#[test]
fn what_was_put_is_there_for_another_process_and_after_reopening() {
    let (folder, store) = new_store();
    let small = store.put_bytes(b"small").expect("put");
    let large = store.put_bytes(&bytes(2, 100_000)).expect("put");
    let tree = put_dir(&store, vec![file_entry("s", small, 5), file_entry("l", large, 100_000)]);
    store.flush().expect("flush");
    let other = Store::open(store.root(), Access::ReadWrite).expect("open again");
    assert_eq!(read(&other, &small).as_deref(), Some(&b"small"[..]));
    assert_eq!(read(&other, &large), Some(bytes(2, 100_000)));
    assert!(other.is_complete(&tree.digest).expect("look"));
    let later = store.put_bytes(b"not flushed by hand").expect("put");
    let root = store.root().to_owned();
    drop((store, other));
    let reader = Store::open(&root, Access::ReadOnly).expect("open for reading");
    assert!(read(&reader, &later).is_some(), "dropping the store flushes");
    assert!(matches!(reader.put_bytes(b"x"), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(reader.lease(), Err(StoreError::ReadOnly { .. })));
    drop(folder);
}

#[test]
fn an_incomplete_tree_is_known() {
    let (_folder, store) = new_store();
    let there = store.put_bytes(b"there").expect("put");
    let absent = BlobDigest::of(b"absent");
    assert_eq!(store.missing_blobs(&[there, absent]).expect("look"), [absent]);
    let inner = put_dir(&store, vec![file_entry("a", absent, 6)]);
    let outer = put_dir(&store, vec![dir_entry("d", inner), file_entry("t", there, 5)]);
    assert!(!store.is_complete(&outer.digest).expect("look"));
    store.flush().expect("flush");
    assert!(!store.is_complete(&outer.digest).expect("look"));
    store.put_bytes(b"absent").expect("put");
    assert!(store.is_complete(&outer.digest).expect("look"));
    assert!(!store.is_complete(&TreeDigest::from_bytes([3; 32])).expect("look"));
}

#[test]
fn adopting_moves_large_files_and_copies_small_and_linked_ones() {
    let (folder, store) = new_store();
    let lease = store.lease().expect("lease");
    let content = bytes(3, 50_000);
    let make = |name: &str, content: &[u8]| {
        let path = lease.scratch().join(name);
        std::fs::write(&path, content).expect("write");
        path
    };
    let large = make("large", &content);
    rustix::fs::setxattr(&large, "user.junk", b"x", rustix::fs::XattrFlags::empty()).expect("set attribute");
    let (digest, size) = store.adopt_file(&large).expect("adopt");
    assert_eq!((digest, size), (BlobDigest::of(&content), 50_000));
    assert!(!large.exists());
    let file = store.blobs_dir().join(blob_path(&digest));
    let meta = std::fs::metadata(&file).expect("blob file");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777, 0o444);
    assert_eq!(
        rustix::fs::listxattr(&file, &mut [0_u8; 64][..]).expect("attributes"),
        0
    );
    let again = make("again", &content);
    assert_eq!(store.adopt_file(&again).expect("adopt twice").0, digest);
    assert!(!again.exists(), "the second copy is dropped");

    let linked = make("linked", &bytes(4, 50_000));
    std::fs::hard_link(&linked, lease.scratch().join("other name")).expect("link");
    store.adopt_file(&linked).expect("adopt linked");
    assert!(linked.exists());
    let small = make("small", b"small");
    assert_eq!(
        store.adopt_file(&small).expect("adopt small").0,
        BlobDigest::of(b"small")
    );
    let link = lease.scratch().join("symlink");
    std::os::unix::fs::symlink(&linked, &link).expect("symlink");
    assert!(store.adopt_file(&link).is_err());
    drop(folder);
}

#[test]
fn realisations_aliases_roots_facts_and_layers() {
    let (_folder, store) = new_store();
    let tree = put_dir(&store, vec![]).digest;
    let diff_id = Sha256Digest::of(b"tar");
    let layer = Layer {
        diff: tree,
        diff_id: Some(diff_id),
    };
    let snapshot = Snapshot {
        tree,
        layers: vec![layer],
    };
    let realisation = Realisation {
        outputs: vec![Some(snapshot.clone())],
        name: "RUN true".to_owned(),
        duration: Duration::from_millis(7),
        peak_memory: 1,
        log: None,
        key_parts: vec![1],
        created: 2,
    };
    let (key, alias) = (CacheKey::from_bytes([1; 32]), CacheKey::from_bytes([2; 32]));
    assert_eq!(store.realisation(&key).expect("look"), None);
    store.put_realisation(&key, &realisation).expect("put");
    store.alias_realisation(&alias, &key).expect("alias");
    assert_eq!(store.realisation(&alias).expect("look"), Some(realisation.clone()));
    store.flush().expect("flush");
    let other = Store::open(store.root(), Access::ReadWrite).expect("open again");
    assert_eq!(other.realisation(&alias).expect("look"), Some(realisation));
    assert!(other.is_complete(&tree).expect("look"));

    let root = GcRoot {
        name: "a#b".to_owned(),
        snapshots: vec![snapshot],
        payload: b"payload".to_vec(),
        created: 3,
    };
    store.set_root(&root).expect("set root");
    assert_eq!(other.gc_root("a#b").expect("look"), Some(root.clone()));
    assert_eq!(other.gc_roots().expect("list"), [root]);
    assert!(other.remove_root("a#b").expect("remove"));
    assert!(!other.remove_root("a#b").expect("remove twice"));

    assert_eq!(store.fact("n", "k").expect("look"), None);
    store.put_fact("n", "k", b"1").expect("put fact");
    assert_eq!(
        store.fact("n", "k").expect("look").map(|fact| fact.0),
        Some(b"1".to_vec())
    );
    assert_eq!(store.facts("n").expect("list").len(), 1);
    store.remove_fact("n", "k").expect("remove fact");
    assert_eq!(store.fact("n", "k").expect("look"), None);
    assert!(store.facts("n").expect("list").is_empty());
    store.put_fact("n", "old", b"1").expect("put fact");
    assert_eq!(store.forget_facts("n", 0).expect("forget"), 0);
    assert_eq!(store.forget_facts("n", i64::MAX).expect("forget"), 1);

    let blob = OciBlob {
        digest: store.put_oci_bytes(b"compressed").expect("put"),
        size: 10,
        media_type: "application/x".to_owned(),
        diff_id: Some(diff_id),
    };
    store.put_layer_blob(&layer, "gzip-6", &blob).expect("put layer");
    assert_eq!(other.layer_blob(&layer, "gzip-6").expect("look"), Some(blob.clone()));
    assert_eq!(other.layer_blob(&layer, "zstd-3").expect("look"), None);
    assert_eq!(other.layer_by_diff_id(&diff_id).expect("look"), Some(layer));
    let mut text = String::new();
    let mut file = other.open_oci_blob(&blob.digest).expect("look").expect("it is here");
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "compressed");
}

#[test]
fn key_locks_exclude_tasks_and_end_with_their_guard() {
    let (_folder, store) = new_store();
    let key = CacheKey::from_bytes([7; 32]);
    let lock = store.try_lock_key(&key).expect("lock").expect("free");
    assert!(store.try_lock_key(&key).expect("lock").is_none());
    assert!(
        store
            .try_lock_key(&CacheKey::from_bytes([8; 32]))
            .expect("lock")
            .is_some()
    );
    drop(lock);
    assert!(store.try_lock_key(&key).expect("lock").is_some());
}

#[test]
fn leases_leave_nothing_behind() {
    let (_folder, store) = new_store();
    let lease = store.lease().expect("lease");
    let folder = lease.new_dir("upper").expect("new folder");
    std::fs::write(folder.join("file"), b"x").expect("write");
    // Deeper than a path may be long.
    let mut fd = rustix::fs::open(&folder, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("open");
    for _ in 0..3_000 {
        rustix::fs::mkdirat(&fd, "deep", rustix::fs::Mode::RWXU).expect("mkdir");
        fd = rustix::fs::openat(&fd, "deep", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("open");
    }
    drop(fd);
    let closed = lease.new_dir("closed").expect("new folder");
    std::fs::create_dir(closed.join("below")).expect("mkdir");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o0)).expect("chmod");
    let dead = store.root().join("work/999999-0");
    std::fs::create_dir(&dead).expect("mkdir");
    std::fs::write(dead.join("file"), b"x").expect("write");
    let second = store.lease().expect("second lease");
    let root = store.root().to_owned();
    drop((lease, second, store));
    let left: Vec<_> = std::fs::read_dir(root.join("work")).expect("list").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn cache_mounts_share_as_asked() {
    let (_folder, store) = new_store();
    let never = || false;
    let mount = |sharing| {
        store
            .cache_mount("id", sharing, &never)
            .expect("mount")
            .expect("not cancelled")
    };
    let mut first = mount(Sharing::Shared);
    assert!(first.fresh);
    first.seeded().expect("seeded");
    let second = mount(Sharing::Shared);
    assert!(!second.fresh);
    assert_eq!(first.path, second.path);
    assert_ne!(mount(Sharing::Private).path, first.path);
    let cancelled = store.cache_mount("id", Sharing::Locked, &|| true).expect("mount");
    assert!(cancelled.is_none());
    let path = first.path.clone();
    drop((first, second));
    let locked = mount(Sharing::Locked);
    assert_eq!(locked.path, path);
    assert!(
        store
            .cache_mount("id", Sharing::Locked, &|| true)
            .expect("mount")
            .is_none()
    );
    assert_ne!(mount(Sharing::Shared).path, path, "a locked folder is not shared");
}

#[test]
fn who_shares_a_cache_mount_waits_until_it_is_seeded() {
    let (_folder, store) = new_store();
    let mut first = store
        .cache_mount("id", Sharing::Shared, &|| false)
        .expect("mount")
        .expect("got");
    assert!(first.fresh);
    let (waits, is_waiting) = std::sync::mpsc::channel();
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let asked = || {
                // Told more often than it is heard.
                waits.send(()).unwrap_or_default();
                false
            };
            store
                .cache_mount("id", Sharing::Shared, &asked)
                .expect("mount")
                .expect("got")
        });
        is_waiting.recv().expect("it waits");
        first.seeded().expect("seeded");
        second.join().expect("no panic")
    });
    assert!(!second.fresh);
    assert_eq!(second.path, first.path, "there is one folder for all");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (_folder, store) = new_store();
    let root = store.root().to_owned();
    store
        .0
        .inner
        .index
        .write("test", |transaction, _| {
            transaction.execute_batch("PRAGMA user_version = 999")
        })
        .expect("change format");
    drop(store);
    for access in [Access::ReadWrite, Access::ReadOnly] {
        assert!(matches!(
            Store::open(&root, access),
            Err(StoreError::NewerFormat { found: 999, .. })
        ));
    }
}

#[test]
fn many_threads_write_the_same() {
    let (_folder, store) = new_store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for seed in 0..3_000 {
                    let content = bytes(seed, (seed as usize * 7) % 20_000);
                    let digest = store.put_bytes(&content).expect("put");
                    assert_eq!(read(&store, &digest), Some(content));
                }
            });
        }
    });
    store.flush().expect("flush");
    for seed in 0..3_000 {
        let content = bytes(seed, (seed as usize * 7) % 20_000);
        assert_eq!(read(&store, &BlobDigest::of(&content)), Some(content));
    }
}

#[test]
fn what_a_lease_has_seen_is_complete_at_once_and_void_for_the_next() {
    let (_folder, store) = new_store();
    let lease = store.lease().expect("lease");
    let small = store.put_bytes(b"small").expect("put");
    let tree = put_dir(&store, vec![file_entry("f", small, 5)]);
    let top = put_dir(&store, vec![dir_entry("d", tree)]);
    let known = &store.0.inner.known;
    assert!(known.has_blob(&small));
    let directory = store.need_directory(&top.digest).expect("here");
    assert!(known.has_all_of(&directory));
    assert!(store.is_complete(&top.digest).expect("look"));
    let second = store.lease().expect("second lease");
    assert!(!known.has_blob(&small));
    assert!(store.is_complete(&top.digest).expect("look"));
    store.put_bytes(b"small").expect("put");
    assert!(known.has_blob(&small));
    drop((lease, second));
    assert!(!known.has_blob(&small));
    let absent = put_dir(&store, vec![file_entry("f", BlobDigest::of(b"absent"), 6)]);
    assert!(!store.is_complete(&absent.digest).expect("look"));
}

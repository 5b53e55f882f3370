use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;
use crate::*;

/// Overwrites a byte of a file.
fn spoil(path: &std::path::Path, offset: u64) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("write");
}

struct Spoilt {
    _folder: TempDir,
    store: Store,
    small: BlobDigest,
    large: BlobDigest,
    oci: Sha256Digest,
    tree: TreeDigest,
    key: CacheKey,
}

/// A store with one of everything, in one realisation and one root.
fn example() -> Spoilt {
    let (folder, store) = new_store();
    let small = store.put_bytes(b"small").expect("put");
    let large = store.put_bytes(&bytes(1, 50_000)).expect("put");
    let tree = put_dir(
        &store,
        vec![file_entry("small", small, 5), file_entry("large", large, 50_000)],
    )
    .digest;
    let snapshot = Snapshot { tree, layers: vec![] };
    let key = CacheKey::from_bytes([1; 32]);
    let run = Realisation {
        outputs: vec![Some(snapshot.clone())],
        name: "RUN".to_owned(),
        duration: std::time::Duration::ZERO,
        peak_memory: 0,
        log: None,
        key_parts: vec![],
        created: 0,
    };
    store.put_realisation(&key, &run).expect("put");
    let root = GcRoot {
        name: "root".to_owned(),
        snapshots: vec![snapshot],
        payload: vec![],
        created: 0,
    };
    store.set_root(&root).expect("root");
    let oci = store.put_oci_bytes(b"oci").expect("put");
    store.flush().expect("flush");
    assert!(store.is_complete(&tree).expect("look"));
    Spoilt {
        _folder: folder,
        store,
        small,
        large,
        oci,
        tree,
        key,
    }
}

fn incomplete(example: &Spoilt) -> [Problem; 2] {
    [
        Problem::IncompleteRealisation(example.key, "RUN".to_owned()),
        Problem::IncompleteRoot("root".to_owned()),
    ]
}

#[test]
fn damaged_blobs_are_named_refused_and_dropped_by_repair() {
    let example = example();
    let store = &example.store;
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
    let pack = std::fs::read_dir(store.root().join("packs"))
        .expect("list")
        .next()
        .expect("one")
        .expect("entry");
    spoil(&pack.path(), 8);
    let large = store.blobs_dir().join(blob_path(&example.large));
    spoil(&large, 40_000);
    spoil(&store.root().join("layers").join(example.oci.to_string()), 0);
    match store.blob(&example.small) {
        Err(StoreError::DamagedBlob { expected, .. }) => assert_eq!(expected, example.small),
        other => panic!("{other:?}"),
    }
    let mut damaged = vec![Problem::DamagedBlob(example.small), Problem::DamagedBlob(example.large)];
    damaged.sort();
    damaged.push(Problem::DamagedOciBlob(example.oci));
    assert_eq!(store.verify(Repair::No).expect("verify").problems, damaged);
    let report = store.verify(Repair::Yes).expect("repair");
    damaged.extend(incomplete(&example));
    assert_eq!(report.problems, damaged);
    assert_eq!(report.repaired, 4, "all but the root");
    assert!(!large.exists());
    assert!(store.blob(&example.small).expect("look").is_none());
    assert!(!store.is_complete(&example.tree).expect("look"));
    assert!(store.realisation(&example.key).expect("look").is_some());
    // The next build puts the bytes again, and all is well.
    store.put_bytes(b"small").expect("put");
    store.put_bytes(&bytes(1, 50_000)).expect("put");
    assert!(store.is_complete(&example.tree).expect("look"));
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
}

#[test]
fn missing_and_short_files_are_damage() {
    let example = example();
    let store = &example.store;
    let large = store.blobs_dir().join(blob_path(&example.large));
    std::fs::set_permissions(&large, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&large)
        .expect("open")
        .set_len(49_999)
        .expect("cut");
    assert!(matches!(
        store.blob(&example.large),
        Err(StoreError::DamagedBlob { .. })
    ));
    std::fs::remove_file(&large).expect("remove");
    assert!(matches!(store.blob(&example.large), Err(StoreError::MissingBlob(_))));
    let report = store.verify(Repair::Yes).expect("repair");
    assert_eq!(report.problems[0], Problem::DamagedBlob(example.large));
    assert!(store.blob(&example.large).expect("look").is_none());
}

#[test]
fn damaged_rows_are_found_and_dropped() {
    let example = example();
    let store = &example.store;
    let change = |sql: &str| {
        let index = &store.0.inner.index;
        index
            .write("spoil", |transaction, _| transaction.execute_batch(sql))
            .expect("spoil");
    };
    change("UPDATE directories SET data = x'0100ff'");
    store.0.inner.cache.clear();
    assert!(matches!(
        store.directory(&example.tree),
        Err(StoreError::DamagedDirectory { digest, .. }) if digest == example.tree
    ));
    let report = store.verify(Repair::Yes).expect("repair");
    assert_eq!(report.problems[0], Problem::DamagedDirectory(example.tree));
    assert!(store.directory(&example.tree).expect("look").is_none());
    change("UPDATE realisations SET data = x'ff'; UPDATE roots SET data = x'ff'");
    assert!(matches!(
        store.realisation(&example.key),
        Err(StoreError::DamagedRecord {
            kind: "realisation",
            ..
        })
    ));
    assert!(matches!(
        store.gc(&GcPolicy::default(), DryRun::No),
        Err(StoreError::DamagedRecord { kind: "gc root", .. })
    ));
    let report = store.verify(Repair::Yes).expect("repair");
    assert_eq!(
        report.problems,
        [
            Problem::DamagedRealisation(example.key),
            Problem::DamagedRoot("root".to_owned())
        ]
    );
    assert_eq!(store.realisation(&example.key).expect("look"), None);
    assert!(store.remove_root("root").expect("remove"));
}

#[test]
fn after_a_power_loss_what_was_not_synced_is_checked_before_use() {
    let example = example();
    let root = example.store.root().to_owned();
    let pack = std::fs::read_dir(root.join("packs"))
        .expect("list")
        .next()
        .expect("one")
        .expect("entry");
    let large = example.store.blobs_dir().join(blob_path(&example.large));
    let later = {
        let store = &example.store;
        store.sync().expect("sync");
        // These were not synced.
        let later = store.put_bytes(&bytes(2, 30_000)).expect("put");
        let sound = store.put_bytes(b"sound").expect("put");
        store.flush().expect("flush");
        let index = &store.0.inner.index;
        let other_boot = "UPDATE batches SET boot = 'another'";
        index
            .write("spoil", |transaction, _| transaction.execute_batch(other_boot))
            .expect("spoil");
        (later, sound)
    };
    let lost = example.store.blobs_dir().join(blob_path(&later.0));
    drop(example.store);
    // Damage to what was synced is not looked for; to what was not, it is.
    spoil(&large, 1);
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::write(&lost, vec![0; 30_000]).expect("zeros, as after a power loss");
    let reader = Store::open(&root, Access::ReadOnly).expect("open for reading");
    assert!(matches!(reader.blob(&later.0), Err(StoreError::DamagedBlob { .. })));
    assert!(reader.blob(&example.large).expect("look").is_some());
    drop(reader);
    let store = Store::open(&root, Access::ReadWrite).expect("recover");
    assert!(store.blob(&later.0).expect("look").is_none());
    assert!(!lost.exists());
    assert!(store.blob(&later.1).expect("look").is_some());
    assert!(store.blob(&example.large).expect("look").is_some());
    assert!(pack.path().exists());
    let left: i64 = store
        .0
        .inner
        .index
        .read("count", |c| {
            c.query_row("SELECT count(*) FROM batches WHERE boot = 'another'", [], |row| {
                row.get(0)
            })
        })
        .expect("count");
    assert_eq!(left, 0);
}

#[test]
fn a_realisation_found_without_its_content_is_not_taken_for_kept() {
    let example = example();
    let store = &example.store;
    store.remove_root("root").expect("remove");
    store.gc(&GcPolicy::default(), DryRun::No).expect("gc");
    assert!(!store.is_complete(&example.tree).expect("look"));
    let kept = || -> bool {
        let index = &store.0.inner.index;
        let query = |c: &rusqlite::Connection| c.query_row("SELECT kept FROM realisations", [], |row| row.get(0));
        index.read("look", query).expect("look")
    };
    // A build finds it, and is killed before it has made the content again.
    let lease = store.lease().expect("lease");
    assert!(store.realisation(&example.key).expect("look").is_some());
    store.flush().expect("flush");
    drop(lease);
    assert!(!kept());
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
    // Another one finds it after somebody else has made the same content.
    let small = store.put_bytes(b"small").expect("put");
    let large = store.put_bytes(&bytes(1, 50_000)).expect("put");
    let entries = vec![file_entry("small", small, 5), file_entry("large", large, 50_000)];
    assert_eq!(put_dir(store, entries).digest, example.tree);
    store.flush().expect("flush");
    let lease = store.lease().expect("lease");
    assert!(store.realisation(&example.key).expect("look").is_some());
    store.flush().expect("flush");
    assert!(kept());
    drop(lease);
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
}

#[test]
fn a_sound_file_is_never_replaced_and_a_torn_one_is() {
    use std::os::unix::fs::MetadataExt;
    let (folder, store) = new_store();
    let content = bytes(7, 50_000);
    let digest = BlobDigest::of(&content);
    let path = store.blobs_dir().join(blob_path(&digest));
    let arrive = || {
        let file = folder.path().join("arriving");
        std::fs::write(&file, &content).expect("write");
        assert_eq!(store.adopt_file(&file).expect("adopt").0, digest);
        assert!(!file.exists());
        std::fs::metadata(&path).expect("a blob file").ino()
    };
    let row = |sql: &str| {
        let index = &store.0.inner.index;
        store.flush().expect("flush");
        index
            .write("spoil", |transaction, _| transaction.execute_batch(sql))
            .expect("spoil");
        store.0.inner.known.forget();
    };
    let first = arrive();
    // As when another process has moved its file in and is about to commit the row.
    row("DELETE FROM blobs");
    assert_eq!(
        arrive(),
        first,
        "its bytes may be on disk, those of the newcomer are not"
    );
    row("DELETE FROM blobs");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::write(&path, vec![0; content.len()]).expect("zeros, as after a power loss");
    arrive();
    assert_eq!(read(&store, &digest), Some(content.clone()));

    let oci = store.put_oci_bytes(b"layer").expect("put");
    let path = store.root().join("layers").join(oci.to_string());
    let first = std::fs::metadata(&path).expect("a layer").ino();
    row("DELETE FROM oci");
    assert_eq!(store.put_oci_bytes(b"layer").expect("put"), oci);
    assert_eq!(std::fs::metadata(&path).expect("a layer").ino(), first);
    // One that is short is as good as gone, and made again.
    store.flush().expect("flush");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::write(&path, b"lay").expect("cut");
    assert!(store.open_oci_blob(&oci).expect("look").is_none());
    store.put_oci_bytes(b"layer").expect("put");
    assert_eq!(std::fs::read(&path).expect("read"), b"layer");
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
}

#[test]
fn a_pack_that_its_number_does_not_tell_of_is_left_alone() {
    let (_folder, store) = new_store();
    // A power loss took back the row that counts the packs.
    std::fs::write(store.root().join("packs/1"), b"").expect("write");
    let digest = store.put_bytes(b"small").expect("put");
    store.flush().expect("flush");
    assert_eq!(read(&store, &digest).as_deref(), Some(&b"small"[..]));
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
}

#[test]
fn databases_that_are_no_store_of_ours_are_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("store");
    drop(Store::open(&path, Access::ReadWrite).expect("make"));
    let change = |sql: &str| {
        let connection = rusqlite::Connection::open(path.join("cbs.db")).expect("open");
        connection.execute_batch(sql).expect("change");
    };
    change("PRAGMA user_version = 2");
    for access in [Access::ReadWrite, Access::ReadOnly] {
        match Store::open(&path, access) {
            Err(StoreError::NewerFormat { found, .. }) => assert_eq!(found, 2),
            other => panic!("{other:?}"),
        }
    }
    change("PRAGMA user_version = 0");
    for access in [Access::ReadWrite, Access::ReadOnly] {
        assert!(matches!(Store::open(&path, access), Err(StoreError::NotAStore { .. })));
    }
    std::fs::remove_file(path.join("cbs.db")).expect("remove");
    for extra in ["cbs.db-wal", "cbs.db-shm"] {
        // They may be gone with the last connection.
        std::fs::remove_file(path.join(extra)).unwrap_or_default();
    }
    change("");
    assert!(matches!(
        Store::open(&path, Access::ReadOnly),
        Err(StoreError::Empty { .. })
    ));
    Store::open(&path, Access::ReadWrite).expect("an empty database is laid out");
}

/// A small file system of its own for a test; `None`, said out loud, where none can be mounted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting a small file system needs root");
            return None;
        }
        let folder = tempfile::tempdir().expect("temporary folder");
        if Self::run("mount", &["-t", "tmpfs", "-o", "size=8m", "none"], folder.path()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: no tmpfs to be mounted here");
        None
    }

    fn run(command: &str, arguments: &[&str], path: &std::path::Path) -> bool {
        let status = std::process::Command::new(command).args(arguments).arg(path).status();
        status.is_ok_and(|status| status.success())
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(Self::run("umount", &[], self.0.path()), "umount");
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_written_needs_root() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = Store::open(&disk.store(), Access::ReadWrite).expect("open");
    let kept = store.put_bytes(&bytes(1, 100_000)).expect("put");
    store.flush().expect("flush");
    let err = store.put_bytes(&bytes(2, 16 << 20)).expect_err("no room");
    match err {
        StoreError::Io { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    let mut failed = false;
    for seed in 0..600 {
        failed |= store.put_bytes(&bytes(seed, 16_000)).is_err();
    }
    failed |= store.flush().is_err();
    assert!(failed, "10 MB do not fit");
    assert_eq!(read(&store, &kept), Some(bytes(1, 100_000)));
    drop(store);
    let store = Store::open(&disk.store(), Access::ReadWrite).expect("open again");
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
    assert_eq!(read(&store, &kept), Some(bytes(1, 100_000)));
    store.gc(&GcPolicy::default(), DryRun::No).expect("gc on a full disk");
    store.put_bytes(&bytes(3, 100_000)).expect("room again");
}

#[test]
fn a_store_that_cannot_be_written_can_be_read_needs_root() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = Store::open(&disk.store(), Access::ReadWrite).expect("open");
    let small = store.put_bytes(b"small").expect("put");
    let tree = put_dir(&store, vec![file_entry("f", small, 5)]).digest;
    drop(store);
    assert!(SmallDisk::run("mount", &["-o", "remount,ro"], disk.0.path()));
    match Store::open(&disk.store(), Access::ReadWrite) {
        Err(StoreError::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem),
        other => panic!("{other:?}"),
    }
    let store = Store::open(&disk.store(), Access::ReadOnly).expect("open for reading");
    assert_eq!(read(&store, &small).as_deref(), Some(&b"small"[..]));
    assert!(store.is_complete(&tree).expect("look"));
    store.usage().expect("usage");
    assert_eq!(store.verify(Repair::No).expect("verify").problems, []);
    assert!(store.gc(&GcPolicy::default(), DryRun::Yes).expect("dry run").freed > 0);
    assert!(matches!(
        store.gc(&GcPolicy::default(), DryRun::No),
        Err(StoreError::ReadOnly { .. })
    ));
}

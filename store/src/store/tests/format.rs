//! The formats on disk, pinned: when one of these fails, old stores cannot be read, and `FORMAT` must change.

use super::*;
use crate::store::packs::MAGIC;
use crate::store::schema::{FORMAT, SCHEMA};
use crate::*;

/// The tables without the comments.
fn tables() -> String {
    let lines = SCHEMA.lines().filter(|line| !line.starts_with("--"));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tables_are_pinned() {
    assert_eq!(FORMAT, 1);
    assert_eq!(
        BlobDigest::of(tables().as_bytes()).to_string(),
        "38ae24a8371b649aaf1b94902b26269b5e0e2d413927f67e9f3805a0ce004e4a"
    );
}

#[test]
fn a_pack_is_its_magic_and_blobs_back_to_back() {
    let (_folder, store) = new_store();
    store.put_bytes(b"first").expect("put");
    store.flush().expect("flush");
    store.put_bytes(b"").expect("put");
    store.put_bytes(b"second").expect("put");
    store.flush().expect("flush");
    let pack = std::fs::read(store.root().join("packs/1")).expect("read pack");
    assert_eq!(MAGIC, b"cbspack1");
    assert_eq!(pack, b"cbspack1firstsecond");
}

#[test]
fn files_are_where_the_format_says() {
    let (_folder, store) = new_store();
    let large = store.put_bytes(&bytes(1, 20_000)).expect("put");
    let oci = store.put_oci_bytes(b"oci").expect("put");
    let mount = store
        .cache_mount("id", Sharing::Shared, &|| false)
        .expect("mount")
        .expect("not cancelled");
    let hex = large.to_string();
    assert!(store.root().join("blobs").join(&hex[..2]).join(&hex).is_file());
    assert!(store.root().join("layers").join(oci.to_string()).is_file());
    assert_eq!(
        mount.path,
        store.root().join("caches/c94f0023c69808fbac3c791fd42984a5/0")
    );
    let version: u32 = store
        .0
        .inner
        .index
        .read("read", |c| c.query_row("PRAGMA user_version", [], |row| row.get(0)))
        .expect("read");
    assert_eq!(version, FORMAT);
}

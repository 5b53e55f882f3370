//! Tests of the store on disk.

mod basics;
mod damage;
mod format;
mod gc;
mod plans;

use std::io::Read;

use tempfile::TempDir;

use super::{Access, Store};
use crate::{BlobDigest, BlobStore, Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node};

/// A store in a folder of its own.
pub(super) fn new_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::open(&folder.path().join("store"), Access::ReadWrite).expect("open a new store");
    (folder, store)
}

/// The bytes of a blob.
pub(super) fn read(store: &dyn BlobStore, digest: &BlobDigest) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let blob = store.blob(digest).expect("absence is no error")?;
    blob.reader().read_to_end(&mut bytes).expect("read blob");
    Some(bytes)
}

pub(super) fn file_entry(name: &str, blob: BlobDigest, size: u64) -> Entry {
    Entry {
        name: name.into(),
        meta: Metadata::new(0o644),
        node: Node::File { blob, size, link: None },
    }
}

pub(super) fn dir_entry(name: &str, directory: DirectoryRef) -> Entry {
    Entry {
        name: name.into(),
        meta: Metadata::new(0o755),
        node: Node::Directory(directory),
    }
}

/// Stores a directory of these entries.
pub(super) fn put_dir(store: &dyn DirectoryStore, entries: Vec<Entry>) -> DirectoryRef {
    let mut directory = Directory::empty_root();
    for entry in entries {
        directory.set(entry);
    }
    store.put_directory(directory).expect("put directory")
}

/// Bytes that differ with `seed`, of any length.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

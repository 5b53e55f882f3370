//! The store on disk: contract first, bodies to come.
#![allow(unused_variables, clippy::unimplemented, missing_docs)]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Blob, BlobDigest, BlobStore, CacheKey, Directory, DirectoryRef, DirectoryStore, Sha256Digest, StoreError,
    TreeDigest,
};

/// One change set of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// The changes as a tree with whiteouts.
    pub diff: TreeDigest,
    /// SHA-256 of the uncompressed tar when the layer came from outside and must leave as those very bytes.
    pub diff_id: Option<Sha256Digest>,
}

/// What a step can mount, and how OCI would ship it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The root directory.
    pub tree: TreeDigest,
    /// Lowest first; applied in order they give the tree.
    pub layers: Vec<Layer>,
}

/// A remembered run: what a cache key gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Realisation {
    /// One per output of the operation; `None` for an output nothing keeps.
    pub outputs: Vec<Option<Snapshot>>,
    /// What it was, for people.
    pub name: String,
    /// How long it ran.
    pub duration: Duration,
    /// Highest memory use in bytes, zero when unknown.
    pub peak_memory: u64,
    /// Its log, compressed, as a blob.
    pub log: Option<BlobDigest>,
    /// The parts its key was made of, encoded by the solver, for explanations.
    pub key_parts: Vec<u8>,
    /// When it ran, seconds since 1970.
    pub created: i64,
}

/// A compressed layer, manifest or config as OCI names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciBlob {
    /// SHA-256 of the (compressed) bytes.
    pub digest: Sha256Digest,
    /// Their number.
    pub size: u64,
    /// The media type it travels under.
    pub media_type: String,
    /// For layers: SHA-256 of the uncompressed tar.
    pub diff_id: Option<Sha256Digest>,
}

/// A name that keeps things alive and what an exporter needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcRoot {
    /// Unique name such as `bake.hcl#app-release`.
    pub name: String,
    /// What it keeps alive.
    pub snapshots: Vec<Snapshot>,
    /// Bytes of the caller's own format (versioned by the caller).
    pub payload: Vec<u8>,
    /// Seconds since 1970.
    pub created: i64,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Creates it when absent.
    ReadWrite,
    /// Fails when absent.
    ReadOnly,
}

/// How users of one cache mount share it (BuildKit's `sharing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    Shared,
    /// A fresh folder for whoever finds it busy.
    Private,
    /// One after the other.
    Locked,
}

/// The store. Cloning is cheap; all clones share caches and pending rows.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);
#[derive(Debug)]
struct Inner {
    root: PathBuf,
}

/// What keeps a living process's work from gc; gone when dropped. Scratch below it is removed with it.
#[derive(Debug)]
pub struct Lease {
    scratch: PathBuf,
}

impl Lease {
    /// A folder of this lease's own, on the file system of the store, for uppers and partial downloads.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }
    /// A new empty folder below [`Lease::scratch`].
    pub fn new_dir(&self, prefix: &str) -> Result<PathBuf, StoreError> {
        unimplemented!()
    }
    /// Keeps a snapshot until the lease ends.
    pub fn keep(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        unimplemented!()
    }
}

/// Held while one process works on a key; released on drop and by the death of the process.
#[derive(Debug)]
pub struct KeyLock(#[allow(dead_code)] File);

/// A cache mount in use.
#[derive(Debug)]
pub struct CacheMount {
    pub path: PathBuf,
    /// True when the folder was just made and wants its owner, mode and seed.
    pub fresh: bool,
    #[allow(dead_code)]
    lock: File,
}

impl Store {
    pub fn open(root: &Path, access: Access) -> Result<Self, StoreError> {
        unimplemented!()
    }
    pub fn root(&self) -> &Path {
        &self.0.root
    }
    /// The folder of large blob files: the data-only lower layer of overlays.
    pub fn blobs_dir(&self) -> PathBuf {
        self.0.root.join("blobs")
    }
    /// Starts a lease of this process; also sweeps what dead processes left.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        unimplemented!()
    }
    /// Commits pending rows in one transaction.
    pub fn flush(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Moves a file of this file system into the blobs by rename (nlink 1, nobody writes to it) or stores a copy when small.
    pub fn adopt_file(&self, path: &Path) -> Result<(BlobDigest, u64), StoreError> {
        unimplemented!()
    }
    /// Which of these blobs are not here.
    pub fn missing_blobs(&self, digests: &[BlobDigest]) -> Result<Vec<BlobDigest>, StoreError> {
        unimplemented!()
    }

    pub fn realisation(&self, key: &CacheKey) -> Result<Option<Realisation>, StoreError> {
        unimplemented!()
    }
    /// Flushes what it refers to, in the same transaction.
    pub fn put_realisation(&self, key: &CacheKey, realisation: &Realisation) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Makes `alias` find what `key` finds.
    pub fn alias_realisation(&self, alias: &CacheKey, key: &CacheKey) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Whether all bytes of a tree are here (a realisation outlives its content).
    pub fn is_complete(&self, tree: &TreeDigest) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// `None` when another process or task holds it.
    pub fn try_lock_key(&self, key: &CacheKey) -> Result<Option<KeyLock>, StoreError> {
        unimplemented!()
    }

    pub fn set_root(&self, root: &GcRoot) -> Result<(), StoreError> {
        unimplemented!()
    }
    pub fn gc_root(&self, name: &str) -> Result<Option<GcRoot>, StoreError> {
        unimplemented!()
    }
    pub fn gc_roots(&self) -> Result<Vec<GcRoot>, StoreError> {
        unimplemented!()
    }
    pub fn remove_root(&self, name: &str) -> Result<bool, StoreError> {
        unimplemented!()
    }

    /// Remembered compressed form of a layer; `variant` names compression, level and timestamp rewriting.
    pub fn layer_blob(&self, layer: &Layer, variant: &str) -> Result<Option<OciBlob>, StoreError> {
        unimplemented!()
    }
    pub fn put_layer_blob(&self, layer: &Layer, variant: &str, blob: &OciBlob) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// The layer that a pulled diff id unpacked to, if it did so before.
    pub fn layer_by_diff_id(&self, diff_id: &Sha256Digest) -> Result<Option<Layer>, StoreError> {
        unimplemented!()
    }
    pub fn open_oci_blob(&self, digest: &Sha256Digest) -> Result<Option<File>, StoreError> {
        unimplemented!()
    }
    /// Renames a finished scratch file in; the caller has checked its digest.
    pub fn adopt_oci_blob(&self, file: &Path, digest: &Sha256Digest) -> Result<(), StoreError> {
        unimplemented!()
    }
    pub fn put_oci_bytes(&self, bytes: &[u8]) -> Result<Sha256Digest, StoreError> {
        unimplemented!()
    }

    /// Small facts by namespace and key (resolved tags, ETags, build history), with the time they were written.
    pub fn fact(&self, namespace: &str, key: &str) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        unimplemented!()
    }
    pub fn put_fact(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        unimplemented!()
    }
    pub fn facts(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>, i64)>, StoreError> {
        unimplemented!()
    }

    /// Opens cache mount `id`. `cancelled` is asked while waiting for a locked one; `None` when it said so.
    pub fn cache_mount(
        &self,
        id: &str,
        sharing: Sharing,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<CacheMount>, StoreError> {
        unimplemented!()
    }
}

impl BlobStore for Store {
    fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError> {
        unimplemented!()
    }
    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError> {
        unimplemented!()
    }
    fn put_reader(&self, source: &mut dyn Read) -> Result<(BlobDigest, u64), StoreError> {
        unimplemented!()
    }
}

impl DirectoryStore for Store {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        unimplemented!()
    }
    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
        unimplemented!()
    }
}

//! The content store of cbs: blobs by digest, Merkle trees over them, and what finds and keeps them.
//!
//! ```text
//! bytes ── put ──► blob ──┐                           realisation: cache key → snapshots
//!                         ├──► directory … tree ──┬── snapshot = tree + layers
//! entries ── put ─────────┘                       └── layer = a tree of changes (whiteouts, opaque)
//!                                  gc root, lease ──► keep trees alive
//! ```
//! Start at [`Store`]; [`MemoryStore`] is the smallest one. Functions that read or edit trees ([`edit`], [`diff`],
//! [`tar`], [`ingest`]) ask for the traits [`DirectoryStore`] and [`BlobStore`] only. Everything here blocks: call it
//! from a blocking thread. Nothing here knows LLB, images or FUSE, reads the environment, or prints.
//!
//! ```
//! use cbs_store::{Access, BlobDigest, BlobStore, Directory, DirectoryStore, Entry, Metadata, Node, Store};
//!
//! let folder = tempfile::tempdir()?;
//! let store = Store::open(&folder.path().join("store"), Access::ReadWrite)?;
//! // What is put while a lease lives is safe from gc until the lease ends.
//! let lease = store.lease()?;
//! let blob = store.put_bytes(b"hello\n")?;
//! assert_eq!(blob, BlobDigest::of(b"hello\n"));
//! let mut directory = Directory::empty_root();
//! directory.set(Entry {
//!     name: b"greeting".to_vec(),
//!     meta: Metadata::new(0o644),
//!     node: Node::File { blob, size: 6, link: None },
//! });
//! let tree = store.put_directory(directory)?;
//! assert!(store.is_complete(&tree.digest)?);
//! # drop(lease);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blob;
pub mod compare;
mod deep;
pub mod diff;
mod digest;
mod directory;
pub mod edit;
mod error;
pub mod ingest;
mod memory;
mod owners;
pub mod patterns;
mod staging;
mod store;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod walk;

pub use blob::{Blob, BlobStore, ContentStore, DirectoryStore, INLINE_LIMIT, blob_path};
pub use digest::{
    BlobDigest, CacheKey, ContentDigest, KeyHasher, ParseDigestError, Sha256Digest, TreeDigest, hex, unhex32,
};
pub use directory::{
    Directory, DirectoryError, DirectoryRef, Entry, LinkGroup, Metadata, NAME_MAX, Node, Timestamp, Totals, check_name,
    hash_content,
};
pub use error::StoreError;
pub use memory::MemoryStore;
pub use owners::KnownIds;
pub use store::{
    Access, Amount, BlobWriter, CacheMount, CacheRemoval, CacheUse, DiskUse, DryRun, GcCandidate, GcFilter, GcPolicy,
    GcReport, GcRoot, ItemUse, Kept, KeptBecause, KeyLock, Layer, Lease, Measured, OciBlob, Problem, Realisation,
    RecordError, Removed, Repair, Sharing, Snapshot, Space, Store, StoreItem, Usage, VerifyReport,
};

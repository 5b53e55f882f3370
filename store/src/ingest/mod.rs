//! Files of the disk into the store.
//!
//! ```text
//! overlay upper directory ─ upperdir ─► blobs moved in, a tree and the layer to it
//! a user's directory ─ scan ─► a tree, every digest known ─ Scan::store ─► its blobs, when someone needs them
//! ```
//! Both walk by file descriptor and never through a symbolic link, on several threads.

mod assemble;
mod cache;
mod contents;
mod follow;
mod scan;
mod upper;
mod walk;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use cache::{DirectoryKey, MemoryStatCache, ShardKey, StatCache};
pub use follow::follow_links;
pub use scan::{Eagerness, Owners, Scan, ScanOptions, scan};
pub use upper::{Ingested, OverlayAttributes, UpperOptions, upperdir};

use crate::patterns::PatternError;
use crate::{BlobDigest, BlobStore, ContentStore, MemoryStore, Store, StoreError, TreeDigest};

/// A store that can take whole files.
pub trait FileStore: ContentStore {
    /// Takes a file into the store, by rename where that is possible, so that it may be gone afterwards. Nobody may
    /// write to it any more.
    ///
    /// # Errors
    /// [`StoreError`] when it is no regular file or cannot be read or moved.
    fn adopt_file(&self, path: &Path) -> Result<(BlobDigest, u64), StoreError>;

    /// Copies an open file in from its start; it stays as it is.
    ///
    /// # Errors
    /// [`StoreError`] when reading or writing fails; nothing is kept.
    fn copy_file(&self, file: &mut File) -> Result<(BlobDigest, u64), StoreError> {
        self.put_reader(file)
    }

    /// Takes in bytes of at most [`crate::INLINE_LIMIT`] each, whose digests the caller knows.
    ///
    /// # Errors
    /// As [`BlobStore::put_bytes`](crate::BlobStore::put_bytes).
    fn put_small(&self, blobs: &[(BlobDigest, Vec<u8>)]) -> Result<(), StoreError> {
        blobs.iter().try_for_each(|(_, bytes)| self.put_bytes(bytes).map(drop))
    }

    /// Whether a tree is known to be here with all bytes below it; if so, they are kept as if they had just been put.
    /// Saying no is always right.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    fn is_complete(&self, _tree: &TreeDigest) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Which of these blobs are not here; the others are kept as if they had just been put.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    fn missing_blobs(&self, digests: &[BlobDigest]) -> Result<Vec<BlobDigest>, StoreError> {
        let mut missing = Vec::new();
        for digest in digests {
            if self.blob(digest)?.is_none() {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }
}

impl FileStore for MemoryStore {
    fn adopt_file(&self, path: &Path) -> Result<(BlobDigest, u64), StoreError> {
        let bytes = std::fs::read(path).map_err(StoreError::io("read", path))?;
        std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
        Ok((self.put_bytes(&bytes)?, bytes.len() as u64))
    }
}

impl FileStore for Store {
    fn adopt_file(&self, path: &Path) -> Result<(BlobDigest, u64), StoreError> {
        Self::adopt_file(self, path)
    }

    fn copy_file(&self, file: &mut File) -> Result<(BlobDigest, u64), StoreError> {
        Self::copy_file(self, file)
    }

    fn put_small(&self, blobs: &[(BlobDigest, Vec<u8>)]) -> Result<(), StoreError> {
        Self::put_small(self, blobs)
    }

    fn is_complete(&self, tree: &TreeDigest) -> Result<bool, StoreError> {
        Self::is_complete(self, tree)
    }

    fn missing_blobs(&self, digests: &[BlobDigest]) -> Result<Vec<BlobDigest>, StoreError> {
        Self::missing_blobs(self, digests)
    }
}

/// Files that cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store or the disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is not what it was a moment ago.
    #[error("`{}` changed while it was being read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A path is longer than the 4096 bytes that the kernel takes.
    #[error("`{}` is nested too deeply", path.display())]
    TooDeep {
        /// The path.
        path: PathBuf,
    },
    /// An overlay copied a file's metadata up and left its data in the lower layer, which its mount must forbid.
    #[error("`{}` was copied up without its data", path.display())]
    WithoutData {
        /// The file.
        path: PathBuf,
    },
    /// A pattern cannot be read.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

#[cfg(test)]
mod tests;

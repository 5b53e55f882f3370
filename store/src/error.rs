//! What the store can fail with.

use std::io;
use std::path::{Path, PathBuf};

use crate::{BlobDigest, DirectoryError, RecordError, TreeDigest};

/// A failure of the store; the message names the thing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb phrase such as `write blob`.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index said no.
    #[error("store index: cannot {action}")]
    Index {
        /// A verb phrase such as `record realisation`.
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// There is no room for the index to grow.
    #[error("store index: cannot {action}: No space left on device")]
    Full {
        /// A verb phrase such as `record realisation`.
        action: &'static str,
        /// SQLite's words for it.
        source: rusqlite::Error,
    },
    /// A blob's bytes are not the ones its name says.
    #[error("blob {expected} is damaged: its bytes hash to {actual}")]
    DamagedBlob {
        /// The name.
        expected: BlobDigest,
        /// What is there.
        actual: BlobDigest,
    },
    /// A tree refers to bytes that are not here.
    #[error("blob {0} is not in the store")]
    MissingBlob(BlobDigest),
    /// A tree refers to a directory that is not here.
    #[error("directory {0} is not in the store")]
    MissingDirectory(TreeDigest),
    /// A stored directory cannot be decoded.
    #[error("directory {digest} is damaged")]
    DamagedDirectory {
        /// Its name.
        digest: TreeDigest,
        /// What is wrong with it.
        source: DirectoryError,
    },
    /// A record of the index cannot be decoded.
    #[error("{kind} `{name}` is damaged")]
    DamagedRecord {
        /// `realisation` or `gc root`.
        kind: &'static str,
        /// Its key or name.
        name: String,
        /// What is wrong with it.
        source: RecordError,
    },
    /// An input names something no tree may hold.
    #[error(transparent)]
    BadName(#[from] DirectoryError),
    /// The store was written by a newer cbs.
    #[error("store `{}` has format {found}, this cbs reads up to {known}", path.display())]
    NewerFormat {
        /// Its folder.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// The folder was made and nothing else: its maker was stopped, or has only just begun.
    #[error("store `{}` holds nothing yet", path.display())]
    Empty {
        /// Its folder.
        path: PathBuf,
    },
    /// There is a database, but none of ours.
    #[error("`{}` is not the database of a store", path.display())]
    NotAStore {
        /// The database.
        path: PathBuf,
    },
    /// The index has a log that can only be read where the folder can be written.
    #[error(
        "store `{}` cannot be read where nothing can be written: its log was not merged; run `cbs gc --dry-run` on it \
         where it can be written, then this works",
        path.display()
    )]
    NeedsWriting {
        /// Its folder.
        path: PathBuf,
    },
    /// Something was to be written to a store opened for reading.
    #[error("store `{}` is open for reading only", path.display())]
    ReadOnly {
        /// Its folder.
        path: PathBuf,
    },
}

impl StoreError {
    /// Shapes an [`io::Error`] for `map_err`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Shapes a SQLite error for `map_err`.
    pub fn index(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full { action, source },
            // Making the shared-memory file larger fails for nothing else.
            _ if is_shm_size(&source) => Self::Full { action, source },
            _ => Self::Index { action, source },
        }
    }
}

fn is_shm_size(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|err| err.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

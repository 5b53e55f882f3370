//! The two seams everything that reads or edits trees asks for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::{BlobDigest, Directory, DirectoryRef, StoreError, TreeDigest};

/// Blobs up to this many bytes are packed and served from memory; larger ones are files of their own. The rule is
/// fixed: a file's size tells where its bytes are.
pub const INLINE_LIMIT: u64 = 16 << 10;

/// Where a large blob's file is below the store's `blobs/` folder: `ab/<hex>`.
pub fn blob_path(digest: &BlobDigest) -> String {
    let hex = digest.to_string();
    format!("{}/{hex}", &hex[..2])
}

/// An opened blob.
#[derive(Debug)]
pub enum Blob {
    /// The bytes of a small one.
    Small(Arc<[u8]>),
    /// The file of a large one, opened for reading, and its size in bytes.
    Large(File, u64),
}

impl Blob {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Large(_, size) => *size,
        }
    }

    /// Reads at an offset, as `pread` does: short only at the end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_at(&self, mut buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Small(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let count = buffer.len().min(bytes.len() - start);
                buffer[..count].copy_from_slice(&bytes[start..start + count]);
                Ok(count)
            }
            Self::Large(file, _) => {
                let (mut offset, wanted) = (offset, buffer.len());
                while !buffer.is_empty() {
                    match file.read_at(buffer, offset) {
                        Ok(0) => break,
                        Ok(count) => {
                            buffer = &mut buffer[count..];
                            offset += count as u64;
                        }
                        Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                        Err(err) => return Err(err),
                    }
                }
                Ok(wanted - buffer.len())
            }
        }
    }

    /// Reads from the start.
    pub fn reader(self) -> BlobReader {
        BlobReader { blob: self, offset: 0 }
    }
}

/// A [`Blob`] read from start to end.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    offset: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Bytes addressed by their digest. Blocking.
pub trait BlobStore: Send + Sync {
    /// Opens a blob; `None` when it is not here (absence is an answer, not an error).
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be asked or the blob is found damaged.
    fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError>;

    /// Stores bytes in memory. The blob appears whole or not at all.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; nothing is kept.
    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError>;

    /// Copies `source` in to its end and returns its digest and size; never holds a large one in memory.
    ///
    /// # Errors
    /// [`StoreError`] when reading or writing fails; nothing is kept.
    fn put_reader(&self, source: &mut dyn Read) -> Result<(BlobDigest, u64), StoreError>;
}

/// Directories addressed by their digest. Blocking.
pub trait DirectoryStore: Send + Sync {
    /// Reads a directory; `None` when it is not here.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be asked or the row is damaged.
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError>;

    /// Stores a directory and names it. Readers of this store see it at once; other processes when the store is
    /// flushed, which happens no later than when something that refers to it is recorded.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError>;

    /// Reads a directory that must be here.
    ///
    /// # Errors
    /// [`StoreError::MissingDirectory`] when it is not, else as [`DirectoryStore::directory`].
    fn need_directory(&self, digest: &TreeDigest) -> Result<Arc<Directory>, StoreError> {
        self.directory(digest)?.ok_or(StoreError::MissingDirectory(*digest))
    }
}

/// Both seams in one.
pub trait ContentStore: BlobStore + DirectoryStore {}

impl<T: BlobStore + DirectoryStore + ?Sized> ContentStore for T {}

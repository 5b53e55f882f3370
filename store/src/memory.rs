//! The smallest store: everything in memory, for tests and for trees that are thrown away.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Blob, BlobDigest, BlobStore, Directory, DirectoryRef, DirectoryStore, StoreError, TreeDigest};

/// Blobs and directories in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    blobs: Mutex<HashMap<BlobDigest, Arc<[u8]>>>,
    directories: Mutex<HashMap<TreeDigest, Arc<Directory>>>,
}

impl BlobStore for MemoryStore {
    fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(blobs.get(digest).cloned().map(Blob::Small))
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError> {
        let digest = BlobDigest::of(bytes);
        self.blobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(digest)
            .or_insert_with(|| bytes.into());
        Ok(digest)
    }

    fn put_reader(&self, source: &mut dyn Read) -> Result<(BlobDigest, u64), StoreError> {
        let mut bytes = Vec::new();
        source
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", Path::new("stream")))?;
        Ok((self.put_bytes(&bytes)?, bytes.len() as u64))
    }
}

impl DirectoryStore for MemoryStore {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        Ok(self
            .directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned())
    }

    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
        let (reference, _) = directory.seal();
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories
            .entry(reference.digest)
            .or_insert_with(|| Arc::new(directory));
        Ok(reference)
    }
}

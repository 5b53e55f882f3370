//! The bytes of a scanned directory, stored when someone needs them.

use std::collections::HashSet;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::scan::{BATCH_FILES, Scan, named};
use super::walk::{Handle, Queue, status_of};
use super::{FileStore, IngestError};
use crate::walk::Walk;
use crate::{BlobDigest, Node};

impl Scan {
    /// Stores the bytes that are not there yet and checks that they are those that were scanned.
    ///
    /// # Errors
    /// [`IngestError::Changed`] names a file that changed since; nothing wrong is stored.
    pub fn store(&self, store: &dyn FileStore) -> Result<(), IngestError> {
        if store.is_complete(&self.tree)? {
            return Ok(());
        }
        let top = Handle::open(&self.top)?;
        let mut files = Vec::with_capacity(LOOK_UP_FILES);
        for walked in Walk::new(store, &self.tree)? {
            let walked = walked?;
            if let Node::File { blob, size, .. } = walked.entry.node {
                files.push(ScannedFile {
                    path: walked.path,
                    blob,
                    size,
                });
            }
            if files.len() == LOOK_UP_FILES {
                self.store_missing(store, &top, &mut files)?;
            }
        }
        self.store_missing(store, &top, &mut files)
    }

    /// Stores those of these files that are not there, and forgets them all.
    fn store_missing(
        &self,
        store: &dyn FileStore,
        top: &Handle,
        files: &mut Vec<ScannedFile>,
    ) -> Result<(), IngestError> {
        let mut seen = HashSet::new();
        files.retain(|file| seen.insert(file.blob));
        let digests: Vec<BlobDigest> = files.iter().map(|file| file.blob).collect();
        let missing: HashSet<BlobDigest> = store.missing_blobs(&digests)?.into_iter().collect();
        files.retain(|file| missing.contains(&file.blob));
        let batches: Vec<_> = files.chunks(BATCH_FILES).collect();
        if !batches.is_empty() {
            Queue::run(self.threads.get(), batches, |batch: &[ScannedFile], _| {
                batch.iter().try_for_each(|file| store_file(store, top, file))
            })?;
        }
        files.clear();
        Ok(())
    }
}

/// Files that the store is asked about at once: large contexts are not held in memory.
const LOOK_UP_FILES: usize = 8 << 10;

/// A file whose bytes have to be stored.
struct ScannedFile {
    path: Vec<u8>,
    blob: BlobDigest,
    size: u64,
}

fn store_file(store: &dyn FileStore, top: &Handle, scanned: &ScannedFile) -> Result<(), IngestError> {
    if scanned.size == 0 {
        // It may be a socket's, and there is nothing to read.
        store.put_bytes(b"")?;
        return Ok(());
    }
    let name = &scanned.path;
    let changed = || IngestError::Changed {
        path: top.full_path(name),
    };
    let mut file = match top.open_beneath(name) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(changed()),
        Err(err) => return Err(top.fail("open", name, err)),
    };
    let status = status_of(&file).map_err(|err| top.fail("read status of", name, err))?;
    if status.kind != FileType::RegularFile || status.size != scanned.size {
        return Err(changed());
    }
    let (blob, _) = store
        .copy_file(&mut file)
        .map_err(|err| named(err, &top.full_path(name)))?;
    if blob == scanned.blob { Ok(()) } else { Err(changed()) }
}

//! Unfinished files in a lease's scratch folder; gone when dropped.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cbs_store::{Lease, Sha256Digest, Store};

use crate::error::ImageError;

/// A folder of one lease for files that become OCI blobs.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    next: AtomicU64,
}

/// One such file, open for writing and reading.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    pub(crate) file: File,
    path: PathBuf,
    is_adopted: bool,
}

impl Scratch {
    pub(crate) fn new(lease: &Lease) -> Result<Self, ImageError> {
        Ok(Self {
            folder: lease.new_dir("oci")?,
            next: AtomicU64::new(0),
        })
    }

    pub(crate) fn create(&self) -> Result<ScratchFile, ImageError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(ImageError::io("create", &path))?;
        Ok(ScratchFile {
            file,
            path,
            is_adopted: false,
        })
    }
}

impl ScratchFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it an OCI blob of the store. The caller has checked the digest.
    pub(crate) fn adopt(mut self, store: &Store, digest: &Sha256Digest) -> Result<(), ImageError> {
        store.adopt_oci_blob(&self.path, digest)?;
        self.is_adopted = true;
        Ok(())
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if !self.is_adopted {
            // The lease removes what stays behind.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

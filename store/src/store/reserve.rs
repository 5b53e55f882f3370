//! Space set aside for gc: removing rows needs room for the log of the index, which a full disk has not.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::Inner;
use crate::StoreError;

/// Bytes set aside.
const RESERVE: u64 = 4 << 20;
/// Free space below which gc takes the reserve.
const SCARCE: u64 = 64 << 20;

/// Gives the space up before the store is open; false when there is none.
pub(super) fn take(root: &Path) -> bool {
    std::fs::remove_file(root.join(NAME)).is_ok()
}

const NAME: &str = "reserve";

impl Inner {
    pub(super) fn reserve_path(&self) -> PathBuf {
        self.root.join(NAME)
    }

    /// Sets the space aside if it is not. Without it everything works but gc on a full disk, so failing is no error.
    pub(super) fn make_reserve(&self) {
        let path = self.reserve_path();
        let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(_) => return,
        };
        if fallocate(&file, FallocateFlags::empty(), 0, RESERVE).is_err() {
            // An empty file would look like a reserve.
            let _ = std::fs::remove_file(&path);
        }
    }

    /// Whether the disk is nearly full.
    pub(super) fn is_scarce(&self) -> Result<bool, StoreError> {
        Ok(self.free_bytes()? < SCARCE)
    }

    /// Gives the space to whoever needs it now.
    pub(super) fn give_reserve_up(&self) -> Result<(), StoreError> {
        let path = self.reserve_path();
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("free", &path)(err)),
            _ => Ok(()),
        }
    }
}

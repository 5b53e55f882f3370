//! The folder in which files of an export are written before they are renamed to their places.
//!
//! One for each export, in the folder that is exported to, and locked while its maker lives: the next export to the same
//! place finds those of killed ones without looking through the whole tree, and removes them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cbs_store::Directory;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, openat, unlinkat};
use rustix::io::Errno;

/// So many exports to one folder may run at once.
const SLOTS: u32 = 16;

/// An empty folder below the destination; removed when dropped, with what is in it.
pub(super) struct Staging<'a> {
    root: BorrowedFd<'a>,
    folder: Arc<OwnedFd>,
    name: String,
    next: u64,
}

impl<'a> Staging<'a> {
    /// Makes it, under a name that `tree` does not have, and removes dead ones.
    pub(super) fn make(root: BorrowedFd<'a>, tree: &Directory) -> Result<Self, Errno> {
        let mut made = None;
        for slot in 0..SLOTS {
            let name = format!("{PREFIX}{slot}");
            if tree.get(name.as_bytes()).is_some() {
                continue;
            }
            remove_dead(root, &name);
            if made.is_none() {
                made = Self::create(root, name)?;
            }
        }
        made.ok_or(Errno::EXIST)
    }

    /// `None` when somebody else has it.
    fn create(root: BorrowedFd<'a>, name: String) -> Result<Option<Self>, Errno> {
        match mkdirat(root, &name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(err) => return Err(err),
        }
        let Ok(folder) = open(root, &name) else { return Ok(None) };
        // Between the calls somebody may have taken it for a dead one.
        let is_locked = flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        let is_ours = is_locked && rustix::fs::fstat(&folder)?.st_nlink > 0;
        Ok(is_ours.then_some(Self {
            root,
            folder: Arc::new(folder),
            name,
            next: 0,
        }))
    }

    /// The folder.
    pub(super) fn folder(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.folder)
    }

    /// A name that was not used in it.
    pub(super) fn next_name(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        empty(self.folder.as_fd());
        // Nothing more can be done for one that does not want to go; the next export tries again.
        let _ = unlinkat(self.root, &self.name, AtFlags::REMOVEDIR);
    }
}

const PREFIX: &str = ".cbs-export-";

/// Whether a name at the top of a destination may be an export's at work.
pub(super) fn is_staging(name: &[u8]) -> bool {
    let slot = name
        .strip_prefix(PREFIX.as_bytes())
        .and_then(|slot| std::str::from_utf8(slot).ok());
    slot.and_then(|slot| slot.parse().ok())
        .is_some_and(|slot: u32| slot < SLOTS)
}

fn open(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(root, name, flags, Mode::empty())
}

/// Removes the folder of an export that was killed. Whatever else is there is left alone.
fn remove_dead(root: BorrowedFd<'_>, name: &str) {
    if let Ok(folder) = open(root, name)
        && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        empty(folder.as_fd());
        let _ = unlinkat(root, name, AtFlags::REMOVEDIR);
    }
}

/// It holds no folders: those are made in their places.
fn empty(folder: BorrowedFd<'_>) {
    for entry in rustix::fs::Dir::read_from(folder).into_iter().flatten().flatten() {
        // The two that are the folder itself and the one above refuse.
        let _ = unlinkat(folder, entry.file_name(), AtFlags::empty());
    }
}

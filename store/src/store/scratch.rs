//! Folders below `work/` that belong to a living process.
//!
//! Such a folder is locked (`flock` on the folder itself) for as long as its owner lives, in whatever pid namespace that
//! is; whoever can take the lock finds a dead owner's folder and removes it. The lock is taken after `mkdir`, so a maker
//! checks that its folder was not swept in between.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::Inner;
use super::remove::remove_tree;
use crate::StoreError;

/// A locked folder; removing it is the owner's part.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) folder: OwnedFd,
    counter: AtomicU64,
}

impl Scratch {
    pub(super) fn create(inner: &Inner) -> Result<Self, StoreError> {
        let pid = std::process::id();
        for number in 0_u64.. {
            let id = format!("{pid}-{number}");
            let path = inner.work.join(&id);
            let fail = |err: io::Error| StoreError::io("create scratch folder", &path)(err);
            match mkdirat(&inner.work_fd, &id, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(err) => return Err(fail(err.into())),
            }
            let folder = match open_folder(&inner.work_fd, &id) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => continue,
                Err(err) => return Err(fail(err.into())),
            };
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => continue,
                Err(err) => return Err(fail(err.into())),
            }
            let stat = rustix::fs::fstat(&folder).map_err(|err| StoreError::io("open", &path)(err.into()))?;
            if stat.st_nlink > 0 {
                let counter = AtomicU64::new(0);
                return Ok(Self {
                    id,
                    path,
                    folder,
                    counter,
                });
            }
        }
        Err(StoreError::io("create scratch folder", &inner.work)(
            io::ErrorKind::AlreadyExists.into(),
        ))
    }

    /// A name that was not used in this folder.
    pub(super) fn next_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }
}

/// A file that is removed unless it was moved away.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl TempFile {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To be called when it was renamed.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // What stays goes with the folder.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Inner {
    /// A new empty file on the store's file system.
    pub(super) fn temp_file(&self) -> Result<TempFile, StoreError> {
        self.check_writable()?;
        let mut slot = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = match &mut *slot {
            Some(scratch) => scratch,
            empty => empty.insert(Scratch::create(self)?),
        };
        let name = scratch.next_name("t");
        let path = scratch.path.join(&name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(&scratch.folder, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|err| StoreError::io("create", &path)(err.into()))?;
        Ok(TempFile {
            file: File::from(fd),
            path,
            kept: false,
        })
    }

    /// Whether the owner of a scratch folder lives. One that is not there has none.
    pub(super) fn scratch_is_alive(&self, id: &str) -> Result<bool, StoreError> {
        let fail = StoreError::io("look at scratch folder", &self.work);
        match open_folder(&self.work_fd, id) {
            Ok(folder) => Ok(!try_lock(&folder).map_err(fail)?),
            Err(Errno::NOENT) => Ok(false),
            Err(err) => Err(fail(err.into())),
        }
    }

    /// Folders whose owners died, locked, so that nobody else removes them too.
    pub(super) fn dead_scratch(&self) -> Result<Vec<(OsString, Option<OwnedFd>)>, StoreError> {
        let fail = || StoreError::io("list scratch folders", &self.work);
        let mut dead = Vec::new();
        for entry in std::fs::read_dir(&self.work).map_err(fail())? {
            let name = entry.map_err(fail())?.file_name();
            match open_folder(&self.work_fd, &name) {
                Ok(folder) => {
                    if try_lock(&folder).map_err(fail())? {
                        dead.push((name, Some(folder)));
                    }
                }
                Err(Errno::NOENT) => {}
                // No folder of ours at all.
                Err(Errno::NOTDIR | Errno::LOOP) => dead.push((name, None)),
                Err(err) => return Err(fail()(err.into())),
            }
        }
        Ok(dead)
    }

    /// Removes a folder below `work/`.
    pub(super) fn remove_scratch(&self, name: &std::ffi::OsStr) -> io::Result<()> {
        remove_tree(self.work_fd.as_fd(), name)
    }

    /// Removes this process's own temporary folder, which is empty by now.
    pub(super) fn close_scratch(&self) {
        if let Some(scratch) = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // If it is not empty after all, the next process sweeps it.
            let _ = unlinkat(&self.work_fd, &scratch.id, AtFlags::REMOVEDIR);
        }
    }
}

fn open_folder(work: &OwnedFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(work, name, flags, Mode::empty())
}

fn try_lock(folder: &OwnedFd) -> io::Result<bool> {
    match flock(folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

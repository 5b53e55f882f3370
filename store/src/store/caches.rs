//! Cache mounts: folders that steps write to and that no snapshot contains.
//!
//! ```text
//! caches/<hash of id>/<slot>        the folder; slot 0 first, more when users may not share
//! caches/<hash of id>/<slot>.lock   flock: shared or exclusive while in use; not empty once the folder is seeded
//! ```
//! Locks are files of their own, since the folder belongs to the container.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::params;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Store;
use super::remove::remove_path;
use super::usage::CacheUse;
use crate::{KeyHasher, StoreError, hex};

/// How often a waiter looks at a locked mount and at whether it was cancelled.
const POLL: Duration = Duration::from_millis(20);
/// How often a folder that is to be shared is looked at before it counts as somebody's own.
const LOOKS: u32 = 5;
/// The time between those looks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How users of one cache mount share it (BuildKit's `sharing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    Shared,
    /// A fresh folder for whoever finds it busy.
    Private,
    /// One after the other.
    Locked,
}

/// A cache mount in use; others may use it as its sharing allows once this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    /// The folder.
    pub path: PathBuf,
    /// True when the folder was just made and wants its owner, mode and seed; say [`CacheMount::seeded`] when it has
    /// them. Until then nobody else gets it, and who comes next finds it fresh again.
    pub fresh: bool,
    lock: File,
    sharing: Sharing,
}

impl CacheMount {
    /// Says that a fresh folder has its owner, mode and seed.
    ///
    /// # Errors
    /// [`StoreError::Io`] when that cannot be noted.
    pub fn seeded(&mut self) -> Result<(), StoreError> {
        if !self.fresh {
            return Ok(());
        }
        if self.sharing == Sharing::Shared {
            // Before the note: whoever reads that it is seeded can share it.
            flock(&self.lock, FlockOperation::LockShared)
                .map_err(|err| StoreError::io("share cache mount", &self.path)(err.into()))?;
        }
        self.lock
            .write_all(b"seeded\n")
            .map_err(StoreError::io("note cache mount", &self.path))?;
        self.fresh = false;
        Ok(())
    }
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        // At once, also for children that inherited the description; else the close that follows does it.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Store {
    /// Opens cache mount `id`. `cancelled` is asked while waiting for a locked one; `None` when it said so.
    ///
    /// # Errors
    /// [`StoreError`] when the folder or its lock cannot be made.
    pub fn cache_mount(
        &self,
        id: &str,
        sharing: Sharing,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<CacheMount>, StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let hash = cache_hash(id);
        let folder = inner.caches.join(&hash);
        let (mut slot, mut looks) = (0_u32, 0);
        loop {
            // Removing a mount needs the other side of this lock: a folder is never taken away between lock and row.
            let guard = inner.sweep_lock.guard()?;
            make_dir(&folder)?;
            match try_slot(&folder, slot, sharing)? {
                Some(mount) => {
                    inner.index.write("record cache mount", |transaction, tick| {
                        transaction
                            .prepare_cached(
                                "INSERT INTO caches(hash, slot, name, used, size) VALUES(?1, ?2, ?3, ?4, 0)
                                 ON CONFLICT DO UPDATE SET used = excluded.used",
                            )?
                            .execute(params![hash, slot, id, tick])
                    })?;
                    return Ok(Some(mount));
                }
                // Whoever shares it seeds it first, and then there is but one; who has it for himself keeps it.
                None if sharing == Sharing::Locked || sharing == Sharing::Shared && is_being_seeded(&folder, slot) => {
                    drop(guard);
                    if cancelled() {
                        return Ok(None);
                    }
                    std::thread::sleep(POLL);
                }
                // Others that share it hold it alone for moments.
                None if sharing == Sharing::Shared && looks < LOOKS => {
                    looks += 1;
                    drop(guard);
                    std::thread::sleep(LOOK_AGAIN);
                }
                None => (slot, looks) = (slot + 1, 0),
            }
        }
    }
}

/// What became of a cache mount that was to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheRemoval {
    /// Folders that are gone.
    pub removed: u32,
    /// Folders that stay, since a step uses them.
    pub busy: u32,
}

impl Store {
    /// All cache mounts with their sizes, by id.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be listed or measured.
    pub fn cache_mounts(&self) -> Result<Vec<CacheUse>, StoreError> {
        let mounts = self.0.inner.mounts()?.into_iter().map(|mount| CacheUse {
            id: mount.id,
            slot: mount.slot,
            bytes: mount.bytes,
            used: mount.used,
        });
        Ok(mounts.collect())
    }

    /// Removes the folders of cache mount `id` that nobody uses.
    ///
    /// # Errors
    /// [`StoreError`] when a folder or its record cannot be removed.
    pub fn remove_cache_mount(&self, id: &str) -> Result<CacheRemoval, StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let mut removal = CacheRemoval::default();
        for mount in inner.mounts()?.into_iter().filter(|mount| mount.id == id) {
            let folder = inner.caches.join(&mount.hash);
            if !folder.is_dir() {
                continue;
            }
            let Some((lock, _)) = lock_slot(&folder, mount.slot, FlockOperation::NonBlockingLockExclusive)? else {
                removal.busy += 1;
                continue;
            };
            // First the folder, while its lock says that it is not seeded: whoever comes after a crash makes it anew.
            lock.set_len(0).map_err(StoreError::io("reset cache lock", &folder))?;
            let path = folder.join(mount.slot.to_string());
            remove_path(&path).map_err(StoreError::io("remove cache mount", &path))?;
            inner.index.write("forget cache mount", |transaction, _| {
                transaction
                    .prepare_cached("DELETE FROM caches WHERE hash = ?1 AND slot = ?2")?
                    .execute(params![mount.hash, mount.slot])
                    .map(drop)
            })?;
            // The folder of all slots stays, as somebody may just be about to make one in it.
            let lock_path = folder.join(format!("{}.lock", mount.slot));
            std::fs::remove_file(&lock_path).map_err(StoreError::io("remove cache lock", &lock_path))?;
            removal.removed += 1;
        }
        Ok(removal)
    }
}

/// Whether a slot that somebody has is not ready yet.
fn is_being_seeded(folder: &Path, slot: u32) -> bool {
    std::fs::metadata(folder.join(format!("{slot}.lock"))).is_ok_and(|meta| meta.len() == 0)
}

/// Names the folder of a cache mount.
pub(super) fn cache_hash(id: &str) -> String {
    let mut hasher = KeyHasher::new("cbs.cache.v1");
    hasher.field(id.as_bytes());
    hex(&hasher.finish()[..16])
}

/// Takes a slot if it is free; gives its lock file and whether it is seeded.
pub(super) fn lock_slot(
    folder: &Path,
    slot: u32,
    operation: FlockOperation,
) -> Result<Option<(File, bool)>, StoreError> {
    let path = folder.join(format!("{slot}.lock"));
    loop {
        let lock = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open cache lock", &path))?;
        match flock(&lock, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(err) => return Err(StoreError::io("lock cache mount", &path)(err.into())),
        }
        let stat = rustix::fs::fstat(&lock).map_err(|err| StoreError::io("lock cache mount", &path)(err.into()))?;
        // gc may have removed the slot between open and lock.
        if stat.st_nlink > 0 {
            return Ok(Some((lock, stat.st_size > 0)));
        }
    }
}

fn try_slot(folder: &Path, slot: u32, sharing: Sharing) -> Result<Option<CacheMount>, StoreError> {
    let path = folder.join(slot.to_string());
    if sharing == Sharing::Shared
        && let Some((lock, true)) = lock_slot(folder, slot, FlockOperation::NonBlockingLockShared)?
        && path.is_dir()
    {
        return Ok(Some(CacheMount {
            path,
            fresh: false,
            lock,
            sharing,
        }));
    }
    let Some((lock, seeded)) = lock_slot(folder, slot, FlockOperation::NonBlockingLockExclusive)? else {
        return Ok(None);
    };
    let fresh = !seeded || !path.is_dir();
    if fresh {
        lock.set_len(0).map_err(StoreError::io("reset cache lock", &path))?;
        make_dir(&path)?;
    } else if sharing == Sharing::Shared {
        flock(&lock, FlockOperation::LockShared)
            .map_err(|err| StoreError::io("share cache mount", &path)(err.into()))?;
    }
    Ok(Some(CacheMount {
        path,
        fresh,
        lock,
        sharing,
    }))
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("create cache mount", path)(err))
        }
        _ => Ok(()),
    }
}

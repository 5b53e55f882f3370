//! Locks between processes: one for the sweeper against writers, one per cache key.
//!
//! ```text
//! gc.lock   byte 0  gate   a writer passes it on its way to `hold`; the sweeper keeps it, so that writers queue up
//!           byte 1  hold   shared: this process has unflushed rows; exclusive: the sweeper is deleting
//!           byte 2  init   held while the schema is made
//! keys.lock byte n  key    n = first 62 bits of the key
//! ```
//! While `hold` is exclusive no process has looked something up, or put bytes on disk, that the index does not yet say:
//! a row that is not there then means that nobody counts on the bytes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::sys::{LockKind, Wait, lock_byte, unlock_byte};
use super::{Inner, Store};
use crate::{CacheKey, StoreError};

const GATE: i64 = 0;
const HOLD: i64 = 1;
const INIT: i64 = 2;

/// A locked byte of a lock file.
#[derive(Debug)]
pub(super) struct ByteLock {
    file: File,
    offset: i64,
}

impl ByteLock {
    fn take(path: &Path, offset: i64, kind: LockKind, wait: Wait) -> Result<Option<Self>, StoreError> {
        // A description of its own, so that this lock excludes others of this very process.
        let file = open_lock_file(path)?;
        let taken = lock_byte(&file, offset, kind, wait).map_err(StoreError::io("lock", path))?;
        Ok(taken.then_some(Self { file, offset }))
    }

    fn wait_for(path: &Path, offset: i64, kind: LockKind) -> Result<Self, StoreError> {
        Self::take(path, offset, kind, Wait::Block)?.ok_or_else(|| StoreError::Io {
            action: "lock",
            path: path.to_owned(),
            source: std::io::ErrorKind::WouldBlock.into(),
        })
    }
}

impl Drop for ByteLock {
    fn drop(&mut self) {
        // A failure leaves the lock to the close of the description, which follows at once.
        let _ = unlock_byte(&self.file, self.offset);
    }
}

fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open lock file", path))
}

/// The writers' side of the sweep lock: shared by all operations between two flushes.
#[derive(Debug)]
pub(super) struct SweepLock {
    path: PathBuf,
    generation: AtomicU64,
    current: Mutex<(u64, Weak<ByteLock>)>,
}

/// Keeps the sweeper out while it lives.
pub(super) type Guard = Arc<ByteLock>;

/// The sweeper's side.
#[derive(Debug)]
pub(super) struct SweepGuard {
    _hold: ByteLock,
    _gate: ByteLock,
}

impl SweepLock {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            path: root.join("gc.lock"),
            generation: AtomicU64::new(0),
            current: Mutex::new((0, Weak::new())),
        }
    }

    /// Keeps sweepers out. Must not be called by a thread that holds a guard or a lock that flushing needs: it waits
    /// while a sweeper wants in, and the sweeper waits for the guards of unflushed batches.
    pub(super) fn guard(&self) -> Result<Guard, StoreError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        if current.0 == generation
            && let Some(guard) = current.1.upgrade()
        {
            return Ok(guard);
        }
        let gate = ByteLock::wait_for(&self.path, GATE, LockKind::Shared)?;
        let guard = Arc::new(ByteLock::wait_for(&self.path, HOLD, LockKind::Shared)?);
        drop(gate);
        *current = (generation, Arc::downgrade(&guard));
        Ok(guard)
    }

    /// Makes the next guard a fresh one, so that a waiting sweeper gets its turn. Called when a batch is taken to be
    /// flushed; takes no lock, since a thread that waits at the gate holds it.
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until no process has unflushed rows and keeps it so.
    pub(super) fn sweep(&self) -> Result<SweepGuard, StoreError> {
        let gate = ByteLock::wait_for(&self.path, GATE, LockKind::Exclusive)?;
        let hold = ByteLock::wait_for(&self.path, HOLD, LockKind::Exclusive)?;
        Ok(SweepGuard {
            _hold: hold,
            _gate: gate,
        })
    }

    /// Fails, and says why, where nothing can be written. SQLite would go on, reading only.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        open_lock_file(&self.path).map(drop)
    }

    /// Held while a new store is laid out.
    pub(super) fn init(&self) -> Result<ByteLock, StoreError> {
        ByteLock::wait_for(&self.path, INIT, LockKind::Exclusive)
    }
}

/// Held while one process works on a key; released on drop and by the death of the process.
#[derive(Debug)]
pub struct KeyLock {
    _byte: ByteLock,
}

impl Store {
    /// Takes the lock of a cache key; `None` when another process or task holds it. Two keys share a lock with
    /// probability 2⁻⁶², and then merely wait for each other.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the lock file cannot be opened or locked.
    pub fn try_lock_key(&self, key: &CacheKey) -> Result<Option<KeyLock>, StoreError> {
        let inner: &Inner = &self.0.inner;
        let mut first = [0; 8];
        first.copy_from_slice(&key.as_bytes()[..8]);
        // The offset must be a non-negative off_t whose end does not overflow.
        let offset = (u64::from_le_bytes(first) >> 2) as i64;
        let lock = ByteLock::take(&inner.root.join("keys.lock"), offset, LockKind::Exclusive, Wait::No)?;
        Ok(lock.map(|byte| KeyLock { _byte: byte }))
    }
}

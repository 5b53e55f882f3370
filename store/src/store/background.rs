//! The two threads of an open store: one flushes and syncs, one removes scratch. Both start when there is something to
//! do and end, their work done, when the store is closed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Inner;
use super::pending::MAX_AGE;
use super::remove::remove_path;

/// How long blobs may be only in the page cache while a long process lasts: by then the kernel has written most of them on
/// its own, and `syncfs` has little to wait for. What a build keeps is synced by the build itself.
const SYNC_AFTER: Duration = Duration::from_secs(35);
/// Write-ahead log that is worth moving into the database.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// A failed flush or sync is tried again no sooner.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the flusher is told.
#[derive(Debug, Default)]
pub(super) struct Background {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A batch has begun since the flusher last looked.
    pending: bool,
    /// When the first batch was committed that no sync has followed.
    unsynced: Option<Instant>,
    stop: bool,
}

impl Background {
    /// Says that a batch has begun.
    pub(super) fn wake(&self) {
        self.lock().pending = true;
        self.changed.notify_one();
    }

    /// Says that blobs were committed.
    pub(super) fn note_unsynced(&self) {
        self.lock().unsynced.get_or_insert_with(Instant::now);
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    fn wait(&self, state: MutexGuard<'_, State>, until: Option<Instant>) {
        // A wake-up for nothing costs one round of the caller's loop.
        match until {
            Some(at) => drop(
                self.changed
                    .wait_timeout(state, at.saturating_duration_since(Instant::now())),
            ),
            None => drop(self.changed.wait(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the flusher.
pub(super) fn spawn_flusher(inner: Arc<Inner>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("cbs-store-flush".to_owned())
        .spawn(move || run_flusher(&inner))
}

fn run_flusher(inner: &Inner) {
    let mut not_before = Instant::now();
    loop {
        // Asked without holding the state: whoever begins a batch holds the batch and then wants the state.
        let flush_at = inner.pending_since().map(|began| (began + MAX_AGE).max(not_before));
        let (flush, sync) = {
            let mut state = inner.background.lock();
            if state.stop {
                return;
            }
            let now = Instant::now();
            let sync_at = state.unsynced.map(|since| (since + SYNC_AFTER).max(not_before));
            let flush = flush_at.is_some_and(|at| at <= now);
            let sync = sync_at.is_some_and(|at| at <= now);
            if !(flush || sync) {
                if !std::mem::take(&mut state.pending) {
                    inner
                        .background
                        .wait(state, [flush_at, sync_at].into_iter().flatten().min());
                }
                continue;
            }
            (flush, sync)
        };
        // Failures leave everything pending; whoever flushes by hand is told.
        let mut failed = flush && inner.flush().is_err();
        if sync {
            inner.background.lock().unsynced = None;
            if inner.sync().is_err() {
                failed = true;
                inner.background.note_unsynced();
            }
        }
        if inner.index.wal_bytes() > CHECKPOINT_BYTES {
            failed |= inner.index.checkpoint().is_err();
        }
        if failed {
            not_before = Instant::now() + RETRY_AFTER;
        }
    }
}

/// What the reaper is to remove.
enum Job {
    /// A folder below `work/`; its lock is held until it is gone.
    Scratch(Arc<Inner>, OsString, Option<OwnedFd>),
    Path(PathBuf),
}

/// Removes folders off the callers' threads.
#[derive(Debug, Default)]
pub(super) struct Reaper(Mutex<Option<(Sender<Job>, JoinHandle<()>)>>);

impl Reaper {
    pub(super) fn remove(&self, inner: Arc<Inner>, name: OsString, lock: Option<OwnedFd>) {
        self.send(Job::Scratch(inner, name, lock));
    }

    pub(super) fn remove_path(&self, path: PathBuf) {
        self.send(Job::Path(path));
    }

    fn send(&self, job: Job) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            let (sender, receiver) = channel::<Job>();
            let spawned = std::thread::Builder::new()
                .name("cbs-store-reap".to_owned())
                .spawn(move || receiver.into_iter().for_each(reap));
            match spawned {
                Ok(thread) => *slot = Some((sender, thread)),
                Err(_) => {
                    // No thread to be had: do it here.
                    reap(job);
                    return;
                }
            }
        }
        if let Some((sender, _)) = &*slot
            && let Err(unsent) = sender.send(job)
        {
            reap(unsent.0);
        }
    }

    /// Waits until all is removed.
    pub(super) fn finish(&self) {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = slot {
            drop(sender);
            // A panic there has been reported by the panic hook; what it left is swept later.
            let _ = thread.join();
        }
    }
}

/// What cannot be removed now (a mount that is still there) is found again by the next sweep.
fn reap(job: Job) {
    match job {
        Job::Scratch(inner, name, lock) => {
            let _ = inner.remove_scratch(&name);
            drop(lock);
        }
        Job::Path(path) => {
            let _ = remove_path(&path);
        }
    }
}

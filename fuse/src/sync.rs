//! Small pieces for threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks. A panic elsewhere does not matter: every value behind our locks is whole between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that happens once.
#[derive(Debug, Default)]
pub(crate) struct Once {
    happened: Mutex<bool>,
    changed: Condvar,
}

impl Once {
    /// Makes it happen.
    pub(crate) fn happen(&self) {
        *lock(&self.happened) = true;
        self.changed.notify_all();
    }

    /// Whether it has happened.
    pub(crate) fn has_happened(&self) -> bool {
        *lock(&self.happened)
    }

    /// Waits for it.
    pub(crate) fn wait(&self) {
        let mut happened = lock(&self.happened);
        while !*happened {
            happened = self.changed.wait(happened).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for it, but not longer than `limit`.
    pub(crate) fn wait_for(&self, limit: Duration) {
        let happened = lock(&self.happened);
        drop(self.changed.wait_timeout_while(happened, limit, |happened| !*happened));
    }
}

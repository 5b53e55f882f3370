//! What this process knows to be here, so that it need not ask again.
//!
//! Knowledge is good while a lease of this process lives: what is known was put or touched after the newest lease began, so
//! gc keeps it for as long as any lease that lives now. A lease that begins makes all of it void, since what was known
//! before is not yet kept for that one.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{BlobDigest, Directory, Node, TreeDigest};

/// Entries of one generation; the older of two goes when the younger is full.
const GENERATION: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Leases of this process that live.
    leases: usize,
    /// Start of the newest lease there ever was.
    floor: i64,
    blobs: Generations<BlobDigest>,
    /// Directories with all below them.
    complete: Generations<TreeDigest>,
}

#[derive(Debug)]
struct Generations<T> {
    young: HashSet<T>,
    old: HashSet<T>,
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }
}

impl<T: Copy + Eq + Hash> Generations<T> {
    fn has(&self, item: &T) -> bool {
        self.young.contains(item) || self.old.contains(item)
    }

    fn add(&mut self, item: T) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(item);
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_lease(&self, started: i64) {
        let mut state = self.lock();
        state.leases += 1;
        state.floor = state.floor.max(started);
        state.blobs = Generations::default();
        state.complete = Generations::default();
    }

    pub(super) fn end_lease(&self) {
        let mut state = self.lock();
        state.leases = state.leases.saturating_sub(1);
    }

    /// Whether a lease of this process lives.
    pub(super) fn has_lease(&self) -> bool {
        self.lock().leases > 0
    }

    /// Makes everything be asked again.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.blobs = Generations::default();
        state.complete = Generations::default();
    }

    /// Start of the newest lease. To be read before the look that [`Known::add_blob`] tells of.
    pub(super) fn floor(&self) -> i64 {
        self.lock().floor
    }

    pub(super) fn has_blob(&self, digest: &BlobDigest) -> bool {
        let state = self.lock();
        state.leases > 0 && state.blobs.has(digest)
    }

    /// Notes a blob that was put, or found and touched if it was stale, after `floor` was read.
    pub(super) fn add_blob(&self, digest: BlobDigest, floor: i64) {
        let mut state = self.lock();
        // A lease that has begun meanwhile is not served by that touch.
        if state.leases > 0 && state.floor == floor {
            state.blobs.add(digest);
        }
    }

    /// Notes trees that are here with all below them, as [`Known::add_blob`] does.
    pub(super) fn add_complete(&self, digests: impl IntoIterator<Item = TreeDigest>, floor: i64) {
        let mut state = self.lock();
        if state.leases > 0 && state.floor == floor {
            for digest in digests {
                state.complete.add(digest);
            }
        }
    }

    /// Whether all a directory refers to is known to be here.
    pub(super) fn has_all_of(&self, directory: &Directory) -> bool {
        let state = self.lock();
        state.leases > 0
            && directory.entries.iter().all(|entry| match &entry.node {
                Node::File { blob, .. } => state.blobs.has(blob),
                Node::Directory(below) => state.complete.has(&below.digest),
                _ => true,
            })
    }
}

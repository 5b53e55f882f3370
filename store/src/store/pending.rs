//! Rows and small blobs that are not in the index yet.
//!
//! ```text
//! put ─ guard ─► is it here? ─► current batch ─ flush: bytes to the pack, rows in one transaction ─► index
//! ```
//! A batch is visible to this process from the moment of the put until its rows are. It holds a guard of the sweep lock
//! for as long, so that no other process sweeps what it has looked up or put. Flushed by the caller, by thresholds, and
//! by the background thread when it is [`MAX_AGE`] old.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rusqlite::{Transaction, params};

use super::locks::Guard;
use super::packs::Place;
use super::{Access, Inner, Store};
use crate::{BlobDigest, CacheKey, Directory, Sha256Digest, StoreError, TreeDigest};

/// Rows at which a batch is flushed.
const MAX_ROWS: usize = 8 << 10;
/// Bytes at which a batch is flushed.
const MAX_BYTES: usize = 8 << 20;
/// Age at which the background thread flushes a batch: what a sweeper waits for at most.
pub(super) const MAX_AGE: Duration = Duration::from_millis(150);

/// A directory on its way to the index.
#[derive(Clone, Debug)]
pub(super) struct PendingDirectory {
    pub(super) decoded: Arc<Directory>,
    pub(super) encoded: Arc<[u8]>,
    /// All below it is known to be here.
    pub(super) complete: bool,
}

/// Namespace and key.
type FactKey = (String, String);
/// The value, none when the fact is to be forgotten, and when it was written.
type PendingFact = (Option<Vec<u8>>, i64);

/// What one flush writes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    guard: Option<Guard>,
    began: Option<Instant>,
    bytes: usize,
    pub(super) small: HashMap<BlobDigest, Arc<[u8]>>,
    pub(super) large: HashMap<BlobDigest, u64>,
    pub(super) oci: HashMap<Sha256Digest, u64>,
    pub(super) directories: HashMap<TreeDigest, PendingDirectory>,
    pub(super) aliases: HashMap<CacheKey, CacheKey>,
    pub(super) facts: HashMap<FactKey, PendingFact>,
    pub(super) touched_blobs: HashSet<BlobDigest>,
    pub(super) touched_oci: HashSet<Sha256Digest>,
    pub(super) touched_directories: HashSet<TreeDigest>,
    pub(super) touched_realisations: HashSet<CacheKey>,
    /// As those, and their content is whole again.
    pub(super) kept_realisations: HashSet<CacheKey>,
    pub(super) complete: HashSet<TreeDigest>,
}

impl Batch {
    pub(super) fn add_small(&mut self, digest: BlobDigest, bytes: &[u8]) {
        self.small.entry(digest).or_insert_with(|| {
            self.bytes += bytes.len();
            bytes.into()
        });
    }

    pub(super) fn add_directory(&mut self, digest: TreeDigest, directory: PendingDirectory) {
        self.bytes += directory.encoded.len();
        self.directories.insert(digest, directory);
    }

    pub(super) fn add_fact(&mut self, namespace: &str, key: &str, value: Option<Vec<u8>>, written: i64) {
        self.bytes += namespace.len() + key.len() + value.as_ref().map_or(0, Vec::len);
        self.facts
            .insert((namespace.to_owned(), key.to_owned()), (value, written));
    }

    fn rows(&self) -> usize {
        self.small.len()
            + self.large.len()
            + self.oci.len()
            + self.directories.len()
            + self.aliases.len()
            + self.facts.len()
            + self.touched_blobs.len()
            + self.touched_oci.len()
            + self.touched_directories.len()
            + self.touched_realisations.len()
            + self.kept_realisations.len()
            + self.complete.len()
    }

    fn is_full(&self, times: usize) -> bool {
        self.bytes >= MAX_BYTES * times || self.rows() >= MAX_ROWS * times
    }

    fn has_blobs(&self) -> bool {
        !(self.small.is_empty() && self.large.is_empty() && self.oci.is_empty())
    }

    /// Takes back what could not be flushed; what was put since wins.
    fn absorb(&mut self, older: &Self) {
        fn fill<K: Clone + Eq + std::hash::Hash, V: Clone>(into: &mut HashMap<K, V>, from: &HashMap<K, V>) {
            for (key, value) in from {
                into.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        self.bytes += older.bytes;
        self.guard = self.guard.take().or_else(|| older.guard.clone());
        self.began = older.began.or(self.began);
        fill(&mut self.small, &older.small);
        fill(&mut self.large, &older.large);
        fill(&mut self.oci, &older.oci);
        fill(&mut self.directories, &older.directories);
        fill(&mut self.aliases, &older.aliases);
        fill(&mut self.facts, &older.facts);
        self.touched_blobs.extend(&older.touched_blobs);
        self.touched_oci.extend(&older.touched_oci);
        self.touched_directories.extend(&older.touched_directories);
        self.touched_realisations.extend(&older.touched_realisations);
        self.kept_realisations.extend(&older.kept_realisations);
        self.complete.extend(&older.complete);
    }

    fn write(
        &self,
        transaction: &Transaction<'_>,
        tick: i64,
        places: &[(BlobDigest, Place)],
        boot: &str,
    ) -> rusqlite::Result<()> {
        if self.has_blobs() {
            transaction
                .prepare_cached("INSERT INTO batches VALUES(?1, ?2)")?
                .execute(params![tick, boot])?;
        }
        // Another process may have been first; its copy stays, ours is dead space until the pack is rewritten.
        let mut insert = transaction.prepare_cached(
            "INSERT INTO blobs(digest, size, pack, offset, used, made) VALUES(?1, ?2, ?3, ?4, ?5, ?5)
             ON CONFLICT DO UPDATE SET used = excluded.used",
        )?;
        for (digest, place) in places {
            insert.execute(params![digest.as_bytes(), place.length, place.pack, place.offset, tick])?;
        }
        for (digest, size) in &self.large {
            insert.execute(params![digest.as_bytes(), *size as i64, None::<i64>, None::<i64>, tick])?;
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO oci(digest, size, used, made) VALUES(?1, ?2, ?3, ?3)
             ON CONFLICT DO UPDATE SET used = excluded.used",
        )?;
        for (digest, size) in &self.oci {
            insert.execute(params![digest.as_bytes(), *size as i64, tick])?;
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO directories(digest, used, complete, data) VALUES(?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET used = excluded.used, complete = max(complete, excluded.complete)",
        )?;
        for (digest, directory) in &self.directories {
            insert.execute(params![
                digest.as_bytes(),
                tick,
                directory.complete,
                &*directory.encoded
            ])?;
        }
        let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO aliases VALUES(?1, ?2, ?3)")?;
        for (alias, key) in &self.aliases {
            insert.execute(params![alias.as_bytes(), key.as_bytes(), tick])?;
        }
        let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO facts VALUES(?1, ?2, ?3, ?4)")?;
        let mut delete = transaction.prepare_cached("DELETE FROM facts WHERE namespace = ?1 AND key = ?2")?;
        for ((namespace, key), (value, written)) in &self.facts {
            match value {
                Some(value) => insert.execute(params![namespace, key, value, written])?,
                None => delete.execute(params![namespace, key])?,
            };
        }
        self.write_touches(transaction, tick)
    }

    fn write_touches(&self, transaction: &Transaction<'_>, tick: i64) -> rusqlite::Result<()> {
        let mut touch = transaction.prepare_cached("UPDATE blobs SET used = ?1 WHERE digest = ?2")?;
        for digest in &self.touched_blobs {
            touch.execute(params![tick, digest.as_bytes()])?;
        }
        let mut touch = transaction.prepare_cached("UPDATE oci SET used = ?1 WHERE digest = ?2")?;
        for digest in &self.touched_oci {
            touch.execute(params![tick, digest.as_bytes()])?;
        }
        let mut touch = transaction.prepare_cached("UPDATE directories SET used = ?1 WHERE digest = ?2")?;
        for digest in &self.touched_directories {
            touch.execute(params![tick, digest.as_bytes()])?;
        }
        // A realisation may be found without its content; to say that it has it would be a lie until it is made again.
        let mut touch = transaction.prepare_cached("UPDATE realisations SET used = ?1 WHERE key = ?2")?;
        for key in &self.touched_realisations {
            touch.execute(params![tick, key.as_bytes()])?;
        }
        let mut touch = transaction.prepare_cached("UPDATE realisations SET used = ?1, kept = 1 WHERE key = ?2")?;
        for key in &self.kept_realisations {
            touch.execute(params![tick, key.as_bytes()])?;
        }
        let mut complete = transaction.prepare_cached("UPDATE directories SET complete = 1 WHERE digest = ?1")?;
        for digest in &self.complete {
            complete.execute([digest.as_bytes()])?;
        }
        Ok(())
    }
}

/// The batch being filled and the one being flushed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    current: Batch,
    flushing: Option<Arc<Batch>>,
}

impl Pending {
    /// Asks the newer batch first.
    pub(super) fn find<T>(&self, mut ask: impl FnMut(&Batch) -> Option<T>) -> Option<T> {
        ask(&self.current).or_else(|| self.flushing.as_deref().and_then(ask))
    }

    /// As [`Pending::find`] for when something was used. What is being flushed may get a tick from before a lease that
    /// has just begun, so it counts as stale and is touched again.
    pub(super) fn used(&self, has: impl Fn(&Batch) -> bool) -> Option<i64> {
        if has(&self.current) {
            return Some(i64::MAX);
        }
        self.flushing.as_deref().is_some_and(has).then_some(0)
    }
}

impl Store {
    /// Commits pending rows in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; everything stays pending and the next flush tries again.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.0.inner.flush()
    }
}

impl Inner {
    pub(super) fn pending(&self) -> RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending_mut(&self) -> RwLockWriteGuard<'_, Pending> {
        self.pending.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the current batch, which keeps the guard that the caller looked things up under.
    pub(super) fn register(&self, guard: Guard, add: impl FnOnce(&mut Batch)) -> Result<(), StoreError> {
        let (first, full, overfull) = {
            let mut pending = self.pending_mut();
            let batch = &mut pending.current;
            batch.guard.get_or_insert(guard);
            let first = batch.began.is_none();
            batch.began.get_or_insert_with(Instant::now);
            add(batch);
            (first, batch.is_full(1), batch.is_full(4))
        };
        if first {
            self.background.wake();
        }
        if overfull {
            // Writers outrun the disk: wait, so that memory stays bounded.
            self.flush()
        } else if full && let Ok(_serial) = self.flushing.try_lock() {
            self.flush_serially("flush", &mut |_, _| Ok(()))
        } else {
            Ok(())
        }
    }

    /// When the oldest pending row was put.
    pub(super) fn pending_since(&self) -> Option<Instant> {
        self.pending().current.began
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        let _serial = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_serially("flush", &mut |_, _| Ok(()))
    }

    /// Flushes and makes another change in the same transaction.
    pub(super) fn commit(
        &self,
        action: &'static str,
        mut change: impl FnMut(&Transaction<'_>, i64) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let _serial = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        self.flush_serially(action, &mut |transaction, tick| {
            changed = true;
            change(transaction, tick)
        })?;
        if changed {
            return Ok(());
        }
        // Nothing was pending.
        self.index.write(action, change)
    }

    /// To be called with [`Inner::flushing`] held. Does nothing when nothing is pending.
    fn flush_serially(
        &self,
        action: &'static str,
        change: &mut dyn FnMut(&Transaction<'_>, i64) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let batch = {
            let mut pending = self.pending_mut();
            if pending.current.rows() == 0 {
                pending.current = Batch::default();
                return Ok(());
            }
            let batch = Arc::new(std::mem::take(&mut pending.current));
            pending.flushing = Some(batch.clone());
            self.sweep_lock.renew();
            batch
        };
        let result = self.packs.append(&batch.small, &self.index).and_then(|places| {
            self.index.write(action, |transaction, tick| {
                batch.write(transaction, tick, &places, &self.boot)?;
                change(transaction, tick)
            })
        });
        let mut pending = self.pending_mut();
        pending.flushing = None;
        if result.is_err() {
            pending.current.absorb(&batch);
        } else if batch.has_blobs() {
            self.background.note_unsynced();
        }
        result
    }
}

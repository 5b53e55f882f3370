//! Syncing in the background, and what is done after a power loss.
//!
//! A transaction that adds blobs adds a row to `batches`. `syncfs` makes everything before it safe, and then the rows
//! of all batches of this boot go, whoever made them. A batch of another boot that is still there was never synced: its
//! blobs are hashed again and those that are wrong are dropped, before this process looks at anything.

use std::os::fd::AsFd;
use std::sync::PoisonError;

use super::{Access, Inner, Store};
use crate::{BlobDigest, Sha256Digest, StoreError};

impl Store {
    /// Flushes and waits until everything is on disk, for who has just told a user that it is done. Without it a power
    /// loss may cost the last seconds; never more than those, and never a wrong byte.
    ///
    /// # Errors
    /// [`StoreError`] when writing or syncing fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        inner.flush()?;
        inner.sync()
    }
}

impl Inner {
    /// Puts everything committed so far on disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let batches: Vec<i64> = self.index.read("list batches", |connection| {
            connection
                .prepare_cached("SELECT tick FROM batches WHERE boot = ?1")?
                .query_map([&self.boot], |row| row.get(0))?
                .collect()
        })?;
        if batches.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(self.blobs_fd.as_fd()).map_err(|err| StoreError::io("sync", &self.root)(err.into()))?;
        self.index.write("note sync", |transaction, _| {
            let mut delete = transaction.prepare_cached("DELETE FROM batches WHERE tick = ?1")?;
            batches.iter().try_for_each(|tick| delete.execute([tick]).map(drop))
        })
    }

    /// Whether a batch may not have reached the disk before the machine went down.
    pub(super) fn is_suspect(&self, made: i64) -> bool {
        self.suspects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&made)
    }

    fn foreign_batches(&self) -> Result<Vec<i64>, StoreError> {
        self.index.read("list batches", |connection| {
            connection
                .prepare_cached("SELECT tick FROM batches WHERE boot <> ?1")?
                .query_map([&self.boot], |row| row.get(0))?
                .collect()
        })
    }

    fn has_batches(&self) -> Result<bool, StoreError> {
        self.index.read("list batches", |connection| {
            connection.query_row("SELECT EXISTS(SELECT 1 FROM batches)", [], |row| row.get(0))
        })
    }

    /// Checks what an earlier boot may have lost.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        if self.foreign_batches()?.is_empty() {
            if self.is_writable() && self.has_batches()? {
                // Of processes that ended too soon to sync: a longer one does it for all.
                self.background.note_unsynced();
            }
            return Ok(());
        }
        if self.access == Access::ReadOnly {
            let suspects = self.foreign_batches()?.into_iter().collect();
            *self.suspects.write().unwrap_or_else(PoisonError::into_inner) = suspects;
            return Ok(());
        }
        let _sweep = self.sweep_lock.sweep()?;
        // Another process may have done it while we waited.
        let batches = self.foreign_batches()?;
        let blobs = self.blob_entries(Some(&self.boot))?;
        let bad = self.in_parallel(&blobs, |(digest, row)| Ok(!self.blob_is_sound(digest, row)?))?;
        let bad_blobs: Vec<BlobDigest> = bad.into_iter().map(|(digest, _)| digest).collect();
        let layers: Vec<Sha256Digest> = self.index.read("list layers", |connection| {
            connection
                .prepare("SELECT digest FROM oci WHERE made IN (SELECT tick FROM batches WHERE boot <> ?1)")?
                .query_map([&self.boot], |row| row.get(0).map(Sha256Digest::from_bytes))?
                .collect()
        })?;
        let bad_layers = self.in_parallel(&layers, |digest| Ok(!self.oci_is_sound(digest)?))?;
        self.drop_damaged(&bad_blobs, &bad_layers)?;
        self.index.write_synced("end recovery", |transaction, _| {
            let mut delete = transaction.prepare_cached("DELETE FROM batches WHERE tick = ?1")?;
            batches.iter().try_for_each(|tick| delete.execute([tick]).map(drop))
        })
    }
}

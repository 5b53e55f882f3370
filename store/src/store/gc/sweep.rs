//! Doing what the plan says, in turns that keep writers waiting for a moment each.

use std::time::Duration;

use rusqlite::params;
use rustix::fs::{AtFlags, FlockOperation, unlinkat};
use rustix::io::Errno;

use super::catalog::{Catalog, Item, Marks};
use super::plan::{Plan, realisation_items, snapshot_items};
use super::rows::Mount;
use super::{GcReport, Kept, KeptBecause, StoreItem};
use crate::store::Inner;
use crate::store::caches::lock_slot;
use crate::store::realisations::decode;
use crate::store::scratch::Scratch;
use crate::{BlobDigest, CacheKey, Directory, StoreError, TreeDigest, blob_path};

/// Rows of blobs deleted in one turn.
const TURN_ROWS: usize = 10_000;
/// Blob files removed in one turn.
const TURN_FILES: usize = 1_000;
/// Between turns writers get at least this long.
const PAUSE: Duration = Duration::from_millis(5);

impl Inner {
    /// Removes what the plan does not keep and nobody has touched since.
    pub(super) fn sweep_plan(&self, plan: Plan, report: &mut GcReport) -> Result<(), StoreError> {
        if !plan.evicts() {
            return Ok(());
        }
        let Plan {
            catalog,
            mut marks,
            evicted_runs,
            evicted_mounts,
            evicted_oci,
            ..
        } = plan;
        let tick = catalog.tick;
        let mut seen = tick;
        {
            let _turn = self.sweep_lock.sweep()?;
            self.mark_touched(&catalog, &mut marks, &mut seen)?;
            let directories: Vec<i64> = (0..catalog.directories.len() as u32)
                .filter(|number| !marks.has(Item::Directory(*number)))
                .map(|number| catalog.directories[number as usize].id)
                .collect();
            // All in one: a directory that stays has all below it, so `complete` stays true.
            self.index.write("remove directories", |transaction, _| {
                let mut update =
                    transaction.prepare_cached("UPDATE realisations SET kept = 0 WHERE id = ?1 AND used <= ?2")?;
                for run in &evicted_runs {
                    update.execute(params![run.id, tick])?;
                }
                let mut delete = transaction.prepare_cached("DELETE FROM directories WHERE id = ?1 AND used <= ?2")?;
                for id in &directories {
                    delete.execute(params![id, tick])?;
                }
                Ok(())
            })?;
            self.remove_mounts(evicted_mounts, tick, report)?;
            let mut gone = Vec::new();
            self.index.write_synced("remove layers", |transaction, _| {
                gone.clear();
                let mut delete = transaction.prepare_cached("DELETE FROM oci WHERE digest = ?1 AND used <= ?2")?;
                for oci in &evicted_oci {
                    if delete.execute(params![oci.digest.as_bytes(), tick])? > 0 {
                        gone.push(oci.digest);
                    }
                }
                Ok(())
            })?;
            for digest in gone {
                unlink(&self.layers_fd, &digest.to_string())
                    .map_err(StoreError::io("remove layer", &self.oci_file(&digest)))?;
            }
        }
        self.cache.clear();
        self.sweep_blobs(&catalog, &mut marks, seen)
    }

    fn sweep_blobs(&self, catalog: &Catalog, marks: &mut Marks, mut seen: i64) -> Result<(), StoreError> {
        let mut next = 0_u32;
        let end = catalog.blobs.len() as u32;
        while next < end {
            std::thread::sleep(PAUSE);
            let _turn = self.sweep_lock.sweep()?;
            self.mark_touched(catalog, marks, &mut seen)?;
            let (mut chunk, mut files) = (Vec::new(), 0);
            while next < end && chunk.len() < TURN_ROWS && files < TURN_FILES {
                if !marks.has(Item::Blob(next)) {
                    let blob = &catalog.blobs[next as usize];
                    files += usize::from(blob.pack == 0);
                    chunk.push(blob);
                }
                next += 1;
            }
            let mut gone: Vec<BlobDigest> = Vec::new();
            self.index.write_synced("remove blobs", |transaction, _| {
                gone.clear();
                let mut delete = transaction.prepare_cached("DELETE FROM blobs WHERE digest = ?1 AND used <= ?2")?;
                for blob in &chunk {
                    if delete.execute(params![blob.digest.as_bytes(), catalog.tick])? > 0 && blob.pack == 0 {
                        gone.push(blob.digest);
                    }
                }
                Ok(())
            })?;
            // In the same turn: later, a new file of the same name could be the one that goes.
            for digest in gone {
                unlink(&self.blobs_fd, &blob_path(&digest))
                    .map_err(StoreError::io("remove blob", &self.blob_file(&digest)))?;
            }
        }
        Ok(())
    }

    /// Marks what others put, found or named since the catalog was read. To be called in a turn.
    fn mark_touched(&self, catalog: &Catalog, marks: &mut Marks, seen: &mut i64) -> Result<(), StoreError> {
        let now = self.index.tick()?;
        let directories: Vec<(TreeDigest, Vec<u8>)> = self.index.read("list new directories", |connection| {
            connection
                .prepare_cached("SELECT digest, data FROM directories WHERE used > ?1")?
                .query_map([*seen], |row| Ok((TreeDigest::from_bytes(row.get(0)?), row.get(1)?)))?
                .collect()
        })?;
        for (digest, encoded) in directories {
            if let Some(number) = catalog.directory(&digest) {
                marks.add(catalog, Item::Directory(number));
                continue;
            }
            // What is below a new directory is in the catalog or as new itself.
            let Ok(directory) = Directory::decode(&encoded) else {
                continue;
            };
            for entry in &directory.entries {
                if let Some(Some(item)) = catalog.target(&entry.node) {
                    marks.add(catalog, item);
                }
            }
        }
        let runs: Vec<(CacheKey, Vec<u8>)> = self.index.read("list new realisations", |connection| {
            connection
                .prepare_cached("SELECT key, data FROM realisations WHERE used > ?1")?
                .query_map([*seen], |row| Ok((CacheKey::from_bytes(row.get(0)?), row.get(1)?)))?
                .collect()
        })?;
        for (key, data) in runs {
            let Ok(realisation) = decode(&key, &data) else { continue };
            for item in realisation_items(catalog, &realisation) {
                marks.add(catalog, item);
            }
        }
        for root in self.roots()? {
            for item in root
                .snapshots
                .iter()
                .flat_map(|snapshot| snapshot_items(catalog, snapshot))
            {
                marks.add(catalog, item);
            }
        }
        *seen = now;
        Ok(())
    }

    fn remove_mounts(&self, mounts: Vec<Mount>, tick: i64, report: &mut GcReport) -> Result<(), StoreError> {
        if mounts.is_empty() {
            return Ok(());
        }
        let trash = Scratch::create(self)?;
        for mount in mounts {
            let folder = self.caches.join(&mount.hash);
            if !folder.is_dir() {
                continue;
            }
            let lock = lock_slot(&folder, mount.slot, FlockOperation::NonBlockingLockExclusive)?;
            let mut removed = false;
            if lock.is_some() {
                self.index.write("forget cache mount", |transaction, _| {
                    removed = transaction
                        .prepare_cached("DELETE FROM caches WHERE hash = ?1 AND slot = ?2 AND used <= ?3")?
                        .execute(params![mount.hash, mount.slot, tick])?
                        > 0;
                    Ok(())
                })?;
            }
            if !removed {
                report.keep_busy(mount);
                continue;
            }
            let path = folder.join(mount.slot.to_string());
            match std::fs::rename(&path, trash.path.join(trash.next_name("cache"))) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove cache mount", &path)(err));
                }
                _ => {}
            }
            let lock_path = folder.join(format!("{}.lock", mount.slot));
            std::fs::remove_file(&lock_path).map_err(StoreError::io("remove cache lock", &lock_path))?;
            // Stays while there are other slots.
            let _ = std::fs::remove_dir(&folder);
        }
        self.remove_scratch(trash.id.as_ref())
            .map_err(StoreError::io("remove cache mounts", &trash.path))
    }
}

impl GcReport {
    /// Corrects the report: it was in use after all.
    fn keep_busy(&mut self, mount: Mount) {
        let item = StoreItem::CacheMount(mount.id, mount.slot);
        if let Some(position) = self.removed.iter().position(|removed| removed.item == item) {
            self.freed -= self.removed.remove(position).bytes;
        }
        self.kept.push(Kept {
            item,
            bytes: mount.bytes,
            because: KeptBecause::Busy,
        });
    }
}

/// Removes a file; one that is gone already is no error.
fn unlink(folder: &std::os::fd::OwnedFd, name: &str) -> std::io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

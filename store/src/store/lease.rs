//! Leases: what keeps the work of a living process from gc.
//!
//! A lease is a row with the tick of its start and a scratch folder that its process keeps locked. Everything put,
//! touched or found by anyone since the oldest living lease began is kept by gc; so keeping something means touching it.
//! Take one lease per build, not per daemon: for as long as it lives nothing newer than it is collected.

use std::path::{Path, PathBuf};

use rusqlite::params;

use super::records::Snapshot;
use super::scratch::Scratch;
use super::{Inner, Store};
use crate::StoreError;

/// What keeps a living process's work from gc; gone when dropped. Scratch below it is removed with it, in the
/// background, but before the store is closed.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    /// `None` only while being dropped.
    scratch: Option<Scratch>,
    path: PathBuf,
}

impl Store {
    /// Starts a lease of this process; also sweeps what dead processes left.
    ///
    /// # Errors
    /// [`StoreError`] when the scratch folder or the row cannot be made.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        self.sweep_leases()?;
        let scratch = Scratch::create(inner)?;
        let mut started = 0;
        let pid = std::process::id();
        inner.index.write("start lease", |transaction, tick| {
            started = tick;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO leases VALUES(?1, ?2, ?3)")?
                .execute(params![scratch.id, tick, pid])
        })?;
        inner.known.begin_lease(started);
        let path = scratch.path.clone();
        Ok(Lease {
            store: self.clone(),
            scratch: Some(scratch),
            path,
        })
    }

    /// Removes the scratch folders of dead processes, in the background, and forgets their leases.
    fn sweep_leases(&self) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        for (name, lock) in inner.dead_scratch()? {
            self.0.reaper.remove(inner.clone(), name, lock);
        }
        let ids = inner.lease_ids()?;
        let mut dead = Vec::new();
        for id in ids {
            if !inner.scratch_is_alive(&id)? {
                dead.push(id);
            }
        }
        if dead.is_empty() {
            return Ok(());
        }
        inner.index.write("end leases", |transaction, _| {
            let mut delete = transaction.prepare_cached("DELETE FROM leases WHERE id = ?1")?;
            dead.iter().try_for_each(|id| delete.execute([id]).map(drop))
        })
    }
}

impl Inner {
    fn lease_ids(&self) -> Result<Vec<String>, StoreError> {
        self.index.read("list leases", |connection| {
            connection
                .prepare_cached("SELECT id FROM leases")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// When the oldest living lease began, and whose it is.
    pub(super) fn oldest_lease(&self) -> Result<Option<(i64, String)>, StoreError> {
        let leases: Vec<(i64, String)> = self.index.read("list leases", |connection| {
            connection
                .prepare_cached("SELECT started, id FROM leases ORDER BY started")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        for (started, id) in leases {
            if self.scratch_is_alive(&id)? {
                return Ok(Some((started, id)));
            }
        }
        Ok(None)
    }
}

impl Lease {
    /// A folder of this lease's own, on the file system of the store, for uppers and partial downloads.
    pub fn scratch(&self) -> &Path {
        &self.path
    }

    /// A new empty folder below [`Lease::scratch`], mode 0700.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be made.
    pub fn new_dir(&self, prefix: &str) -> Result<PathBuf, StoreError> {
        let name = match &self.scratch {
            Some(scratch) => scratch.next_name(prefix),
            None => prefix.to_owned(),
        };
        let path = self.path.join(name);
        make_private_dir(&path)?;
        Ok(path)
    }

    /// Removes something below [`Lease::scratch`] in the background: any tree, whatever a container left in it. It stops
    /// at mounts; what cannot be removed is tried again with the whole scratch.
    pub fn discard(&self, path: PathBuf) {
        if path.starts_with(&self.path) && path != self.path {
            self.store.0.reaper.remove_path(path);
        }
    }

    /// Keeps a snapshot until the lease ends.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be written.
    pub fn keep(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let inner = &self.store.0.inner;
        let guard = inner.sweep_lock.guard()?;
        inner.register(guard, |batch| {
            batch.touched_directories.insert(snapshot.tree);
            batch
                .touched_directories
                .extend(snapshot.layers.iter().map(|layer| layer.diff));
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let inner = &self.store.0.inner;
        let Some(scratch) = self.scratch.take() else { return };
        inner.known.end_lease();
        // What a killed process left may have been held by its dying children when this lease began. Whatever goes wrong
        // now goes wrong again with the next lease, which says so.
        self.store.sweep_leases().unwrap_or_default();
        // A row that stays is swept with the next lease: its folder is not locked any more.
        let _ = inner.index.write("end lease", |transaction, _| {
            transaction
                .prepare_cached("DELETE FROM leases WHERE id = ?1")?
                .execute([&scratch.id])
        });
        self.store
            .0
            .reaper
            .remove(inner.clone(), scratch.id.into(), Some(scratch.folder));
    }
}

fn make_private_dir(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("create folder", path))
}

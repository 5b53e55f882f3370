//! The action cache: what each cache key gave.

use rusqlite::{Connection, OptionalExtension, params};

use super::records::{decode_realisation, encode_realisation};
use super::{Inner, Realisation, Store};
use crate::{CacheKey, StoreError};

/// A row of `realisations`.
struct Row {
    used: i64,
    /// gc has not given its content up.
    kept: bool,
    data: Vec<u8>,
}

fn realisation_row(connection: &Connection, key: &CacheKey) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached("SELECT used, kept, data FROM realisations WHERE key = ?1")?
        .query_row([key.as_bytes()], |row| {
            Ok(Row {
                used: row.get(0)?,
                kept: row.get(1)?,
                data: row.get(2)?,
            })
        })
        .optional()
}

fn alias_row(connection: &Connection, alias: &CacheKey) -> rusqlite::Result<Option<CacheKey>> {
    connection
        .prepare_cached("SELECT key FROM aliases WHERE alias = ?1")?
        .query_row([alias.as_bytes()], |row| row.get(0).map(CacheKey::from_bytes))
        .optional()
}

impl Store {
    /// What a key or alias gave, if it is remembered. It may outlive its content: see [`Store::is_complete`]. What is
    /// found is kept until the leases of now have ended.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked or the record is damaged.
    pub fn realisation(&self, key: &CacheKey) -> Result<Option<Realisation>, StoreError> {
        let inner = &self.0.inner;
        if let Some((key, row)) = inner.find_realisation(key)? {
            if !inner.is_stale(row.used) || !inner.is_writable() {
                return decode(&key, &row.data).map(Some);
            }
            // Content that gc gave up may have come back. Only a lease keeps it until the row says that it is kept.
            let is_back = !row.kept && inner.known.has_lease() && self.has_all_of(&decode(&key, &row.data)?)?;
            // Under a guard it must be looked up again: gc may have been at work since.
            let guard = inner.sweep_lock.guard()?;
            if let Some((key, row)) = inner.find_realisation(&key)? {
                inner.register(guard, |batch| {
                    if is_back {
                        batch.kept_realisations.insert(key);
                    } else {
                        batch.touched_realisations.insert(key);
                    }
                })?;
                return decode(&key, &row.data).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether all that a run gave is here. If so, it is kept as if it had just been put.
    fn has_all_of(&self, run: &Realisation) -> Result<bool, StoreError> {
        for snapshot in run.outputs.iter().flatten() {
            for tree in std::iter::once(&snapshot.tree).chain(snapshot.layers.iter().map(|layer| &layer.diff)) {
                if !self.is_complete(tree)? {
                    return Ok(false);
                }
            }
        }
        let log: Vec<_> = run.log.into_iter().collect();
        Ok(self.missing_blobs(&log)?.is_empty())
    }

    /// Remembers what a key gave, and flushes what it refers to in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; the realisation is then not there.
    pub fn put_realisation(&self, key: &CacheKey, realisation: &Realisation) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let data = encode_realisation(realisation);
        inner.commit("record realisation", |transaction, tick| {
            transaction
                .prepare_cached(
                    "INSERT INTO realisations(key, used, kept, data) VALUES(?1, ?2, 1, ?3)
                     ON CONFLICT(key) DO UPDATE SET used = excluded.used, kept = 1, data = excluded.data",
                )?
                .execute(params![key.as_bytes(), tick, data])
                .map(drop)
        })
    }

    /// Makes `alias` find what `key` finds.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    pub fn alias_realisation(&self, alias: &CacheKey, key: &CacheKey) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        if alias == key {
            return Ok(());
        }
        let guard = inner.sweep_lock.guard()?;
        inner.register(guard, |batch| {
            batch.aliases.insert(*alias, *key);
        })
    }

    /// All realisations, newest use first, with their keys.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked or a record is damaged.
    pub fn realisations(&self) -> Result<Vec<(CacheKey, Realisation)>, StoreError> {
        let rows: Vec<(CacheKey, Vec<u8>)> = self.0.inner.index.read("list realisations", |connection| {
            connection
                .prepare_cached("SELECT key, data FROM realisations ORDER BY used DESC")?
                .query_map([], |row| Ok((CacheKey::from_bytes(row.get(0)?), row.get(1)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(key, data)| decode(&key, &data).map(|realisation| (key, realisation)))
            .collect()
    }
}

impl Inner {
    fn find_realisation(&self, key: &CacheKey) -> Result<Option<(CacheKey, Row)>, StoreError> {
        let pending = self.pending().find(|batch| batch.aliases.get(key).copied());
        let target = pending.unwrap_or(*key);
        self.index.read("look up realisation", |connection| {
            if let Some(row) = realisation_row(connection, &target)? {
                return Ok(Some((target, row)));
            }
            // One step: an alias is made of a key that was just found.
            match alias_row(connection, &target)? {
                Some(key) => Ok(realisation_row(connection, &key)?.map(|row| (key, row))),
                None => Ok(None),
            }
        })
    }
}

pub(super) fn decode(key: &CacheKey, data: &[u8]) -> Result<Realisation, StoreError> {
    decode_realisation(data).map_err(|source| StoreError::DamagedRecord {
        kind: "realisation",
        name: key.to_string(),
        source,
    })
}

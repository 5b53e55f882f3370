//! Small facts that others remember here: resolved tags, ETags, stat caches, build history.

use rusqlite::{OptionalExtension, params};

use super::Store;
use super::index::wall_clock;
use crate::StoreError;

impl Store {
    /// A fact and when it was written, in seconds since 1970.
    ///
    /// # Errors
    /// [`StoreError::Index`] when the index cannot be asked.
    pub fn fact(&self, namespace: &str, key: &str) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        let inner = &self.0.inner;
        // The key of the map is owned; building one costs less than the query it may save.
        let wanted = (namespace.to_owned(), key.to_owned());
        if let Some((value, written)) = inner.pending().find(|batch| batch.facts.get(&wanted).cloned()) {
            return Ok(value.map(|value| (value, written)));
        }
        inner.index.read("look up fact", |connection| {
            connection
                .prepare_cached("SELECT value, written FROM facts WHERE namespace = ?1 AND key = ?2")?
                .query_row(params![namespace, key], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
    }

    /// Writes or replaces a fact; other processes see it after the next flush.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    pub fn put_fact(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.change_fact(namespace, key, Some(value.to_vec()))
    }

    /// Forgets a fact.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    pub fn remove_fact(&self, namespace: &str, key: &str) -> Result<(), StoreError> {
        self.change_fact(namespace, key, None)
    }

    /// Forgets the facts of a namespace that were written before a time in seconds since 1970; says how many.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    pub fn forget_facts(&self, namespace: &str, before: i64) -> Result<u64, StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        inner.flush()?;
        inner.index.write("forget facts", |transaction, _| {
            transaction
                .prepare_cached("DELETE FROM facts WHERE namespace = ?1 AND written < ?2")?
                .execute(params![namespace, before])
                .map(|count| count as u64)
        })
    }

    fn change_fact(&self, namespace: &str, key: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let guard = inner.sweep_lock.guard()?;
        inner.register(guard, |batch| {
            batch.add_fact(namespace, key, value, wall_clock() / 1_000)
        })
    }

    /// All facts of a namespace by key.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked, or pending facts cannot be flushed first.
    pub fn facts(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>, i64)>, StoreError> {
        let inner = &self.0.inner;
        inner.flush()?;
        inner.index.read("list facts", |connection| {
            connection
                .prepare_cached("SELECT key, value, written FROM facts WHERE namespace = ?1 ORDER BY key")?
                .query_map([namespace], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
    }
}

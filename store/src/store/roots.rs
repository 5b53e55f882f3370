//! Named gc roots.

use rusqlite::{OptionalExtension, Row, params};

use super::records::{decode_root, encode_root};
use super::{GcRoot, Inner, Store};
use crate::StoreError;

impl Store {
    /// Makes or replaces a root, and flushes what it refers to in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; the root is then as it was.
    pub fn set_root(&self, root: &GcRoot) -> Result<(), StoreError> {
        self.set_roots(std::slice::from_ref(root))
    }

    /// Makes or replaces roots, all of them or none, and flushes what they refer to in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; the roots are then as they were.
    pub fn set_roots(&self, roots: &[GcRoot]) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let encoded: Vec<Vec<u8>> = roots.iter().map(encode_root).collect();
        inner.commit("set gc root", |transaction, _| {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO roots(name, created, data) VALUES(?1, ?2, ?3)")?;
            for (root, data) in roots.iter().zip(&encoded) {
                insert.execute(params![root.name, root.created, data])?;
            }
            Ok(())
        })
    }

    /// The root of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked or the record is damaged.
    pub fn gc_root(&self, name: &str) -> Result<Option<GcRoot>, StoreError> {
        let row = self.0.inner.index.read("look up gc root", |connection| {
            connection
                .prepare_cached("SELECT name, created, data FROM roots WHERE name = ?1")?
                .query_row([name], columns)
                .optional()
        })?;
        row.map(decode).transpose()
    }

    /// All roots by name.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked or a record is damaged.
    pub fn gc_roots(&self) -> Result<Vec<GcRoot>, StoreError> {
        self.0.inner.roots()
    }

    /// Removes a root; false when there was none. What it kept goes with the next gc.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be written.
    pub fn remove_root(&self, name: &str) -> Result<bool, StoreError> {
        let inner = &self.0.inner;
        inner.index.write("remove gc root", |transaction, _| {
            transaction
                .prepare_cached("DELETE FROM roots WHERE name = ?1")?
                .execute([name])
                .map(|count| count > 0)
        })
    }
}

impl Inner {
    /// All roots. A damaged one is an error also to gc: nobody knows what it keeps.
    pub(super) fn roots(&self) -> Result<Vec<GcRoot>, StoreError> {
        self.root_columns()?.into_iter().map(decode).collect()
    }

    fn root_columns(&self) -> Result<Vec<Columns>, StoreError> {
        self.index.read("list gc roots", |connection| {
            connection
                .prepare_cached("SELECT name, created, data FROM roots ORDER BY name")?
                .query_map([], columns)?
                .collect()
        })
    }

    /// All roots by name; `None` for a damaged one.
    pub(super) fn roots_or_damage(&self) -> Result<Vec<(String, Option<GcRoot>)>, StoreError> {
        let rows = self.root_columns()?;
        Ok(rows.into_iter().map(|row| (row.0.clone(), decode(row).ok())).collect())
    }
}

type Columns = (String, i64, Vec<u8>);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

pub(super) fn decode((name, created, data): Columns) -> Result<GcRoot, StoreError> {
    decode_root(name.clone(), created, &data).map_err(|source| StoreError::DamagedRecord {
        kind: "gc root",
        name,
        source,
    })
}

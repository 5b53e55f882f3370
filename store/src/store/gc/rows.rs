//! The rows that a plan is made from: remembered runs, cache mounts, OCI blobs.

use super::catalog::{Catalog, Item};
use super::plan::realisation_items;
use super::{GcCandidate, GcFilter, StoreItem};
use crate::store::Inner;
use crate::store::realisations::decode;
use crate::store::usage::tree_bytes;
use crate::{CacheKey, Sha256Digest, StoreError};

/// A remembered run.
pub(super) struct Run {
    pub(super) id: i64,
    pub(super) key: CacheKey,
    pub(super) used: i64,
    pub(super) name: String,
    pub(super) items: Vec<Item>,
    /// Whether the filter lets it go.
    pub(super) chosen: bool,
}

/// A folder of a cache mount.
#[derive(Clone, Debug)]
pub(in crate::store) struct Mount {
    pub(in crate::store) hash: String,
    pub(in crate::store) slot: u32,
    pub(in crate::store) id: String,
    pub(in crate::store) used: i64,
    pub(in crate::store) bytes: u64,
}

/// A row of `oci`.
#[derive(Clone, Copy)]
pub(super) struct Oci {
    pub(super) digest: Sha256Digest,
    pub(super) size: u64,
    pub(super) used: i64,
}

impl Inner {
    /// Realisations that have their content, as far as gc knows. Damaged records keep nothing.
    pub(super) fn runs(&self, catalog: &Catalog, filter: GcFilter<'_>) -> Result<Vec<Run>, StoreError> {
        type Row = (i64, CacheKey, i64, Vec<u8>);
        let rows: Vec<Row> = self.index.read("list realisations", |connection| {
            connection
                .prepare("SELECT id, key, used, data FROM realisations WHERE kept = 1")?
                .query_map([], |row| {
                    Ok((row.get(0)?, CacheKey::from_bytes(row.get(1)?), row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        Ok(rows
            .into_iter()
            .filter_map(|(id, key, used, data)| {
                let realisation = decode(&key, &data).ok()?;
                let item = StoreItem::Realisation(key, realisation.name.clone());
                let chosen = filter(&GcCandidate {
                    item: &item,
                    used,
                    realisation: Some(&realisation),
                });
                Some(Run {
                    id,
                    key,
                    used,
                    items: realisation_items(catalog, &realisation),
                    name: realisation.name,
                    chosen,
                })
            })
            .collect())
    }

    pub(super) fn oci_rows(&self) -> Result<Vec<Oci>, StoreError> {
        self.index.read("list layers", |connection| {
            connection
                .prepare("SELECT digest, size, used FROM oci")?
                .query_map([], |row| {
                    Ok(Oci {
                        digest: Sha256Digest::from_bytes(row.get(0)?),
                        size: row.get::<_, i64>(1)?.cast_unsigned(),
                        used: row.get(2)?,
                    })
                })?
                .collect()
        })
    }

    /// Cache mounts with their sizes.
    pub(in crate::store) fn mounts(&self) -> Result<Vec<Mount>, StoreError> {
        let mut mounts: Vec<Mount> = self.index.read("list cache mounts", |connection| {
            connection
                .prepare("SELECT hash, slot, name, used FROM caches ORDER BY name, slot")?
                .query_map([], |row| {
                    Ok(Mount {
                        hash: row.get(0)?,
                        slot: row.get(1)?,
                        id: row.get(2)?,
                        used: row.get(3)?,
                        bytes: 0,
                    })
                })?
                .collect()
        })?;
        for mount in &mut mounts {
            mount.bytes = tree_bytes(&self.caches.join(&mount.hash).join(mount.slot.to_string()))?;
        }
        Ok(mounts)
    }
}

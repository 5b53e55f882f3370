//! Syncing in the background, and what is done after a power loss.
//!
//! A transaction that adds blobs adds a row to `batches`. `syncfs` makes everything before it safe, and then the rows
//! of all batches of this boot go, whoever made them. A batch of another boot that is still there was never synced: its
//! blobs are hashed again and those that are wrong are dropped, before this process looks at anything.

use std::os::fd::AsFd;
use std::sync::PoisonError;

use rusqlite::params;

use super::blobs::{BlobRow, hash_reader};
use super::packs::Place;
use super::{Access, Inner};
use crate::{BlobDigest, Sha256Digest, StoreError};

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

    /// Checks what an earlier boot may have lost.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        if self.foreign_batches()?.is_empty() {
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
        let mut bad_blobs = Vec::new();
        let mut bad_layers = Vec::new();
        for batch in &batches {
            for (digest, row) in self.blobs_of(*batch)? {
                if !self.blob_is_sound(&digest, &row)? {
                    bad_blobs.push(digest);
                }
            }
            for digest in self.layers_of(*batch)? {
                if !self.oci_is_sound(&digest)? {
                    bad_layers.push(digest);
                }
            }
        }
        self.drop_damaged(&bad_blobs, &bad_layers)?;
        self.index.write_synced("end recovery", |transaction, _| {
            let mut delete = transaction.prepare_cached("DELETE FROM batches WHERE tick = ?1")?;
            batches.iter().try_for_each(|tick| delete.execute([tick]).map(drop))
        })
    }

    fn blobs_of(&self, batch: i64) -> Result<Vec<(BlobDigest, BlobRow)>, StoreError> {
        self.index.read("list blobs", |connection| {
            connection
                .prepare_cached("SELECT digest, size, pack, offset FROM blobs WHERE made = ?1")?
                .query_map([batch], |row| {
                    let size: i64 = row.get(1)?;
                    let place = match (row.get(2)?, row.get(3)?) {
                        (Some(pack), Some(offset)) => Some(Place {
                            pack,
                            offset,
                            length: size,
                        }),
                        _ => None,
                    };
                    Ok((
                        BlobDigest::from_bytes(row.get(0)?),
                        BlobRow {
                            size: size.cast_unsigned(),
                            place,
                            used: 0,
                            made: batch,
                        },
                    ))
                })?
                .collect()
        })
    }

    fn layers_of(&self, batch: i64) -> Result<Vec<Sha256Digest>, StoreError> {
        self.index.read("list layers", |connection| {
            connection
                .prepare_cached("SELECT digest FROM oci WHERE made = ?1")?
                .query_map([batch], |row| row.get(0).map(Sha256Digest::from_bytes))?
                .collect()
        })
    }

    /// Whether a blob's bytes are all there and the right ones.
    pub(super) fn blob_is_sound(&self, digest: &BlobDigest, row: &BlobRow) -> Result<bool, StoreError> {
        let actual = match &row.place {
            Some(place) => self.packs.read(place)?.map(|bytes| BlobDigest::of(&bytes)),
            None => match self.open_blob_file(digest)? {
                Some(file) => {
                    let hashed = hash_reader(&file);
                    Some(hashed.map_err(StoreError::io("read blob", &self.blob_file(digest)))?.0)
                }
                None => None,
            },
        };
        Ok(actual == Some(*digest))
    }

    /// Whether an OCI blob's bytes are all there and the right ones.
    pub(super) fn oci_is_sound(&self, digest: &Sha256Digest) -> Result<bool, StoreError> {
        use sha2::Digest as _;
        let path = self.oci_file(digest);
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(StoreError::io("read layer", &path)(err)),
        };
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = std::io::Read::read(&mut file, &mut buffer).map_err(StoreError::io("read layer", &path))?;
            if count == 0 {
                return Ok(Sha256Digest::from_bytes(hasher.finalize().into()) == *digest);
            }
            hasher.update(&buffer[..count]);
        }
    }

    /// Drops rows and files of damaged blobs; to be called with the sweep lock held. Trees that refer to them stop being
    /// complete, so that the next build makes them anew.
    pub(super) fn drop_damaged(&self, blobs: &[BlobDigest], layers: &[Sha256Digest]) -> Result<(), StoreError> {
        if blobs.is_empty() && layers.is_empty() {
            return Ok(());
        }
        // Rows first, and on disk, so that no row ever lacks its file.
        self.index.write_synced("drop damaged blobs", |transaction, _| {
            let mut delete = transaction.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?;
            for digest in blobs {
                delete.execute([digest.as_bytes()])?;
            }
            let mut delete = transaction.prepare_cached("DELETE FROM oci WHERE digest = ?1")?;
            for digest in layers {
                delete.execute([digest.as_bytes()])?;
            }
            transaction.execute("UPDATE directories SET complete = 0 WHERE complete = 1", params![])
        })?;
        for path in blobs
            .iter()
            .map(|digest| self.blob_file(digest))
            .chain(layers.iter().map(|digest| self.oci_file(digest)))
        {
            match std::fs::remove_file(&path) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove damaged blob", &path)(err));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

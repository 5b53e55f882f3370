//! Looking at the bytes behind the rows, for recovery and `verify`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::params;

use super::Inner;
use super::blobs::{BlobRow, hash_reader};
use super::packs::Place;
use crate::{BlobDigest, Sha256Digest, StoreError};

/// A row of `blobs`.
pub(super) type BlobEntry = (BlobDigest, BlobRow);

impl Inner {
    /// All blobs, in the order their bytes lie on disk; with `boot` only those of other boots that were not synced.
    pub(super) fn blob_entries(&self, boot: Option<&str>) -> Result<Vec<BlobEntry>, StoreError> {
        self.index.read("list blobs", |connection| {
            connection
                .prepare(
                    "SELECT digest, size, pack, offset, made FROM blobs
                     WHERE ?1 IS NULL OR made IN (SELECT tick FROM batches WHERE boot <> ?1) ORDER BY pack, offset",
                )?
                .query_map([boot], |row| {
                    let size: i64 = row.get(1)?;
                    let place = match (row.get(2)?, row.get(3)?) {
                        (Some(pack), Some(offset)) => Some(Place {
                            pack,
                            offset,
                            length: size,
                        }),
                        _ => None,
                    };
                    let blob = BlobRow {
                        size: size.cast_unsigned(),
                        place,
                        used: 0,
                        made: row.get(4)?,
                    };
                    Ok((BlobDigest::from_bytes(row.get(0)?), blob))
                })?
                .collect()
        })
    }

    /// Runs a check over all items on as many threads as there are processors; gives those it finds bad.
    pub(super) fn in_parallel<T: Clone + Sync + Send>(
        &self,
        items: &[T],
        is_bad: impl Fn(&T) -> Result<bool, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(items.len());
        let next = AtomicUsize::new(0);
        let bad = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = is_bad(item);
                        let mut bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
                        match (&mut *bad, result) {
                            (Ok(list), Ok(true)) => list.push(item.clone()),
                            (Ok(_), Ok(false)) => {}
                            (Ok(_), Err(err)) => *bad = Err(err),
                            (Err(_), _) => return,
                        }
                    }
                });
            }
        });
        bad.into_inner().unwrap_or_else(PoisonError::into_inner)
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
        self.known.forget();
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

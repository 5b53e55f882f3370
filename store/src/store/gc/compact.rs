//! Giving dead space in packs back.
//!
//! A pack that nobody appends to and that is mostly dead is copied, its live blobs only, to the pack this process appends
//! to; the rows are moved in one synced transaction; then the old pack goes. A reader that has looked up the old place
//! finds no file there and looks again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use rusqlite::params;

use crate::store::Inner;
use crate::store::packs::{MAGIC, PackLock, Place};
use crate::{BlobDigest, StoreError};

/// The live blobs of packs.
type Entries = HashMap<i64, Vec<(BlobDigest, Place)>>;

/// Bytes of live blobs copied in one transaction.
const COPY_BYTES: usize = 4 << 20;

impl Inner {
    /// Rewrites packs that are mostly dead and removes those that are quite so.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        {
            // Ours is let go too, between two flushes.
            let _serial = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
            self.packs.release_writer();
        }
        let mut candidates = HashMap::new();
        let live = self.live_bytes()?;
        for pack in self.packs.numbers()? {
            let Ok(meta) = self.packs.file_path(pack).metadata() else {
                continue;
            };
            if is_mostly_dead(meta.len(), live.get(&pack).copied().unwrap_or(0))
                && let Some(lock) = self.packs.lock_idle(pack)?
            {
                candidates.insert(pack, lock);
            }
        }
        if candidates.is_empty() {
            return Ok(());
        }
        // A process may have filled a pack, let it go and not yet committed its rows. Once there was a moment without
        // unflushed rows, all rows of the packs we hold are there.
        drop(self.sweep_lock.sweep()?);
        let mut entries = self.entries(&candidates)?;
        for (pack, lock) in candidates {
            let entries = entries.remove(&pack).unwrap_or_default();
            let live: u64 = entries.iter().map(|(_, place)| place.length.cast_unsigned()).sum();
            if !is_mostly_dead(lock.bytes, live) || !self.move_entries(pack, &entries)? {
                continue;
            }
            let path = self.packs.file_path(pack);
            std::fs::remove_file(&path).map_err(StoreError::io("remove pack", &path))?;
            self.packs.forget(pack);
        }
        Ok(())
    }

    fn live_bytes(&self) -> Result<HashMap<i64, u64>, StoreError> {
        self.index.read("measure packs", |connection| {
            connection
                .prepare("SELECT pack, sum(size) FROM blobs WHERE pack IS NOT NULL GROUP BY pack")?
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
                .collect()
        })
    }

    fn entries(&self, packs: &HashMap<i64, PackLock>) -> Result<Entries, StoreError> {
        self.index.read("list packed blobs", |connection| {
            let mut query =
                connection.prepare("SELECT digest, size, pack, offset FROM blobs WHERE pack IS NOT NULL")?;
            let mut rows = query.query([])?;
            let mut entries = Entries::new();
            while let Some(row) = rows.next()? {
                let pack = row.get(2)?;
                if packs.contains_key(&pack) {
                    let place = Place {
                        pack,
                        offset: row.get(3)?,
                        length: row.get(1)?,
                    };
                    entries
                        .entry(pack)
                        .or_default()
                        .push((BlobDigest::from_bytes(row.get(0)?), place));
                }
            }
            Ok(entries)
        })
    }

    /// Copies blobs out of a pack; false when one of them is damaged, which is for `verify` to deal with.
    fn move_entries(&self, pack: i64, entries: &[(BlobDigest, Place)]) -> Result<bool, StoreError> {
        let mut rest = entries.iter().peekable();
        while rest.peek().is_some() {
            let mut blobs: HashMap<BlobDigest, Arc<[u8]>> = HashMap::new();
            let mut size = 0;
            while size < COPY_BYTES
                && let Some((digest, place)) = rest.next()
            {
                let bytes = self.packs.read(place)?.unwrap_or_default();
                if BlobDigest::of(&bytes) != *digest {
                    return Ok(false);
                }
                size += bytes.len();
                blobs.insert(*digest, bytes.into());
            }
            let places = self.packs.append(&blobs, &self.index)?;
            self.packs.sync(&places)?;
            self.index.write_synced("move packed blobs", |transaction, _| {
                let mut update = transaction
                    .prepare_cached("UPDATE blobs SET pack = ?1, offset = ?2 WHERE digest = ?3 AND pack = ?4")?;
                for (digest, place) in &places {
                    update.execute(params![place.pack, place.offset, digest.as_bytes(), pack])?;
                }
                Ok(())
            })?;
        }
        Ok(true)
    }
}

fn is_mostly_dead(bytes: u64, live: u64) -> bool {
    let dead = bytes.saturating_sub(MAGIC.len() as u64).saturating_sub(live);
    live == 0 || dead > live
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_dead_is_not_mostly_dead() {
        assert!(is_mostly_dead(8, 0));
        assert!(is_mostly_dead(108, 0));
        assert!(is_mostly_dead(108, 49));
        assert!(!is_mostly_dead(108, 50));
        assert!(!is_mostly_dead(108, 100));
    }
}

//! What every gc does, whatever the policy: files without rows, rows without content, dead space.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rusqlite::params;

use super::{GcPolicy, GcReport, StoreItem};
use crate::store::Inner;
use crate::store::index::wall_clock;
use crate::{BlobDigest, Sha256Digest, StoreError};

/// Rows of realisations without content that are kept, newest use first.
const GONE_ROWS: u32 = 100_000;
/// Milliseconds after which rows that lead nowhere are forgotten, and all aliases: they are made again when needed.
const GONE_AGE: i64 = 180 * 24 * 3_600 * 1_000;

/// A file that no row speaks of.
struct Orphan {
    path: PathBuf,
    bytes: u64,
    kind: OrphanKind,
}

enum OrphanKind {
    Blob(BlobDigest),
    Layer(Sha256Digest),
    /// A name that is none of the store's.
    Stranger,
}

impl Inner {
    pub(super) fn tidy(&self, policy: &GcPolicy, report: &mut GcReport) -> Result<(), StoreError> {
        self.remove_dead_scratch()?;
        self.remove_orphans(report)?;
        self.forget_rows(policy)?;
        self.compact()?;
        self.index.shrink()
    }

    /// Removes the scratch of killed processes; writes no row.
    pub(super) fn remove_dead_scratch(&self) -> Result<(), StoreError> {
        for (name, lock) in self.dead_scratch()? {
            // What cannot be removed (a mount that is still there) is no reason to collect nothing.
            let _ = self.remove_scratch(&name);
            drop::<Option<OwnedFd>>(lock);
        }
        Ok(())
    }

    /// Removes files that no row speaks of; writes no row, and may not be called with rows unflushed.
    pub(super) fn remove_orphans(&self, report: &mut GcReport) -> Result<(), StoreError> {
        // Looked for beside running writers, so most of what is found may be theirs; looked at again without them.
        let orphans = self.orphans()?;
        if orphans.is_empty() {
            return Ok(());
        }
        let _turn = self.sweep_lock.sweep()?;
        let mut bytes = 0;
        for orphan in orphans {
            let has_row = match &orphan.kind {
                OrphanKind::Blob(digest) => self.find_blob(digest)?.is_some(),
                OrphanKind::Layer(digest) => self.find_oci(digest)?.is_some(),
                OrphanKind::Stranger => false,
            };
            if has_row {
                continue;
            }
            match std::fs::remove_file(&orphan.path) {
                Ok(()) => bytes += orphan.bytes,
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(err) => return Err(StoreError::io("remove", &orphan.path)(err)),
            }
        }
        if bytes > 0 {
            report.note(StoreItem::Leftovers, bytes);
        }
        Ok(())
    }

    fn orphans(&self) -> Result<Vec<Orphan>, StoreError> {
        let blobs: HashSet<[u8; 32]> = self.digests("SELECT digest FROM blobs WHERE pack IS NULL")?;
        let mut orphans = Vec::new();
        for folder in list(&self.root.join("blobs"))? {
            if !folder.1.is_dir() {
                continue;
            }
            for (path, meta) in list(&folder.0)? {
                let kind = match name(&path).parse::<BlobDigest>() {
                    Ok(digest) if self.blob_file(&digest) != path => OrphanKind::Stranger,
                    Ok(digest) if blobs.contains(digest.as_bytes()) => continue,
                    Ok(digest) => OrphanKind::Blob(digest),
                    Err(_) => OrphanKind::Stranger,
                };
                let bytes = meta.len();
                orphans.push(Orphan { path, bytes, kind });
            }
        }
        let layers: HashSet<[u8; 32]> = self.digests("SELECT digest FROM oci")?;
        for (path, meta) in list(&self.layers)? {
            let kind = match name(&path).parse::<Sha256Digest>() {
                Ok(digest) if layers.contains(digest.as_bytes()) => continue,
                Ok(digest) => OrphanKind::Layer(digest),
                Err(_) => OrphanKind::Stranger,
            };
            let bytes = meta.len();
            orphans.push(Orphan { path, bytes, kind });
        }
        // A folder somebody made by hand is somebody's.
        orphans.retain(|orphan| !orphan.path.is_dir());
        Ok(orphans)
    }

    fn digests(&self, query: &str) -> Result<HashSet<[u8; 32]>, StoreError> {
        self.index.read("list digests", |connection| {
            connection.prepare(query)?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Forgets rows that lead nowhere: too many, too old, or with `all` every one.
    fn forget_rows(&self, policy: &GcPolicy) -> Result<(), StoreError> {
        let old = wall_clock().saturating_sub(GONE_AGE);
        let (rows, before) = if policy.all { (0, i64::MAX) } else { (GONE_ROWS, old) };
        // What a living build has put or found since it began is left alone here too.
        let before = self.oldest_lease()?.map_or(before, |lease| before.min(lease.0));
        self.index.write("forget old rows", |transaction, tick| {
            let before = before.min(tick - 1);
            transaction
                .prepare_cached(
                    "DELETE FROM realisations WHERE kept = 0 AND used <= ?1 OR id IN (
                         SELECT id FROM realisations WHERE kept = 0 AND used <= ?2 ORDER BY used DESC LIMIT -1 OFFSET ?3)",
                )?
                .execute(params![before, tick - 1, rows])?;
            transaction
                .prepare_cached(
                    "DELETE FROM aliases WHERE used <= ?1
                     AND NOT EXISTS (SELECT 1 FROM realisations WHERE realisations.key = aliases.key)
                     OR used <= ?2",
                )?
                .execute([before, before.min(old)])?;
            transaction
                .prepare_cached(
                    "DELETE FROM layers WHERE used <= ?1
                     AND NOT EXISTS (SELECT 1 FROM directories WHERE directories.digest = layers.diff)
                     AND NOT EXISTS (SELECT 1 FROM oci WHERE oci.digest = layers.digest)",
                )?
                .execute([before])
        })?;
        Ok(())
    }
}

fn list(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, StoreError> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        match entry.metadata() {
            Ok(meta) => entries.push((entry.path(), meta)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(StoreError::io("look at", &entry.path())(err)),
        }
    }
    Ok(entries)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

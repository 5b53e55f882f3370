//! Directories: rows of the index behind a bounded cache.

use std::collections::{HashMap, HashSet};
use std::mem::size_of;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use super::blobs::blob_row;
use super::pending::{Batch, PendingDirectory};
use super::{Inner, Store};
use crate::{Directory, DirectoryError, DirectoryRef, DirectoryStore, Entry, Node, StoreError, TreeDigest};

/// Bytes of decoded directories kept in memory.
const CACHE_BYTES: usize = 32 << 20;
/// Parts of the cache, each behind its own lock.
const SHARDS: usize = 16;

/// Decoded directories, bounded by their size. Each shard has a young and an old half: what is found in the old one
/// becomes young again, and a full young half becomes the old one. So the least recently used half goes at once,
/// without a list to maintain on each hit.
#[derive(Debug)]
pub(super) struct DirectoryCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<TreeDigest, Arc<Directory>>,
    old: HashMap<TreeDigest, Arc<Directory>>,
    young_bytes: usize,
}

impl DirectoryCache {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_bytes: CACHE_BYTES / SHARDS,
        }
    }

    fn shard(&self, digest: &TreeDigest) -> &Mutex<Shard> {
        &self.shards[usize::from(digest.as_bytes()[0]) % SHARDS]
    }

    fn get(&self, digest: &TreeDigest) -> Option<Arc<Directory>> {
        let mut shard = self.shard(digest).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = shard.young.get(digest) {
            return Some(directory.clone());
        }
        let directory = shard.old.remove(digest)?;
        self.insert_into(&mut shard, *digest, directory.clone());
        Some(directory)
    }

    fn insert(&self, digest: TreeDigest, directory: Arc<Directory>) {
        let mut shard = self.shard(&digest).lock().unwrap_or_else(PoisonError::into_inner);
        self.insert_into(&mut shard, digest, directory);
    }

    fn insert_into(&self, shard: &mut Shard, digest: TreeDigest, directory: Arc<Directory>) {
        let bytes = weight(&directory);
        if shard.young.insert(digest, directory).is_none() {
            shard.young_bytes += bytes;
        }
        if shard.young_bytes > self.shard_bytes / 2 {
            shard.old = std::mem::take(&mut shard.young);
            shard.young_bytes = 0;
        }
    }

    /// Drops everything: after damage was found.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }
}

/// About how much memory a directory takes.
fn weight(directory: &Directory) -> usize {
    let entries: usize = directory
        .entries
        .iter()
        .map(|entry| {
            let attributes: usize = entry
                .meta
                .xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len() + 64)
                .sum();
            let target = match &entry.node {
                Node::Symlink(target) => target.len(),
                _ => 0,
            };
            size_of::<Entry>() + entry.name.len() + attributes + target + 16
        })
        .sum();
    size_of::<Directory>() + 128 + entries
}

/// Checks and decodes the row of a directory.
pub(super) fn decode_row(digest: &TreeDigest, encoded: &[u8]) -> Result<Directory, StoreError> {
    let damaged = |source| StoreError::DamagedDirectory {
        digest: *digest,
        source,
    };
    if Directory::digest_of(encoded) != *digest {
        return Err(damaged(DirectoryError::Damaged("its bytes do not hash to its name")));
    }
    Directory::decode(encoded).map_err(damaged)
}

/// What is to be known about a directory without decoding it.
fn directory_state(connection: &Connection, digest: &TreeDigest) -> rusqlite::Result<Option<(i64, bool)>> {
    connection
        .prepare_cached("SELECT used, complete FROM directories WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

impl DirectoryStore for Store {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        self.0.inner.directory(digest)
    }

    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let (reference, encoded) = directory.seal();
        let digest = reference.digest;
        let floor = inner.known.floor();
        let guard = inner.sweep_lock.guard()?;
        // Under the guard, which the batch keeps: what a living lease keeps now stays until the row is there.
        let complete = inner.known.has_all_of(&directory);
        let decoded = Arc::new(directory);
        inner.cache.insert(digest, decoded.clone());
        let is_pending = |batch: &Batch| batch.directories.contains_key(&digest);
        let pending = inner.pending().used(is_pending);
        if pending.is_none_or(|used| inner.is_stale(used)) {
            let pending = PendingDirectory {
                decoded,
                encoded: encoded.into(),
                complete,
            };
            inner.register(guard, |batch| batch.add_directory(digest, pending))?;
        }
        if complete {
            inner.known.add_complete([digest], floor);
        }
        Ok(reference)
    }
}

impl Store {
    /// Whether all bytes of a tree are here (a realisation outlives its content). If so, they are kept as if they had
    /// just been put.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked or a directory is damaged.
    pub fn is_complete(&self, tree: &TreeDigest) -> Result<bool, StoreError> {
        let inner = &self.0.inner;
        if let Some((used, true)) = inner.index.read("look up directory", |c| directory_state(c, tree))?
            && !inner.is_stale(used)
        {
            return Ok(true);
        }
        let floor = inner.known.floor();
        let guard = inner.read_guard()?;
        let mut seen: HashSet<TreeDigest> = HashSet::new();
        let mut waiting = vec![*tree];
        while let Some(digest) = waiting.pop() {
            if seen.contains(&digest) {
                continue;
            }
            // Rows go from pending to the index, so asking in this order misses none.
            let complete = match inner.pending_completeness(&digest) {
                None => inner
                    .index
                    .read("look up directory", |c| directory_state(c, &digest))?
                    .map(|state| state.1),
                pending => pending,
            };
            match complete {
                Some(true) => continue,
                Some(false) => {}
                None => return Ok(false),
            }
            let Some(directory) = inner.directory(&digest)? else {
                return Ok(false);
            };
            let mut blobs = Vec::new();
            for entry in &directory.entries {
                match &entry.node {
                    Node::File { blob, .. } => blobs.push(*blob),
                    Node::Directory(below) => waiting.push(below.digest),
                    _ => {}
                }
            }
            if !inner.has_blobs(&blobs)? {
                return Ok(false);
            }
            seen.insert(digest);
        }
        if let Some(guard) = guard {
            inner.register(guard, |batch| {
                batch.touched_directories.insert(*tree);
                batch.complete.extend(&seen);
            })?;
            inner.known.add_complete(seen.into_iter().chain([*tree]), floor);
        }
        Ok(true)
    }
}

impl Inner {
    pub(super) fn pending_directory(&self, digest: &TreeDigest) -> Option<Arc<Directory>> {
        self.pending()
            .find(|batch| batch.directories.get(digest).map(|pending| pending.decoded.clone()))
    }

    /// Whether a pending directory is known to have all below it.
    fn pending_completeness(&self, digest: &TreeDigest) -> Option<bool> {
        self.pending()
            .find(|batch| batch.directories.get(digest).map(|pending| pending.complete))
    }

    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        if let Some(directory) = self.cache.get(digest) {
            return Ok(Some(directory));
        }
        if let Some(directory) = self.pending_directory(digest) {
            self.cache.insert(*digest, directory.clone());
            return Ok(Some(directory));
        }
        let row = self.index.read("read directory", |connection| {
            connection
                .prepare_cached("SELECT data FROM directories WHERE digest = ?1")?
                .query_row([digest.as_bytes()], |row| {
                    Ok(row.get_ref(0)?.as_blob().map(|encoded| decode_row(digest, encoded))?)
                })
                .optional()
        })?;
        let Some(directory) = row.transpose()? else {
            return Ok(None);
        };
        let directory = Arc::new(directory);
        self.cache.insert(*digest, directory.clone());
        Ok(Some(directory))
    }

    fn has_blobs(&self, digests: &[crate::BlobDigest]) -> Result<bool, StoreError> {
        if digests.is_empty() {
            return Ok(true);
        }
        let absent = self.index.read("look up blobs", |connection| {
            let mut absent = Vec::new();
            for digest in digests {
                if blob_row(connection, digest)?.is_none() {
                    absent.push(*digest);
                }
            }
            Ok(absent)
        })?;
        for digest in absent {
            if self.find_blob(&digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

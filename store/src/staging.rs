//! Directories that are not stored yet: intermediate trees never reach the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Directory, DirectoryRef, DirectoryStore, Node, StoreError, TreeDigest};

/// Encoded bytes that a staging with [`Staging::compact`] holds before it lets go of what nobody will edit any more.
const COMPACT_BYTES: usize = 16 << 20;

/// Whether a tree is there with all below it.
type IsComplete<'a> = &'a (dyn Fn(&TreeDigest) -> Result<bool, StoreError> + Sync);

/// A store of directories over another that keeps what is put in memory until [`Staging::keep`].
pub(crate) struct Staging<'a> {
    base: &'a dyn DirectoryStore,
    /// Set when what is put is kept in little memory.
    compact: Option<IsComplete<'a>>,
    new: Mutex<New>,
}

#[derive(Default)]
struct New {
    directories: HashMap<TreeDigest, Staged>,
    encoded_bytes: usize,
}

#[derive(Clone)]
enum Staged {
    Decoded(Arc<Directory>),
    Encoded(Arc<[u8]>),
}

impl Staged {
    fn directory(&self, digest: &TreeDigest) -> Result<Arc<Directory>, StoreError> {
        match self {
            Self::Decoded(directory) => Ok(Arc::clone(directory)),
            Self::Encoded(bytes) => {
                Directory::decode(bytes)
                    .map(Arc::new)
                    .map_err(|source| StoreError::DamagedDirectory {
                        digest: *digest,
                        source,
                    })
            }
        }
    }
}

impl<'a> Staging<'a> {
    pub(crate) fn new(base: &'a dyn DirectoryStore) -> Self {
        Self {
            base,
            compact: None,
            new: Mutex::default(),
        }
    }

    /// Holds encoded directories, and only so many: beyond that, one without hard links is as it will stay and goes to
    /// the store at once, unless it is there with all below it.
    pub(crate) fn compact(base: &'a dyn DirectoryStore, is_complete: IsComplete<'a>) -> Self {
        Self {
            base,
            compact: Some(is_complete),
            new: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, New> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what these trees need, what is below first.
    pub(crate) fn keep(&self, roots: &[TreeDigest]) -> Result<(), StoreError> {
        self.keep_missing(roots, &|_| Ok(false))
    }

    /// As [`Staging::keep`], without the trees that are there with all below them.
    pub(crate) fn keep_missing(
        &self,
        roots: &[TreeDigest],
        is_complete: &dyn Fn(&TreeDigest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        // A digest is put once its children are: it is pushed again below them.
        let mut todo: Vec<(TreeDigest, bool)> = roots.iter().map(|root| (*root, false)).collect();
        while let Some((digest, children_done)) = todo.pop() {
            let Some(staged) = self.lock().directories.get(&digest).cloned() else {
                continue;
            };
            if children_done {
                let directory = staged.directory(&digest)?;
                self.base.put_directory(Arc::unwrap_or_clone(directory))?;
            } else if seen.insert(digest) && !is_complete(&digest)? {
                todo.push((digest, true));
                let directory = staged.directory(&digest)?;
                todo.extend(directory.entries.iter().filter_map(|entry| match &entry.node {
                    Node::Directory(below) => Some((below.digest, false)),
                    _ => None,
                }));
            }
        }
        Ok(())
    }

    /// Stores a directory at once, after what it needs of the staged ones.
    fn store_now(
        &self,
        digest: &TreeDigest,
        directory: Directory,
        is_complete: IsComplete<'_>,
    ) -> Result<(), StoreError> {
        if is_complete(digest)? {
            return Ok(());
        }
        let below: Vec<TreeDigest> = directory
            .entries
            .iter()
            .filter_map(|entry| Some(entry.directory()?.digest))
            .collect();
        self.keep_missing(&below, is_complete)?;
        self.base.put_directory(directory).map(drop)
    }
}

impl DirectoryStore for Staging<'_> {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        let staged = self.lock().directories.get(digest).cloned();
        match staged {
            Some(staged) => staged.directory(digest).map(Some),
            None => self.base.directory(digest),
        }
    }

    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
        let (reference, encoded) = directory.seal();
        let digest = reference.digest;
        let Some(is_complete) = self.compact else {
            let mut new = self.lock();
            new.directories
                .entry(digest)
                .or_insert_with(|| Staged::Decoded(Arc::new(directory)));
            return Ok(reference);
        };
        let is_final = reference.totals.links == 0;
        let mut new = self.lock();
        if is_final && new.encoded_bytes >= COMPACT_BYTES && !new.directories.contains_key(&digest) {
            drop(new);
            self.store_now(&digest, directory, is_complete)?;
        } else {
            new.encoded_bytes += encoded.len();
            new.directories
                .entry(digest)
                .or_insert_with(|| Staged::Encoded(encoded.into()));
        }
        Ok(reference)
    }
}

//! Directories that are not stored yet: intermediate trees never reach the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Directory, DirectoryRef, DirectoryStore, Node, StoreError, TreeDigest};

/// A store of directories over another that keeps what is put in memory until [`Staging::keep`].
pub(crate) struct Staging<'a> {
    base: &'a dyn DirectoryStore,
    new: Mutex<HashMap<TreeDigest, Arc<Directory>>>,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(base: &'a dyn DirectoryStore) -> Self {
        Self {
            base,
            new: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TreeDigest, Arc<Directory>>> {
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
            let Some(directory) = self.lock().get(&digest).cloned() else {
                continue;
            };
            if children_done {
                self.base.put_directory(Directory::clone(&directory))?;
            } else if seen.insert(digest) && !is_complete(&digest)? {
                todo.push((digest, true));
                todo.extend(directory.entries.iter().filter_map(|entry| match &entry.node {
                    Node::Directory(below) => Some((below.digest, false)),
                    _ => None,
                }));
            }
        }
        Ok(())
    }
}

impl DirectoryStore for Staging<'_> {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        if let Some(directory) = self.lock().get(digest) {
            return Ok(Some(Arc::clone(directory)));
        }
        self.base.directory(digest)
    }

    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
        let (reference, _) = directory.seal();
        self.lock()
            .entry(reference.digest)
            .or_insert_with(|| Arc::new(directory));
        Ok(reference)
    }
}

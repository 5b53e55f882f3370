//! Trees in order: every entry below a root, parents before children, names sorted within each directory.

use std::sync::Arc;

use crate::{Directory, DirectoryStore, Entry, Node, StoreError, TreeDigest};

/// One entry and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Its path from the root, without a leading slash.
    pub path: Vec<u8>,
    /// The entry; its name is the last one of the path.
    pub entry: Entry,
    /// In a layer: a directory that hides what a lower layer has there.
    pub opaque: bool,
}

/// An iterator over a tree, the root itself left out. It holds one directory for each level it is in.
pub struct Walk<'a> {
    trees: &'a dyn DirectoryStore,
    levels: Vec<Position>,
    path: Vec<u8>,
}

/// Where the walk is in one directory.
struct Position {
    directory: Arc<Directory>,
    next: usize,
    /// Length of the path of the directory.
    path: usize,
}

impl<'a> Walk<'a> {
    /// Starts below the root of a tree.
    ///
    /// # Errors
    /// When the root is not in the store.
    pub fn new(trees: &'a dyn DirectoryStore, root: &TreeDigest) -> Result<Self, StoreError> {
        let directory = trees.need_directory(root)?;
        Ok(Self {
            trees,
            levels: vec![Position {
                directory,
                next: 0,
                path: 0,
            }],
            path: Vec::new(),
        })
    }

    /// Leaves out what is below the directory that came last.
    pub fn skip_below(&mut self) {
        if self.levels.last().is_some_and(|level| level.next == 0) {
            self.levels.pop();
        }
    }

    fn step(&mut self) -> Result<Option<Walked>, StoreError> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(level.path);
            let Some(entry) = level.directory.entries.get(level.next).cloned() else {
                self.levels.pop();
                continue;
            };
            level.next += 1;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&entry.name);
            let mut opaque = false;
            if let Node::Directory(below) = &entry.node {
                let directory = self.trees.need_directory(&below.digest)?;
                opaque = directory.opaque;
                self.levels.push(Position {
                    directory,
                    next: 0,
                    path: self.path.len(),
                });
            }
            return Ok(Some(Walked {
                path: self.path.clone(),
                entry,
                opaque,
            }));
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Walked, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if let Some(Err(_)) = &step {
            // What comes after a missing directory would be out of place.
            self.levels.clear();
        }
        step
    }
}

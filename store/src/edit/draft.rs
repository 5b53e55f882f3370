//! A tree being changed: the levels on the way are opened in memory, everything else stays a reference.
//!
//! ```text
//! root ─ stored or open ─► level { name → slot }      slot = metadata + node, and the open level when there is one
//! commit: settle link groups if any were touched, then put the open levels bottom-up
//! ```
//! Paths here are lists of names without symbolic links; `resolve.rs` makes them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::EditError;
use crate::deep::deep;
use crate::{Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node, StoreError, Timestamp, TreeDigest};

/// A path as names, none of them a symbolic link, `.` or `..`; empty for the root.
pub(crate) type Names = Vec<Vec<u8>>;

/// Joins names for messages and results: `a/b`, empty for the root.
pub(crate) fn join(names: &[Vec<u8>]) -> Vec<u8> {
    names.join(&b'/')
}

/// The inverse of [`join`].
pub(crate) fn split(path: &[u8]) -> Names {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// One opened directory.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub(crate) root: Option<Metadata>,
    pub(crate) opaque: bool,
    pub(crate) entries: BTreeMap<Vec<u8>, Slot>,
}

/// One name in a [`Level`].
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) meta: Metadata,
    /// For an opened directory the reference is stale; `open` counts.
    pub(crate) node: Node,
    pub(crate) open: Option<Box<Level>>,
}

impl Slot {
    pub(crate) fn new(meta: Metadata, node: Node) -> Self {
        Self { meta, node, open: None }
    }

    /// An empty new directory.
    pub(crate) fn empty_directory(meta: Metadata) -> Self {
        Self {
            meta,
            node: Node::Directory(Directory::default().seal().0),
            open: Some(Box::default()),
        }
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.node, Node::Directory(_))
    }

    /// Whether it is in a hard link group or has such things below; errs on the side of `true`.
    pub(crate) fn has_links(&self) -> bool {
        match (&self.node, &self.open) {
            (Node::File { link, .. }, _) => link.is_some(),
            (Node::Directory(_), Some(level)) => deep(|| level.entries.values().any(Slot::has_links)),
            (Node::Directory(below), None) => below.totals.links > 0,
            _ => false,
        }
    }

    /// Opens a directory; `None` for anything else.
    pub(crate) fn open(&mut self, trees: &dyn DirectoryStore) -> Result<Option<&mut Level>, StoreError> {
        let Node::Directory(below) = &self.node else {
            return Ok(None);
        };
        if self.open.is_none() {
            let directory = trees.need_directory(&below.digest)?;
            self.open = Some(Box::new(Level::from_directory(&directory)));
        }
        Ok(self.open.as_deref_mut())
    }
}

impl Level {
    pub(crate) fn from_directory(directory: &Directory) -> Self {
        Self {
            root: directory.root.clone(),
            opaque: directory.opaque,
            entries: directory
                .entries
                .iter()
                .map(|entry| (entry.name.clone(), Slot::new(entry.meta.clone(), entry.node.clone())))
                .collect(),
        }
    }

    /// Stores this level and the open ones below.
    pub(crate) fn store(mut self, trees: &dyn DirectoryStore) -> Result<DirectoryRef, StoreError> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for (name, slot) in std::mem::take(&mut self.entries) {
            let node = match slot.open {
                Some(level) => Node::Directory(deep(|| level.store(trees))?),
                None => slot.node,
            };
            entries.push(Entry {
                name,
                meta: slot.meta,
                node,
            });
        }
        trees.put_directory(Directory {
            root: self.root.take(),
            opaque: self.opaque,
            entries,
        })
    }
}

impl Drop for Level {
    /// Level by level, not by recursion, which a deep tree would make overflow the stack.
    fn drop(&mut self) {
        let mut todo = vec![std::mem::take(&mut self.entries)];
        while let Some(entries) = todo.pop() {
            let open = entries.into_values().filter_map(|slot| slot.open);
            todo.extend(open.map(|mut level| std::mem::take(&mut level.entries)));
        }
    }
}

/// A tree being changed.
pub(crate) struct Draft<'a> {
    trees: &'a dyn DirectoryStore,
    root: Root,
    /// Set when something in a link group came or went: counts and ids must be settled.
    pub(crate) links_touched: bool,
    /// How many subtrees with link groups came in; keeps the groups of each apart until they are settled.
    pub(crate) imports: u64,
    /// The time of directories whose entries change; without one they keep theirs.
    pub(crate) now: Option<Timestamp>,
    /// Directories read but not opened.
    read: RefCell<HashMap<TreeDigest, Arc<Directory>>>,
}

/// Something that a path names, on the way down.
pub(crate) enum Cursor<'d> {
    Open(&'d Level),
    Stored(TreeDigest),
    /// No directory.
    Other(Node),
}

#[derive(Debug)]
enum Root {
    Stored(TreeDigest),
    Open(Level),
}

impl<'a> Draft<'a> {
    pub(crate) fn new(trees: &'a dyn DirectoryStore, root: TreeDigest) -> Self {
        Self::with_root(trees, Root::Stored(root))
    }

    pub(crate) fn from_level(trees: &'a dyn DirectoryStore, root: Level) -> Self {
        Self::with_root(trees, Root::Open(root))
    }

    fn with_root(trees: &'a dyn DirectoryStore, root: Root) -> Self {
        Self {
            trees,
            root,
            links_touched: false,
            imports: 0,
            now: None,
            read: RefCell::default(),
        }
    }

    pub(crate) fn trees(&self) -> &'a dyn DirectoryStore {
        self.trees
    }

    fn directory(&self, digest: &TreeDigest) -> Result<Arc<Directory>, StoreError> {
        if let Some(directory) = self.read.borrow().get(digest) {
            return Ok(Arc::clone(directory));
        }
        let directory = self.trees.need_directory(digest)?;
        self.read.borrow_mut().insert(*digest, Arc::clone(&directory));
        Ok(directory)
    }

    /// The root, to be gone down from with [`Draft::step`].
    pub(crate) fn top(&self) -> Cursor<'_> {
        match &self.root {
            Root::Stored(digest) => Cursor::Stored(*digest),
            Root::Open(level) => Cursor::Open(level),
        }
    }

    /// One name down; `None` when there is nothing, or nothing to go down from.
    pub(crate) fn step<'d>(
        &'d self,
        from: Option<&Option<Cursor<'d>>>,
        name: &[u8],
    ) -> Result<Option<Cursor<'d>>, StoreError> {
        let stored;
        let node = match from {
            Some(Some(Cursor::Open(level))) => match level.entries.get(name) {
                None => return Ok(None),
                Some(Slot { open: Some(level), .. }) => return Ok(Some(Cursor::Open(level))),
                Some(slot) => &slot.node,
            },
            Some(Some(Cursor::Stored(digest))) => {
                stored = self.directory(digest)?;
                match stored.get(name) {
                    None => return Ok(None),
                    Some(entry) => &entry.node,
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(match node {
            Node::Directory(below) => Cursor::Stored(below.digest),
            other => Cursor::Other(other.clone()),
        }))
    }

    /// Looks a path up without opening anything; `None` when a name is missing. An opened directory comes with a
    /// stale reference.
    ///
    /// # Errors
    /// [`EditError::NotADirectory`] when a name on the way is something else.
    pub(crate) fn get(&self, path: &[Vec<u8>]) -> Result<Option<(Metadata, Node)>, EditError> {
        let Some((last, parents)) = path.split_last() else {
            return Ok(Some(self.root_entry()?));
        };
        let not_a_directory = |depth: usize| EditError::NotADirectory {
            path: join(&path[..=depth]),
        };
        let mut depth = 0;
        let mut stored = match &self.root {
            Root::Stored(digest) => self.directory(digest)?,
            Root::Open(root) => {
                let mut level = root;
                loop {
                    let Some(slot) = level.entries.get(&path[depth]) else {
                        return Ok(None);
                    };
                    if depth == parents.len() {
                        return Ok(Some((slot.meta.clone(), slot.node.clone())));
                    }
                    match (&slot.open, &slot.node) {
                        (Some(open), _) => level = open,
                        (None, Node::Directory(below)) => {
                            depth += 1;
                            break self.directory(&below.digest)?;
                        }
                        _ => return Err(not_a_directory(depth)),
                    }
                    depth += 1;
                }
            }
        };
        for (depth, name) in parents.iter().enumerate().skip(depth) {
            let Some(entry) = stored.get(name) else {
                return Ok(None);
            };
            let Node::Directory(below) = &entry.node else {
                return Err(not_a_directory(depth));
            };
            let digest = below.digest;
            stored = self.directory(&digest)?;
        }
        Ok(stored.get(last).map(|entry| (entry.meta.clone(), entry.node.clone())))
    }

    /// The names and nodes of the directory at a path; empty when there is none.
    pub(crate) fn list(&self, path: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Node)>, EditError> {
        let mut level = match &self.root {
            Root::Open(root) => Some(root),
            Root::Stored(_) => None,
        };
        for name in path {
            level = level.and_then(|level| level.entries.get(name)?.open.as_deref());
        }
        if let Some(level) = level {
            return Ok(level
                .entries
                .iter()
                .map(|(name, slot)| (name.clone(), slot.node.clone()))
                .collect());
        }
        let digest = match (self.get(path)?, &self.root) {
            (_, Root::Stored(digest)) if path.is_empty() => *digest,
            (Some((_, Node::Directory(below))), _) => below.digest,
            _ => return Ok(Vec::new()),
        };
        let directory = self.directory(&digest)?;
        Ok(directory
            .entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.node.clone()))
            .collect())
    }

    fn root_entry(&self) -> Result<(Metadata, Node), EditError> {
        let default = || Metadata::new(0o755);
        Ok(match &self.root {
            Root::Stored(digest) => {
                let directory = self.directory(digest)?;
                let reference = DirectoryRef {
                    digest: *digest,
                    content: directory.content_digest(),
                    totals: directory.totals(),
                };
                (
                    directory.root.clone().unwrap_or_else(default),
                    Node::Directory(reference),
                )
            }
            Root::Open(level) => (
                level.root.clone().unwrap_or_else(default),
                Node::Directory(Directory::default().seal().0),
            ),
        })
    }

    pub(crate) fn root(&mut self) -> Result<&mut Level, StoreError> {
        if let Root::Stored(digest) = &self.root {
            let directory = self.directory(&digest.clone())?;
            self.root = Root::Open(Level::from_directory(&directory));
        }
        match &mut self.root {
            Root::Open(level) => Ok(level),
            Root::Stored(digest) => Err(StoreError::MissingDirectory(*digest)),
        }
    }

    /// Opens the directory at a path.
    ///
    /// # Errors
    /// [`EditError::NotFound`] and [`EditError::NotADirectory`].
    pub(crate) fn level(&mut self, path: &[Vec<u8>]) -> Result<&mut Level, EditError> {
        let mut there = path.len();
        while there > 0 && self.get(&path[..there])?.is_none() {
            there -= 1;
        }
        self.touch(&path[..there])?;
        let trees = self.trees;
        let mut level = self.root()?;
        for (depth, name) in path.iter().enumerate() {
            let so_far = || join(&path[..=depth]);
            let slot = level
                .entries
                .get_mut(name)
                .ok_or_else(|| EditError::NotFound { path: so_far() })?;
            level = slot
                .open(trees)?
                .ok_or_else(|| EditError::NotADirectory { path: so_far() })?;
        }
        Ok(level)
    }

    /// The metadata of what a path names, for changing; the root's is made when it has none.
    pub(crate) fn meta(&mut self, path: &[Vec<u8>]) -> Result<&mut Metadata, EditError> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(self.root()?.root.get_or_insert_with(|| Metadata::new(0o755)));
        };
        match self.level(parents)?.entries.get_mut(name) {
            Some(slot) => Ok(&mut slot.meta),
            None => Err(EditError::NotFound { path: join(path) }),
        }
    }

    /// Gives a directory the time at which its entries changed. Nothing happens while no time is set, for a directory that is
    /// not there, and for the root, whose time is never recorded.
    pub(crate) fn touch(&mut self, path: &[Vec<u8>]) -> Result<(), EditError> {
        let Some(now) = self.now else { return Ok(()) };
        if path.is_empty() || self.get(path)?.is_none() {
            return Ok(());
        }
        self.meta(path)?.mtime = now;
        Ok(())
    }

    /// Puts something at a path whose parent is there, replacing what has the name.
    pub(crate) fn set(&mut self, path: &[Vec<u8>], slot: Slot) -> Result<(), EditError> {
        let (name, parents) = path.split_last().ok_or(EditError::Root)?;
        crate::check_name(name).map_err(StoreError::BadName)?;
        let mut touched = slot.has_links();
        if let Some(old) = self.level(parents)?.entries.insert(name.clone(), slot) {
            touched |= old.has_links();
        }
        self.links_touched |= touched;
        self.touch(parents)
    }

    /// Takes a path out; `None` when it was not there.
    pub(crate) fn take(&mut self, path: &[Vec<u8>]) -> Result<Option<Slot>, EditError> {
        let (name, parents) = path.split_last().ok_or(EditError::Root)?;
        let old = self.level(parents)?.entries.remove(name);
        self.links_touched |= old.as_ref().is_some_and(Slot::has_links);
        self.touch(parents)?;
        Ok(old)
    }

    /// Makes the directories of a path that are not there, with this metadata.
    pub(crate) fn make_directories(&mut self, path: &[Vec<u8>], meta: &Metadata) -> Result<(), EditError> {
        // Looked up first, so that a path that is there opens nothing.
        match self.get(path)? {
            Some((_, Node::Directory(_))) => return Ok(()),
            Some(_) => return Err(EditError::NotADirectory { path: join(path) }),
            None => {}
        }
        let trees = self.trees;
        let mut level = self.root()?;
        for (depth, name) in path.iter().enumerate() {
            crate::check_name(name).map_err(StoreError::BadName)?;
            let slot = level
                .entries
                .entry(name.clone())
                .or_insert_with(|| Slot::empty_directory(meta.clone()));
            level = slot.open(trees)?.ok_or_else(|| EditError::NotADirectory {
                path: join(&path[..=depth]),
            })?;
        }
        Ok(())
    }

    /// Stores the tree.
    pub(crate) fn commit(mut self) -> Result<DirectoryRef, StoreError> {
        if self.links_touched {
            super::links::settle(&mut self)?;
        }
        match self.root {
            Root::Stored(digest) => {
                let directory = self.trees.need_directory(&digest)?;
                Ok(DirectoryRef {
                    digest,
                    content: directory.content_digest(),
                    totals: directory.totals(),
                })
            }
            Root::Open(level) => level.store(self.trees),
        }
    }
}

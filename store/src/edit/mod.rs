//! Edits of trees: metadata only, no bytes move.
//!
//! ```text
//! tree digest ─► Edit { mkdir, mkfile, symlink, remove, copy, put } ─ commit ─► new tree digest
//! ```
//! An edit opens the directories on its paths and nothing else: copying a million files into an absent place makes
//! one entry. The operations follow BuildKit's file operations; symbolic links are resolved inside the tree, so a
//! path cannot leave it. Times come from the caller. Several operations on one [`Edit`] cost one commit.

mod copy;
mod draft;
mod error;
mod links;
mod mode;
mod resolve;
mod select;

pub use copy::CopyOptions;
pub use error::EditError;
pub use mode::{ModeChange, ModeTarget, SymbolicMode};
pub use select::{Selection, Source, find_sources, select_digest};

pub(crate) use draft::{Draft, Level, Names, Slot, join, split};
pub(crate) use error::show;
pub(crate) use links::{renamed_link, settled};

use crate::{BlobDigest, Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node, Timestamp, TreeDigest};

/// Whether a path that ends at a symbolic link means the link or what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// What it points to.
    Follow,
    /// The link itself.
    Keep,
}

/// Who owns a thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A new directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mkdir<'a> {
    /// Where.
    pub path: &'a str,
    /// Permission bits; only the lowest nine count, for made parents too.
    pub mode: u32,
    /// Makes missing parents; without it they must be there.
    pub make_parents: bool,
    /// Owner of all that is made, else root.
    pub owner: Option<Owner>,
    /// Modification time of all that is made.
    pub mtime: Timestamp,
}

/// A new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mkfile<'a> {
    /// Where.
    pub path: &'a str,
    /// Permission bits; only the lowest nine count. A file that is there keeps its own.
    pub mode: u32,
    /// Its bytes, already stored.
    pub blob: BlobDigest,
    /// Their number.
    pub size: u64,
    /// Its owner, else root or, for a file that is there, whose it was.
    pub owner: Option<Owner>,
    /// Its modification time.
    pub mtime: Timestamp,
}

/// A new symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symlink<'a> {
    /// Where it points to, verbatim.
    pub target: &'a str,
    /// Where it is.
    pub path: &'a str,
    /// Its owner, else root.
    pub owner: Option<Owner>,
    /// Its modification time.
    pub mtime: Timestamp,
}

/// A removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remove<'a> {
    /// What; a link is removed, not what it points to.
    pub path: &'a str,
    /// Nothing there is no error.
    pub allow_not_found: bool,
    /// `path` is a pattern; one that matches nothing is no error.
    pub allow_wildcard: bool,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links and leading slash, empty for the root; what is missing is taken as written.
    pub path: Vec<u8>,
    /// What is there. The root's entry has an empty name and the root's metadata.
    pub entry: Option<Entry>,
}

/// A tree being edited.
pub struct Edit<'a> {
    draft: Draft<'a>,
}

impl<'a> Edit<'a> {
    /// Starts from a tree.
    pub fn new(trees: &'a dyn DirectoryStore, root: &TreeDigest) -> Self {
        Self {
            draft: Draft::new(trees, *root),
        }
    }

    /// Starts from nothing: an empty root directory.
    pub fn scratch(trees: &'a dyn DirectoryStore) -> Self {
        let root = Level::from_directory(&Directory::empty_root());
        Self {
            draft: Draft::from_level(trees, root),
        }
    }

    /// From now on a directory whose entries change gets this time, as on a file system; else directories keep theirs.
    pub fn set_now(&mut self, now: Timestamp) {
        self.draft.now = Some(now);
    }

    /// Stores the edited tree.
    ///
    /// # Errors
    /// [`EditError::Store`].
    pub fn commit(self) -> Result<TreeDigest, EditError> {
        Ok(self.draft.commit()?.digest)
    }

    /// Looks at the tree as edited so far. The reference of a directory that was edited is not valid before
    /// [`Edit::commit`].
    ///
    /// # Errors
    /// [`EditError::TooManyLinks`], and [`EditError::NotADirectory`] when a file stands on the way.
    pub fn resolve(&self, path: impl AsRef<[u8]>, last: LastLink) -> Result<Resolved, EditError> {
        let place = self.draft.resolve(path.as_ref(), last)?;
        let name = place.path.last().cloned().unwrap_or_default();
        Ok(Resolved {
            path: join(&place.path),
            entry: place.found.map(|(meta, node)| Entry { name, meta, node }),
        })
    }

    /// Makes a directory. Something that is there already stays as it is, whatever it is; with `make_parents` it
    /// must be a directory.
    ///
    /// # Errors
    /// [`EditError::NotFound`] for a missing parent, [`EditError::NotADirectory`].
    pub fn mkdir(&mut self, options: &Mkdir<'_>) -> Result<(), EditError> {
        let meta = made(options.mode & 0o777, options.owner, options.mtime);
        let place = self.draft.resolve(options.path.as_bytes(), LastLink::Follow)?;
        if options.make_parents {
            return self.draft.make_directories(&place.path, &meta);
        }
        match place.found {
            Some(_) => Ok(()),
            None => self.draft.set(&place.path, Slot::empty_directory(meta)),
        }
    }

    /// Writes a file, through a symbolic link where one is. An existing file keeps its mode.
    ///
    /// # Errors
    /// [`EditError::NotFound`] for a missing parent, [`EditError::IsADirectory`].
    pub fn mkfile(&mut self, options: &Mkfile<'_>) -> Result<(), EditError> {
        let place = self.draft.resolve(options.path.as_bytes(), LastLink::Follow)?;
        let mut meta = made(options.mode & 0o777, options.owner, options.mtime);
        match place.found {
            Some((_, Node::Directory(_))) => {
                return Err(EditError::IsADirectory {
                    path: join(&place.path),
                });
            }
            Some((old, Node::File { .. })) => {
                meta.mode = old.mode;
                if options.owner.is_none() {
                    (meta.uid, meta.gid) = (old.uid, old.gid);
                }
            }
            _ => {}
        }
        let node = Node::File {
            blob: options.blob,
            size: options.size,
            link: None,
        };
        self.draft.set(&place.path, Slot::new(meta, node))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`EditError::Exists`] when the name is taken, [`EditError::NotFound`] for a missing parent.
    pub fn symlink(&mut self, options: &Symlink<'_>) -> Result<(), EditError> {
        let place = self.draft.resolve(options.path.as_bytes(), LastLink::Follow)?;
        if place.found.is_some() {
            return Err(EditError::Exists {
                path: join(&place.path),
            });
        }
        let meta = made(0o777, options.owner, options.mtime);
        let node = Node::Symlink(options.target.as_bytes().to_vec());
        self.draft.set(&place.path, Slot::new(meta, node))
    }

    /// Removes a path and all below, or with `allow_wildcard` all that match.
    ///
    /// # Errors
    /// [`EditError::NotFound`], [`EditError::NotADirectory`], [`EditError::Root`], [`EditError::Pattern`].
    pub fn remove(&mut self, options: &Remove<'_>) -> Result<(), EditError> {
        if options.allow_wildcard {
            let selection = Selection {
                src: options.path,
                allow_wildcard: true,
                allow_empty_wildcard: true,
                ..Selection::default()
            };
            let sources = match select::find_in(&self.draft, &selection) {
                Err(EditError::NotFound { .. }) if options.allow_not_found => return Ok(()),
                other => other?,
            };
            return sources
                .iter()
                .try_for_each(|source| self.draft.take(&split(&source.path)).map(drop));
        }
        let cleaned = crate::patterns::clean_path(&format!("/{}", options.path));
        let place = self.draft.resolve(cleaned.as_bytes(), LastLink::Keep)?;
        if place.path.is_empty() {
            return Err(EditError::Root);
        }
        match place.found {
            Some(_) => self.draft.take(&place.path).map(drop),
            None if options.allow_not_found => Ok(()),
            None => Err(EditError::NotFound {
                path: join(&place.path),
            }),
        }
    }

    /// Puts any entry at a path, replacing what is there; missing parents are made 0755 and root's, at `entry`'s
    /// time. The entry's own name does not count. Links on the way are followed, the last one is replaced.
    ///
    /// # Errors
    /// [`EditError::NotADirectory`], [`EditError::Root`] for the root.
    pub fn put(&mut self, path: impl AsRef<[u8]>, entry: &Entry) -> Result<(), EditError> {
        let place = self.draft.resolve(path.as_ref(), LastLink::Keep)?;
        let (_, parents) = place.path.split_last().ok_or(EditError::Root)?;
        self.draft
            .make_directories(parents, &made(0o755, None, entry.meta.mtime))?;
        let mut slot = Slot::new(entry.meta.clone(), entry.node.clone());
        self.draft.imports += 1;
        links::import(self.draft.trees(), &mut slot, self.draft.imports)?;
        self.draft.set(&place.path, slot)
    }

    /// Puts a whole tree at a path as [`Edit::put`] does; the tree's root metadata becomes the directory's.
    ///
    /// # Errors
    /// As [`Edit::put`].
    pub fn put_tree(&mut self, path: impl AsRef<[u8]>, tree: &TreeDigest) -> Result<(), EditError> {
        let (meta, below) = embedded(self.draft.trees(), tree)?;
        let entry = Entry {
            name: Vec::new(),
            meta,
            node: Node::Directory(below),
        };
        self.put(path, &entry)
    }

    /// The edited levels themselves.
    pub(crate) fn draft_mut(&mut self) -> &mut Draft<'a> {
        &mut self.draft
    }
}

fn made(mode: u32, owner: Option<Owner>, mtime: Timestamp) -> Metadata {
    let mut meta = Metadata::new(mode);
    let owner = owner.unwrap_or_default();
    (meta.uid, meta.gid, meta.mtime) = (owner.uid, owner.gid, mtime);
    meta
}

/// Resolves a path in a tree: absolute links start at its root, `..` cannot leave it, and a missing end is no error.
///
/// # Errors
/// [`EditError::TooManyLinks`] beyond 255 links, [`EditError::NotADirectory`] when a file stands on the way.
pub fn resolve(
    trees: &dyn DirectoryStore,
    root: &TreeDigest,
    path: impl AsRef<[u8]>,
    last: LastLink,
) -> Result<Resolved, EditError> {
    Edit::new(trees, root).resolve(path, last)
}

/// What a path leads to, links followed; `None` when there is nothing. The root's entry has an empty name.
///
/// # Errors
/// [`EditError::TooManyLinks`], and failures of the store.
pub fn lookup(
    trees: &dyn DirectoryStore,
    root: &TreeDigest,
    path: impl AsRef<[u8]>,
) -> Result<Option<Entry>, EditError> {
    match resolve(trees, root, path, LastLink::Follow) {
        Ok(resolved) => Ok(resolved.entry),
        Err(EditError::NotADirectory { .. }) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The text of a symbolic link; `None` when the path leads to nothing or to something else.
///
/// # Errors
/// As [`lookup`].
pub fn read_link(
    trees: &dyn DirectoryStore,
    root: &TreeDigest,
    path: impl AsRef<[u8]>,
) -> Result<Option<Vec<u8>>, EditError> {
    match resolve(trees, root, path, LastLink::Keep) {
        Ok(Resolved {
            entry: Some(Entry {
                node: Node::Symlink(target),
                ..
            }),
            ..
        }) => Ok(Some(target)),
        Ok(_) | Err(EditError::NotADirectory { .. }) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Copies once: [`Edit::copy`] and [`Edit::commit`].
///
/// # Errors
/// As [`Edit::copy`].
pub fn copy(
    trees: &dyn DirectoryStore,
    dest_root: &TreeDigest,
    source_root: &TreeDigest,
    options: &CopyOptions<'_>,
) -> Result<TreeDigest, EditError> {
    let mut edit = Edit::new(trees, dest_root);
    edit.copy(source_root, options)?;
    edit.commit()
}

/// A directory of a tree as a tree of its own, links followed.
///
/// # Errors
/// [`EditError::NotFound`], [`EditError::NotADirectory`], and failures to resolve the path.
pub fn subtree(trees: &dyn DirectoryStore, root: &TreeDigest, path: impl AsRef<[u8]>) -> Result<TreeDigest, EditError> {
    let resolved = resolve(trees, root, path, LastLink::Follow)?;
    if resolved.path.is_empty() {
        return Ok(*root);
    }
    match resolved.entry {
        Some(Entry {
            meta,
            node: Node::Directory(below),
            ..
        }) => rooted(trees, &below.digest, meta),
        Some(_) => Err(EditError::NotADirectory { path: resolved.path }),
        None => Err(EditError::NotFound { path: resolved.path }),
    }
}

/// A directory as a tree whose root has this metadata.
///
/// # Errors
/// [`EditError::Store`].
pub fn rooted(trees: &dyn DirectoryStore, directory: &TreeDigest, meta: Metadata) -> Result<TreeDigest, EditError> {
    let mut root = Directory::clone(&*trees.need_directory(directory)?);
    root.root = Some(meta);
    let tree = trees.put_directory(root)?.digest;
    Ok(settled(trees, &tree)?)
}

/// The inverse of [`rooted`]: a tree as a directory below another, and the metadata of its root, for the entry.
///
/// # Errors
/// [`EditError::Store`].
pub fn embedded(trees: &dyn DirectoryStore, tree: &TreeDigest) -> Result<(Metadata, DirectoryRef), EditError> {
    let mut directory = Directory::clone(&*trees.need_directory(tree)?);
    let meta = directory.root.take().unwrap_or_else(|| Metadata::new(0o755));
    Ok((meta, trees.put_directory(directory)?))
}

#[cfg(test)]
mod tests;

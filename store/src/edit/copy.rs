//! Copying between trees with the rules of BuildKit's copy action.

use std::collections::HashMap;

use super::draft::{Level, Names, Slot, join};
use super::select::{Filter, Selection, Source, Taken, check_required, find_sources};
use super::{Edit, EditError, LastLink, ModeChange, ModeTarget, Owner, links};
use crate::deep::deep;
use crate::{Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node, StoreError, Timestamp, TreeDigest};

/// One copy: BuildKit's `FileActionCopy`, owner names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions<'a> {
    /// What is copied.
    pub source: Selection<'a>,
    /// Where to. A trailing slash makes it a directory; links in it are followed within the destination.
    pub dest: &'a str,
    /// The owner of all that is copied or made; without it copies keep theirs and made directories are root's.
    pub owner: Option<Owner>,
    /// Permissions of all that is copied, links apart. An octal mode also goes to the directories that are made.
    pub mode: Option<ModeChange>,
    /// The modification time of all that is copied or made; without it copies keep theirs.
    pub timestamp: Option<Timestamp>,
    /// The modification time of directories that are made, without `timestamp`.
    pub made: Timestamp,
    /// Makes the parents of `dest`; without it they must be there.
    pub create_dest_path: bool,
    /// A copied thing replaces what has its name, also a directory a file and the reverse.
    pub always_replace_existing_dest_paths: bool,
}

impl CopyOptions<'_> {
    /// The metadata of directories that have to be made.
    pub(super) fn made_directory(&self) -> Metadata {
        let mode = match &self.mode {
            Some(ModeChange::Set(mode)) => mode & 0o777,
            _ => 0o755,
        };
        let mut meta = Metadata::new(mode);
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        meta.mtime = self.timestamp.unwrap_or(self.made);
        meta
    }
}

impl Edit<'_> {
    /// Copies from another tree (or this one as it was) into this one.
    ///
    /// # Errors
    /// [`EditError::NotFound`] for a missing source, [`EditError::FileOverDirectory`],
    /// [`EditError::DirectoryOverFile`], [`EditError::NotADirectory`], [`EditError::Pattern`] and failures to resolve
    /// a path. The edit is then half done and of no use.
    pub fn copy(&mut self, source_root: &TreeDigest, options: &CopyOptions<'_>) -> Result<(), EditError> {
        let trees = self.draft.trees();
        if !options.create_dest_path {
            let place = self.draft.resolve(options.dest.as_bytes(), LastLink::Follow)?;
            let parents = place.path.split_last().map_or(&[][..], |(_, parents)| parents);
            if self.draft.get(parents)?.is_none() {
                return Err(EditError::NotFound { path: join(parents) });
            }
        }
        let sources = find_sources(trees, source_root, &options.source)?;
        let filter = Filter::new(trees, &options.source)?;
        let mut taken = Vec::new();
        for source in &sources {
            taken.push((source, filter.take(source)?));
        }
        check_required(trees, &options.source, &taken)?;
        for (source, below) in &taken {
            self.copy_taken(source, below, options)?;
        }
        Ok(())
    }

    /// Copies one of the sources that [`find_sources`] found; for callers that treat some of them otherwise, as ADD
    /// treats archives.
    ///
    /// # Errors
    /// As [`Edit::copy`].
    pub fn copy_source(&mut self, source: &Source, options: &CopyOptions<'_>) -> Result<(), EditError> {
        let below = Filter::new(self.draft.trees(), &options.source)?.take(source)?;
        self.copy_taken(source, &below, options)
    }

    fn copy_taken(&mut self, source: &Source, taken: &Taken, options: &CopyOptions<'_>) -> Result<(), EditError> {
        let made = options.made_directory();
        let dest = self.destination(source, options, &made)?;
        self.draft.imports += 1;
        let mut placer = Placer {
            trees: self.draft.trees(),
            options,
            import: self.draft.imports,
            links_touched: false,
            rewritten: HashMap::new(),
        };
        let mut path = join(&dest);
        let onto_directory = matches!(self.draft.get(&dest)?, Some((_, Node::Directory(_))));
        match (&source.entry.node, dest.split_last()) {
            (Node::Directory(directory), _) if onto_directory => {
                // The top directory keeps what it is, but takes the time of the source; the root's never matters.
                if !dest.is_empty() {
                    self.draft.meta(&dest)?.mtime = options.timestamp.unwrap_or(source.entry.meta.mtime);
                }
                if !placer.is_empty(directory, taken) {
                    placer.place_all(self.draft.level(&dest)?, directory, taken, &mut path)?;
                }
            }
            (_, Some((name, parents))) => {
                let entry = Entry {
                    name: name.clone(),
                    ..source.entry.clone()
                };
                placer.place(self.draft.level(parents)?, &entry, taken, true, &mut path)?;
                self.draft.touch(parents)?;
            }
            (_, None) => return Err(EditError::FileOverDirectory { path: Vec::new() }),
        }
        self.draft.links_touched |= placer.links_touched;
        Ok(())
    }

    /// Where a source goes; makes the directories on the way.
    fn destination(&mut self, source: &Source, options: &CopyOptions<'_>, made: &Metadata) -> Result<Names, EditError> {
        let text = options.dest;
        let as_directory = text.is_empty() || text == "." || text.ends_with('/') || text.ends_with("/.");
        let ensured = if as_directory {
            text
        } else {
            text.rsplit_once('/').map_or("", |(parents, _)| parents)
        };
        let place = self.draft.resolve(ensured.as_bytes(), LastLink::Follow)?;
        self.draft.make_directories(&place.path, made)?;
        let place = self.draft.resolve(text.as_bytes(), LastLink::Follow)?;
        let mut dest = place.path;
        let source_is_directory = matches!(source.entry.node, Node::Directory(_));
        let into = match (&place.found, source_is_directory) {
            (Some(_), true) => !options.source.dir_copy_contents,
            (Some((_, Node::Directory(_))), false) => true,
            _ => false,
        };
        if into && !source.entry.name.is_empty() {
            dest.push(source.entry.name.clone());
        }
        let contents_into_new = options.source.dir_copy_contents && source_is_directory && place.found.is_none();
        let ensured = if contents_into_new {
            &dest[..]
        } else {
            dest.split_last().map_or(&[][..], |(_, parents)| parents)
        };
        self.draft.make_directories(ensured, made)?;
        Ok(dest)
    }
}

/// Puts source entries into destination levels.
struct Placer<'a> {
    trees: &'a dyn DirectoryStore,
    options: &'a CopyOptions<'a>,
    /// Tells the link groups of this source from all others.
    import: u64,
    links_touched: bool,
    /// Whole directories without link groups whose metadata had to be rewritten, once for each content.
    rewritten: HashMap<TreeDigest, DirectoryRef>,
}

impl Placer<'_> {
    fn rewrites(&self) -> bool {
        self.options.owner.is_some() || self.options.mode.is_some() || self.options.timestamp.is_some()
    }

    fn is_empty(&self, directory: &DirectoryRef, taken: &Taken) -> bool {
        match taken {
            Taken::Whole => directory.totals.entries == 0,
            Taken::Part(entries) => entries.is_empty(),
        }
    }

    fn metadata(&self, entry: &Entry) -> Metadata {
        let mut meta = entry.meta.clone();
        if let Some(owner) = self.options.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        if let Some(change) = &self.options.mode {
            meta.mode = match &entry.node {
                Node::Symlink(_) => meta.mode,
                Node::Directory(_) => change.apply(meta.mode, ModeTarget::Directory),
                _ => change.apply(meta.mode, ModeTarget::Other),
            };
        }
        if let Some(timestamp) = self.options.timestamp {
            meta.mtime = timestamp;
        }
        meta
    }

    /// Puts the taken entries of a directory into a level; `path` is the level's.
    fn place_all(
        &mut self,
        level: &mut Level,
        directory: &DirectoryRef,
        taken: &Taken,
        path: &mut Vec<u8>,
    ) -> Result<(), EditError> {
        let whole = match taken {
            Taken::Whole => Some(self.trees.need_directory(&directory.digest)?),
            Taken::Part(_) => None,
        };
        let length = path.len();
        let mut place = |entry: &Entry, below: &Taken, selected: bool| {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            self.place(level, entry, below, selected, path)?;
            path.truncate(length);
            Ok::<(), EditError>(())
        };
        match taken {
            Taken::Whole => whole
                .iter()
                .flat_map(|directory| &directory.entries)
                .try_for_each(|entry| place(entry, &Taken::Whole, true)),
            Taken::Part(entries) => entries
                .iter()
                .try_for_each(|taken| place(&taken.entry, &taken.below, taken.selected)),
        }
    }

    /// Puts one entry into a level; `path` is where it goes.
    fn place(
        &mut self,
        level: &mut Level,
        entry: &Entry,
        taken: &Taken,
        selected: bool,
        path: &mut Vec<u8>,
    ) -> Result<(), EditError> {
        let replaces = self.options.always_replace_existing_dest_paths && selected;
        match (&entry.node, level.entries.get_mut(&entry.name)) {
            (Node::Directory(directory), Some(slot)) if slot.is_directory() => {
                if selected {
                    let old = std::mem::replace(&mut slot.meta, self.metadata(entry));
                    merge_attributes(&mut slot.meta, old);
                } else {
                    // As BuildKit: a directory that only something below asks for gives nothing but its mode.
                    slot.meta.mode = entry.meta.mode;
                }
                let same = matches!(taken, Taken::Whole)
                    && !self.rewrites()
                    && slot.open.is_none()
                    && slot.node == entry.node
                    && directory.totals.links == 0;
                if !same
                    && !self.is_empty(directory, taken)
                    && let Some(below) = slot.open(self.trees)?
                {
                    deep(|| self.place_all(below, directory, taken, path))?;
                }
                return Ok(());
            }
            (Node::Directory(_), Some(_)) if !replaces => {
                return Err(EditError::DirectoryOverFile { path: path.clone() });
            }
            (_, Some(slot)) if slot.is_directory() && !replaces => {
                return Err(EditError::FileOverDirectory { path: path.clone() });
            }
            _ => {}
        }
        crate::check_name(&entry.name).map_err(StoreError::BadName)?;
        let slot = self.fresh(entry, taken)?;
        self.links_touched |= slot.has_links();
        if let Some(old) = level.entries.insert(entry.name.clone(), slot) {
            self.links_touched |= old.has_links();
        }
        Ok(())
    }

    /// A new slot for an entry and what is taken of it.
    fn fresh(&mut self, entry: &Entry, taken: &Taken) -> Result<Slot, EditError> {
        let meta = self.metadata(entry);
        let (directory, entries) = match (&entry.node, taken) {
            (Node::Directory(directory), _) if self.is_empty(directory, taken) => {
                return Ok(Slot::empty_directory(meta));
            }
            (Node::Directory(directory), Taken::Part(entries)) => (directory, entries),
            (Node::Directory(directory), Taken::Whole) if self.rewrites() => {
                if directory.totals.links == 0 {
                    let node = Node::Directory(self.rewrite(directory)?);
                    return Ok(Slot::new(meta, node));
                }
                let mut level = Level::default();
                deep(|| self.place_all(&mut level, directory, taken, &mut Vec::new()))?;
                let mut slot = Slot::empty_directory(meta);
                slot.open = Some(Box::new(level));
                return Ok(slot);
            }
            _ => {
                let mut slot = Slot::new(meta, entry.node.clone());
                links::import(self.trees, &mut slot, self.import)?;
                return Ok(slot);
            }
        };
        let mut slot = Slot::new(meta, Node::Directory(*directory));
        let mut level = Level::default();
        for taken in entries {
            let below = deep(|| self.fresh(&taken.entry, &taken.below))?;
            level.entries.insert(taken.entry.name.clone(), below);
        }
        slot.open = Some(Box::new(level));
        Ok(slot)
    }

    /// Stores a whole directory without link groups with its metadata rewritten, level by level, so that a large one
    /// is never in memory.
    fn rewrite(&mut self, directory: &DirectoryRef) -> Result<DirectoryRef, EditError> {
        if let Some(known) = self.rewritten.get(&directory.digest) {
            return Ok(*known);
        }
        let source = self.trees.need_directory(&directory.digest)?;
        let mut entries = Vec::with_capacity(source.entries.len());
        for entry in &source.entries {
            entries.push(Entry {
                name: entry.name.clone(),
                meta: self.metadata(entry),
                node: match &entry.node {
                    Node::Directory(below) => Node::Directory(deep(|| self.rewrite(below))?),
                    other => other.clone(),
                },
            });
        }
        let new = self.trees.put_directory(Directory {
            root: None,
            opaque: source.opaque,
            entries,
        })?;
        self.rewritten.insert(directory.digest, new);
        Ok(new)
    }
}

/// Keeps the attributes that only the old metadata has.
fn merge_attributes(meta: &mut Metadata, old: Metadata) {
    for attribute in old.xattrs {
        if let Err(index) = meta.xattrs.binary_search_by(|(name, _)| name.cmp(&attribute.0)) {
            meta.xattrs.insert(index, attribute);
        }
    }
}

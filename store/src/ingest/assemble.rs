//! From what the threads found, in any order, to directories.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::walk::Status;
use crate::{BlobDigest, Directory, DirectoryRef, DirectoryStore, Entry, LinkGroup, Metadata, Node, StoreError};

/// A directory of the walk; larger numbers are deeper.
pub(super) type Number = usize;

/// A device and an inode on it.
pub(super) type Inode = ((u32, u32), u64);

/// An entry whose file or directory may not be known yet.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: Vec<u8>,
    pub(super) meta: Metadata,
    pub(super) node: FoundNode,
}

impl Found {
    /// Tells what a file holds.
    pub(super) fn fill(&mut self, contents: Contents) {
        if let FoundNode::File(inode) = self.node {
            self.node = FoundNode::Known(inode, contents);
        }
    }
}

#[derive(Debug)]
pub(super) enum FoundNode {
    Ready(Node),
    /// A file whose contents are known, and which it is when it has other names.
    Known(Option<Inode>, Contents),
    /// A file that is being read, and which it is when it has other names.
    File(Option<Inode>),
    /// `dropped_if_empty`: it is only there for what is in it.
    Directory {
        number: Number,
        dropped_if_empty: bool,
    },
}

/// What reading a file told.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) blob: BlobDigest,
    pub(super) size: u64,
    /// Its `security.capability`.
    pub(super) capability: Option<Vec<u8>>,
    /// Its metadata, when it changed between the look at it and the reading.
    pub(super) newer: Option<Box<Metadata>>,
}

#[derive(Debug, Default)]
struct Level {
    opaque: bool,
    entries: Vec<Found>,
    /// Files and directories among the entries that are not known yet.
    missing: usize,
}

/// Collects from all threads.
#[derive(Default)]
pub(super) struct Collected<'a> {
    numbers: AtomicUsize,
    /// Where directories go as soon as all in them is known, so that only few are in memory as a list of entries.
    early: Option<&'a dyn DirectoryStore>,
    state: Mutex<State>,
    groups: Mutex<HashMap<Inode, u64>>,
}

#[derive(Debug, Default)]
struct State {
    levels: HashMap<Number, Level>,
    /// Of files whose directory was not added yet.
    contents: HashMap<(Number, usize), Contents>,
    /// Directories that their parents do not have yet.
    references: HashMap<Number, DirectoryRef>,
    /// Whose directories are waited for.
    parents: HashMap<Number, Number>,
}

/// The one attribute that layers keep.
pub(super) const CAPABILITY: &str = "security.capability";

impl<'a> Collected<'a> {
    /// Stores each directory but number 0 as soon as all in it is known.
    pub(super) fn early(trees: &'a dyn DirectoryStore) -> Self {
        Self {
            early: Some(trees),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a directory, larger than its parent's; the first is 0.
    pub(super) fn number(&self) -> Number {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add_directory(&self, number: Number, opaque: bool, entries: Vec<Found>) -> Result<(), StoreError> {
        let mut state = self.lock();
        let mut missing = 0;
        for found in &entries {
            match found.node {
                FoundNode::File(_) => missing += 1,
                FoundNode::Directory { number: below, .. } if !state.references.contains_key(&below) => {
                    missing += 1;
                    state.parents.insert(below, number);
                }
                _ => {}
            }
        }
        let level = Level {
            opaque,
            entries,
            missing,
        };
        state.levels.insert(number, level);
        self.finish(state, number)
    }

    /// Tells what files of a directory hold, by their places in the list of entries.
    pub(super) fn add_contents(
        &self,
        number: Number,
        found: impl IntoIterator<Item = (usize, Contents)>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        let State { levels, contents, .. } = &mut *state;
        match levels.get_mut(&number) {
            Some(level) => {
                for (place, known) in found {
                    level.entries[place].fill(known);
                    level.missing -= 1;
                }
            }
            None => contents.extend(found.into_iter().map(|(place, known)| ((number, place), known))),
        }
        self.finish(state, number)
    }

    /// Stores a directory if all in it is known, then perhaps those above it.
    fn finish<'s>(&'s self, mut state: MutexGuard<'s, State>, mut number: Number) -> Result<(), StoreError> {
        let Some(trees) = self.early else {
            return Ok(());
        };
        while number != 0 && state.levels.get(&number).is_some_and(|level| level.missing == 0) {
            let level = state.levels.remove(&number).unwrap_or_default();
            let below = take_below(&mut state, &level);
            drop(state);
            let reference = trees.put_directory(self.directory(level, below))?;
            state = self.lock();
            state.references.insert(number, reference);
            // Without one, the parent is still being listed.
            let Some(parent) = state.parents.remove(&number) else {
                break;
            };
            if let Some(level) = state.levels.get_mut(&parent) {
                level.missing -= 1;
            }
            number = parent;
        }
        Ok(())
    }

    /// The directory of what was found; files whose contents are not known are left out.
    fn directory(&self, level: Level, mut below: HashMap<Number, DirectoryRef>) -> Directory {
        let mut entries = Vec::with_capacity(level.entries.len());
        for found in level.entries {
            let mut meta = found.meta;
            let node = match found.node {
                FoundNode::Ready(node) => node,
                FoundNode::Directory {
                    number,
                    dropped_if_empty,
                } => match below.remove(&number) {
                    Some(below) if !(dropped_if_empty && below.totals.entries == 0) => Node::Directory(below),
                    _ => continue,
                },
                FoundNode::File(_) => continue,
                FoundNode::Known(inode, known) => {
                    if let Some(newer) = known.newer {
                        meta = *newer;
                    }
                    if let Some(value) = known.capability {
                        meta.xattrs.push((CAPABILITY.as_bytes().to_vec(), value));
                    }
                    Node::File {
                        blob: known.blob,
                        size: known.size,
                        link: inode.map(|inode| LinkGroup {
                            id: self.group(inode),
                            count: 0,
                        }),
                    }
                }
            };
            entries.push(Entry {
                name: found.name,
                meta,
                node,
            });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Directory {
            root: None,
            opaque: level.opaque,
            entries,
        }
    }

    fn group(&self, inode: Inode) -> u64 {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let next = groups.len() as u64;
        *groups.entry(inode).or_insert(next)
    }

    /// Stores the directories, the deepest first; the result is that of number 0, its root metadata as given. Names of
    /// one inode are one link group, not settled yet.
    pub(super) fn assemble(
        &self,
        trees: &dyn DirectoryStore,
        root: Option<Metadata>,
    ) -> Result<DirectoryRef, StoreError> {
        let mut state = std::mem::take(&mut *self.lock());
        let contents = std::mem::take(&mut state.contents);
        for ((number, place), known) in contents {
            if let Some(level) = state.levels.get_mut(&number) {
                level.entries[place].fill(known);
            }
        }
        for number in (1..self.numbers.load(Ordering::Relaxed)).rev() {
            let level = match state.levels.remove(&number) {
                Some(level) => level,
                // One that could not be looked into is empty; others are stored already.
                None if state.parents.contains_key(&number) => Level::default(),
                None => continue,
            };
            let below = take_below(&mut state, &level);
            let reference = trees.put_directory(self.directory(level, below))?;
            state.references.insert(number, reference);
        }
        let level = state.levels.remove(&0).unwrap_or_default();
        let below = take_below(&mut state, &level);
        let mut top = self.directory(level, below);
        top.root = root;
        trees.put_directory(top)
    }
}

/// What is known of the directories in one.
fn take_below(state: &mut State, level: &Level) -> HashMap<Number, DirectoryRef> {
    let numbers = level.entries.iter().filter_map(|found| match found.node {
        FoundNode::Directory { number, .. } => Some(number),
        _ => None,
    });
    numbers
        .filter_map(|number| Some((number, state.references.remove(&number)?)))
        .collect()
}

/// Which file this is when it has other names.
pub(super) fn linked(status: &Status) -> Option<Inode> {
    (status.links > 1).then_some((status.device, status.inode))
}

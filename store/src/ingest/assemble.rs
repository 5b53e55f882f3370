//! From what the threads found, in any order, to directories.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
}

/// Collects from all threads.
#[derive(Debug, Default)]
pub(super) struct Collected {
    numbers: AtomicUsize,
    levels: Mutex<HashMap<Number, Level>>,
    contents: Mutex<HashMap<(Number, usize), Contents>>,
}

/// The one attribute that layers keep.
pub(super) const CAPABILITY: &str = "security.capability";

impl Collected {
    /// A number for a directory, larger than its parent's; the first is 0.
    pub(super) fn number(&self) -> Number {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add_directory(&self, number: Number, opaque: bool, entries: Vec<Found>) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        levels.insert(number, Level { opaque, entries });
    }

    /// Tells what a file of a directory holds, by its place in the list of entries.
    pub(super) fn add_contents(&self, found: impl IntoIterator<Item = ((Number, usize), Contents)>) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.extend(found);
    }

    /// Stores the directories, the deepest first; the result is that of number 0, its root metadata as given. Names of
    /// one inode are one link group, not settled yet.
    pub(super) fn assemble(
        self,
        trees: &dyn DirectoryStore,
        root: Option<Metadata>,
    ) -> Result<DirectoryRef, StoreError> {
        let mut levels = self.levels.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut contents = self.contents.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut references: HashMap<Number, DirectoryRef> = HashMap::new();
        let mut groups: HashMap<Inode, u64> = HashMap::new();
        let mut root = Some(root);
        for number in (0..self.numbers.into_inner()).rev() {
            let level = levels.remove(&number).unwrap_or_default();
            let mut entries = Vec::with_capacity(level.entries.len());
            for (place, found) in level.entries.into_iter().enumerate() {
                let mut meta = found.meta;
                let node = match found.node {
                    FoundNode::Ready(node) => node,
                    FoundNode::Directory {
                        number,
                        dropped_if_empty,
                    } => match references.remove(&number) {
                        Some(below) if !(dropped_if_empty && below.totals.entries == 0) => Node::Directory(below),
                        _ => continue,
                    },
                    FoundNode::File(_) | FoundNode::Known(..) => {
                        let (inode, known) = match found.node {
                            FoundNode::Known(inode, known) => (inode, known),
                            FoundNode::File(inode) => match contents.remove(&(number, place)) {
                                Some(known) => (inode, known),
                                None => continue,
                            },
                            _ => continue,
                        };
                        if let Some(newer) = known.newer {
                            meta = *newer;
                        }
                        if let Some(value) = known.capability {
                            meta.xattrs.push((CAPABILITY.as_bytes().to_vec(), value));
                        }
                        let next = groups.len() as u64;
                        Node::File {
                            blob: known.blob,
                            size: known.size,
                            link: inode.map(|inode| LinkGroup {
                                id: *groups.entry(inode).or_insert(next),
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
            let directory = Directory {
                root: if number == 0 { root.take().flatten() } else { None },
                opaque: level.opaque,
                entries,
            };
            references.insert(number, trees.put_directory(directory)?);
        }
        match references.remove(&0) {
            Some(root) => Ok(root),
            None => trees.put_directory(Directory::default()),
        }
    }
}

/// Which file this is when it has other names.
pub(super) fn linked(status: &Status) -> Option<Inode> {
    (status.links > 1).then_some((status.device, status.inode))
}

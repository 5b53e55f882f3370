//! One directory of one tree instance, and the nodes in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cbs_store::{BlobDigest, Directory, Entry, INLINE_LIMIT, Metadata, Node};

use super::Whiteouts;
use crate::Observer;
use crate::attributes;
use crate::root_key::RootKey;
use crate::server::{Attributes, NodeId};

/// Small files that are fetched ahead of a reader, and their bytes: what is fetched for nothing costs little more than the
/// question that it might have spared.
const AHEAD_FILES: usize = 32;
const AHEAD_BYTES: u64 = 256 << 10;

/// One tree instance: everything below one name at the root of the mount.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Its name.
    pub(crate) key: RootKey,
    /// Who watches it.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// Questions about it so far.
    pub(super) asked: AtomicU64,
    /// The question after which it is worth an image.
    pub(super) worth_an_image: Option<u64>,
    /// Entries in its ranges.
    pub(super) entries: AtomicU64,
    /// When it was last entered, in ticks of the table.
    pub(super) used: AtomicU64,
    pub(super) links: Mutex<HashMap<(u64, BlobDigest), NodeId>>,
}

/// One directory of one tree instance.
#[derive(Debug)]
pub(crate) struct Range {
    pub(super) first: u64,
    pub(super) place: Place,
    pub(crate) tree: Arc<Tree>,
    pub(crate) directory: Arc<Directory>,
    /// References the kernel has to nodes of this range.
    pub(super) known: AtomicU64,
}

#[derive(Debug)]
pub(super) enum Place {
    /// The range holds the root itself as well.
    Root,
    /// The directory is this entry of that range.
    Below(Arc<Range>, usize),
}

/// A node and what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct NodeRef {
    pub(crate) range: Arc<Range>,
    /// Which entry; `None` is the root of the tree.
    pub(super) at: Option<usize>,
    pub(super) id: NodeId,
}

impl Range {
    fn extra(&self) -> u64 {
        u64::from(matches!(self.place, Place::Root))
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.extra() + self.directory.entries.len() as u64
    }

    pub(super) fn id(&self, index: usize) -> NodeId {
        NodeId(self.first + self.extra() + index as u64)
    }

    /// Which entry a node of this range is; `None` is the root.
    pub(super) fn index(&self, id: NodeId) -> Option<usize> {
        (id.0 - self.first)
            .checked_sub(self.extra())
            .map(|index| index as usize)
    }

    /// What a name at the root of the mount leads to: the root of a tree, or the one entry of a link.
    pub(super) fn root_index(&self) -> Option<usize> {
        matches!(self.tree.key, RootKey::Link(..)).then_some(0)
    }

    /// The path of this directory from the root of its tree. A tree may be deeper than any stack.
    pub(crate) fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut place = &self.place;
        while let Place::Below(parent, index) = place {
            names.push(&*parent.directory.entries[*index].name);
            place = &parent.place;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The path of an entry from the root of its tree.
    fn path_of(&self, index: usize) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&self.directory.entries[index].name);
        path
    }

    /// Attributes of an entry, or of the root, under a node's number.
    pub(super) fn attributes(&self, at: Option<usize>, node: NodeId) -> Attributes {
        match at {
            None => attributes::of_root(node, self.directory.root.as_ref()),
            Some(index) => attributes::of_entry(node, &self.directory.entries[index]),
        }
    }
}

impl Drop for Range {
    /// Lets go of the parents one after the other: left to itself, each would drop the next inside its own drop, and a
    /// tree may be deeper than any stack.
    fn drop(&mut self) {
        let mut place = std::mem::replace(&mut self.place, Place::Root);
        while let Place::Below(parent, _) = place {
            let Some(mut parent) = Arc::into_inner(parent) else {
                break;
            };
            place = std::mem::replace(&mut parent.place, Place::Root);
        }
    }
}

impl Tree {
    /// Counts a question; answers whether it is the one after which the tree is worth an image.
    pub(crate) fn ask(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.worth_an_image == Some(asked)
    }
}

impl NodeRef {
    /// A number of the directory it is in.
    pub(crate) fn directory_number(&self) -> u64 {
        self.range.first
    }

    /// The blobs of small files that are listed behind it, the next ones only.
    pub(crate) fn small_files_after(&self) -> Vec<BlobDigest> {
        let start = self.at.map_or(0, |index| index + 1);
        let after = self.range.directory.entries.iter().skip(start).take(4 * AHEAD_FILES);
        let mut bytes = 0;
        after
            .filter_map(|entry| match &entry.node {
                Node::File { blob, size, .. } if (1..=INLINE_LIMIT).contains(size) => Some((*blob, *size)),
                _ => None,
            })
            .take(AHEAD_FILES)
            .take_while(|(_, size)| {
                bytes += size;
                bytes <= AHEAD_BYTES
            })
            .map(|(blob, _)| blob)
            .collect()
    }

    /// The entry; `None` is the root of a tree.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        self.at.map(|index| &self.range.directory.entries[index])
    }

    /// Its metadata; `None` for a root that has none.
    pub(crate) fn meta(&self) -> Option<&Metadata> {
        match self.entry() {
            Some(entry) => Some(&entry.meta),
            None => self.range.directory.root.as_ref(),
        }
    }

    /// Its attributes.
    pub(crate) fn attributes(&self) -> Attributes {
        self.range.attributes(self.at, self.id)
    }

    /// Its path from the root of its tree.
    pub(crate) fn path(&self) -> Vec<u8> {
        self.at.map(|index| self.range.path_of(index)).unwrap_or_default()
    }
}

impl Whiteouts {
    pub(super) fn shows(self, entry: &Entry) -> bool {
        self == Self::Shown || entry.node != Node::Whiteout
    }
}

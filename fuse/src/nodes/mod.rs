//! The nodes the kernel may ask about.
//!
//! ```text
//! range (one directory of one tree instance)   first ─ first + entries.len()    entry i is node first + i
//!   root of a tree                             first is the root itself         entry i is node first + 1 + i
//! ```
//! A directory gets its range when the kernel first looks into it. Equal directories in two places have two ranges, and
//! equal files two nodes: a directory may have only one name, and `cp` takes equal numbers for the same file. Only the
//! names of one hard link group share a node, the one looked up first.
//!
//! Each range counts the references the kernel has to its nodes. A range without any goes when the kernel gives the
//! last one back, or with the range of its parent; numbers are never used again.
//!
//! Locking: one lock for the table, held for memory work only. References are only added under the read lock and only
//! ranges without any are removed, under the write lock. The lock of a tree's link groups is innermost.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cbs_store::{Directory, Node, TreeDigest};

use crate::Observer;
use crate::attributes;
use crate::images::worth_an_image;
use crate::root_key::RootKey;
use crate::server::{Attributes, Fit, Keep, Listing, ListingSink, NodeId};
use crate::sync::lock;

mod range;
#[cfg(test)]
mod tests;

pub(crate) use range::{NodeRef, Range};
use range::{Place, Tree};

/// The table.
#[derive(Debug, Default)]
pub(crate) struct NodeTable {
    inner: RwLock<Inner>,
    ticks: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    ranges: BTreeMap<u64, Arc<Range>>,
    /// The range of a directory's entries, by the directory's node.
    listings: HashMap<NodeId, Arc<Range>>,
    roots: HashMap<RootKey, Arc<Range>>,
    next: u64,
    entries: u64,
}

/// The answer of the table when it may lack a directory.
#[derive(Debug)]
pub(crate) enum Step<T> {
    /// It had all it needed.
    Done(T),
    /// This directory has to be loaded and added with [`NodeTable::add_listing`].
    Load(NodeRef, TreeDigest),
    /// The node is no directory.
    NotDirectory,
    /// The kernel should not know this node.
    Stale,
}

/// How big the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableSize {
    pub(crate) ranges: usize,
    pub(crate) entries: u64,
}

/// Whether entries of layers that hide names are part of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// They are skipped: what hides a name is not a file.
    Hidden,
    /// They are character devices 0/0, as in the upper directory of an overlay.
    Shown,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            ranges: BTreeMap::new(),
            listings: HashMap::new(),
            roots: HashMap::new(),
            next: NodeId::ROOT.0 + 1,
            entries: 0,
        }
    }
}

impl NodeTable {
    /// Finds a node the kernel has a reference to.
    pub(crate) fn node(&self, id: NodeId) -> Option<NodeRef> {
        self.read().node(id)
    }

    /// Enters a root that has a range already and takes a reference to it.
    pub(crate) fn enter(&self, key: &RootKey) -> Option<Attributes> {
        let inner = self.read();
        let range = inner.roots.get(key)?;
        range
            .tree
            .used
            .store(self.ticks.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        range.known.fetch_add(1, Ordering::Relaxed);
        Some(inner.attributes(range, range.root_index()))
    }

    /// Gives a root its range, unless another thread was faster.
    pub(crate) fn add_root(&self, key: RootKey, directory: Arc<Directory>, observer: Option<Arc<dyn Observer>>) {
        let mut inner = self.write();
        if inner.roots.contains_key(&key) {
            return;
        }
        let tree = Arc::new(Tree {
            key: key.clone(),
            worth_an_image: match (&key, &observer) {
                (RootKey::Tree(_), None) => worth_an_image(directory.totals().entries),
                _ => None,
            },
            observer,
            asked: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            used: AtomicU64::new(self.ticks.fetch_add(1, Ordering::Relaxed)),
            links: Mutex::default(),
        });
        let range = inner.add(Place::Root, tree, directory);
        inner.roots.insert(key, range);
    }

    /// Gives a directory's entries their range, unless another thread was faster.
    pub(crate) fn add_listing(&self, of: &NodeRef, directory: Arc<Directory>) {
        let mut inner = self.write();
        if let (Some(index), false) = (of.at, inner.listings.contains_key(&of.id)) {
            let place = Place::Below(Arc::clone(&of.range), index);
            let range = inner.add(place, Arc::clone(&of.range.tree), directory);
            inner.listings.insert(of.id, range);
        }
    }

    /// Looks a name up and takes a reference to what it finds. Also answers with the range, for observers.
    pub(crate) fn lookup(
        &self,
        parent: NodeId,
        name: &[u8],
        whiteouts: Whiteouts,
    ) -> Step<(Arc<Range>, Option<Attributes>)> {
        let inner = self.read();
        let range = match inner.listing(parent) {
            Step::Done(range) => range,
            Step::Load(node, digest) => return Step::Load(node, digest),
            Step::NotDirectory => return Step::NotDirectory,
            Step::Stale => return Step::Stale,
        };
        let found = match range.directory.position(name) {
            Ok(index) if whiteouts.shows(&range.directory.entries[index]) => Some(inner.refer(range, index)),
            _ => None,
        };
        Step::Done((Arc::clone(range), found))
    }

    /// Lists a directory; with [`Listing::Plus`] takes a reference to each entry that fits.
    pub(crate) fn list(
        &self,
        node: NodeId,
        from: u64,
        listing: Listing,
        whiteouts: Whiteouts,
        sink: &mut dyn ListingSink,
    ) -> Step<Arc<Range>> {
        let inner = self.read();
        let range = match inner.listing(node) {
            Step::Done(range) => range,
            other => return other.map(Arc::clone),
        };
        let this = attributes::of_root(node, None);
        for (position, name) in [(0, &b"."[..]), (1, b"..")] {
            // The kernel knows the numbers of both by itself; these are for whoever reads `d_ino`.
            if from <= position && sink.add(name, &this, Keep::Forever, position + 1) == Fit::Full {
                return Step::Done(Arc::clone(range));
            }
        }
        let start = usize::try_from(from.saturating_sub(2)).unwrap_or(usize::MAX);
        for (index, entry) in range.directory.entries.iter().enumerate().skip(start) {
            if !whiteouts.shows(entry) {
                continue;
            }
            let attributes = inner.attributes(range, Some(index));
            if sink.add(&entry.name, &attributes, Keep::Forever, index as u64 + 3) == Fit::Full {
                break;
            }
            if listing == Listing::Plus {
                inner.count_reference(attributes.node);
            }
        }
        Step::Done(Arc::clone(range))
    }

    /// Takes back references of the kernel.
    pub(crate) fn forget(&self, id: NodeId, count: u64) {
        let emptied = {
            let inner = self.read();
            let Some(range) = inner.range(id) else { return };
            // The kernel gives back no more than it got; if it did, a wrapped count would keep the range for ever.
            let before = range.known.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
                Some(known.saturating_sub(count))
            });
            before.is_ok_and(|known| known <= count).then(|| Arc::clone(range))
        };
        if let Some(range) = emptied {
            self.write().reap(&range);
        }
    }

    /// Names of trees to drop so that the table holds `budget` entries again, longest unused first. The one entered last
    /// stays in any case: it is the one being walked.
    pub(crate) fn over_budget(&self, budget: u64, may_go: impl Fn(&RootKey) -> bool) -> Vec<RootKey> {
        let inner = self.read();
        let mut excess = inner.entries.saturating_sub(budget);
        if excess == 0 {
            return Vec::new();
        }
        let mut trees: Vec<_> = inner.roots.values().map(|range| Arc::clone(&range.tree)).collect();
        trees.sort_by_key(|tree| tree.used.load(Ordering::Relaxed));
        trees.pop();
        let mut names = Vec::new();
        for tree in trees {
            if excess > 0 && may_go(&tree.key) {
                excess = excess.saturating_sub(tree.entries.load(Ordering::Relaxed));
                names.push(tree.key.clone());
            }
        }
        names
    }

    /// How big the table is.
    pub(crate) fn size(&self) -> TableSize {
        let inner = self.read();
        TableSize {
            ranges: inner.ranges.len(),
            entries: inner.entries,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, place: Place, tree: Arc<Tree>, directory: Arc<Directory>) -> Arc<Range> {
        let extra = u64::from(matches!(place, Place::Root));
        let count = directory.entries.len() as u64 + extra;
        let range = Arc::new(Range {
            first: self.next,
            place,
            tree,
            directory,
            known: AtomicU64::new(0),
        });
        // An empty directory takes a number too, since numbers are the keys of the table.
        self.next += count.max(1);
        self.entries += count;
        range.tree.entries.fetch_add(count, Ordering::Relaxed);
        self.ranges.insert(range.first, Arc::clone(&range));
        range
    }

    fn range(&self, id: NodeId) -> Option<&Arc<Range>> {
        let (_, range) = self.ranges.range(..=id.0).next_back()?;
        (id.0 < range.end()).then_some(range)
    }

    fn node(&self, id: NodeId) -> Option<NodeRef> {
        let range = self.range(id)?;
        Some(NodeRef {
            range: Arc::clone(range),
            at: range.index(id),
            id,
        })
    }

    /// The range of a directory's entries.
    fn listing(&self, id: NodeId) -> Step<&Arc<Range>> {
        if let Some(range) = self.listings.get(&id) {
            return Step::Done(range);
        }
        let Some(range) = self.range(id) else {
            return Step::Stale;
        };
        let Some(index) = range.index(id) else {
            return Step::Done(range);
        };
        match range.directory.entries[index].directory() {
            Some(reference) => {
                let node = NodeRef {
                    range: Arc::clone(range),
                    at: Some(index),
                    id,
                };
                Step::Load(node, reference.digest)
            }
            None => Step::NotDirectory,
        }
    }

    /// Takes a reference to an entry.
    fn refer(&self, range: &Arc<Range>, index: usize) -> Attributes {
        let attributes = self.attributes(range, Some(index));
        self.count_reference(attributes.node);
        attributes
    }

    fn count_reference(&self, id: NodeId) {
        if let Some(range) = self.range(id) {
            range.known.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn attributes(&self, range: &Range, at: Option<usize>) -> Attributes {
        let id = match at {
            None => NodeId(range.first),
            Some(index) => self.shared_node(range, index),
        };
        range.attributes(at, id)
    }

    /// The node of an entry: its own, or the one its hard link group got first.
    fn shared_node(&self, range: &Range, index: usize) -> NodeId {
        let own = range.id(index);
        match &range.directory.entries[index].node {
            Node::File {
                blob, link: Some(link), ..
            } => *lock(&range.tree.links).entry((link.id, *blob)).or_insert(own),
            _ => own,
        }
    }

    /// Removes a range that nobody refers to, and those below it.
    fn reap(&mut self, range: &Arc<Range>) {
        let mut unused = vec![Arc::clone(range)];
        while let Some(range) = unused.pop() {
            // Someone may have looked in between, or the range may be gone already.
            if range.known.load(Ordering::Relaxed) != 0 || self.ranges.remove(&range.first).is_none() {
                continue;
            }
            let count = range.end() - range.first;
            self.entries -= count;
            range.tree.entries.fetch_sub(count, Ordering::Relaxed);
            match &range.place {
                Place::Root => drop(self.roots.remove(&range.tree.key)),
                Place::Below(parent, index) => drop(self.listings.remove(&parent.id(*index))),
            }
            for (index, entry) in range.directory.entries.iter().enumerate() {
                let id = range.id(index);
                match &entry.node {
                    Node::Directory(_) => unused.extend(self.listings.get(&id).map(Arc::clone)),
                    Node::File {
                        blob, link: Some(link), ..
                    } => {
                        let mut links = lock(&range.tree.links);
                        if links.get(&(link.id, *blob)) == Some(&id) {
                            links.remove(&(link.id, *blob));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

impl<T> Step<T> {
    fn map<U>(self, done: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Self::Done(value) => Step::Done(done(value)),
            Self::Load(node, digest) => Step::Load(node, digest),
            Self::NotDirectory => Step::NotDirectory,
            Self::Stale => Step::Stale,
        }
    }
}

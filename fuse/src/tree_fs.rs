//! The file system: every tree of the store below its digest.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cbs_store::{BlobDigest, Node};
use rustix::io::Errno;

use crate::browse::link_entry;
use crate::content::Content;
use crate::images::Wanted;
use crate::nodes::{NodeRef, NodeTable, Range, Step, Whiteouts};
use crate::root_key::RootKey;
use crate::server::{Attributes, Bytes, Fit, Found, Keep, Listing, ListingSink, NodeId, Opened, Server};
use crate::session::Notices;
use crate::shared::Shared;
use crate::xattrs::Presentation;
use crate::{Use, attributes};

/// What a mount is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The lower layer of overlays: nothing is opened, whiteouts are no files.
    Run,
    /// To be looked at: files are opened, layers show their whiteouts, the root has named links.
    Browse,
}

/// What a [`TreeFs`] is made of, on its way to the serving side.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) purpose: Purpose,
    pub(crate) presentation: Presentation,
    /// The folder of blob files.
    pub(crate) blobs: PathBuf,
    /// Entries the kernel may know of trees that are not in use.
    pub(crate) entry_budget: u64,
    /// Asks for images.
    pub(crate) images: Option<Wanted>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) nodes: Arc<NodeTable>,
}

/// The file system.
#[derive(Debug)]
pub(crate) struct TreeFs {
    purpose: Purpose,
    presentation: Presentation,
    entry_budget: u64,
    images: Option<Wanted>,
    shared: Arc<Shared>,
    nodes: Arc<NodeTable>,
    content: Content,
    notices: Notices,
    /// The directory in which a small file was fetched last.
    fetched_in: AtomicU64,
}

impl TreeFs {
    /// Serves what `content` has.
    pub(crate) fn new(parts: Parts, content: Content, notices: Notices) -> Self {
        Self {
            purpose: parts.purpose,
            presentation: parts.presentation,
            entry_budget: parts.entry_budget,
            images: parts.images,
            shared: parts.shared,
            nodes: parts.nodes,
            content,
            notices,
            fetched_in: AtomicU64::new(0),
        }
    }

    /// What to fetch along with a small file: nothing, unless the last one was in the same directory. Whoever reads two
    /// files of a directory mostly reads all.
    fn ahead_of(&self, node: &NodeRef) -> Vec<BlobDigest> {
        let directory = node.directory_number();
        match self.fetched_in.swap(directory, Ordering::Relaxed) == directory {
            true => node.small_files_after(),
            false => Vec::new(),
        }
    }

    fn whiteouts(&self) -> Whiteouts {
        match self.purpose {
            Purpose::Run => Whiteouts::Hidden,
            Purpose::Browse => Whiteouts::Shown,
        }
    }

    /// Runs a question to the table until no directory is missing.
    fn complete<T>(&self, mut question: impl FnMut() -> Step<T>) -> Result<T, Errno> {
        loop {
            match question() {
                Step::Done(answer) => return Ok(answer),
                Step::Load(node, digest) => {
                    let directory = self.content.need_directory(digest)?;
                    self.nodes.add_listing(&node, directory);
                }
                Step::NotDirectory => return Err(Errno::NOTDIR),
                Step::Stale => return Err(Errno::STALE),
            }
        }
    }

    fn node(&self, id: NodeId) -> Result<NodeRef, Errno> {
        let node = self.nodes.node(id).ok_or(Errno::STALE)?;
        self.asked(&node.range);
        Ok(node)
    }

    /// Counts a question about a tree, and wants an image of it when there have been enough.
    fn asked(&self, range: &Range) {
        if let (true, Some(wanted), RootKey::Tree(tree)) = (range.tree.ask(), &self.images, &range.tree.key) {
            wanted.want(*tree);
        }
    }

    fn lookup_root(&self, name: &[u8]) -> Result<Found, Errno> {
        let Some(key) = RootKey::parse(name) else {
            return self.lookup_link(name);
        };
        loop {
            // A closed view stays closed, even while old nodes of it are around.
            let observer = self.shared.observer(&key);
            if matches!(key, RootKey::Observed(..)) && observer.is_none() {
                return Ok(Found::Nothing(Keep::Never));
            }
            if let Some(attributes) = self.nodes.enter(&key) {
                return Ok(Found::Node(attributes, Keep::Forever));
            }
            let (RootKey::Tree(tree) | RootKey::Observed(tree, _) | RootKey::Link(_, tree)) = &key;
            let Some(directory) = self.content.directory(*tree)? else {
                return Ok(Found::Nothing(Keep::Never));
            };
            self.nodes.add_root(key.clone(), directory, observer);
            self.drop_unused_trees();
        }
    }

    /// Makes the kernel forget the trees that were not entered for longest when it knows too much.
    fn drop_unused_trees(&self) {
        for key in self
            .nodes
            .over_budget(self.entry_budget, |key| !self.shared.is_open(key))
        {
            // The notifier ends with the mount, and then there is nothing to forget.
            let _ = self.notices.send(key.name());
        }
    }

    fn lookup_link(&self, name: &[u8]) -> Result<Found, Errno> {
        if self.purpose == Purpose::Run {
            return Ok(Found::Nothing(Keep::Never));
        }
        match self.content.root(name)? {
            Some(tree) => Ok(Found::Node(self.enter_link(name, tree), Keep::Never)),
            None => Ok(Found::Nothing(Keep::Never)),
        }
    }

    fn enter_link(&self, name: &[u8], tree: cbs_store::TreeDigest) -> Attributes {
        let key = RootKey::Link(name.to_vec(), tree);
        loop {
            if let Some(attributes) = self.nodes.enter(&key) {
                return attributes;
            }
            self.nodes.add_root(key.clone(), Arc::new(link_entry(name, tree)), None);
        }
    }

    fn list_root(&self, from: u64, listing: Listing, sink: &mut dyn ListingSink) -> Result<(), Errno> {
        let this = attributes::of_root(NodeId::ROOT, None);
        for (position, name) in [(0, &b"."[..]), (1, b"..")] {
            if from <= position && sink.add(name, &this, Keep::Forever, position + 1) == Fit::Full {
                return Ok(());
            }
        }
        let start = usize::try_from(from.saturating_sub(2)).unwrap_or(usize::MAX);
        for (index, (name, tree)) in self.content.roots()?.into_iter().enumerate().skip(start) {
            let attributes = self.enter_link(&name, tree);
            let fit = sink.add(&name, &attributes, Keep::Never, index as u64 + 3);
            if fit == Fit::Full || listing == Listing::Names {
                self.nodes.forget(attributes.node, 1);
            }
            if fit == Fit::Full {
                break;
            }
        }
        Ok(())
    }

    fn observe(&self, node: &NodeRef, used: Use) {
        if let Some(observer) = &node.range.tree.observer {
            observer.observe(&node.path(), used);
        }
    }
}

fn observe_name(range: &Range, name: &[u8], used: Use) {
    if let Some(observer) = &range.tree.observer {
        let mut path = range.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        observer.observe(&path, used);
    }
}

impl Server for TreeFs {
    fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Found, Errno> {
        let counters = &self.shared.counters;
        counters.lookup.count();
        let found = if parent == NodeId::ROOT {
            self.lookup_root(name)?
        } else {
            let (range, found) = self.complete(|| self.nodes.lookup(parent, name, self.whiteouts()))?;
            self.asked(&range);
            observe_name(&range, name, if found.is_some() { Use::Hit } else { Use::Miss });
            match found {
                Some(attributes) => Found::Node(attributes, Keep::Forever),
                None => Found::Nothing(Keep::Forever),
            }
        };
        if matches!(found, Found::Nothing(_)) {
            counters.miss.count();
        }
        Ok(found)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.shared.counters.forget.count();
        self.nodes.forget(node, count);
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes, Errno> {
        self.shared.counters.getattr.count();
        if node == NodeId::ROOT {
            return Ok(attributes::of_root(node, None));
        }
        Ok(self.node(node)?.attributes())
    }

    fn read_link(&self, node: NodeId) -> Result<Bytes, Errno> {
        self.shared.counters.readlink.count();
        let node = self.node(node)?;
        let Some(Node::Symlink(target)) = node.entry().map(|entry| &entry.node) else {
            return Err(Errno::INVAL);
        };
        self.observe(&node, Use::ReadLink);
        Ok(Bytes::Owned(target.clone()))
    }

    fn open(&self, node: NodeId) -> Result<Opened<'_>, Errno> {
        self.shared.counters.open.count();
        if self.purpose == Purpose::Run {
            return Err(Errno::NOSYS);
        }
        let node = self.node(node)?;
        match node.entry().map(|entry| &entry.node) {
            Some(Node::File { blob, size, .. }) if *size > cbs_store::INLINE_LIMIT => match self.content.file(blob) {
                Ok(file) => Ok(Opened::Backed(Box::new(file))),
                Err(_) => Ok(Opened::Here),
            },
            Some(Node::Directory(_)) | None => Err(Errno::ISDIR),
            Some(_) => Ok(Opened::Here),
        }
    }

    fn open_directory(&self, node: NodeId) -> Result<Keep, Errno> {
        match (self.purpose, node) {
            (Purpose::Run, _) => Err(Errno::NOSYS),
            (Purpose::Browse, NodeId::ROOT) => Ok(Keep::Never),
            (Purpose::Browse, _) => Ok(Keep::Forever),
        }
    }

    fn read(&self, node: NodeId, offset: u64, size: usize) -> Result<Bytes, Errno> {
        self.shared.counters.read.count();
        let node = self.node(node)?;
        let Some(Node::File { blob, size: end, .. }) = node.entry().map(|entry| &entry.node) else {
            return Err(Errno::INVAL);
        };
        if offset == 0 {
            self.observe(&node, Use::Read);
        }
        self.content.read(blob, *end, offset, size, || self.ahead_of(&node))
    }

    fn list(&self, node: NodeId, from: u64, listing: Listing, sink: &mut dyn ListingSink) -> Result<(), Errno> {
        self.shared.counters.readdir.count();
        if node == NodeId::ROOT {
            return self.list_root(from, listing, sink);
        }
        let range = self.complete(|| self.nodes.list(node, from, listing, self.whiteouts(), sink))?;
        self.asked(&range);
        if let (0, Some(observer)) = (from, &range.tree.observer) {
            observer.observe(&range.path(), Use::List);
        }
        Ok(())
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Bytes, Errno> {
        self.shared.counters.getxattr.count();
        if node == NodeId::ROOT {
            return Err(Errno::NODATA);
        }
        let node = self.node(node)?;
        let kind = node.entry().map(|entry| &entry.node);
        if node.range.tree.observer.is_some() && self.presentation.leads_to_data(kind, name) {
            self.observe(&node, Use::Read);
        }
        self.presentation.get(node.meta(), kind, name).ok_or(Errno::NODATA)
    }

    fn xattr_names(&self, node: NodeId) -> Result<Bytes, Errno> {
        self.shared.counters.listxattr.count();
        if node == NodeId::ROOT {
            return Ok(Bytes::Owned(Vec::new()));
        }
        let node = self.node(node)?;
        Ok(Bytes::Owned(self.presentation.list(node.meta())))
    }
}

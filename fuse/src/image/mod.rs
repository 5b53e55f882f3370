//! Images of trees that the kernel reads by itself.
//!
//! An image is an EROFS file system with all metadata of a tree, and the bytes of its small files. Large files are
//! empty shells that tell overlayfs which blob file has their bytes, as on our FUSE mounts; so an image is only good as
//! a layer above the blobs. Making one takes about 10 µs an entry, and it takes up room: it pays for trees that are used
//! much, where each question to a FUSE mount would cost as much.
//!
//! ```text
//! tree ── write_image ──► file ── mounted, once a process ──► lower layer of any number of overlays
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cbs_store::{
    BlobDigest, ContentStore, Directory, Entry, INLINE_LIMIT, Metadata, Node, StoreError, TreeDigest, blob_path,
};

use crate::attributes;
use crate::server::{Attributes, Kind, NodeId};
use crate::xattrs::{OverlayXattrs, Presentation};

mod format;
mod output;
#[cfg(test)]
mod tests;

use format::{BLOCK, CHUNK, DirectoryEntry, HOLE, INODE, Inode, Layout, ROOT_INODE, SLOT, SUPER_BLOCK};
use output::{Crossing, Output};

/// How attributes look in an image.
const PRESENTATION: Presentation = Presentation::DataLayer(OverlayXattrs::Trusted);

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The store failed, or lacks a part of the tree.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image could not be written.
    #[error("cannot write the image of a tree")]
    Io(#[from] io::Error),
    /// The tree has something that the format has no place for.
    #[error("the tree cannot be an image: {0}")]
    NotRepresentable(&'static str),
    /// The caller wanted no image any more.
    #[error("no image is wanted any more")]
    Cancelled,
}

/// Writes the image of a tree into an empty file. `cancelled` is asked now and then.
pub(crate) fn write_image(
    store: &dyn ContentStore,
    tree: TreeDigest,
    file: &File,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), ImageError> {
    let mut writer = Writer {
        store,
        output: Output::new(file),
        links: HashMap::new(),
        inodes: 0,
        cancelled,
    };
    let directory = store.need_directory(&tree)?;
    writer.write_tree(directory)?;
    let inodes = writer.inodes;
    let blocks = u32::try_from(writer.output.finish()?).map_err(|_| ImageError::NotRepresentable("it is too large"))?;
    file.write_all_at(&format::super_block(inodes, blocks), SUPER_BLOCK)?;
    Ok(())
}

struct Writer<'a> {
    store: &'a dyn ContentStore,
    output: Output<'a>,
    /// Inodes of hard link groups.
    links: HashMap<(u64, BlobDigest), u64>,
    inodes: u64,
    cancelled: &'a dyn Fn() -> bool,
}

/// A directory of which not all entries have inodes yet.
struct Open {
    directory: Arc<Directory>,
    /// Which entry of its parent it is.
    index: usize,
    /// Entries that are directories and have none.
    left: std::vec::IntoIter<usize>,
    /// The inodes of its entries.
    inodes: Vec<u64>,
    /// Where its subdirectories say which inode their parent is.
    parents_at: Vec<u64>,
}

/// The content of an inode.
struct Content {
    bytes: Vec<u8>,
    /// Where in it the inode's own number goes, if anywhere.
    own_number_at: Option<usize>,
}

/// Where an inode and its content were written.
struct Placed {
    inode: u64,
    /// Offset of the whole blocks in the file.
    blocks_at: u64,
    /// How much of the content is in them, and where the rest is.
    in_blocks: u64,
    rest_at: u64,
}

impl Writer<'_> {
    /// Writes subdirectories before what contains them, since an entry needs the inode it names.
    fn write_tree(&mut self, root: Arc<Directory>) -> Result<(), ImageError> {
        let mut open = vec![self.open(root, 0)?];
        while let Some(top) = open.last_mut() {
            if let Some(index) = top.left.next() {
                let Some(reference) = top.directory.entries[index].directory() else {
                    continue;
                };
                let directory = self.store.need_directory(&reference.digest)?;
                let opened = self.open(directory, index)?;
                open.push(opened);
                continue;
            }
            let Some(done) = open.pop() else { break };
            match open.last_mut() {
                Some(parent) => {
                    let meta = &parent.directory.entries[done.index].meta;
                    let (inode, parent_at) = self.close(&done, meta)?;
                    parent.inodes[done.index] = inode;
                    parent.parents_at.push(parent_at);
                }
                None => self.close_root(&done)?,
            }
        }
        Ok(())
    }

    /// Writes all entries of a directory that are no directories themselves.
    fn open(&mut self, directory: Arc<Directory>, index: usize) -> Result<Open, ImageError> {
        let mut inodes = vec![0; directory.entries.len()];
        let mut left = Vec::new();
        for (index, entry) in directory.entries.iter().enumerate() {
            if (self.cancelled)() {
                return Err(ImageError::Cancelled);
            }
            match &entry.node {
                Node::Directory(_) => left.push(index),
                Node::Whiteout => {}
                _ => inodes[index] = self.put_entry(entry)?,
            }
        }
        Ok(Open {
            directory,
            index,
            left: left.into_iter(),
            inodes,
            parents_at: Vec::new(),
        })
    }

    fn put_entry(&mut self, entry: &Entry) -> Result<u64, ImageError> {
        let attributes = attributes::of_entry(NodeId(0), entry);
        match &entry.node {
            Node::File { blob, size, link } => {
                let group = link.map(|link| (link.id, *blob));
                if let Some(inode) = group.and_then(|group| self.links.get(&group)) {
                    return Ok(*inode);
                }
                let inode = if *size <= INLINE_LIMIT {
                    let bytes = self.small_blob(blob, *size)?;
                    let xattrs = xattr_body(Some(&entry.meta), None)?;
                    self.put_inode(&attributes, &xattrs, Content::plain(bytes))?.inode
                } else {
                    self.put_shell(&attributes, &xattr_body(Some(&entry.meta), Some(blob))?)?
                };
                if let Some(group) = group {
                    self.links.insert(group, inode);
                }
                Ok(inode)
            }
            node => {
                let content = match node {
                    Node::Symlink(target) => target.clone(),
                    _ => Vec::new(),
                };
                let xattrs = xattr_body(Some(&entry.meta), None)?;
                Ok(self.put_inode(&attributes, &xattrs, Content::plain(content))?.inode)
            }
        }
    }

    fn small_blob(&self, blob: &BlobDigest, size: u64) -> Result<Vec<u8>, ImageError> {
        let found = self.store.blob(blob)?.ok_or(StoreError::MissingBlob(*blob))?;
        let mut bytes = vec![0; size as usize];
        if found.size() != size || found.read_at(&mut bytes, 0)? != bytes.len() {
            return Err(ImageError::NotRepresentable("a blob has another size than its file"));
        }
        Ok(bytes)
    }

    /// Writes a directory whose entries all have inodes; answers with its own, and where its parent's number goes.
    fn close(&mut self, done: &Open, meta: &Metadata) -> Result<(u64, u64), ImageError> {
        let attributes = attributes::of_root(NodeId(0), Some(meta));
        let (content, parent_at) = directory_content(done, 0);
        let placed = self.put_inode(&attributes, &xattr_body(Some(meta), None)?, content)?;
        self.adopt(done, placed.inode)?;
        Ok((placed.inode, placed.content_at(parent_at as u64)))
    }

    /// The root is in a place of its own, and its own parent.
    fn close_root(&mut self, done: &Open) -> Result<(), ImageError> {
        let inode = ROOT_INODE / SLOT;
        let meta = done.directory.root.as_ref();
        let xattrs = xattr_body(meta, None)?;
        if ROOT_INODE + INODE + xattrs.len() as u64 > BLOCK {
            return Err(ImageError::NotRepresentable("its root has too many attributes"));
        }
        let (mut content, _) = directory_content(done, inode);
        if let Some(own) = content.own_number_at {
            content.bytes[own..own + 8].copy_from_slice(&inode.to_le_bytes());
        }
        let layout = Layout::Plain(block_number(self.output.data(&content.bytes)?)?);
        let attributes = attributes::of_root(NodeId(0), meta);
        let root = inode_of(&attributes, content.bytes.len() as u64, layout, &xattrs);
        self.output.patch(ROOT_INODE, &root.encode(ROOT_INODE))?;
        self.inodes += 1;
        self.adopt(done, inode)
    }

    /// Tells subdirectories which inode their parent got.
    fn adopt(&mut self, done: &Open, inode: u64) -> Result<(), ImageError> {
        for at in &done.parents_at {
            self.output.patch(*at, &inode.to_le_bytes())?;
        }
        Ok(())
    }

    /// Writes an inode with its content: whole blocks elsewhere, what is left behind the inode when it fits there.
    fn put_inode(
        &mut self,
        attributes: &Attributes,
        xattrs: &[u8],
        mut content: Content,
    ) -> Result<Placed, ImageError> {
        let size = content.bytes.len() as u64;
        let rest = size % BLOCK;
        let head = INODE + xattrs.len() as u64;
        let inline = rest > 0 && head + rest <= BLOCK;
        let (behind, crossing) = if inline {
            (rest, Crossing::Forbidden)
        } else {
            (0, Crossing::Allowed)
        };
        let at = self.output.place_inode(head + behind, crossing)?;
        if let Some(own) = content.own_number_at {
            content.bytes[own..own + 8].copy_from_slice(&(at / SLOT).to_le_bytes());
        }
        let in_blocks = if inline { size - rest } else { size };
        let blocks = content.bytes.get(..in_blocks as usize).unwrap_or_default();
        let first = if blocks.is_empty() {
            0
        } else {
            self.output.data(blocks)?
        };
        let layout = match (inline, attributes.device) {
            (true, _) => Layout::Inline(block_number(first)?),
            (false, 0) => Layout::Plain(block_number(first)?),
            (false, device) => Layout::Plain(device),
        };
        self.output
            .metadata(&inode_of(attributes, size, layout, xattrs).encode(at));
        self.output.metadata(&content.bytes[in_blocks as usize..]);
        self.inodes += 1;
        Ok(Placed {
            inode: at / SLOT,
            blocks_at: first * BLOCK,
            in_blocks,
            rest_at: at + head,
        })
    }

    /// Writes a large file without its bytes.
    fn put_shell(&mut self, attributes: &Attributes, xattrs: &[u8]) -> Result<u64, ImageError> {
        let chunks = attributes.size.div_ceil(CHUNK);
        // Attributes are in units of four bytes, so the map that follows them is aligned.
        let length = INODE + xattrs.len() as u64 + chunks * HOLE.len() as u64;
        let at = self.output.place_inode(length, Crossing::Allowed)?;
        self.output
            .metadata(&inode_of(attributes, attributes.size, Layout::Chunked, xattrs).encode(at));
        for _ in 0..chunks {
            self.output.metadata(&HOLE);
        }
        self.inodes += 1;
        Ok(at / SLOT)
    }
}

impl Content {
    fn plain(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            own_number_at: None,
        }
    }
}

impl Placed {
    /// Where in the file a byte of the content is.
    fn content_at(&self, offset: u64) -> u64 {
        if offset < self.in_blocks {
            self.blocks_at + offset
        } else {
            self.rest_at + offset - self.in_blocks
        }
    }
}

fn inode_of<'a>(attributes: &Attributes, size: u64, layout: Layout, xattrs: &'a [u8]) -> Inode<'a> {
    Inode {
        layout,
        mode: attributes.mode | (file_type(attributes.kind).0 << 12),
        size,
        links: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        xattrs,
    }
}

/// The type of an inode as in `st_mode`, and in a directory entry.
fn file_type(kind: Kind) -> (u16, u8) {
    match kind {
        Kind::File => (0o10, 1),
        Kind::Directory => (0o4, 2),
        Kind::CharDevice => (0o2, 3),
        Kind::BlockDevice => (0o6, 4),
        Kind::Fifo => (0o1, 5),
        Kind::Symlink => (0o12, 7),
    }
}

/// The content of a directory whose entries all have inodes, its own number to be filled in; and where its parent's
/// number goes, which is `parent` for now.
fn directory_content(done: &Open, parent: u64) -> (Content, usize) {
    let dots = [&b"."[..], b".."].map(|name| DirectoryEntry {
        name,
        inode: parent,
        kind: file_type(Kind::Directory).1,
    });
    let entries = done.directory.entries.iter().zip(&done.inodes);
    let mut listed: Vec<_> = entries
        .filter(|(entry, _)| entry.node != Node::Whiteout)
        .map(|(entry, inode)| DirectoryEntry {
            name: &entry.name,
            inode: *inode,
            kind: file_type(attributes::of_entry(NodeId(0), entry).kind).1,
        })
        .collect();
    for dot in dots {
        let at = listed.partition_point(|entry| entry.name < dot.name);
        listed.insert(at, dot);
    }
    let content = format::directory_content(&listed);
    let own = Content {
        bytes: content.bytes,
        own_number_at: Some(content.own_at),
    };
    (own, content.parent_at)
}

/// The attributes of an inode: the tree's own, and for a large file (whose blob is given) where its bytes are.
fn xattr_body(meta: Option<&Metadata>, shell: Option<&BlobDigest>) -> Result<Vec<u8>, ImageError> {
    let stored = meta.map_or(&[][..], |meta| &meta.xattrs);
    let redirect = shell.map(|blob| format!("/{}", blob_path(blob)));
    let mut all: Vec<(Cow<'_, [u8]>, &[u8])> = Vec::new();
    if let Some(redirect) = &redirect {
        all.push((b"trusted.overlay.metacopy".into(), b""));
        all.push((b"trusted.overlay.redirect".into(), redirect.as_bytes()));
    }
    all.extend(
        stored
            .iter()
            .map(|(name, value)| (PRESENTATION.shown_name(name), value.as_slice())),
    );
    format::xattr_body(all.iter().map(|(name, value)| (&**name, *value))).ok_or(ImageError::NotRepresentable(
        "an attribute has a name or a size that the format does not know",
    ))
}

fn block_number(block: u64) -> Result<u32, ImageError> {
    u32::try_from(block).map_err(|_| ImageError::NotRepresentable("it is too large"))
}

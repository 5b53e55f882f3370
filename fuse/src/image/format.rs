//! The parts of an EROFS image, as Linux reads them (`fs/erofs/erofs_fs.h`). Everything is little-endian.
//!
//! ```text
//! image   block 0: 1024 bytes free, super block, root inode;  then blocks of metadata and of data, in any order
//! inode   64 bytes, attributes, then either the tail of its content, or a map of its chunks
//! dir     blocks of 4096: entries of 12 bytes each, then their names; sorted over all blocks, `.` and `..` among them
//! ```
//! An inode's number is its offset in units of 32 bytes.

use cbs_store::Timestamp;

/// Size of a block.
pub(super) const BLOCK: u64 = 4096;
/// Inodes start at multiples of this.
pub(super) const SLOT: u64 = 32;
/// Size of an inode without what follows it.
pub(super) const INODE: u64 = 64;
/// Where the super block is.
pub(super) const SUPER_BLOCK: u64 = 1024;
/// Where we put the root's inode: its number must fit in 16 bits, so it cannot come last like other directories.
pub(super) const ROOT_INODE: u64 = SUPER_BLOCK + 128;
/// A chunk that is not in the image.
pub(super) const HOLE: [u8; 4] = u32::MAX.to_le_bytes();
/// Bytes that one chunk of a large file covers: with the largest there is, one does for any file.
pub(super) const CHUNK: u64 = BLOCK << 31;

const MAGIC: u32 = 0xe0f5_e1e2;
const FEATURE_CHUNKED_FILES: u32 = 4;
const DIRECTORY_ENTRY: usize = 12;

/// Where an inode's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In blocks from this one on. For a device, the device's number.
    Plain(u32),
    /// Whole blocks from this one on, the rest behind the inode.
    Inline(u32),
    /// Nowhere: behind the inode is a map that says so.
    Chunked,
}

/// An inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inode<'a> {
    pub(super) layout: Layout,
    /// Type and permissions, as `st_mode`.
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    /// What [`xattr_body`] made.
    pub(super) xattrs: &'a [u8],
}

impl Inode<'_> {
    /// The inode and its attributes, to stand at `offset`.
    pub(super) fn encode(&self, offset: u64) -> Vec<u8> {
        let (layout, source) = match self.layout {
            Layout::Plain(source) => (0_u16, source),
            Layout::Inline(source) => (2, source),
            Layout::Chunked => (4, 31),
        };
        let xattr_units = match self.xattrs.len() {
            0 => 0,
            length => (length - 12) / 4 + 1,
        };
        let mut out = Vec::with_capacity(INODE as usize + self.xattrs.len());
        // The lowest bit stands for the large form of inodes.
        out.extend_from_slice(&(layout << 1 | 1).to_le_bytes());
        out.extend_from_slice(&(xattr_units as u16).to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&source.to_le_bytes());
        out.extend_from_slice(&((offset / SLOT) as u32).to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanos.to_le_bytes());
        out.extend_from_slice(&self.links.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(self.xattrs);
        out
    }
}

/// The super block; it has no checksum, which the format allows.
pub(super) fn super_block(inodes: u64, blocks: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[BLOCK.trailing_zeros() as u8, 0]);
    out.extend_from_slice(&((ROOT_INODE / SLOT) as u16).to_le_bytes());
    out.extend_from_slice(&inodes.to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&blocks.to_le_bytes());
    out.resize(80, 0);
    out.extend_from_slice(&FEATURE_CHUNKED_FILES.to_le_bytes());
    out.resize(128, 0);
    out
}

/// Encodes attributes. `None` when one has a name or a length that EROFS cannot hold.
pub(super) fn xattr_body<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (name, value) in xattrs {
        if out.is_empty() {
            // Header: no filter, nothing shared with other inodes.
            out.resize(12, 0);
        }
        let (prefix, rest) = split_name(name)?;
        out.push(u8::try_from(rest.len()).ok()?);
        out.push(prefix);
        out.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    // The number of four-byte units has sixteen bits.
    (out.len() <= 4 * usize::from(u16::MAX)).then_some(out)
}

/// Prefixes are numbers on disk.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    const PREFIXES: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
    match name {
        b"system.posix_acl_access" => Some((2, b"")),
        b"system.posix_acl_default" => Some((3, b"")),
        _ => PREFIXES
            .iter()
            .find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?))),
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectoryEntry<'a> {
    pub(super) name: &'a [u8],
    /// The number of its inode.
    pub(super) inode: u64,
    /// `EROFS_FT_…`.
    pub(super) kind: u8,
}

/// The content of a directory, and where in it the inode numbers of `.` and `..` are.
pub(super) struct DirectoryContent {
    pub(super) bytes: Vec<u8>,
    pub(super) own_at: usize,
    pub(super) parent_at: usize,
}

/// Encodes sorted entries, `.` and `..` among them.
pub(super) fn directory_content(entries: &[DirectoryEntry<'_>]) -> DirectoryContent {
    let mut content = DirectoryContent {
        bytes: Vec::new(),
        own_at: 0,
        parent_at: 0,
    };
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let count = rest
            .iter()
            .take_while(|entry| {
                used += DIRECTORY_ENTRY + entry.name.len();
                used <= BLOCK as usize
            })
            .count();
        let (block, later) = rest.split_at(count);
        rest = later;
        let start = content.bytes.len();
        let mut name_at = block.len() * DIRECTORY_ENTRY;
        for entry in block {
            match entry.name {
                b"." => content.own_at = content.bytes.len(),
                b".." => content.parent_at = content.bytes.len(),
                _ => {}
            }
            content.bytes.extend_from_slice(&entry.inode.to_le_bytes());
            content.bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
            content.bytes.extend_from_slice(&[entry.kind, 0]);
            name_at += entry.name.len();
        }
        for entry in block {
            content.bytes.extend_from_slice(entry.name);
        }
        if !rest.is_empty() {
            content.bytes.resize(start + BLOCK as usize, 0);
        }
    }
    content
}

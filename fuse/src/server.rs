//! The seam between our tree file system and whatever speaks the FUSE protocol.
//!
//! [`Server`] is what a protocol implementation calls; it knows no wire format. `session.rs` is the one file that names
//! the library we use, so that another can take its place.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use cbs_store::Timestamp;
use rustix::io::Errno;

/// The kernel's name of an inode; also its `st_ino`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u64);

impl NodeId {
    /// The root of the mount.
    pub(crate) const ROOT: Self = Self(1);
}

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// What `stat` says about an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) node: NodeId,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// As the kernel encodes it in 32 bits; zero for anything but a device.
    pub(crate) device: u32,
    pub(crate) mtime: Timestamp,
}

/// How long the kernel may believe an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Until it needs the memory: the answer follows from a digest.
    Forever,
    /// Not at all: the answer is about a name that can change.
    Never,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is there. The kernel now holds one reference more to the node.
    Node(Attributes, Keep),
    /// There is no such name.
    Nothing(Keep),
}

/// Bytes of an answer: owned, or a part of something shared.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>, Range<usize>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes, range) => &bytes[range.clone()],
        }
    }
}

/// What a listing wants to know about each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// Name, type and number.
    Names,
    /// All attributes; each entry that fits counts as a lookup.
    Plus,
}

/// Takes the entries of a listing.
pub(crate) trait ListingSink {
    /// Takes one entry; `next` is where a listing that stops here goes on. Answers whether it fit.
    fn add(&mut self, name: &[u8], attributes: &Attributes, keep: Keep, next: u64) -> Fit;
}

/// Whether an entry fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Taken,
    Full,
}

/// How a file is opened.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// Reads come to [`Server::read`].
    Here,
    /// The bytes are those of this file; whoever can may hand it to the kernel.
    Backed(Box<dyn AsBacking + 'a>),
}

/// A file that holds exactly the bytes of an inode.
pub(crate) trait AsBacking: std::fmt::Debug {
    /// Its descriptor.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// A read-only file system. Every method may run on several threads at once.
pub(crate) trait Server: Send + Sync + 'static {
    /// Finds a name in a directory.
    fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Found, Errno>;

    /// The kernel gave up `count` of its references to a node.
    fn forget(&self, node: NodeId, count: u64);

    /// Attributes of a node the kernel holds; they never change.
    fn attributes(&self, node: NodeId) -> Result<Attributes, Errno>;

    /// The text of a symbolic link.
    fn read_link(&self, node: NodeId) -> Result<Bytes, Errno>;

    /// Opens a file. `ENOSYS` means "never ask again for any file of this mount".
    fn open(&self, node: NodeId) -> Result<Opened<'_>, Errno>;

    /// Opens a directory: how long its listing stays true. `ENOSYS` means "for ever, for any directory of this mount".
    fn open_directory(&self, node: NodeId) -> Result<Keep, Errno>;

    /// Reads a file at an offset; short only at its end.
    fn read(&self, node: NodeId, offset: u64, size: usize) -> Result<Bytes, Errno>;

    /// Lists a directory from where an earlier listing stopped (0 at first) until the sink is full.
    fn list(&self, node: NodeId, from: u64, listing: Listing, sink: &mut dyn ListingSink) -> Result<(), Errno>;

    /// The value of an extended attribute; `ENODATA` when there is none of that name.
    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Bytes, Errno>;

    /// The names of extended attributes, each ended by NUL.
    fn xattr_names(&self, node: NodeId) -> Result<Bytes, Errno>;
}

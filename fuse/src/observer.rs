//! The hook that sees which parts of a tree are really used.

use std::fmt;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Use {
    /// A name was looked up and is there.
    Hit,
    /// A name was looked up and is not there.
    Miss,
    /// A directory was listed.
    List,
    /// A symbolic link was followed or read.
    ReadLink,
    /// Bytes of a file were read. On a data-only view a large file counts as read as soon as it is looked up, because
    /// the kernel reads its blob without asking: the answer errs towards "used".
    Read,
}

/// Sees the first lookup, listing, link and file read of each path of a view, hits and misses alike. The kernel caches
/// what it was told, so a repetition is rarely seen, but it can be: under memory pressure the kernel asks again.
///
/// It is called on the threads that serve requests. Those have a descriptor table of their own, so an observer may
/// touch memory only: no file, socket or database, not even through something it merely holds. It must not block.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Something was used. `path` is relative to the root of the view, without a slash in front; the root is empty.
    fn observe(&self, path: &[u8], used: Use);
}

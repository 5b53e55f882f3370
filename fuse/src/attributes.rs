//! From a tree's entries to what `stat` shows.

use cbs_store::{Entry, Metadata, Node};

use crate::server::{Attributes, Kind, NodeId};

/// What a directory shows as its size, as ext4 does for most.
const DIRECTORY_SIZE: u64 = 4096;

/// Attributes of an entry.
pub(crate) fn of_entry(node: NodeId, entry: &Entry) -> Attributes {
    let (kind, size, links, device) = match &entry.node {
        Node::File { size, link, .. } => (Kind::File, *size, link.map_or(1, |link| link.count.max(1)), 0),
        // One link, as on btrfs: the number of subdirectories is not known here, and 1 tells programs so.
        Node::Directory(_) => (Kind::Directory, DIRECTORY_SIZE, 1, 0),
        Node::Symlink(target) => (Kind::Symlink, target.len() as u64, 1, 0),
        Node::CharDevice(major, minor) => (Kind::CharDevice, 0, 1, device_number(*major, *minor)),
        Node::BlockDevice(major, minor) => (Kind::BlockDevice, 0, 1, device_number(*major, *minor)),
        Node::Fifo => (Kind::Fifo, 0, 1, 0),
        Node::Whiteout => (Kind::CharDevice, 0, 1, 0),
    };
    Attributes {
        size,
        links,
        device,
        ..base(node, kind, &entry.meta)
    }
}

/// Attributes of the root of a tree, or of a directory that has no metadata of its own.
pub(crate) fn of_root(node: NodeId, meta: Option<&Metadata>) -> Attributes {
    Attributes {
        size: DIRECTORY_SIZE,
        ..match meta {
            Some(meta) => base(node, Kind::Directory, meta),
            None => base(node, Kind::Directory, &Metadata::new(0o755)),
        }
    }
}

fn base(node: NodeId, kind: Kind, meta: &Metadata) -> Attributes {
    Attributes {
        node,
        kind,
        mode: (meta.mode & 0o7777) as u16,
        size: 0,
        links: 1,
        uid: meta.uid,
        gid: meta.gid,
        device: 0,
        mtime: meta.mtime,
    }
}

/// The kernel's 32-bit form: 12 bits of major, 20 of minor, which is all Linux has.
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

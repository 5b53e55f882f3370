//! Trees from and to tar archives.
//!
//! ```text
//! bytes ─ archive.rs: headers, PAX, GNU names, sparse maps ─► members ─ unpack.rs ─► tree or layer
//! tree or layer ─ walk ─ write.rs: USTAR, PAX where needed ─► bytes, the same for the same tree
//! ```
//! Both ways stream: no file is ever held in memory. Reading follows what containerd does with a layer and Docker
//! with an ADD: nothing leaves the root, links on the way are followed inside it, missing parents are made.

mod archive;
mod header;
mod pax;
mod unpack;
mod write;

use std::io;

pub use archive::{Archive, Member, MemberKind};
pub use unpack::{Attributes, ReadOptions, UnpackOptions, Unpacked, is_archive, read, unpack};
pub use write::{WriteOptions, write};

use crate::StoreError;
use crate::edit::{EditError, show};

/// What names such as `.wh.name` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whiteouts {
    /// OCI layers: `.wh.name` says that `name` is gone, `.wh..wh..opq` that the directory hides what is below it.
    Oci,
    /// Names like any other. A tree with whiteouts cannot be written so.
    Plain,
}

/// The start of a whiteout's name in OCI layers.
const WHITEOUT: &[u8] = b".wh.";
/// The name that makes its directory opaque in OCI layers.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Archives that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive's bytes cannot be read.
    #[error("cannot read archive after `{}`", show(after))]
    Read {
        /// The member that came last.
        after: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// The archive's bytes cannot be written.
    #[error("cannot write `{}` to archive", show(path))]
    Write {
        /// The member.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// It is no archive, or a damaged one.
    #[error("damaged archive after `{}`: {reason}", show(after))]
    Damaged {
        /// The member that came last.
        after: Vec<u8>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A member is of a kind that no tree can hold.
    #[error("`{}` is of the unknown kind {:?}", show(path), char::from(*kind))]
    UnknownKind {
        /// The member.
        path: Vec<u8>,
        /// Its type flag.
        kind: u8,
    },
    /// A member is a hard link to something that is not there, or that is a directory.
    #[error("`{}` is a hard link to `{}`, which is no file", show(path), show(target))]
    BadLink {
        /// The member.
        path: Vec<u8>,
        /// What it links to.
        target: Vec<u8>,
    },
    /// A member cannot stand in a tree, or a tree's entry not in an archive.
    #[error("`{}`: {reason}", show(path))]
    BadMember {
        /// The member.
        path: Vec<u8>,
        /// Why not.
        reason: &'static str,
    },
    /// A member's place cannot be had.
    #[error(transparent)]
    Edit(EditError),
}

impl From<EditError> for TarError {
    fn from(err: EditError) -> Self {
        match err {
            EditError::Store(err) => Self::Store(err),
            other => Self::Edit(other),
        }
    }
}

#[cfg(test)]
mod tests;

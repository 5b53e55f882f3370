//! The FUSE mounts of cbs: store trees as files.
//!
//! ```text
//!                  RunMount: <mount>/<tree>  ◄── overlay lower layer ── container
//! store ── trees ─┤             large files: overlay data-only layer = the blob files themselves
//!                  BrowseMount: <mount>/<tree>, <mount>/<name> ── people and their programs
//! ```
//! FUSE carries metadata and small files, the kernel reads large ones by itself. One mount serves every tree of a store
//! below its digest, so a snapshot costs one lookup. Everything but the names at the root follows from a digest, so the
//! kernel may keep every answer for ever.
//!
//! Start at [`RunMount`], whose [`View`]s are what an overlay stands on ([`Overlay`] mounts one); [`BrowseMount`] is
//! for looking around. [`enter_private_namespace`] comes first in a program that makes [`RunMount`]s. [`probe`] says
//! which [`LowerMode`] works here.
//!
//! Inside: `session` speaks the protocol through fuser and calls a `server::Server`; `tree_fs` is the one there is, over
//! `nodes` (what the kernel knows) and `content` (where bytes come from). `store_link` says why the serving threads
//! have a descriptor table of their own. Nothing here knows LLB, images or containers.

mod attributes;
mod backing;
mod browse;
mod content;
mod counts;
mod error;
mod fusermount;
mod image;
mod images;
mod mount;
mod namespace;
mod nodes;
mod observer;
mod probe;
mod root_key;
mod run;
mod server;
mod session;
mod shared;
mod store_link;
mod sync;
mod sys;
mod tree_fs;
mod xattrs;

pub use browse::{BrowseConfig, BrowseMount, BrowseRoots};
pub use counts::RequestCounts;
pub use error::FuseError;
pub use images::ImageConfig;
pub use mount::{Overlay, attach, detach};
pub use namespace::{Privilege, enter_private_namespace};
pub use observer::{Observer, Use};
pub use probe::probe;
pub use run::{DEFAULT_ENTRY_BUDGET, LowerMode, RunConfig, RunMount, View, default_threads};
pub use xattrs::OverlayXattrs;

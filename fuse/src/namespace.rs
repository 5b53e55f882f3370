//! A mount namespace of the process's own, so that the kernel removes its mounts whatever happens to it.

use std::fs;
use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};

use crate::{FuseError, sys};

/// Who the kernel takes us for; decides what a mount may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Root of the machine: overlayfs keeps its attributes in `trusted.`, passthrough is allowed.
    Root,
    /// Root of a user namespace: overlayfs keeps them in `user.` (`userxattr`), passthrough is refused.
    UserNamespace,
}

impl Privilege {
    /// Asks the kernel which user namespace we are in. When `/proc` cannot tell, the answer is the weaker one.
    pub fn detect() -> Self {
        // The initial namespace is the only one whose map is the identity over the whole range.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
            Self::Root
        } else {
            Self::UserNamespace
        }
    }
}

/// Moves the process into a mount namespace of its own from which no mount spreads: nothing mounted from now on is
/// seen by others, and all of it is gone when the last process in here ends, `kill -9` included. Mounts that others
/// make later (a disk that is plugged in) still appear.
///
/// Call it first thing in `main`: a namespace belongs to a thread, and those started later inherit it.
///
/// # Errors
/// [`FuseError::NotSingleThreaded`] when other threads run already; [`FuseError::Namespace`] without the right to do
/// it (`CAP_SYS_ADMIN`, which a user namespace gives).
pub fn enter_private_namespace() -> Result<(), FuseError> {
    let fail = |action| move |source: io::Error| FuseError::Namespace { action, source };
    let threads = fs::read_dir("/proc/self/task")
        .map_err(fail("count the threads of this process"))?
        .count();
    if threads != 1 {
        return Err(FuseError::NotSingleThreaded { threads });
    }
    sys::unshare_mount_namespace().map_err(fail("unshare the mount namespace"))?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(io::Error::from)
        .map_err(fail("keep mounts from spreading out of the mount namespace"))
}

//! What the mounts can fail with.

use std::io;
use std::path::PathBuf;

use cbs_store::StoreError;

/// A failure to set up a mount; the message names the thing.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// `/dev/fuse` cannot be opened: no FUSE in this kernel, or a container that was not given the device.
    #[error("cannot open `/dev/fuse`: this kernel or container offers no FUSE")]
    NoDevice {
        /// Why.
        source: io::Error,
    },
    /// A mount, or a step on the way to one, was refused.
    #[error("cannot {action} `{}`", path.display())]
    Mount {
        /// A verb phrase such as `mount fuse on`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program that mounts for users did not, or could not take a mount off.
    #[error("a user cannot mount on `{}`: {why}", path.display())]
    Helper {
        /// Where.
        path: PathBuf,
        /// What it said, or why there is none.
        why: String,
    },
    /// The mount namespace could not be left.
    #[error("cannot {action}")]
    Namespace {
        /// A verb phrase such as `unshare the mount namespace`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A namespace belongs to one thread, so it has to be left while there is only that one.
    #[error("the mount namespace can only be left before other threads start ({threads} are running)")]
    NotSingleThreaded {
        /// How many there are.
        threads: usize,
    },
    /// The kernel and we could not agree on the protocol, or the serving threads could not be started.
    #[error("cannot serve fuse requests: {step}")]
    Session {
        /// What was being done.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The store failed while a throw-away tree was put into it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FuseError {
    /// Shapes an error of a mount call for `map_err`.
    pub(crate) fn mount<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Mount {
            action,
            path,
            source: source.into(),
        }
    }

    /// Shapes an error of the session for `map_err`.
    pub(crate) fn session<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Session {
            step,
            source: source.into(),
        }
    }
}

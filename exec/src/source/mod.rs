//! Sources: what comes from outside. Each is first *pinned* (what does it denote now?), and its bytes are fetched only
//! when a step needs them.

pub(crate) mod bridge;
pub mod git;
pub mod http;

use std::io;
use std::path::{Path, PathBuf};

use cbs_store::StoreError;

/// A source that cannot be had; the message names it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry or layout failed.
    #[error(transparent)]
    Image(#[from] cbs_image::ImageError),
    /// The server cannot be reached or broke off.
    #[error("cannot fetch {url}")]
    Http {
        /// The address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server answered with an error.
    #[error("cannot fetch {url}: the server answered {status}")]
    HttpStatus {
        /// The address.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// The bytes or commit are not the ones asked for.
    #[error("{what}: checksum mismatch: expected {expected}, got {actual}")]
    Checksum {
        /// The source.
        what: String,
        /// As asked.
        expected: String,
        /// As found.
        actual: String,
    },
    /// What the store remembers of a source cannot be read.
    #[error("what the store remembers of {what} is damaged")]
    Facts {
        /// The source.
        what: String,
    },
    /// `git` is not installed.
    #[error("git sources need the `git` program")]
    NoGit {
        /// Why it did not start.
        source: io::Error,
    },
    /// `git` failed.
    #[error("git {command} of {remote} failed: {output}")]
    Git {
        /// The remote, without secrets.
        remote: String,
        /// Which git command.
        command: String,
        /// What it said.
        output: String,
    },
    /// The remote has no such branch, tag or commit.
    #[error("{remote} has no branch, tag or commit `{reference}`")]
    GitReference {
        /// The remote, without secrets.
        remote: String,
        /// What was asked for.
        reference: String,
    },
    /// A local context the caller did not give.
    #[error("local context `{0}` is not known")]
    UnknownLocal(String),
    /// The identifier has a scheme nobody serves.
    #[error("source `{0}` is of no known kind")]
    UnknownScheme(String),
    /// An attribute of a source op cannot be read.
    #[error("source attribute {name}=`{value}` is malformed")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The disk said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb phrase.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SourceError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

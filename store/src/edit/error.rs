//! What an edit can fail with.

use crate::StoreError;
use crate::patterns::PatternError;

/// An edit that cannot be done; paths are those of the tree, as `/a/b`.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing has this path.
    #[error("`{}`: no such file or directory", show(path))]
    NotFound {
        /// The path.
        path: Vec<u8>,
    },
    /// Something on the way, or the thing itself, is no directory.
    #[error("`{}`: not a directory", show(path))]
    NotADirectory {
        /// What is none.
        path: Vec<u8>,
    },
    /// A directory stands where a file was to be written.
    #[error("`{}`: is a directory", show(path))]
    IsADirectory {
        /// The directory.
        path: Vec<u8>,
    },
    /// The name is taken.
    #[error("`{}`: file exists", show(path))]
    Exists {
        /// The path.
        path: Vec<u8>,
    },
    /// Symbolic links lead in a circle, or there are more than 255 on the way.
    #[error("`{}`: too many levels of symbolic links", show(path))]
    TooManyLinks {
        /// The path that was being resolved.
        path: Vec<u8>,
    },
    /// A copied file meets a directory of that name.
    #[error("cannot replace directory `{}` with a file", show(path))]
    FileOverDirectory {
        /// The directory.
        path: Vec<u8>,
    },
    /// A copied directory meets something of that name that is none.
    #[error("cannot copy a directory onto `{}`, which is not a directory", show(path))]
    DirectoryOverFile {
        /// What is in the way.
        path: Vec<u8>,
    },
    /// The root directory cannot be removed or replaced.
    #[error("the root directory cannot be removed")]
    Root,
    /// A mode is neither octal up to 7777 nor symbolic.
    #[error("invalid mode `{text}`: it should be an octal number up to 7777 or symbolic as `u=rwX,go=rX`")]
    BadMode {
        /// The text.
        text: String,
    },
    /// An include or exclude pattern cannot be read.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// A path for people: absolute, bytes that are no UTF-8 replaced, control characters escaped.
pub(crate) fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("/{}", text.trim_start_matches('/').escape_debug())
}

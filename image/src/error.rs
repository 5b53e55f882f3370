//! What the image crate can fail with.

use std::io;
use std::path::{Path, PathBuf};

use cbs_store::{Sha256Digest, StoreError};

use crate::reference::ParseReferenceError;
use crate::registry::RegistryError;

/// A failure; the message names the thing, [`ImageError::help`] what a person can do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree cannot be edited.
    #[error(transparent)]
    Edit(#[from] cbs_store::edit::EditError),
    /// A layer's tar cannot be read or written.
    #[error(transparent)]
    Tar(#[from] cbs_store::tar::TarError),
    /// A registry said no.
    #[error(transparent)]
    Registry(#[from] Box<RegistryError>),
    /// A reference is malformed.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The operating system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb phrase such as `write layer`.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A stream given by the caller failed.
    #[error("cannot {action}")]
    Stream {
        /// A verb phrase such as `write the archive`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// JSON that is not what it should be.
    #[error("malformed {what}")]
    BadDocument {
        /// Such as `manifest`.
        what: &'static str,
        /// Where.
        source: serde_json::Error,
    },
    /// A manifest that is also an index.
    #[error("refusing a document that is a manifest and an index at once")]
    AmbiguousDocument,
    /// Docker's first manifest format.
    #[error("image has the obsolete manifest schema 1, which no current registry or tool writes")]
    SchemaOne,
    /// A descriptor with another digest than sha256.
    #[error("`{0}` is no sha256 digest")]
    BadDigest(String),
    /// Bytes that are not the ones asked for; they were dropped.
    #[error("{what} {expected} arrived as {actual}", expected = expected.oci(), actual = actual.oci())]
    DigestMismatch {
        /// Such as `layer`.
        what: &'static str,
        /// Asked for.
        expected: Sha256Digest,
        /// Got.
        actual: Sha256Digest,
    },
    /// Too many bytes.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Such as `manifest`.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// An index without the platform asked for.
    #[error("`{image}` has no image for {platform}; it has {}", if available.is_empty() { "none".to_owned() } else { available.join(", ") })]
    NoPlatform {
        /// The image.
        image: String,
        /// Asked for.
        platform: String,
        /// There.
        available: Vec<String>,
    },
    /// An index that leads nowhere.
    #[error("`{0}` is an index of indexes without an image")]
    NotAnImage(String),
    /// Layers and diff ids do not pair.
    #[error("`{image}` has {layers} layers but its config names {diff_ids}")]
    LayerCount {
        /// The image.
        image: String,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A layer that is no tar.
    #[error("layer {digest} of `{image}` has the type `{media_type}`, which cannot be unpacked")]
    LayerType {
        /// The image.
        image: String,
        /// The layer.
        digest: String,
        /// Its type.
        media_type: String,
    },
    /// A layout or archive lacks something.
    #[error("`{}` has no {what}", path.display())]
    NotInLayout {
        /// The layout.
        path: PathBuf,
        /// Such as `blob sha256:…` or `image named app`.
        what: String,
    },
    /// A blob was collected and its origin is unknown.
    #[error("{what} {digest} is no longer in the store", digest = digest.oci())]
    BlobGone {
        /// Such as `layer`.
        what: &'static str,
        /// The blob.
        digest: Sha256Digest,
    },
    /// The network is not to be used.
    #[error("`{0}` is not in the store and the network is off")]
    Offline(String),
    /// The caller no longer wants it.
    #[error("cancelled")]
    Cancelled,
    /// Options that exclude each other, or an image they do not fit.
    #[error("{0}")]
    Options(String),
    /// A path in a `local` export cannot be written.
    #[error("cannot export `{path}` to `{}`: {problem}", dest.display())]
    Unwritable {
        /// In the image.
        path: String,
        /// The folder.
        dest: PathBuf,
        /// Why.
        problem: &'static str,
    },
}

impl ImageError {
    /// Shapes an [`io::Error`] for `map_err`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Shapes an [`io::Error`] of a stream for `map_err`; an [`ImageError`] inside comes out again.
    pub fn stream(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Stream { action, source },
        }
    }

    /// What a person can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Registry(err) => err.help(),
            Self::DigestMismatch { .. } => {
                Some("the source served other bytes; retry, or use another mirror".to_owned())
            }
            Self::NoPlatform { .. } => Some("choose one of these with `--platform`, or another image".to_owned()),
            Self::BlobGone { .. } => Some("pull or build the image again".to_owned()),
            Self::Offline(_) => Some("run once with the network on, or load the image from a file".to_owned()),
            _ => None,
        }
    }
}

impl From<RegistryError> for ImageError {
    fn from(err: RegistryError) -> Self {
        Self::Registry(Box::new(err))
    }
}

impl From<ImageError> for io::Error {
    /// For code between readers and writers; [`ImageError::stream`] is the way back.
    fn from(err: ImageError) -> Self {
        Self::other(err)
    }
}

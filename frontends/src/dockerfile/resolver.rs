//! What lowering has to ask the outside world.

use std::error::Error;

use cbs_solver::{BoxFuture, pb};
use cbs_store::Sha256Digest;

use cbs_image::platform::Platform;
use cbs_image::reference::Reference;

/// Answers the questions a Dockerfile raises: configs of base images, ignore files of named contexts, times of sources.
/// Questions are asked at the same time, and each one once per lowering.
pub trait MetaResolver: Send + Sync {
    /// Finds an image and reads the config for a platform.
    ///
    /// # Errors
    /// [`ResolveError`] when there is no such image, none for the platform, or it cannot be reached.
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>>;

    /// Reads the `.dockerignore` at the root of a named local context; `None` when there is none.
    ///
    /// # Errors
    /// [`ResolveError`] when the context cannot be read.
    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>>;

    /// The time of a remote source in seconds since 1970: of a git commit, or of a download its `Last-Modified`, else
    /// the newest file in the archive. `None` when the source has no time.
    ///
    /// # Errors
    /// [`ResolveError`] when the source cannot be reached.
    fn source_time(&self, source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>>;
}

/// Which image config is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRequest {
    /// The reference in canonical form, with a tag or a digest.
    pub reference: Reference,
    /// The platform whose config is wanted.
    pub platform: Platform,
    /// Whether local copies count.
    pub mode: ResolveMode,
    /// Where the image is kept.
    pub store: ImageStore,
    /// What progress calls the question, such as `[internal] load metadata for docker.io/library/alpine:3`.
    pub label: String,
}

/// Where an image is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageStore {
    /// The registry that its reference names.
    Registry,
    /// An OCI layout.
    OciLayout {
        /// The layout as the named context gave it.
        store: String,
        /// The tag, when the context gave no digest.
        tag: Option<String>,
    },
}

/// Whether local copies of an image count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResolveMode {
    /// The resolver's habit.
    #[default]
    Default,
    /// Always ask the registry.
    Pull,
    /// Prefer a local copy.
    Local,
}

impl ResolveMode {
    /// The value of the `image.resolvemode` attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Pull => "pull",
            Self::Local => "local",
        }
    }
}

/// A found image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The reference in canonical form; differs from the one asked for only when the resolver redirects.
    pub reference: Reference,
    /// The digest of the manifest or index that the reference names now.
    pub digest: Option<Sha256Digest>,
    /// The image config for the platform, as JSON.
    pub config: Vec<u8>,
}

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{subject}")]
pub struct ResolveError {
    /// What was asked for: an image reference, a context's name, a URL.
    pub subject: String,
    /// Why there is no answer.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl ResolveError {
    /// The subject and all causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.subject.clone();
        let mut cause: Option<&dyn Error> = Some(self.source.as_ref());
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

//! Pushes an assembled image: all blobs, then manifests by digest, then the tags.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cbs_store::{OciBlob, Sha256Digest};
use futures_util::stream::{self, TryStreamExt as _};

use super::{AssembledImage, Content};
use crate::error::ImageError;
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::registry::BlobSource;
use crate::source::ImageSource;

/// How an image is pushed.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Blobs on their way at once.
    pub parallel: NonZeroUsize,
    /// What tags do.
    pub naming: PushNaming,
}

/// What is left behind in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushNaming {
    /// Every name of the image.
    Tags,
    /// The digest only (`push-by-digest`).
    DigestOnly,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            parallel: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
            naming: PushNaming::Tags,
        }
    }
}

/// Pushes an image under all its names. Tags move last, when everything else is there. A layer that is neither in the
/// registry nor in the store is fetched from where it was pulled.
///
/// # Errors
/// [`ImageError::Options`] when the image has no name, [`ImageError::Registry`] when the registry says no,
/// [`ImageError::BlobGone`] when a layer cannot be had.
pub async fn push(
    source: &ImageSource,
    image: &AssembledImage,
    options: &PushOptions,
    progress: Arc<dyn Progress>,
) -> Result<(), ImageError> {
    if image.names.is_empty() {
        return Err(ImageError::Options("an image to push needs a name".to_owned()));
    }
    // Each repository once, whatever the number of tags.
    let repositories: BTreeSet<String> = image.names.iter().map(Reference::name).collect();
    for name in repositories {
        let reference: Reference = name.parse()?;
        push_content(source, image, &reference, options, &progress).await?;
    }
    if options.naming == PushNaming::Tags {
        for name in &image.names {
            put_root(source, image, name).await?;
        }
    }
    Ok(())
}

/// Everything but the tags.
async fn push_content(
    source: &ImageSource,
    image: &AssembledImage,
    reference: &Reference,
    options: &PushOptions,
    progress: &Arc<dyn Progress>,
) -> Result<(), ImageError> {
    let blobs = image.blobs().into_iter().map(Ok::<_, ImageError>);
    stream::iter(blobs)
        .try_for_each_concurrent(options.parallel.get(), |blob| async move {
            let id = blob.digest.oci();
            let status = |current, is_done| {
                progress.status(Status {
                    id: &id,
                    action: "pushing",
                    current,
                    total: blob.size,
                    is_done,
                });
            };
            status(0, false);
            push_blob(source, reference, &blob.content, &blob.digest, blob.size).await?;
            status(blob.size, true);
            Ok(())
        })
        .await?;
    let registry = source.registry();
    for manifest in &image.manifests {
        let pinned = reference.clone().with_digest(manifest.descriptor.sha256()?);
        let media_type = &manifest.descriptor.media_type;
        registry.push_manifest(&pinned, media_type, &manifest.bytes).await?;
    }
    if image.index.is_some() {
        let pinned = reference.clone().with_digest(image.descriptor.sha256()?);
        put_root(source, image, &pinned).await?;
    }
    Ok(())
}

async fn put_root(source: &ImageSource, image: &AssembledImage, name: &Reference) -> Result<(), ImageError> {
    let bytes = match (&image.index, image.manifests.as_slice()) {
        (Some(index), _) => index,
        (None, [only, ..]) => &only.bytes,
        (None, []) => return Ok(()),
    };
    let media_type = &image.descriptor.media_type;
    source.registry().push_manifest(name, media_type, bytes).await?;
    Ok(())
}

async fn push_blob(
    source: &ImageSource,
    reference: &Reference,
    content: &Content,
    digest: &Sha256Digest,
    size: u64,
) -> Result<(), ImageError> {
    let registry = source.registry();
    match content {
        Content::Bytes(bytes) => {
            if !registry.has_blob(reference, digest, &[]).await? {
                registry
                    .upload_blob(reference, digest, size, &in_memory(bytes.clone()))
                    .await?;
            }
        }
        Content::Stored(blob) => {
            let from = source.repositories_with(blob, reference.domain()).await?;
            if !registry.has_blob(reference, digest, &from).await? {
                source.restore(blob).await?;
                registry
                    .upload_blob(reference, digest, size, &stored(source, blob))
                    .await?;
            }
        }
    }
    Ok(())
}

fn in_memory(bytes: Vec<u8>) -> BlobSource {
    Arc::new(move || Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn io::Read + Send>))
}

fn stored(source: &ImageSource, blob: &OciBlob) -> BlobSource {
    let (store, digest) = (source.store().clone(), blob.digest);
    Arc::new(move || match store.open_oci_blob(&digest) {
        Ok(Some(file)) => Ok(Box::new(file) as Box<dyn io::Read + Send>),
        Ok(None) => Err(io::Error::from(io::ErrorKind::NotFound)),
        Err(err) => Err(io::Error::other(err)),
    })
}

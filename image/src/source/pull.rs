//! Layers into the store, several at once, each once.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use cbs_store::{Layer, Lease, OciBlob, Sha256Digest, Snapshot, Store};
use futures_util::stream::{self, TryStreamExt as _};
use tokio::sync::mpsc;

use super::chain::Chain;
use super::unpack::{ChannelReader, Meaning, copy, unpack};
use super::{ImageSource, Network, Origin, ResolvedImage, ResolvedLayer};
use crate::blocking;
use crate::error::ImageError;
use crate::layer::PULLED;
use crate::manifest::{Descriptor, METADATA_MAX};
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::scratch::Scratch;

/// Network chunks under way to the disk.
const DEPTH: usize = 16;

impl ImageSource {
    /// Unpacks an image into the store and gives its root. Layers that are here are not fetched. Dropping the future
    /// stops it; what is complete by then stays.
    ///
    /// # Errors
    /// [`ImageError::Registry`], [`ImageError::Offline`], [`ImageError::DigestMismatch`], and what the layers' tars and
    /// the store say.
    pub async fn pull(
        &self,
        image: &ResolvedImage,
        lease: &Arc<Lease>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Snapshot, ImageError> {
        let scratch = {
            let lease = Arc::clone(lease);
            Arc::new(blocking(move || Scratch::new(&lease)).await?)
        };
        let chain = {
            let (store, ids) = (
                self.store.clone(),
                image.layers.iter().map(|layer| layer.diff_id.0).collect(),
            );
            blocking(move || Chain::known(&store, ids)).await?
        };
        // Equal layers, such as empty ones, are fetched once.
        let mut wanted: Vec<ResolvedLayer> = Vec::new();
        for (position, layer) in image.layers.iter().enumerate() {
            if chain.links[position].diff.is_none() && !wanted.iter().any(|other| other.diff_id == layer.diff_id) {
                wanted.push(layer.clone());
            }
        }
        let pulled: HashMap<Sha256Digest, Meaning> = stream::iter(wanted.into_iter().map(Ok::<_, ImageError>))
            .map_ok(|layer| {
                let scratch = &scratch;
                async move {
                    let pulled = self.pull_layer(image, &layer, scratch, progress).await?;
                    Ok((layer.diff_id.0, pulled))
                }
            })
            .try_buffer_unordered(self.parallel.get())
            .try_collect()
            .await?;
        let (store, lease) = (self.store.clone(), Arc::clone(lease));
        let blobs = image
            .layers
            .iter()
            .map(ResolvedLayer::blob)
            .collect::<Result<Vec<_>, _>>()?;
        blocking(move || {
            let snapshot = chain.apply(&store, &blobs, &pulled)?;
            lease.keep(&snapshot)?;
            Ok(snapshot)
        })
        .await
    }

    async fn pull_layer(
        &self,
        image: &ResolvedImage,
        layer: &ResolvedLayer,
        scratch: &Arc<Scratch>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Meaning, ImageError> {
        let blob = layer.blob()?;
        let digest = blob.digest;
        if let Origin::Registry(reference) = &image.origin {
            self.add_origin(&digest, reference).await?;
        }
        let store = self.store.clone();
        let kept = blocking(move || store.open_oci_blob(&digest)).await?;
        let job = Unpack {
            store: self.store.clone(),
            scratch: Arc::clone(scratch),
            blob,
            diff_id: layer.diff_id.0,
        };
        if let Some(file) = kept {
            let again = job.clone();
            match blocking(move || again.run(Box::new(file))).await {
                // A damaged blob is fetched again.
                Err(ImageError::DigestMismatch { .. }) => {}
                result => return result,
            }
        }
        match &image.origin {
            Origin::Layout(layout) => {
                let layout = Arc::clone(layout);
                blocking(move || job.run(layout.blob(&digest)?)).await
            }
            Origin::Registry(reference) => {
                if self.network == Network::Offline {
                    return Err(ImageError::Offline(image.name.clone()));
                }
                let unpack = |reader: ChannelReader| {
                    let job = job.clone();
                    blocking(move || job.run(Box::new(reader)))
                };
                self.fetch(reference, &layer.descriptor, progress, "downloading", unpack)
                    .await
            }
        }
    }

    /// Streams a blob into `consume`, which runs beside the transfer.
    async fn fetch<T, F>(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        progress: &Arc<dyn Progress>,
        action: &'static str,
        consume: impl Fn(ChannelReader) -> F,
    ) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, ImageError>>,
    {
        // Wrong bytes are asked for once more: a proxy may have cut an answer short or mixed two up.
        let mut attempts = 2;
        loop {
            attempts -= 1;
            let (sender, receiver) = mpsc::channel(DEPTH);
            let reader = ChannelReader::new(receiver, on_read(progress, descriptor, action));
            let transfer = async {
                let result = self.registry.blob(reference, descriptor, &sender).await;
                // The end of the channel is the end of the blob for the consumer.
                drop(sender);
                result
            };
            let (sent, consumed) = futures_util::join!(transfer, consume(reader));
            match (sent, consumed) {
                (Err(err), _) => return Err(err.into()),
                (Ok(()), Err(ImageError::DigestMismatch { .. })) if attempts > 0 => {}
                (Ok(()), consumed) => {
                    progress.status(Status {
                        id: &descriptor.digest,
                        action,
                        current: descriptor.size,
                        total: descriptor.size,
                        is_done: true,
                    });
                    return consumed;
                }
            }
        }
    }

    /// Fetches the bytes of a pulled layer again when they were collected.
    ///
    /// # Errors
    /// [`ImageError::BlobGone`] when nobody is known to have them, [`ImageError::Offline`], [`ImageError::Registry`].
    pub async fn restore(&self, blob: &OciBlob) -> Result<(), ImageError> {
        let (store, digest) = (self.store.clone(), blob.digest);
        if blocking(move || store.open_oci_blob(&digest)).await?.is_some() {
            return Ok(());
        }
        let descriptor = Descriptor::of_blob(blob);
        let mut failure = ImageError::BlobGone {
            what: "layer",
            digest: blob.digest,
        };
        let progress: Arc<dyn Progress> = Arc::new(crate::progress::Silent);
        for name in self.origins(&blob.digest).await? {
            if self.network == Network::Offline {
                return Err(ImageError::Offline(format!("{name}@{}", blob.digest.oci())));
            }
            let Ok(reference) = name.parse::<Reference>() else {
                continue;
            };
            let keep = |mut reader: ChannelReader| {
                let store = self.store.clone();
                blocking(move || -> Result<(), ImageError> {
                    let lease = store.lease()?;
                    let file = Scratch::new(&lease)?.create()?;
                    copy(&mut reader, &file.file, &digest)?;
                    file.adopt(&store, &digest)
                })
            };
            match self
                .fetch(&reference, &descriptor, &progress, "downloading", keep)
                .await
            {
                Ok(()) => return Ok(()),
                Err(err) => failure = err,
            }
        }
        Err(failure)
    }
}

fn on_read(progress: &Arc<dyn Progress>, descriptor: &Descriptor, action: &'static str) -> Box<dyn FnMut(u64) + Send> {
    let (progress, id, total) = (Arc::clone(progress), descriptor.digest.clone(), descriptor.size);
    Box::new(move |current| {
        progress.status(Status {
            id: &id,
            action,
            current,
            total,
            is_done: false,
        });
    })
}

/// What unpacks one layer, on a blocking thread.
#[derive(Clone)]
struct Unpack {
    store: Store,
    scratch: Arc<Scratch>,
    blob: OciBlob,
    diff_id: Sha256Digest,
}

impl Unpack {
    fn run(self, mut reader: Box<dyn Read + Send>) -> Result<Meaning, ImageError> {
        let file = self.scratch.create()?;
        let meaning = unpack(&self.store, &mut *reader, &file.file, &self.blob.digest, &self.diff_id)?;
        file.adopt(&self.store, &self.blob.digest)?;
        // At once, so that a pull that is stopped need not unpack this one again.
        if let Meaning::Diff(diff) = meaning {
            let layer = Layer {
                diff,
                diff_id: Some(self.diff_id),
            };
            self.store.put_layer_blob(&layer, PULLED, &self.blob)?;
        }
        Ok(meaning)
    }
}

/// A config blob, in memory, checked.
pub(super) async fn small_blob(
    registry: &Registry,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, ImageError> {
    let expected = descriptor.sha256()?;
    if descriptor.size > METADATA_MAX {
        return Err(ImageError::TooLarge {
            what: format!("config {}", descriptor.digest),
            limit: METADATA_MAX,
        });
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(DEPTH);
    let transfer = async {
        let result = registry.blob(reference, descriptor, &sender).await;
        drop(sender);
        result
    };
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    };
    let (sent, bytes) = futures_util::join!(transfer, collect);
    sent?;
    let actual = Sha256Digest::of(&bytes);
    if actual != expected {
        return Err(ImageError::DigestMismatch {
            what: "config",
            expected,
            actual,
        });
    }
    Ok(bytes)
}

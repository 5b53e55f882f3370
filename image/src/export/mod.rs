//! Exporters: snapshots and configs become images in archives, layouts, folders and registries.
//!
//! ```text
//! ImageToExport ── assemble ──► AssembledImage ──┬── write_archive, write_layout   oci, docker
//!   (layers compressed, history and              └── push                          registry
//!    times filled in, manifests written)
//! snapshot ── write_rootfs_tar, write_local ──► tar, local
//! ```
//! What [`assemble`] gives depends on the image and the options only: names, digests and bytes are the same on every
//! machine. Nothing is held in memory but manifests and configs.

mod archive;
mod destination;
mod history;
mod layout;
mod local;
mod push;
mod rootfs;
mod staging;

use cbs_store::{Lease, OciBlob, Sha256Digest, Snapshot, Store};

pub use archive::{ArchiveKind, write_archive};
pub(crate) use archive::{IMAGE_NAME, REF_NAME};
pub use destination::Destination;
pub use history::{ExportTime, LayerNote};
pub use layout::write_layout;
pub use local::{LocalMode, LocalOptions, Owners, write_local};
pub use push::{PushNaming, PushOptions, push};
pub use rootfs::{PlatformSplit, RootfsOptions, RootfsTime, write_rootfs_tar};

use crate::codec::Pool;
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::layer::{LayerContext, LayerOptions, layer_blob};
use crate::manifest::{Annotations, Descriptor, Index, Manifest, MediaTypes, to_pretty_json};
use crate::platform::Platform;
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::scratch::Scratch;

/// OCI's annotation for the time an image was made.
const CREATED: &str = "org.opencontainers.image.created";

/// One platform of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct PlatformImage {
    /// What it runs on.
    pub platform: Platform,
    /// Its root and layers.
    pub snapshot: Snapshot,
    /// Its config; `rootfs` is filled in here, `history` and `created` are brought in line.
    pub config: ImageConfig,
    /// The config of the image it is based on, whose history keeps its times.
    pub base: Option<ImageConfig>,
    /// What is known of the layers, lowest first; may be shorter.
    pub notes: Vec<LayerNote>,
    /// Annotations of this platform's manifest, over [`ImageAnnotations::manifest`].
    pub manifest_annotations: Annotations,
    /// Annotations of its descriptor, over [`ImageAnnotations::manifest_descriptor`].
    pub descriptor_annotations: Annotations,
}

/// Whether an image of one platform is an index too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexUse {
    /// Only for several platforms.
    WhenNeeded,
    /// Always.
    Always,
}

/// Annotations by the place they go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageAnnotations {
    /// The index.
    pub index: Annotations,
    /// The descriptor of the index.
    pub index_descriptor: Annotations,
    /// Each manifest.
    pub manifest: Annotations,
    /// Each manifest's descriptor.
    pub manifest_descriptor: Annotations,
}

/// An image and how it is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageToExport {
    /// In the order they were asked for.
    pub platforms: Vec<PlatformImage>,
    /// Index or single manifest.
    pub index: IndexUse,
    /// The names it gets, with tags.
    pub names: Vec<Reference>,
    /// The family of media types.
    pub media_types: MediaTypes,
    /// Annotations.
    pub annotations: ImageAnnotations,
    /// How layers are made.
    pub layers: LayerOptions,
    /// The times written.
    pub time: ExportTime,
}

/// What exporting needs.
pub struct ExportContext<'a> {
    /// Where layers come from and compressed ones are remembered.
    pub store: &'a Store,
    /// Keeps unfinished files.
    pub lease: &'a Lease,
    /// Compresses.
    pub pool: &'a Pool,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
    /// Asked between pieces of work.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Where a blob's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Here.
    Bytes(Vec<u8>),
    /// An OCI blob of the store; of a pulled layer perhaps only its name.
    Stored(OciBlob),
}

/// A blob of an assembled image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssembledBlob {
    pub(crate) digest: Sha256Digest,
    pub(crate) size: u64,
    pub(crate) content: Content,
}

/// One platform, assembled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssembledManifest {
    pub(crate) manifest: Manifest,
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    /// Config first, then layers.
    pub(crate) blobs: Vec<AssembledBlob>,
}

/// An image whose every byte is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledImage {
    /// Names the image: its index, or its one manifest.
    descriptor: Descriptor,
    /// Of the one manifest; `None` with an index.
    config_digest: Option<Sha256Digest>,
    manifests: Vec<AssembledManifest>,
    index: Option<Vec<u8>>,
    names: Vec<Reference>,
}

impl AssembledImage {
    /// The image as it is named from outside.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The digest of the config; `None` when there are several.
    pub fn config_digest(&self) -> Option<&Sha256Digest> {
        self.config_digest.as_ref()
    }

    /// The names it gets.
    pub fn names(&self) -> &[Reference] {
        &self.names
    }

    /// What a build answers: the `containerimage.*` keys of BuildKit, and the names.
    ///
    /// # Errors
    /// [`ImageError::BadDocument`], in practice never.
    pub fn metadata(&self) -> Result<serde_json::Map<String, serde_json::Value>, ImageError> {
        let mut map = serde_json::Map::new();
        if let Some(digest) = &self.config_digest {
            map.insert("containerimage.config.digest".to_owned(), digest.oci().into());
        }
        let descriptor = serde_json::to_value(&self.descriptor).map_err(|source| ImageError::BadDocument {
            what: "descriptor",
            source,
        })?;
        map.insert("containerimage.descriptor".to_owned(), descriptor);
        map.insert(
            "containerimage.digest".to_owned(),
            self.descriptor.digest.clone().into(),
        );
        if !self.names.is_empty() {
            let names: Vec<_> = self.names.iter().map(Reference::to_string).collect();
            map.insert("image.name".to_owned(), names.join(",").into());
        }
        Ok(map)
    }

    /// All blobs without the manifests, each once.
    pub(crate) fn blobs(&self) -> Vec<&AssembledBlob> {
        let mut seen = std::collections::HashSet::new();
        self.manifests
            .iter()
            .flat_map(|manifest| &manifest.blobs)
            .filter(|blob| seen.insert(blob.digest))
            .collect()
    }

    /// Layers whose bytes are not in the store; a registry they came from may still have them.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn missing_layers(&self, store: &Store) -> Result<Vec<OciBlob>, ImageError> {
        let mut missing = Vec::new();
        for blob in self.blobs() {
            if let Content::Stored(stored) = &blob.content
                && store.open_oci_blob(&stored.digest)?.is_none()
            {
                missing.push(stored.clone());
            }
        }
        Ok(missing)
    }
}

/// Compresses the layers of an image and writes its configs, manifests and index.
///
/// # Errors
/// [`ImageError::Options`] when the options do not fit the image, [`ImageError::BlobGone`] when a pulled layer must be
/// converted and its bytes are gone, else what store and codec say.
pub fn assemble(context: &ExportContext<'_>, image: &ImageToExport) -> Result<AssembledImage, ImageError> {
    check(image)?;
    let blobs = compress_layers(context, image)?;
    let mut manifests = Vec::with_capacity(image.platforms.len());
    for (platform, blobs) in image.platforms.iter().zip(blobs) {
        manifests.push(assemble_platform(image, platform, blobs)?);
    }
    let uses_index = image.index == IndexUse::Always || manifests.len() > 1;
    let (mut descriptor, index, config_digest) = if uses_index {
        let descriptors = manifests.iter().map(|manifest| manifest.descriptor.clone()).collect();
        let index = Index::new(image.media_types, descriptors, image.annotations.index.clone());
        let bytes = to_pretty_json(&index)?;
        let mut descriptor = Descriptor::of(image.media_types.index(), &bytes);
        descriptor.annotations = image.annotations.index_descriptor.clone();
        (descriptor, Some(bytes), None)
    } else {
        let only = &manifests[0];
        (
            only.descriptor.clone(),
            None,
            only.blobs.first().map(|config| config.digest),
        )
    };
    if let Some(created) = image.time.created() {
        descriptor.annotations.entry(CREATED.to_owned()).or_insert(created);
    }
    Ok(AssembledImage {
        descriptor,
        config_digest,
        manifests,
        index,
        names: image.names.iter().cloned().map(Reference::with_default_tag).collect(),
    })
}

fn check(image: &ImageToExport) -> Result<(), ImageError> {
    let fail = |problem: &str| Err(ImageError::Options(problem.to_owned()));
    let annotations = &image.annotations;
    if image.platforms.is_empty() {
        return fail("an image needs at least one platform");
    }
    let uses_index = image.index == IndexUse::Always || image.platforms.len() > 1;
    let has_index_annotations = !annotations.index.is_empty() || !annotations.index_descriptor.is_empty();
    if has_index_annotations && !uses_index {
        return fail("index annotations need an image with an index (several platforms)");
    }
    let has_oci_annotations = has_index_annotations
        || !annotations.manifest_descriptor.is_empty()
        || image
            .platforms
            .iter()
            .any(|platform| !platform.descriptor_annotations.is_empty());
    if image.media_types == MediaTypes::Docker && has_oci_annotations {
        return fail("these annotations cannot be exported with `oci-mediatypes=false`");
    }
    for platform in &image.platforms {
        if platform.config.os.is_empty() || platform.config.architecture.is_empty() {
            return fail("an image config needs `os` and `architecture`");
        }
    }
    Ok(())
}

/// The blobs of all layers by platform. Equal layers are made once; small ones side by side.
fn compress_layers(context: &ExportContext<'_>, image: &ImageToExport) -> Result<Vec<Vec<OciBlob>>, ImageError> {
    let id = "exporting layers";
    let scratch = Scratch::new(context.lease)?;
    let layer_context = LayerContext {
        store: context.store,
        scratch: &scratch,
        pool: context.pool,
        cancelled: context.cancelled,
    };
    let mut unique = Vec::new();
    let mut positions = std::collections::HashMap::new();
    for layer in image.platforms.iter().flat_map(|platform| &platform.snapshot.layers) {
        positions.entry(*layer).or_insert_with(|| {
            unique.push(*layer);
            unique.len() - 1
        });
    }
    let total = unique.len() as u64;
    let status = |current: u64, is_done: bool| {
        context.progress.status(Status {
            id,
            action: "compressing",
            current,
            total,
            is_done,
        });
    };
    status(0, false);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::atomic::AtomicU64::new(0);
    let work = || {
        use std::sync::atomic::Ordering::Relaxed;
        let mut made = Vec::new();
        loop {
            let position = next.fetch_add(1, Relaxed);
            let Some(layer) = unique.get(position) else {
                return Ok(made);
            };
            if (context.cancelled)() {
                return Err(ImageError::Cancelled);
            }
            match layer_blob(&layer_context, layer, &image.layers) {
                Ok(blob) => made.push((position, blob)),
                Err(err) => {
                    // The others need not start another one.
                    next.store(unique.len(), Relaxed);
                    return Err(err);
                }
            }
            status(done.fetch_add(1, Relaxed) + 1, false);
        }
    };
    let made: Vec<Result<Vec<(usize, OciBlob)>, ImageError>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..context.pool.threads().min(unique.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let own = work();
        let mut all = vec![own];
        all.extend(
            others
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        all
    });
    let mut blobs = vec![None; unique.len()];
    for (position, blob) in made.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        blobs[position] = Some(blob);
    }
    status(total, true);
    let find = |layer| positions.get(layer).and_then(|&position| blobs[position].clone());
    Ok(image
        .platforms
        .iter()
        .map(|platform| platform.snapshot.layers.iter().filter_map(find).collect())
        .collect())
}

fn assemble_platform(
    image: &ImageToExport,
    platform: &PlatformImage,
    layers: Vec<OciBlob>,
) -> Result<AssembledManifest, ImageError> {
    let mut config = platform.config.clone();
    config.rootfs.diff_ids = Vec::with_capacity(layers.len());
    for layer in &layers {
        let diff_id = layer.diff_id.ok_or(ImageError::BlobGone {
            what: "the diff id of layer",
            digest: layer.digest,
        })?;
        config.rootfs.diff_ids.push(diff_id.oci());
    }
    history::normalize(
        &mut config,
        &platform.notes,
        layers.len(),
        platform.base.as_ref(),
        image.time,
    );
    let config = config.to_vec().map_err(|source| ImageError::BadDocument {
        what: "image config",
        source,
    })?;
    let config_descriptor = Descriptor::of(image.media_types.config(), &config);
    let descriptors = layers
        .iter()
        .map(|layer| Descriptor {
            media_type: image.media_types.convert_layer(&layer.media_type).to_owned(),
            ..Descriptor::of_blob(layer)
        })
        .collect();
    let manifest_annotations = merged(&image.annotations.manifest, &platform.manifest_annotations);
    let mut blobs = vec![AssembledBlob {
        digest: config_descriptor.sha256()?,
        size: config_descriptor.size,
        content: Content::Bytes(config),
    }];
    let manifest = Manifest::new(image.media_types, config_descriptor, descriptors, manifest_annotations);
    let bytes = to_pretty_json(&manifest)?;
    let mut descriptor = Descriptor::of(image.media_types.manifest(), &bytes);
    descriptor.annotations = merged(&image.annotations.manifest_descriptor, &platform.descriptor_annotations);
    descriptor.platform = Some(platform.platform.clone());
    blobs.extend(layers.into_iter().map(|layer| AssembledBlob {
        digest: layer.digest,
        size: layer.size,
        content: Content::Stored(layer),
    }));
    Ok(AssembledManifest {
        manifest,
        descriptor,
        bytes,
        blobs,
    })
}

fn merged(general: &Annotations, special: &Annotations) -> Annotations {
    let mut all = general.clone();
    all.extend(special.clone());
    all
}

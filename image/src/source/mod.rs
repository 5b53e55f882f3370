//! Where base images come from: resolving references and pulling layers into the store.
//!
//! ```text
//! resolve: reference, platform ──► manifest, config, layers     facts first, network only for what they lack
//! pull:    layers ──► known diff id? ── no ──► stream: hash, spool, decompress, hash, tar ──► diff tree
//!          diff trees ── apply in order ──► Snapshot
//! ```
//! Facts kept in the store: `image.tag` (name:tag → digest), `image.document` (digest → manifest, index or config),
//! `image.origin` (blob → repositories that have it), `image.chain` (chain id → root, diff). A pulled layer is never fetched
//! again while its diff tree is here; its blob is kept as it came, to be pushed as the same bytes.

mod chain;
mod choose;
mod layout;
mod pull;
mod unpack;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use cbs_store::{OciBlob, Sha256Digest, Store};
use serde::{Deserialize, Serialize};

pub use layout::Layout;

use crate::blocking;
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::manifest::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::Registry;

const TAGS: &str = "image.tag";
const DOCUMENTS: &str = "image.document";
const ORIGINS: &str = "image.origin";

/// An index may lead to an index; deeper nesting has no use.
const MAX_DEPTH: usize = 3;

/// Repositories remembered for a blob.
const MAX_ORIGINS: usize = 8;

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// For what is not here.
    Online,
    /// Never.
    Offline,
}

/// How current a tag's image must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What the tag pointed to when it was last looked up will do; the network is asked only the first time.
    Known,
    /// The registry is asked (`--pull`).
    Current,
}

/// Gives images. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ImageSource {
    store: Store,
    registry: Registry,
    network: Network,
    parallel: NonZeroUsize,
}

/// Where an image's blobs are.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A registry.
    Registry(Reference),
    /// A layout or archive on disk.
    Layout(Arc<Layout>),
}

/// One layer of a resolved image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedLayer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// SHA-256 of its tar.
    pub diff_id: Sha256Text,
}

impl ResolvedLayer {
    /// Its blob as the store keeps it.
    fn blob(&self) -> Result<OciBlob, ImageError> {
        Ok(OciBlob {
            digest: self.descriptor.sha256()?,
            size: self.descriptor.size,
            media_type: self.descriptor.media_type.clone(),
            diff_id: Some(self.diff_id.0),
        })
    }
}

/// A digest that serde writes as OCI does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256Text(pub Sha256Digest);

impl Serialize for Sha256Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.oci())
    }
}

impl<'de> Deserialize<'de> for Sha256Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Sha256Digest::parse_oci(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// An image of one platform: all that is known without its layers.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The image as it was asked for, for messages.
    pub name: String,
    /// Where its blobs are.
    pub origin: Origin,
    /// What the reference points to: the index when there is one, else the manifest. Pins the image.
    pub digest: Sha256Digest,
    /// The manifest of the platform.
    pub manifest: Sha256Digest,
    /// The platform the config says.
    pub platform: Platform,
    /// The config as it is.
    pub config: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<ResolvedLayer>,
}

impl ResolvedImage {
    /// The config, read.
    ///
    /// # Errors
    /// [`ImageError::BadDocument`].
    pub fn parsed_config(&self) -> Result<ImageConfig, ImageError> {
        parse_config(&self.config)
    }
}

impl ImageSource {
    /// A source over a store; at most `parallel` layers are fetched at once.
    pub fn new(store: Store, registry: Registry, network: Network, parallel: NonZeroUsize) -> Self {
        Self {
            store,
            registry,
            network,
            parallel,
        }
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The registry client behind it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Finds the image of a platform. A reference with a digest, or one seen before, needs no network.
    ///
    /// # Errors
    /// [`ImageError::NoPlatform`], [`ImageError::Offline`], [`ImageError::Registry`], and what is wrong with the documents.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        freshness: Freshness,
    ) -> Result<ResolvedImage, ImageError> {
        let reference = reference.clone().with_default_tag();
        let digest = match reference.digest() {
            Some(digest) => *digest,
            None => self.tag(&reference, freshness).await?,
        };
        let origin = Origin::Registry(reference.clone());
        self.resolve_digest(reference.to_string(), origin, &digest, platform)
            .await
    }

    /// Finds the image of a platform in a layout: by digest, by name or tag, or the only one there is.
    ///
    /// # Errors
    /// [`ImageError::NotInLayout`], [`ImageError::NoPlatform`], and what is wrong with the documents.
    pub async fn resolve_layout(
        &self,
        path: PathBuf,
        name: Option<String>,
        digest: Option<Sha256Digest>,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        let shown = match &name {
            Some(name) => format!("oci-layout://{}:{name}", path.display()),
            None => format!("oci-layout://{}", path.display()),
        };
        let (layout, digest) = blocking(move || -> Result<_, ImageError> {
            let layout = Layout::open(&path)?;
            let digest = match digest {
                Some(digest) => digest,
                None => layout.find(name.as_deref())?.sha256()?,
            };
            Ok((Arc::new(layout), digest))
        })
        .await?;
        self.resolve_digest(shown, Origin::Layout(layout), &digest, platform)
            .await
    }

    async fn resolve_digest(
        &self,
        name: String,
        origin: Origin,
        root: &Sha256Digest,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        let mut digest = *root;
        let mut manifest: Option<Box<Manifest>> = None;
        for _ in 0..MAX_DEPTH {
            let bytes = self.document(&origin, &digest, DocumentKind::Manifest).await?;
            match Document::parse(&bytes)? {
                Document::Manifest(found) => {
                    manifest = Some(found);
                    break;
                }
                Document::Index(index) => digest = choose::platform(&name, &index, platform)?.sha256()?,
            }
        }
        let manifest = manifest.ok_or_else(|| ImageError::NotAnImage(name.clone()))?;
        let config_digest = manifest.config.sha256()?;
        let config = self
            .document(&origin, &config_digest, DocumentKind::Config(&manifest.config))
            .await?;
        let parsed = parse_config(&config)?;
        let layers = pair_layers(&name, &manifest, &parsed)?;
        let found = Platform {
            architecture: parsed.architecture,
            os: parsed.os,
            os_version: parsed.os_version,
            os_features: parsed.os_features,
            variant: parsed.variant,
        };
        Ok(ResolvedImage {
            name,
            origin,
            digest: *root,
            manifest: digest,
            platform: found.normalized(),
            config,
            layers,
        })
    }

    /// What a tag points to.
    async fn tag(&self, reference: &Reference, freshness: Freshness) -> Result<Sha256Digest, ImageError> {
        let key = reference.to_string();
        let known = self.fact(TAGS, &key).await?.and_then(|value| {
            let text = String::from_utf8(value).ok()?;
            Sha256Digest::parse_oci(&text).ok()
        });
        match (known, freshness, self.network) {
            (Some(digest), Freshness::Known, _) | (Some(digest), _, Network::Offline) => return Ok(digest),
            (None, _, Network::Offline) => return Err(ImageError::Offline(key)),
            _ => {}
        }
        let digest = match known {
            // Most tags have not moved: a HEAD request says so, and costs nothing at registries that count pulls.
            Some(_) => self.registry.resolve_tag(reference).await?,
            None => {
                let fetched = self.registry.manifest(reference).await?;
                self.remember_document(&fetched.digest, fetched.bytes).await?;
                fetched.digest
            }
        };
        let (store, value) = (self.store.clone(), digest.oci());
        blocking(move || store.put_fact(TAGS, &key, value.as_bytes())).await?;
        Ok(digest)
    }

    /// A manifest, index or config: from the facts, else from its origin.
    async fn document(
        &self,
        origin: &Origin,
        digest: &Sha256Digest,
        kind: DocumentKind<'_>,
    ) -> Result<Vec<u8>, ImageError> {
        if let Some(bytes) = self.fact(DOCUMENTS, &digest.to_string()).await?
            && Sha256Digest::of(&bytes) == *digest
        {
            return Ok(bytes);
        }
        let bytes = match origin {
            Origin::Layout(layout) => {
                let (layout, digest) = (Arc::clone(layout), *digest);
                blocking(move || layout.document(&digest)).await?
            }
            Origin::Registry(reference) => {
                if self.network == Network::Offline {
                    return Err(ImageError::Offline(reference.to_string()));
                }
                let pinned = reference.clone().with_digest(*digest);
                match kind {
                    DocumentKind::Manifest => self.registry.manifest(&pinned).await?.bytes,
                    DocumentKind::Config(descriptor) => pull::small_blob(&self.registry, reference, descriptor).await?,
                }
            }
        };
        self.remember_document(digest, bytes.clone()).await?;
        Ok(bytes)
    }

    async fn remember_document(&self, digest: &Sha256Digest, bytes: Vec<u8>) -> Result<(), ImageError> {
        let (store, key) = (self.store.clone(), digest.to_string());
        Ok(blocking(move || store.put_fact(DOCUMENTS, &key, &bytes)).await?)
    }

    async fn fact(&self, namespace: &'static str, key: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let (store, key) = (self.store.clone(), key.to_owned());
        Ok(blocking(move || store.fact(namespace, &key))
            .await?
            .map(|(value, _)| value))
    }

    /// Repositories of a registry that are known to have a blob, to mount it from.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub async fn repositories_with(&self, blob: &OciBlob, domain: &str) -> Result<Vec<String>, ImageError> {
        let origins = self.origins(&blob.digest).await?;
        Ok(origins
            .iter()
            .filter_map(|name| name.parse::<Reference>().ok())
            .filter(|reference| reference.domain() == domain)
            .map(|reference| reference.repository().to_owned())
            .collect())
    }

    async fn origins(&self, digest: &Sha256Digest) -> Result<Vec<String>, ImageError> {
        let value = self.fact(ORIGINS, &digest.to_string()).await?;
        // A fact of another version is as good as none.
        Ok(value
            .and_then(|value| serde_json::from_slice(&value).ok())
            .unwrap_or_default())
    }

    /// Remembers that a repository has a blob; the newest first.
    async fn add_origin(&self, digest: &Sha256Digest, reference: &Reference) -> Result<(), ImageError> {
        let mut origins = self.origins(digest).await?;
        let name = reference.name();
        if origins.first() == Some(&name) {
            return Ok(());
        }
        origins.retain(|other| *other != name);
        origins.insert(0, name);
        origins.truncate(MAX_ORIGINS);
        let value = crate::manifest::to_json(&origins)?;
        let (store, key) = (self.store.clone(), digest.to_string());
        Ok(blocking(move || store.put_fact(ORIGINS, &key, &value)).await?)
    }
}

#[derive(Clone, Copy)]
enum DocumentKind<'a> {
    Manifest,
    Config(&'a Descriptor),
}

fn parse_config(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    ImageConfig::from_slice(bytes).map_err(|source| ImageError::BadDocument {
        what: "image config",
        source,
    })
}

/// Each layer's blob with its diff id.
fn pair_layers(name: &str, manifest: &Manifest, config: &ImageConfig) -> Result<Vec<ResolvedLayer>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        return Err(ImageError::LayerCount {
            image: name.to_owned(),
            layers: manifest.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| {
            descriptor.sha256()?;
            if crate::manifest::layer_compression(&descriptor.media_type).is_none() {
                return Err(ImageError::LayerType {
                    image: name.to_owned(),
                    digest: descriptor.digest.clone(),
                    media_type: descriptor.media_type.clone(),
                });
            }
            let diff_id = Sha256Digest::parse_oci(diff_id).map_err(|_| ImageError::BadDigest(diff_id.clone()))?;
            Ok(ResolvedLayer {
                descriptor: descriptor.clone(),
                diff_id: Sha256Text(diff_id),
            })
        })
        .collect()
}

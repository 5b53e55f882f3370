//! Reading from registries.

use std::sync::Arc;

use bytes::Bytes;
use cbs_store::Sha256Digest;
use futures_util::StreamExt as _;
use oci_client::RegistryOperation;
use oci_client::client::{BlobResponse, LayerDescriptor};
use oci_client::secrets::RegistryAuth;
use tokio::sync::mpsc::Sender;

use super::endpoint::Endpoint;
use super::{EndpointKey, Registry, RegistryError, RegistryErrorKind, failed, pause};
use crate::manifest::{Descriptor, METADATA_MAX, media};
use crate::reference::Reference;

/// The types asked for, indexes first: registries that can serve several prefer the first.
const ACCEPTED: &[&str] = &[
    media::OCI_INDEX,
    media::DOCKER_INDEX,
    media::OCI_MANIFEST,
    media::DOCKER_MANIFEST,
];

/// A manifest or index as a registry has it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Its name.
    pub digest: Sha256Digest,
    /// Its bytes, which have that digest.
    pub bytes: Vec<u8>,
}

impl Registry {
    /// The digest that a tag points to now, without fetching the manifest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve_tag(&self, reference: &Reference) -> Result<Sha256Digest, RegistryError> {
        self.ask_any("resolve", reference, |endpoint| {
            let (registry, reference) = (self.clone(), reference.clone());
            async move { registry.tag_at(&endpoint, &reference).await }
        })
        .await
    }

    /// Fetches the manifest or index that a reference's digest, else its tag, names. The digest is checked.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        self.ask_any("pull the manifest of", reference, |endpoint| {
            let (registry, reference) = (self.clone(), reference.clone());
            async move { registry.manifest_at(&endpoint, &reference).await }
        })
        .await
    }

    async fn tag_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Sha256Digest, RegistryErrorKind> {
        let located = endpoint.locate(reference.repository(), tag_of(reference));
        let digest = self
            .request(endpoint, || async {
                endpoint.authorize(&located, RegistryOperation::Pull, None).await?;
                endpoint
                    .client
                    .fetch_manifest_digest(&located, &RegistryAuth::Anonymous)
                    .await
                    .map_err(|err| RegistryErrorKind::from_client(err, endpoint.has_credentials()))
            })
            .await?;
        Sha256Digest::parse_oci(&digest)
            .map_err(|_| RegistryErrorKind::Protocol(format!("`{digest}` is no sha256 digest")))
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<FetchedManifest, RegistryErrorKind> {
        let wanted = reference.digest().copied();
        let name = wanted.map_or_else(|| tag_of(reference).to_owned(), |digest| digest.oci());
        let located = endpoint.locate(reference.repository(), &name);
        let (bytes, _) = self
            .request(endpoint, || async {
                endpoint.authorize(&located, RegistryOperation::Pull, None).await?;
                endpoint
                    .client
                    .pull_manifest_raw(&located, &RegistryAuth::Anonymous, ACCEPTED)
                    .await
                    .map_err(|err| RegistryErrorKind::from_client(err, endpoint.has_credentials()))
            })
            .await?;
        if bytes.len() as u64 > METADATA_MAX {
            return Err(RegistryErrorKind::Protocol(format!(
                "the manifest is larger than {METADATA_MAX} bytes"
            )));
        }
        let digest = Sha256Digest::of(&bytes);
        match wanted {
            Some(wanted) if wanted != digest => Err(RegistryErrorKind::Protocol(format!(
                "manifest {} arrived as {}",
                wanted.oci(),
                digest.oci()
            ))),
            _ => Ok(FetchedManifest {
                digest,
                bytes: bytes.to_vec(),
            }),
        }
    }

    /// Sends a blob's bytes, in order and each once, into a channel; goes on where it stopped when the connection
    /// breaks, and on another host when one fails for good. The receiver checks the digest. A dropped receiver ends it
    /// without error: whoever dropped it knows why.
    ///
    /// # Errors
    /// [`RegistryError`]; also when the blob is longer than its descriptor says.
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let mut sent = 0_u64;
        let mut first = None;
        for key in self.addresses(reference) {
            let result = match self.endpoint(reference, &key).await {
                Ok(endpoint) => self.blob_from(&endpoint, reference, descriptor, sink, &mut sent).await,
                Err(err) => Err(err),
            };
            match result {
                Ok(()) => return Ok(()),
                Err(err) if err.is_local() => {
                    first = Some((key, err));
                    break;
                }
                Err(err) => first = Some(prefer(first, key, err)),
            }
        }
        let blob = format!("{}@{}", reference.name(), descriptor.digest);
        let (key, kind) = first.unwrap_or_else(|| no_host(reference));
        Err(failed("pull blob", blob, &key.address)(kind))
    }

    async fn blob_from(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &Sender<Bytes>,
        sent: &mut u64,
    ) -> Result<(), RegistryErrorKind> {
        let located = endpoint.locate(reference.repository(), &descriptor.digest);
        let urls = Some(descriptor.urls.clone()).filter(|urls| !urls.is_empty());
        let mut attempt = 0;
        let mut has_renewed = false;
        loop {
            let before = *sent;
            let layer = LayerDescriptor {
                digest: &descriptor.digest,
                urls: &urls,
            };
            let err = match stream_once(endpoint, &located, &layer, descriptor.size, sink, sent).await {
                Ok(()) => return Ok(()),
                Err(err) => err,
            };
            // What moves forward may fail as often as it likes.
            if *sent > before {
                attempt = 0;
            }
            match err {
                RegistryErrorKind::Unauthorized { .. } if !has_renewed => {
                    has_renewed = true;
                    endpoint.forget_tokens().await;
                }
                err if err.is_transient() && attempt < self.0.config.retries => {
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                err => return Err(err),
            }
        }
    }

    #[allow(clippy::wrong_self_convention, reason = "it asks from them")]
    /// Asks mirrors and the registry in turn; when all fail, the registry's own answer is the one reported.
    async fn ask_any<T, F>(
        &self,
        action: &'static str,
        reference: &Reference,
        ask: impl Fn(Arc<Endpoint>) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryErrorKind>>,
    {
        let mut failure = None;
        for key in self.addresses(reference) {
            let result = match self.endpoint(reference, &key).await {
                Ok(endpoint) => ask(endpoint).await,
                Err(err) => Err(err),
            };
            match result {
                Ok(value) => return Ok(value),
                Err(err) => failure = Some((key, err)),
            }
        }
        let (key, kind) = failure.unwrap_or_else(|| no_host(reference));
        Err(failed(action, reference, &key.address)(kind))
    }
}

/// One request for the bytes from `sent` on.
async fn stream_once(
    endpoint: &Endpoint,
    located: &oci_client::Reference,
    layer: &LayerDescriptor<'_>,
    size: u64,
    sink: &Sender<Bytes>,
    sent: &mut u64,
) -> Result<(), RegistryErrorKind> {
    if *sent == size {
        return Ok(());
    }
    endpoint.authorize(located, RegistryOperation::Pull, None).await?;
    let response = endpoint
        .client
        .pull_blob_stream_partial(located, layer, *sent, None)
        .await
        .map_err(|err| RegistryErrorKind::from_client(err, endpoint.has_credentials()))?;
    // A host that ignores the range sends what we have already once more.
    let (mut stream, mut skip) = match response {
        BlobResponse::Partial(stream) => (stream, 0),
        BlobResponse::Full(stream) => (stream, *sent),
    };
    while let Some(chunk) = stream.next().await {
        let mut chunk = chunk.map_err(|err| RegistryErrorKind::Broken(err.to_string()))?;
        let dropped = skip.min(chunk.len() as u64);
        skip -= dropped;
        chunk = chunk.split_off(usize::try_from(dropped).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            continue;
        }
        if *sent + chunk.len() as u64 > size {
            return Err(RegistryErrorKind::Protocol(format!(
                "the blob is longer than the {size} bytes announced"
            )));
        }
        *sent += chunk.len() as u64;
        if sink.send(chunk).await.is_err() {
            return Ok(());
        }
    }
    if *sent < size {
        return Err(RegistryErrorKind::Broken(format!(
            "it ended after {sent} of {size} bytes"
        )));
    }
    Ok(())
}

fn tag_of(reference: &Reference) -> &str {
    reference.tag().unwrap_or("latest")
}

/// Keeps the more telling of two failures: that of the registry itself unless it could not be reached.
fn prefer(
    first: Option<(EndpointKey, RegistryErrorKind)>,
    key: EndpointKey,
    err: RegistryErrorKind,
) -> (EndpointKey, RegistryErrorKind) {
    match first {
        Some(first) if matches!(err, RegistryErrorKind::Connect(_)) => first,
        _ => (key, err),
    }
}

fn no_host(reference: &Reference) -> (EndpointKey, RegistryErrorKind) {
    (super::origin(reference), RegistryErrorKind::NotFound)
}

//! Writing to registries.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use cbs_store::Sha256Digest;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use tokio::sync::mpsc;

use super::endpoint::Endpoint;
use super::{Registry, RegistryError, RegistryErrorKind, failed, origin};
use crate::reference::Reference;

/// Bytes read from a blob's file at once.
const CHUNK: usize = 256 << 10;

/// Opens a blob's bytes; called once per attempt, on a blocking thread.
pub type BlobSource = Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

impl Registry {
    /// Whether a blob is in the repository of `reference`, if need be after mounting it from one of `from`: repositories
    /// of the same registry that may have it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn has_blob(
        &self,
        reference: &Reference,
        digest: &Sha256Digest,
        from: &[String],
    ) -> Result<bool, RegistryError> {
        let key = origin(reference);
        let result = async {
            let endpoint = self.endpoint(reference, &key).await?;
            let digest = digest.oci();
            let located = endpoint.locate(reference.repository(), &digest);
            let exists = self
                .request(&endpoint, || async {
                    endpoint.authorize(&located, RegistryOperation::Push, None).await?;
                    endpoint
                        .client
                        .blob_exists(&located, &digest)
                        .await
                        .map_err(shape(&endpoint))
                })
                .await?;
            if exists {
                return Ok(true);
            }
            for repository in from.iter().filter(|from| *from != reference.repository()) {
                if self.mount(&endpoint, reference, repository, &digest).await {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        .await;
        result.map_err(failed("look for blob", blob_name(reference, digest), &key.address))
    }

    /// Sends a blob into the repository of `reference`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn upload_blob(
        &self,
        reference: &Reference,
        digest: &Sha256Digest,
        size: u64,
        source: &BlobSource,
    ) -> Result<(), RegistryError> {
        let key = origin(reference);
        let result = async {
            let endpoint = self.endpoint(reference, &key).await?;
            let digest = digest.oci();
            let located = endpoint.locate(reference.repository(), &digest);
            self.request(&endpoint, || {
                upload(&endpoint, &located, &digest, size, Arc::clone(source))
            })
            .await
        }
        .await;
        result.map_err(failed("push blob", blob_name(reference, digest), &key.address))
    }

    /// Whether the registry took the blob from another repository. Any refusal only means an upload.
    async fn mount(&self, endpoint: &Endpoint, reference: &Reference, repository: &str, digest: &str) -> bool {
        let located = endpoint.locate(reference.repository(), digest);
        let source = endpoint.locate(repository, digest);
        if endpoint
            .authorize(&located, RegistryOperation::Push, Some(source.repository()))
            .await
            .is_err()
        {
            return false;
        }
        endpoint.client.mount_blob(&located, &source, digest).await.is_ok()
    }

    /// Puts a manifest or index under the tag of `reference`, or under its digest when there is no tag.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Sha256Digest, RegistryError> {
        let key = origin(reference);
        let digest = Sha256Digest::of(bytes);
        let name = reference.tag().map_or_else(|| digest.oci(), str::to_owned);
        let result = async {
            let content_type = reqwest::header::HeaderValue::from_str(media_type)
                .map_err(|_| RegistryErrorKind::Protocol(format!("`{media_type}` is no media type")))?;
            let endpoint = self.endpoint(reference, &key).await?;
            let located = endpoint.locate(reference.repository(), &name);
            self.request(&endpoint, || async {
                endpoint.authorize(&located, RegistryOperation::Push, None).await?;
                endpoint
                    .client
                    .push_manifest_raw(&located, bytes.to_vec(), content_type.clone())
                    .await
                    .map_err(shape(&endpoint))
            })
            .await?;
            Ok(digest)
        }
        .await;
        result.map_err(failed("push the manifest of", reference, &key.address))
    }
}

fn blob_name(reference: &Reference, digest: &Sha256Digest) -> String {
    format!("{}@{}", reference.name(), digest.oci())
}

fn shape(endpoint: &Endpoint) -> impl FnOnce(OciDistributionError) -> RegistryErrorKind {
    let had_credentials = endpoint.has_credentials();
    move |err| RegistryErrorKind::from_client(err, had_credentials)
}

async fn upload(
    endpoint: &Endpoint,
    located: &oci_client::Reference,
    digest: &str,
    size: u64,
    source: BlobSource,
) -> Result<(), RegistryErrorKind> {
    endpoint.authorize(located, RegistryOperation::Push, None).await?;
    let file = crate::blocking(move || source())
        .await
        .map_err(RegistryErrorKind::Local)?;
    let (sender, receiver) = mpsc::channel(4);
    // Ends by itself: at the end of the file, or when the request drops the receiver.
    let reader = tokio::task::spawn_blocking(move || read_chunks(file, &sender));
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let chunk: Result<Bytes, OciDistributionError> = receiver.recv().await?;
        Some((chunk, receiver))
    });
    let sent = endpoint
        .client
        .push_blob_stream(located, stream, digest, Some(size))
        .await
        .map_err(shape(endpoint));
    match (sent, reader.await) {
        (Ok(_), _) => Ok(()),
        // The request failed because its body did.
        (Err(_), Ok(Err(err))) => Err(RegistryErrorKind::Local(err)),
        (Err(err), _) => Err(err),
    }
}

fn read_chunks(
    mut file: Box<dyn Read + Send>,
    sender: &mpsc::Sender<Result<Bytes, OciDistributionError>>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                chunk.truncate(count);
                if sender.blocking_send(Ok(chunk.into())).is_err() {
                    return Ok(());
                }
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => {
                let told = io::Error::new(err.kind(), err.to_string());
                // Without a receiver nobody needs to be told.
                drop(sender.blocking_send(Err(OciDistributionError::IoError(told))));
                return Err(err);
            }
        }
    }
}

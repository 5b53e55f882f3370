//! `http://` and `https://` sources: one file, revalidated when it was seen before.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use cbs_image::source::Network;
use cbs_store::{
    BlobDigest, BlobStore, Directory, DirectoryStore, Entry, KeyHasher, Layer, Metadata, Node, Sha256Digest, Snapshot,
    Store, StoreError, Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::SourceError;
use super::bridge::{chunk_channel, pump};
use super::checksum::Checksum;
use super::http_headers::{parse_http_date, suggested_name};
use crate::blocking;

/// Where the store keeps what is known about an address.
const FACTS: &str = "http.v1";
/// Where the store keeps which blob has a checksum: hexadecimal digits for sha256, else with the algorithm.
const SUM_FACTS: &str = "http.sum.v1";
/// How long a server may take to answer the telephone.
const CONNECTING: Duration = Duration::from_secs(30);
/// How long it may say nothing.
const SILENCE: Duration = Duration::from_secs(300);

/// What an `http` source op asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpRequest {
    /// The address.
    pub(crate) url: String,
    /// What its bytes must hash to.
    pub(crate) checksum: Option<Checksum>,
    /// The name of the file; when absent the server's, else derived from the address.
    pub(crate) filename: Option<String>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Extra request headers (`http.header.*`).
    pub(crate) headers: Vec<(String, String)>,
}

/// A file that was downloaded, now or before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Download {
    blob: String,
    size: u64,
    sha256: String,
    etag: Option<String>,
    last_modified: Option<String>,
    /// The name that the server gives it.
    #[serde(default)]
    name: Option<String>,
}

/// A client that does not wait for ever, neither for a connection nor for the next bytes.
pub(crate) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("cbs/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECTING)
        .read_timeout(SILENCE);
    // Only a broken machine has no client; the first request says what is wrong with it.
    builder.build().unwrap_or_default()
}

impl Download {
    /// What it is, for people.
    pub(crate) fn text(&self) -> String {
        format!("sha256:{}", self.sha256)
    }
}

impl HttpRequest {
    /// The name of the file in the snapshot: as asked, else the one `given` by the server, else the address's last
    /// element, else `download`.
    pub(crate) fn file_name(&self, given: Option<&str>) -> String {
        if let Some(name) = self.filename.as_deref().filter(|name| !name.is_empty()).or(given) {
            return name.to_owned();
        }
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let after_host = path.split_once("://").map_or(path, |(_, rest)| rest);
        match after_host.split_once('/').and_then(|(_, path)| path.rsplit('/').next()) {
            Some(name) if !name.is_empty() && name != "." && name != ".." => name.to_owned(),
            _ => "download".to_owned(),
        }
    }

    /// What is known of the address is kept under this: other headers may mean another answer.
    fn fact(&self) -> String {
        if self.headers.is_empty() {
            return self.url.clone();
        }
        let mut hasher = KeyHasher::new("cbs.source.http.headers.v1");
        for (name, value) in &self.headers {
            hasher.field(name.as_bytes()).field(value.as_bytes());
        }
        let hex: String = hasher.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {hex}", self.url)
    }

    /// The key of what was downloaded: content, name, mode and owner, as BuildKit's http source.
    pub(crate) fn key(&self, download: &Download) -> [u8; 32] {
        let mut hasher = KeyHasher::new("cbs.source.http.v1");
        hasher
            .field(download.sha256.as_bytes())
            .field(self.file_name(download.name.as_deref()).as_bytes());
        hasher
            .number(self.mode.into())
            .number(self.uid.into())
            .number(self.gid.into());
        hasher.field(download.last_modified.as_deref().unwrap_or_default().as_bytes());
        hasher.finish()
    }

    /// The snapshot: one file in an empty root.
    pub(crate) fn snapshot(&self, store: &Store, download: &Download) -> Result<Snapshot, SourceError> {
        let blob: BlobDigest = download
            .blob
            .parse()
            .map_err(|_| SourceError::Facts { what: self.url.clone() })?;
        let seconds = download.last_modified.as_deref().and_then(parse_http_date).unwrap_or(0);
        let mtime = Timestamp { seconds, nanos: 0 };
        let meta = Metadata {
            uid: self.uid,
            gid: self.gid,
            mtime,
            ..Metadata::new(self.mode & 0o7777)
        };
        let name = self.file_name(download.name.as_deref()).into_bytes();
        cbs_store::check_name(&name).map_err(StoreError::from)?;
        let node = Node::File {
            blob,
            size: download.size,
            link: None,
        };
        let entry = Entry { name, meta, node };
        let layer = store.put_directory(Directory {
            entries: vec![entry.clone()],
            ..Directory::default()
        })?;
        let mut root = Directory::empty_root();
        root.set(entry);
        let tree = store.put_directory(root)?;
        Ok(Snapshot {
            tree: tree.digest,
            layers: vec![Layer {
                diff: layer.digest,
                diff_id: None,
            }],
        })
    }
}

/// Downloads, or finds that what is here is still what the server has.
///
/// # Errors
/// [`SourceError`] naming the address: refused, not found, other bytes than the checksum says.
pub(crate) async fn fetch(
    client: &reqwest::Client,
    store: &Store,
    request: &HttpRequest,
    network: Network,
    progress: impl Fn(u64, Option<u64>) + Send + Sync + 'static,
) -> Result<Download, SourceError> {
    if let Some(sum) = &request.checksum
        && let Some(known) = known(store, SUM_FACTS, &sum_fact(sum)).await?
    {
        return Ok(known);
    }
    let before = known(store, FACTS, &request.fact()).await?;
    if network == Network::Offline {
        let before = before.ok_or_else(|| SourceError::Offline(request.url.clone()))?;
        return check(store, request, before).await;
    }
    let mut attempt = 0;
    let response = loop {
        attempt += 1;
        match send(client, request, before.as_ref()).await {
            Ok(response) if response.status().is_server_error() && attempt < 4 => {}
            Ok(response) => break response,
            Err(err) if attempt < 4 && (err.is_timeout() || err.is_connect()) && !is_refused(&err) => {}
            Err(source) => {
                return Err(SourceError::Http {
                    url: request.url.clone(),
                    source,
                });
            }
        }
        tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
    };
    if response.status() == reqwest::StatusCode::NOT_MODIFIED
        && let Some(before) = before
    {
        return check(store, request, before).await;
    }
    if !response.status().is_success() {
        return Err(SourceError::HttpStatus {
            url: request.url.clone(),
            status: response.status().as_u16(),
        });
    }
    let header = |name: reqwest::header::HeaderName| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (etag, last_modified) = (header(reqwest::header::ETAG), header(reqwest::header::LAST_MODIFIED));
    let name = header(reqwest::header::CONTENT_DISPOSITION).and_then(|value| suggested_name(&value));
    let total = response.content_length();
    let (sender, reader) = chunk_channel();
    let pumping = pump(response.bytes_stream(), sender);
    let writing = {
        let store = store.clone();
        blocking(move || {
            let mut tee = Sha256Reader {
                inner: reader,
                hash: sha2::Sha256::new(),
                count: 0,
                total,
                progress,
            };
            let (blob, size) = store.put_reader(&mut tee)?;
            Ok::<_, StoreError>((blob, size, Sha256Digest::from_bytes(tee.hash.finalize().into())))
        })
    };
    let (received, written) = tokio::join!(pumping, writing);
    // The store only knows that there was no more to read.
    received.map_err(|source| SourceError::Http {
        url: request.url.clone(),
        source,
    })?;
    let (blob, size, sha256) = written?;
    let download = Download {
        blob: blob.to_string(),
        size,
        sha256: sha256.to_string(),
        etag,
        last_modified,
        name,
    };
    let download = check(store, request, download).await?;
    let (store, fact, sum) = (store.clone(), request.fact(), request.checksum.as_ref().map(sum_fact));
    blocking(move || {
        let encoded = serde_json::to_vec(&download).expect("strings and numbers encode");
        store.put_fact(FACTS, &fact, &encoded)?;
        store.put_fact(SUM_FACTS, &download.sha256, &encoded)?;
        if let Some(sum) = sum.filter(|sum| *sum != download.sha256) {
            store.put_fact(SUM_FACTS, &sum, &encoded)?;
        }
        Ok(download)
    })
    .await
}

async fn send(
    client: &reqwest::Client,
    request: &HttpRequest,
    before: Option<&Download>,
) -> Result<reqwest::Response, reqwest::Error> {
    let mut builder = client.get(&request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    if let Some(before) = before {
        if let Some(etag) = &before.etag {
            builder = builder.header(reqwest::header::IF_NONE_MATCH, etag);
        } else if let Some(time) = &before.last_modified {
            builder = builder.header(reqwest::header::IF_MODIFIED_SINCE, time);
        }
    }
    builder.send().await
}

fn is_refused(err: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(err);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = current.source();
    }
    false
}

fn sum_fact(sum: &Checksum) -> String {
    match sum {
        Checksum::Sha256(digest) => digest.to_string(),
        other => other.to_string(),
    }
}

/// Whether it is what was asked for.
async fn check(store: &Store, request: &HttpRequest, download: Download) -> Result<Download, SourceError> {
    let Some(expected) = request.checksum.clone() else {
        return Ok(download);
    };
    let (store, url) = (store.clone(), request.url.clone());
    blocking(move || {
        let damaged = || SourceError::Facts { what: url.clone() };
        let digest: BlobDigest = download.blob.parse().map_err(|_| damaged())?;
        let blob = store.blob(&digest)?.ok_or_else(damaged)?;
        let actual = expected
            .of(&download.sha256, &blob)
            .map_err(SourceError::io("read the download", Path::new(&download.blob)))?;
        match actual == expected.to_string() {
            true => Ok(download),
            false => Err(SourceError::Checksum {
                what: url,
                expected: expected.to_string(),
                actual,
            }),
        }
    })
    .await
}

/// What a fact says, when the blob it speaks of is still here.
async fn known(store: &Store, namespace: &'static str, key: &str) -> Result<Option<Download>, SourceError> {
    let (store, key) = (store.clone(), key.to_owned());
    blocking(move || {
        let Some((bytes, _)) = store.fact(namespace, &key)? else {
            return Ok(None);
        };
        // A fact of another version, or damaged, is only a lost saving.
        let Ok(download) = serde_json::from_slice::<Download>(&bytes) else {
            return Ok(None);
        };
        let Ok(blob) = download.blob.parse() else {
            return Ok(None);
        };
        Ok(store.missing_blobs(&[blob])?.is_empty().then_some(download))
    })
    .await
}

struct Sha256Reader<R, P> {
    inner: R,
    hash: sha2::Sha256,
    count: u64,
    total: Option<u64>,
    progress: P,
}

impl<R: Read, P: Fn(u64, Option<u64>)> Read for Sha256Reader<R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        (self.progress)(self.count, self.total);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_address() {
        let name = |url: &str| {
            let request = HttpRequest {
                url: url.to_owned(),
                checksum: None,
                filename: None,
                mode: 0o600,
                uid: 0,
                gid: 0,
                headers: Vec::new(),
            };
            request.file_name(None)
        };
        assert_eq!(name("http://example.com/a/b.tar?x=/c"), "b.tar");
        assert_eq!(name("http://example.com/"), "download");
        assert_eq!(name("http://example.com"), "download");
        assert_eq!(name("http://example.com/a/.."), "download");
    }
}

//! Sources: what comes from outside. Each is first *pinned* (what does it denote now?), and its bytes are fetched only
//! when a step needs them.

pub(crate) mod bridge;
mod checksum;
pub(crate) mod git;
mod git_files;
mod git_source;
pub(crate) mod http;
mod http_headers;
mod local;
mod pins;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_image::source::{Freshness, ResolvedImage};
use cbs_solver::{Progress, SourcePin, Step, StepError, pb};
use cbs_store::edit::EditError;
use cbs_store::ingest::IngestError;
use cbs_store::{KeyHasher, Sha256Digest, Snapshot, StoreError};

use crate::blocking;
use crate::error::source_error;
use crate::executor::Shared;
use http::HttpRequest;
pub use pins::Pins;

/// A source that cannot be had; the message names it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry or layout failed.
    #[error(transparent)]
    Image(#[from] cbs_image::ImageError),
    /// The server cannot be reached or broke off.
    #[error("cannot fetch {url}")]
    Http {
        /// The address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server answered with an error.
    #[error("cannot fetch {url}: the server answered {status}")]
    HttpStatus {
        /// The address.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// The bytes or commit are not the ones asked for.
    #[error("{what}: checksum mismatch: expected {expected}, got {actual}")]
    Checksum {
        /// The source.
        what: String,
        /// As asked.
        expected: String,
        /// As found.
        actual: String,
    },
    /// Files cannot be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A folder asked for is not in the source.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// What the store remembers of a source cannot be read.
    #[error("what the store remembers of {what} is damaged")]
    Facts {
        /// The source.
        what: String,
    },
    /// `git` is not installed.
    #[error("git sources need the `git` program")]
    NoGit {
        /// Why it did not start.
        source: io::Error,
    },
    /// `git` failed.
    #[error("git {command} of {remote} failed: {output}")]
    Git {
        /// The remote, without secrets.
        remote: String,
        /// Which git command.
        command: String,
        /// What it said.
        output: String,
    },
    /// The remote has no such branch, tag or commit.
    #[error("{remote} has no branch, tag or commit `{reference}`")]
    GitReference {
        /// The remote, without secrets.
        remote: String,
        /// What was asked for.
        reference: String,
    },
    /// Every source is held to a pin, and this one has none.
    #[error("`{0}` is not locked")]
    NotLocked(String),
    /// Only the network has it, and the network must not be used.
    #[error("`{0}` is not in the store, and the network may not be used")]
    Offline(String),
    /// A local context the caller did not give.
    #[error("local context `{0}` is not known")]
    UnknownLocal(String),
    /// The identifier has a scheme nobody serves.
    #[error("source `{0}` is of no known kind")]
    UnknownScheme(String),
    /// An attribute of a source op cannot be read.
    #[error("source attribute {name}=`{value}` is malformed")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The disk said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb phrase.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SourceError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// What a source denotes now.
pub(crate) async fn pin(shared: &Arc<Shared>, step: &Step) -> Result<SourcePin, StepError> {
    let op = source_op(step)?;
    let (scheme, rest) = split(op)?;
    match scheme {
        "docker-image" | "oci-layout" => pin_image(shared, step, op, scheme, rest).await,
        "local" => pin_local(shared, step, rest).await,
        "http" | "https" => pin_http(shared, step, op).await,
        "git" => git_source::pin(shared, op).await,
        _ => Err(source_error(SourceError::UnknownScheme(op.identifier.clone()))),
    }
}

/// Brings the bytes of a pinned source into the store.
pub(crate) async fn fetch(shared: &Arc<Shared>, step: &Step) -> Result<Option<Snapshot>, StepError> {
    let op = source_op(step)?;
    match split(op)?.0 {
        "docker-image" | "oci-layout" => {
            let known = shared
                .images
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&step.vertex.digest)
                .cloned();
            let image = match known {
                Some(image) => image,
                None => resolve_image(shared, step, op).await?,
            };
            if image.layers.is_empty() {
                return Ok(None);
            }
            let lease = step.lease.clone().unwrap_or_else(|| Arc::clone(&shared.config.lease));
            let progress: Arc<dyn cbs_image::progress::Progress> = Arc::new(Transfers(step.progress.clone()));
            let pulled = shared.config.images.pull(&image, &lease, &progress).await;
            Ok(Some(pulled.map_err(|err| source_error(err.into()))?))
        }
        "local" => {
            let scan = shared
                .scans
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&step.vertex.digest)
                .cloned();
            let scan = scan.ok_or_else(|| crate::error::invalid("a local source was never looked at"))?;
            let shared = Arc::clone(shared);
            blocking(move || local::store_bytes(&shared, &scan)).await.map(Some)
        }
        "git" => git_source::fetch(shared, step, op).await.map(Some),
        // An http source is whole once it is pinned.
        _ => match step.pin.as_ref().and_then(|pin| pin.snapshot.clone()) {
            Some(snapshot) => Ok(Some(snapshot)),
            None => Ok(pin(shared, step).await?.snapshot),
        },
    }
}

/// What pins call a source; `None` for one that is what it is: a folder of this machine, or what names its content.
pub fn pin_name(op: &pb::SourceOp) -> Option<String> {
    let (scheme, rest) = op.identifier.split_once("://")?;
    match scheme {
        "docker-image" => {
            let reference: Reference = rest.parse().ok()?;
            let is_mutable = reference.digest().is_none();
            is_mutable.then(|| image_name(reference))
        }
        "http" | "https" => (!op.attrs.contains_key("http.checksum")).then(|| op.identifier.clone()),
        "git" => Some(git_source::pin_name(op)),
        _ => None,
    }
}

fn image_name(reference: Reference) -> String {
    format!("docker-image://{}", reference.with_default_tag())
}

fn source_op(step: &Step) -> Result<&pb::SourceOp, StepError> {
    match &step.vertex.op {
        pb::op::Op::Source(op) => Ok(op),
        _ => Err(crate::error::invalid("not a source op")),
    }
}

fn split(op: &pb::SourceOp) -> Result<(&str, &str), StepError> {
    let parts = op.identifier.split_once("://");
    parts.ok_or_else(|| source_error(SourceError::UnknownScheme(op.identifier.clone())))
}

async fn pin_image(
    shared: &Arc<Shared>,
    step: &Step,
    op: &pb::SourceOp,
    scheme: &str,
    rest: &str,
) -> Result<SourcePin, StepError> {
    let image = resolve_image(shared, step, op).await?;
    let mut key = KeyHasher::new("cbs.source.image.v1");
    key.field(image.manifest.as_bytes());
    let text = image.manifest.oci();
    step.progress.done(&format!("resolve {scheme}://{rest} {text}"));
    shared
        .images
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(step.vertex.digest, image);
    Ok(SourcePin {
        key: key.finish().to_vec(),
        text,
        snapshot: None,
    })
}

async fn resolve_image(shared: &Arc<Shared>, step: &Step, op: &pb::SourceOp) -> Result<ResolvedImage, StepError> {
    let platform = match &step.vertex.platform {
        Some(platform) => Platform::new(&platform.os, &platform.architecture, &platform.variant),
        None => Platform::host(),
    };
    let (scheme, rest) = split(op)?;
    let images = &shared.config.images;
    let resolved = if scheme == "docker-image" {
        let reference: Reference = rest.parse().map_err(|err| {
            StepError::caused(
                cbs_solver::FailureKind::Invalid,
                format!("`{rest}` is no image reference"),
                err,
            )
        })?;
        return resolve_reference(shared, reference, &platform, op).await;
    } else {
        let (name, digest) = rest.split_once('@').unwrap_or((rest, ""));
        let digest = if digest.is_empty() {
            None
        } else {
            Sha256Digest::parse_oci(digest).ok()
        };
        let key = op.attrs.get("oci.store").map_or(name, String::as_str);
        let path = shared
            .config
            .layouts
            .get(key)
            .cloned()
            .unwrap_or_else(|| PathBuf::from(key));
        let tag = digest
            .is_none()
            .then(|| name.rsplit_once(':').map(|(_, tag)| tag.to_owned()))
            .flatten();
        images.resolve_layout(path, tag, digest, &platform).await
    };
    resolved.map_err(|err| source_error(err.into()))
}

/// An image of a registry; one without a digest is mutable.
async fn resolve_reference(
    shared: &Shared,
    reference: Reference,
    platform: &Platform,
    op: &pb::SourceOp,
) -> Result<ResolvedImage, StepError> {
    let freshness = match op.attrs.get("image.resolvemode").map(String::as_str) {
        Some("pull") => Freshness::Current,
        _ => Freshness::Known,
    };
    let (images, pins) = (&shared.config.images, &shared.config.pins);
    if reference.digest().is_some() {
        let found = images.resolve(&reference, platform, freshness).await;
        return found.map_err(|err| source_error(err.into()));
    }
    let name = image_name(reference.clone());
    let reference = match pins.held(&name).map_err(source_error)? {
        Some(pin) => {
            let digest =
                Sha256Digest::parse_oci(&pin).map_err(|_| source_error(SourceError::NotLocked(name.clone())))?;
            reference.with_digest(digest)
        }
        None => reference,
    };
    let found = images.resolve(&reference, platform, freshness).await;
    let found = found.map_err(|err| source_error(err.into()))?;
    pins.note(&name, found.digest.oci());
    Ok(found)
}

async fn pin_local(shared: &Arc<Shared>, step: &Step, name: &str) -> Result<SourcePin, StepError> {
    let (shared, step, name) = (Arc::clone(shared), step.clone(), name.to_owned());
    blocking(move || {
        let op = source_op(&step)?;
        let (scan, snapshot) = local::scan_selected(&shared, &step, &name, &op.attrs)?;
        let content = local::content_of(&shared.config.store, &scan.tree)?;
        let mut key = KeyHasher::new("cbs.source.local.v1");
        key.field(&content);
        let text = scan.tree.to_string();
        shared
            .scans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(step.vertex.digest, Arc::new(scan));
        Ok(SourcePin {
            key: key.finish().to_vec(),
            text,
            snapshot: Some(snapshot),
        })
    })
    .await
}

async fn pin_http(shared: &Arc<Shared>, step: &Step, op: &pb::SourceOp) -> Result<SourcePin, StepError> {
    let mut request = http_request(shared, op)?;
    let is_mutable = request.checksum.is_none();
    if is_mutable && let Some(pin) = shared.config.pins.held(&request.url).map_err(source_error)? {
        let malformed = |_| source_error(SourceError::NotLocked(request.url.clone()));
        request.checksum = Some(pin.parse().map_err(malformed)?);
    }
    let (progress, id) = (
        step.progress.clone(),
        format!("downloading {}", request.file_name(None)),
    );
    let report = {
        let (progress, id) = (progress.clone(), id.clone());
        move |current, total: Option<u64>| progress.update(&id, current, total.unwrap_or(0))
    };
    let store = &shared.config.store;
    let download = http::fetch(shared.http(), store, &request, shared.config.network, report)
        .await
        .map_err(source_error)?;
    progress.done(&id);
    if is_mutable {
        shared.config.pins.note(&request.url, download.text());
    }
    let (store, text) = (store.clone(), download.text());
    blocking(move || {
        let snapshot = request.snapshot(&store, &download).map_err(source_error)?;
        Ok(SourcePin {
            key: request.key(&download).to_vec(),
            text,
            snapshot: Some(snapshot),
        })
    })
    .await
}

fn http_request(shared: &Shared, op: &pb::SourceOp) -> Result<HttpRequest, StepError> {
    let attrs = &op.attrs;
    let number = |name: &str, radix: u32| -> Result<Option<u32>, SourceError> {
        let Some(text) = attrs.get(name) else { return Ok(None) };
        let value = u32::from_str_radix(text.trim_start_matches("0o"), radix);
        value.map(Some).map_err(|_| SourceError::Attribute {
            name: name.to_owned(),
            value: text.clone(),
        })
    };
    let number = |name: &str, radix| number(name, radix).map_err(source_error);
    let checksum = attrs.get("http.checksum").map(|text| {
        text.parse().map_err(|_| {
            source_error(SourceError::Attribute {
                name: "http.checksum".to_owned(),
                value: text.clone(),
            })
        })
    });
    let checksum = checksum.transpose()?;
    let mut headers: Vec<(String, String)> = attrs
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("http.header.")?.to_owned(), value.clone())))
        .collect();
    if let Some(id) = attrs.get("http.authheadersecret")
        && let Some(value) = shared.secret(id, false)?
    {
        headers.push((
            "authorization".to_owned(),
            String::from_utf8_lossy(&value).trim().to_owned(),
        ));
    }
    Ok(HttpRequest {
        url: op.identifier.clone(),
        checksum,
        filename: attrs.get("http.filename").cloned(),
        mode: number("http.perm", 8)?.unwrap_or(0o600),
        uid: number("http.uid", 10)?.unwrap_or(0),
        gid: number("http.gid", 10)?.unwrap_or(0),
        headers,
    })
}

/// A JSON list in an attribute; empty when the attribute is absent.
fn attribute_list(attrs: &BTreeMap<String, String>, name: &str) -> Result<Vec<String>, SourceError> {
    let Some(text) = attrs.get(name) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(text).map_err(|_| SourceError::Attribute {
        name: name.to_owned(),
        value: text.clone(),
    })
}

/// Shows transfers of images as statuses of their step.
struct Transfers(Progress);

impl cbs_image::progress::Progress for Transfers {
    fn status(&self, status: cbs_image::progress::Status<'_>) {
        if status.is_done {
            self.0.done(status.id);
        } else {
            self.0.update(status.id, status.current, status.total);
        }
    }
}

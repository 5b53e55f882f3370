//! `git://` source ops: from attributes to a commit, and from a commit to a snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cbs_image::source::Network;
use cbs_solver::{SourcePin, Step, StepError, pb};
use cbs_store::edit::subtree;
use cbs_store::ingest::{Eagerness, Owners, ScanOptions, scan};
use cbs_store::patterns::PathFilter;
use cbs_store::{KeyHasher, Metadata, Sharing, Snapshot, Timestamp};

use super::git::{self, AuthScope, Authorization, GitRequest};
use super::git_files::set_times;
use super::{SourceError, local};
use crate::blocking;
use crate::error::source_error;
use crate::executor::Shared;

/// Where the store keeps which commit a reference was last seen at.
const GIT_FACTS: &str = "git.v1";

fn git_request(shared: &Shared, op: &pb::SourceOp) -> Result<GitRequest, StepError> {
    let attrs = &op.attrs;
    let flag = |name: &str| attrs.get(name).is_some_and(|value| value == "true");
    let text = |name: &str| attrs.get(name).cloned().filter(|value| !value.is_empty());
    let mut request = GitRequest::parse(&op.identifier, attrs.get("git.fullurl").map(String::as_str));
    request.network = shared.config.network;
    request.keep_git_dir = flag("git.keepgitdir");
    request.skip_submodules = flag("git.skipsubmodules");
    request.checksum = text("git.checksum");
    request.by_commit = flag("git.fetchbycommit");
    if let Some(hosts) = text("git.knownsshhosts") {
        request.known_hosts = Some(known_hosts_file(shared, &hosts).map_err(source_error)?);
    }
    if let Some(id) = attrs.get("git.mountsshsock") {
        request.ssh_socket = crate::run::ssh_socket(shared, id)?;
    }
    request.auth = authorization(shared, attrs, request.host())?;
    Ok(request)
}

/// The secret that opens a remote. As with BuildKit, those for its host (`GIT_AUTH_TOKEN.example.com`) come first, and
/// headers before tokens.
fn authorization(
    shared: &Shared,
    attrs: &BTreeMap<String, String>,
    host: &str,
) -> Result<Option<Authorization>, StepError> {
    for scope in [AuthScope::Host, AuthScope::Repository] {
        for attr in ["git.authheadersecret", "git.authtokensecret"] {
            let Some(id) = attrs.get(attr) else { continue };
            let id = match scope {
                AuthScope::Host => format!("{id}.{host}"),
                AuthScope::Repository => id.clone(),
            };
            let Some(value) = shared.secret(&id, true)? else {
                continue;
            };
            let value = String::from_utf8_lossy(&value);
            let header = match attr {
                "git.authheadersecret" => value.trim().to_owned(),
                _ => {
                    let pair = format!("x-access-token:{}", value.trim());
                    format!("basic {}", git::base64(pair.as_bytes()))
                }
            };
            return Ok(Some(Authorization { header, scope }));
        }
    }
    Ok(None)
}

/// The hosts in a file that lives as long as the build.
fn known_hosts_file(shared: &Shared, hosts: &str) -> Result<PathBuf, SourceError> {
    let file = shared.config.lease.new_dir("known-hosts")?.join("known_hosts");
    std::fs::write(&file, hosts).map_err(SourceError::io("write", &file))?;
    Ok(file)
}

/// How pins call a git source: without the folder that is taken from it.
pub(super) fn pin_name(op: &pb::SourceOp) -> String {
    match op.identifier.split_once('#') {
        Some((remote, fragment)) => {
            let reference = fragment.split(':').next().unwrap_or_default();
            if reference.is_empty() {
                remote.to_owned()
            } else {
                format!("{remote}#{reference}")
            }
        }
        None => op.identifier.clone(),
    }
}

/// What a git source denotes now.
pub(super) async fn pin(shared: &Arc<Shared>, op: &pb::SourceOp) -> Result<SourcePin, StepError> {
    let (request, name) = (git_request(shared, op)?, pin_name(op));
    let shared = Arc::clone(shared);
    blocking(move || {
        let id = commit_of(&shared, &request, &name).map_err(source_error)?;
        let mut key = KeyHasher::new("cbs.source.git.v1");
        key.field(id.as_bytes()).field(request.subdir.as_bytes());
        key.number(u64::from(request.keep_git_dir))
            .number(u64::from(request.skip_submodules));
        if request.keep_git_dir {
            // What is kept knows the name it was fetched by.
            key.field(request.reference.as_bytes());
        }
        Ok(SourcePin {
            key: key.finish().to_vec(),
            text: id,
            snapshot: None,
        })
    })
    .await
}

/// The commit that a request means: the one it is held to, the one the remote names, or offline the one last seen.
fn commit_of(shared: &Shared, request: &GitRequest, name: &str) -> Result<String, SourceError> {
    let config = &shared.config;
    if let Some(id) = request.own_commit()? {
        return Ok(id);
    }
    let id = match (config.pins.held(name)?, config.network) {
        (Some(id), _) => request.check(id)?,
        (None, Network::Online) => {
            let id = request.resolve()?;
            config.store.put_fact(GIT_FACTS, name, id.as_bytes())?;
            id
        }
        (None, Network::Offline) => {
            let known = config.store.fact(GIT_FACTS, name)?;
            let known = known.and_then(|(value, _)| String::from_utf8(value).ok());
            request.check(known.ok_or_else(|| SourceError::Offline(name.to_owned()))?)?
        }
    };
    config.pins.note(name, id.clone());
    Ok(id)
}

/// Brings the pinned commit into the store.
pub(super) async fn fetch(shared: &Arc<Shared>, step: &Step, op: &pb::SourceOp) -> Result<Snapshot, StepError> {
    let (request, name) = (git_request(shared, op)?, pin_name(op));
    let (shared, cancel) = (Arc::clone(shared), step.cancel.clone());
    let pinned = step.pin.as_ref().map(|pin| pin.text.clone());
    blocking(move || {
        let commit = match pinned {
            // A branch may have moved since it was pinned; the pinned commit is what was promised.
            Some(id) => id,
            None => commit_of(&shared, &request, &name).map_err(source_error)?,
        };
        let config = &shared.config;
        let mirror = config
            .store
            .cache_mount(&format!("git {}", request.remote), Sharing::Locked, &|| {
                cancel.is_cancelled()
            })?
            .ok_or_else(StepError::cancelled)?;
        let target = config.lease.new_dir("git")?;
        let result = read_checkout(&shared, &request, &commit, &mirror.path, &target);
        config.lease.discard(target);
        let mut mirror = mirror;
        mirror.seeded()?;
        let tree = result.map_err(source_error)?;
        local::as_snapshot(&config.store, tree)
    })
    .await
}

/// Checks a commit out and takes its files in; their times become the commit's, so that a commit is always one tree.
fn read_checkout(
    shared: &Shared,
    request: &GitRequest,
    commit: &str,
    mirror: &Path,
    target: &Path,
) -> Result<cbs_store::TreeDigest, SourceError> {
    let time = request.checkout(commit, mirror, target)?;
    set_times(target, time)?;
    let store = &shared.config.store;
    let options = ScanOptions {
        filter: &PathFilter::default(),
        owners: Owners::Root,
        root: &Metadata::new(0o755),
        cache: None,
        eagerness: Eagerness::SmallFiles,
        now: Timestamp::default(),
        threads: shared.threads,
    };
    let scanned = scan(store, target, &options)?;
    scanned.store(store)?;
    if request.subdir.is_empty() {
        return Ok(scanned.tree);
    }
    Ok(subtree(store, &scanned.tree, &request.subdir)?)
}

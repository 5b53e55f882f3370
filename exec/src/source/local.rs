//! `local://` sources: a user's directory, scanned for its digest at once and read for its bytes when a step needs them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use cbs_solver::{Step, StepError};
use cbs_store::edit::embedded;
use cbs_store::ingest::{Eagerness, Owners, Scan, ScanOptions, follow_links, scan};
use cbs_store::patterns::PathFilter;
use cbs_store::{DirectoryStore, Layer, Metadata, Snapshot, Store, Timestamp, TreeDigest};

use super::{SourceError, attribute_list};
use crate::error::{ingest_error, source_error};
use crate::executor::Shared;

/// Scans what the op selects of its directory. Blocking.
pub(super) fn scan_selected(
    shared: &Shared,
    step: &Step,
    name: &str,
    attrs: &BTreeMap<String, String>,
) -> Result<(Scan, Snapshot), StepError> {
    let sessioned = attrs.get("local.session").map(|session| format!("{session}/{name}"));
    let locals = &shared.config.locals;
    let dir = sessioned
        .and_then(|key| locals.get(&key))
        .or_else(|| locals.get(name))
        .ok_or_else(|| source_error(SourceError::UnknownLocal(name.to_owned())))?;
    let list = |key| attribute_list(attrs, key).map_err(source_error);
    let mut include = list("local.includepattern")?;
    let follow = list("local.followpaths")?;
    if !follow.is_empty() {
        // Nothing to follow means that everything is wanted.
        match follow_links(dir, &follow).map_err(ingest_error)? {
            Some(paths) => include.extend(paths),
            None => include.clear(),
        }
    }
    let exclude = list("local.excludepatterns")?;
    let filter = PathFilter::new(&include, &exclude)
        .map_err(|err| StepError::caused(cbs_solver::FailureKind::Invalid, err.to_string(), err))?;
    let store = &shared.config.store;
    let status = format!("transferring {name}");
    step.progress.update(&status, 0, 0);
    let options = ScanOptions {
        filter: &filter,
        owners: Owners::Root,
        root: &Metadata::new(0o755),
        cache: Some(store),
        eagerness: Eagerness::SmallFiles,
        now: now(),
        threads: shared.threads,
    };
    let scan = scan(store, dir, &options).map_err(ingest_error)?;
    step.progress.done(&status);
    let snapshot = as_snapshot(store, scan.tree)?;
    Ok((scan, snapshot))
}

/// A tree as a snapshot of one layer.
pub(super) fn as_snapshot(store: &Store, tree: TreeDigest) -> Result<Snapshot, StepError> {
    let (_, below) = embedded(store, &tree).map_err(crate::error::edit_error)?;
    Ok(Snapshot {
        tree,
        layers: vec![Layer {
            diff: below.digest,
            diff_id: None,
        }],
    })
}

/// What names a tree's content for a pin: all but times, as BuildKit's content checksum.
pub(super) fn content_of(store: &Store, tree: &TreeDigest) -> Result<[u8; 32], StepError> {
    let directory = store.need_directory(tree)?;
    Ok(*directory.content_digest().as_bytes())
}

/// Brings the bytes of a scanned directory into the store. Blocking.
pub(super) fn store_bytes(shared: &Shared, scan: &Arc<Scan>) -> Result<Snapshot, StepError> {
    let store = &shared.config.store;
    scan.store(store).map_err(ingest_error)?;
    as_snapshot(store, scan.tree)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}

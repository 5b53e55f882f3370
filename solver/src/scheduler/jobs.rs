//! Blocking work against the index: look-ups, content keys, checks, and what is written after a run.

use std::io::Read;
use std::time::Duration;

use cbs_store::{BlobDigest, CacheKey, KeyHasher, Realisation, Snapshot, StoreError, hex};

use super::state::{KeyAnswer, Keyed, Lookup, RunAnswer};
use crate::config::Need;
use crate::graph::Vertex;
use crate::index::Index;
use crate::keys::{
    ContentInput, EARLIER_NOTE, KeyParts, Outputs, ViewError, Views, content_key, differences, note_outputs, op_key,
};
use crate::result::Reason;

/// Facts: op key → the last run of this op.
const OPS: &str = "solver.op";
/// Facts: name and platform → the last run of the step people call so.
const STEPS: &str = "solver.step";

/// Looks a definition key up and keeps what it finds.
pub(super) fn look(index: &dyn Index, key: &CacheKey) -> Result<Option<Realisation>, StoreError> {
    let found = index.realisation(key)?;
    if let Some(found) = &found {
        keep(index, &found.outputs)?;
    }
    Ok(found)
}

fn keep(index: &dyn Index, outputs: &[Option<Snapshot>]) -> Result<(), StoreError> {
    outputs.iter().flatten().try_for_each(|snapshot| index.keep(snapshot))
}

/// Makes a content key, looks it up if asked to, and otherwise finds out what changed since the last run.
pub(super) fn make_key(
    index: &dyn Index,
    views: &Views,
    vertex: &Vertex,
    inputs: &[ContentInput],
    lookup: Lookup,
    definition_key: &CacheKey,
) -> Result<KeyAnswer, ViewError> {
    let (key, mut parts) = content_key(index, views, vertex, inputs)?;
    if lookup == Lookup::Yes
        && let Some(found) = index
            .realisation(&key)?
            .filter(|found| found.outputs.len() == vertex.outputs)
    {
        keep(index, &found.outputs)?;
        index.alias(definition_key, &key)?;
        return Ok(KeyAnswer::Found(key, found));
    }
    let reason = match lookup {
        Lookup::Yes => why(index, vertex, &parts)?,
        Lookup::No => Reason::CacheRefused,
    };
    if let Reason::Changed { earlier, .. } = &reason {
        parts.note(EARLIER_NOTE, *earlier.as_bytes());
    }
    let inputs = inputs.iter().map(|input| input.outputs.snapshots.clone()).collect();
    let keyed = Keyed { key, parts, inputs };
    Ok(KeyAnswer::Missing { keyed, reason, lookup })
}

/// Compares with the last run of the same op, or else of a step with the same name.
fn why(index: &dyn Index, vertex: &Vertex, parts: &KeyParts) -> Result<Reason, StoreError> {
    for (namespace, key) in [(OPS, op_fact(vertex)), (STEPS, step_fact(vertex))] {
        let Some(last) = last_run(index, namespace, &key)? else {
            continue;
        };
        let Some(earlier) = index.realisation(&last.key)? else {
            continue;
        };
        // Parts of an older program's format explain nothing, which is no failure.
        if let Ok(earlier) = KeyParts::decode(&earlier.key_parts) {
            let found = differences(&earlier, parts);
            if !found.is_empty() {
                return Ok(Reason::Changed {
                    earlier: last.key,
                    differences: found,
                });
            }
        }
    }
    Ok(Reason::FirstTime)
}

/// The last run of something, as a fact holds it: version, cache key, milliseconds.
struct LastRun {
    key: CacheKey,
    duration: Duration,
}

const LAST_RUN_FORMAT: u8 = 1;

fn last_run(index: &dyn Index, namespace: &str, key: &str) -> Result<Option<LastRun>, StoreError> {
    let Some(bytes) = index.fact(namespace, key)? else {
        return Ok(None);
    };
    let Some((&[LAST_RUN_FORMAT], rest)) = bytes.split_first_chunk::<1>() else {
        return Ok(None);
    };
    let Some((key, millis)) = rest.split_first_chunk::<32>() else {
        return Ok(None);
    };
    let Ok(millis) = <[u8; 8]>::try_from(millis) else {
        return Ok(None);
    };
    Ok(Some(LastRun {
        key: CacheKey::from_bytes(*key),
        duration: Duration::from_millis(u64::from_le_bytes(millis)),
    }))
}

fn op_fact(vertex: &Vertex) -> String {
    hex(op_key(vertex).as_bytes())
}

fn step_fact(vertex: &Vertex) -> String {
    let mut hasher = KeyHasher::new("cbs.solver.step.v1");
    hasher
        .field(vertex.name.as_bytes())
        .field(vertex.platform_text().unwrap_or_default().as_bytes());
    hex(&hasher.finish())
}

/// How long a vertex took the last time; `None` when it never ran.
pub(super) fn estimate(index: &dyn Index, vertex: &Vertex) -> Result<Option<Duration>, StoreError> {
    let last = match last_run(index, OPS, &op_fact(vertex))? {
        // A step whose command was edited takes about as long as it did.
        None => last_run(index, STEPS, &step_fact(vertex))?,
        last => last,
    };
    Ok(last.map(|last| last.duration))
}

/// Whether this much of the snapshots is here.
pub(super) fn is_here(index: &dyn Index, snapshots: &[Option<Snapshot>], need: Need) -> Result<bool, StoreError> {
    for snapshot in snapshots.iter().flatten() {
        if need >= Need::Tree && !index.is_complete(&snapshot.tree)? {
            return Ok(false);
        }
        if need >= Need::Layers {
            for layer in &snapshot.layers {
                if !index.is_complete(&layer.diff)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// What a finished run leaves in the index.
pub(super) struct Finished<'a> {
    pub(super) vertex: &'a Vertex,
    pub(super) outputs: Vec<Option<Snapshot>>,
    pub(super) key: CacheKey,
    pub(super) definition_key: CacheKey,
    pub(super) parts: KeyParts,
    pub(super) duration: Duration,
    pub(super) peak_memory: u64,
    pub(super) log: Option<Box<dyn Read + Send>>,
    /// Seconds since 1970.
    pub(super) created: i64,
}

/// Remembers a run.
pub(super) fn record(index: &dyn Index, views: &Views, finished: Finished<'_>) -> Result<RunAnswer, StoreError> {
    let Finished {
        vertex,
        outputs,
        mut parts,
        ..
    } = finished;
    keep(index, &outputs)?;
    let log: Option<BlobDigest> = match finished.log {
        Some(mut log) => Some(index.put_reader(&mut log)?.0),
        None => None,
    };
    note_outputs(index, views, &mut parts, &outputs)?;
    let realisation = Realisation {
        outputs,
        name: vertex.name.clone(),
        duration: finished.duration,
        peak_memory: finished.peak_memory,
        log,
        key_parts: parts.encode(),
        created: finished.created,
    };
    index.put_realisation(&finished.key, &realisation)?;
    if finished.definition_key != finished.key {
        index.alias(&finished.definition_key, &finished.key)?;
    }
    let mut last = vec![LAST_RUN_FORMAT];
    last.extend_from_slice(finished.key.as_bytes());
    let millis = u64::try_from(finished.duration.as_millis()).unwrap_or(u64::MAX);
    last.extend_from_slice(&millis.to_le_bytes());
    index.put_fact(OPS, &op_fact(vertex), &last)?;
    index.put_fact(STEPS, &step_fact(vertex), &last)?;
    Ok(RunAnswer {
        outputs: Outputs::new(realisation.outputs, realisation.key_parts),
        duration: finished.duration,
    })
}

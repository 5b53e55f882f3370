//! What a solve would do, without doing it: sources are pinned, keys are looked up, nothing runs.
//!
//! ```text
//! users before inputs: wanted and not known by definition? ──► its inputs are wanted
//! inputs before users: wanted, all inputs known ──► known by content, or runs
//! ```

use std::sync::Arc;

use cbs_store::{CacheKey, StoreError};
use tokio::task::JoinSet;

use crate::blocking::blocking;
use crate::config::{CacheUse, Ctx, SolveConfig};
use crate::events::EventSender;
use crate::executor::{FailureKind, SourcePin, StepError};
use crate::graph::{Graph, OpKind, VertexId};
use crate::index::Index;
use crate::keys::{ContentInput, Outputs, ViewError, Views, content_key, definition_key, source_key};
use crate::result::{SolveError, StepFailure};
use crate::scheduler::{Failed, pin};

/// What is expected of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// A result is known.
    Known,
    /// It runs; for a source: it is fetched.
    Runs,
    /// It runs unless what runs below it gives what it gave before.
    MayRun,
    /// Nobody needs it.
    Unneeded,
}

/// What is expected of one vertex.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Forecast {
    /// Its digest, `sha256:…`.
    pub digest: String,
    /// Its name.
    pub name: String,
    /// What kind of work it is.
    pub kind: OpKind,
    /// What is expected.
    pub expected: Expected,
}

/// Tells what a solve would do, inputs before their users. Remote caches are not asked, nor whether the bytes of known
/// results are here.
///
/// # Errors
/// [`SolveError`] when a source cannot be pinned or the store fails.
pub async fn forecast(ctx: &Ctx, graph: &Arc<Graph>, config: &SolveConfig) -> Result<Vec<Forecast>, SolveError> {
    let pins = tokio::select! {
        () = ctx.cancel.cancelled() => return Err(SolveError::Cancelled),
        pins = pin_all(ctx, graph) => pins?,
    };
    let (index, walked, cache) = (ctx.index.clone(), graph.clone(), config.cache);
    let walk = move || walk(index.as_ref(), &walked, cache, &pins);
    blocking(walk).await.map_err(|(id, err)| {
        let failed = StepError::caused(FailureKind::System, "the store failed", err).into();
        failure(graph, id, failed)
    })
}

/// A forecast that failed at one vertex.
fn failure(graph: &Graph, id: VertexId, failed: Failed) -> SolveError {
    let vertex = graph.vertex(id);
    SolveError::Failed {
        failures: vec![StepFailure {
            vertex: vertex.digest,
            name: vertex.name.clone(),
            locations: vertex.locations.clone(),
            log_tail: failed.log_tail,
            log: failed.log,
            error: failed.error,
        }],
        finished: Box::default(),
    }
}

/// The pins of all sources, by vertex.
async fn pin_all(ctx: &Ctx, graph: &Graph) -> Result<Vec<Option<SourcePin>>, SolveError> {
    let mut pinning = JoinSet::new();
    for &id in graph.order() {
        let vertex = graph.vertex(id).clone();
        if vertex.kind() == OpKind::Source {
            let quiet = Ctx {
                events: EventSender::discard(),
                ..ctx.clone()
            };
            let cancel = ctx.cancel.child_token();
            pinning.spawn(async move { (id, pin(quiet, vertex, cancel).await) });
        }
    }
    let mut pins: Vec<Option<SourcePin>> = (0..graph.len()).map(|_| None).collect();
    while let Some(pinned) = pinning.join_next().await {
        match pinned {
            Ok((id, Ok(pin))) => pins[id.index()] = Some(pin),
            Ok((id, Err(failed))) => return Err(failure(graph, id, failed)),
            Err(err) => {
                if let Ok(panic) = err.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    Ok(pins)
}

/// One vertex during the walk.
#[derive(Default)]
struct Node {
    key: Option<CacheKey>,
    refused: bool,
    tainted: bool,
    wanted: bool,
    outputs: Option<Outputs>,
    expected: Option<Expected>,
}

type WalkError = (VertexId, StoreError);

fn walk(
    index: &dyn Index,
    graph: &Graph,
    cache: CacheUse,
    pins: &[Option<SourcePin>],
) -> Result<Vec<Forecast>, WalkError> {
    let mut nodes: Vec<Node> = (0..graph.len()).map(|_| Node::default()).collect();
    for &id in graph.order() {
        nodes[id.index()] = keyed(graph, id, cache, pins, &nodes);
    }
    for target in graph.targets().iter().filter_map(|target| target.edge) {
        nodes[target.vertex.index()].wanted = true;
    }
    for &id in graph.order().iter().rev() {
        let vertex = graph.vertex(id);
        let node = &mut nodes[id.index()];
        if !node.wanted {
            continue;
        }
        let pinned = pins[id.index()].as_ref().and_then(|pin| pin.snapshot.clone());
        if let Some(snapshot) = pinned {
            node.outputs = Some(Outputs::new(vec![Some(snapshot)], Vec::new()));
        } else if let (Some(key), false) = (node.key, node.tainted) {
            let found = index.realisation(&key).map_err(|err| (id, err))?;
            let found = found.filter(|found| found.outputs.len() == vertex.outputs);
            node.outputs = found.map(|found| Outputs::new(found.outputs, found.key_parts));
        }
        if node.outputs.is_some() {
            node.expected = Some(Expected::Known);
        } else {
            for input in graph.dependencies(id) {
                nodes[input.index()].wanted = true;
            }
        }
    }
    let views = Views::default();
    for &id in graph.order() {
        let node = &nodes[id.index()];
        if node.wanted && node.expected.is_none() {
            let (expected, outputs) = by_content(index, &views, graph, id, &nodes).map_err(|err| (id, err))?;
            let node = &mut nodes[id.index()];
            (node.expected, node.outputs) = (Some(expected), outputs);
        }
    }
    let forecast = |&id: &VertexId| {
        let vertex = graph.vertex(id);
        Forecast {
            digest: vertex.digest.to_string(),
            name: vertex.name.clone(),
            kind: vertex.kind(),
            expected: nodes[id.index()].expected.unwrap_or(Expected::Unneeded),
        }
    };
    Ok(graph.order().iter().map(forecast).collect())
}

/// A node with its definition key; those of its inputs are made.
fn keyed(graph: &Graph, id: VertexId, cache: CacheUse, pins: &[Option<SourcePin>], nodes: &[Node]) -> Node {
    let vertex = graph.vertex(id);
    if let Some(pin) = &pins[id.index()] {
        return Node {
            key: Some(source_key(vertex, pin).0),
            ..Node::default()
        };
    }
    let refused = vertex.ignore_cache || cache == CacheUse::WriteOnly;
    let keys: Option<Vec<CacheKey>> = vertex
        .inputs
        .iter()
        .map(|edge| nodes[edge.vertex.index()].key)
        .collect();
    Node {
        key: keys.map(|keys| definition_key(vertex, &keys)),
        refused,
        tainted: refused || graph.dependencies(id).any(|input| nodes[input.index()].tainted),
        ..Node::default()
    }
}

/// What is expected of a vertex that is wanted and not known by its definition.
fn by_content(
    index: &dyn Index,
    views: &Views,
    graph: &Graph,
    id: VertexId,
    nodes: &[Node],
) -> Result<(Expected, Option<Outputs>), StoreError> {
    let vertex = graph.vertex(id);
    if nodes[id.index()].refused || vertex.kind() == OpKind::Source {
        return Ok((Expected::Runs, None));
    }
    let input = |edge: &crate::graph::EdgeId| {
        let node = &nodes[edge.vertex.index()];
        Some(ContentInput {
            outputs: node.outputs.clone()?,
            output: edge.output,
            definition_key: node.key?,
        })
    };
    let Some(inputs) = vertex.inputs.iter().map(input).collect::<Option<Vec<_>>>() else {
        return Ok((Expected::MayRun, None));
    };
    let key = match content_key(index, views, vertex, &inputs) {
        Ok((key, _)) => key,
        // What the input will be when it is made again is not known.
        Err(ViewError::NeedsInput(_)) => return Ok((Expected::MayRun, None)),
        Err(ViewError::Store(err)) => return Err(err),
    };
    let found = index
        .realisation(&key)?
        .filter(|found| found.outputs.len() == vertex.outputs);
    Ok(match found {
        Some(found) => (Expected::Known, Some(Outputs::new(found.outputs, found.key_parts))),
        None => (Expected::Runs, None),
    })
}

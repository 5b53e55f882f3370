//! Running steps again on the same inputs, to see whether they give the same.
//!
//! Nothing of the second run is remembered. Each step gets the inputs of the first run, so that a step is not blamed for
//! what differs in a step before it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cbs_store::Snapshot;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{CacheUse, Ctx, Need, Parallelism, SolveConfig};
use crate::events::{Event, Outcome, VertexAdded};
use crate::executor::{Step, StepError};
use crate::graph::{EdgeId, Graph, OpKind, Target, Vertex, VertexId};
use crate::llb::VertexDigest;
use crate::log::LogSink;
use crate::progress::Progress;
use crate::result::SolveError;
use crate::scheduler::solve;

/// A step that ran again.
#[derive(Debug)]
pub struct Rechecked {
    /// Which.
    pub vertex: VertexDigest,
    /// Its name.
    pub name: String,
    /// What the first run gave, one per output.
    pub before: Vec<Option<Snapshot>>,
    /// What this one gave, or why it gave nothing.
    pub after: Result<Vec<Option<Snapshot>>, StepError>,
    /// How long it took this time.
    pub duration: Duration,
}

/// Runs every process of a graph again, in the order of the graph. What the first run gave, and all it was given, is
/// brought back first where it is not here any more.
///
/// # Errors
/// [`SolveError`] when the first results cannot be had, or the caller cancelled.
pub async fn recheck(ctx: &Ctx, graph: &Graph, config: &SolveConfig) -> Result<Vec<Rechecked>, SolveError> {
    let execs: Vec<VertexId> = graph
        .order()
        .iter()
        .copied()
        .filter(|id| graph.vertex(*id).kind() == OpKind::Exec)
        .collect();
    let mut edges: Vec<EdgeId> = execs
        .iter()
        .flat_map(|&id| {
            let vertex = graph.vertex(id);
            let own = (0..vertex.outputs).map(move |output| EdgeId { vertex: id, output });
            vertex.inputs.iter().copied().chain(own)
        })
        .collect();
    edges.sort();
    edges.dedup();
    let targets = edges.iter().map(|edge| Target {
        name: graph.vertex(edge.vertex).name.clone(),
        edge: Some(*edge),
    });
    let wide = Arc::new(graph.cached_with_targets(targets.collect()));
    let config = SolveConfig {
        need: Need::Tree,
        cache: CacheUse::ReadWrite,
        ..config.clone()
    };
    let solved = solve(ctx, &wide, &config).await?;
    let snapshot = |edge: EdgeId| -> Option<Snapshot> {
        let place = edges.binary_search(&edge).ok()?;
        let target = solved.targets.iter().find(|target| target.number == place)?;
        target.snapshot.clone()
    };
    let jobs = match &config.parallelism {
        Parallelism::Fixed(jobs) => *jobs,
        Parallelism::Auto { cores, .. } => *cores,
    };
    let room = Arc::new(Semaphore::new(NonZeroUsize::get(jobs)));
    let mut running = JoinSet::new();
    for (place, &id) in execs.iter().enumerate() {
        let vertex = graph.vertex(id).clone();
        let inputs: Vec<_> = vertex.inputs.iter().map(|edge| snapshot(*edge)).collect();
        let before = (0..vertex.outputs)
            .map(|output| snapshot(EdgeId { vertex: id, output }))
            .collect();
        let (ctx, room) = (ctx.clone(), room.clone());
        running.spawn(async move {
            // Closed by nobody.
            let _permit = room.acquire().await;
            (place, again(&ctx, vertex, inputs, before).await)
        });
    }
    let mut done = Vec::new();
    loop {
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = ctx.cancel.cancelled() => {
                let all_ended = async { while running.join_next().await.is_some() {} };
                if tokio::time::timeout(config.cancel_grace, all_ended).await.is_err() {
                    running.shutdown().await;
                }
                return Err(SolveError::Cancelled);
            }
        };
        match ended {
            None => break,
            Some(Ok(one)) => done.push(one),
            Some(Err(err)) => {
                if let Ok(panic) = err.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

/// Runs one step under a name of its own, so that progress shows it beside the first run.
async fn again(
    ctx: &Ctx,
    vertex: Arc<Vertex>,
    inputs: Vec<Option<Snapshot>>,
    before: Vec<Option<Snapshot>>,
) -> Rechecked {
    let shown = VertexDigest::of(format!("again {}", vertex.digest).as_bytes());
    ctx.events.send(Event::Added(VertexAdded {
        vertex: shown,
        name: format!("again: {}", vertex.name),
        kind: vertex.kind(),
        platform: vertex.platform_text(),
        inputs: Vec::new(),
        group: None,
    }));
    ctx.events.send(Event::Started {
        vertex: shown,
        time: ctx.clock.now(),
    });
    let spill = ctx.lease.as_ref().map(|lease| lease.scratch().to_owned());
    let step = Step {
        vertex: vertex.clone(),
        pin: None,
        cancel: ctx.cancel.child_token(),
        log: LogSink::new(shown, ctx.events.clone(), ctx.clock.clone(), spill),
        progress: Progress::new(shown, ctx.events.clone(), ctx.clock.clone()),
        lease: ctx.lease.clone(),
    };
    let started = Instant::now();
    let after = ctx.executor.run(step, inputs).await;
    let outcome = match &after {
        Ok(_) => Outcome::Ran,
        Err(_) if ctx.cancel.is_cancelled() => Outcome::Cancelled,
        Err(err) => Outcome::Failed(err.to_string()),
    };
    ctx.events.send(Event::Ended {
        vertex: shown,
        time: ctx.clock.now(),
        outcome,
    });
    Rechecked {
        vertex: vertex.digest,
        name: vertex.name.clone(),
        before,
        after,
        duration: started.elapsed(),
    }
}

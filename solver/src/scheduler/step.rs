//! Async work for one vertex: pinning, waiting for a lock, asking remote caches, running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cbs_store::{BlobDigest, CacheKey, Realisation};
use tokio_util::sync::CancellationToken;

use super::jobs;
use super::state::{Failed, LockAnswer, RunAnswer, RunOrder};
use crate::blocking::blocking;
use crate::config::{Ctx, Need};
use crate::events::unix_seconds;
use crate::executor::{FailureKind, SourcePin, Step, StepError};
use crate::graph::Vertex;
use crate::index::Index;
use crate::keys::Views;
use crate::log::LogSink;
use crate::progress::Progress;

/// Lines of a failed step's log that come with its failure.
const TAIL_LINES: usize = 50;
/// How soon and how often the lock of another process is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(2);
const LAST_RETRY: Duration = Duration::from_millis(100);

fn step(ctx: &Ctx, vertex: &Arc<Vertex>, pin: Option<Arc<SourcePin>>, cancel: CancellationToken) -> Step {
    let spill = ctx.lease.as_ref().map(|lease| lease.scratch().to_owned());
    Step {
        vertex: vertex.clone(),
        pin,
        cancel,
        log: LogSink::new(vertex.digest, ctx.events.clone(), ctx.clock.clone(), spill),
        progress: Progress::new(vertex.digest, ctx.events.clone(), ctx.clock.clone()),
        lease: ctx.lease.clone(),
    }
}

/// Asks what a source denotes.
pub(crate) async fn pin(ctx: Ctx, vertex: Arc<Vertex>, cancel: CancellationToken) -> Result<SourcePin, Failed> {
    let step = step(&ctx, &vertex, None, cancel);
    let log = step.log.clone();
    let pin = ctx.executor.pin(step).await.map_err(|error| Failed {
        error,
        log_tail: log.tail(TAIL_LINES),
        log: None,
    })?;
    if let Some(snapshot) = pin.snapshot.clone() {
        let kept = blocking(move || ctx.index.keep(&snapshot));
        kept.await.map_err(StepError::from)?;
    }
    Ok(pin)
}

/// Waits until nobody else works on a key, and looks at what they made of it.
pub(super) async fn lock(ctx: Ctx, key: CacheKey, restoring: Option<Need>) -> Result<LockAnswer, StepError> {
    let mut pause = FIRST_RETRY;
    loop {
        let index = ctx.index.clone();
        let attempt = blocking(move || {
            let Some(guard) = index.try_lock(&key)? else {
                return Ok(None);
            };
            let found = jobs::look(index.as_ref(), &key)?;
            let usable = match (&found, restoring) {
                (Some(found), Some(need)) => jobs::is_here(index.as_ref(), &found.outputs, need)?,
                _ => true,
            };
            let found = found.filter(|_| usable);
            Ok::<_, cbs_store::StoreError>(Some(LockAnswer { guard, found }))
        });
        match attempt.await? {
            Some(answer) => return Ok(answer),
            None => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LAST_RETRY);
    }
}

/// Asks remote caches one after the other; their failures are warnings.
pub(super) async fn ask_remotes(ctx: Ctx, vertex: Arc<Vertex>, keys: [CacheKey; 2]) -> Option<(String, Realisation)> {
    for remote in &ctx.remotes {
        match remote.find(keys.to_vec()).await {
            Ok(Some(found)) => {
                let (index, kept) = (ctx.index.clone(), found.clone());
                let recorded = blocking(move || {
                    index.put_realisation(&keys[0], &kept)?;
                    index.alias(&keys[1], &keys[0])
                });
                match recorded.await {
                    Ok(()) => return Some((remote.name().to_owned(), found)),
                    Err(err) => warn(&ctx, &vertex, remote.name(), &err),
                }
            }
            Ok(None) => {}
            Err(err) => warn(&ctx, &vertex, remote.name(), &err),
        }
    }
    None
}

/// Whether this much of the snapshots is here, after asking remote caches for what is not.
pub(super) async fn check(
    ctx: Ctx,
    vertex: Arc<Vertex>,
    snapshots: Arc<[Option<cbs_store::Snapshot>]>,
    need: Need,
) -> Result<bool, cbs_store::StoreError> {
    let is_here = || {
        let (index, snapshots) = (ctx.index.clone(), snapshots.clone());
        blocking(move || jobs::is_here(index.as_ref(), &snapshots, need))
    };
    if is_here().await? {
        return Ok(true);
    }
    for remote in &ctx.remotes {
        let mut fetched = true;
        for snapshot in snapshots.iter().flatten() {
            match remote.fetch(snapshot.clone()).await {
                Ok(has) => fetched &= has,
                Err(err) => {
                    warn(&ctx, &vertex, remote.name(), &err);
                    fetched = false;
                }
            }
        }
        if fetched && is_here().await? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn warn(ctx: &Ctx, vertex: &Vertex, remote: &str, err: &dyn std::error::Error) {
    let progress = Progress::new(vertex.digest, ctx.events.clone(), ctx.clock.clone());
    let mut detail = Vec::new();
    let mut cause = err.source();
    while let Some(err) = cause {
        detail.push(err.to_string());
        cause = err.source();
    }
    progress.warn(format!("cache `{remote}` is of no use: {err}"), detail, "");
}

/// Stores what a failed step printed. Its failure is as true without it.
async fn keep_log(index: Arc<dyn Index>, log: LogSink, progress: &Progress) -> Option<(BlobDigest, u64)> {
    let kept = blocking(move || match log.finish()? {
        Some(mut log) => index.put_reader(&mut log).map(Some).map_err(std::io::Error::other),
        None => Ok(None),
    });
    kept.await.unwrap_or_else(|err| {
        progress.warn("the log of this step could not be kept", vec![err.to_string()], "");
        None
    })
}

/// Runs a vertex and remembers what it gave. The key's lock is held until that is written.
pub(super) async fn run(
    ctx: Ctx,
    vertex: Arc<Vertex>,
    order: RunOrder,
    views: Arc<Views>,
    cancel: CancellationToken,
) -> Result<RunAnswer, Failed> {
    let pinned = order
        .pin
        .as_ref()
        .and_then(|pin| pin.snapshot.as_ref())
        .map(|snapshot| snapshot.tree);
    let step = step(&ctx, &vertex, order.pin, cancel.clone());
    let (log, progress) = (step.log.clone(), step.progress.clone());
    let started = Instant::now();
    let result = ctx.executor.run(step, order.inputs).await;
    let duration = started.elapsed();
    let outputs = match result {
        Ok(outputs) if outputs.len() == vertex.outputs => outputs,
        Ok(outputs) => {
            let message = format!(
                "the executor gave {} outputs instead of {}",
                outputs.len(),
                vertex.outputs
            );
            return Err(StepError::new(FailureKind::Internal, message).into());
        }
        // What a step says when it was stopped is not why the solve failed.
        Err(_) if cancel.is_cancelled() => return Err(StepError::cancelled().into()),
        Err(error) => {
            return Err(Failed {
                error,
                log_tail: log.tail(TAIL_LINES),
                log: keep_log(ctx.index, log, &progress).await,
            });
        }
    };
    // Everything above was keyed by what the pin said; other bytes under that name would be found by later solves.
    let fetched = outputs.first().and_then(Option::as_ref).map(|snapshot| snapshot.tree);
    if pinned.is_some() && pinned != fetched {
        let message = format!("`{}` changed while it was being read", vertex.name);
        return Err(StepError::new(FailureKind::Mismatch, message).into());
    }
    let created = unix_seconds(ctx.clock.now());
    let record = move || {
        let log = match log.finish() {
            Ok(log) => log,
            Err(err) => {
                progress.warn("the log of this step could not be kept", vec![err.to_string()], "");
                None
            }
        };
        let finished = jobs::Finished {
            vertex: &vertex,
            outputs,
            key: order.key,
            definition_key: order.definition_key,
            parts: order.parts,
            duration,
            peak_memory: progress.peak_memory(),
            log,
            created,
        };
        let answer = jobs::record(ctx.index.as_ref(), &views, finished);
        drop(order.guard);
        answer
    };
    blocking(record).await.map_err(|err| StepError::from(err).into())
}

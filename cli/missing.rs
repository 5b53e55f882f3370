//! What a build lacks that may not use the network, or is held to a lock: all of it at once, as fetching one thing after
//! the other takes as many tries.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use cbs_exec::{LocalExecutor, SourceError};
use cbs_image::ImageError;
use cbs_solver::{EventSender, Graph, Need, OnFailure, Request, SolveError, solve};

use crate::build::resolver;
use crate::failure::{Failed, Interrupted, Usage};
use crate::lenient::{Lenient, Voice};
use crate::lower::{fetch_dockerfiles, lower_all, requests};
use crate::session::{Session, SolveSettings};
use crate::sources::{Sources, mutable_sources};
use crate::target::BuildTarget;

/// Something that a build lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// The store has it not, and the network may not be used.
    Content(String),
    /// No lock file has a pin for it.
    Pin(String),
}

impl Lack {
    /// What an error says is lacking, if that is why there is one.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(cause) = next {
            match cause.downcast_ref::<SourceError>() {
                Some(SourceError::Offline(name) | SourceError::Image(ImageError::Offline(name))) => {
                    return Some(Self::Content(name.clone()));
                }
                Some(SourceError::NotLocked(name)) => return Some(Self::Pin(name.clone())),
                _ => {}
            }
            if let Some(ImageError::Offline(name)) = cause.downcast_ref() {
                return Some(Self::Content(name.clone()));
            }
            next = cause.source();
        }
        None
    }
}

/// Says all that is lacking, when that may be why a build failed.
pub(crate) fn tell(session: &mut Session, targets: Vec<BuildTarget>, sources: &Sources, error: &anyhow::Error) {
    let is_other = match error.downcast_ref::<Failed>() {
        Some(failed) => failed.lack.is_none(),
        None => error.is::<Usage>() || error.is::<Interrupted>(),
    };
    if is_other {
        return;
    }
    let lacks = session.runtime.block_on(find(session, targets, sources));
    let (mut contents, mut pins) = (Vec::new(), Vec::new());
    for lack in lacks {
        match lack {
            Lack::Content(name) => contents.push(name),
            Lack::Pin(name) => pins.push(name),
        }
    }
    session.display.finish();
    for (what, names) in [
        ("missing in the store; a build without --offline fetches it", contents),
        ("missing in the lock file, which `cbs lock` writes", pins),
    ] {
        if !names.is_empty() {
            tell!("{what}:\n  {}", names.join("\n  "));
        }
    }
}

async fn find(session: &Session, targets: Vec<BuildTarget>, sources: &Sources) -> BTreeSet<Lack> {
    let executor = LocalExecutor::new(sources.exec_config(session));
    let mut ctx = session.context(Arc::new(executor));
    ctx.events = EventSender::discard();
    let mut lacks = BTreeSet::new();
    let mut known: Vec<BuildTarget> = Vec::new();
    for mut target in targets {
        let fetched = fetch_dockerfiles(std::slice::from_mut(&mut target), &ctx, &session.store).await;
        match fetched {
            Ok(()) => known.push(target),
            Err(error) => lacks.extend(of_fetched(&error)),
        }
    }
    // Nothing can be said about what is built on the others.
    loop {
        let names: BTreeSet<String> = known.iter().map(|target| target.name.clone()).collect();
        let before = known.len();
        known.retain(|target| target.linked.values().all(|name| names.contains(name)));
        if known.len() == before {
            break;
        }
    }
    let lenient = Lenient::new(resolver(session, sources, &ctx), Voice::Silent);
    let lowered = lower_all(&known, &lenient, &ctx.events, OnFailure::KeepGoing).await;
    lacks.extend(lenient.lacks());
    let Ok(lowered) = lowered else { return lacks };
    let all: Vec<Request> = requests(&known, &lowered.done).into_values().flatten().collect();
    let graph = Graph::build(&all).and_then(|graph| Graph::build(&mutable_sources(&graph)));
    let Ok(graph) = graph else { return lacks };
    let settings = SolveSettings {
        on_failure: OnFailure::KeepGoing,
        ..SolveSettings::plain()
    };
    if let Err(SolveError::Failed { failures, .. }) = solve(&ctx, &Arc::new(graph), &settings.config(Need::Tree)).await
    {
        lacks.extend(failures.iter().filter_map(|failure| Lack::of(&failure.error)));
    }
    lacks
}

/// What a Dockerfile or context that is elsewhere lacks.
fn of_fetched(error: &anyhow::Error) -> Option<Lack> {
    match error.downcast_ref::<Failed>() {
        Some(failed) => failed.lack.clone(),
        None => Lack::of(error.as_ref()),
    }
}

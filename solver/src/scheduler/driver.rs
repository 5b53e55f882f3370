//! Does what the machine asks for and tells it what came of it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::machine::{Machine, Remotes};
use super::report::Report;
use super::state::{Command, Message, RunOrder};
use super::{jobs, step};
use crate::config::{Ctx, Parallelism, SolveConfig};
use crate::executor::{FailureKind, StepError};
use crate::graph::{Graph, VertexId};
use crate::keys::Views;
use crate::result::{SolveError, SolveResult};

/// Definition keys looked up by one job.
const BATCH: usize = 64;
/// How often an idle machine is offered more execs.
const TICK: Duration = Duration::from_millis(10);

type Job = Box<dyn FnOnce() -> Message + Send>;

pub(super) struct Driver {
    ctx: Ctx,
    graph: Arc<Graph>,
    config: SolveConfig,
    machine: Machine,
    views: Arc<Views>,
    /// Async work for vertices.
    steps: JoinSet<Message>,
    /// Whose work it is, to name the vertex when a step panics.
    owners: HashMap<Id, (VertexId, Work)>,
    /// Blocking work on the index; few at once, since it shares disks and cores.
    jobs: JoinSet<Message>,
    waiting_jobs: VecDeque<Job>,
    job_limit: usize,
    /// Fires when the solve is over, whatever the reason.
    stop: CancellationToken,
    /// Fires `stop` also when whoever waits for the solve drops it half-way.
    _stop_on_drop: DropGuard,
}

/// Which message a step owes.
#[derive(Clone, Copy, Debug)]
enum Work {
    Pin,
    Other,
    Run,
}

impl Driver {
    pub(super) fn new(ctx: Ctx, graph: Arc<Graph>, config: SolveConfig) -> Self {
        let report = Report::new(ctx.events.clone(), ctx.clock.clone());
        let remotes = if ctx.remotes.is_empty() {
            Remotes::None
        } else {
            Remotes::Some
        };
        let stop = ctx.cancel.child_token();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            machine: Machine::new(graph.clone(), &config, remotes, report),
            views: Arc::default(),
            steps: JoinSet::new(),
            owners: HashMap::new(),
            jobs: JoinSet::new(),
            waiting_jobs: VecDeque::new(),
            job_limit: cores + 2,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            ctx,
            graph,
            config,
        }
    }

    pub(super) async fn solve(mut self) -> Result<SolveResult, SolveError> {
        let cancel = self.ctx.cancel.clone();
        if cancel.is_cancelled() {
            return Err(SolveError::Cancelled);
        }
        self.machine.begin();
        self.obey();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cancelled = false;
        while !self.machine.is_over() {
            if self.steps.is_empty() && self.jobs.is_empty() && !self.machine.wants_room() {
                // A bug in the rules shows as a failed step, never as a build that hangs.
                self.machine.fail_stuck();
                continue;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    cancelled = true;
                    break;
                }
                Some(ended) = self.steps.join_next_with_id() => self.step_ended(ended),
                Some(ended) = self.jobs.join_next() => self.job_ended(ended),
                _ = tick.tick(), if self.machine.wants_room() => self.offer_room(),
            }
            self.take_what_is_there();
            self.obey();
        }
        self.wind_up().await;
        let (result, failures) = self.machine.finish();
        if cancelled {
            Err(SolveError::Cancelled)
        } else if failures.is_empty() {
            Ok(result)
        } else {
            let finished = Box::new(result);
            Err(SolveError::Failed { failures, finished })
        }
    }

    /// Takes in all that ended meanwhile, so that look-ups go out in batches.
    fn take_what_is_there(&mut self) {
        while !self.machine.is_over() {
            if let Some(ended) = self.steps.try_join_next_with_id() {
                self.step_ended(ended);
            } else if let Some(ended) = self.jobs.try_join_next() {
                self.job_ended(ended);
            } else {
                break;
            }
        }
    }

    fn step_ended(&mut self, ended: Result<(Id, Message), JoinError>) {
        let message = match ended {
            Ok((id, message)) => {
                self.owners.remove(&id);
                message
            }
            Err(err) => {
                let Some((vertex, work)) = self.owners.remove(&err.id()) else {
                    return;
                };
                let error = panicked(err);
                match work {
                    Work::Pin => Message::Pinned(vertex, Err(error.into())),
                    Work::Run => Message::Ran(vertex, Err(error.into())),
                    // Nothing of an executor's runs in the others.
                    Work::Other => Message::Locked(vertex, Err(error)),
                }
            }
        };
        self.machine.handle(message);
    }

    fn job_ended(&mut self, ended: Result<Message, JoinError>) {
        match ended {
            Ok(message) => self.machine.handle(message),
            // Jobs are ours: a panic there is a bug here and should look like one.
            Err(err) => {
                if let Ok(panic) = err.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    fn offer_room(&mut self) {
        if let Parallelism::Auto { pressure, .. } = &self.config.parallelism {
            if pressure.has_room() {
                self.machine.grant();
            } else {
                self.machine.hold();
            }
        }
    }

    fn obey(&mut self) {
        let mut looks = Vec::new();
        for command in self.machine.take_commands() {
            match command {
                Command::Look(vertex, key) => looks.push((vertex, key)),
                other => self.obey_one(other),
            }
        }
        for batch in looks.chunks(BATCH) {
            let (index, batch) = (self.ctx.index.clone(), batch.to_vec());
            self.waiting_jobs.push_back(Box::new(move || {
                let answer = |(vertex, key)| (vertex, jobs::look(index.as_ref(), &key));
                Message::Looked(batch.into_iter().map(answer).collect())
            }));
        }
        while self.jobs.len() < self.job_limit {
            let Some(job) = self.waiting_jobs.pop_front() else {
                break;
            };
            self.jobs.spawn_blocking(job);
        }
    }

    fn obey_one(&mut self, command: Command) {
        let (ctx, cancel) = (self.ctx.clone(), self.stop.child_token());
        match command {
            Command::Look(..) => {}
            Command::Pin(id) => {
                let vertex = self.graph.vertex(id).clone();
                let work = async move { Message::Pinned(id, step::pin(ctx, vertex, cancel).await) };
                self.spawn(id, Work::Pin, work);
            }
            Command::Key {
                vertex: id,
                inputs,
                lookup,
                definition_key,
            } => {
                let (vertex, views) = (self.graph.vertex(id).clone(), self.views.clone());
                self.waiting_jobs.push_back(Box::new(move || {
                    let index = ctx.index.as_ref();
                    Message::Keyed(
                        id,
                        jobs::make_key(index, &views, &vertex, &inputs, lookup, &definition_key),
                    )
                }));
            }
            Command::AskRemotes { vertex: id, keys } => {
                let vertex = self.graph.vertex(id).clone();
                let work = async move { Message::Asked(id, step::ask_remotes(ctx, vertex, keys).await) };
                self.spawn(id, Work::Other, work);
            }
            Command::Check {
                vertex: id,
                snapshots,
                need,
            } => {
                let vertex = self.graph.vertex(id).clone();
                let work = async move { Message::Checked(id, need, step::check(ctx, vertex, snapshots, need).await) };
                self.spawn(id, Work::Other, work);
            }
            Command::Lock {
                vertex: id,
                key,
                restoring,
            } => {
                let work = async move { Message::Locked(id, step::lock(ctx, key, restoring).await) };
                self.spawn(id, Work::Other, work);
            }
            Command::Run(order) => {
                let order: RunOrder = *order;
                let (id, views) = (order.vertex, self.views.clone());
                let vertex = self.graph.vertex(id).clone();
                let work = async move { Message::Ran(id, step::run(ctx, vertex, order, views, cancel).await) };
                self.spawn(id, Work::Run, work);
            }
            Command::Alias(alias, key) => self.waiting_jobs.push_back(Box::new(move || {
                // A look-up that the next solve must do by content instead is no failure of this one.
                drop(ctx.index.alias(&alias, &key));
                Message::Done
            })),
            Command::Estimate(vertices) => {
                let graph = self.graph.clone();
                self.waiting_jobs.push_back(Box::new(move || {
                    let index = ctx.index.as_ref();
                    let known = vertices.into_iter().filter_map(|id| {
                        // Without an estimate the order is worse, and that is all.
                        let duration = jobs::estimate(index, graph.vertex(id)).ok().flatten()?;
                        Some((id, duration))
                    });
                    Message::Estimated(known.collect())
                }));
            }
        }
    }

    fn spawn(&mut self, vertex: VertexId, work: Work, future: impl Future<Output = Message> + Send + 'static) {
        let handle = self.steps.spawn(future);
        self.owners.insert(handle.id(), (vertex, work));
    }

    /// Ends what still runs: steps are told, get a moment, and are dropped. Jobs that only read or write the index
    /// finish by themselves.
    async fn wind_up(&mut self) {
        self.stop.cancel();
        self.waiting_jobs.clear();
        let all_ended = async { while self.steps.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.cancel_grace, all_ended).await.is_err() {
            self.steps.shutdown().await;
        }
        self.jobs.detach_all();
    }
}

fn panicked(err: JoinError) -> StepError {
    let message = match err.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!(
                "the executor panicked: {}",
                text.unwrap_or_else(|| "no message".to_owned())
            )
        }
        Err(_) => "the step was dropped".to_owned(),
    };
    StepError::new(FailureKind::Internal, message)
}

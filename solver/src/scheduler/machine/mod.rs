//! The state of a solve and the rules it moves by. Nothing here waits, blocks or calls out: messages come in, commands
//! go out. Moves that follow from others are queued as turns, never called, so that a long chain cannot overflow the
//! stack.

mod failing;
mod moves;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cbs_store::{CacheKey, Snapshot};

use super::queue::{Queue, shares};
use super::report::Report;
use super::state::{Command, Message, Phase, Slot, Waiter};
use crate::config::{CacheUse, Need, OnFailure, SolveConfig};
use crate::graph::{Graph, OpKind, VertexId};
use crate::keys::{definition_key, source_key};
use crate::result::{Decided, Decision, SolveResult, Stats, StepFailure, TargetResult};

/// Whether remote caches are there to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remotes {
    Some,
    None,
}

/// All state of one solve.
#[derive(Debug)]
pub(super) struct Machine {
    graph: Arc<Graph>,
    slots: Vec<Slot>,
    turns: VecDeque<Turn>,
    commands: Vec<Command>,
    queue: Queue,
    /// The vertex that works on a key, or did last in this solve.
    leaders: HashMap<CacheKey, VertexId>,
    need: Need,
    on_failure: OnFailure,
    remotes: Remotes,
    /// Targets that are neither reached nor failed.
    pending: usize,
    failures: Vec<StepFailure>,
    estimated: bool,
    report: Report,
}

/// A move that follows from another.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Someone asked for an idle vertex, or its key became known.
    Start(VertexId),
    /// All awaited inputs are there.
    Advance(VertexId),
    /// Something that this vertex needs failed.
    Abandon(VertexId),
}

impl Machine {
    pub(super) fn new(graph: Arc<Graph>, config: &SolveConfig, remotes: Remotes, report: Report) -> Self {
        let mut slots: Vec<Slot> = (0..graph.len()).map(|_| Slot::new()).collect();
        for &id in graph.order() {
            let vertex = graph.vertex(id);
            // What a source denotes is asked anew in any case; running it again would fetch the same bytes.
            let refused =
                vertex.kind() != OpKind::Source && (vertex.ignore_cache || config.cache == CacheUse::WriteOnly);
            let (mut tainted, mut keyless) = (refused, 0);
            for input in graph.dependencies(id) {
                tainted |= slots[input.index()].tainted;
                keyless += 1;
            }
            let slot = &mut slots[id.index()];
            (slot.refused, slot.tainted, slot.keyless) = (refused, tainted, keyless);
        }
        Self {
            queue: Queue::new(&config.parallelism, graph.len(), shares(&graph)),
            slots,
            turns: VecDeque::new(),
            commands: Vec::new(),
            leaders: HashMap::new(),
            need: config.need,
            on_failure: config.on_failure,
            remotes,
            pending: 0,
            failures: Vec::new(),
            estimated: false,
            report,
            graph,
        }
    }

    /// Asks for all pins and for the targets.
    pub(super) fn begin(&mut self) {
        self.report.graph(&self.graph);
        let graph = self.graph.clone();
        let mut definable = Vec::new();
        for &id in graph.order() {
            if graph.vertex(id).kind() == OpKind::Source {
                self.report.started(graph.vertex(id));
                self.commands.push(Command::Pin(id));
            } else if self.slots[id.index()].keyless == 0 {
                definable.push(id);
            }
        }
        self.define(definable);
        for target in graph.targets() {
            if let Some(edge) = target.edge {
                self.pending += 1;
                self.demand(edge.vertex, self.need, Waiter::Target);
            }
        }
        self.settle_turns();
    }

    /// Whether nothing more is to be done: all targets are reached or failed, or the first failure ends the solve.
    pub(super) fn is_over(&self) -> bool {
        self.pending == 0 || (self.on_failure == OnFailure::Stop && !self.failures.is_empty())
    }

    /// What is to be done now.
    pub(super) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Whether execs wait for the machine to become less busy.
    pub(super) fn wants_room(&self) -> bool {
        self.queue.wants_room()
    }

    /// The machine is idle enough for more execs.
    pub(super) fn grant(&mut self) {
        self.queue.grant();
        self.settle_turns();
    }

    /// The machine is busy.
    pub(super) fn hold(&mut self) {
        self.queue.hold();
    }

    /// Takes in what a task has to say.
    pub(super) fn handle(&mut self, message: Message) {
        match message {
            Message::Pinned(vertex, Ok(pin)) => {
                self.report.cached(self.graph.vertex(vertex));
                let (key, _) = source_key(self.graph.vertex(vertex), &pin);
                let slot = &mut self.slots[vertex.index()];
                slot.pin = Some(Arc::new(pin));
                slot.definition_key = Some(key);
                self.defined(vertex);
            }
            Message::Pinned(vertex, Err(failed)) => self.fail_pin(vertex, failed),
            Message::Looked(answers) => {
                for (vertex, answer) in answers {
                    self.looked(vertex, answer);
                }
            }
            Message::Keyed(vertex, answer) => self.keyed(vertex, answer),
            Message::Asked(vertex, found) => self.asked(vertex, found),
            Message::Checked(vertex, need, answer) => self.checked(vertex, need, answer),
            Message::Locked(vertex, answer) => self.locked(vertex, answer),
            Message::Ran(vertex, answer) => self.ran(vertex, answer),
            Message::Estimated(durations) => self.prioritise(&durations),
            Message::Done => {}
        }
        self.settle_turns();
    }

    /// Takes all moves that follow, and starts what may run.
    fn settle_turns(&mut self) {
        while let Some(turn) = self.turns.pop_front() {
            match turn {
                Turn::Start(vertex) => self.start(vertex),
                Turn::Advance(vertex) => self.advance(vertex),
                Turn::Abandon(vertex) => self.abandon(vertex),
            }
        }
        if self.is_over() {
            return;
        }
        while let Some(vertex) = self.queue.admit() {
            self.run(vertex);
        }
    }

    /// The definition key of a vertex became known: it may be waiting for it, and so may its users' keys.
    fn defined(&mut self, vertex: VertexId) {
        if self.slots[vertex.index()].phase == Phase::AwaitKey {
            self.turns.push_back(Turn::Start(vertex));
        }
        let mut definable = Vec::new();
        for user in self.graph.dependents(vertex) {
            let slot = &mut self.slots[user.index()];
            slot.keyless -= 1;
            if slot.keyless == 0 {
                definable.push(user);
            }
        }
        self.define(definable);
    }

    /// Makes the definition keys of vertices whose inputs all have theirs, and of those that then follow.
    fn define(&mut self, mut definable: Vec<VertexId>) {
        let graph = self.graph.clone();
        let mut inputs = Vec::new();
        while let Some(id) = definable.pop() {
            let vertex = graph.vertex(id);
            inputs.clear();
            inputs.extend(
                vertex
                    .inputs
                    .iter()
                    .filter_map(|edge| self.slots[edge.vertex.index()].definition_key),
            );
            let slot = &mut self.slots[id.index()];
            slot.definition_key = Some(definition_key(vertex, &inputs));
            if slot.phase == Phase::AwaitKey {
                self.turns.push_back(Turn::Start(id));
            }
            for user in graph.dependents(id) {
                let slot = &mut self.slots[user.index()];
                slot.keyless -= 1;
                if slot.keyless == 0 {
                    definable.push(user);
                }
            }
        }
    }

    /// Orders what waits by the longest path to the end, from how long steps took before.
    fn prioritise(&mut self, durations: &[(VertexId, Duration)]) {
        let mut costs = vec![0_u64; self.graph.len()];
        for &id in self.graph.order() {
            costs[id.index()] = match self.graph.vertex(id).kind() {
                OpKind::Exec | OpKind::Build => 1_000_000,
                OpKind::Source => 300_000,
                OpKind::File | OpKind::Merge | OpKind::Diff => 1_000,
            };
        }
        for (vertex, duration) in durations {
            costs[vertex.index()] = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        }
        let mut remaining = vec![0_u64; costs.len()];
        for &id in self.graph.order().iter().rev() {
            let after = self.graph.dependents(id).map(|user| remaining[user.index()]).max();
            remaining[id.index()] = costs[id.index()].saturating_add(after.unwrap_or(0));
        }
        self.queue.prioritise(remaining);
    }

    /// The outcome, once over or given up.
    pub(super) fn finish(mut self) -> (SolveResult, Vec<StepFailure>) {
        let mut result = SolveResult::default();
        for (number, target) in self.graph.targets().iter().enumerate() {
            let snapshot: Option<Snapshot> = match target.edge {
                None => None,
                Some(edge) => {
                    let slot = &self.slots[edge.vertex.index()];
                    if slot.reached < Some(self.need) || slot.phase == Phase::Failed {
                        continue;
                    }
                    slot.outputs
                        .as_ref()
                        .and_then(|outputs| outputs.get(edge.output))
                        .cloned()
                }
            };
            result.targets.push(TargetResult {
                number,
                name: target.name.clone(),
                snapshot,
            });
        }
        let complete = result.targets.len() == self.graph.targets().len();
        for &id in self.graph.order() {
            let (slot, vertex) = (&mut self.slots[id.index()], self.graph.vertex(id));
            let decision = slot.decision.take().unwrap_or(match slot.phase {
                Phase::Idle | Phase::AwaitKey if slot.wanted.is_none() => Decision::Unneeded,
                _ => Decision::Abandoned,
            });
            if decision == Decision::Unneeded && complete {
                self.report.cached(vertex);
            }
            if decision == Decision::Abandoned {
                self.report.cancelled(vertex);
            }
            count(&mut result.stats, &decision);
            let content_key = slot.keyed.take().map(|keyed| keyed.key);
            result.decisions.push(Decided {
                vertex: vertex.digest,
                name: vertex.name.clone(),
                decision,
                key: content_key.or(slot.definition_key),
                duration: slot.duration,
            });
        }
        (result, self.failures)
    }
}

fn count(stats: &mut Stats, decision: &Decision) {
    let counter = match decision {
        Decision::Ran(_) => &mut stats.ran,
        Decision::Pinned
        | Decision::DefinitionHit
        | Decision::ContentHit
        | Decision::RemoteHit(_)
        | Decision::Shared => &mut stats.cached,
        Decision::Unneeded => &mut stats.unneeded,
        Decision::Failed => &mut stats.failed,
        Decision::Abandoned => &mut stats.abandoned,
    };
    *counter += 1;
}

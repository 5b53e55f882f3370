//! The moves of a vertex from phase to phase; the diagram is in the scheduler's front page.

use std::sync::Arc;

use cbs_store::{Realisation, StoreError};

use super::super::state::{Command, Failed, KeyAnswer, Keyed, LockAnswer, Lookup, Phase, RunAnswer, RunOrder, Waiter};
use super::{Machine, Remotes, Turn};
use crate::config::Need;
use crate::executor::StepError;
use crate::graph::{OpKind, VertexId};
use crate::keys::{ContentInput, KeyParts, Outputs, ViewError, base_inputs, source_key};
use crate::result::{Decision, Reason};

impl Machine {
    /// Someone needs `need` of a vertex.
    pub(super) fn demand(&mut self, id: VertexId, need: Need, waiter: Waiter) {
        let slot = &mut self.slots[id.index()];
        slot.wanted = slot.wanted.max(Some(need));
        if slot.phase == Phase::Failed {
            match waiter {
                Waiter::Vertex(user) => {
                    // Counted, so that the user does not go on before it hears of the failure.
                    self.slots[user.index()].waiting += 1;
                    self.turns.push_back(Turn::Abandon(user));
                }
                Waiter::Target => self.pending -= 1,
            }
            return;
        }
        if slot.reached >= Some(need) {
            if waiter == Waiter::Target {
                self.pending -= 1;
            }
            return;
        }
        slot.waiters.push((waiter, need));
        let phase = slot.phase;
        if let Waiter::Vertex(user) = waiter {
            self.slots[user.index()].waiting += 1;
        }
        match phase {
            Phase::Idle => self.turns.push_back(Turn::Start(id)),
            Phase::Settled => self.check(id),
            _ => {}
        }
    }

    fn demand_inputs(&mut self, id: VertexId, need: impl Fn(VertexId) -> Need) {
        let inputs: Vec<VertexId> = self.graph.dependencies(id).collect();
        for input in inputs {
            self.demand(input, need(input), Waiter::Vertex(id));
        }
        if self.slots[id.index()].waiting == 0 {
            self.turns.push_back(Turn::Advance(id));
        }
    }

    pub(super) fn start(&mut self, id: VertexId) {
        let slot = &mut self.slots[id.index()];
        if !matches!(slot.phase, Phase::Idle | Phase::AwaitKey) {
            return;
        }
        let Some(key) = slot.definition_key else {
            slot.phase = Phase::AwaitKey;
            return;
        };
        if let Some(snapshot) = slot.pin.as_ref().and_then(|pin| pin.snapshot.clone()) {
            let outputs = Outputs::new(vec![Some(snapshot)], Vec::new());
            self.settle(id, outputs, Decision::Pinned, Need::Digests);
        } else if slot.tainted {
            self.estimate();
            self.await_inputs(id);
        } else {
            slot.phase = Phase::Looking;
            self.commands.push(Command::Look(id, key));
        }
    }

    pub(super) fn looked(&mut self, id: VertexId, answer: Result<Option<Realisation>, StoreError>) {
        match answer {
            Ok(Some(found)) if self.fits(id, &found) => {
                self.settle(id, outputs_of(found), Decision::DefinitionHit, Need::Digests);
            }
            Ok(_) if self.graph.vertex(id).kind() == OpKind::Source => self.await_bytes(id, None),
            Ok(_) => {
                self.estimate();
                self.await_inputs(id);
            }
            Err(err) => self.fail(id, StepError::from(err).into()),
        }
    }

    /// A realisation of another shape was written by a program that counted outputs differently.
    fn fits(&self, id: VertexId, found: &Realisation) -> bool {
        found.outputs.len() == self.graph.vertex(id).outputs
    }

    /// Once per solve, when something may have to run: asks how long things took before.
    fn estimate(&mut self) {
        if !std::mem::replace(&mut self.estimated, true) {
            let is_exec = |id: &VertexId| self.graph.vertex(*id).kind() == OpKind::Exec;
            let execs: Vec<VertexId> = self.graph.order().iter().copied().filter(is_exec).collect();
            if execs.len() > 1 {
                self.commands.push(Command::Estimate(execs));
            }
        }
    }

    fn await_inputs(&mut self, id: VertexId) {
        let slot = &mut self.slots[id.index()];
        slot.phase = Phase::AwaitInputs;
        // What runs in any case can have its inputs' bytes fetched meanwhile.
        let need = if slot.refused { Need::Tree } else { Need::Digests };
        self.demand_inputs(id, |_| need);
    }

    pub(super) fn advance(&mut self, id: VertexId) {
        let slot = &self.slots[id.index()];
        if slot.waiting > 0 {
            return;
        }
        match slot.phase {
            Phase::AwaitInputs | Phase::AwaitContent => self.make_key(id),
            Phase::AwaitBytes => self.bytes_ready(id),
            _ => {}
        }
    }

    fn make_key(&mut self, id: VertexId) {
        let (graph, slots) = (&self.graph, &self.slots);
        let inputs: Option<Vec<ContentInput>> = graph
            .vertex(id)
            .inputs
            .iter()
            .map(|edge| {
                let slot = &slots[edge.vertex.index()];
                Some(ContentInput {
                    outputs: slot.outputs.clone()?,
                    output: edge.output,
                    definition_key: slot.definition_key?,
                })
            })
            .collect();
        let slot = &mut self.slots[id.index()];
        let (Some(inputs), Some(definition_key)) = (inputs, slot.definition_key) else {
            return self.fail_internal(id, "an input that was waited for has no result");
        };
        slot.phase = Phase::Keying;
        let lookup = if slot.refused || slot.restoring.is_some() {
            Lookup::No
        } else {
            Lookup::Yes
        };
        self.commands.push(Command::Key {
            vertex: id,
            inputs,
            lookup,
            definition_key,
        });
    }

    pub(super) fn keyed(&mut self, id: VertexId, answer: Result<KeyAnswer, ViewError>) {
        match answer {
            Ok(KeyAnswer::Found(key, found)) if self.fits(id, &found) => {
                self.slots[id.index()].keyed = Some(Keyed {
                    key,
                    parts: KeyParts::default(),
                    inputs: Vec::new(),
                });
                self.settle(id, outputs_of(found), Decision::ContentHit, Need::Digests);
            }
            Ok(KeyAnswer::Found(..)) => self.fail_internal(id, "a stored result has another number of outputs"),
            Ok(KeyAnswer::Missing { keyed, reason, lookup }) => {
                let slot = &mut self.slots[id.index()];
                let content_key = keyed.key;
                slot.keyed = Some(keyed);
                if slot.restoring.is_none() {
                    slot.reason = Some(if slot.refused { Reason::CacheRefused } else { reason });
                }
                match slot.definition_key {
                    Some(key) if lookup == Lookup::Yes && self.remotes == Remotes::Some => {
                        slot.phase = Phase::AskingRemotes;
                        let keys = [content_key, key];
                        self.commands.push(Command::AskRemotes { vertex: id, keys });
                    }
                    _ => {
                        let restoring = slot.restoring;
                        self.await_bytes(id, restoring);
                    }
                }
            }
            Err(ViewError::NeedsInput(number)) => {
                let Some(input) = self.graph.vertex(id).inputs.get(number).map(|edge| edge.vertex) else {
                    return self.fail_internal(id, "an input that the graph does not have was asked for");
                };
                if self.slots[input.index()].reached >= Some(Need::Tree) {
                    return self.fail_internal(id, "directories of an input are missing though it is complete");
                }
                self.slots[id.index()].phase = Phase::AwaitContent;
                self.demand(input, Need::Tree, Waiter::Vertex(id));
            }
            Err(ViewError::Store(err)) => self.fail(id, StepError::from(err).into()),
        }
    }

    pub(super) fn asked(&mut self, id: VertexId, found: Option<(String, Realisation)>) {
        match found {
            Some((name, found)) if self.fits(id, &found) => {
                self.settle(id, outputs_of(found), Decision::RemoteHit(name), Need::Digests);
            }
            _ => self.await_bytes(id, None),
        }
    }

    /// The vertex must run, to have a result at all or to bring back the bytes of a known one.
    fn await_bytes(&mut self, id: VertexId, restoring: Option<Need>) {
        let slot = &mut self.slots[id.index()];
        slot.phase = Phase::AwaitBytes;
        slot.restoring = restoring;
        let vertex = self.graph.vertex(id);
        // Layers of the result are the layers of its bases and its own.
        let bases: Vec<VertexId> = match restoring {
            Some(Need::Layers) => base_inputs(vertex)
                .into_iter()
                .filter_map(|input| vertex.inputs.get(input).map(|edge| edge.vertex))
                .collect(),
            _ => Vec::new(),
        };
        self.demand_inputs(id, |input| {
            if bases.contains(&input) {
                Need::Layers
            } else {
                Need::Tree
            }
        });
    }

    fn bytes_ready(&mut self, id: VertexId) {
        let slot = &mut self.slots[id.index()];
        if let (Some(need), false, Some(outputs)) = (slot.restoring, slot.rechecked, &slot.outputs) {
            // A tree edit is whole again once its inputs are.
            slot.rechecked = true;
            let snapshots = outputs.snapshots.clone();
            return self.send_check(id, snapshots, need);
        }
        let vertex = self.graph.vertex(id);
        if vertex.kind() == OpKind::Source {
            let slot = &mut self.slots[id.index()];
            if let (None, Some(pin)) = (&slot.keyed, &slot.pin) {
                let (key, parts) = source_key(vertex, pin);
                let inputs = Vec::new();
                slot.keyed = Some(Keyed { key, parts, inputs });
            }
        }
        let current = self.slots[id.index()].keyed.as_ref().is_some_and(|keyed| {
            keyed.inputs.len() == vertex.inputs.len()
                && vertex.inputs.iter().zip(&keyed.inputs).all(|(edge, then)| {
                    let now = self.slots[edge.vertex.index()].outputs.as_ref();
                    now.is_some_and(|now| Arc::ptr_eq(&now.snapshots, then) || now.snapshots == *then)
                })
        });
        if current {
            self.enqueue(id);
        } else {
            self.make_key(id);
        }
    }

    fn enqueue(&mut self, id: VertexId) {
        let kind = self.graph.vertex(id).kind();
        let slot = &self.slots[id.index()];
        let Some(key) = slot.keyed.as_ref().map(|keyed| keyed.key) else {
            return self.fail_internal(id, "a vertex without a key was to run");
        };
        if let Some(&leader) = self.leaders.get(&key) {
            let restoring = slot.restoring.is_some();
            let first = &self.slots[leader.index()];
            let fits = first.keyed.as_ref().is_some_and(|keyed| keyed.key == key) && first.refused >= slot.refused;
            match (first.phase, &first.outputs) {
                (Phase::Locking | Phase::Queued | Phase::Running, _) if fits => {
                    self.slots[id.index()].phase = Phase::Following;
                    self.slots[leader.index()].followers.push(id);
                    return;
                }
                // It got there between the look-up and now.
                (Phase::Settled, Some(outputs)) if fits && !restoring => {
                    let outputs = outputs.clone();
                    let alias = self.alias_of(id);
                    self.commands.extend(alias);
                    return self.settle(id, outputs, Decision::Shared, Need::Digests);
                }
                _ => {}
            }
        }
        self.leaders.insert(key, id);
        let slot = &mut self.slots[id.index()];
        // Doing a tree edit twice is cheaper than a lock; what refuses its cache would not use another's result.
        if slot.refused || !matches!(kind, OpKind::Exec | OpKind::Source | OpKind::Build) {
            slot.phase = Phase::Queued;
            self.queue.push(id, kind);
        } else {
            slot.phase = Phase::Locking;
            let restoring = slot.restoring;
            self.commands.push(Command::Lock {
                vertex: id,
                key,
                restoring,
            });
        }
    }

    pub(super) fn locked(&mut self, id: VertexId, answer: Result<LockAnswer, StepError>) {
        match answer {
            Ok(LockAnswer { found: Some(found), .. }) if self.fits(id, &found) => {
                let alias = self.alias_of(id);
                self.commands.extend(alias);
                self.settle(id, outputs_of(found), Decision::Shared, Need::Digests);
            }
            Ok(LockAnswer { guard, .. }) => {
                let slot = &mut self.slots[id.index()];
                slot.guard = Some(guard);
                slot.phase = Phase::Queued;
                self.queue.push(id, self.graph.vertex(id).kind());
            }
            Err(err) => self.fail(id, err.into()),
        }
    }

    /// Makes what is known under the content key known under the definition key.
    fn alias_of(&self, id: VertexId) -> Option<Command> {
        let slot = &self.slots[id.index()];
        let (content, definition) = (slot.keyed.as_ref()?.key, slot.definition_key?);
        (content != definition).then_some(Command::Alias(definition, content))
    }

    pub(super) fn run(&mut self, id: VertexId) {
        let vertex = self.graph.vertex(id).clone();
        let inputs = vertex.inputs.iter().map(|edge| {
            let outputs = self.slots[edge.vertex.index()].outputs.as_ref();
            outputs.and_then(|outputs| outputs.get(edge.output)).cloned()
        });
        let inputs = inputs.collect();
        self.report.started(&vertex);
        let slot = &mut self.slots[id.index()];
        slot.phase = Phase::Running;
        let (Some(keyed), Some(definition_key)) = (&slot.keyed, slot.definition_key) else {
            self.queue.release(id, vertex.kind());
            return self.fail_internal(id, "a vertex without a key was to run");
        };
        let order = RunOrder {
            vertex: id,
            pin: slot.pin.clone(),
            inputs,
            definition_key,
            key: keyed.key,
            parts: keyed.parts.clone(),
            guard: slot.guard.take(),
        };
        self.commands.push(Command::Run(Box::new(order)));
    }

    pub(super) fn ran(&mut self, id: VertexId, answer: Result<RunAnswer, Failed>) {
        self.queue.release(id, self.graph.vertex(id).kind());
        match answer {
            Ok(RunAnswer { outputs, duration }) => {
                let slot = &mut self.slots[id.index()];
                slot.duration = duration;
                slot.restored = slot.restored.max(slot.restoring);
                let reason = match slot.restoring {
                    Some(_) => Reason::BytesMissing,
                    None => slot.reason.take().unwrap_or(Reason::FirstTime),
                };
                self.settle(id, outputs, Decision::Ran(reason), Need::Tree);
            }
            Err(failed) => self.fail(id, failed),
        }
    }

    /// A vertex has a result.
    pub(super) fn settle(&mut self, id: VertexId, outputs: Outputs, decision: Decision, reached: Need) {
        let vertex = self.graph.vertex(id).clone();
        self.report.settled(&vertex, &decision);
        let slot = &mut self.slots[id.index()];
        slot.phase = Phase::Settled;
        slot.outputs = Some(outputs.clone());
        slot.restoring = None;
        slot.guard = None;
        slot.reached = slot.reached.max(Some(reached));
        if slot.decision.is_none() || matches!(decision, Decision::Ran(_)) {
            slot.decision = Some(decision);
        }
        let followers = std::mem::take(&mut self.slots[id.index()].followers);
        for follower in followers {
            let alias = self.alias_of(follower);
            self.commands.extend(alias);
            // A follower has no followers of its own, so this goes one level deep.
            self.settle(follower, outputs.clone(), Decision::Shared, reached);
        }
        self.wake(id);
    }

    /// Tells those that wait how far the vertex has come, and goes on when someone needs more.
    fn wake(&mut self, id: VertexId) {
        let slot = &mut self.slots[id.index()];
        let (reached, wanted) = (slot.reached, slot.wanted);
        let (done, waiting) = std::mem::take(&mut slot.waiters)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, need)| Some(*need) <= reached);
        slot.waiters = waiting;
        for (waiter, _) in done {
            match waiter {
                Waiter::Target => self.pending -= 1,
                Waiter::Vertex(user) => {
                    let slot = &mut self.slots[user.index()];
                    slot.waiting -= 1;
                    if slot.waiting == 0 {
                        self.turns.push_back(Turn::Advance(user));
                    }
                }
            }
        }
        if wanted > reached {
            self.check(id);
        }
    }

    /// Someone needs more of a settled vertex than its digests.
    fn check(&mut self, id: VertexId) {
        let slot = &self.slots[id.index()];
        match (slot.wanted, &slot.outputs) {
            (Some(need), Some(outputs)) => {
                let snapshots = outputs.snapshots.clone();
                self.send_check(id, snapshots, need);
            }
            _ => self.fail_internal(id, "a settled vertex has no result"),
        }
    }

    fn send_check(&mut self, id: VertexId, snapshots: Arc<[Option<cbs_store::Snapshot>]>, need: Need) {
        self.slots[id.index()].phase = Phase::Checking;
        self.commands.push(Command::Check {
            vertex: id,
            snapshots,
            need,
        });
    }

    pub(super) fn checked(&mut self, id: VertexId, need: Need, answer: Result<bool, StoreError>) {
        let slot = &mut self.slots[id.index()];
        match answer {
            Ok(true) => {
                slot.reached = slot.reached.max(Some(need));
                slot.phase = Phase::Settled;
                slot.restoring = None;
                self.wake(id);
            }
            // The inputs are back and the bytes are not: run.
            Ok(false) if slot.restoring.is_some() => {
                slot.phase = Phase::AwaitBytes;
                self.turns.push_back(Turn::Advance(id));
            }
            Ok(false) if slot.restored >= Some(need) => {
                self.fail_internal(id, "bytes of the result are missing although it just ran");
            }
            Ok(false) => {
                slot.rechecked = self.graph.vertex(id).inputs.is_empty();
                self.await_bytes(id, Some(need));
            }
            Err(err) => self.fail(id, StepError::from(err).into()),
        }
    }
}

fn outputs_of(found: Realisation) -> Outputs {
    Outputs::new(found.outputs, found.key_parts)
}

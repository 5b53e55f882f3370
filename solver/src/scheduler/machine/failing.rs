//! What a failure means for the vertex, for those that need it and for the solve.

use super::super::state::{Failed, Phase, Waiter};
use super::{Machine, Turn};
use crate::config::OnFailure;
use crate::executor::{FailureKind, StepError};
use crate::graph::VertexId;
use crate::result::{Decision, StepFailure};

impl Machine {
    /// A vertex failed.
    pub(super) fn fail(&mut self, id: VertexId, failed: Failed) {
        let vertex = self.graph.vertex(id).clone();
        self.report.failed(&vertex, &failed.error);
        self.failures.push(StepFailure {
            vertex: vertex.digest,
            name: vertex.name.clone(),
            locations: vertex.locations.clone(),
            log_tail: failed.log_tail,
            log: failed.log,
            error: failed.error,
        });
        self.give_up(id);
    }

    /// Something that cannot be, unless there is a bug here or in an executor.
    pub(super) fn fail_internal(&mut self, id: VertexId, message: &str) {
        self.fail(id, StepError::new(FailureKind::Internal, message).into());
    }

    /// Nothing is under way and something is still wanted.
    pub(in super::super) fn fail_stuck(&mut self) {
        let wanted = |id: &VertexId| {
            let slot = &self.slots[id.index()];
            slot.wanted > slot.reached && slot.phase != Phase::Failed
        };
        match self.graph.order().iter().copied().find(wanted) {
            Some(id) => {
                let message = format!(
                    "nothing is under way and this step is {:?}",
                    self.slots[id.index()].phase
                );
                self.fail_internal(id, &message);
            }
            None => self.pending = 0,
        }
        self.settle_turns();
    }

    /// A source denotes nothing: nobody above has a key, so none of them can be found or run.
    pub(super) fn fail_pin(&mut self, id: VertexId, failed: Failed) {
        self.fail(id, failed);
        if self.on_failure == OnFailure::Stop {
            return;
        }
        let mut pending: Vec<VertexId> = self.graph.dependents(id).collect();
        while let Some(user) = pending.pop() {
            if self.slots[user.index()].phase != Phase::Failed {
                pending.extend(self.graph.dependents(user));
                self.give_up(user);
            }
        }
    }

    /// Something that a vertex needs failed.
    pub(super) fn abandon(&mut self, id: VertexId) {
        if self.slots[id.index()].phase != Phase::Failed {
            self.give_up(id);
        }
    }

    /// Ends a vertex without a result and tells those that wait for it.
    fn give_up(&mut self, id: VertexId) {
        let slot = &mut self.slots[id.index()];
        slot.phase = Phase::Failed;
        slot.decision = Some(Decision::Failed);
        slot.guard = None;
        for (waiter, _) in std::mem::take(&mut slot.waiters) {
            match waiter {
                Waiter::Vertex(user) => self.turns.push_back(Turn::Abandon(user)),
                Waiter::Target => self.pending -= 1,
            }
        }
        // The same op on the same content may still succeed: the failure may have been the network's.
        for follower in std::mem::take(&mut self.slots[id.index()].followers) {
            self.slots[follower.index()].phase = Phase::AwaitBytes;
            self.turns.push_back(Turn::Advance(follower));
        }
    }
}

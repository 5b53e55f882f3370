//! Tells the events what happens to vertices.

use std::collections::HashMap;
use std::sync::Arc;

use crate::events::{Clock, Event, EventSender, Outcome, VertexAdded};
use crate::executor::{FailureKind, StepError};
use crate::graph::{Graph, Vertex};
use crate::llb::VertexDigest;
use crate::result::Decision;

/// What readers believe of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Started,
    Ended,
}

#[derive(Debug)]
pub(super) struct Report {
    events: EventSender,
    clock: Arc<dyn Clock>,
    shown: HashMap<VertexDigest, Shown>,
}

impl Report {
    pub(super) fn new(events: EventSender, clock: Arc<dyn Clock>) -> Self {
        Self {
            events,
            clock,
            shown: HashMap::new(),
        }
    }

    /// All vertices, inputs before users.
    pub(super) fn graph(&self, graph: &Graph) {
        for &id in graph.order() {
            let vertex = graph.vertex(id);
            self.events.send(Event::Added(VertexAdded {
                vertex: vertex.digest,
                name: vertex.name.clone(),
                kind: vertex.kind(),
                platform: vertex.platform_text(),
                inputs: graph.dependencies(id).map(|input| graph.vertex(input).digest).collect(),
                group: vertex.progress_group.clone(),
            }));
        }
    }

    pub(super) fn started(&mut self, vertex: &Vertex) {
        self.shown.insert(vertex.digest, Shown::Started);
        self.events.send(Event::Started {
            vertex: vertex.digest,
            time: self.clock.now(),
        });
    }

    /// A result was known; said once.
    pub(super) fn cached(&mut self, vertex: &Vertex) {
        if self.shown.get(&vertex.digest) != Some(&Shown::Ended) {
            self.ended(vertex, Outcome::Cached);
        }
    }

    pub(super) fn settled(&mut self, vertex: &Vertex, decision: &Decision) {
        match decision {
            Decision::Ran(_) => self.ended(vertex, Outcome::Ran),
            _ => self.cached(vertex),
        }
    }

    pub(super) fn failed(&mut self, vertex: &Vertex, error: &StepError) {
        let outcome = match error.kind {
            FailureKind::Cancelled => Outcome::Cancelled,
            _ => Outcome::Failed(error.to_string()),
        };
        self.ended(vertex, outcome);
    }

    /// Says that a vertex that began will not end.
    pub(super) fn cancelled(&mut self, vertex: &Vertex) {
        if self.shown.get(&vertex.digest) == Some(&Shown::Started) {
            self.ended(vertex, Outcome::Cancelled);
        }
    }

    fn ended(&mut self, vertex: &Vertex, outcome: Outcome) {
        self.shown.insert(vertex.digest, Shown::Ended);
        self.events.send(Event::Ended {
            vertex: vertex.digest,
            time: self.clock.now(),
            outcome,
        });
    }
}

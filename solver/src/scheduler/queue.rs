//! Which ready vertex runs next.
//!
//! Execs are admitted up to a limit, those with the longest remaining path first, so that the critical path of the
//! build is never the last to start. Tree edits have a limit of their own; sources wait for others, not for us.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::config::Parallelism;
use crate::graph::{OpKind, VertexId};

/// Most execs that run at once however idle the machine seems.
const CEILING: usize = 512;
/// Most execs admitted at one tick beyond the number of cores.
const BURST: usize = 16;
/// Tree edits that run at once.
const EDITS: usize = 8;

#[derive(Debug)]
pub(super) struct Queue {
    exec: Lane,
    edit: Lane,
    source: Lane,
    cores: usize,
    automatic: bool,
    /// Execs beyond `cores` that may start.
    granted: usize,
    burst: usize,
    /// By vertex: microseconds from its start to the end of the solve, as far as is known.
    priorities: Vec<u64>,
    count: u64,
}

#[derive(Debug, Default)]
struct Lane {
    ready: BinaryHeap<(u64, Reverse<u64>, VertexId)>,
    running: usize,
}

impl Queue {
    pub(super) fn new(parallelism: &Parallelism, vertices: usize) -> Self {
        let (cores, automatic) = match parallelism {
            Parallelism::Fixed(count) => (count.get(), false),
            Parallelism::Auto { cores, .. } => (cores.get(), true),
        };
        Self {
            exec: Lane::default(),
            edit: Lane::default(),
            source: Lane::default(),
            cores,
            automatic,
            granted: 0,
            burst: 1,
            priorities: vec![0; vertices],
            count: 0,
        }
    }

    fn lane(&mut self, kind: OpKind) -> &mut Lane {
        match kind {
            OpKind::Exec | OpKind::Build => &mut self.exec,
            OpKind::File | OpKind::Merge | OpKind::Diff => &mut self.edit,
            OpKind::Source => &mut self.source,
        }
    }

    /// A vertex is ready to run.
    pub(super) fn push(&mut self, vertex: VertexId, kind: OpKind) {
        let order = (self.priorities[vertex.index()], Reverse(self.count), vertex);
        self.count += 1;
        self.lane(kind).ready.push(order);
    }

    /// Takes a vertex that may run now; each must be [released](Self::release).
    pub(super) fn admit(&mut self) -> Option<VertexId> {
        if let Some(vertex) = self.source.start() {
            return Some(vertex);
        }
        if self.edit.running < EDITS
            && let Some(vertex) = self.edit.start()
        {
            return Some(vertex);
        }
        let free = self.exec.running < self.cores;
        if !free && self.granted == 0 {
            return None;
        }
        let vertex = self.exec.start()?;
        if !free {
            self.granted -= 1;
        }
        Some(vertex)
    }

    /// A vertex taken with [`Queue::admit`] ended.
    pub(super) fn release(&mut self, kind: OpKind) {
        self.lane(kind).running -= 1;
    }

    /// Whether execs wait that a less busy machine could take.
    pub(super) fn wants_room(&self) -> bool {
        self.automatic
            && !self.exec.ready.is_empty()
            && self.granted == 0
            && (self.cores..CEILING).contains(&self.exec.running)
    }

    /// The machine could take more: some more execs may start, the more the longer it stays so.
    pub(super) fn grant(&mut self) {
        self.granted = self.burst;
        self.burst = (self.burst * 2).min(BURST);
    }

    /// The machine is busy.
    pub(super) fn hold(&mut self) {
        self.burst = 1;
    }

    /// Sets how long the path from each vertex to the end is and orders those that wait by it.
    pub(super) fn prioritise(&mut self, priorities: Vec<u64>) {
        self.priorities = priorities;
        for lane in [&mut self.exec, &mut self.edit, &mut self.source] {
            let old = std::mem::take(&mut lane.ready);
            lane.ready = old
                .into_iter()
                .map(|(_, count, vertex)| (self.priorities[vertex.index()], count, vertex))
                .collect();
        }
    }
}

impl Lane {
    fn start(&mut self) -> Option<VertexId> {
        let (_, _, vertex) = self.ready.pop()?;
        self.running += 1;
        Some(vertex)
    }
}

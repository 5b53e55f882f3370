//! Which ready vertex runs next.
//!
//! Execs are admitted up to a limit. Places go to the target that has fewest of them, so that none waits for another's
//! crowd of steps; within a target to the step with the longest remaining path, so that the critical path is never the
//! last to start. What several targets need counts as a target of its own. Tree edits have a limit of their own; sources
//! wait for others, not for us.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::config::Parallelism;
use crate::graph::{Graph, OpKind, VertexId};

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
    /// By vertex: whose turn it takes.
    shares: Vec<u32>,
    count: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// One for each target, and one for what several need.
    groups: Vec<Group>,
    ready: usize,
    running: usize,
}

#[derive(Debug, Default)]
struct Group {
    ready: BinaryHeap<Ready>,
    running: usize,
}

/// Microseconds to the end, place in the line, vertex.
type Ready = (u64, Reverse<u64>, VertexId);

impl Queue {
    /// `shares` says for each vertex which target it is for; vertices beyond its end share one place.
    pub(super) fn new(parallelism: &Parallelism, vertices: usize, shares: Vec<u32>) -> Self {
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
            shares,
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
        let share = self.share(vertex);
        self.lane(kind).push(share, order);
    }

    fn share(&self, vertex: VertexId) -> usize {
        self.shares.get(vertex.index()).map_or(0, |share| *share as usize)
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
    pub(super) fn release(&mut self, vertex: VertexId, kind: OpKind) {
        let share = self.share(vertex);
        let lane = self.lane(kind);
        lane.running -= 1;
        lane.groups[share].running -= 1;
    }

    /// Whether execs wait that a less busy machine could take.
    pub(super) fn wants_room(&self) -> bool {
        self.automatic && self.exec.ready > 0 && self.granted == 0 && (self.cores..CEILING).contains(&self.exec.running)
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
        let lanes = [&mut self.exec, &mut self.edit, &mut self.source];
        for group in lanes.into_iter().flat_map(|lane| &mut lane.groups) {
            let old = std::mem::take(&mut group.ready);
            group.ready = old
                .into_iter()
                .map(|(_, count, vertex)| (self.priorities[vertex.index()], count, vertex))
                .collect();
        }
    }
}

impl Lane {
    fn push(&mut self, share: usize, order: Ready) {
        if self.groups.len() <= share {
            self.groups.resize_with(share + 1, Group::default);
        }
        self.groups[share].ready.push(order);
        self.ready += 1;
    }

    fn start(&mut self) -> Option<VertexId> {
        let waiting = self.groups.iter_mut().filter(|group| !group.ready.is_empty());
        let group = waiting.max_by_key(|group| (Reverse(group.running), group.ready.peek().copied()))?;
        let (_, _, vertex) = group.ready.pop()?;
        group.running += 1;
        self.running += 1;
        self.ready -= 1;
        Some(vertex)
    }
}

/// For each vertex of a graph, whose turn it takes: zero when several targets need it, else a number of the target's
/// own.
pub(super) fn shares(graph: &Graph) -> Vec<u32> {
    if graph.targets().len() < 2 {
        return Vec::new();
    }
    let mut shares: Vec<Option<u32>> = vec![None; graph.len()];
    let join = |shares: &mut Vec<Option<u32>>, id: VertexId, share: u32| {
        let old = &mut shares[id.index()];
        *old = Some(match *old {
            Some(other) if other != share => 0,
            _ => share,
        });
    };
    for (number, target) in (1..).zip(graph.targets()) {
        if let Some(edge) = target.edge {
            join(&mut shares, edge.vertex, number);
        }
    }
    for &id in graph.order().iter().rev() {
        let share = shares[id.index()].unwrap_or(0);
        for input in graph.dependencies(id) {
            join(&mut shares, input, share);
        }
    }
    shares.into_iter().map(|share| share.unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use super::*;
    use crate::config::Pressure;
    use crate::graph::Request;
    use crate::llb::{DefinitionBuilder, Edge, pb};

    /// The ids of a graph of this many sources.
    fn vertices(count: usize) -> Vec<VertexId> {
        let mut builder = DefinitionBuilder::default();
        let request = |number: usize| {
            let source = pb::SourceOp {
                identifier: format!("local://{number}"),
                ..Default::default()
            };
            let op = pb::Op {
                op: Some(pb::op::Op::Source(source)),
                ..Default::default()
            };
            let root = Edge::first(builder.add(&op, Default::default()));
            Request {
                name: String::new(),
                definition: builder.definition(Some(root)),
            }
        };
        let requests: Vec<Request> = (0..count).map(request).collect();
        let mut ids = Graph::build(&requests).expect("graph").order().to_vec();
        ids.sort();
        ids
    }

    fn admit_all(queue: &mut Queue) -> Vec<VertexId> {
        std::iter::from_fn(|| queue.admit()).collect()
    }

    #[test]
    fn the_longest_path_goes_first_and_equals_in_order() {
        let ids = vertices(5);
        let mut queue = Queue::new(&Parallelism::Fixed(NonZeroUsize::MIN), 5, Vec::new());
        queue.push(ids[0], OpKind::Exec);
        queue.push(ids[1], OpKind::Exec);
        // Known late: what waits already is put in order too.
        queue.prioritise(vec![1, 5, 9, 5, 2]);
        for &id in &ids[2..] {
            queue.push(id, OpKind::Exec);
        }
        let mut order = Vec::new();
        while let Some(id) = queue.admit() {
            assert_eq!(queue.admit(), None, "one at a time");
            order.push(id);
            queue.release(id, OpKind::Exec);
        }
        assert_eq!(order, [2, 1, 3, 4, 0].map(|number| ids[number]));
    }

    #[test]
    fn kinds_do_not_take_each_others_places() {
        let ids = vertices(30);
        let mut queue = Queue::new(&Parallelism::Fixed(NonZeroUsize::MIN), 30, Vec::new());
        for (number, &id) in ids.iter().enumerate() {
            queue.push(id, [OpKind::Exec, OpKind::File, OpKind::Source][number % 3]);
        }
        assert_eq!(admit_all(&mut queue).len(), 1 + EDITS + 10);
    }

    #[test]
    fn places_go_to_the_target_that_has_fewest() {
        let ids = vertices(12);
        let two = NonZeroUsize::MIN.saturating_add(1);
        // Ten steps of one target with long ways before them, two of another with short ones.
        let shares = (0..12).map(|number| if number < 10 { 1 } else { 2 }).collect();
        let mut queue = Queue::new(&Parallelism::Fixed(two), 12, shares);
        queue.prioritise(
            (0..12)
                .map(|number| if number < 10 { 100 - number } else { 1 })
                .collect(),
        );
        for &id in &ids {
            queue.push(id, OpKind::Exec);
        }
        assert_eq!(admit_all(&mut queue), [ids[0], ids[10]]);
        queue.release(ids[0], OpKind::Exec);
        assert_eq!(admit_all(&mut queue), [ids[1]], "each keeps its place");
        queue.release(ids[10], OpKind::Exec);
        assert_eq!(admit_all(&mut queue), [ids[11]]);
        queue.release(ids[11], OpKind::Exec);
        assert_eq!(
            admit_all(&mut queue),
            [ids[2]],
            "who is done leaves its place to others"
        );
    }

    #[derive(Debug)]
    struct Never;

    impl Pressure for Never {
        fn has_room(&self) -> bool {
            false
        }
    }

    #[test]
    fn an_idle_machine_is_given_more_and_more_and_a_busy_one_no_more() {
        let ids = vertices(20);
        let parallelism = Parallelism::Auto {
            cores: NonZeroUsize::MIN,
            pressure: Arc::new(Never),
        };
        let mut queue = Queue::new(&parallelism, 20, Vec::new());
        for &id in &ids {
            queue.push(id, OpKind::Exec);
        }
        let mut counts = vec![admit_all(&mut queue).len()];
        for _ in 0..3 {
            assert!(queue.wants_room());
            queue.grant();
            counts.push(admit_all(&mut queue).len());
        }
        assert_eq!(counts, [1, 1, 2, 4]);
        queue.hold();
        assert!(admit_all(&mut queue).is_empty());
        queue.grant();
        assert_eq!(
            admit_all(&mut queue).len(),
            1,
            "after a busy moment it begins small again"
        );
        for _ in 0..9 {
            queue.release(ids[0], OpKind::Exec);
        }
        assert!(!queue.wants_room(), "the cores themselves need no grant");
        assert_eq!(admit_all(&mut queue).len(), 1);
    }
}

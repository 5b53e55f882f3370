//! From definitions to a checked [`Graph`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use petgraph::graph::DiGraph;
use petgraph::visit::EdgeRef;
use prost::Message;

use super::check::{self, Flaw};
use super::{EdgeId, Graph, GraphError, Location, Request, SourceFile, Target, Vertex, VertexId, name};
use crate::llb::{VertexDigest, merge_metadata, pb};

/// Builds the graph of all requests.
pub(super) fn load(requests: &[Request]) -> Result<Graph, GraphError> {
    let mut loader = Loader::default();
    let mut targets = Vec::with_capacity(requests.len());
    for request in requests {
        let ops = decode(request)?;
        targets.push(Target {
            name: request.name.clone(),
            edge: loader.add(&request.name, ops, &request.definition)?,
        });
    }
    loader.finish(targets)
}

/// The ops of one definition; the last one is the terminal.
struct Ops {
    ops: Vec<(VertexDigest, pb::Op)>,
}

/// Finds the field of an op that newer BuildKits know and our protobuf does not.
#[derive(Clone, PartialEq, prost::Message)]
struct NewerOp {
    #[prost(bytes = "vec", optional, tag = "8")]
    passthrough: Option<Vec<u8>>,
}

fn decode(request: &Request) -> Result<Ops, GraphError> {
    let target = || request.name.clone();
    let mut ops = Vec::with_capacity(request.definition.def.len());
    for (index, bytes) in request.definition.def.iter().enumerate() {
        let digest = VertexDigest::of(bytes);
        let undecodable = |source| GraphError::Undecodable {
            target: target(),
            index,
            digest,
            source,
        };
        let op = pb::Op::decode(bytes.as_slice()).map_err(undecodable)?;
        let newer = op.op.is_none()
            && NewerOp::decode(bytes.as_slice())
                .map_err(undecodable)?
                .passthrough
                .is_some();
        let last = index + 1 == request.definition.def.len();
        if newer || (op.op.is_none() && !last && !op.inputs.is_empty()) {
            return Err(GraphError::UnknownOp {
                target: target(),
                digest,
            });
        }
        ops.push((digest, op));
    }
    if let Some((_, terminal)) = ops.last() {
        if let Some(op) = &terminal.op {
            let kind = kind_name(op);
            return Err(GraphError::TerminalIsWork { target: target(), kind });
        }
        if terminal.inputs.len() != 1 {
            let inputs = terminal.inputs.len();
            return Err(GraphError::NoTerminal {
                target: target(),
                inputs,
            });
        }
    }
    Ok(Ops { ops })
}

fn kind_name(op: &pb::op::Op) -> &'static str {
    match op {
        pb::op::Op::Exec(_) => "exec",
        pb::op::Op::Source(_) => "source",
        pb::op::Op::File(_) => "file",
        pb::op::Op::Build(_) => "build",
        pb::op::Op::Merge(_) => "merge",
        pb::op::Op::Diff(_) => "diff",
    }
}

/// A vertex while definitions are still being merged into it.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) digest: VertexDigest,
    pub(super) op: pb::op::Op,
    pub(super) platform: Option<pb::Platform>,
    pub(super) constraints: Vec<String>,
    pub(super) inputs: Vec<(VertexId, i64)>,
    pub(super) metadata: Option<pb::OpMetadata>,
    pub(super) locations: Vec<Location>,
    /// The request that brought it first, for messages.
    pub(super) target: String,
}

#[derive(Default)]
pub(super) struct Loader {
    drafts: Vec<Draft>,
    by_digest: HashMap<VertexDigest, VertexId>,
    files: HashSet<Arc<SourceFile>>,
}

impl Loader {
    /// Adds what the terminal op reaches and gives the edge it points at.
    fn add(&mut self, target: &str, ops: Ops, definition: &pb::Definition) -> Result<Option<EdgeId>, GraphError> {
        let mut ops = ops.ops;
        let Some((_, terminal)) = ops.pop() else {
            return Ok(None);
        };
        let mut local: HashMap<VertexDigest, usize> = HashMap::with_capacity(ops.len());
        for (index, (digest, op)) in ops.iter().enumerate() {
            if op.op.is_some() {
                local.insert(*digest, index);
            }
        }
        let result = &terminal.inputs[0];
        let dangling = |vertex: String, input: usize, wanted: &str| GraphError::DanglingInput {
            target: target.to_owned(),
            vertex,
            input,
            wanted: wanted.to_owned(),
        };
        let parse = |input: &pb::Input| {
            let digest = input.digest.parse::<VertexDigest>().ok()?;
            local.get(&digest).map(|&index| (digest, index))
        };
        let root = parse(result).ok_or_else(|| dangling("the result".to_owned(), 0, &result.digest))?;

        // First give every reachable op its id, then fill them in: an op's inputs may follow it in the list.
        let mut reached = vec![root];
        let mut seen = HashSet::from([root.1]);
        let mut position = 0;
        while let Some(&(_, index)) = reached.get(position) {
            position += 1;
            for (number, input) in ops[index].1.inputs.iter().enumerate() {
                let found = parse(input).ok_or_else(|| {
                    let vertex = ops[index]
                        .1
                        .op
                        .as_ref()
                        .map(|op| self.name(op, None, &[]))
                        .unwrap_or_default();
                    dangling(vertex, number, &input.digest)
                })?;
                if seen.insert(found.1) {
                    reached.push(found);
                }
            }
        }
        let locations = self.locations(definition);
        let mut fresh = Vec::new();
        for &(digest, index) in reached.iter().rev() {
            let metadata = definition.metadata.get(&digest.to_string());
            let places = locations.get(&digest).map_or(&[][..], Vec::as_slice);
            if let Some(&known) = self.by_digest.get(&digest) {
                self.drafts[known.index()].merge(metadata, places);
                continue;
            }
            let Some(op) = ops[index].1.op.take() else {
                continue; // Only ops that do something are in `local`.
            };
            let id = VertexId(u32::try_from(self.drafts.len()).map_err(|_| GraphError::TooLarge)?);
            self.by_digest.insert(digest, id);
            let constraints = ops[index].1.constraints.take();
            self.drafts.push(Draft {
                digest,
                op,
                platform: ops[index].1.platform.take(),
                constraints: constraints.map(|constraints| constraints.filter).unwrap_or_default(),
                inputs: Vec::new(),
                metadata: metadata.cloned(),
                locations: places.to_vec(),
                target: target.to_owned(),
            });
            fresh.push((id, index));
        }
        for (id, index) in fresh {
            let inputs = ops[index].1.inputs.iter().filter_map(|input| {
                let (digest, _) = parse(input)?;
                Some((*self.by_digest.get(&digest)?, input.index))
            });
            self.drafts[id.index()].inputs = inputs.collect();
        }
        let vertex = self.by_digest[&root.0];
        // Checked against the vertex's outputs in `finish`; a negative one can be refused at once.
        let output = usize::try_from(result.index).map_err(|_| GraphError::NoSuchOutput {
            target: target.to_owned(),
            vertex: "the result".to_owned(),
            of: self.draft_name(vertex),
            output: result.index,
            outputs: 1,
        })?;
        Ok(Some(EdgeId { vertex, output }))
    }

    #[cfg(test)]
    pub(super) fn push(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    fn name(&self, op: &pb::op::Op, metadata: Option<&pb::OpMetadata>, inputs: &[String]) -> String {
        name::vertex_name(op, metadata, |index| {
            usize::try_from(index)
                .ok()
                .and_then(|index| inputs.get(index))
                .map(String::as_str)
        })
    }

    fn draft_name(&self, id: VertexId) -> String {
        let draft = &self.drafts[id.index()];
        self.name(&draft.op, draft.metadata.as_ref(), &[])
    }

    fn locations(&mut self, definition: &pb::Definition) -> HashMap<VertexDigest, Vec<Location>> {
        let Some(source) = &definition.source else {
            return HashMap::new();
        };
        let mut files = Vec::with_capacity(source.infos.len());
        for info in &source.infos {
            let file = Arc::new(SourceFile {
                filename: info.filename.clone(),
                language: info.language.clone(),
                data: info.data.clone(),
            });
            // Platforms of one target bring the same file; its text is kept once.
            let file = match self.files.get(&file) {
                Some(known) => known.clone(),
                None => {
                    self.files.insert(file.clone());
                    file
                }
            };
            files.push(file);
        }
        let mut found = HashMap::with_capacity(source.locations.len());
        for (digest, locations) in &source.locations {
            let Ok(digest) = digest.parse::<VertexDigest>() else {
                continue;
            };
            let places = locations.locations.iter().filter_map(|location| {
                let file = files.get(usize::try_from(location.source_index).ok()?)?;
                Some(Location {
                    file: file.clone(),
                    ranges: location.ranges.clone(),
                })
            });
            found.insert(digest, places.collect());
        }
        found
    }

    /// Checks the drafts and turns them into the graph.
    pub(super) fn finish(self, targets: Vec<Target>) -> Result<Graph, GraphError> {
        let mut dag: DiGraph<(), ()> = DiGraph::with_capacity(self.drafts.len(), self.drafts.len());
        for _ in &self.drafts {
            dag.add_node(());
        }
        let mut edges = HashSet::new();
        for (index, draft) in self.drafts.iter().enumerate() {
            edges.clear();
            for &(input, _) in &draft.inputs {
                if edges.insert(input) {
                    dag.add_edge(input.node(), VertexId(index as u32).node(), ());
                }
            }
        }
        let order: Vec<VertexId> = match petgraph::algo::toposort(&dag, None) {
            Ok(order) => order.into_iter().map(|node| VertexId(node.index() as u32)).collect(),
            Err(cycle) => {
                let start = VertexId(cycle.node_id().index() as u32);
                return Err(self.cycle(&dag, start));
            }
        };
        let mut names: Vec<String> = vec![String::new(); self.drafts.len()];
        for &id in &order {
            let draft = &self.drafts[id.index()];
            let inputs: Vec<String> = match &draft.op {
                pb::op::Op::Merge(_) | pb::op::Op::Diff(_) => draft
                    .inputs
                    .iter()
                    .map(|(input, _)| names[input.index()].clone())
                    .collect(),
                _ => Vec::new(),
            };
            names[id.index()] = self.name(&draft.op, draft.metadata.as_ref(), &inputs);
        }
        let mut outputs = Vec::with_capacity(self.drafts.len());
        for (draft, name) in self.drafts.iter().zip(&names) {
            outputs.push(check::check(&draft.op, draft.inputs.len()).map_err(|flaw| draft.flaw(flaw, name))?);
        }
        for target in &targets {
            if let Some(edge) = target.edge.filter(|edge| edge.output >= outputs[edge.vertex.index()]) {
                return Err(GraphError::NoSuchOutput {
                    target: target.name.clone(),
                    vertex: "the result".to_owned(),
                    of: names[edge.vertex.index()].clone(),
                    output: edge.output as i64,
                    outputs: outputs[edge.vertex.index()],
                });
            }
        }
        let mut vertices = Vec::with_capacity(self.drafts.len());
        for (index, draft) in self.drafts.into_iter().enumerate() {
            vertices.push(Arc::new(draft.finish(&names, &outputs, index)?));
        }
        Ok(Graph {
            dag: dag.map(|node, ()| vertices[node.index()].clone(), |_, ()| ()),
            by_digest: self.by_digest,
            order,
            targets,
        })
    }

    /// Walks back from a vertex of a cycle until a vertex comes again.
    fn cycle(&self, dag: &DiGraph<(), ()>, start: VertexId) -> GraphError {
        // `toposort` names some vertex of the cycle's component; only inputs that can reach `start` again are followed.
        let mut parent = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([start]);
        let mut last = start;
        'search: while let Some(id) = queue.pop_front() {
            for edge in dag.edges(id.node()) {
                let next = VertexId(edge.target().index() as u32);
                if next == start {
                    last = id;
                    break 'search;
                }
                if let std::collections::btree_map::Entry::Vacant(entry) = parent.entry(next) {
                    entry.insert(id);
                    queue.push_back(next);
                }
            }
        }
        let mut vertices = vec![self.draft_name(start)];
        let mut id = last;
        while id != start {
            vertices.push(self.draft_name(id));
            match parent.get(&id) {
                Some(&before) => id = before,
                None => break,
            }
        }
        vertices.push(self.draft_name(start));
        vertices.reverse();
        GraphError::Cycle { vertices }
    }
}

impl Draft {
    fn merge(&mut self, metadata: Option<&pb::OpMetadata>, places: &[Location]) {
        if let Some(metadata) = metadata {
            merge_metadata(self.metadata.get_or_insert_default(), metadata.clone());
        }
        for place in places {
            if !self.locations.contains(place) {
                self.locations.push(place.clone());
            }
        }
    }

    fn flaw(&self, flaw: Flaw, name: &str) -> GraphError {
        let (target, vertex) = (self.target.clone(), name.to_owned());
        match flaw {
            Flaw::Missing(what) => GraphError::Incomplete { target, vertex, what },
            Flaw::Index { what, index, limit } => GraphError::BadIndex {
                target,
                vertex,
                what,
                index,
                limit,
            },
        }
    }

    fn finish(self, names: &[String], outputs: &[usize], index: usize) -> Result<Vertex, GraphError> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for &(vertex, output) in &self.inputs {
            let limit = outputs[vertex.index()];
            let output = usize::try_from(output).ok().filter(|&output| output < limit);
            let Some(output) = output else {
                return Err(GraphError::NoSuchOutput {
                    target: self.target,
                    vertex: names[index].clone(),
                    of: names[vertex.index()].clone(),
                    output: self.inputs[inputs.len()].1,
                    outputs: limit,
                });
            };
            inputs.push(EdgeId { vertex, output });
        }
        let metadata = self.metadata.unwrap_or_default();
        Ok(Vertex {
            digest: self.digest,
            op: self.op,
            platform: self.platform,
            constraints: self.constraints,
            name: names[index].clone(),
            inputs,
            outputs: outputs[index],
            ignore_cache: metadata.ignore_cache,
            description: metadata.description,
            progress_group: metadata.progress_group,
            locations: self.locations,
        })
    }
}

//! The build graph: every vertex that the requested results need, once, over all targets and platforms.
//!
//! ```text
//! Request{name, definition} ─┐                       ┌─► vertices, inputs before users
//! Request{name, definition} ─┼─ load ─ merge by ─────┤
//!            …               ┘  vertex digest        └─► targets: name → edge (or nothing, for scratch)
//! ```
//! Definitions come from our frontends, from files and from the network, so nothing in them is trusted: every index is
//! checked here and nowhere later, and no walk recurses, since a chain may have a hundred thousand steps.

mod check;
mod error;
mod load;
mod name;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

pub use error::GraphError;

use crate::llb::{VertexDigest, pb};

/// A vertex's place in one [`Graph`]; meaningless in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(u32);

impl VertexId {
    /// Its position, below [`Graph::len`]; for tables beside the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    fn node(self) -> NodeIndex {
        NodeIndex::new(self.index())
    }
}

/// One numbered output of a vertex of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId {
    /// Who makes it.
    pub vertex: VertexId,
    /// Which of its outputs; checked to exist.
    pub output: usize,
}

/// What kind of work a vertex is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpKind {
    /// Runs a process.
    Exec,
    /// Brings something in: an image, a repository, a local directory.
    Source,
    /// Edits a tree: copy, mkfile, mkdir, rm, symlink.
    File,
    /// Solves a definition found in an input.
    Build,
    /// Lays inputs over each other.
    Merge,
    /// The change from one input to another.
    Diff,
}

/// A file that vertices came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceFile {
    /// Its name as the user gave it.
    pub filename: String,
    /// Its language, such as `Dockerfile`; may be empty.
    pub language: String,
    /// Its text.
    pub data: Vec<u8>,
}

/// Lines of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Which file.
    pub file: Arc<SourceFile>,
    /// Which lines of it, counted from 1.
    pub ranges: Vec<pb::Range>,
}

/// One operation and what is known about it without running anything.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// The sha256 of its op; names it within a solve and in events.
    pub digest: VertexDigest,
    /// What it does; all its indices are checked.
    pub op: pb::op::Op,
    /// For which platform, when that matters.
    pub platform: Option<pb::Platform>,
    /// What the worker must be able to do (BuildKit's constraint filters).
    pub constraints: Vec<String>,
    /// The name people see: the custom one, else one made from the op.
    pub name: String,
    /// What it reads, in the order the op counts them.
    pub inputs: Vec<EdgeId>,
    /// How many outputs it has.
    pub outputs: usize,
    /// Run it even when a result is known.
    pub ignore_cache: bool,
    /// Free remarks from the frontend.
    pub description: BTreeMap<String, String>,
    /// Shown under this heading.
    pub progress_group: Option<pb::ProgressGroup>,
    /// Where it was written.
    pub locations: Vec<Location>,
}

impl Vertex {
    /// What kind of work it is.
    pub fn kind(&self) -> OpKind {
        match &self.op {
            pb::op::Op::Exec(_) => OpKind::Exec,
            pb::op::Op::Source(_) => OpKind::Source,
            pb::op::Op::File(_) => OpKind::File,
            pb::op::Op::Build(_) => OpKind::Build,
            pb::op::Op::Merge(_) => OpKind::Merge,
            pb::op::Op::Diff(_) => OpKind::Diff,
        }
    }

    /// Its platform as `os/arch[/variant]`, if it has one.
    pub fn platform_text(&self) -> Option<String> {
        self.platform.as_ref().map(platform_text)
    }
}

/// Writes a platform as `os/arch[/variant]`.
pub fn platform_text(platform: &pb::Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

/// A result someone wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// For people and in the result: `app`, `app linux/arm64`.
    pub name: String,
    /// What leads to it; its last op points at the result. Without ops it is scratch.
    pub definition: pb::Definition,
}

/// A requested result in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The request's name.
    pub name: String,
    /// What is wanted; `None` is scratch.
    pub edge: Option<EdgeId>,
}

/// The merged graph; immutable once built.
#[derive(Clone, Debug)]
pub struct Graph {
    dag: DiGraph<Arc<Vertex>, ()>,
    by_digest: HashMap<VertexDigest, VertexId>,
    order: Vec<VertexId>,
    targets: Vec<Target>,
}

impl Graph {
    /// Merges the definitions of all requests.
    ///
    /// # Errors
    /// [`GraphError`] naming the target and the vertex when a definition makes no sense.
    pub fn build(requests: &[Request]) -> Result<Self, GraphError> {
        load::load(requests)
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there is nothing to do: all targets are scratch.
    pub fn is_empty(&self) -> bool {
        self.dag.node_count() == 0
    }

    /// A vertex.
    pub fn vertex(&self, id: VertexId) -> &Arc<Vertex> {
        &self.dag[id.node()]
    }

    /// Finds a vertex by its digest.
    pub fn find(&self, digest: &VertexDigest) -> Option<VertexId> {
        self.by_digest.get(digest).copied()
    }

    /// All vertices, inputs before their users.
    pub fn order(&self) -> &[VertexId] {
        &self.order
    }

    /// The users of a vertex; one that uses two outputs of it comes once.
    pub fn dependents(&self, id: VertexId) -> impl Iterator<Item = VertexId> + '_ {
        self.dag
            .neighbors_directed(id.node(), Direction::Outgoing)
            .map(|node| VertexId(node.index() as u32))
    }

    /// The vertices that a vertex reads; one read twice comes once.
    pub fn dependencies(&self, id: VertexId) -> impl Iterator<Item = VertexId> + '_ {
        self.dag
            .neighbors_directed(id.node(), Direction::Incoming)
            .map(|node| VertexId(node.index() as u32))
    }

    /// The same vertices with something else requested, and all of them content with known results.
    pub(crate) fn cached_with_targets(&self, targets: Vec<Target>) -> Self {
        let mut graph = self.clone();
        graph.targets = targets;
        for vertex in graph.dag.node_weights_mut().filter(|vertex| vertex.ignore_cache) {
            Arc::make_mut(vertex).ignore_cache = false;
        }
        graph
    }

    /// What was requested, in the order of the requests.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }
}

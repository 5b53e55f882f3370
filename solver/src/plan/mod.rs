//! A graph as data for other programs: the plan of a solve, and definitions as files.

use std::io::{self, Write};

use prost::Message;
use serde::Serialize;

use crate::graph::{Graph, OpKind};
use crate::llb::pb;

mod dump;

pub use dump::dump_llb;

/// What a solve would have to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is wanted, in the order of the requests.
    pub targets: Vec<PlanTarget>,
    /// Inputs before their users.
    pub vertices: Vec<PlanVertex>,
}

/// A wanted result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanTarget {
    /// The request's name.
    pub name: String,
    /// What gives it; `None` is scratch.
    pub result: Option<PlanEdge>,
}

/// One output of a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanEdge {
    /// The vertex's digest.
    pub vertex: String,
    /// Which output.
    pub output: usize,
}

/// A vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanVertex {
    /// Its digest, `sha256:…`.
    pub digest: String,
    /// What people see.
    pub name: String,
    /// What kind of work it is.
    pub kind: OpKind,
    /// `os/arch[/variant]` when it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// What it reads.
    pub inputs: Vec<PlanEdge>,
    /// It runs even when a result is known.
    pub ignore_cache: bool,
}

impl Plan {
    /// The plan of a graph.
    pub fn new(graph: &Graph) -> Self {
        let edge = |edge: &crate::graph::EdgeId| PlanEdge {
            vertex: graph.vertex(edge.vertex).digest.to_string(),
            output: edge.output,
        };
        let target = |target: &crate::graph::Target| PlanTarget {
            name: target.name.clone(),
            result: target.edge.as_ref().map(edge),
        };
        let vertex = |&id: &crate::graph::VertexId| {
            let vertex = graph.vertex(id);
            PlanVertex {
                digest: vertex.digest.to_string(),
                name: vertex.name.clone(),
                kind: vertex.kind(),
                platform: vertex.platform_text(),
                inputs: vertex.inputs.iter().map(edge).collect(),
                ignore_cache: vertex.ignore_cache,
            }
        };
        Self {
            targets: graph.targets().iter().map(target).collect(),
            vertices: graph.order().iter().map(vertex).collect(),
        }
    }
}

/// Decodes the bytes of a definition, as `buildctl` and `docker buildx` pass them around.
///
/// # Errors
/// [`prost::DecodeError`] when they are none. Whether the definition makes sense is for [`Graph::build`] to say.
pub fn read_definition(bytes: &[u8]) -> Result<pb::Definition, prost::DecodeError> {
    pb::Definition::decode(bytes)
}

/// Encodes a definition; equal definitions give equal bytes.
///
/// # Errors
/// What `out` says.
pub fn write_definition(definition: &pb::Definition, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&definition.encode_to_vec())
}

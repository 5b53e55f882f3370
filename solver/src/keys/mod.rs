//! Cache keys: what finds an old result, and the parts they are made of so that a difference can be explained.
//!
//! ```text
//! definition key = H(op, definition keys of inputs, pins of sources)     known before anything runs
//! content key    = H(op, digests of what the op sees of each input)      known once the inputs are
//! op key         = H(op)                                                 finds the last run, to compare with
//! ```
//! A content key sees through the paths that lead to the content and through everything that an input has and the op
//! does not look at, so a changed input matters to the steps that can see the change and to no other.

mod content;
mod describe;
mod explain;
mod parts;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use cbs_store::CacheKey;

pub(crate) use content::{ContentInput, Outputs, ViewError, Views, content_key, note_outputs};
pub use explain::{ChangedTree, Explanation, SeenPaths, explain, explain_against};
pub use parts::{Difference, KeyParts, Part, PartValue, PartsError, differences};

use crate::executor::SourcePin;
use crate::graph::Vertex;
use crate::llb::pb;
use describe::{Form, Resolve, Seen, describe};

/// The note that names the run which a run was compared with.
pub(crate) const EARLIER_NOTE: &str = "earlier run";

/// The key of a source: what it denotes. How it is written does not matter: a tag and a digest of one image share it.
pub(crate) fn source_key(vertex: &Vertex, pin: &SourcePin) -> (CacheKey, KeyParts) {
    let mut parts = KeyParts::default();
    parts.text("operation", "source");
    if let pb::op::Op::Source(source) = &vertex.op {
        let scheme = source.identifier.split_once("://").map_or("", |(scheme, _)| scheme);
        parts.text("scheme", scheme);
    }
    parts.text("pin", &pin.key);
    (parts.key("cbs.definition-key.v1"), parts)
}

/// The definition key of a vertex that is no source; `inputs` has the definition key of each input's vertex.
pub(crate) fn definition_key(vertex: &Vertex, inputs: &[CacheKey]) -> CacheKey {
    let mut resolve = DefinitionResolve { vertex, inputs };
    let Ok(parts) = describe(vertex, Form::Definition, &mut resolve);
    parts.key("cbs.definition-key.v1")
}

/// The key of the op alone, whatever its inputs: finds the last run of the same step.
pub(crate) fn op_key(vertex: &Vertex) -> CacheKey {
    let mut resolve = DefinitionResolve { vertex, inputs: &[] };
    let Ok(parts) = describe(vertex, Form::Definition, &mut resolve);
    parts.key("cbs.op-key.v1")
}

/// The inputs whose layers stay below those of the result.
pub(crate) fn base_inputs(vertex: &Vertex) -> Vec<usize> {
    let mut collect = BaseInputs(Vec::new());
    let Ok(_) = describe(vertex, Form::Content, &mut collect);
    collect.0
}

struct BaseInputs(Vec<usize>);

impl Resolve for BaseInputs {
    type Error = Infallible;

    fn resolve(&mut self, _: &mut KeyParts, input: Option<usize>, seen: &Seen<'_>) -> Result<[u8; 32], Infallible> {
        if *seen == Seen::Base {
            self.0.extend(input);
        }
        Ok([0; 32])
    }
}

struct DefinitionResolve<'a> {
    vertex: &'a Vertex,
    inputs: &'a [CacheKey],
}

impl Resolve for DefinitionResolve<'_> {
    type Error = Infallible;

    fn resolve(&mut self, _: &mut KeyParts, input: Option<usize>, _: &Seen<'_>) -> Result<[u8; 32], Infallible> {
        let key = input.and_then(|input| {
            let key = self.inputs.get(input)?;
            Some(content::edge_key(key, self.vertex.inputs.get(input)?.output))
        });
        Ok(key.unwrap_or_default())
    }
}

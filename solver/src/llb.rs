//! LLB as bytes: vertices are encoded ops named by the sha256 of those bytes, and a definition lists the ones a
//! result needs, inputs first.
//!
//! ```text
//! pb::Op ── encode ──► bytes ── sha256 ──► VertexDigest ── named by ──► inputs of later ops
//!                                              │
//!          OpMetadata, source ranges ──────────┘   (never part of the digest)
//! ```
//! Equal ops give equal bytes, so adding an op twice gives one vertex. Map fields are sorted by key and fields by
//! number, which is also what BuildKit's deterministic marshalling does.
//!
//! ```
//! use cbs_solver::llb::{DefinitionBuilder, Edge};
//! use cbs_solver::pb;
//!
//! let mut builder = DefinitionBuilder::default();
//! let source = pb::SourceOp { identifier: "docker-image://docker.io/library/alpine:3".into(), ..Default::default() };
//! let op = pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() };
//! let vertex = builder.add(&op, pb::OpMetadata::default());
//! let definition = builder.definition(Some(Edge::first(vertex)));
//! assert_eq!(definition.def.len(), 2, "the source and the terminal op");
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use prost::Message;
use sha2::{Digest as _, Sha256};

pub use bollard_buildkit_proto::pb;

/// The description key that holds the name people see for a vertex.
pub const CUSTOM_NAME: &str = "llb.customname";

/// The sha256 of an encoded op: names a vertex within a solve, and is no cache key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexDigest([u8; 32]);

impl VertexDigest {
    /// The digest of an op's encoded bytes.
    pub fn of(encoded: &[u8]) -> Self {
        Self(Sha256::digest(encoded).into())
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in self.0 {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VertexDigest({})", &self.to_string()[7..19])
    }
}

/// A text that should have named a vertex and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a vertex digest (`sha256:` and 64 lower-case hex digits)")]
pub struct ParseVertexDigestError {
    /// The text as given.
    pub text: String,
}

impl FromStr for VertexDigest {
    type Err = ParseVertexDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseVertexDigestError { text: text.to_owned() };
        let hex = text
            .strip_prefix("sha256:")
            .filter(|hex| hex.len() == 64)
            .ok_or_else(bad)?;
        let mut bytes = [0_u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            *byte = nibble(pair[0])
                .zip(nibble(pair[1]))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

/// One numbered output of a vertex, as another vertex's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The vertex that makes the output.
    pub vertex: VertexDigest,
    /// Which of its outputs.
    pub output: i64,
}

impl Edge {
    /// Output 0 of a vertex: the only one of sources and file ops, the root of an exec.
    pub fn first(vertex: VertexDigest) -> Self {
        Self { vertex, output: 0 }
    }

    /// The edge as it is written in an op's inputs.
    pub fn to_input(self) -> pb::Input {
        pb::Input {
            digest: self.vertex.to_string(),
            index: self.output,
        }
    }
}

/// The definition with another result: one edge of the vertices it has.
#[must_use]
pub fn with_result(definition: &pb::Definition, result: Edge) -> pb::Definition {
    let mut definition = definition.clone();
    let terminal = pb::Op {
        inputs: vec![result.to_input()],
        ..Default::default()
    };
    definition.def.pop();
    definition.def.push(terminal.encode_to_vec());
    definition
}

/// A handle to a source file that [`DefinitionBuilder::add_source_info`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceIndex(usize);

/// Collects vertices, and writes the definition of any of them.
///
/// One builder may serve several results (platforms, targets): each [`definition`](Self::definition) holds just what
/// its root reaches.
#[derive(Clone, Debug, Default)]
pub struct DefinitionBuilder {
    vertices: Vec<Vertex>,
    by_digest: HashMap<VertexDigest, usize>,
    sources: Vec<pb::SourceInfo>,
}

#[derive(Clone, Debug)]
struct Vertex {
    digest: VertexDigest,
    encoded: Vec<u8>,
    /// Positions in `vertices`; an input that was never added has none and is left dangling for the solver to report.
    inputs: Vec<usize>,
    metadata: pb::OpMetadata,
    locations: Vec<(SourceIndex, Vec<pb::Range>)>,
}

impl DefinitionBuilder {
    /// Adds an op, or finds the equal one added before, in which case the metadata is merged into it
    /// (see [`merge_metadata`]). Inputs are added before the ops that use them.
    pub fn add(&mut self, op: &pb::Op, metadata: pb::OpMetadata) -> VertexDigest {
        self.add_encoded(op.encode_to_vec(), &op.inputs, metadata)
    }

    fn add_encoded(&mut self, encoded: Vec<u8>, inputs: &[pb::Input], metadata: pb::OpMetadata) -> VertexDigest {
        let digest = VertexDigest::of(&encoded);
        if let Some(&known) = self.by_digest.get(&digest) {
            merge_metadata(&mut self.vertices[known].metadata, metadata);
            return digest;
        }
        let inputs = inputs
            .iter()
            .filter_map(|input| input.digest.parse::<VertexDigest>().ok())
            .filter_map(|input| self.by_digest.get(&input).copied())
            .collect();
        self.by_digest.insert(digest, self.vertices.len());
        self.vertices.push(Vertex {
            digest,
            encoded,
            inputs,
            metadata,
            locations: Vec::new(),
        });
        digest
    }

    /// Adds what a definition holds, with its metadata and source locations, and returns the output it is for; `None`
    /// when it is empty.
    ///
    /// # Errors
    /// [`prost::DecodeError`] when an op of it cannot be read; what came before it stays added.
    pub fn import(&mut self, definition: &pb::Definition) -> Result<Option<Edge>, prost::DecodeError> {
        let Some((terminal, ops)) = definition.def.split_last() else {
            return Ok(None);
        };
        let source = definition.source.clone().unwrap_or_default();
        let sources: Vec<SourceIndex> = source
            .infos
            .into_iter()
            .map(|info| self.add_source_info(info))
            .collect();
        for encoded in ops {
            let op = pb::Op::decode(&encoded[..])?;
            let name = VertexDigest::of(encoded).to_string();
            let metadata = definition.metadata.get(&name).cloned().unwrap_or_default();
            // The bytes are kept as they are: fields unknown here are part of the digest too.
            let vertex = self.add_encoded(encoded.clone(), &op.inputs, metadata);
            for location in source
                .locations
                .get(&name)
                .map(|all| all.locations.as_slice())
                .unwrap_or_default()
            {
                let index = usize::try_from(location.source_index)
                    .ok()
                    .and_then(|index| sources.get(index));
                if let Some(&index) = index {
                    self.add_location(vertex, index, location.ranges.clone());
                }
            }
        }
        let terminal = pb::Op::decode(&terminal[..])?;
        let input = terminal.inputs.first();
        Ok(input.and_then(|input| {
            Some(Edge {
                vertex: input.digest.parse().ok()?,
                output: input.index,
            })
        }))
    }

    /// Takes a source file whose ranges vertices may point at; an equal file is kept once.
    pub fn add_source_info(&mut self, info: pb::SourceInfo) -> SourceIndex {
        if let Some(known) = self.sources.iter().position(|other| *other == info) {
            return SourceIndex(known);
        }
        self.sources.push(info);
        SourceIndex(self.sources.len() - 1)
    }

    /// Says which lines of a source file made a vertex. A vertex may have several; unknown vertices are ignored.
    pub fn add_location(&mut self, vertex: VertexDigest, source: SourceIndex, ranges: Vec<pb::Range>) {
        if let Some(&known) = self.by_digest.get(&vertex) {
            let locations = &mut self.vertices[known].locations;
            if !locations
                .iter()
                .any(|(other, there)| *other == source && *there == ranges)
            {
                locations.push((source, ranges));
            }
        }
    }

    /// The number of distinct vertices added so far.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Writes what `root` reaches, inputs before users, and the terminal op with `root` as its one input last.
    /// Without a root (an image from scratch that holds nothing) the definition is empty.
    pub fn definition(&self, root: Option<Edge>) -> pb::Definition {
        let Some(root) = root else {
            return pb::Definition::default();
        };
        let mut definition = pb::Definition::default();
        let mut locations = BTreeMap::new();
        for index in self.reachable(root) {
            let vertex = &self.vertices[index];
            definition.def.push(vertex.encoded.clone());
            definition
                .metadata
                .insert(vertex.digest.to_string(), vertex.metadata.clone());
            if !vertex.locations.is_empty() {
                locations.insert(vertex.digest.to_string(), encode_locations(&vertex.locations));
            }
        }
        let terminal = pb::Op {
            inputs: vec![root.to_input()],
            ..Default::default()
        }
        .encode_to_vec();
        let caps = ["constraints", "platform"].map(|cap| (cap.to_owned(), true));
        let metadata = pb::OpMetadata {
            caps: BTreeMap::from(caps),
            ..Default::default()
        };
        definition
            .metadata
            .insert(VertexDigest::of(&terminal).to_string(), metadata);
        definition.def.push(terminal);
        definition.source = Some(pb::Source {
            locations,
            infos: self.sources.clone(),
        });
        definition
    }

    /// Positions of everything below `root`, in the order a depth-first walk leaves them. The walk keeps its own
    /// stack: a chain of a hundred thousand steps must not overflow the thread's.
    fn reachable(&self, root: Edge) -> Vec<usize> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        let mut stack: Vec<(usize, usize)> = Vec::new();
        if let Some(&start) = self.by_digest.get(&root.vertex) {
            seen.insert(start);
            stack.push((start, 0));
        }
        while let Some((vertex, next)) = stack.pop() {
            match self.vertices[vertex].inputs.get(next) {
                Some(&input) => {
                    stack.push((vertex, next + 1));
                    if seen.insert(input) {
                        stack.push((input, 0));
                    }
                }
                None => order.push(vertex),
            }
        }
        order
    }
}

fn encode_locations(locations: &[(SourceIndex, Vec<pb::Range>)]) -> pb::Locations {
    let locations = locations
        .iter()
        .map(|(source, ranges)| pb::Location {
            source_index: i32::try_from(source.0).unwrap_or(i32::MAX),
            ranges: ranges.clone(),
        })
        .collect();
    pb::Locations { locations }
}

/// Merges the metadata of an op that was added again: `ignore_cache` sticks, descriptions and the rest take the
/// later value.
pub fn merge_metadata(into: &mut pb::OpMetadata, other: pb::OpMetadata) {
    into.ignore_cache |= other.ignore_cache;
    into.description.extend(other.description);
    into.caps.extend(other.caps);
    if other.export_cache.is_some() {
        into.export_cache = other.export_cache;
    }
    if other.progress_group.is_some() {
        into.progress_group = other.progress_group;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str) -> pb::Op {
        let source = pb::SourceOp {
            identifier: identifier.into(),
            ..Default::default()
        };
        pb::Op {
            op: Some(pb::op::Op::Source(source)),
            ..Default::default()
        }
    }

    fn merge(inputs: &[VertexDigest]) -> pb::Op {
        let merge = pb::MergeOp {
            inputs: (0..inputs.len())
                .map(|input| pb::MergeInput { input: input as i64 })
                .collect(),
        };
        pb::Op {
            inputs: inputs.iter().map(|&vertex| Edge::first(vertex).to_input()).collect(),
            op: Some(pb::op::Op::Merge(merge)),
            ..Default::default()
        }
    }

    fn named(name: &str) -> pb::OpMetadata {
        pb::OpMetadata {
            description: BTreeMap::from([(CUSTOM_NAME.into(), name.into())]),
            ..Default::default()
        }
    }

    #[test]
    fn equal_ops_are_one_vertex_with_merged_metadata() {
        let mut builder = DefinitionBuilder::default();
        let first = builder.add(&source("local://a"), named("one"));
        let again = builder.add(
            &source("local://a"),
            pb::OpMetadata {
                ignore_cache: true,
                ..named("two")
            },
        );
        assert_eq!((first, builder.len()), (again, 1));
        let definition = builder.definition(Some(Edge::first(first)));
        let metadata = &definition.metadata[&first.to_string()];
        assert!(metadata.ignore_cache);
        assert_eq!(metadata.description[CUSTOM_NAME], "two");
    }

    #[test]
    fn a_definition_holds_what_its_root_reaches_inputs_first() {
        let mut builder = DefinitionBuilder::default();
        let a = builder.add(&source("local://a"), named("a"));
        let b = builder.add(&source("local://b"), named("b"));
        builder.add(&source("local://unused"), named("unused"));
        let both = builder.add(&merge(&[b, a]), named("both"));
        let definition = builder.definition(Some(Edge::first(both)));
        let order: Vec<_> = definition.def.iter().map(|op| VertexDigest::of(op)).collect();
        assert_eq!(order[..3], [b, a, both]);
        assert_eq!(
            pb::Op::decode(&definition.def[3][..]).expect("decode").inputs,
            [Edge::first(both).to_input()]
        );
    }

    #[test]
    fn an_imported_definition_is_the_same_again() {
        let mut builder = DefinitionBuilder::default();
        let a = builder.add(&source("local://a"), named("a"));
        let both = builder.add(&merge(&[a, a]), named("both"));
        let file = builder.add_source_info(pb::SourceInfo {
            filename: "f".into(),
            ..Default::default()
        });
        builder.add_location(both, file, vec![pb::Range::default()]);
        let definition = builder.definition(Some(Edge::first(both)));
        let mut other = DefinitionBuilder::default();
        let root = other.import(&definition).expect("decodes");
        assert_eq!(root, Some(Edge::first(both)));
        assert_eq!(other.definition(root), definition);
        assert_eq!(other.import(&pb::Definition::default()), Ok(None));
    }

    #[test]
    fn no_root_is_an_empty_definition() {
        assert_eq!(DefinitionBuilder::default().definition(None), pb::Definition::default());
    }

    #[test]
    fn a_long_chain_does_not_overflow() {
        let mut builder = DefinitionBuilder::default();
        let mut last = builder.add(&source("local://a"), named("a"));
        for _ in 0..50_000 {
            last = builder.add(&merge(&[last]), pb::OpMetadata::default());
        }
        assert_eq!(builder.definition(Some(Edge::first(last))).def.len(), 50_002);
    }

    #[test]
    fn digests_print_and_parse() {
        let digest = VertexDigest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for bad in ["", "sha256:", &text[..70], &text.to_uppercase(), "sha512:00"] {
            assert!(bad.parse::<VertexDigest>().is_err(), "{bad}");
        }
    }
}

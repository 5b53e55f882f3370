//! What can be wrong with a definition.

use crate::llb::VertexDigest;

/// A definition that is no graph; the message names the target and the vertex.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// An op's bytes are no op.
    #[error("target `{target}`: op {index} ({digest}) cannot be decoded")]
    Undecodable {
        /// The request's name.
        target: String,
        /// Its position in the definition.
        index: usize,
        /// The digest of its bytes.
        digest: VertexDigest,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// The last op does not point at one result.
    #[error("target `{target}`: the definition's last op must have no operation and one input, not {inputs} inputs")]
    NoTerminal {
        /// The request's name.
        target: String,
        /// How many inputs the last op has.
        inputs: usize,
    },
    /// The last op does something instead of pointing at the result.
    #[error("target `{target}`: the definition ends with a `{kind}` op, not with the one that points at the result")]
    TerminalIsWork {
        /// The request's name.
        target: String,
        /// The op's kind.
        kind: &'static str,
    },
    /// An op of a kind this program does not know.
    #[error("target `{target}`: op {digest} is of a kind that is not supported")]
    UnknownOp {
        /// The request's name.
        target: String,
        /// Its digest.
        digest: VertexDigest,
    },
    /// An input names an op that the definition does not have.
    #[error("target `{target}`: input {input} of `{vertex}` is `{wanted}`, which the definition does not have")]
    DanglingInput {
        /// The request's name.
        target: String,
        /// The name of the op.
        vertex: String,
        /// Which input.
        input: usize,
        /// The digest as written.
        wanted: String,
    },
    /// An input names an output that the op does not have.
    #[error("target `{target}`: `{vertex}` wants output {output} of `{of}`, which has {outputs}")]
    NoSuchOutput {
        /// The request's name.
        target: String,
        /// The name of the op.
        vertex: String,
        /// The name of the input op.
        of: String,
        /// The output asked for.
        output: i64,
        /// How many it has.
        outputs: usize,
    },
    /// A number inside an op points nowhere.
    #[error("target `{target}`: {what} {index} of `{vertex}` does not exist (there are {limit})")]
    BadIndex {
        /// The request's name.
        target: String,
        /// The name of the op.
        vertex: String,
        /// What is counted, such as `mount input`.
        what: &'static str,
        /// The number.
        index: i64,
        /// How many there are.
        limit: usize,
    },
    /// Something an op must have is not there.
    #[error("target `{target}`: `{vertex}` has no {what}")]
    Incomplete {
        /// The request's name.
        target: String,
        /// The name of the op.
        vertex: String,
        /// What is missing.
        what: &'static str,
    },
    /// Vertices need each other.
    #[error("the graph has a cycle: {}", .vertices.join(" → "))]
    Cycle {
        /// The names of those in it, the first again at the end.
        vertices: Vec<String>,
    },
    /// More vertices than can be counted.
    #[error("the graph has too many vertices")]
    TooLarge,
}

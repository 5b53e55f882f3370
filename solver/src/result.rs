//! What a solve gives: snapshots, what was decided for each vertex, and failures with all a person needs.

use std::fmt;
use std::time::Duration;

use cbs_store::{BlobDigest, CacheKey, Snapshot};

use crate::executor::{FailureKind, StepError};
use crate::graph::Location;
use crate::keys::Difference;
use crate::llb::VertexDigest;

/// What a solve gave.
#[derive(Clone, Debug, Default)]
pub struct SolveResult {
    /// One per target that was reached, in the order of the requests; all of them unless something failed.
    pub targets: Vec<TargetResult>,
    /// How much was done and saved.
    pub stats: Stats,
    /// What was decided for each vertex, inputs before their users.
    pub decisions: Vec<Decided>,
}

/// A reached target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetResult {
    /// The request's place among the requests.
    pub number: usize,
    /// The request's name.
    pub name: String,
    /// What it is; `None` is scratch.
    pub snapshot: Option<Snapshot>,
}

/// Counts of vertices by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Ran to their end.
    pub ran: usize,
    /// Were known.
    pub cached: usize,
    /// Were not looked at, since everything that needs them was known.
    pub unneeded: usize,
    /// Failed.
    pub failed: usize,
    /// Were needed and did not get to run, because of a failure or the end of the solve.
    pub abandoned: usize,
}

/// What was decided for one vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Which.
    pub vertex: VertexDigest,
    /// Its name.
    pub name: String,
    /// What.
    pub decision: Decision,
    /// The key its result is remembered under, when it has one.
    pub key: Option<CacheKey>,
    /// How long it ran; zero when it did not.
    pub duration: Duration,
}

/// How a vertex came to its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A source's tree was known by what it denotes.
    Pinned,
    /// The same operations on the same sources were done before.
    DefinitionHit,
    /// The same operation on inputs with the same content was done before.
    ContentHit,
    /// This remote cache had it.
    RemoteHit(String),
    /// Someone else did it while this solve waited: another process, or a vertex with the same key.
    Shared,
    /// It ran.
    Ran(Reason),
    /// Nobody needed it.
    Unneeded,
    /// It failed, or something it needs did.
    Failed,
    /// The solve ended before it was decided.
    Abandoned,
}

/// Why a vertex ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller or the definition said not to use known results.
    CacheRefused,
    /// Nothing like it ran before, as far as this store remembers.
    FirstTime,
    /// It ran before and its key has changed since.
    Changed {
        /// The key of the last run of the same op, or else of a step of the same name.
        earlier: CacheKey,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// Its result was known, and its bytes, which are not here, were needed.
    BytesMissing,
}

/// A failed vertex with all that helps to understand it.
#[derive(Debug)]
pub struct StepFailure {
    /// Which.
    pub vertex: VertexDigest,
    /// Its name.
    pub name: String,
    /// Where it was written.
    pub locations: Vec<Location>,
    /// The last lines it printed.
    pub log_tail: Vec<String>,
    /// All it printed, as a stored log ([`LogReader`](crate::LogReader)) and its size; kept from gc by the solve's lease
    /// only. `None` when it printed nothing.
    pub log: Option<(BlobDigest, u64)>,
    /// What happened.
    pub error: StepError,
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.name, self.error)
    }
}

impl std::error::Error for StepFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// A solve that did not reach all its targets.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// Steps failed; the message is that of the first.
    #[error("{}", first(.failures))]
    Failed {
        /// In the order they happened; more than one only when told to keep going.
        failures: Vec<StepFailure>,
        /// What was reached in spite of that.
        finished: Box<SolveResult>,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

fn first(failures: &[StepFailure]) -> String {
    failures
        .first()
        .map_or_else(|| "no step failed".to_owned(), ToString::to_string)
}

impl SolveError {
    /// The class of the first failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Failed { failures, .. } => failures.first().map_or(FailureKind::Internal, |first| first.error.kind),
            Self::Cancelled => FailureKind::Cancelled,
        }
    }
}

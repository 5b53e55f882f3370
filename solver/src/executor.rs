//! The seam to whatever does the work: the solver decides, an [`Executor`] runs ops and brings sources in.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use cbs_store::{Lease, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::graph::Vertex;
use crate::log::LogSink;
use crate::progress::Progress;

/// A boxed future, so that [`Executor`] can be a trait object.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs ops. Called from async workers: blocking work inside goes to blocking threads.
///
/// Both calls watch [`Step::cancel`] and end soon after it fires, with [`FailureKind::Cancelled`]; a call that does not
/// is dropped a moment later. Dropping a future must undo what it began: no process, mount or half-written thing
/// remains.
pub trait Executor: Send + Sync + 'static {
    /// What a source denotes now: an image's manifest digest, a commit, the digest of a local directory's files. Asked
    /// once per solve and source vertex, also when everything is cached, so it is quick and moves little.
    ///
    /// # Errors
    /// [`StepError`], with [`FailureKind::MissingSource`] when it denotes nothing.
    fn pin(&self, step: Step) -> BoxFuture<'_, Result<SourcePin, StepError>>;

    /// Runs the op, or for a source brings the bytes of what [`Executor::pin`] named into the store; `step.pin` has
    /// that answer. `inputs` has one snapshot per input of the op, with all bytes in the store; `None` is the empty
    /// tree. The answer has one snapshot per output of the op ([`Vertex::outputs`]), complete and recorded in the
    /// store; `None` is the empty tree.
    ///
    /// # Errors
    /// [`StepError`]; nothing of a failed step is kept.
    fn run(&self, step: Step, inputs: Vec<Option<Snapshot>>)
    -> BoxFuture<'_, Result<Vec<Option<Snapshot>>, StepError>>;
}

/// One vertex being worked on; cheap to clone.
#[derive(Clone, Debug)]
pub struct Step {
    /// What to do.
    pub vertex: Arc<Vertex>,
    /// For the run of a source: what `pin` said.
    pub pin: Option<Arc<SourcePin>>,
    /// Fires when the result is no longer wanted.
    pub cancel: CancellationToken,
    /// Takes what the step prints.
    pub log: LogSink,
    /// Takes how far the step is, and warnings.
    pub progress: Progress,
    /// Keeps what the step makes from gc until the solve's caller is done; without one, the executor's own lease does.
    pub lease: Option<Arc<Lease>>,
}

/// What a source denotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePin {
    /// Names the content and everything else that shapes the resulting tree (a file's name and mode for http, the
    /// subdirectory for git); equal bytes mean equal trees. Starts with a versioned tag of the executor's own.
    pub key: Vec<u8>,
    /// What it is, for people: `sha256:…`, a commit.
    pub text: String,
    /// The tree when its directories are in the store, though the bytes of its files may not be. What `run` then gives
    /// must be this very tree: a directory that changed in between is a failed step.
    pub snapshot: Option<Snapshot>,
}

/// Why a step failed, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The process ended with this code.
    ExitCode(i32),
    /// The process was ended by this signal.
    Signal(i32),
    /// The process was ended for lack of memory.
    OutOfMemory,
    /// It took longer than it may.
    Timeout,
    /// A file, image, commit or secret that is not there.
    MissingSource,
    /// A file named by the definition is not in its tree.
    NotFound,
    /// What arrived is not what a checksum promised.
    Mismatch,
    /// The other side could not be reached or broke off.
    Network,
    /// Credentials or permissions are missing.
    Denied,
    /// The op asks for something this machine or program cannot do.
    Unsupported,
    /// The op makes no sense.
    Invalid,
    /// Stopped because the result is no longer wanted.
    Cancelled,
    /// The store or the operating system failed.
    System,
    /// A bug.
    Internal,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Timeout => f.write_str("timed out"),
            Self::MissingSource => f.write_str("missing source"),
            Self::NotFound => f.write_str("not found"),
            Self::Mismatch => f.write_str("checksum mismatch"),
            Self::Network => f.write_str("network"),
            Self::Denied => f.write_str("denied"),
            Self::Unsupported => f.write_str("unsupported"),
            Self::Invalid => f.write_str("invalid"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::System => f.write_str("system"),
            Self::Internal => f.write_str("internal error"),
        }
    }
}

/// A step's failure as the executor reports it; the solver adds the vertex, its lines and its log.
#[derive(Debug)]
pub struct StepError {
    /// What class of failure.
    pub kind: FailureKind,
    /// What happened, in lower case, naming the thing: ``process `make` did not complete successfully: exit code: 2``.
    pub message: String,
    /// The cause.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StepError {
    /// A failure without a deeper cause.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// A failure caused by another.
    pub fn caused(
        kind: FailureKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The answer to a fired [`Step::cancel`].
    pub fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "cancelled")
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn Error + 'static) = source.as_ref();
            source
        })
    }
}

impl From<cbs_store::StoreError> for StepError {
    fn from(source: cbs_store::StoreError) -> Self {
        Self::caused(FailureKind::System, "the store failed", source)
    }
}

//! What the scheduler knows of each vertex, and what it says to and hears from the tasks that work for it.

use std::sync::Arc;
use std::time::Duration;

use cbs_store::{BlobDigest, CacheKey, Realisation, Snapshot, StoreError};

use crate::config::Need;
use crate::executor::{SourcePin, StepError};
use crate::graph::VertexId;
use crate::index::KeyGuard;
use crate::keys::{ContentInput, KeyParts, Outputs, ViewError};
use crate::result::{Decision, Reason};

/// Where a vertex is on its way; the diagram is in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody asked for it.
    Idle,
    /// Asked for; a source below it is not pinned yet.
    AwaitKey,
    /// Its definition key is being looked up.
    Looking,
    /// Its inputs' digests are not all known.
    AwaitInputs,
    /// Its content key is being made and looked up.
    Keying,
    /// Its content key needs directories of an input that are not here.
    AwaitContent,
    /// Remote caches are being asked.
    AskingRemotes,
    /// It must run; its inputs' bytes are not all here.
    AwaitBytes,
    /// Whether the bytes of its known result are here is being checked.
    Checking,
    /// Another process may be working on its key.
    Locking,
    /// Another vertex of this solve works on the same key.
    Following,
    /// Waits for a place to run.
    Queued,
    /// Runs.
    Running,
    /// Its result is known, as far as `reached` says.
    Settled,
    /// It or something it needs failed.
    Failed,
}

/// Who is told when a vertex comes as far as they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A vertex that reads it.
    Vertex(VertexId),
    /// The caller.
    Target,
}

/// A content key with what it was made from.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    pub(super) key: CacheKey,
    pub(super) parts: KeyParts,
    /// The inputs' outputs at that time; when an input is made again and differs, the key is made again.
    pub(super) inputs: Vec<Arc<[Option<Snapshot>]>>,
}

/// One vertex.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// The most that anyone needs of it.
    pub(super) wanted: Option<Need>,
    /// How much of it there is.
    pub(super) reached: Option<Need>,
    /// It must run even when a result is known.
    pub(super) refused: bool,
    /// It or something below is `refused`: its definition key may name a result of other inputs.
    pub(super) tainted: bool,
    /// Distinct inputs whose definition key is not known.
    pub(super) keyless: usize,
    pub(super) definition_key: Option<CacheKey>,
    pub(super) pin: Option<Arc<SourcePin>>,
    pub(super) keyed: Option<Keyed>,
    pub(super) outputs: Option<Outputs>,
    /// Distinct inputs awaited in this phase.
    pub(super) waiting: usize,
    pub(super) waiters: Vec<(Waiter, Need)>,
    pub(super) followers: Vec<VertexId>,
    pub(super) guard: Option<KeyGuard>,
    /// Bytes of a known result are missing and needed as far as this.
    pub(super) restoring: Option<Need>,
    /// While restoring: the bytes were looked for again after the inputs came back.
    pub(super) rechecked: bool,
    /// It ran to bring back bytes as far as this.
    pub(super) restored: Option<Need>,
    pub(super) reason: Option<Reason>,
    pub(super) decision: Option<Decision>,
    pub(super) duration: Duration,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Idle,
            wanted: None,
            reached: None,
            refused: false,
            tainted: false,
            keyless: 0,
            definition_key: None,
            pin: None,
            keyed: None,
            outputs: None,
            waiting: 0,
            waiters: Vec::new(),
            followers: Vec::new(),
            guard: None,
            restoring: None,
            rechecked: false,
            restored: None,
            reason: None,
            decision: None,
            duration: Duration::ZERO,
        }
    }
}

/// Work that the machine wants done; each is answered by the [`Message`] named here.
#[derive(Debug)]
pub(super) enum Command {
    /// Ask what a source denotes. [`Message::Pinned`]
    Pin(VertexId),
    /// Look a definition key up. [`Message::Looked`]
    Look(VertexId, CacheKey),
    /// Make a content key and look it up. [`Message::Keyed`]
    Key {
        vertex: VertexId,
        inputs: Vec<ContentInput>,
        lookup: Lookup,
        /// Learns where the content is found.
        definition_key: CacheKey,
    },
    /// Ask remote caches. [`Message::Asked`]
    AskRemotes {
        vertex: VertexId,
        /// The content key, then the definition key.
        keys: [CacheKey; 2],
    },
    /// Check whether the bytes of a result are here, or can be fetched. [`Message::Checked`]
    Check {
        vertex: VertexId,
        snapshots: Arc<[Option<Snapshot>]>,
        need: Need,
    },
    /// Wait for the lock of a key and look the key up again. [`Message::Locked`]
    Lock {
        vertex: VertexId,
        key: CacheKey,
        /// A result counts only when this much of it is here.
        restoring: Option<Need>,
    },
    /// Run the vertex and remember what it gave. [`Message::Ran`]
    Run(Box<RunOrder>),
    /// Let a definition key find what a content key finds. Not answered.
    Alias(CacheKey, CacheKey),
    /// Read how long execs took before. [`Message::Estimated`]
    Estimate(Vec<VertexId>),
}

/// Whether a content key is only made, or looked up as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A known result may be used.
    Yes,
    /// The vertex runs in any case.
    No,
}

/// All that running a vertex takes.
#[derive(Debug)]
pub(super) struct RunOrder {
    pub(super) vertex: VertexId,
    pub(super) pin: Option<Arc<SourcePin>>,
    pub(super) inputs: Vec<Option<Snapshot>>,
    pub(super) definition_key: CacheKey,
    /// What the result is remembered under: the content key, or the definition key of a source.
    pub(super) key: CacheKey,
    pub(super) parts: KeyParts,
    pub(super) guard: Option<KeyGuard>,
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Message {
    Pinned(VertexId, Result<SourcePin, Failed>),
    Looked(Vec<(VertexId, Result<Option<Realisation>, StoreError>)>),
    Keyed(VertexId, Result<KeyAnswer, ViewError>),
    Asked(VertexId, Option<(String, Realisation)>),
    Checked(VertexId, Need, Result<bool, StoreError>),
    Locked(VertexId, Result<LockAnswer, StepError>),
    Ran(VertexId, Result<RunAnswer, Failed>),
    Estimated(Vec<(VertexId, Duration)>),
    /// A command that is not answered is done.
    Done,
}

/// A failure with the end of the step's log.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: StepError,
    pub(crate) log_tail: Vec<String>,
    pub(crate) log: Option<(BlobDigest, u64)>,
}

impl From<StepError> for Failed {
    fn from(error: StepError) -> Self {
        Self {
            error,
            log_tail: Vec::new(),
            log: None,
        }
    }
}

/// What came of making a content key.
#[derive(Debug)]
pub(super) enum KeyAnswer {
    /// A result is known.
    Found(CacheKey, Realisation),
    /// None is, or none was looked for.
    Missing {
        keyed: Keyed,
        reason: Reason,
        lookup: Lookup,
    },
}

/// A taken lock.
#[derive(Debug)]
pub(super) struct LockAnswer {
    pub(super) guard: KeyGuard,
    /// What another process made in the meantime.
    pub(super) found: Option<Realisation>,
}

/// A vertex that ran.
#[derive(Debug)]
pub(super) struct RunAnswer {
    pub(super) outputs: Outputs,
    pub(super) duration: Duration,
}

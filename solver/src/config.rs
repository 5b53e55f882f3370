//! What a solve is told and given.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use cbs_store::{CacheKey, Lease, Realisation, Snapshot, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::events::{Clock, EventSender, SystemClock};
use crate::executor::{BoxFuture, Executor, StepError};
use crate::index::{Index, StoreIndex};

/// How long a cancelled step may take to end by itself before it is dropped.
pub const CANCEL_GRACE: Duration = Duration::from_millis(75);

/// What a solve is told by its caller.
#[derive(Clone, Debug)]
pub struct SolveConfig {
    /// How many execs run at once. Sources and file ops do not count.
    pub parallelism: Parallelism,
    /// What the first failure means for the rest.
    pub on_failure: OnFailure,
    /// Whether known results may be used.
    pub cache: CacheUse,
    /// What must be in the store for the targets when the solve ends.
    pub need: Need,
    /// How long a cancelled step may take to end by itself; usually [`CANCEL_GRACE`].
    pub cancel_grace: Duration,
}

/// How many execs run at once.
#[derive(Clone, Debug)]
pub enum Parallelism {
    /// This many.
    Fixed(NonZeroUsize),
    /// As many as there are cores, and more while the machine is not busy.
    Auto {
        /// Admitted without asking.
        cores: NonZeroUsize,
        /// Asked before more are admitted.
        pressure: Arc<dyn Pressure>,
    },
}

/// How busy the machine is.
pub trait Pressure: Send + Sync + fmt::Debug {
    /// Whether more work would find an idle processor and enough memory, judged by what happened since the last call.
    /// Quick: called from an async worker.
    fn has_room(&self) -> bool;
}

/// What the first failure means for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Everything else is cancelled.
    Stop,
    /// What does not need the failed step goes on.
    KeepGoing,
}

/// Whether known results may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// Look up, and remember.
    ReadWrite,
    /// Run everything, and remember (`--no-cache`). Sources are still known by their pins.
    WriteOnly,
}

/// How much of a result must be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Its digests.
    Digests,
    /// All bytes of its tree.
    Tree,
    /// All bytes of its tree and of each of its layers, for exporters that write layers.
    Layers,
}

/// A cache elsewhere, asked after the store and before running.
pub trait RemoteCache: Send + Sync + fmt::Debug {
    /// What it is called in decisions and messages.
    fn name(&self) -> &str;

    /// Looks for any of the keys, the best first. A found realisation's directories are in the store when this
    /// returns; the bytes of its files need not be.
    ///
    /// # Errors
    /// [`StepError`], which is shown as a warning and counts as nothing found.
    fn find(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<Option<Realisation>, StepError>>;

    /// Brings the bytes of a snapshot into the store; `false` when it does not have them.
    ///
    /// # Errors
    /// As [`RemoteCache::find`].
    fn fetch(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<bool, StepError>>;
}

/// The services a solve uses; cloning is cheap.
#[derive(Clone)]
pub struct Ctx {
    /// What is known and stored.
    pub index: Arc<dyn Index>,
    /// Does the work.
    pub executor: Arc<dyn Executor>,
    /// Asked in this order.
    pub remotes: Vec<Arc<dyn RemoteCache>>,
    /// Hears what happens.
    pub events: EventSender,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
    /// Handed to steps, and whose scratch long logs spill into.
    pub lease: Option<Arc<Lease>>,
    /// Fires when nobody wants the result any more.
    pub cancel: CancellationToken,
}

impl Ctx {
    /// The services of a solve over a store, with a fresh lease and nobody listening; set the other fields as needed.
    ///
    /// # Errors
    /// [`StoreError`] when the lease cannot be taken.
    pub fn over_store(store: Store, executor: Arc<dyn Executor>) -> Result<Self, StoreError> {
        let lease = Arc::new(store.lease()?);
        Ok(Self {
            index: Arc::new(StoreIndex {
                store,
                lease: lease.clone(),
            }),
            executor,
            remotes: Vec::new(),
            events: EventSender::discard(),
            clock: Arc::new(SystemClock),
            lease: Some(lease),
            cancel: CancellationToken::new(),
        })
    }
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("remotes", &self.remotes)
            .finish_non_exhaustive()
    }
}

//! The build graph of cbs: LLB vertices, cache keys and the scheduler.
//!
//! ```text
//! pb::Definition per target ── Graph::build ──► Graph ── solve(ctx, graph, config) ──► SolveResult
//!                                                          │        ▲
//!                                        Executor::pin/run ┘        └ Index: realisations, locks, trees
//! ```
//! Start at [`Graph`] and [`Executor`]. Definitions are written with [`llb`]. Nothing here knows Dockerfiles, images or
//! mounts, and nothing here runs a process: that is an [`Executor`].

mod blocking;
mod config;
mod events;
mod executor;
mod graph;
mod index;
mod keys;
pub mod llb;
mod log;
mod plan;
mod pressure;
mod progress;
mod result;
mod scheduler;

pub use cbs_store::patterns;
pub use config::{CANCEL_GRACE, CacheUse, Ctx, Need, OnFailure, Parallelism, Pressure, RemoteCache, SolveConfig};
pub use events::{
    Clock, Event, EventReceiver, EventSender, LOG_BUDGET, Outcome, Status, Stream, SystemClock, VertexAdded, Warning,
    channel,
};
pub use executor::{BoxFuture, Executor, FailureKind, SourcePin, Step, StepError};
pub use graph::{
    EdgeId, Graph, GraphError, Location, OpKind, Request, SourceFile, Target, Vertex, VertexId, platform_text,
};
pub use index::{Index, KeyGuard, MemoryIndex, StoreIndex};
pub use keys::{Difference, KeyParts, Part, PartValue, PartsError, differences};
pub use llb::pb;
pub use log::{LogReader, LogRecord, LogSink};
pub use plan::{Plan, PlanEdge, PlanTarget, PlanVertex, dump_llb, read_definition, write_definition};
pub use pressure::LinuxPressure;
pub use progress::Progress;
pub use result::{Decided, Decision, Reason, SolveError, SolveResult, Stats, StepFailure, TargetResult};
pub use scheduler::solve;

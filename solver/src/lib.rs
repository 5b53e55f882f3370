//! The build graph of cbs: LLB vertices, cache keys and the scheduler.
//!
//! ```text
//! pb::Definition per target ── Graph::build ──► Graph ── solve(ctx, graph, config) ──► SolveResult
//!                                                          │        ▲
//!                                        Executor::pin/run ┘        └ Index: realisations, locks, trees
//! ```
//! A result is looked up by its definition, then by what the op sees of its inputs, then in caches elsewhere; only then
//! does it run. How a vertex moves is told in `scheduler`, what keys are made of in `keys`.
//!
//! Start at [`Graph`], [`solve`] and [`Executor`]. Definitions are written with [`llb`]. [`forecast`] tells what a solve
//! would do, [`explain`] why a step ran. Nothing here knows Dockerfiles, images or mounts, and nothing here runs a
//! process: that is an [`Executor`].
//!
//! ```
//! use std::sync::Arc;
//! use cbs_solver::llb::{DefinitionBuilder, Edge};
//! use cbs_solver::*;
//! use cbs_store::{Directory, DirectoryStore, Snapshot};
//!
//! /// Knows one source: the empty tree.
//! struct Empty(MemoryIndex);
//!
//! impl Executor for Empty {
//!     fn pin(&self, _: Step) -> BoxFuture<'_, Result<SourcePin, StepError>> {
//!         Box::pin(async { Ok(SourcePin { key: b"empty.v1".to_vec(), text: "empty".into(), snapshot: None }) })
//!     }
//!     fn run(
//!         &self,
//!         _: Step,
//!         _: Vec<Option<Snapshot>>,
//!     ) -> BoxFuture<'_, Result<Vec<Option<Snapshot>>, StepError>> {
//!         Box::pin(async {
//!             let tree = self.0.put_directory(Directory::empty_root())?.digest;
//!             Ok(vec![Some(Snapshot { tree, layers: Vec::new() })])
//!         })
//!     }
//! }
//!
//! let mut builder = DefinitionBuilder::default();
//! let source = pb::SourceOp { identifier: "empty://".into(), ..Default::default() };
//! let op = pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() };
//! let vertex = builder.add(&op, Default::default());
//! let definition = builder.definition(Some(Edge::first(vertex)));
//! let graph = Arc::new(Graph::build(&[Request { name: "app".into(), definition }])?);
//!
//! let index = MemoryIndex::default();
//! let ctx = Ctx {
//!     index: Arc::new(index.clone()),
//!     executor: Arc::new(Empty(index)),
//!     remotes: Vec::new(),
//!     events: EventSender::discard(),
//!     clock: Arc::new(SystemClock),
//!     lease: None,
//!     cancel: Default::default(),
//! };
//! let config = SolveConfig {
//!     parallelism: Parallelism::Fixed(2.try_into()?),
//!     on_failure: OnFailure::Stop,
//!     cache: CacheUse::ReadWrite,
//!     need: Need::Tree,
//!     cancel_grace: CANCEL_GRACE,
//! };
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let first = runtime.block_on(solve(&ctx, &graph, &config))?;
//! let second = runtime.block_on(solve(&ctx, &graph, &config))?;
//! assert_eq!((first.stats.ran, second.stats.ran, second.stats.cached), (1, 0, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocking;
mod config;
mod events;
mod executor;
mod forecast;
mod graph;
mod index;
mod keys;
pub mod llb;
mod log;
mod plan;
mod pressure;
mod progress;
mod recheck;
mod result;
mod scheduler;

pub use cbs_store::patterns;
pub use config::{CANCEL_GRACE, CacheUse, Ctx, Need, OnFailure, Parallelism, Pressure, RemoteCache, SolveConfig};
pub use events::{
    Clock, Event, EventReceiver, EventSender, LOG_BUDGET, Outcome, Status, Stream, SystemClock, VertexAdded, Warning,
    channel,
};
pub use executor::{BoxFuture, Executor, FailureKind, SourcePin, Step, StepError};
pub use forecast::{Expected, Forecast, forecast};
pub use graph::{
    EdgeId, Graph, GraphError, Location, OpKind, Request, SourceFile, Target, Vertex, VertexId, platform_text,
};
pub use index::{Index, KeyGuard, MemoryIndex, StoreIndex};
pub use keys::{ChangedTree, Explanation, SeenPaths, explain, explain_against};
pub use keys::{Difference, KeyParts, Part, PartValue, PartsError, differences};
pub use llb::pb;
pub use log::{LogReader, LogRecord, LogSink};
pub use plan::{Plan, PlanEdge, PlanTarget, PlanVertex, dump_llb, read_definition, write_definition};
pub use pressure::LinuxPressure;
pub use progress::Progress;
pub use recheck::{Rechecked, recheck};
pub use result::{Decided, Decision, Reason, SolveError, SolveResult, Stats, StepFailure, TargetResult};
pub use scheduler::solve;

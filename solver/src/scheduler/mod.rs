//! The scheduler: one task owns all state; other tasks work for it and send it messages.
//!
//! ```text
//!  driver ── Message ──► Machine ── Command ──► driver ── spawns ──► jobs (blocking: look-ups, keys, checks)
//!     ▲                  (owns all state,                        └─► steps (async: pin, lock, run, remotes)
//!     └───────────────── no await, no lock)
//! ```
//! One vertex on its way; what is asked of it is a [`Need`]: digests, the tree's bytes, the layers' bytes.
//!
//! ```text
//!            asked           pins known        miss              all digests known       miss
//!  Idle ──────────► AwaitKey ─────────► Looking ───► AwaitInputs ─────────► Keying ◄──► AwaitContent
//!                                          │ hit          ▲   (refused, tainted: no    │ hit    │ miss
//!                                          ▼              └──── look-up by definition) ▼        ▼
//!            ┌──────────────────────── Settled ◄───────────────────────────────────────┘   AskingRemotes
//!  more is   │  ▲  ▲        ▲   bytes here  ▲ hit                                              │ miss
//!  needed    ▼  │  │        └───────────────┼──────────────────────────────────────────┐      ▼
//!         Checking ┼── bytes gone ──────────┼─────────────────────────────────────────── AwaitBytes
//!                  │                        │ made by another process                       │ all bytes here
//!                  └─── Running ◄── Queued ◄┴─ Locking ◄──────────────────────────────────────┤ (inputs changed:
//!                                                                    Following ◄──────────────┘  Keying again)
//! ```
//! Rules:
//! - A vertex moves only when someone needs more of it than there is. Nobody needs the inputs of a vertex that is
//!   found by its definition, so a cached result starts and fetches nothing; only pins are always asked for.
//! - Digests of an input are enough to look for a result; its bytes are asked for only when the vertex runs.
//! - A vertex waits for counted inputs only, and every input that is waited for is on its way or has failed: a phase
//!   that awaits something has asked for it.
//! - A result found by content is made known under the definition too, so that the next solve finds it at once.
//! - A vertex that refuses its cache, and all that build upon it, are not looked up by definition: their definition is
//!   the same as before, their inputs may not be. By content they are, so an equal result stops the change.
//! - Of vertices with one key, one runs and the others follow it; across processes, the lock of the key does the same.
//! - After a failure nothing new is started (or, when told to keep going, nothing that needs what failed).

mod driver;
mod jobs;
mod machine;
mod queue;
mod report;
mod state;
mod step;

use std::sync::Arc;

pub(crate) use state::Failed;
pub(crate) use step::pin;

use crate::config::{Ctx, SolveConfig};
use crate::graph::Graph;
use crate::result::{SolveError, SolveResult};

/// Brings all targets of a graph to their results.
///
/// Dropping the future cancels the solve: running steps are dropped.
///
/// # Errors
/// [`SolveError::Failed`] with each failed step, and [`SolveError::Cancelled`] soon after `ctx.cancel` fires.
pub async fn solve(ctx: &Ctx, graph: &Arc<Graph>, config: &SolveConfig) -> Result<SolveResult, SolveError> {
    driver::Driver::new(ctx.clone(), graph.clone(), config.clone())
        .solve()
        .await
}

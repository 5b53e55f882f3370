//! The executors of cbs: containers, sources and file operations.
//!
//! ```text
//! solver ─ Executor ─► LocalExecutor ─┬─ source  images, directories, git, http ─► trees
//!                                     ├─ run     exec ops ─ launch ─► containers over FUSE trees ─ ingest ─► layers
//!                                     └─ file, ops  edits of trees
//! ```
//! Start at [`LocalExecutor`]. [`launch`] is the container launcher, which knows neither LLB nor the store.

pub mod cdi;
mod config;
mod error;
mod executor;
mod file;
pub mod launch;
mod ops;
pub mod rootless;
mod run;
mod source;

pub use config::{EmulationChoice, ExecConfig, KeepFailed, SandboxConfig, SecretSource, SshSource, StepResources};
pub use executor::LocalExecutor;
pub use run::{FailedState, LeftMount, ShellProcess, UserNetwork, UserNetworkTool};
pub use source::{Pins, SourceError, pin_name};

/// Runs disk or hashing work off the async workers; a panic there is a panic here.
pub(crate) async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(err) => std::panic::resume_unwind(err.into_panic()),
    }
}

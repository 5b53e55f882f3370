//! The OCI model of cbs: configs, layers, registries and archives.
//!
//! ```text
//! reference ── source::resolve ──► manifest, config, layers ── source::pull ──► Snapshot
//! Snapshot + config ── layer, manifest ──► blobs ── export ──► oci, docker, tar, local, registry
//! ```
//! Exported bytes are a pure function of snapshot, config and options. Network code is async; all else blocks. Nothing
//! here knows LLB, reads the environment or prints.

pub mod auth;
pub mod codec;
pub mod config;
mod error;
pub mod export;
mod hash;
pub mod layer;
pub mod manifest;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
mod scratch;
pub mod source;
pub mod time;
mod trees;

pub use error::ImageError;

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

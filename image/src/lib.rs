//! The OCI model of cbs: configs, layers, registries and archives.
//!
//! ```text
//! reference ── source::resolve ──► manifest, config, layers ── source::pull ──► Snapshot
//! Snapshot + config ── layer, manifest ──► blobs ── export ──► oci, docker, tar, local, registry
//! ```
//! Start at [`source::ImageSource`] for what comes in and at [`export::assemble`] for what goes out. Exported bytes are a
//! pure function of snapshot, config and options. Network code is async; all else blocks: call it from a blocking thread.
//! Nothing here knows LLB, reads the environment (but for the proxy variables, which the HTTP client reads) or prints.
//! Programs call [`registry::install_tls_provider`] once when they start.
//!
//! ```
//! use cbs_image::platform::Platform;
//! use cbs_image::reference::Reference;
//!
//! let reference: Reference = "ubuntu:24.04".parse()?;
//! assert_eq!(reference.to_string(), "docker.io/library/ubuntu:24.04");
//! assert_eq!(reference.familiar(), "ubuntu:24.04");
//! let platform: Platform = "linux/aarch64/v8".parse()?;
//! assert_eq!(platform.to_string(), "linux/arm64");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

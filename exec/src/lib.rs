//! The executors of cbs: containers, sources and file operations.

pub mod launch;
pub mod source;

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

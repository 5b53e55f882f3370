//! The one door from async code to blocking work.

/// Runs disk or hashing work off the async workers; a panic there is a panic here.
pub(crate) async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(err) => match err.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody is left to give a value to.
            Err(_) => std::future::pending().await,
        },
    }
}

//! A request to stop, which a waiting `poll` can see.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Asks running containers to stop; clones share one request. Once cancelled it stays so.
#[derive(Clone, Debug)]
pub struct CancelHandle {
    event: Arc<OwnedFd>,
}

impl CancelHandle {
    /// A handle that is not cancelled.
    ///
    /// # Errors
    /// When the process or the system has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Kills every container that runs with this handle, and every later one at its start. Does not wait for them.
    pub fn cancel(&self) {
        // The only possible error is a full counter, and then the request is already seen.
        let _already_cancelled = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

impl AsFd for CancelHandle {
    /// Readable when cancelled. Reading it would take the request away from the others.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

//! The guard: kills the containers when this process dies in whatever way.
//!
//! `PR_SET_PDEATHSIG` alone is not enough, since the kernel takes it from a process that changes its user, as `su`
//! does. So one small process, in the same memory and with the same descriptors but not of the same process group,
//! sleeps until this one is gone, and then kills all that is on its list. The list is an array of pidfds into which
//! the kernel itself writes, as part of clone3, before a container takes its first step: there is no moment at which
//! a container runs and is not on it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::calls;
use super::raw::{self, CloneArgs};
use super::stack::{BlockedSignals, Stack};

/// Containers that can be guarded at once. Those beyond are tied to this process by the signal alone.
const PLACES: usize = 1024;

/// A place on the list that nobody has.
const FREE: i32 = -1;
/// A place that is somebody's, but not yet filled.
const TAKEN: i32 = -2;

/// What this process and its guard share.
struct Shared {
    /// A pidfd of this process.
    watched: OwnedFd,
    /// Pidfds to kill.
    places: [AtomicI32; PLACES],
}

/// A running guard. Dropping it ends it, and does no harm to the containers.
pub(in crate::launch) struct Guard {
    shared: Box<Shared>,
    pidfd: OwnedFd,
    _stack: Stack,
}

/// A place on the list; free again when dropped.
pub(super) struct Place {
    guard: Arc<Guard>,
    index: usize,
}

impl Guard {
    /// Starts a guard of this process.
    ///
    /// # Errors
    /// The kernel's answer to mmap, pidfd_open or clone3.
    pub(in crate::launch) fn start() -> io::Result<Self> {
        let watched = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let shared = Box::new(Shared {
            watched,
            places: [const { AtomicI32::new(FREE) }; PLACES],
        });
        let stack = Stack::new()?;
        let mut pidfd: RawFd = -1;
        let args = CloneArgs {
            flags: (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD) as u64,
            pidfd: &raw mut pidfd as u64,
            // No signal: whoever waits for any child of this process must not find this one.
            exit_signal: 0,
            stack: stack.base(),
            stack_size: Stack::SIZE as u64,
            ..CloneArgs::default()
        };
        let argument = std::ptr::from_ref::<Shared>(&shared) as usize;
        // The guard keeps them blocked for good.
        let signals = BlockedSignals::all()?;
        // SAFETY: `shared` (boxed, only read through shared references) and `stack` live in the `Guard`, which ends
        // the process before it frees them; `guard_main` keeps the rules of this module.
        let cloned = unsafe { raw::clone3(&args, guard_main, argument) };
        drop(signals);
        cloned.map_err(io::Error::from_raw_os_error)?;
        // SAFETY: clone3 succeeded with CLONE_PIDFD, so this is a new descriptor that nobody else knows.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self {
            shared,
            pidfd,
            _stack: stack,
        })
    }

    /// A place for one container.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let is_taken = |place: &AtomicI32| {
            place
                .compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        let index = self.shared.places.iter().position(is_taken)?;
        Some(Place {
            guard: Arc::clone(self),
            index,
        })
    }
}

impl Place {
    /// Where the kernel is to write the pidfd.
    pub(super) fn slot(&self) -> &AtomicI32 {
        &self.guard.shared.places[self.index]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slot().store(FREE, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It can only have been killed by someone else before.
        let _gone = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let args = [
            libc::P_PIDFD as usize,
            self.pidfd.as_raw_fd() as usize,
            0,
            (libc::WEXITED | libc::__WALL) as usize,
            0,
            0,
        ];
        // SAFETY: null pointers are allowed where no answer is wanted.
        while unsafe { raw::syscall(libc::SYS_waitid, args) } == Err(libc::EINTR) {}
    }
}

/// Where the guard starts.
///
/// # Safety
/// `shared` must be the address of a [`Shared`] that outlives the guard.
unsafe extern "C" fn guard_main(shared: usize) -> ! {
    // SAFETY: the caller's promise.
    let shared = unsafe { &*(shared as *const Shared) };
    // Away from the terminal's signals, and from a kill of the whole process group. Cannot fail for a new process.
    let _session = calls::setsid();
    let _named = calls::set_name(c"cbs-guard");
    while calls::wait_for_end(shared.watched.as_raw_fd()).is_err() {}
    for place in &shared.places {
        let pidfd = place.load(Ordering::Acquire);
        if pidfd >= 0 {
            // Fails for one that has just ended.
            let _gone = calls::kill(pidfd);
        }
    }
    calls::exit(0)
}

//! The birth and the end of a child.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::child::{Program, child_main};
use super::guard::{Guard, Place};
use super::raw::{self, CloneArgs};
use super::stack::{BlockedSignals, Stack};

/// A bit that the C library's constant of that name cannot hold.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How often a killed child is looked at for tracees. Almost always it ends within the first interval.
const TRACEE_INTERVAL: Duration = Duration::from_millis(10);

/// What kind of child.
#[derive(Clone, Copy, Debug)]
pub(in crate::launch) struct CloneOptions<'a> {
    /// `CLONE_NEW*` flags.
    pub(in crate::launch) namespaces: i32,
    /// The cgroup v2 directory to be born in.
    pub(in crate::launch) cgroup: Option<BorrowedFd<'a>>,
    /// Whose memory it works in until it executes its program.
    pub(in crate::launch) memory: Memory,
}

/// Whose memory the child works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::launch) enum Memory {
    /// The parent's own: nothing is copied however large the parent is.
    Shared,
    /// A copy-on-write copy, for what the kernel would apply to every process that shares the memory.
    Copied,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::launch) struct Ended {
    /// `Ok` with the exit code or `Err` with the signal that killed it.
    pub(in crate::launch) status: Result<u8, i32>,
    /// User and system time, with that of the children it waited for.
    pub(in crate::launch) cpu_time: Duration,
    /// Bytes resident at most, of the largest process.
    pub(in crate::launch) max_resident: u64,
}

/// A child that has been started. Dropping it kills it and waits for its end.
pub(in crate::launch) struct Child {
    pidfd: OwnedFd,
    pid: Pid,
    ended: Option<Ended>,
    // Both are read by the child until it executes or ends, which nobody tells apart, so they live as long as `self`.
    program: Rc<Program>,
    _stack: Stack,
    /// Its place with the guard, given back before its pidfd is closed.
    place: Option<Place>,
}

impl Child {
    /// Starts a child that runs `program`, and will be killed by `guard` should this process die.
    ///
    /// # Errors
    /// The kernel's answer to mmap or clone3.
    pub(in crate::launch) fn spawn(
        program: Program,
        options: CloneOptions<'_>,
        guard: &Arc<Guard>,
    ) -> io::Result<Self> {
        let stack = Stack::new()?;
        let place = guard.place();
        let unguarded = AtomicI32::new(-1);
        let pidfd = place.as_ref().map_or(&unguarded, Place::slot);
        let memory = match options.memory {
            Memory::Shared => libc::CLONE_VM,
            Memory::Copied => 0,
        };
        let mut args = CloneArgs {
            flags: (options.namespaces | memory | libc::CLONE_PIDFD) as u32 as u64,
            pidfd: pidfd.as_ptr() as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack.base(),
            stack_size: Stack::SIZE as u64,
            ..CloneArgs::default()
        };
        if let Some(cgroup) = options.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        let program = Rc::new(program);
        let argument = Rc::as_ptr(&program) as usize;
        let signals = BlockedSignals::all()?;
        // SAFETY: `program` and `stack` move into the `Child`, which keeps them until the child has ended (an `Rc`'s
        // content does not move), and `child_main` keeps the rules of this module.
        let cloned = unsafe { raw::clone3(&args, child_main, argument) };
        drop(signals);
        let pid = cloned.map_err(io::Error::from_raw_os_error)?;
        // SAFETY: clone3 succeeded with CLONE_PIDFD, so this is a new descriptor that nobody else knows.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd.load(Ordering::Acquire)) };
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self {
            pidfd,
            pid,
            ended: None,
            program,
            _stack: stack,
            place,
        })
    }

    /// Its process id in the parent's namespace.
    pub(in crate::launch) fn pid(&self) -> Pid {
        self.pid
    }

    /// The steps it was given.
    pub(in crate::launch) fn program(&self) -> &Program {
        &self.program
    }

    /// Kills it, and with it all processes of the pid namespace whose first process it is.
    pub(in crate::launch) fn kill(&self) {
        // Fails only when it has already been waited for.
        let _already_gone = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits for its threads that have made this process their tracer and have ended; nobody else can, and until
    /// then the kernel does not report the end of the whole.
    ///
    /// `PTRACE_TRACEME` makes the parent the tracer, asked or not, so that any program can bring this about.
    pub(in crate::launch) fn wait_for_tracees(&self) {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero()));
        for thread in threads.into_iter().flatten().flatten() {
            let number = thread.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            if let Some(number) = number.filter(|&number| number != self.pid.as_raw_nonzero().get()) {
                let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
                let args = [libc::P_PID as usize, number as usize, 0, options as usize, 0, 0];
                // SAFETY: null pointers are allowed where no answer is wanted.
                // A thread that still runs or is not traced by this process is left alone.
                let _waited = unsafe { raw::syscall(libc::SYS_waitid, args) };
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel's answer to waitid.
    pub(in crate::launch) fn wait(&mut self) -> io::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        loop {
            if poll_end(&self.pidfd, TRACEE_INTERVAL)? {
                break;
            }
            self.wait_for_tracees();
        }
        let ended = wait(self.pidfd.as_raw_fd())?;
        self.ended = Some(ended);
        Ok(ended)
    }
}

impl AsFd for Child {
    /// Its pidfd, readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
            // Nobody is left to be told; the memory below must only outlive the child, which it now does.
            let _ended = self.wait();
        }
        self.place = None;
    }
}

/// Waits for the end of a pidfd's process, but not for longer than this.
fn poll_end(pidfd: &OwnedFd, at_most: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    match poll(&mut polled, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        other => Ok(other? > 0),
    }
}

/// Waits for the process of a pidfd and takes its resource usage, which no wrapper offers together.
fn wait(pidfd: RawFd) -> io::Result<Ended> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WEXITED | libc::__WALL;
    loop {
        let args = [
            libc::P_PIDFD as usize,
            pidfd as usize,
            info.as_mut_ptr() as usize,
            options as usize,
            usage.as_mut_ptr() as usize,
            0,
        ];
        // SAFETY: both structures are of the types waitid fills, and live until it returns.
        match unsafe { raw::syscall(libc::SYS_waitid, args) } {
            Ok(_) => break,
            Err(libc::EINTR) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
    // SAFETY: all-zero bytes are valid for both, and waitid has filled them.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: waitid fills the child variant of the union.
    let status = unsafe { info.si_status() };
    let status = if info.si_code == libc::CLD_EXITED {
        Ok(status as u8)
    } else {
        Err(status)
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Ok(Ended {
        status,
        cpu_time: time(usage.ru_utime) + time(usage.ru_stime),
        max_resident: usage.ru_maxrss as u64 * 1024,
    })
}

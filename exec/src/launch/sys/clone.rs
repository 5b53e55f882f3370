//! The birth and the end of a child.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::child::{Program, child_main};
use super::raw::{self, CloneArgs};

/// Bit 32, which the C library's constant of that name cannot hold.
const CLONE_INTO_CGROUP: u64 = 1 << 32;

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
}

impl Child {
    /// Starts a child that runs `program`.
    ///
    /// # Errors
    /// The kernel's answer to mmap or clone3.
    pub(in crate::launch) fn spawn(program: Program, options: CloneOptions<'_>) -> io::Result<Self> {
        let stack = Stack::new()?;
        let mut pidfd: RawFd = -1;
        let memory = match options.memory {
            Memory::Shared => libc::CLONE_VM,
            Memory::Copied => 0,
        };
        let mut args = CloneArgs {
            flags: (options.namespaces | memory | libc::CLONE_PIDFD) as u32 as u64,
            pidfd: &raw mut pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack.base.as_ptr() as u64,
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
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self {
            pidfd,
            pid,
            ended: None,
            program,
            _stack: stack,
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

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel's answer to waitid.
    pub(in crate::launch) fn wait(&mut self) -> io::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
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

/// The child's stack, with an inaccessible page below it.
struct Stack {
    map: NonNull<libc::c_void>,
    base: NonNull<u8>,
}

impl Stack {
    /// Far more than the child needs, also without optimisation; only touched pages cost memory.
    const SIZE: usize = 256 * 1024;
    /// At least one page on every machine.
    const GUARD: usize = 64 * 1024;

    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let length = Self::GUARD + Self::SIZE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: GUARD is less than the length of the mapping just made.
        let base = unsafe { map.cast::<u8>().add(Self::GUARD) };
        let stack = Self { map, base };
        // SAFETY: the range is inside the mapping just made, which nobody else knows.
        let rc = unsafe { libc::mprotect(base.as_ptr().cast(), Self::SIZE, libc::PROT_READ | libc::PROT_WRITE) };
        if rc == 0 {
            Ok(stack)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and the child on it has ended.
        let _unmapped = unsafe { libc::munmap(self.map.as_ptr(), Self::GUARD + Self::SIZE) };
    }
}

/// Keeps all signals from this thread, so that none is handled in the child with the parent's handlers and memory.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn all() -> io::Result<Self> {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `all` and pthread_sigmask fills `before` when it succeeds.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self {
                    before: before.assume_init(),
                }),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is the set this thread had.
        let _restored = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

//! Memory for a child to stand on, and silence while it is born.

use std::io;
use std::ptr::NonNull;

/// A stack of its own for a child that shares this process's memory, with an inaccessible page below it.
pub(super) struct Stack {
    map: NonNull<libc::c_void>,
    base: NonNull<u8>,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Stack {}
// SAFETY: a shared reference to it gives nothing but the address.
unsafe impl Sync for Stack {}

impl Stack {
    /// Far more than a child needs, also without optimisation; only touched pages cost memory.
    pub(super) const SIZE: usize = 256 * 1024;
    /// At least one page on every machine.
    const GUARD: usize = 64 * 1024;

    pub(super) fn new() -> io::Result<Self> {
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

    /// The lowest address a child may use.
    pub(super) fn base(&self) -> u64 {
        self.base.as_ptr() as u64
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and the owner waits for the child on it first.
        let _unmapped = unsafe { libc::munmap(self.map.as_ptr(), Self::GUARD + Self::SIZE) };
    }
}

/// Keeps all signals from this thread, so that none is handled in the child with the parent's handlers and memory.
pub(super) struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    pub(super) fn all() -> io::Result<Self> {
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

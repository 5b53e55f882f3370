//! The system call that has no safe wrapper.
#![expect(unsafe_code, reason = "unshare has no safe wrapper in our dependencies")]

use std::io;

use rustix::thread::UnshareFlags;

/// Moves the calling process, which has one thread, into a new user namespace without any ids.
pub(super) fn unshare_user_namespace() -> io::Result<()> {
    // SAFETY: the unsafety of `unshare` is about descriptor tables; this flag touches none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(Into::into)
}

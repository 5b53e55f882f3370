//! The system calls that have no safe wrapper.
#![expect(
    unsafe_code,
    reason = "namespaces and descriptor tables have no safe wrapper in our dependencies"
)]

use std::io;

use rustix::thread::UnshareFlags;

/// Gives the calling thread a mount namespace of its own.
///
/// The caller has checked that it is the only thread of the process.
pub(crate) fn unshare_mount_namespace() -> io::Result<()> {
    // SAFETY: the unsafety of `unshare` is about descriptor tables; this flag touches none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(Into::into)
}

/// Gives the calling thread, and the threads it starts, a descriptor table with nothing but the standard streams.
///
/// From here on a descriptor number means different files here and on other threads: nothing that owns a descriptor
/// may pass between the two sides, dropping included.
pub(crate) fn private_descriptor_table() -> io::Result<()> {
    // `CLOSE_RANGE_UNSHARE` never copies the descriptors it would close, so that no pipe of another thread stays open
    // through this table, not even for a moment.
    // SAFETY: the call takes no pointers. The table that is emptied is this thread's alone, and the thread was started
    // for serving and owns no descriptor yet, which `session.rs` sees to.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

//! Byte-range locks that belong to an open file description.
//!
//! They end with the last copy of the description, so a killed process holds none, and two descriptions exclude each
//! other even within one process; classic `fcntl` locks do neither.
#![expect(unsafe_code, reason = "no dependency wraps open-file-description locks")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Who may hold the range beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockKind {
    Shared,
    Exclusive,
}

/// What to do when the range is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Block,
    No,
}

/// Locks one byte; false when it is taken and the caller would not wait.
pub(super) fn lock_byte(file: &File, offset: i64, kind: LockKind, wait: Wait) -> io::Result<bool> {
    let lock_type = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    };
    let command = match wait {
        Wait::Block => libc::F_OFD_SETLKW,
        Wait::No => libc::F_OFD_SETLK,
    };
    loop {
        let Err(err) = apply(file, command, lock_type, offset) else {
            return Ok(true);
        };
        match err.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN | libc::EACCES) if wait == Wait::No => return Ok(false),
            _ => return Err(err),
        }
    }
}

/// Gives a byte back at once, also for children that inherited the description.
pub(super) fn unlock_byte(file: &File, offset: i64) -> io::Result<()> {
    apply(file, libc::F_OFD_SETLK, libc::F_UNLCK, offset)
}

fn apply(file: &File, command: libc::c_int, lock_type: libc::c_int, offset: i64) -> io::Result<()> {
    // SAFETY: `flock` is a plain C struct for which all-zero bytes are a valid value.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = lock_type as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    request.l_start = offset;
    request.l_len = 1;
    // SAFETY: the descriptor is open for the whole call and the kernel only reads `request`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

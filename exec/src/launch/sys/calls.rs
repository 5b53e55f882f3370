//! The system calls of the child, each as a function that cannot be called wrongly.
//!
//! Descriptors are bare numbers here: the child owns its whole descriptor table and gives up what it does not close.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::raw::{Errno, syscall};

/// Makes one system call; arguments are cast, missing ones are zero.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {{
        let given: &[usize] = &[$($argument as usize),*];
        let mut args = [0_usize; 6];
        args[..given.len()].copy_from_slice(given);
        // SAFETY: each use below passes numbers, references or NUL-terminated strings that outlive the call, of the
        // types that the call reads or writes.
        unsafe { syscall($number, args) }
    }};
}

/// `AT_FDCWD` as the kernel wants it.
pub(in crate::launch) const CWD: RawFd = libc::AT_FDCWD;

/// An empty path: the call is about the descriptor itself.
const EMPTY: &CStr = c"";

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Which mount attributes to set and to clear, see mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::launch) struct MountAttributes {
    pub(in crate::launch) set: u64,
    pub(in crate::launch) clear: u64,
    pub(in crate::launch) propagation: u64,
    pub(in crate::launch) userns: u64,
}

/// A signal action as the kernel knows it; all zero is the default action.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// One half of the capability sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct FilterProgram {
    len: u16,
    filter: *const BpfInstruction,
}

/// One instruction of a classic BPF program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::launch) struct BpfInstruction {
    pub(in crate::launch) code: u16,
    pub(in crate::launch) jump_true: u8,
    pub(in crate::launch) jump_false: u8,
    pub(in crate::launch) k: u32,
}

pub(super) fn openat2(dir: RawFd, path: &CStr, flags: i32, resolve: u64) -> Result<RawFd, Errno> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve,
    };
    call!(
        libc::SYS_openat2,
        dir,
        path.as_ptr(),
        &raw const how,
        size_of::<OpenHow>()
    )
    .map(|fd| fd as RawFd)
}

pub(super) fn close(fd: RawFd) {
    // A failed close leaves nothing that the child could do about it.
    let _closed = call!(libc::SYS_close, fd);
}

pub(super) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    call!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// Waits for one byte; `false` when the other end closed instead.
pub(super) fn read_byte(fd: RawFd) -> Result<bool, Errno> {
    let mut byte = 0_u8;
    loop {
        match call!(libc::SYS_read, fd, &raw mut byte, 1) {
            Err(libc::EINTR) => {}
            other => return other.map(|count| count == 1),
        }
    }
}

pub(super) fn dup3(from: RawFd, to: RawFd, flags: i32) -> Result<(), Errno> {
    // dup3 refuses equal numbers; then only the flag is left to set.
    if from == to {
        let wanted = if flags & libc::O_CLOEXEC == 0 {
            0
        } else {
            libc::FD_CLOEXEC
        };
        return call!(libc::SYS_fcntl, from, libc::F_SETFD, wanted).map(drop);
    }
    call!(libc::SYS_dup3, from, to, flags).map(drop)
}

/// A duplicate numbered at least `least`, closed on exec.
pub(super) fn dup_above(fd: RawFd, least: RawFd) -> Result<RawFd, Errno> {
    call!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, least).map(|fd| fd as RawFd)
}

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: RawFd) -> Result<(), Errno> {
    call!(libc::SYS_close_range, first, u32::MAX, 0).map(drop)
}

pub(super) fn fsopen(fs: &CStr) -> Result<RawFd, Errno> {
    const FSOPEN_CLOEXEC: u32 = 1;
    call!(libc::SYS_fsopen, fs.as_ptr(), FSOPEN_CLOEXEC).map(|fd| fd as RawFd)
}

/// Sets a parameter of a file system to be; without a value it is a flag.
pub(super) fn fsconfig_set(fs: RawFd, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    match value {
        None => call!(libc::SYS_fsconfig, fs, SET_FLAG, key.as_ptr(), 0, 0),
        Some(value) => call!(libc::SYS_fsconfig, fs, SET_STRING, key.as_ptr(), value.as_ptr(), 0),
    }
    .map(drop)
}

pub(super) fn fsconfig_create(fs: RawFd) -> Result<(), Errno> {
    const CMD_CREATE: u32 = 6;
    call!(libc::SYS_fsconfig, fs, CMD_CREATE, 0, 0, 0).map(drop)
}

pub(super) fn fsmount(fs: RawFd, attributes: u64) -> Result<RawFd, Errno> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    call!(libc::SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes).map(|fd| fd as RawFd)
}

/// Attaches the detached mount `mount` on `target`, an open path.
pub(super) fn move_mount(mount: RawFd, target: RawFd) -> Result<(), Errno> {
    const F_EMPTY_PATH: u32 = 0x04;
    const T_EMPTY_PATH: u32 = 0x40;
    let (empty, flags) = (EMPTY.as_ptr(), F_EMPTY_PATH | T_EMPTY_PATH);
    call!(libc::SYS_move_mount, mount, empty, target, empty, flags).map(drop)
}

/// A detached copy of the mount at an open path.
pub(super) fn clone_mount(at: RawFd, extra_flags: u32) -> Result<RawFd, Errno> {
    const OPEN_TREE_CLONE: u32 = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32 | extra_flags;
    call!(libc::SYS_open_tree, at, EMPTY.as_ptr(), flags).map(|fd| fd as RawFd)
}

/// Changes the attributes of the mount at an open path; `at_flags` may hold `AT_RECURSIVE`.
pub(super) fn mount_setattr(mount: RawFd, at_flags: u32, attributes: &MountAttributes) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH as u32 | at_flags;
    let size = size_of::<MountAttributes>();
    call!(
        libc::SYS_mount_setattr,
        mount,
        EMPTY.as_ptr(),
        flags,
        std::ptr::from_ref(attributes),
        size
    )
    .map(drop)
}

/// How far a change of mount attributes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::launch) enum Recursion {
    /// This mount only.
    One,
    /// This mount and all below it.
    All,
}

/// Changes the attributes of a mount held by the parent.
///
/// # Errors
/// The kernel's answer.
pub(in crate::launch) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    recursion: Recursion,
    attributes: &MountAttributes,
) -> io::Result<()> {
    let flags = match recursion {
        Recursion::One => 0,
        Recursion::All => libc::AT_RECURSIVE as u32,
    };
    mount_setattr(mount.as_raw_fd(), flags, attributes).map_err(io::Error::from_raw_os_error)
}

/// Makes the current directory the root and stacks the old root on top of it.
pub(super) fn pivot_root_here() -> Result<(), Errno> {
    let here = c".".as_ptr();
    call!(libc::SYS_pivot_root, here, here).map(drop)
}

/// Detaches the mount at the current directory and all below it.
pub(super) fn detach(path: &CStr) -> Result<(), Errno> {
    call!(libc::SYS_umount2, path.as_ptr(), libc::MNT_DETACH).map(drop)
}

pub(super) fn fchdir(fd: RawFd) -> Result<(), Errno> {
    call!(libc::SYS_fchdir, fd).map(drop)
}

pub(super) fn fchown_user(fd: RawFd, uid: u32) -> Result<(), Errno> {
    call!(libc::SYS_fchown, fd, uid, u32::MAX).map(drop)
}

pub(super) fn setsid() -> Result<(), Errno> {
    call!(libc::SYS_setsid).map(drop)
}

pub(super) fn take_terminal(fd: RawFd) -> Result<(), Errno> {
    call!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0).map(drop)
}

/// Gives the process a session keyring of its own.
pub(super) fn new_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;
    call!(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0).map(drop)
}

pub(super) fn setns(fd: RawFd, kind: i32) -> Result<(), Errno> {
    call!(libc::SYS_setns, fd, kind).map(drop)
}

pub(super) fn unshare(flags: i32) -> Result<(), Errno> {
    call!(libc::SYS_unshare, flags).map(drop)
}

/// Moves the calling thread into a new network namespace whose loopback interface is up.
///
/// # Errors
/// The kernel's answer to unshare or to the request for the interface.
pub(in crate::launch) fn enter_new_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
        .and_then(|()| loopback_up())
        .map_err(io::Error::from_raw_os_error)
}

/// Moves the calling thread into an existing network namespace.
///
/// # Errors
/// The kernel's answer to setns.
pub(in crate::launch) fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    setns(namespace.as_raw_fd(), libc::CLONE_NEWNET).map_err(io::Error::from_raw_os_error)
}

/// Brings the loopback interface of the current network namespace up.
pub(super) fn loopback_up() -> Result<(), Errno> {
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; 16],
        flags: i16,
        // The kernel copies the whole union, 24 bytes on 64-bit machines.
        rest: [u8; 22],
    }
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: 0,
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    let socket = call!(
        libc::SYS_socket,
        libc::AF_INET,
        libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
        0
    )? as RawFd;
    request.flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let result = call!(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw mut request);
    close(socket);
    result.map(drop)
}

pub(super) fn sethostname(name: &[u8]) -> Result<(), Errno> {
    call!(libc::SYS_sethostname, name.as_ptr(), name.len()).map(drop)
}

pub(super) fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    call!(libc::SYS_prlimit64, 0, resource, &raw const limit, 0).map(drop)
}

pub(super) fn umask(mask: u32) {
    // umask cannot fail.
    let _previous = call!(libc::SYS_umask, mask);
}

pub(super) fn seccomp(program: &[BpfInstruction]) -> Result<(), Errno> {
    const SET_MODE_FILTER: u32 = 1;
    let program = FilterProgram {
        len: program.len() as u16,
        filter: program.as_ptr(),
    };
    call!(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const program).map(drop)
}

pub(super) fn prctl(option: i32, argument: u64) -> Result<(), Errno> {
    call!(libc::SYS_prctl, option, argument, 0, 0, 0).map(drop)
}

/// Sets the permitted and effective capabilities to `set`, the inheritable ones to nothing.
pub(super) fn capset(set: u64) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapHeader {
        version: VERSION_3,
        pid: 0,
    };
    let half = |bits: u32| CapData {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let data = [half(set as u32), half((set >> 32) as u32)];
    call!(libc::SYS_capset, &raw const header, &raw const data).map(drop)
}

pub(super) fn setgroups(groups: &[u32]) -> Result<(), Errno> {
    call!(libc::SYS_setgroups, groups.len(), groups.as_ptr()).map(drop)
}

pub(super) fn setresgid(gid: u32) -> Result<(), Errno> {
    call!(libc::SYS_setresgid, gid, gid, gid).map(drop)
}

pub(super) fn setresuid(uid: u32) -> Result<(), Errno> {
    call!(libc::SYS_setresuid, uid, uid, uid).map(drop)
}

/// Whether a pidfd's process has ended.
pub(super) fn has_ended(pidfd: RawFd) -> Result<bool, Errno> {
    let at_once = [0_i64; 2];
    poll(pidfd, &raw const at_once).map(|ready| ready > 0)
}

/// Waits for the end of a pidfd's process.
pub(super) fn wait_for_end(pidfd: RawFd) -> Result<(), Errno> {
    poll(pidfd, std::ptr::null()).map(drop)
}

fn poll(fd: RawFd, timeout: *const [i64; 2]) -> Result<usize, Errno> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    call!(libc::SYS_ppoll, &raw mut poll, 1, timeout, 0, 8)
}

/// Kills a pidfd's process.
pub(super) fn kill(pidfd: RawFd) -> Result<(), Errno> {
    call!(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, 0, 0).map(drop)
}

/// Names the calling thread, in at most 15 bytes.
pub(super) fn set_name(name: &CStr) -> Result<(), Errno> {
    prctl(libc::PR_SET_NAME, name.as_ptr() as u64)
}

/// Replaces the program; comes back only with an error.
///
/// # Safety
/// Both vectors must end with a null pointer, every other entry must be a NUL-terminated string.
pub(super) unsafe fn execve(path: &CStr, args: *const *const libc::c_char, env: *const *const libc::c_char) -> Errno {
    match call!(libc::SYS_execve, path.as_ptr(), args, env) {
        Err(errno) => errno,
        Ok(_impossible) => libc::EINVAL,
    }
}

/// Replaces the program by an open file; comes back only with an error.
///
/// # Safety
/// As for [`execve`].
pub(super) unsafe fn execveat(file: RawFd, args: *const *const libc::c_char, env: *const *const libc::c_char) -> Errno {
    match call!(libc::SYS_execveat, file, c"".as_ptr(), args, env, libc::AT_EMPTY_PATH) {
        Err(errno) => errno,
        Ok(_impossible) => libc::EINVAL,
    }
}

/// Whether the process may execute a file, or search a directory.
pub(super) fn may_execute(path: &CStr) -> Result<(), Errno> {
    call!(libc::SYS_faccessat2, CWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS).map(drop)
}

/// Waits for so many nanoseconds, fewer than a second of them.
pub(super) fn sleep(nanoseconds: i64) {
    let time = [0_i64, nanoseconds];
    // Woken early is slept enough.
    let _woken = call!(libc::SYS_nanosleep, time.as_ptr(), 0);
}

/// The type and permission bits of a file, symlinks followed.
pub(super) fn file_mode(path: &CStr) -> Result<u32, Errno> {
    const STATX_TYPE_AND_MODE: u32 = 3;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    call!(
        libc::SYS_statx,
        CWD,
        path.as_ptr(),
        0,
        STATX_TYPE_AND_MODE,
        stat.as_mut_ptr()
    )?;
    // SAFETY: all-zero bytes are a valid statx, and the call has filled it.
    Ok(u32::from(unsafe { stat.assume_init() }.stx_mode))
}

pub(super) fn reset_signals() {
    let default = KernelSigaction::default();
    for signal in 1..=64 {
        // SIGKILL and SIGSTOP refuse, and have no other action than the default.
        let _refused = call!(libc::SYS_rt_sigaction, signal, &raw const default, 0, 8);
    }
    let none = 0_u64;
    // Cannot fail: the arguments are valid.
    let _unblocked = call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, 8);
}

pub(super) fn exit(code: i32) -> ! {
    loop {
        let _unreachable = call!(libc::SYS_exit_group, code);
    }
}

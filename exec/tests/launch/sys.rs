//! Single system calls, tried from inside a container: this test binary itself runs there, with the host's libraries.

#![expect(
    unsafe_code,
    reason = "the tests call the kernel with what no wrapper would let through"
)]

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use cbs_exec::launch::{Access, ContainerSpec};

use crate::harness::{World, bind};

/// Says to the binary that it is inside, and what to do.
const VARIABLE: &str = "CBS_INSIDE";

/// A container in which this binary does one of the things below.
pub(crate) fn inside(world: &World, what: &str) -> ContainerSpec {
    let mut spec = world.spec(&[
        "/probe",
        "--exact",
        "sys::when_inside",
        "--nocapture",
        "--test-threads=1",
    ]);
    spec.process.env.push(format!("{VARIABLE}={what}").into());
    spec.mounts.push(bind(
        std::env::current_exe().expect("own path"),
        "/probe",
        Access::ReadOnly,
    ));
    for directory in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(directory).exists() {
            spec.mounts.push(bind(directory, directory, Access::ReadOnly));
        }
    }
    spec
}

/// The answers of all calls: name and error number, 0 for success.
pub(crate) fn answers(world: &World, spec: &ContainerSpec) -> Vec<(String, i32)> {
    let out = world.success(spec);
    let line = |line: &str| {
        let (name, errno) = line.strip_prefix("inside ")?.split_once(' ')?;
        Some((name.to_owned(), errno.parse().ok()?))
    };
    out.lines().filter_map(line).collect()
}

#[test]
fn when_inside() {
    match std::env::var(VARIABLE).as_deref() {
        Ok("crash") => {
            // SAFETY: none; the point is to be killed for it.
            unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
        }
        Ok("calls") => calls(),
        _ => {}
    }
}

fn calls() {
    let nothing = std::ptr::null::<u8>();
    let tmp = c"/tmp".as_ptr();
    let tmpfs = c"tmpfs".as_ptr();
    try_call(
        "mount",
        libc::SYS_mount,
        [tmpfs as usize, tmp as usize, tmpfs as usize, 0, 0, 0],
    );
    try_call(
        "umount2",
        libc::SYS_umount2,
        [c"/proc".as_ptr() as usize, 0, 0, 0, 0, 0],
    );
    try_call(
        "unshare_user",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0, 0],
    );
    try_call(
        "unshare_mounts",
        libc::SYS_unshare,
        [libc::CLONE_NEWNS as usize, 0, 0, 0, 0, 0],
    );
    try_call(
        "clone_user",
        libc::SYS_clone,
        [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0, 0],
    );
    try_call("clone3", libc::SYS_clone3, [0; 6]);
    try_call("keyctl", libc::SYS_keyctl, [0; 6]);
    try_call("add_key", libc::SYS_add_key, [0; 6]);
    try_call("bpf", libc::SYS_bpf, [0; 6]);
    try_call(
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        [1, nothing as usize, 0, 0, 0, 0],
    );
    try_call("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 6]);
    try_call("userfaultfd", libc::SYS_userfaultfd, [0; 6]);
    try_call("kexec_load", libc::SYS_kexec_load, [0; 6]);
    try_call("sethostname", libc::SYS_sethostname, [tmp as usize, 4, 0, 0, 0, 0]);
    try_call(
        "socket_vsock",
        libc::SYS_socket,
        [libc::AF_VSOCK as usize, libc::SOCK_STREAM as usize, 0, 0, 0, 0],
    );
    try_call(
        "socket_alg",
        libc::SYS_socket,
        [libc::AF_ALG as usize, libc::SOCK_SEQPACKET as usize, 0, 0, 0, 0],
    );
    try_call(
        "socket_unix",
        libc::SYS_socket,
        [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, 0, 0, 0],
    );
    try_call("personality", libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]);
    try_call("personality_norandom", libc::SYS_personality, [0x4_0000, 0, 0, 0, 0, 0]);
    try_call(
        "ptrace_me",
        libc::SYS_ptrace,
        [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0, 0],
    );
    try_call("chroot", libc::SYS_chroot, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]);
    try_call("unheard_of", 900, [0; 6]);
}

fn try_call(name: &str, number: libc::c_long, args: [usize; 6]) {
    let [a, b, c, d, e, f] = args;
    // SAFETY: every call above is given numbers, null or static strings.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    let errno = if result < 0 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    };
    // On a line of its own, whatever the test harness has begun to say.
    println!("\ninside {name} {errno}");
}

/// The two sides of a new terminal of 24 lines with 80 columns.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut controller, mut replica) = (-1, -1);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the call fills both numbers with new descriptors when it succeeds; null is allowed for the rest.
    unsafe {
        let rc = libc::openpty(
            &mut controller,
            &mut replica,
            std::ptr::null_mut(),
            std::ptr::null(),
            &size,
        );
        assert_eq!(rc, 0, "openpty: {}", std::io::Error::last_os_error());
        (OwnedFd::from_raw_fd(controller), OwnedFd::from_raw_fd(replica))
    }
}

/// A static program of 32 bits that exits with 42: header, one segment, `mov eax,1; mov ebx,42; int 0x80`.
pub(crate) fn exit42_i386() -> Vec<u8> {
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
    let base = 0x0804_8000_u32;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, values: &[u16]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    half(&mut elf, &[2, 3]);
    word(&mut elf, &[1, base + 84, 52, 0, 0]);
    half(&mut elf, &[52, 32, 1, 0, 0, 0]);
    let size = 84 + code.len() as u32;
    word(&mut elf, &[1, 0, base, base, size, size, 5, 0x1000]);
    elf.extend(code);
    elf
}

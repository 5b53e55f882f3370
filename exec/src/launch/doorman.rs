//! The program between this one and a container's.
//!
//! Until a program has been executed, `/proc/self/exe` still is the file of the one before, and what the kernel opens for the
//! new one may ask for it by that name: a script can have it for its interpreter, an image for its shell. Executed straight
//! from here, that would give root of a container this program's file on the host, to read it, to change its mode, or to
//! overwrite it once nobody runs it (CVE-2019-5736). So the child becomes the doorman first: a few instructions in a file
//! that is in memory, cannot be written and is nobody else's, which execute what was asked for.
//!
//! `child ─ execveat ─► doorman(PROGRAM, arguments…) ─ execve ─► PROGRAM(arguments…)`

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::plan::{NODEV, NOSUID, RDONLY};
use super::prepare::{make_file, memory_fs};
use super::spec::FileSource;
use super::sys::{self, MountAttributes, Recursion};

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Where it is loaded; a multiple of the largest page.
const ADDRESS: u64 = 0x40_0000;
const PAGE: u64 = 0x1_0000;
const FILE_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;

/// A doorman's file, opened as a path.
///
/// # Errors
/// The kernel's answer to making a file system in memory.
pub(super) fn make() -> io::Result<OwnedFd> {
    let root = memory_fs(None, 0o755, NOSUID | NODEV)?;
    let name = Path::new("doorman");
    let file = FileSource {
        bytes: image(sys::doorman_code()).into(),
        mode: 0o555,
        uid: 0,
        gid: 0,
    };
    make_file(root.as_fd(), name, &file)?;
    let attributes = MountAttributes {
        set: RDONLY,
        ..MountAttributes::default()
    };
    sys::set_mount_attributes(root.as_fd(), Recursion::One, &attributes)?;
    Ok(rustix::fs::openat(
        &root,
        name,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// An ELF file of one segment: its headers and these instructions.
fn image(code: &[u8]) -> Vec<u8> {
    let headers = u64::from(FILE_HEADER + PROGRAM_HEADER);
    let size = headers + code.len() as u64;
    // 64 bits, this machine's byte order, version 1.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&2_u16.to_ne_bytes());
    put(&MACHINE.to_ne_bytes());
    put(&1_u32.to_ne_bytes());
    for address in [ADDRESS + headers, u64::from(FILE_HEADER), 0] {
        put(&address.to_ne_bytes());
    }
    put(&0_u32.to_ne_bytes());
    for number in [FILE_HEADER, PROGRAM_HEADER, 1, 0, 0, 0] {
        put(&number.to_ne_bytes());
    }
    // To load, readable and executable: the whole file.
    for number in [1_u32, 5] {
        put(&number.to_ne_bytes());
    }
    for number in [0, ADDRESS, ADDRESS, size, size, PAGE] {
        put(&number.to_ne_bytes());
    }
    put(code);
    file
}

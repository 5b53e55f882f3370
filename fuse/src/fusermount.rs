//! `fusermount3`, with which Linux lets users mount FUSE: it opens the device, mounts, and hands the device over.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

use crate::FuseError;

/// The program, of Debian's package `fuse3`.
const PROGRAM: &str = "fusermount3";

/// Mounts on a directory of the user's own; only that user sees into it.
pub(crate) fn mount(at: &Path) -> Result<File, FuseError> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(FuseError::session("make a socket"))?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["-o", "ro,nosuid,nodev,default_permissions,subtype=cbs,fsname=cbs", "--"])
        .arg(at)
        // The socket is its standard input, which needs no other way into the program.
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs));
    run(command, at)?;
    receive(&ours).map_err(FuseError::mount("take over the fuse mount on", at))
}

/// Takes a mount of the user's off a directory, also while it is used.
pub(crate) fn unmount(at: &Path) -> Result<(), FuseError> {
    let mut command = Command::new(PROGRAM);
    command.args(["-u", "-q", "-z", "--"]).arg(at).stdin(Stdio::null());
    run(command, at)
}

fn run(mut command: Command, at: &Path) -> Result<(), FuseError> {
    let refused = |why: String| FuseError::Helper {
        path: at.to_owned(),
        why,
    };
    let output = match command.output() {
        Ok(output) => output,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(refused(format!(
                "there is no `{PROGRAM}`; Debian's package fuse3 has it"
            )));
        }
        Err(err) => return Err(refused(format!("`{PROGRAM}` does not start: {err}"))),
    };
    match output.status.success() {
        true => Ok(()),
        false => Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The device, which comes with a byte that means nothing.
fn receive(socket: &OwnedFd) -> io::Result<File> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(
        socket.as_fd(),
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut messages,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let device = messages.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    device
        .map(File::from)
        .ok_or_else(|| io::Error::other(format!("`{PROGRAM}` handed nothing over")))
}

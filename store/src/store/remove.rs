//! Removing what a container left behind.
//!
//! Trees below `work/` come from strangers: folders without permissions, nesting deeper than a path or a stack can be,
//! symbolic links, and, after a crash, perhaps a mount that is still there. So removal goes by descriptor, never
//! follows a link, never crosses a mount, keeps its own stack, and holds few descriptors at once.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, chmodat, openat2, renameat, unlinkat};
use rustix::io::Errno;

/// Levels entered before a folder is moved to the top: bounds descriptors and stack.
const MAX_DEPTH: usize = 64;

/// One folder being emptied.
struct Level {
    fd: OwnedFd,
    name: CString,
    folders: Vec<CString>,
}

/// Removes `name` in `parent` with all below it. What is not there is no error; what cannot be removed (another mount)
/// stays, and the first reason is returned after everything else is gone.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    match unlinkat(parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM: what POSIX says for folders.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(err) => return Err(err.into()),
    }
    let mut failure = Failure(None);
    let mut stack = vec![open_level(parent, name, &mut failure)?];
    let mut moved = 0_u64;
    while let Some(depth) = stack.len().checked_sub(1) {
        let Some(below) = stack[depth].folders.pop() else {
            let Some(done) = stack.pop() else { break };
            let above = stack.last().map_or(parent, |level| level.fd.as_fd());
            failure.note(unlinkat(above, &done.name, AtFlags::REMOVEDIR));
            continue;
        };
        if depth >= MAX_DEPTH {
            let top = CString::new(format!(".cbs-deep-{moved}"))?;
            moved += 1;
            match renameat(&stack[depth].fd, &below, &stack[0].fd, &top) {
                Ok(()) => stack[0].folders.push(top),
                failed => failure.note(failed),
            }
            continue;
        }
        match open_level(stack[depth].fd.as_fd(), below, &mut failure) {
            Ok(level) => stack.push(level),
            Err(err) => failure.note(Err(err)),
        }
    }
    failure.0.map_or(Ok(()), |err| Err(err.into()))
}

/// The first thing that went wrong. What is gone already is not wrong.
struct Failure(Option<Errno>);

impl Failure {
    fn note(&mut self, result: Result<(), Errno>) {
        match result {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(err) => self.0 = self.0.or(Some(err)),
        }
    }
}

/// As [`remove_tree`] for a path.
pub(super) fn remove_path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    remove_tree(parent.as_fd(), name)
}

/// Opens a folder and removes all in it that is no folder.
fn open_level(parent: BorrowedFd<'_>, name: CString, failure: &mut Failure) -> Result<Level, Errno> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        openat2(parent, &name, flags, Mode::empty(), resolve)
    };
    let fd = match open() {
        // The owner of a folder may have no permission in it; overlayfs makes such ones.
        Err(Errno::ACCESS) => {
            chmodat(parent, &name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    if !rustix::process::geteuid().is_root() {
        // Nothing goes from a folder that cannot be written; to root that makes no difference.
        rustix::fs::fchmod(&fd, Mode::RWXU)?;
    }
    let mut folders = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let below = entry.file_name();
        if matches!(below.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            folders.push(below.to_owned());
            continue;
        }
        match unlinkat(&fd, below, AtFlags::empty()) {
            // Some file systems do not tell the type of an entry.
            Err(Errno::ISDIR) => folders.push(below.to_owned()),
            result => failure.note(result),
        }
    }
    Ok(Level { fd, name, folders })
}

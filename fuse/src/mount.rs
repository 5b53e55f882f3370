//! Mounting and unmounting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::{FuseError, fusermount};

/// Longest text `fsconfig` takes.
const STRING_LIMIT: usize = 255;

/// Whether set-user-id programs, file capabilities and device nodes in a mount work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They do, as far as a user namespace lets them: the mount is the root of containers.
    Full,
    /// They do not: everybody on the machine sees the mount, and anybody may have made the trees.
    None,
}

/// Makes a FUSE mount that is served through `device` and is attached nowhere yet. It is read-only; the kernel checks
/// permissions; everybody may use it.
pub(crate) fn fuse(device: &File, trust: Trust) -> io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "cbs")?;
    fsconfig_set_string(&context, "subtype", "cbs")?;
    fsconfig_set_string(&context, "fd", device.as_raw_fd().to_string())?;
    fsconfig_set_string(&context, "rootmode", "40000")?;
    fsconfig_set_string(&context, "user_id", rustix::process::geteuid().as_raw().to_string())?;
    fsconfig_set_string(&context, "group_id", rustix::process::getegid().as_raw().to_string())?;
    for flag in ["ro", "default_permissions", "allow_other"] {
        fsconfig_set_flag(&context, flag)?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOATIME;
    if trust == Trust::None {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Mounts an image file, attached nowhere yet. Only root of the machine may.
pub(crate) fn erofs(image: &Path) -> Result<OwnedFd, Errno> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_set_string(&context, "source", image)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount to a directory.
///
/// # Errors
/// [`FuseError::Mount`] when the kernel refuses it.
pub fn attach(mount: &OwnedFd, at: &Path) -> Result<(), FuseError> {
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(FuseError::mount("attach a mount to", at))
}

/// Takes a mount off a directory; it lives on for those who still use it.
///
/// # Errors
/// [`FuseError::Mount`] when the kernel refuses it, [`FuseError::Helper`] when `fusermount3` does, which users need.
pub fn detach(at: &Path) -> Result<(), FuseError> {
    match unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => fusermount::unmount(at),
        result => result.map_err(FuseError::mount("unmount", at)),
    }
}

/// Takes off what a killed process left on a directory: a FUSE mount nobody serves any more.
pub(crate) fn clear_dead_mount(at: &Path) {
    // The attributes of its root may be cached; how full it is never is.
    if matches!(rustix::fs::statfs(at), Err(Errno::NOTCONN | Errno::CONNABORTED)) {
        // When it cannot be taken off, mounting over it will say why.
        let _ = detach(at);
    }
}

/// What an overlay is made of.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// The view below.
    pub lower: &'a crate::View,
    /// Where changes go: a directory of this overlay's own, on a file system that can hold whiteouts.
    pub upper: &'a Path,
    /// An empty directory on the file system of `upper`.
    pub work: &'a Path,
}

impl Overlay<'_> {
    /// Mounts it, attached nowhere yet: see [`attach`]. It keeps nothing but plain entries, whiteouts and opaque
    /// directories in `upper`, and is `volatile`: after a crash `upper` is worth nothing.
    ///
    /// # Errors
    /// [`FuseError::Mount`] when the kernel refuses it.
    pub fn mount(&self) -> Result<OwnedFd, FuseError> {
        self.try_mount()
            .map_err(FuseError::mount("mount an overlay over", self.lower.path()))
    }

    fn try_mount(&self) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "cbs")?;
        set_directory(&context, "lowerdir+", self.lower.lower_dir())?;
        if let Some(data) = self.lower.data_dir() {
            set_directory(&context, "datadir+", data)?;
        }
        set_directory(&context, "upperdir", self.upper)?;
        set_directory(&context, "workdir", self.work)?;
        for option in ["index", "metacopy", "xino"] {
            fsconfig_set_string(&context, option, "off")?;
        }
        fsconfig_set_flag(&context, "volatile")?;
        match self.lower.xattrs() {
            crate::OverlayXattrs::Trusted => fsconfig_set_string(&context, "redirect_dir", "off")?,
            crate::OverlayXattrs::User => {
                fsconfig_set_flag(&context, "userxattr")?;
                // `off` may mean "follow those there are", which goes not with `userxattr`.
                fsconfig_set_string(&context, "redirect_dir", "nofollow")?;
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }
}

/// Names a directory to `fsconfig`: by path, which `/proc/mounts` then shows, or by descriptor when the path is too
/// long for it.
fn set_directory(context: &OwnedFd, key: &str, path: &Path) -> Result<(), Errno> {
    if path.as_os_str().len() <= STRING_LIMIT {
        return fsconfig_set_string(context, key, path);
    }
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    fsconfig_set_fd(context, key, directory.as_fd())
}

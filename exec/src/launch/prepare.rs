//! Makes the mounts of a plan, as far as that needs none of the container's namespaces.
//!
//! Everything made here is detached: it is seen by nobody and goes with its descriptor, so an error at any point
//! leaves nothing mounted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::error::{LaunchError, SpecError};
use super::overlay;
use super::plan::{
    DEV_LINKS, MemoryContent, Plan, PlannedMount, PrivateEntry, RDONLY, What, check_overlay, is_forbidden,
};
use super::report::{CreatedFor, CreatedPath};
use super::resolve::{Tree, Want, normalise};
use super::spec::{ContainerSpec, DeviceKind, DeviceNode, FileSource, RootFs};
use super::step::NewFs;
use super::sys::{self, MountAttributes, Recursion};

/// The mounts of a container, ready to be attached.
pub(super) struct Prepared {
    /// The root.
    pub(super) root: Rc<OwnedFd>,
    /// The memory file system of [`Plan::private`].
    pub(super) private: OwnedFd,
    /// All others, in order.
    pub(super) mounts: Vec<PreparedMount>,
    /// The working directory, without symlinks.
    pub(super) cwd: PathBuf,
    /// What was made in the root.
    pub(super) created: Vec<CreatedPath>,
}

/// A mount ready to be attached.
pub(super) struct PreparedMount {
    /// What.
    pub(super) source: Source,
    /// Where, without symlinks.
    pub(super) target: PathBuf,
    /// Why.
    pub(super) purpose: CreatedFor,
}

/// Where a mount comes from.
pub(super) enum Source {
    /// It is here, detached.
    Detached(Rc<OwnedFd>),
    /// The child makes it.
    InChild(NewFs),
    /// It is an entry of the private file system.
    Private {
        /// Its number.
        entry: usize,
        /// `MOUNT_ATTR_` flags.
        attributes: u64,
    },
}

/// Makes the mounts and their mount points.
///
/// # Errors
/// The first thing the kernel refuses, and a bad working directory.
pub(super) fn prepare(spec: &ContainerSpec, plan: Plan<'_>) -> Result<Prepared, LaunchError> {
    let root = Rc::new(root_mount(&spec.rootfs, plan.root_attributes)?);
    let private = private_fs(&plan.private)?;
    let mut tree = Tree::new(Rc::clone(&root));
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    for planned in plan.mounts {
        mounts.push(one_mount(planned, &mut tree)?);
    }
    let owner = &spec.process.user;
    let want = Want::Directory {
        uid: owner.uid,
        gid: owner.gid,
    };
    let cwd = normalise(&spec.process.cwd)?;
    let cwd = tree
        .resolve(&cwd, want, CreatedFor::WorkDir)
        .map_err(|source| setup("make working directory", &spec.process.cwd, source))?;
    Ok(Prepared {
        root,
        private,
        mounts,
        cwd,
        created: tree.into_created(),
    })
}

fn root_mount(rootfs: &RootFs, attributes: u64) -> Result<OwnedFd, LaunchError> {
    match rootfs {
        RootFs::Overlay(layers) => overlay::mount(check_overlay(layers, Path::new("/"))?, attributes),
        RootFs::Bind(path) => copy_mount(path, attributes, Recursion::One),
    }
}

fn one_mount(planned: PlannedMount<'_>, tree: &mut Tree) -> Result<PreparedMount, LaunchError> {
    let PlannedMount {
        target,
        what,
        attributes,
        purpose,
    } = planned;
    let source = match what {
        What::InChild(fs) => Source::InChild(fs),
        What::Private(entry) => Source::Private { entry, attributes },
        What::Memory { size, mode, content } => {
            let memory = memory_fs(size, mode, attributes & !RDONLY);
            let memory = memory.map_err(|source| setup("mount tmpfs at", &target, source))?;
            fill(memory.as_fd(), content).map_err(|source| setup("fill tmpfs at", &target, source))?;
            set_attributes(&memory, attributes & RDONLY, Recursion::One, &target)?;
            detached(memory)
        }
        What::Terminals => detached(terminals(attributes).map_err(|source| setup("mount devpts at", &target, source))?),
        What::HostTree(path) => detached(copy_mount(path, attributes, Recursion::All)?),
        What::Bind(path) => detached(copy_mount(&path, attributes, Recursion::One)?),
        What::Overlay(layers) => detached(overlay::mount(layers, attributes)?),
    };
    let want = match &source {
        Source::InChild(_) => Want::ROOT_DIRECTORY,
        Source::Private { .. } => Want::File,
        Source::Detached(fd) if is_directory(fd).map_err(|source| setup("stat mount for", &target, source))? => {
            Want::ROOT_DIRECTORY
        }
        Source::Detached(_) => Want::File,
    };
    let resolved = tree
        .resolve(&target, want, purpose)
        .map_err(|source| setup("make mount point", &target, source))?;
    if purpose == CreatedFor::System && resolved != target {
        // A root whose /proc or /dev is a link would have the sandbox's own mounts somewhere else.
        return Err(setup(
            "mount over the symlink",
            &target,
            io::Error::from_raw_os_error(libc::ELOOP),
        ));
    }
    if purpose == CreatedFor::Mount && is_forbidden(&resolved) {
        return Err(SpecError::ForbiddenTarget { path: target }.into());
    }
    let inside = match &source {
        Source::Detached(fd) => Some(Rc::clone(fd)),
        Source::InChild(_) | Source::Private { .. } => None,
    };
    tree.place(resolved.clone(), inside);
    Ok(PreparedMount {
        source,
        target: resolved,
        purpose,
    })
}

fn detached(fd: OwnedFd) -> Source {
    Source::Detached(Rc::new(fd))
}

fn setup(action: &'static str, path: &Path, source: io::Error) -> LaunchError {
    LaunchError::Setup {
        action,
        path: path.to_owned(),
        source,
    }
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// A detached copy of the mount at a host path.
fn copy_mount(path: &Path, attributes: u64, recursion: Recursion) -> Result<OwnedFd, LaunchError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursion == Recursion::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let copy = rustix::mount::open_tree(CWD, path, flags).map_err(|errno| setup("bind", path, errno.into()))?;
    set_attributes(&copy, attributes, recursion, path)?;
    Ok(copy)
}

fn set_attributes(mount: &OwnedFd, set: u64, recursion: Recursion, path: &Path) -> Result<(), LaunchError> {
    if set == 0 {
        return Ok(());
    }
    let attributes = MountAttributes {
        set,
        ..MountAttributes::default()
    };
    sys::set_mount_attributes(mount.as_fd(), recursion, &attributes)
        .map_err(|source| setup("set mount flags of", path, source))
}

/// A new, detached tmpfs.
pub(super) fn memory_fs(size: Option<u64>, mode: u32, attributes: u64) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "source", "tmpfs")?;
    rustix::mount::fsconfig_set_string(&fs, "mode", format!("{mode:o}"))?;
    if let Some(size) = size {
        rustix::mount::fsconfig_set_string(&fs, "size", size.to_string())?;
    }
    finish(fs, attributes)
}

/// New pseudo terminals, detached.
fn terminals(attributes: u64) -> io::Result<OwnedFd> {
    // 5 is the tty group of every distribution; a user namespace may not have it, and then goes without.
    match terminals_of(Some("5"), attributes) {
        Err(err) if err.raw_os_error() == Some(libc::EINVAL) => terminals_of(None, attributes),
        other => other,
    }
}

fn terminals_of(group: Option<&str>, attributes: u64) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "source", "devpts")?;
    rustix::mount::fsconfig_set_string(&fs, "mode", "0620")?;
    rustix::mount::fsconfig_set_string(&fs, "ptmxmode", "0666")?;
    if let Some(group) = group {
        rustix::mount::fsconfig_set_string(&fs, "gid", group)?;
    }
    finish(fs, attributes)
}

fn finish(fs: OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
    rustix::mount::fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn fill(root: BorrowedFd<'_>, content: MemoryContent) -> io::Result<()> {
    match content {
        MemoryContent::Empty => {}
        MemoryContent::Dev(nodes) => {
            for (name, target) in DEV_LINKS {
                rustix::fs::symlinkat(target, root, name)?;
            }
            for node in nodes {
                // Every path was checked to be below /dev when it was planned.
                let Ok(name) = node.path.strip_prefix("/dev") else {
                    continue;
                };
                make_parents(root, name)?;
                make_node(root, name, &node)?;
            }
        }
        MemoryContent::Cgroups { directories, links } => {
            for directory in directories {
                rustix::fs::mkdirat(root, directory, Mode::from_raw_mode(0o755))?;
            }
            for (name, target) in links {
                rustix::fs::symlinkat(target, root, name)?;
            }
        }
    }
    Ok(())
}

fn make_parents(root: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    let parents: Vec<_> = name
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
        .collect();
    for parent in parents.into_iter().rev() {
        match rustix::fs::mkdirat(root, parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn make_node(root: BorrowedFd<'_>, name: &Path, node: &DeviceNode) -> io::Result<()> {
    let kind = match node.kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let mode = Mode::from_raw_mode(node.mode);
    rustix::fs::mknodat(root, name, kind, mode, rustix::fs::makedev(node.major, node.minor))?;
    // Against the umask of this process.
    rustix::fs::chmodat(root, name, mode, rustix::fs::AtFlags::empty())?;
    own(root, name, node.uid, node.gid)
}

fn own(root: BorrowedFd<'_>, name: &Path, uid: u32, gid: u32) -> io::Result<()> {
    if (uid, gid) != (0, 0) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(root, name, uid, gid, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// The memory file system with the private entries, each named by its number.
fn private_fs(entries: &[PrivateEntry<'_>]) -> Result<OwnedFd, LaunchError> {
    let fill = || {
        let root = memory_fs(None, 0o700, 0)?;
        for (number, entry) in entries.iter().enumerate() {
            let name = PathBuf::from(number.to_string());
            match entry {
                PrivateEntry::EmptyDirectory => rustix::fs::mkdirat(&root, &name, Mode::from_raw_mode(0o755))?,
                PrivateEntry::Node(node) => make_node(root.as_fd(), &name, node)?,
                PrivateEntry::File(file) => make_file(root.as_fd(), &name, file)?,
            }
        }
        Ok(root)
    };
    fill().map_err(|source| setup("make files for", Path::new("container"), source))
}

pub(super) fn make_file(root: BorrowedFd<'_>, name: &Path, source: &FileSource) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o600))?;
    let mut rest: &[u8] = &source.bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    own(root, name, source.uid, source.gid)?;
    // After the owner, as changing that clears the set-id bits.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(source.mode))?;
    Ok(())
}

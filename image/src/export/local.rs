//! The `local` exporter: a root written into a folder, merged with what is there.
//!
//! Safe against whatever the folder holds: every step opens one name below a folder that is open already and follows no
//! link, so that nothing outside can be reached. A symbolic link where the image has a folder is replaced. Files appear
//! by rename, from a folder beside them that `staging.rs` makes and removes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cbs_store::{Blob, Directory, DirectoryStore, Entry, Metadata, Node, Store};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::rootfs::{RootfsOptions, combine, open_file};
use super::staging::{Staging, is_staging};
use crate::error::ImageError;

/// What happens to things in the folder that the image does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalMode {
    /// They stay (`mode=copy`).
    Copy,
    /// They go (`mode=delete`).
    Delete,
}

/// Who owns what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The caller, as with BuildKit.
    Caller,
    /// The image's owners; needs root.
    Image,
}

/// How a folder is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// What is written.
    pub rootfs: RootfsOptions,
    /// What happens to the rest.
    pub mode: LocalMode,
    /// Owners.
    pub owners: Owners,
}

/// Writes roots into a folder, which is made (0700) when it is not there.
///
/// # Errors
/// [`ImageError::Options`] when roots that go together have a file in common, [`ImageError::Unwritable`] and
/// [`ImageError::Io`] when the file system says no, [`ImageError::Cancelled`].
pub fn write_local(
    store: &Store,
    options: &LocalOptions,
    dest: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), ImageError> {
    let tree = combine(store, &options.rootfs)?;
    make_folder(dest)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(dest, flags, Mode::empty()).map_err(|err| ImageError::io("open", dest)(err.into()))?;
    let directory = store.need_directory(&tree)?;
    let staging = Staging::make(root.as_fd(), &directory);
    let mut writer = Writer {
        store,
        options,
        dest,
        cancelled,
        root: root.as_fd(),
        links: HashMap::new(),
        staging: staging.map_err(|err| ImageError::io("write to", dest)(err.into()))?,
    };
    writer.fill(root.as_fd(), &directory, &mut PathBuf::new())
}

fn make_folder(dest: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dest)
        .map_err(ImageError::io("create", dest))
}

struct Writer<'a> {
    store: &'a Store,
    options: &'a LocalOptions,
    dest: &'a Path,
    cancelled: &'a dyn Fn() -> bool,
    root: BorrowedFd<'a>,
    /// Where the first member of a hard link group is.
    links: HashMap<u64, PathBuf>,
    staging: Staging<'a>,
}

impl Writer<'_> {
    fn fill(&mut self, folder: BorrowedFd<'_>, directory: &Directory, path: &mut PathBuf) -> Result<(), ImageError> {
        if self.options.mode == LocalMode::Delete {
            self.remove_others(folder, directory, path)?;
        }
        for entry in &directory.entries {
            if (self.cancelled)() {
                return Err(ImageError::Cancelled);
            }
            let name = std::ffi::OsStr::from_bytes(&entry.name);
            path.push(name);
            match &entry.node {
                Node::Directory(below) => {
                    let open = self.folder(folder, entry, path)?;
                    let directory = self.store.need_directory(&below.digest)?;
                    self.fill(open.as_fd(), &directory, path)?;
                    // Last: filling it changes its time, and its mode may forbid filling.
                    self.finish(open.as_fd(), &entry.meta, path)?;
                }
                // A layer's mark; a root has none.
                Node::Whiteout => {}
                _ => self.leaf(folder, entry, path)?,
            }
            path.pop();
        }
        Ok(())
    }

    /// A folder to fill, made when there is none.
    fn folder(&self, parent: BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<OwnedFd, ImageError> {
        let name = entry.name.as_slice();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..2 {
            match rustix::fs::openat(parent, name, flags, Mode::empty()) {
                Ok(open) => {
                    // An earlier export may have left it without permission to write for us.
                    let mode = Mode::from_raw_mode((entry.meta.mode & 0o7777) as RawMode) | Mode::RWXU;
                    rustix::fs::fchmod(&open, mode).map_err(self.shape("change the mode of", path))?;
                    return Ok(open);
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(self.shape("replace", path))?;
                }
                Err(Errno::ACCESS) => {
                    let mode = Mode::RWXU;
                    rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(self.shape("open", path))?;
                    continue;
                }
                Err(err) => return Err(self.shape("open", path)(err)),
            }
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(err) => return Err(self.shape("create", path)(err)),
            }
        }
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(self.shape("open", path))
    }

    /// Anything that is no folder: written under a temporary name, then renamed.
    fn leaf(&mut self, parent: BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<(), ImageError> {
        let temp = self.staging.next_name();
        let temp = temp.as_bytes();
        self.make(temp, entry, path)?;
        match self.place(self.staging.folder().as_fd(), parent, temp, &entry.name, path) {
            // What is mounted there wants its files made in it.
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
                self.remove(parent, &entry.name, path)?;
                self.make_in(parent, &entry.name, entry, path)
            }
            placed => placed,
        }
    }

    fn make(&mut self, temp: &[u8], entry: &Entry, path: &Path) -> Result<(), ImageError> {
        let folder = self.staging.folder();
        self.make_in(folder.as_fd(), temp, entry, path)
    }

    fn make_in(&mut self, parent: BorrowedFd<'_>, temp: &[u8], entry: &Entry, path: &Path) -> Result<(), ImageError> {
        let meta = &entry.meta;
        match &entry.node {
            Node::File { link, .. } => {
                let group = link.filter(|link| link.count > 1).map(|link| link.id);
                if let Some(first) = group.and_then(|id| self.links.get(&id)) {
                    return self.link(first, parent, temp, path);
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, temp, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(self.shape("create", path))?;
                let mut file = File::from(file);
                match open_file(self.store, &entry.node)? {
                    Some(Blob::Large(mut source, _)) => io::copy(&mut source, &mut file).map(drop),
                    Some(small) => io::copy(&mut small.reader(), &mut file).map(drop),
                    None => Ok(()),
                }
                .map_err(ImageError::io("write", &self.dest.join(path)))?;
                self.finish(file.as_fd(), meta, path)?;
                if let Some(id) = group {
                    self.links.insert(id, path.to_owned());
                }
                return Ok(());
            }
            Node::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), parent, temp).map_err(self.shape("create", path))?;
            }
            Node::Fifo => self.node(parent, temp, FileType::Fifo, meta, 0, path)?,
            Node::CharDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(parent, temp, FileType::CharacterDevice, meta, device, path)?;
            }
            Node::BlockDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(parent, temp, FileType::BlockDevice, meta, device, path)?;
            }
            Node::Directory(_) | Node::Whiteout => return Ok(()),
        }
        self.finish_unopened(parent, temp, entry, path)
    }

    fn node(
        &self,
        parent: BorrowedFd<'_>,
        temp: &[u8],
        kind: FileType,
        meta: &Metadata,
        device: u64,
        path: &Path,
    ) -> Result<(), ImageError> {
        let mode = Mode::from_raw_mode((meta.mode & 0o7777) as RawMode);
        match rustix::fs::mknodat(parent, temp, kind, mode, device) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => Err(self.unwritable(path, "only root can make devices")),
            Err(err) => Err(self.shape("create", path)(err)),
        }
    }

    /// A second name of a file written before.
    fn link(&self, first: &Path, parent: BorrowedFd<'_>, temp: &[u8], path: &Path) -> Result<(), ImageError> {
        let (above, name) = match (first.parent(), first.file_name()) {
            (Some(above), Some(name)) => (above, name),
            _ => return Err(self.unwritable(path, "its hard link has no name")),
        };
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let above = rustix::fs::openat2(self.root, above, flags, Mode::empty(), resolve)
            .map_err(self.shape("open the folder of the hard link of", path))?;
        rustix::fs::linkat(above, name, parent, temp, AtFlags::empty()).map_err(self.shape("link", path))
    }

    fn place(
        &self,
        folder: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        temp: &[u8],
        name: &[u8],
        path: &Path,
    ) -> Result<(), ImageError> {
        match rustix::fs::renameat(folder, temp, parent, name) {
            Ok(()) => {
                // Renaming one name of a file onto another of the same file does nothing, and leaves both.
                match rustix::fs::unlinkat(folder, temp, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(err) => Err(self.shape("replace", path)(err)),
                }
            }
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                self.remove(parent, name, path)?;
                rustix::fs::renameat(folder, temp, parent, name).map_err(self.shape("replace", path))
            }
            Err(err) => Err(self.shape("write", path)(err)),
        }
    }

    /// Owner, mode, attributes and time, in this order: a new owner clears setuid and capabilities.
    fn finish(&self, file: BorrowedFd<'_>, meta: &Metadata, path: &Path) -> Result<(), ImageError> {
        if self.options.owners == Owners::Image {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(self.shape("change the owner of", path))?;
        }
        let mode = Mode::from_raw_mode((meta.mode & 0o7777) as RawMode);
        rustix::fs::fchmod(file, mode).map_err(self.shape("change the mode of", path))?;
        for (name, value) in &meta.xattrs {
            // As with BuildKit, attributes that the file system or the kernel does not allow are left out.
            match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => {}
                Err(err) => return Err(self.shape("set an attribute of", path)(err)),
            }
        }
        rustix::fs::futimens(file, &times(meta)).map_err(self.shape("set the time of", path))
    }

    /// The same for what cannot be opened. Attributes are left out: none but root's `trusted.` ones could be there.
    fn finish_unopened(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        path: &Path,
    ) -> Result<(), ImageError> {
        let meta = &entry.meta;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.options.owners == Owners::Image {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
                .map_err(self.shape("change the owner of", path))?;
        }
        if !matches!(entry.node, Node::Symlink(_)) {
            // The temporary name is ours and no link, so following it is harmless; chmod knows no other way.
            let mode = Mode::from_raw_mode((meta.mode & 0o7777) as RawMode);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .map_err(self.shape("change the mode of", path))?;
        }
        rustix::fs::utimensat(parent, name, &times(meta), flags).map_err(self.shape("set the time of", path))
    }

    fn remove_others(&self, folder: BorrowedFd<'_>, keep: &Directory, path: &Path) -> Result<(), ImageError> {
        for name in self.names(folder, path)? {
            let at_work = path.as_os_str().is_empty() && is_staging(&name);
            if keep.get(&name).is_none() && !at_work {
                self.remove(folder, &name, &path.join(std::ffi::OsStr::from_bytes(&name)))?;
            }
        }
        Ok(())
    }

    /// Removes a name and all below it.
    fn remove(&self, parent: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<(), ImageError> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(err) => return Err(self.shape("remove", path)(err)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(self.shape("remove", path))?;
        for below in self.names(open.as_fd(), path)? {
            self.remove(open.as_fd(), &below, &path.join(std::ffi::OsStr::from_bytes(&below)))?;
        }
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(self.shape("remove", path))
    }

    fn names(&self, folder: BorrowedFd<'_>, path: &Path) -> Result<Vec<Vec<u8>>, ImageError> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(folder).map_err(self.shape("list", path))? {
            let entry = entry.map_err(self.shape("list", path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    fn shape(&self, action: &'static str, path: &Path) -> impl FnOnce(Errno) -> ImageError + use<> {
        let path = self.dest.join(path);
        move |err| ImageError::Io {
            action,
            path,
            source: err.into(),
        }
    }

    fn unwritable(&self, path: &Path, problem: &'static str) -> ImageError {
        ImageError::Unwritable {
            path: path.display().to_string(),
            dest: self.dest.to_owned(),
            problem,
        }
    }
}

fn times(meta: &Metadata) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime.seconds,
        tv_nsec: i64::from(meta.mtime.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

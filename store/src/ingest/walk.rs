//! Reading directories of the disk, several at once, never through a symbolic link.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, openat, openat2, statx,
};
use rustix::io::Errno;

use super::IngestError;
use crate::{Metadata, StoreError, Timestamp};

/// Longest path that is read, as the kernel's own limit: trees deeper than this cannot be had by path.
const PATH_MAX: usize = 4096;

/// Bytes of directory entries asked for at once.
const LIST_BYTES: usize = 32 << 10;

/// An open directory of the walk.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fd: OwnedFd,
    /// Relative to where the walk began; empty there.
    pub(super) path: Vec<u8>,
    /// Where the walk began, for messages.
    top: std::sync::Arc<PathBuf>,
}

/// A name in a directory, as its listing says.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: Vec<u8>,
    pub(super) inode: u64,
    /// `None` when the file system does not say.
    pub(super) kind: Option<FileType>,
}

/// What is needed of a file's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) inode: u64,
    pub(super) device: (u32, u32),
    pub(super) links: u32,
    /// Of a device file.
    pub(super) number: (u32, u32),
}

impl Status {
    fn new(stat: &Statx) -> Self {
        let time = |time: &rustix::fs::StatxTimestamp| Timestamp {
            seconds: time.tv_sec,
            nanos: time.tv_nsec,
        };
        Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            inode: stat.stx_ino,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            links: stat.stx_nlink,
            number: (stat.stx_rdev_major, stat.stx_rdev_minor),
        }
    }

    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: Vec::new(),
        }
    }

    /// Whether a file is still the one that was seen, unchanged.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.inode, self.device, self.size, self.mtime, self.ctime)
            == (other.inode, other.device, other.size, other.mtime, other.ctime)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME);

impl Handle {
    /// Opens where a walk begins; a link there is followed.
    pub(super) fn open(top: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            fd: open_quietly(CWD, top, DIRECTORY).map_err(|err| StoreError::io("open directory", top)(err.into()))?,
            path: Vec::new(),
            top: std::sync::Arc::new(top.to_owned()),
        })
    }

    /// Opens a directory in this one.
    pub(super) fn enter(&self, name: &[u8]) -> Result<Self, Errno> {
        Ok(Self {
            fd: open_quietly(&self.fd, name, DIRECTORY | OFlags::NOFOLLOW)?,
            path: self.child(name),
            top: std::sync::Arc::clone(&self.top),
        })
    }

    /// Opens a file in this one for reading, never one that blocks.
    pub(super) fn open_file(&self, name: &[u8]) -> Result<std::fs::File, Errno> {
        open_quietly(&self.fd, name, FILE).map(std::fs::File::from)
    }

    /// As [`Handle::open_file`], for a path below this directory; no link on it is followed.
    pub(super) fn open_beneath(&self, path: &[u8]) -> Result<std::fs::File, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let open = |flags| openat2(&self.fd, path, flags, Mode::empty(), resolve);
        match open(FILE) {
            Err(Errno::PERM) => open(FILE - OFlags::NOATIME),
            other => other,
        }
        .map(std::fs::File::from)
    }

    /// The path of a name in this directory, relative to where the walk began.
    pub(super) fn child(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The path of a name for messages; of the directory itself for the empty name.
    pub(super) fn full_path(&self, name: &[u8]) -> PathBuf {
        let relative = if name.is_empty() {
            self.path.clone()
        } else {
            self.child(name)
        };
        self.top.join(std::ffi::OsStr::from_bytes(&relative))
    }

    /// Shapes an error about a name in this directory.
    pub(super) fn fail(&self, action: &'static str, name: &[u8], err: impl Into<std::io::Error>) -> IngestError {
        StoreError::io(action, &self.full_path(name))(err.into()).into()
    }

    /// Lists the names but `.` and `..`, in the order of the file system.
    pub(super) fn list(&self) -> Result<Vec<Listed>, IngestError> {
        let mut buffer = [MaybeUninit::uninit(); LIST_BYTES];
        let mut names = Vec::new();
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|err| self.fail("read directory", b"", err))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.path.len() + 1 + name.len() >= PATH_MAX {
                return Err(IngestError::TooDeep {
                    path: self.full_path(name),
                });
            }
            names.push(Listed {
                name: name.to_vec(),
                inode: entry.ino(),
                kind: Some(entry.file_type()).filter(|kind| *kind != FileType::Unknown),
            });
        }
        Ok(names)
    }

    /// The status of a name, links not followed; `None` when it is gone.
    pub(super) fn status(&self, name: &[u8]) -> Result<Option<Status>, IngestError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match statx(&self.fd, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => Ok(Some(Status::new(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(self.fail("read status of", name, err)),
        }
    }

    /// The status of this directory itself.
    pub(super) fn own_status(&self) -> Result<Status, IngestError> {
        status_of(&self.fd).map_err(|err| self.fail("read status of", b"", err))
    }

    pub(super) fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, IngestError> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|err| self.fail("read link", name, err))
    }
}

/// The status of an open file.
pub(super) fn status_of(fd: impl std::os::fd::AsFd) -> Result<Status, Errno> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|stat| Status::new(&stat))
}

/// Opens without noting the access time, which only an owner may ask for.
fn open_quietly<Fd: std::os::fd::AsFd, P: rustix::path::Arg + Copy>(
    at: Fd,
    path: P,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    match openat(at.as_fd(), path, flags, Mode::empty()) {
        Err(Errno::PERM) => openat(at, path, flags - OFlags::NOATIME, Mode::empty()),
        other => other,
    }
}

/// An extended attribute of an open file; `None` when it has none of that name.
pub(super) fn attribute(fd: impl std::os::fd::AsFd, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::fgetxattr(fd.as_fd(), name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.len() < 64 << 10 => value = vec![0; value.len() * 4],
            Err(err) => return Err(err),
        }
    }
}

/// Tasks that make more tasks, worked on by several threads, the newest first so that few directories are open.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    tasks: Vec<T>,
    busy: usize,
    failed: Option<IngestError>,
    stopped: bool,
}

impl<T: Send> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, task: T) {
        self.lock().tasks.push(task);
        self.changed.notify_one();
    }

    /// Runs tasks on `threads` threads, this one included, until there are none or one fails.
    pub(super) fn run(
        threads: usize,
        first: Vec<T>,
        work: impl Fn(T, &Self) -> Result<(), IngestError> + Sync,
    ) -> Result<(), IngestError> {
        let queue = Self {
            state: Mutex::new(State {
                tasks: first,
                busy: 0,
                failed: None,
                stopped: false,
            }),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| queue.work(&work));
            }
            queue.work(&work);
        });
        let state = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), Err)
    }

    fn work(&self, work: &(impl Fn(T, &Self) -> Result<(), IngestError> + Sync)) {
        /// Counts the worker out again, also when it panics: the others must not wait for it.
        struct Busy<'q, T: Send>(&'q Queue<T>);
        impl<T: Send> Drop for Busy<'_, T> {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                state.busy -= 1;
                state.stopped |= std::thread::panicking();
                if state.busy == 0 || state.stopped {
                    self.0.changed.notify_all();
                }
            }
        }
        loop {
            let mut state = self.lock();
            let task = loop {
                if state.stopped {
                    return;
                }
                if let Some(task) = state.tasks.pop() {
                    break task;
                }
                if state.busy == 0 {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.busy += 1;
            drop(state);
            let busy = Busy(self);
            if let Err(err) = work(task, self) {
                let mut state = self.lock();
                state.failed.get_or_insert(err);
                state.stopped = true;
            }
            drop(busy);
        }
    }
}

//! What a step changed, from the upper directory of its overlay.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::assemble::{CAPABILITY, Collected, Contents, Found, FoundNode, Inode, Number, linked};
use super::walk::{Handle, Queue, Status, attribute};
use super::{FileStore, IngestError};
use crate::deep::deep;
use crate::diff::{apply, diff};
use crate::edit::settled;
use crate::staging::Staging;
use crate::{
    BlobDigest, Directory, DirectoryRef, DirectoryStore, Entry, INLINE_LIMIT, KnownIds, Metadata, Node, StoreError,
    TreeDigest,
};

/// Where overlayfs keeps its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayAttributes {
    /// `trusted.overlay.*`: mounted by root.
    Trusted,
    /// `user.overlay.*`: mounted with `userxattr`.
    User,
}

impl OverlayAttributes {
    fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    fn metacopy(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.metacopy",
            Self::User => "user.overlay.metacopy",
        }
    }

    /// On everything that was copied up, whatever its value; not on links and devices.
    fn origin(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.origin",
            Self::User => "user.overlay.origin",
        }
    }
}

/// How an upper directory is read.
#[derive(Clone, Copy, Debug)]
pub struct UpperOptions<'a> {
    /// Paths, relative to the root, that whoever mounted the overlay made and the step could not see: files and
    /// directories under mount points. A directory with something of the step's own in it stays.
    pub stubs: &'a [PathBuf],
    /// Where the marks of the overlay are.
    pub attributes: OverlayAttributes,
    /// The owners that files could have when the step ran.
    pub owners: &'a KnownIds,
    /// Threads that read and hash.
    pub threads: NonZeroUsize,
}

/// What a step left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// The lower tree with the layer applied.
    pub tree: TreeDigest,
    /// What changed.
    pub layer: TreeDigest,
}

/// Reads the upper directory of an unmounted overlay over `lower`: large files are *moved* into the store, so that
/// the directory is of no use afterwards. Nobody may write to it any more.
///
/// Files that were copied up and not changed, directories of which only the time changed, sockets and all extended
/// attributes but `security.capability` are left out.
///
/// # Errors
/// [`IngestError`] names the file.
pub fn upperdir(
    store: &dyn FileStore,
    upper: &Path,
    lower: &TreeDigest,
    options: &UpperOptions<'_>,
) -> Result<Ingested, IngestError> {
    let walk = Walk {
        store,
        options,
        stubs: options.stubs.iter().map(|path| relative(path)).collect(),
        collected: Collected::default(),
        taken: Mutex::default(),
        copied_up: Mutex::default(),
    };
    let top = Arc::new(Handle::open(upper)?);
    let number = walk.collected.number();
    let first = Task::Directory {
        number,
        parent: top,
        name: None,
    };
    Queue::run(options.threads.get(), vec![first], |task, queue| walk.work(task, queue))?;
    let Walk {
        collected, copied_up, ..
    } = walk;
    let staging = Staging::new(store);
    let raw = collected.assemble(&staging, None)?;
    let raw = settled(&staging, &raw.digest)?;
    let mut upper = apply(&staging, Some(lower), &raw)?;
    if !options.owners.is_complete() {
        let kept = KeptOwners {
            trees: &staging,
            known: options.owners,
            copied_up: copied_up.into_inner().unwrap_or_else(PoisonError::into_inner),
        };
        upper = kept.restore(b"", lower, &upper)?;
    }
    let upper = with_attributes(&staging, lower, &upper)?;
    // The difference drops what was only copied up, and applying it keeps the times of unchanged directories.
    let layer = diff(&staging, Some(lower), &upper)?;
    let tree = apply(&staging, Some(lower), &layer)?;
    staging.keep(&[layer, tree])?;
    Ok(Ingested { tree, layer })
}

/// A path as the walk spells it.
fn relative(path: &Path) -> Vec<u8> {
    let names: Vec<&[u8]> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.as_bytes()),
            _ => None,
        })
        .collect();
    names.join(&b'/')
}

/// A directory to list, or files of one to read.
enum Task {
    Directory {
        number: Number,
        parent: Arc<Handle>,
        /// `None` for the top itself.
        name: Option<Vec<u8>>,
    },
    Files {
        number: Number,
        parent: Arc<Handle>,
        files: Vec<Unread>,
    },
}

/// A file to read: its place among the entries of its directory.
struct Unread {
    place: usize,
    name: Vec<u8>,
    status: Status,
}

/// Files are read in tasks of about this many, so that a large directory keeps every thread busy.
const BATCH_FILES: usize = 64;
/// As [`BATCH_FILES`], in bytes.
const BATCH_BYTES: u64 = 4 << 20;

struct Walk<'a> {
    store: &'a dyn FileStore,
    options: &'a UpperOptions<'a>,
    stubs: HashSet<Vec<u8>>,
    collected: Collected<'a>,
    /// Files with several names that were taken in by one of them.
    taken: Mutex<HashMap<Inode, Contents>>,
    /// Paths that have a counterpart in the lower tree; noted only when some owners are not known here.
    copied_up: Mutex<HashSet<Vec<u8>>>,
}

impl Walk<'_> {
    fn work(&self, task: Task, queue: &Queue<Task>) -> Result<(), IngestError> {
        match task {
            Task::Directory { number, parent, name } => {
                let handle = match name {
                    None => parent,
                    Some(name) => Arc::new(
                        parent
                            .enter(&name)
                            .map_err(|err| parent.fail("open directory", &name, err))?,
                    ),
                };
                self.directory(number, &handle, queue)
            }
            Task::Files { number, parent, files } => {
                let mut contents = Vec::with_capacity(files.len());
                let mut small = Vec::new();
                for file in files {
                    contents.push((file.place, self.file(&parent, &file, &mut small)?));
                }
                self.store.put_small(&small)?;
                Ok(self.collected.add_contents(number, contents)?)
            }
        }
    }

    fn directory(&self, number: Number, handle: &Arc<Handle>, queue: &Queue<Task>) -> Result<(), IngestError> {
        let opaque = attribute(&handle.fd, self.options.attributes.opaque())
            .map_err(|err| handle.fail("read attributes of", b"", err))?
            .is_some_and(|value| value == b"y");
        self.note_origin(&handle.fd, || handle.path.clone())
            .map_err(|err| handle.fail("read attributes of", b"", err))?;
        let mut entries = Vec::new();
        let mut files = Vec::new();
        let mut bytes = 0;
        for listed in handle.list()? {
            let path = handle.child(&listed.name);
            let is_stub = self.stubs.contains(&path);
            let Some(status) = handle.status(&listed.name)? else {
                return Err(IngestError::Changed {
                    path: handle.full_path(&listed.name),
                });
            };
            let mut meta = status.metadata();
            let node = match status.kind {
                FileType::Directory => {
                    let below = self.collected.number();
                    queue.add(Task::Directory {
                        number: below,
                        parent: Arc::clone(handle),
                        name: Some(listed.name.clone()),
                    });
                    FoundNode::Directory {
                        number: below,
                        dropped_if_empty: is_stub,
                    }
                }
                _ if is_stub => continue,
                FileType::CharacterDevice if status.number == (0, 0) => {
                    meta = Metadata::new(0);
                    FoundNode::Ready(Node::Whiteout)
                }
                FileType::CharacterDevice => FoundNode::Ready(Node::CharDevice(status.number.0, status.number.1)),
                FileType::BlockDevice => FoundNode::Ready(Node::BlockDevice(status.number.0, status.number.1)),
                FileType::Fifo => FoundNode::Ready(Node::Fifo),
                FileType::Symlink => FoundNode::Ready(Node::Symlink(handle.read_link(&listed.name)?)),
                FileType::RegularFile => {
                    files.push(Unread {
                        place: entries.len(),
                        name: listed.name.clone(),
                        status,
                    });
                    bytes += status.size;
                    FoundNode::File(linked(&status))
                }
                // A socket without its process is of no use to anyone.
                _ => continue,
            };
            entries.push(Found {
                name: listed.name,
                meta,
                node,
            });
            if files.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
                bytes = 0;
                queue.add(Task::Files {
                    number,
                    parent: Arc::clone(handle),
                    files: std::mem::take(&mut files),
                });
            }
        }
        self.collected.add_directory(number, opaque, entries)?;
        let rest = Task::Files {
            number,
            parent: Arc::clone(handle),
            files,
        };
        self.work(rest, queue)
    }

    /// Takes a file in: a small one is read and added to `small`, a large one is moved.
    fn file(
        &self,
        parent: &Handle,
        unread: &Unread,
        small: &mut Vec<(BlobDigest, Vec<u8>)>,
    ) -> Result<Contents, IngestError> {
        let name = &unread.name;
        let inode = linked(&unread.status);
        if let Some(inode) = &inode
            && let Some(known) = self.taken().get(inode)
        {
            return Ok(known.clone());
        }
        let file = parent.open_file(name).map_err(|err| parent.fail("open", name, err))?;
        let fail = |err| parent.fail("read attributes of", name, err);
        self.note_origin(&file, || parent.child(name)).map_err(fail)?;
        let capability = attribute(&file, CAPABILITY).map_err(fail)?;
        let size = unread.status.size;
        let marked = || attribute(&file, self.options.attributes.metacopy());
        if size > 0 && unread.status.blocks == 0 && marked().map_err(fail)?.is_some() {
            return Err(IngestError::WithoutData {
                path: parent.full_path(name),
            });
        }
        let (blob, size) = if size <= INLINE_LIMIT {
            let mut bytes = vec![0; size as usize];
            let length = rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut bytes, 0))
                .map_err(|err| parent.fail("read", name, err))?;
            if length as u64 != size {
                return Err(IngestError::Changed {
                    path: parent.full_path(name),
                });
            }
            let blob = BlobDigest::of(&bytes);
            small.push((blob, bytes));
            (blob, size)
        } else {
            // By the descriptor of the directory, so that no link on the way can be followed.
            let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.fd.as_raw_fd()));
            path.push(OsStr::from_bytes(name));
            self.store.adopt_file(&path).map_err(|err| match err {
                StoreError::Io { action, source, .. } => StoreError::Io {
                    action,
                    path: parent.full_path(name),
                    source,
                },
                other => other,
            })?
        };
        let contents = Contents {
            blob,
            size,
            capability,
            newer: None,
        };
        if let Some(inode) = inode {
            self.taken().insert(inode, contents.clone());
        }
        Ok(contents)
    }

    /// Notes what was copied up, if that matters.
    fn note_origin(&self, fd: impl std::os::fd::AsFd, path: impl FnOnce() -> Vec<u8>) -> Result<(), Errno> {
        if !self.options.owners.is_complete() && attribute(fd, self.options.attributes.origin())?.is_some() {
            let mut noted = self.copied_up.lock().unwrap_or_else(PoisonError::into_inner);
            noted.insert(path());
        }
        Ok(())
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Inode, Contents>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives files their owners back that could not be shown to the step: see [`KnownIds`].
struct KeptOwners<'a> {
    trees: &'a dyn DirectoryStore,
    known: &'a KnownIds,
    copied_up: HashSet<Vec<u8>>,
}

impl KeptOwners<'_> {
    /// `path` is that of the directories, ended by a slash but for the root.
    fn restore(&self, path: &[u8], lower: &TreeDigest, upper: &TreeDigest) -> Result<TreeDigest, StoreError> {
        if lower == upper {
            return Ok(*upper);
        }
        let (old, new) = (self.trees.need_directory(lower)?, self.trees.need_directory(upper)?);
        let mut directory = Directory::clone(&new);
        for entry in &mut directory.entries {
            let Some(old) = old.get(&entry.name) else { continue };
            let path = [path, &entry.name].concat();
            if let (Node::Directory(old_below), Node::Directory(below)) = (&old.node, &mut entry.node) {
                let inside = [path.as_slice(), b"/"].concat();
                let digest = deep(|| self.restore(&inside, &old_below.digest, &below.digest))?;
                if digest != below.digest {
                    *below = reference(self.trees, digest)?;
                }
            }
            if self.is_the_same_file(&path, &old.node, &entry.node) {
                let owner = self
                    .known
                    .kept((old.meta.uid, old.meta.gid), (entry.meta.uid, entry.meta.gid));
                (entry.meta.uid, entry.meta.gid) = owner;
            }
        }
        if directory == *new {
            return Ok(*upper);
        }
        Ok(self.trees.put_directory(directory)?.digest)
    }

    /// Whether an entry is the one that was there, perhaps changed, and not a new one of the same name.
    fn is_the_same_file(&self, path: &[u8], old: &Node, new: &Node) -> bool {
        match (old, new) {
            (Node::Directory(_), Node::Directory(_)) => self.copied_up.contains(path),
            // Names of one file have one owner, and some of them may be new.
            (_, Node::File { link: Some(_), .. }) => false,
            // A file with several names loses its mark with the others, but not its content.
            (Node::File { blob: old, link, .. }, Node::File { blob, .. }) => {
                (link.is_some() && old == blob) || self.copied_up.contains(path)
            }
            (old, new) => old == new,
        }
    }
}

/// Gives what did not change otherwise the attributes it has in `lower`: only one of them is read from the disk, and
/// the others are no change to a layer.
fn with_attributes(
    trees: &dyn DirectoryStore,
    lower: &TreeDigest,
    upper: &TreeDigest,
) -> Result<TreeDigest, StoreError> {
    if lower == upper {
        return Ok(*upper);
    }
    let (old, new) = (trees.need_directory(lower)?, trees.need_directory(upper)?);
    let mut directory = Directory::clone(&new);
    for entry in &mut directory.entries {
        let Some(old) = old.get(&entry.name) else { continue };
        if let (Node::Directory(old_below), Node::Directory(below)) = (&old.node, &mut entry.node) {
            let digest = deep(|| with_attributes(trees, &old_below.digest, &below.digest))?;
            if digest != below.digest {
                *below = reference(trees, digest)?;
            }
        }
        let with_old = Metadata {
            xattrs: old.meta.xattrs.clone(),
            ..entry.meta.clone()
        };
        if capability(&old.meta) == capability(&entry.meta) && is_same(old, entry, &with_old) {
            entry.meta = with_old;
        }
    }
    if directory == *new {
        return Ok(*upper);
    }
    Ok(trees.put_directory(directory)?.digest)
}

/// Whether an entry with this metadata is the old one, a directory's time and what is in it apart.
fn is_same(old: &Entry, new: &Entry, meta: &Metadata) -> bool {
    match (&old.node, &new.node) {
        (Node::Directory(_), Node::Directory(_)) => {
            (old.meta.mode, old.meta.uid, old.meta.gid) == (meta.mode, meta.uid, meta.gid)
        }
        (Node::File { blob, .. }, Node::File { blob: new_blob, .. }) => blob == new_blob && old.meta == *meta,
        _ => false,
    }
}

fn capability(meta: &Metadata) -> Option<&[u8]> {
    let found = meta.xattrs.iter().find(|(name, _)| name == CAPABILITY.as_bytes());
    found.map(|(_, value)| value.as_slice())
}

fn reference(trees: &dyn DirectoryStore, digest: TreeDigest) -> Result<DirectoryRef, StoreError> {
    let directory = trees.need_directory(&digest)?;
    Ok(DirectoryRef {
        digest,
        content: directory.content_digest(),
        totals: directory.totals(),
    })
}

//! A user's directory as a tree: every digest known, bytes stored only when someone needs them.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::assemble::{CAPABILITY, Collected, Contents, Found, FoundNode, Number, linked};
use super::cache::{DirectoryKey, Known, Record, Records, StatCache, is_racy};
use super::walk::{Handle, Queue, Status, attribute, status_of};
use super::{FileStore, IngestError};
use crate::edit::settled;
use crate::patterns::{Below, FilterState, PathFilter};
use crate::staging::Staging;
use crate::{BlobDigest, INLINE_LIMIT, Metadata, Node, StoreError, Timestamp, TreeDigest};

/// Whose files scanned ones become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Root's, as those of a build context.
    Root,
    /// Whose they are.
    Keep,
}

/// What a scan stores at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eagerness {
    /// Small files that have to be read anyway, so that they need not be read again.
    SmallFiles,
    /// Nothing before [`Scan::store`].
    Nothing,
}

/// How a directory is scanned.
#[derive(Clone, Copy)]
pub struct ScanOptions<'a> {
    /// Which paths are seen; nothing else is read.
    pub filter: &'a PathFilter,
    /// Whose they become.
    pub owners: Owners,
    /// Metadata of the tree's root; the directory's own is not taken.
    pub root: &'a Metadata,
    /// What is known from earlier scans.
    pub cache: Option<&'a dyn StatCache>,
    /// What is stored at once.
    pub eagerness: Eagerness,
    /// The time by the wall clock before the scan.
    pub now: Timestamp,
    /// Threads that read and hash.
    pub threads: NonZeroUsize,
}

/// A scanned directory.
#[derive(Debug)]
pub struct Scan {
    /// The tree: its directories are stored, the bytes of its files may not be.
    pub tree: TreeDigest,
    /// How many files had to be read.
    pub read: usize,
    pub(super) top: PathBuf,
    pub(super) threads: NonZeroUsize,
}

/// Scans a directory. A link at `top` is followed, none below it. Sockets become empty files, as in BuildKit; of the
/// extended attributes only `security.capability` is read.
///
/// # Errors
/// [`IngestError`] names the file: one that cannot be read, or that changed again and again while it was read.
pub fn scan(store: &dyn FileStore, top: &Path, options: &ScanOptions<'_>) -> Result<Scan, IngestError> {
    let handle = Arc::new(Handle::open(top)?);
    let is_complete = |tree: &TreeDigest| store.is_complete(tree);
    // A tree that is here already costs no writing, and link groups are settled before anything is stored.
    let staging = Staging::compact(store, &is_complete);
    let walk = Walk {
        store,
        options,
        known: Known::new(options.cache, key_of(&handle.own_status()?)),
        collected: Collected::early(&staging),
        fresh: Mutex::default(),
    };
    let first = Task::Directory {
        number: walk.collected.number(),
        parent: handle,
        name: None,
        below: options.filter.top(),
        state: FilterState::default(),
    };
    Queue::run(options.threads.get(), vec![first], |task, queue| walk.work(task, queue))?;
    let Walk {
        collected,
        fresh,
        known,
        ..
    } = walk;
    let fresh = fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
    let read = fresh.values().map(|rows| rows.read).sum();
    known.save(fresh.into_iter().map(|(key, row)| (key, row.records)))?;
    let root = collected.assemble(&staging, Some(options.root.clone()))?;
    let tree = settled(&staging, &root.digest)?;
    staging.keep_missing(&[tree], &is_complete)?;
    Ok(Scan {
        tree,
        read,
        top: top.to_owned(),
        threads: options.threads,
    })
}

fn key_of(status: &Status) -> DirectoryKey {
    DirectoryKey {
        device: status.device,
        inode: status.inode,
    }
}

enum Task {
    Directory {
        number: Number,
        parent: Arc<Handle>,
        /// `None` for the top itself.
        name: Option<Vec<u8>>,
        below: Below,
        state: FilterState,
    },
    Files {
        number: Number,
        parent: Arc<Handle>,
        key: DirectoryKey,
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
pub(super) const BATCH_FILES: usize = 64;
/// As [`BATCH_FILES`], in bytes.
const BATCH_BYTES: u64 = 4 << 20;

/// How often a file that changes while it is read is read again.
const TRIES: usize = 4;

/// The row of a directory in which files had to be read.
#[derive(Default)]
struct FreshRow {
    records: Records,
    read: usize,
}

struct Walk<'a> {
    store: &'a dyn FileStore,
    options: &'a ScanOptions<'a>,
    known: Known<'a>,
    collected: Collected<'a>,
    fresh: Mutex<HashMap<DirectoryKey, FreshRow>>,
}

impl Walk<'_> {
    fn work(&self, task: Task, queue: &Queue<Task>) -> Result<(), IngestError> {
        match task {
            Task::Directory {
                number,
                parent,
                name: None,
                below,
                state,
            } => self.directory(number, &parent, below, &state, queue),
            Task::Directory {
                number,
                parent,
                name: Some(name),
                below,
                state,
            } => match parent.enter(&name) {
                Ok(handle) => self.directory(number, &Arc::new(handle), below, &state, queue),
                // A directory that only something below could ask for and that nobody may look into asks for nothing.
                Err(Errno::ACCESS) if below == Below::Mixed => Ok(()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(IngestError::Changed {
                    path: parent.full_path(&name),
                }),
                Err(err) => Err(parent.fail("open directory", &name, err)),
            },
            Task::Files {
                number,
                parent,
                key,
                files,
            } => self.read_files(number, &parent, key, &files),
        }
    }

    fn directory(
        &self,
        number: Number,
        handle: &Arc<Handle>,
        below: Below,
        state: &FilterState,
        queue: &Queue<Task>,
    ) -> Result<(), IngestError> {
        let mut entries = Vec::new();
        let mut regular = Vec::new();
        let mut inodes = HashSet::new();
        for listed in handle.list()? {
            inodes.insert(listed.inode);
            let path = handle.child(&listed.name);
            let (selected, below, state) = match below {
                Below::Matched => (true, Below::Matched, FilterState::default()),
                _ => {
                    let verdict = self.options.filter.judge(&path, state);
                    (verdict.selected, verdict.below, verdict.state)
                }
            };
            let may_hold = below != Below::Unmatched && listed.kind.is_none_or(|kind| kind == FileType::Directory);
            if !selected && !may_hold {
                continue;
            }
            let Some(status) = handle.status(&listed.name)? else {
                continue;
            };
            let meta = self.metadata(&status);
            let node = match status.kind {
                FileType::Directory if below == Below::Unmatched => {
                    FoundNode::Ready(Node::Directory(crate::Directory::default().seal().0))
                }
                FileType::Directory => {
                    let number = self.collected.number();
                    queue.add(Task::Directory {
                        number,
                        parent: Arc::clone(handle),
                        name: Some(listed.name.clone()),
                        below,
                        state,
                    });
                    FoundNode::Directory {
                        number,
                        dropped_if_empty: !selected,
                    }
                }
                _ if !selected => continue,
                FileType::CharacterDevice => FoundNode::Ready(Node::CharDevice(status.number.0, status.number.1)),
                FileType::BlockDevice => FoundNode::Ready(Node::BlockDevice(status.number.0, status.number.1)),
                FileType::Fifo => FoundNode::Ready(Node::Fifo),
                FileType::Symlink => FoundNode::Ready(Node::Symlink(handle.read_link(&listed.name)?)),
                FileType::RegularFile => {
                    regular.push(Unread {
                        place: entries.len(),
                        name: listed.name.clone(),
                        status,
                    });
                    FoundNode::File(linked(&status))
                }
                // A socket is an empty file to BuildKit.
                _ => FoundNode::Ready(Node::File {
                    blob: BlobDigest::of(b""),
                    size: 0,
                    link: None,
                }),
            };
            entries.push(Found {
                name: listed.name,
                meta,
                node,
            });
        }
        let (key, unread) = self.look_up(handle, &mut entries, regular, &inodes)?;
        self.collected.add_directory(number, false, entries)?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for file in unread {
            bytes += file.status.size;
            batch.push(file);
            if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
                bytes = 0;
                queue.add(Task::Files {
                    number,
                    parent: Arc::clone(handle),
                    key,
                    files: std::mem::take(&mut batch),
                });
            }
        }
        self.read_files(number, handle, key, &batch)
    }

    /// Fills in what the cache knows and returns the files that have to be read.
    fn look_up(
        &self,
        handle: &Handle,
        entries: &mut [Found],
        files: Vec<Unread>,
        inodes: &HashSet<u64>,
    ) -> Result<(DirectoryKey, Vec<Unread>), IngestError> {
        let key = match (files.is_empty(), self.known.is_used()) {
            (false, true) => key_of(&handle.own_status()?),
            _ => DirectoryKey {
                device: (0, 0),
                inode: 0,
            },
        };
        if files.is_empty() {
            return Ok((key, files));
        }
        let records = self.known.records(&key)?;
        let mut unread = Vec::new();
        for file in files {
            let record = records.binary_search_by_key(&file.status.inode, |record| record.inode);
            match record.ok().and_then(|index| records[index].contents(&file.status)) {
                Some(contents) => entries[file.place].fill(contents),
                None => unread.push(file),
            }
        }
        if !unread.is_empty() {
            // The new row keeps what is known of files that are still there; those that are read replace theirs.
            let replaced: HashSet<u64> = unread.iter().map(|file| file.status.inode).collect();
            let kept = records
                .into_iter()
                .filter(|record| inodes.contains(&record.inode) && !replaced.contains(&record.inode));
            let kept: Vec<Record> = kept.collect();
            let mut fresh = self.fresh();
            let row = &mut fresh.entry(key).or_default().records;
            row.reserve(kept.len() + unread.len());
            row.extend(&kept);
        }
        Ok((key, unread))
    }

    fn read_files(
        &self,
        number: Number,
        parent: &Handle,
        key: DirectoryKey,
        files: &[Unread],
    ) -> Result<(), IngestError> {
        if files.is_empty() {
            return Ok(());
        }
        let mut records = Vec::with_capacity(files.len());
        let mut contents = Vec::with_capacity(files.len());
        let mut small = Vec::new();
        for file in files {
            let (status, found) = self.read(parent, file, &mut small)?;
            if !is_racy(&status, self.options.now) {
                records.push(Record::new(&status, &found));
            }
            contents.push(found);
        }
        self.store.put_small(&small)?;
        self.collected.add_contents(
            number,
            files
                .iter()
                .zip(contents)
                .map(|(file, contents)| (file.place, contents)),
        )?;
        let mut fresh = self.fresh();
        let row = fresh.entry(key).or_default();
        row.records.extend(&records);
        row.read += files.len();
        Ok(())
    }

    /// Reads a file as it is between two equal looks at its status; bytes to store are added to `small`.
    fn read(
        &self,
        parent: &Handle,
        unread: &Unread,
        small: &mut Vec<(BlobDigest, Vec<u8>)>,
    ) -> Result<(Status, Contents), IngestError> {
        let name = &unread.name;
        let changed = || IngestError::Changed {
            path: parent.full_path(name),
        };
        for _ in 0..TRIES {
            let mut file = match parent.open_file(name) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::LOOP) => return Err(changed()),
                Err(err) => return Err(parent.fail("open", name, err)),
            };
            let before = status_of(&file).map_err(|err| parent.fail("read status of", name, err))?;
            if before.kind != FileType::RegularFile {
                return Err(changed());
            }
            let capability =
                attribute(&file, CAPABILITY).map_err(|err| parent.fail("read attributes of", name, err))?;
            let (blob, size) = self
                .digest(&mut file, before.size, small)
                .map_err(|err| named(err, &parent.full_path(name)))?;
            let after = status_of(&file).map_err(|err| parent.fail("read status of", name, err))?;
            if before.is_same(&after) && size == after.size {
                // The entry has the metadata of the first look, which may be that of an older file.
                let newer = !after.is_same(&unread.status);
                let contents = Contents {
                    blob,
                    size,
                    capability,
                    newer: newer.then(|| Box::new(self.metadata(&after))),
                };
                return Ok((after, contents));
            }
        }
        Err(changed())
    }

    fn metadata(&self, status: &Status) -> Metadata {
        let mut meta = status.metadata();
        if self.options.owners == Owners::Root {
            (meta.uid, meta.gid) = (0, 0);
        }
        meta
    }

    fn digest(
        &self,
        file: &mut std::fs::File,
        size: u64,
        small: &mut Vec<(BlobDigest, Vec<u8>)>,
    ) -> Result<(BlobDigest, u64), StoreError> {
        let fail = || StoreError::io("read", Path::new(""));
        if size <= INLINE_LIMIT {
            // One call gets it all: a file that grows meanwhile is found out by the second look at its status.
            let mut bytes = vec![0; size as usize];
            let length = rustix::io::retry_on_intr(|| rustix::io::pread(&*file, &mut bytes, 0))
                .map_err(|err| fail()(err.into()))?;
            bytes.truncate(length);
            let blob = BlobDigest::of(&bytes);
            if self.options.eagerness == Eagerness::SmallFiles {
                small.push((blob, bytes));
            }
            return Ok((blob, length as u64));
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        let mut total = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok((BlobDigest::from_bytes(*hasher.finalize().as_bytes()), total)),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    total += count as u64;
                }
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(fail()(err)),
            }
        }
    }

    fn fresh(&self) -> MutexGuard<'_, HashMap<DirectoryKey, FreshRow>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error of reading with the path it was about.
pub(super) fn named(err: StoreError, full_path: &Path) -> IngestError {
    IngestError::Store(match err {
        StoreError::Io { action, path, source } if path.as_os_str().is_empty() => StoreError::Io {
            action,
            path: full_path.to_owned(),
            source,
        },
        other => other,
    })
}

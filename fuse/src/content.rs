//! Where the serving threads get directories and bytes from: memory first, blob files next, the store last.
//!
//! A Merkle tree repeats itself from step to step, so what one tree of this mount has loaded serves the next as well.
//! Everything here lives on the serving threads; blob files are opened below a descriptor of the blobs folder, so that
//! a `pivot_root` which moves the root of this process changes nothing.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use cbs_store::{BlobDigest, Directory, INLINE_LIMIT, StoreError, TreeDigest, blob_path};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::server::{AsBacking, Bytes};
use crate::shared::Shared;
use crate::store_link::{LinkError, StoreLink};
use crate::sync::lock;

/// Bytes of small blobs that are kept for the next tree that has them.
const SMALL_BUDGET: usize = 16 << 20;
/// Blob files that are kept open.
const FILE_BUDGET: usize = 64;

/// Content as the serving threads see it.
#[derive(Debug)]
pub(crate) struct Content {
    link: StoreLink,
    blobs: OwnedFd,
    shared: Arc<Shared>,
    directories: Mutex<Directories>,
    /// The store's side puts in what it loads ahead.
    small: Arc<Mutex<Recent<BlobDigest, Arc<[u8]>>>>,
    files: Mutex<Recent<BlobDigest, Arc<File>>>,
}

#[derive(Debug, Default)]
struct Directories {
    known: HashMap<TreeDigest, Weak<Directory>>,
    /// Size at which dead entries are swept next.
    sweep_at: usize,
}

impl Content {
    /// Opens the blobs folder. Call it on a serving thread.
    pub(crate) fn open(link: StoreLink, blobs: &Path, shared: Arc<Shared>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            link,
            blobs: rustix::fs::open(blobs, flags, Mode::empty())?,
            shared,
            directories: Mutex::default(),
            small: Arc::new(Mutex::new(Recent::new(SMALL_BUDGET))),
            files: Mutex::new(Recent::new(FILE_BUDGET)),
        })
    }

    /// A directory that a tree refers to; `EIO` when the store cannot give it.
    pub(crate) fn need_directory(&self, digest: TreeDigest) -> Result<Arc<Directory>, Errno> {
        self.directory(digest)?
            .ok_or_else(|| self.fail(StoreError::MissingDirectory(digest)))
    }

    /// A directory; `None` when it is not in the store.
    pub(crate) fn directory(&self, digest: TreeDigest) -> Result<Option<Arc<Directory>>, Errno> {
        if let Some(directory) = lock(&self.directories).known.get(&digest).and_then(Weak::upgrade) {
            return Ok(Some(directory));
        }
        let directory = self.answer(self.link.directory(digest))?;
        if let Some(directory) = &directory {
            lock(&self.directories).remember(digest, directory);
        }
        Ok(directory)
    }

    /// A piece of a file; short only at its end. When a small one has to be fetched, `ahead` names blobs that may be wanted
    /// next.
    pub(crate) fn read(
        &self,
        blob: &BlobDigest,
        size: u64,
        offset: u64,
        wanted: usize,
        ahead: impl FnOnce() -> Vec<BlobDigest>,
    ) -> Result<Bytes, Errno> {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        if wanted == 0 {
            return Ok(Bytes::Owned(Vec::new()));
        }
        if size <= INLINE_LIMIT {
            return self.read_small(blob, size, offset, wanted, ahead);
        }
        let bytes = match self.file(blob) {
            Ok(file) => read_file(&file, offset, wanted)?,
            // The blob is not a file of its own, which is so in a store that lives in memory.
            Err(Errno::NOENT) => {
                let piece = self.answer(self.link.piece(*blob, offset, wanted))?;
                piece.ok_or_else(|| self.fail(StoreError::MissingBlob(*blob)))?
            }
            Err(err) => return Err(err),
        };
        // A blob that ends before its size would read as zeros: no reader may take those for content.
        if bytes.len() == wanted {
            Ok(Bytes::Owned(bytes))
        } else {
            Err(Errno::IO)
        }
    }

    /// The file of a large blob; `ENOENT` when it has none.
    pub(crate) fn file(&self, blob: &BlobDigest) -> Result<Arc<File>, Errno> {
        if let Some(file) = lock(&self.files).get(blob) {
            return Ok(file);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(&self.blobs, blob_path(blob), flags, Mode::empty(), resolve)?;
        let file = Arc::new(File::from(file));
        lock(&self.files).put(*blob, Arc::clone(&file), 1);
        Ok(file)
    }

    /// The names at the root of a browsing mount.
    pub(crate) fn roots(&self) -> Result<Vec<(Vec<u8>, TreeDigest)>, Errno> {
        self.answer(self.link.roots())
    }

    /// The tree of one name at the root of a browsing mount.
    pub(crate) fn root(&self, name: &[u8]) -> Result<Option<TreeDigest>, Errno> {
        self.answer(self.link.root(name.to_vec()))
    }

    fn read_small(
        &self,
        blob: &BlobDigest,
        size: u64,
        offset: u64,
        wanted: usize,
        ahead: impl FnOnce() -> Vec<BlobDigest>,
    ) -> Result<Bytes, Errno> {
        let cached = lock(&self.small).get(blob);
        let bytes = if let Some(bytes) = cached {
            bytes
        } else {
            let mut ahead = ahead();
            if !ahead.is_empty() {
                let mut small = lock(&self.small);
                ahead.retain(|digest| small.get(digest).is_none());
            }
            let small = Arc::clone(&self.small);
            let keep = move |digest, bytes: Arc<[u8]>| {
                let weight = bytes.len();
                lock(&small).put(digest, bytes, weight);
            };
            let bytes = self.answer(self.link.small_blob(*blob, ahead, keep))?;
            let bytes = bytes.ok_or_else(|| self.fail(StoreError::MissingBlob(*blob)))?;
            lock(&self.small).put(*blob, Arc::clone(&bytes), bytes.len());
            bytes
        };
        if bytes.len() as u64 != size {
            return Err(Errno::IO);
        }
        // `offset + wanted` is at most `size`, which is small.
        let start = offset as usize;
        Ok(Bytes::Shared(bytes, start..start + wanted))
    }

    fn answer<T>(&self, answer: Result<T, LinkError>) -> Result<T, Errno> {
        answer.map_err(|err| match err {
            LinkError::Store(err) => self.fail(err),
            LinkError::Lost => Errno::IO,
        })
    }

    /// Keeps the reason, of which a reader of the mount sees no more than `EIO`.
    fn fail(&self, err: StoreError) -> Errno {
        self.shared.fail(err);
        Errno::IO
    }
}

impl Directories {
    fn remember(&mut self, digest: TreeDigest, directory: &Arc<Directory>) {
        self.known.insert(digest, Arc::downgrade(directory));
        if self.known.len() >= self.sweep_at.max(1024) {
            self.known.retain(|_, directory| directory.strong_count() > 0);
            self.sweep_at = self.known.len() * 2;
        }
    }
}

/// A cache that forgets what was not used for a while: the young half takes everything that is used, and when it is
/// full it becomes the old half.
#[derive(Debug)]
struct Recent<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    weight: usize,
    budget: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Recent<K, V> {
    fn new(budget: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            budget,
        }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.remove(key)?;
        self.put(*key, value.clone(), weight);
        Some(value)
    }

    fn put(&mut self, key: K, value: V, weight: usize) {
        if self.weight + weight > self.budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(key, (value, weight));
    }
}

impl AsBacking for Arc<File> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

fn read_file(file: &File, offset: u64, wanted: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::with_capacity(wanted);
    while bytes.len() < wanted {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(wanted);
    Ok(bytes)
}

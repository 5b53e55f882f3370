//! Packs: append-only files that hold the bytes of small blobs, so that a tree of small files costs no inodes.
//!
//! A pack is [`MAGIC`] and then blobs back to back; the index says where each is. Bytes that no row points to are dead: a
//! flush that was cut short, a blob that another process put first, what gc removed. One process appends to a pack at a
//! time (`flock`), and goes on with one that an earlier process left below [`SEALED_BYTES`]. Numbers are never used
//! twice, so that an open pack cannot come to mean another one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use super::index::Index;
use crate::{BlobDigest, StoreError};

/// First bytes of a pack.
pub(super) const MAGIC: &[u8; 8] = b"cbspack1";
/// Size at which nothing is appended any more.
const SEALED_BYTES: u64 = 64 << 20;
/// Packs kept open for reading.
const OPEN_PACKS: usize = 128;
/// Bytes collected before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Where a small blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: i64,
    pub(super) offset: i64,
    pub(super) length: i64,
}

#[derive(Debug)]
pub(super) struct Packs {
    path: PathBuf,
    folder: OwnedFd,
    writer: Mutex<Option<Writer>>,
    open: RwLock<HashMap<i64, Arc<File>>>,
}

/// A pack this process appends to.
#[derive(Debug)]
struct Writer {
    pack: i64,
    lock: PackLock,
    end: u64,
}

impl Packs {
    pub(super) fn new(path: PathBuf, folder: OwnedFd) -> Self {
        Self {
            path,
            folder,
            writer: Mutex::new(None),
            open: RwLock::new(HashMap::new()),
        }
    }

    /// Appends blobs and says where they are. On failure the same space is used again.
    pub(super) fn append(
        &self,
        blobs: &HashMap<BlobDigest, Arc<[u8]>>,
        index: &Index,
    ) -> Result<Vec<(BlobDigest, Place)>, StoreError> {
        let mut places = Vec::with_capacity(blobs.len());
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blobs = blobs.iter().peekable();
        while blobs.peek().is_some() {
            let writer = match &mut *slot {
                Some(writer) if writer.end < SEALED_BYTES => writer,
                other => {
                    *other = None;
                    other.insert(self.next_writer(index)?)
                }
            };
            let mut buffer = Vec::with_capacity(WRITE_BYTES + (16 << 10));
            while buffer.len() < WRITE_BYTES
                && let Some((digest, bytes)) = blobs.next()
            {
                places.push((
                    *digest,
                    Place {
                        pack: writer.pack,
                        offset: (writer.end + buffer.len() as u64) as i64,
                        length: bytes.len() as i64,
                    },
                ));
                buffer.extend_from_slice(bytes);
            }
            writer
                .lock
                .file
                .write_all_at(&buffer, writer.end)
                .map_err(StoreError::io("write pack", &self.file_path(writer.pack)))?;
            writer.end += buffer.len() as u64;
        }
        Ok(places)
    }

    /// Stops appending to the current pack, so that gc may rewrite it.
    pub(super) fn release_writer(&self) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes sure that appended blobs are on disk.
    pub(super) fn sync(&self, places: &[(BlobDigest, Place)]) -> Result<(), StoreError> {
        let packs: HashSet<i64> = places.iter().map(|(_, place)| place.pack).collect();
        for pack in packs {
            if let Some(file) = self.open_pack(pack)? {
                file.sync_data()
                    .map_err(StoreError::io("sync pack", &self.file_path(pack)))?;
            }
        }
        // Packs that were just made have names that must last as well.
        rustix::fs::fsync(&self.folder).map_err(|err| StoreError::io("sync", &self.path)(err.into()))
    }

    /// Reads the bytes of a blob; `None` when the pack is gone, which means that the row has changed.
    pub(super) fn read(&self, place: &Place) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_pack(place.pack)? else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], place.offset as u64 + done as u64) {
                // Short: the caller finds that the digest is another.
                Ok(0) => {
                    bytes.truncate(done);
                    break;
                }
                Ok(count) => done += count,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(StoreError::io("read pack", &self.file_path(place.pack))(err)),
            }
        }
        Ok(Some(bytes))
    }

    fn open_pack(&self, pack: i64) -> Result<Option<Arc<File>>, StoreError> {
        if let Some(file) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&pack) {
            return Ok(Some(file.clone()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.folder, pack.to_string(), flags, Mode::empty()) {
            Ok(fd) => {
                let file = Arc::new(File::from(fd));
                let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
                if open.len() >= OPEN_PACKS {
                    // Rare enough (8 GiB of small blobs) that starting over is as good as anything.
                    open.clear();
                }
                open.insert(pack, file.clone());
                Ok(Some(file))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(StoreError::io("open pack", &self.file_path(pack))(err.into())),
        }
    }

    /// Forgets an open pack that was removed.
    pub(super) fn forget(&self, pack: i64) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&pack);
    }

    /// Numbers of all packs, highest first.
    pub(super) fn numbers(&self) -> Result<Vec<i64>, StoreError> {
        let fail = StoreError::io("list packs", &self.path);
        let mut numbers: Vec<i64> = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect(),
            Err(err) => return Err(fail(err)),
        };
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    pub(super) fn file_path(&self, pack: i64) -> PathBuf {
        self.path.join(pack.to_string())
    }

    /// Locks a pack that nobody appends to; `None` when somebody does or it is gone.
    pub(super) fn lock_idle(&self, pack: i64) -> Result<Option<PackLock>, StoreError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.file_path(pack);
        let file = match openat(&self.folder, pack.to_string(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(err) => return Err(StoreError::io("open pack", &path)(err.into())),
        };
        try_lock(file, &path)
    }

    fn next_writer(&self, index: &Index) -> Result<Writer, StoreError> {
        for pack in self.numbers()?.into_iter().take(8) {
            let unsealed = |path: &Path| path.metadata().is_ok_and(|meta| meta.len() < SEALED_BYTES);
            if unsealed(&self.file_path(pack))
                && let Some(lock) = self.lock_idle(pack)?
                && (MAGIC.len() as u64..SEALED_BYTES).contains(&lock.bytes)
            {
                return Ok(Writer {
                    pack,
                    end: lock.bytes,
                    lock,
                });
            }
        }
        loop {
            if let Some(writer) = self.new_writer(index)? {
                return Ok(writer);
            }
        }
    }

    /// Makes a pack; `None` when there is one of its number, or when a collector took it, empty as it was, for a dead one.
    /// To wait for the collector would be a deadlock: it waits for the rows of this very batch.
    fn new_writer(&self, index: &Index) -> Result<Option<Writer>, StoreError> {
        let pack: i64 = index.write("number a pack", |transaction, _| {
            transaction.query_row("UPDATE meta SET pack = pack + 1 RETURNING pack - 1", [], |row| {
                row.get(0)
            })
        })?;
        let path = self.file_path(pack);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = match openat(&self.folder, pack.to_string(), flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            // A power loss took back the row that said the number was used, but not the file.
            Err(Errno::EXIST) => return Ok(None),
            Err(err) => return Err(StoreError::io("create pack", &path)(err.into())),
        };
        let Some(mut lock) = try_lock(File::from(fd), &path)? else {
            return Ok(None);
        };
        lock.file
            .write_all_at(MAGIC, 0)
            .map_err(StoreError::io("write pack", &path))?;
        lock.bytes = MAGIC.len() as u64;
        let end = lock.bytes;
        Ok(Some(Writer { pack, lock, end }))
    }
}

/// Locks an open pack; `None` when it is in use or was removed.
fn try_lock(file: File, path: &Path) -> Result<Option<PackLock>, StoreError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(err) => return Err(StoreError::io("lock pack", path)(err.into())),
    }
    let stat = rustix::fs::fstat(&file).map_err(|err| StoreError::io("open pack", path)(err.into()))?;
    let bytes = stat.st_size as u64;
    // Between open and lock gc may have removed it.
    Ok((stat.st_nlink > 0).then_some(PackLock { file, bytes }))
}

/// A pack that nobody appends to while this lives.
#[derive(Debug)]
pub(super) struct PackLock {
    pub(super) file: File,
    /// Its size.
    pub(super) bytes: u64,
}

impl Drop for PackLock {
    fn drop(&mut self) {
        // At once, also for children that inherited the description; else the close that follows does it.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

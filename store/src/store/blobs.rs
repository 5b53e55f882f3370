//! Blobs: small ones in packs, large ones as files.
//!
//! Bytes come first and rows after them, so a row always has its bytes; what a killed process left without a row is
//! overwritten by the next put of the same blob or swept by gc.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::adopt::make_canonical;
use super::moved::Moved;
use super::packs::Place;
use super::pending::Batch;
use super::scratch::TempFile;
use super::{Inner, Store};
use crate::{Blob, BlobDigest, BlobStore, INLINE_LIMIT, StoreError, blob_path};

/// Bytes read at once while hashing.
const READ_BYTES: usize = 64 << 10;

/// What the index says about a blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlobRow {
    pub(super) size: u64,
    /// `None`: a file of its own.
    pub(super) place: Option<Place>,
    pub(super) used: i64,
    pub(super) made: i64,
}

pub(super) fn blob_row(connection: &Connection, digest: &BlobDigest) -> rusqlite::Result<Option<BlobRow>> {
    connection
        .prepare_cached("SELECT size, pack, offset, used, made FROM blobs WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| {
            let size: i64 = row.get(0)?;
            let place = match (row.get(1)?, row.get(2)?) {
                (Some(pack), Some(offset)) => Some(Place {
                    pack,
                    offset,
                    length: size,
                }),
                _ => None,
            };
            Ok(BlobRow {
                size: size as u64,
                place,
                used: row.get(3)?,
                made: row.get(4)?,
            })
        })
        .optional()
}

/// Hashes to the end.
pub(super) fn hash_reader(mut source: impl Read) -> io::Result<(BlobDigest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut size = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((BlobDigest::from_bytes(*hasher.finalize().as_bytes()), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

impl BlobStore for Store {
    fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError> {
        self.0.inner.blob(digest)
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError> {
        if bytes.len() as u64 <= INLINE_LIMIT {
            let digest = BlobDigest::of(bytes);
            self.0.inner.put_small(digest, bytes)?;
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(|source| writer.fail(source))?;
        Ok(writer.finish()?.0)
    }

    fn put_reader(&self, source: &mut dyn Read) -> Result<(BlobDigest, u64), StoreError> {
        let fail = || StoreError::io("read", Path::new("stream"));
        let mut start = Vec::new();
        // Most are small, and then one short buffer is all they take.
        Read::take(&mut *source, INLINE_LIMIT + 1)
            .read_to_end(&mut start)
            .map_err(fail())?;
        if start.len() as u64 <= INLINE_LIMIT {
            return Ok((self.put_bytes(&start)?, start.len() as u64));
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(&start).map_err(|source| writer.fail(source))?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return writer.finish(),
                Ok(count) => writer
                    .write_all(&buffer[..count])
                    .map_err(|source| writer.fail(source))?,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(fail()(err)),
            }
        }
    }
}

impl Store {
    /// A blob to be written piece by piece; it is in the store once [`BlobWriter::finish`] returns.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] when the store is open for reading.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        self.0.inner.check_writable()?;
        Ok(BlobWriter {
            store: self.clone(),
            hasher: blake3::Hasher::new(),
            start: Vec::new(),
            file: None,
            size: 0,
        })
    }

    /// Puts blobs of at most [`INLINE_LIMIT`] bytes at the price of one look into the index. Each must come with its own
    /// digest.
    ///
    /// # Errors
    /// As [`BlobStore::put_bytes`].
    pub(crate) fn put_small(&self, blobs: &[(BlobDigest, Vec<u8>)]) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let unknown: Vec<_> = blobs
            .iter()
            .filter(|(digest, _)| !inner.known.has_blob(digest))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let floor = inner.known.floor();
        let guard = inner.sweep_lock.guard()?;
        let used = inner.find_blobs(unknown.iter().map(|(digest, _)| digest))?;
        inner.register(guard, |batch| {
            for ((digest, bytes), used) in unknown.iter().zip(used) {
                match used {
                    None => batch.add_small(*digest, bytes),
                    Some(used) if inner.is_stale(used) => drop(batch.touched_blobs.insert(*digest)),
                    Some(_) => {}
                }
            }
        })?;
        for (digest, _) in unknown {
            inner.known.add_blob(*digest, floor);
        }
        Ok(())
    }

    /// Which of these blobs are not here. The others are kept as if they had just been put.
    ///
    /// # Errors
    /// [`StoreError::Index`] when the index cannot be asked.
    pub fn missing_blobs(&self, digests: &[BlobDigest]) -> Result<Vec<BlobDigest>, StoreError> {
        let inner = &self.0.inner;
        let guard = inner.read_guard()?;
        let mut missing = Vec::new();
        let mut stale = Vec::new();
        let rows = inner.index.read("look up blobs", |connection| {
            digests
                .iter()
                .map(|digest| Ok(blob_row(connection, digest)?.map(|row| row.used)))
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        for (digest, used) in digests.iter().zip(rows) {
            let used = match used {
                // Pending, or flushed since the look.
                None => inner.find_blob(digest)?,
                found => found,
            };
            match used {
                Some(used) if inner.is_stale(used) => stale.push(*digest),
                Some(_) => {}
                None => missing.push(*digest),
            }
        }
        if let Some(guard) = guard
            && !stale.is_empty()
        {
            inner.register(guard, |batch| batch.touched_blobs.extend(stale))?;
        }
        Ok(missing)
    }
}

impl Inner {
    fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError> {
        // A row that moved between the look and the open is looked up again.
        for _ in 0..8 {
            let small = self.pending().find(|batch| batch.small.get(digest).cloned());
            if let Some(bytes) = small {
                return Ok(Some(Blob::Small(bytes)));
            }
            let large = self.pending().find(|batch| batch.large.get(digest).copied());
            let row = match large {
                Some(size) => BlobRow {
                    size,
                    place: None,
                    used: 0,
                    made: 0,
                },
                // Rows go from pending to the index, so asking in this order misses none.
                None => match self.index.read("look up blob", |c| blob_row(c, digest))? {
                    Some(row) => row,
                    None => return Ok(None),
                },
            };
            let blob = match &row.place {
                Some(place) => self.read_small(digest, place)?,
                None => self.open_large(digest, &row)?,
            };
            if blob.is_some() {
                return Ok(blob);
            }
        }
        Err(StoreError::MissingBlob(*digest))
    }

    fn read_small(&self, digest: &BlobDigest, place: &Place) -> Result<Option<Blob>, StoreError> {
        let Some(bytes) = self.packs.read(place)? else {
            return Ok(None);
        };
        // Hashing at most 16 KiB costs less than the read did: no small blob is ever served unchecked.
        let actual = BlobDigest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::DamagedBlob {
                expected: *digest,
                actual,
            });
        }
        Ok(Some(Blob::Small(bytes.into())))
    }

    fn open_large(&self, digest: &BlobDigest, row: &BlobRow) -> Result<Option<Blob>, StoreError> {
        let Some(file) = self.open_blob_file(digest)? else {
            return Ok(None);
        };
        let path = self.blob_file(digest);
        let size = file.metadata().map_err(StoreError::io("open blob", &path))?.len();
        if size != row.size || self.is_suspect(row.made) {
            let (actual, _) = hash_reader(&file).map_err(StoreError::io("read blob", &path))?;
            if actual != *digest {
                return Err(StoreError::DamagedBlob {
                    expected: *digest,
                    actual,
                });
            }
        }
        Ok(Some(Blob::Large(file, size)))
    }

    pub(super) fn open_blob_file(&self, digest: &BlobDigest) -> Result<Option<File>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // By descriptor: the path need not mean the same thing in the mount namespace of the calling thread.
        match openat(&self.blobs_fd, blob_path(digest), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(StoreError::io("open blob", &self.blob_file(digest))(err.into())),
        }
    }

    pub(super) fn put_small(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_writable()?;
        if self.known.has_blob(&digest) {
            return Ok(());
        }
        let floor = self.known.floor();
        let guard = self.sweep_lock.guard()?;
        match self.find_blob(&digest)? {
            Some(used) => self.touch_blob(guard, digest, used)?,
            None => self.register(guard, |batch| batch.add_small(digest, bytes))?,
        }
        self.known.add_blob(digest, floor);
        Ok(())
    }

    /// Puts a large blob: `move_in` brings its file to its place if it is not here.
    pub(super) fn put_large(
        &self,
        digest: BlobDigest,
        size: u64,
        move_in: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let floor = self.known.floor();
        let guard = self.sweep_lock.guard()?;
        match self.find_blob(&digest)? {
            Some(used) => self.touch_blob(guard, digest, used)?,
            None => {
                move_in()?;
                self.register(guard, |batch| {
                    batch.large.insert(digest, size);
                })?;
            }
        }
        self.known.add_blob(digest, floor);
        Ok(())
    }

    /// As [`Inner::find_blob`] for several, in order.
    fn find_blobs<'a>(
        &self,
        digests: impl Iterator<Item = &'a BlobDigest> + Clone,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        // Rows go from pending to the index, so asking in this order misses none.
        let pending: Vec<_> = {
            let pending = self.pending();
            let find =
                |digest| pending.used(|batch| batch.small.contains_key(digest) || batch.large.contains_key(digest));
            digests.clone().map(find).collect()
        };
        if pending.iter().all(Option::is_some) {
            return Ok(pending);
        }
        self.index.read("look up blobs", |connection| {
            // One lock of the index for all.
            let reading = connection.unchecked_transaction()?;
            digests
                .zip(pending)
                .map(|(digest, used)| match used {
                    None => Ok(blob_row(&reading, digest)?.map(|row| row.used)),
                    found => Ok(found),
                })
                .collect()
        })
    }

    /// When a blob that is here was last used; `i64::MAX` while it is pending.
    pub(super) fn find_blob(&self, digest: &BlobDigest) -> Result<Option<i64>, StoreError> {
        let has = |batch: &Batch| batch.small.contains_key(digest) || batch.large.contains_key(digest);
        let pending = self.pending().used(has);
        if pending.is_some() {
            return Ok(pending);
        }
        let row = self.index.read("look up blob", |c| blob_row(c, digest))?;
        Ok(row.map(|row| row.used))
    }

    fn touch_blob(&self, guard: super::locks::Guard, digest: BlobDigest, used: i64) -> Result<(), StoreError> {
        if !self.is_stale(used) {
            return Ok(());
        }
        self.register(guard, |batch| {
            batch.touched_blobs.insert(digest);
        })
    }
}

/// A blob on its way in. Dropped unfinished, it leaves nothing.
pub struct BlobWriter {
    store: Store,
    hasher: blake3::Hasher,
    start: Vec<u8>,
    file: Option<TempFile>,
    size: u64,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl BlobWriter {
    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts the blob into the store and names it.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; nothing is kept.
    pub fn finish(self) -> Result<(BlobDigest, u64), StoreError> {
        let inner = &self.store.0.inner;
        let digest = BlobDigest::from_bytes(*self.hasher.finalize().as_bytes());
        let Some(temp) = self.file else {
            inner.put_small(digest, &self.start)?;
            return Ok((digest, self.size));
        };
        make_canonical(temp.file()).map_err(StoreError::io("protect", temp.path()))?;
        inner.put_large(digest, self.size, || {
            if inner.move_blob(CWD, temp.path(), &digest, self.size)? == Moved::In {
                temp.keep();
            }
            Ok(())
        })?;
        Ok((digest, self.size))
    }

    fn fail(&self, source: io::Error) -> StoreError {
        let path = self.file.as_ref().map_or(self.store.root(), TempFile::path);
        StoreError::io("write blob", path)(source)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let temp = match &mut self.file {
            Some(temp) => temp,
            None if (self.start.len() + bytes.len()) as u64 <= INLINE_LIMIT => {
                self.start.extend_from_slice(bytes);
                self.hasher.update(bytes);
                self.size += bytes.len() as u64;
                return Ok(bytes.len());
            }
            empty => {
                let temp = self.store.0.inner.temp_file().map_err(io::Error::other)?;
                temp.file().write_all(&self.start)?;
                self.start = Vec::new();
                empty.insert(temp)
            }
        };
        let count = temp.file().write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

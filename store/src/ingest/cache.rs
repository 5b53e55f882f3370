//! What files of the user hashed to when they were last seen, so that unchanged ones are not read again.
//!
//! ```text
//! scanned root ─► 64 shards, a row each ─► directories by device and inode ─► one record per file, by inode
//! ```
//! A record counts while size, times, mode and inode are the same. A file that changed so shortly before it was seen
//! that a later change could bear the same time is never recorded, as in git's index. A scan loads the shards of the
//! directories it sees and writes those in which something was new; a directory that was not seen for many such
//! writes is forgotten.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::assemble::Contents;
use super::walk::Status;
use crate::{BlobDigest, Store, StoreError, Timestamp};

/// Which directory of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectoryKey {
    /// Major and minor number of its device.
    pub device: (u32, u32),
    /// Its inode there.
    pub inode: u64,
}

/// Which row of the cache: a shard of what is known below a directory that was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardKey {
    /// The directory that was scanned.
    pub root: DirectoryKey,
    /// The number of the shard.
    pub shard: u8,
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DirectoryKey { device, inode } = self.root;
        write!(f, "{}.{}.{inode}.{}", device.0, device.1, self.shard)
    }
}

/// Where rows are kept. Losing one costs reading the files again, nothing else.
pub trait StatCache: Send + Sync {
    /// A row, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be asked.
    fn load(&self, key: &ShardKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces a row.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    fn save(&self, key: &ShardKey, row: &[u8]) -> Result<(), StoreError>;
}

/// The namespace of the rows among the facts of a store; it changes with their encoding.
const NAMESPACE: &str = "stat.v1";

impl StatCache for Store {
    fn load(&self, key: &ShardKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.fact(NAMESPACE, &key.to_string())?.map(|(row, _)| row))
    }

    fn save(&self, key: &ShardKey, row: &[u8]) -> Result<(), StoreError> {
        self.put_fact(NAMESPACE, &key.to_string(), row)
    }
}

/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemoryStatCache(Mutex<HashMap<ShardKey, Vec<u8>>>);

impl StatCache for MemoryStatCache {
    fn load(&self, key: &ShardKey) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(key).cloned())
    }

    fn save(&self, key: &ShardKey, row: &[u8]) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.insert(*key, row.to_vec());
        Ok(())
    }
}

/// Rows for one scanned directory.
const SHARDS: u8 = 64;

/// A directory that was not seen while its shard was written this often is forgotten.
const MAX_AGE: u8 = 32;

/// What is known below one scanned directory, loaded as it is asked for.
pub(super) struct Known<'a> {
    cache: Option<&'a dyn StatCache>,
    root: DirectoryKey,
    shards: Vec<Mutex<Option<Arc<Shard>>>>,
}

/// A loaded row.
#[derive(Debug, Default)]
struct Shard {
    bytes: Vec<u8>,
    directories: HashMap<DirectoryKey, Place>,
}

/// A directory's records in a shard.
#[derive(Debug)]
struct Place {
    records: Range<usize>,
    age: u8,
    seen: AtomicBool,
}

impl<'a> Known<'a> {
    pub(super) fn new(cache: Option<&'a dyn StatCache>, root: DirectoryKey) -> Self {
        Self {
            cache,
            root,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether anything can be known or remembered.
    pub(super) fn is_used(&self) -> bool {
        self.cache.is_some()
    }

    fn shard_of(key: &DirectoryKey) -> u8 {
        // Neighbouring inodes go to one shard: directories that are made together change together.
        (key.inode / 16 % u64::from(SHARDS)) as u8
    }

    fn shard(&self, number: u8) -> Result<Arc<Shard>, StoreError> {
        let mut shard = self.shards[usize::from(number)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(shard) = &*shard {
            return Ok(Arc::clone(shard));
        }
        let row = match self.cache {
            Some(cache) => cache.load(&self.key(number))?,
            None => None,
        };
        Ok(Arc::clone(
            shard.insert(Arc::new(Shard::decode(row.unwrap_or_default()))),
        ))
    }

    fn key(&self, shard: u8) -> ShardKey {
        ShardKey { root: self.root, shard }
    }

    /// The records of a directory, by inode.
    pub(super) fn records(&self, key: &DirectoryKey) -> Result<Vec<Record>, StoreError> {
        if !self.is_used() {
            return Ok(Vec::new());
        }
        let shard = self.shard(Self::shard_of(key))?;
        let Some(place) = shard.directories.get(key) else {
            return Ok(Vec::new());
        };
        place.seen.store(true, Ordering::Relaxed);
        Ok(decode(&shard.bytes[place.records.clone()]))
    }

    /// Writes the shards of directories whose records are new, one after the other: they are large together.
    pub(super) fn save(&self, new: impl IntoIterator<Item = (DirectoryKey, Records)>) -> Result<(), StoreError> {
        let Some(cache) = self.cache else {
            return Ok(());
        };
        let mut by_shard: HashMap<u8, Vec<(DirectoryKey, Records)>> = HashMap::new();
        for (key, records) in new {
            by_shard.entry(Self::shard_of(&key)).or_default().push((key, records));
        }
        for (number, new) in by_shard {
            let new = new.into_iter().map(|(key, records)| (key, records.sorted())).collect();
            let row = self.shard(number)?.encode_with(&new);
            cache.save(&self.key(number), &row)?;
        }
        Ok(())
    }
}

/// Encoded records in any order.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Makes room at once: lists that grow on many threads leave holes in memory behind them.
    pub(super) fn reserve(&mut self, records: usize) {
        self.0.reserve_exact(records * FIXED);
    }

    pub(super) fn extend(&mut self, records: &[Record]) {
        records.iter().for_each(|record| encode_one(record, &mut self.0));
    }

    fn sorted(self) -> Vec<u8> {
        encode(decode(&self.0))
    }
}

/// Device, inode, age and length of the records in front of each directory's.
const HEADER: usize = 4 + 4 + 8 + 1 + 4;

impl Shard {
    /// A damaged row gives what could be read before the damage.
    fn decode(bytes: Vec<u8>) -> Self {
        let mut directories = HashMap::new();
        let mut at = 0;
        while let Some((mut header, rest)) = bytes.get(at..).and_then(|row| row.split_at_checked(HEADER)) {
            let mut number = |length: usize| {
                let (head, tail) = header.split_at(length);
                header = tail;
                let mut value = [0; 8];
                value[..length].copy_from_slice(head);
                u64::from_le_bytes(value)
            };
            let (major, minor, inode, age) = (number(4) as u32, number(4) as u32, number(8), number(1) as u8);
            let length = number(4) as usize;
            if rest.len() < length {
                break;
            }
            let start = at + HEADER;
            at = start + length;
            let key = DirectoryKey {
                device: (major, minor),
                inode,
            };
            let place = Place {
                records: start..at,
                age,
                seen: AtomicBool::new(false),
            };
            directories.insert(key, place);
        }
        Self { bytes, directories }
    }

    fn encode_with(&self, new: &HashMap<DirectoryKey, Vec<u8>>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + new.values().map(|row| row.len() + HEADER).sum::<usize>());
        let mut add = |key: &DirectoryKey, age: u8, records: &[u8]| {
            out.extend_from_slice(&key.device.0.to_le_bytes());
            out.extend_from_slice(&key.device.1.to_le_bytes());
            out.extend_from_slice(&key.inode.to_le_bytes());
            out.push(age);
            out.extend_from_slice(&(records.len() as u32).to_le_bytes());
            out.extend_from_slice(records);
        };
        for (key, place) in &self.directories {
            let age = match place.seen.load(Ordering::Relaxed) {
                true => 0,
                false => place.age.saturating_add(1),
            };
            if age < MAX_AGE && !new.contains_key(key) {
                add(key, age, &self.bytes[place.records.clone()]);
            }
        }
        for (key, records) in new {
            add(key, 0, records);
        }
        out
    }
}

/// One file as it was seen.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) inode: u64,
    size: u64,
    mode: u32,
    mtime: Timestamp,
    ctime: Timestamp,
    blob: BlobDigest,
    capability: Option<Vec<u8>>,
}

/// Bytes of a record without its attribute.
const FIXED: usize = 8 + 8 + 4 + 12 + 12 + 32 + 4;

/// In place of the length of an attribute: there is none.
const NO_ATTRIBUTE: u32 = u32::MAX;

impl Record {
    pub(super) fn new(status: &Status, contents: &Contents) -> Self {
        Self {
            inode: status.inode,
            size: status.size,
            mode: status.mode,
            mtime: status.mtime,
            ctime: status.ctime,
            blob: contents.blob,
            capability: contents.capability.clone(),
        }
    }

    /// What the file holds, if it is still the one that was seen.
    pub(super) fn contents(&self, status: &Status) -> Option<Contents> {
        let same =
            (self.size, self.mode, self.mtime, self.ctime) == (status.size, status.mode, status.mtime, status.ctime);
        same.then(|| Contents {
            blob: self.blob,
            size: self.size,
            capability: self.capability.clone(),
            newer: None,
        })
    }
}

/// Whether a file that was seen no earlier than `now` can change later without its times telling.
pub(super) fn is_racy(status: &Status, now: Timestamp) -> bool {
    /// File times come from a clock that ticks every 1 to 10 ms.
    const TICK: i128 = 20_000_000;
    /// Some file systems keep whole seconds, or two at a time.
    const COARSE: i128 = 2_000_000_000;
    let nanos = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let newest = nanos(status.mtime).max(nanos(status.ctime));
    let coarse = status.mtime.nanos == 0 && status.ctime.nanos == 0;
    newest + if coarse { COARSE } else { TICK } > nanos(now)
}

/// Encodes records, sorted by inode.
fn encode(mut records: Vec<Record>) -> Vec<u8> {
    records.sort_by_key(|record| record.inode);
    records.dedup_by_key(|record| record.inode);
    let mut out = Vec::with_capacity(records.len() * FIXED);
    records.iter().for_each(|record| encode_one(record, &mut out));
    out
}

fn encode_one(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&record.inode.to_le_bytes());
    out.extend_from_slice(&record.size.to_le_bytes());
    out.extend_from_slice(&record.mode.to_le_bytes());
    for time in [record.mtime, record.ctime] {
        out.extend_from_slice(&time.seconds.to_le_bytes());
        out.extend_from_slice(&time.nanos.to_le_bytes());
    }
    out.extend_from_slice(record.blob.as_bytes());
    let length = record
        .capability
        .as_ref()
        .map_or(NO_ATTRIBUTE, |value| value.len() as u32);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(record.capability.as_deref().unwrap_or_default());
}

/// Decodes what [`encode`] wrote. A damaged row gives what could be read before the damage.
fn decode(mut row: &[u8]) -> Vec<Record> {
    let mut records = Vec::with_capacity(row.len() / FIXED);
    while let Some((record, rest)) = decode_one(row) {
        records.push(record);
        row = rest;
    }
    records
}

fn decode_one(row: &[u8]) -> Option<(Record, &[u8])> {
    fn take<'r, const N: usize>(row: &mut &'r [u8]) -> Option<[u8; N]> {
        let (head, rest): (&'r [u8; N], _) = row.split_first_chunk()?;
        *row = rest;
        Some(*head)
    }
    fn time(row: &mut &[u8]) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: i64::from_le_bytes(take(row)?),
            nanos: u32::from_le_bytes(take(row)?),
        })
    }
    let mut row = row;
    let mut record = Record {
        inode: u64::from_le_bytes(take(&mut row)?),
        size: u64::from_le_bytes(take(&mut row)?),
        mode: u32::from_le_bytes(take(&mut row)?),
        mtime: time(&mut row)?,
        ctime: time(&mut row)?,
        blob: BlobDigest::from_bytes(take(&mut row)?),
        capability: None,
    };
    let length = u32::from_le_bytes(take(&mut row)?);
    if length != NO_ATTRIBUTE {
        let (value, rest) = row.split_at_checked(length as usize)?;
        record.capability = Some(value.to_vec());
        row = rest;
    }
    Some((record, row))
}

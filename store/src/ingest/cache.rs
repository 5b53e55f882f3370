//! What files of the user hashed to when they were last seen, so that unchanged ones are not read again.
//!
//! One row per directory, by its device and inode; in it one record per file, by inode. A record counts while size,
//! times, mode and inode are the same. A file that changed so shortly before it was seen that a later change could
//! bear the same time is never recorded, as in git's index.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::assemble::Contents;
use super::walk::Status;
use crate::{BlobDigest, Store, StoreError, Timestamp};

/// Which directory a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectoryKey {
    /// Major and minor number of its device.
    pub device: (u32, u32),
    /// Its inode there.
    pub inode: u64,
}

impl fmt::Display for DirectoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.device.0, self.device.1, self.inode)
    }
}

/// Where rows are kept. Losing one costs reading the files again, nothing else.
pub trait StatCache: Send + Sync {
    /// The row of a directory, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the backend cannot be asked.
    fn load(&self, key: &DirectoryKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces rows.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    fn save(&self, rows: Vec<(DirectoryKey, Vec<u8>)>) -> Result<(), StoreError>;
}

/// The namespace of the rows among the facts of a store.
const NAMESPACE: &str = "stat.v1";

impl StatCache for Store {
    fn load(&self, key: &DirectoryKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.fact(NAMESPACE, &key.to_string())?.map(|(row, _)| row))
    }

    fn save(&self, rows: Vec<(DirectoryKey, Vec<u8>)>) -> Result<(), StoreError> {
        rows.iter()
            .try_for_each(|(key, row)| self.put_fact(NAMESPACE, &key.to_string(), row))
    }
}

/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemoryStatCache(Mutex<HashMap<DirectoryKey, Vec<u8>>>);

impl StatCache for MemoryStatCache {
    fn load(&self, key: &DirectoryKey) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(key).cloned())
    }

    fn save(&self, rows: Vec<(DirectoryKey, Vec<u8>)>) -> Result<(), StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
        Ok(())
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
pub(super) fn encode(mut records: Vec<Record>) -> Vec<u8> {
    records.sort_by_key(|record| record.inode);
    records.dedup_by_key(|record| record.inode);
    let mut out = Vec::with_capacity(records.len() * FIXED);
    for record in &records {
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
    out
}

/// Decodes what [`encode`] wrote. A damaged row gives what could be read before the damage.
pub(super) fn decode(mut row: &[u8]) -> Vec<Record> {
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

//! Checking everything, and mending what can be mended.
//!
//! Damage found is damage dropped, with repair: a blob or directory whose bytes are wrong goes, realisations that lack
//! something stop counting as kept, and the next build that needs the bytes makes or fetches them anew. A gc root that
//! lacks something is only reported: nobody but its maker can make it whole.

use std::fmt;

use rusqlite::{OptionalExtension, params};

use super::check::BlobEntry;
use super::directories::decode_row;
use super::gc::catalog::{Catalog, Item};
use super::gc::plan::{realisation_items, snapshot_items};
use super::realisations::decode;
use super::{Inner, Realisation, Store};
use crate::{BlobDigest, CacheKey, Sha256Digest, StoreError, TreeDigest};

/// Whether `verify` mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Damage is dropped.
    Yes,
    /// Nothing changes.
    No,
}

/// Something wrong in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Its bytes are missing or are others.
    DamagedBlob(BlobDigest),
    /// The same for an OCI blob.
    DamagedOciBlob(Sha256Digest),
    /// Its row is not what its name says.
    DamagedDirectory(TreeDigest),
    /// The record of a run cannot be read.
    DamagedRealisation(CacheKey),
    /// The content of a run is counted as kept and is not all here.
    IncompleteRealisation(CacheKey, String),
    /// A gc root refers to something that is not here.
    IncompleteRoot(String),
    /// The record of a gc root cannot be read; gc refuses to run until the root is set anew or removed.
    DamagedRoot(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DamagedBlob(digest) => write!(f, "blob {digest} is damaged or gone"),
            Self::DamagedOciBlob(digest) => write!(f, "layer {} is damaged or gone", digest.oci()),
            Self::DamagedDirectory(digest) => write!(f, "directory {digest} is damaged"),
            Self::DamagedRealisation(key) => write!(f, "realisation {key} is damaged"),
            Self::IncompleteRealisation(key, name) => write!(f, "the result of `{name}` ({key}) is not all here"),
            Self::IncompleteRoot(name) => write!(f, "what gc root `{name}` keeps is not all here"),
            Self::DamagedRoot(name) => write!(f, "gc root `{name}` is damaged"),
        }
    }
}

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Directories looked at.
    pub directories: u64,
    /// OCI blobs looked at.
    pub oci_blobs: u64,
    /// Realisations looked at.
    pub realisations: u64,
    /// What is wrong, in order.
    pub problems: Vec<Problem>,
    /// How many of the problems were mended.
    pub repaired: u64,
}

impl Store {
    /// Hashes every blob and directory again and looks for references to what is not here.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read, or not be written while mending. Damage is no error.
    pub fn verify(&self, repair: Repair) -> Result<VerifyReport, StoreError> {
        let inner = &self.0.inner;
        if repair == Repair::Yes {
            inner.check_writable()?;
        }
        inner.flush()?;
        let mut report = VerifyReport::default();
        let blobs = inner.damaged_blobs(&mut report)?;
        let oci = inner.damaged_oci(&mut report)?;
        let directories = inner.damaged_directories(&mut report)?;
        if repair == Repair::Yes && !(blobs.is_empty() && oci.is_empty() && directories.is_empty()) {
            report.repaired += inner.drop_verified(blobs, oci, &directories)?;
        }
        inner.check_records(repair, &mut report)?;
        report.problems.sort();
        Ok(report)
    }
}

/// Id, key, whether its content is counted as kept, record.
type RunRow = (i64, CacheKey, bool, Vec<u8>);

impl Inner {
    fn damaged_blobs(&self, report: &mut VerifyReport) -> Result<Vec<BlobEntry>, StoreError> {
        let rows = self.blob_entries(None)?;
        report.blobs = rows.len() as u64;
        report.blob_bytes = rows.iter().map(|(_, row)| row.size).sum();
        let bad = self.in_parallel(&rows, |(digest, row)| {
            // A row that went or moved meanwhile is no damage.
            Ok(!self.blob_is_sound(digest, row)? && self.still_unsound(digest)?)
        })?;
        report
            .problems
            .extend(bad.iter().map(|(digest, _)| Problem::DamagedBlob(*digest)));
        Ok(bad)
    }

    fn still_unsound(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let row = self.index.read("look up blob", |c| super::blobs::blob_row(c, digest))?;
        match row {
            Some(row) => Ok(!self.blob_is_sound(digest, &row)?),
            None => Ok(false),
        }
    }

    fn damaged_oci(&self, report: &mut VerifyReport) -> Result<Vec<Sha256Digest>, StoreError> {
        let rows: Vec<Sha256Digest> = self.index.read("list layers", |connection| {
            connection
                .prepare("SELECT digest FROM oci")?
                .query_map([], |row| row.get(0).map(Sha256Digest::from_bytes))?
                .collect()
        })?;
        report.oci_blobs = rows.len() as u64;
        let bad = self.in_parallel(&rows, |digest| {
            Ok(!self.oci_is_sound(digest)? && self.find_oci(digest)?.is_some())
        })?;
        report.problems.extend(bad.iter().copied().map(Problem::DamagedOciBlob));
        Ok(bad)
    }

    fn damaged_directories(&self, report: &mut VerifyReport) -> Result<Vec<TreeDigest>, StoreError> {
        let mut bad = Vec::new();
        report.directories = self.index.read("read directories", |connection| {
            let mut query = connection.prepare("SELECT digest, data FROM directories")?;
            let mut rows = query.query([])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                count += 1;
                let digest = TreeDigest::from_bytes(row.get(0)?);
                if decode_row(&digest, row.get_ref(1)?.as_blob()?).is_err() {
                    bad.push(digest);
                }
            }
            Ok(count)
        })?;
        report
            .problems
            .extend(bad.iter().copied().map(Problem::DamagedDirectory));
        Ok(bad)
    }

    fn drop_verified(
        &self,
        blobs: Vec<BlobEntry>,
        oci: Vec<Sha256Digest>,
        directories: &[TreeDigest],
    ) -> Result<u64, StoreError> {
        let _turn = self.sweep_lock.sweep()?;
        // Somebody may have put the right bytes since.
        let mut bad_blobs = Vec::new();
        for (digest, _) in blobs {
            if self.still_unsound(&digest)? {
                bad_blobs.push(digest);
            }
        }
        let mut bad_oci = Vec::new();
        for digest in oci {
            if !self.oci_is_sound(&digest)? {
                bad_oci.push(digest);
            }
        }
        self.drop_damaged(&bad_blobs, &bad_oci)?;
        let mut dropped = 0;
        self.index.write("drop damaged directories", |transaction, _| {
            dropped = 0;
            let mut query = transaction.prepare_cached("SELECT data FROM directories WHERE digest = ?1")?;
            let mut delete = transaction.prepare_cached("DELETE FROM directories WHERE digest = ?1")?;
            for digest in directories {
                let encoded: Option<Vec<u8>> = query.query_row([digest.as_bytes()], |row| row.get(0)).optional()?;
                if encoded.is_some_and(|encoded| decode_row(digest, &encoded).is_err()) {
                    dropped += delete.execute([digest.as_bytes()])?;
                }
            }
            transaction.execute("UPDATE directories SET complete = 0 WHERE complete = 1", params![])
        })?;
        self.known.forget();
        self.cache.clear();
        Ok((bad_blobs.len() + bad_oci.len() + dropped) as u64)
    }

    fn check_records(&self, repair: Repair, report: &mut VerifyReport) -> Result<(), StoreError> {
        let catalog = self.index.read("read the catalog", Catalog::load)?;
        let broken = broken_below(&catalog);
        let lacks = |items: &[Item], wanted: usize| {
            items.len() < wanted
                || items.iter().any(|item| match item {
                    Item::Directory(directory) => broken[*directory as usize],
                    Item::Blob(_) => false,
                })
        };
        let mut mend = Vec::new();
        for (id, key, kept, data) in self.realisation_rows()? {
            report.realisations += 1;
            let problem = match decode(&key, &data) {
                Err(_) => Problem::DamagedRealisation(key),
                Ok(run) if kept && lacks(&realisation_items(&catalog, &run), wanted_items(&run)) => {
                    Problem::IncompleteRealisation(key, run.name)
                }
                Ok(_) => continue,
            };
            mend.push((id, problem));
        }
        if repair == Repair::Yes && !mend.is_empty() {
            self.index.write("mend realisations", |transaction, _| {
                for (id, problem) in &mend {
                    let change = match problem {
                        Problem::DamagedRealisation(_) => "DELETE FROM realisations WHERE id = ?1",
                        _ => "UPDATE realisations SET kept = 0 WHERE id = ?1",
                    };
                    transaction.prepare_cached(change)?.execute([id])?;
                }
                // Whoever took them for complete was wrong.
                transaction.execute("UPDATE directories SET complete = 0 WHERE complete = 1", params![])
            })?;
            self.known.forget();
            report.repaired += mend.len() as u64;
        }
        report.problems.extend(mend.into_iter().map(|(_, problem)| problem));
        for (name, root) in self.roots_or_damage()? {
            match root {
                None => report.problems.push(Problem::DamagedRoot(name)),
                Some(root) => {
                    for snapshot in &root.snapshots {
                        if lacks(&snapshot_items(&catalog, snapshot), 1 + snapshot.layers.len()) {
                            report.problems.push(Problem::IncompleteRoot(name));
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn realisation_rows(&self) -> Result<Vec<RunRow>, StoreError> {
        self.index.read("list realisations", |connection| {
            connection
                .prepare("SELECT id, key, kept, data FROM realisations")?
                .query_map([], |row| {
                    Ok((row.get(0)?, CacheKey::from_bytes(row.get(1)?), row.get(2)?, row.get(3)?))
                })?
                .collect()
        })
    }
}

fn wanted_items(run: &Realisation) -> usize {
    let outputs = run.outputs.iter().flatten();
    outputs.map(|output| 1 + output.layers.len()).sum::<usize>() + usize::from(run.log.is_some())
}

/// Which directories have, somewhere below, a reference to what is not here.
fn broken_below(catalog: &Catalog) -> Vec<bool> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let count = catalog.directories.len();
    let mut broken: Vec<bool> = catalog.directories.iter().map(|item| item.broken).collect();
    let mut states = vec![State::New; count];
    for start in 0..count as u32 {
        let mut stack = vec![start];
        while let Some(&top) = stack.last() {
            let here = top as usize;
            if states[here] == State::New {
                states[here] = State::Open;
                stack.extend(catalog.below(top).filter_map(|item| match item {
                    Item::Directory(below) if states[below as usize] == State::New => Some(below),
                    _ => None,
                }));
                continue;
            }
            stack.pop();
            if states[here] == State::Open {
                states[here] = State::Done;
                broken[here] |= catalog.below(top).any(|item| match item {
                    Item::Directory(below) => broken[below as usize],
                    Item::Blob(_) => false,
                });
            }
        }
    }
    broken
}

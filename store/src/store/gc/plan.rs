//! What is kept, what goes, and why: all decided on the catalog, before anything is touched.

use std::collections::HashSet;

use super::catalog::{Catalog, Item, Marks};
use super::rows::{Mount, Oci, Run};
use super::{GcCandidate, GcFilter, GcPolicy, GcReport, Kept, KeptBecause, Removed, StoreItem};
use crate::StoreError;
use crate::store::index::wall_clock;
use crate::store::{Inner, Realisation, Snapshot};

/// The decision.
pub(super) struct Plan {
    pub(super) catalog: Catalog,
    pub(super) marks: Marks,
    pub(super) evicted_runs: Vec<Run>,
    pub(super) evicted_mounts: Vec<Mount>,
    pub(super) evicted_oci: Vec<Oci>,
    /// What all that is kept costs.
    pub(super) kept_bytes: u64,
    kept: Vec<Kept>,
}

/// What may be kept while there is room, by use.
enum Candidate {
    Run(Run),
    Mount(Mount),
    Directory(u32),
}

impl Candidate {
    fn used(&self, catalog: &Catalog) -> i64 {
        match self {
            Self::Run(run) => run.used,
            Self::Mount(mount) => mount.used,
            Self::Directory(directory) => catalog.directories[*directory as usize].used,
        }
    }
}

impl Plan {
    pub(super) fn make(inner: &Inner, policy: &GcPolicy, limit: u64, filter: GcFilter<'_>) -> Result<Self, StoreError> {
        let catalog = inner.index.read("read the catalog", Catalog::load)?;
        // After the catalog: a lease that begins later is seen by what it touches.
        let lease = inner.oldest_lease()?;
        let mut planner = Planner {
            since_lease: lease.as_ref().map_or(i64::MAX, |lease| lease.0),
            lease: lease.map(|lease| lease.1).unwrap_or_default(),
            since_recent: recent(policy),
            marks: Marks::new(&catalog),
            other_bytes: 0,
            catalog,
            kept: Vec::new(),
            limit,
        };
        let mut oci = inner.oci_rows()?;
        oci.sort_by_key(|oci| std::cmp::Reverse(oci.used));
        planner.keep_roots(inner, &mut oci)?;
        let (mut runs, mut mounts) = (inner.runs(&planner.catalog, filter)?, inner.mounts()?);
        planner.keep_used(&mut runs, &mut mounts, &mut oci);
        planner.keep_not_chosen(&mut runs, &mut mounts, &mut oci, filter);
        let small_prune = policy.max_used.is_none() && policy.min_free.is_none() && policy.reserved.is_none();
        if small_prune && !policy.all {
            for mount in mounts.drain(..) {
                planner.keep_mount(mount, KeptBecause::NotAsked);
            }
        }
        let (evicted_runs, evicted_mounts) = planner.keep_by_use(runs, mounts);
        let evicted_oci = planner.keep_oci_by_use(oci);
        Ok(Self {
            kept_bytes: planner.marks.bytes + planner.other_bytes,
            catalog: planner.catalog,
            marks: planner.marks,
            kept: planner.kept,
            evicted_runs,
            evicted_mounts,
            evicted_oci,
        })
    }

    /// Whether anything goes.
    pub(super) fn evicts(&self) -> bool {
        self.doomed().next().is_some() || !self.evicted_mounts.is_empty() || !self.evicted_oci.is_empty()
    }

    /// What is not marked.
    fn doomed(&self) -> impl Iterator<Item = Item> + '_ {
        let blobs = (0..self.catalog.blobs.len() as u32).map(Item::Blob);
        let directories = (0..self.catalog.directories.len() as u32).map(Item::Directory);
        directories.chain(blobs).filter(|item| !self.marks.has(*item))
    }

    /// Adds the decision to the report.
    pub(super) fn describe(&self, report: &mut GcReport) {
        report.kept.clone_from(&self.kept);
        // Each byte that goes is put down to the first that refers to it.
        let mut claimed: HashSet<Item> = HashSet::new();
        let mut removed = Vec::new();
        for run in &self.evicted_runs {
            let mut bytes = 0;
            let mut waiting = run.items.clone();
            while let Some(item) = waiting.pop() {
                if self.marks.has(item) || !claimed.insert(item) {
                    continue;
                }
                bytes += self.catalog.size(item);
                if let Item::Directory(directory) = item {
                    waiting.extend(self.catalog.below(directory));
                }
            }
            let item = StoreItem::Realisation(run.key, run.name.clone());
            removed.push(Removed {
                item,
                bytes,
                used: Some(run.used),
            });
        }
        for mount in &self.evicted_mounts {
            removed.push(Removed {
                item: StoreItem::CacheMount(mount.id.clone(), mount.slot),
                bytes: mount.bytes,
                used: Some(mount.used),
            });
        }
        for oci in &self.evicted_oci {
            removed.push(Removed {
                item: StoreItem::OciBlob(oci.digest),
                bytes: oci.size,
                used: Some(oci.used),
            });
        }
        let loose: u64 = self
            .doomed()
            .filter(|item| !claimed.contains(item))
            .map(|item| self.catalog.size(item))
            .sum();
        if loose > 0 {
            removed.push(Removed {
                item: StoreItem::Unreferenced,
                bytes: loose,
                used: None,
            });
        }
        report.freed += removed.iter().map(|removed| removed.bytes).sum::<u64>();
        report.removed.extend(removed);
    }
}

struct Planner {
    catalog: Catalog,
    marks: Marks,
    /// What was used later than this is kept for the oldest lease.
    since_lease: i64,
    lease: String,
    /// What was used later than this is kept for its age.
    since_recent: i64,
    /// Bytes kept beside what is marked.
    other_bytes: u64,
    limit: u64,
    kept: Vec<Kept>,
}

impl Planner {
    fn reason(&self, used: i64) -> Option<KeptBecause> {
        if used > self.since_lease {
            let lease = self.lease.clone();
            Some(KeptBecause::Leased { lease })
        } else if used > self.since_recent {
            Some(KeptBecause::Recent)
        } else {
            None
        }
    }

    fn room(&self) -> u64 {
        self.limit.saturating_sub(self.marks.bytes + self.other_bytes)
    }

    fn keep_items(&mut self, item: StoreItem, items: &[Item], because: KeptBecause) {
        let bytes = self.marks.add_within(&self.catalog, items, u64::MAX).unwrap_or(0);
        self.kept.push(Kept { item, bytes, because });
    }

    fn keep_mount(&mut self, mount: Mount, because: KeptBecause) {
        self.other_bytes += mount.bytes;
        self.kept.push(Kept {
            item: StoreItem::CacheMount(mount.id, mount.slot),
            bytes: mount.bytes,
            because,
        });
    }

    fn keep_oci(&mut self, oci: Oci, because: KeptBecause) {
        self.other_bytes += oci.size;
        self.kept.push(Kept {
            item: StoreItem::OciBlob(oci.digest),
            bytes: oci.size,
            because,
        });
    }

    fn keep_roots(&mut self, inner: &Inner, oci: &mut Vec<Oci>) -> Result<(), StoreError> {
        let mut pulled = HashSet::new();
        for root in inner.roots()? {
            let items: Vec<Item> = root
                .snapshots
                .iter()
                .flat_map(|snapshot| snapshot_items(&self.catalog, snapshot))
                .collect();
            for layer in root.snapshots.iter().flat_map(|snapshot| &snapshot.layers) {
                // Only bytes that came from outside cannot be made again.
                if layer.diff_id.is_some() {
                    pulled.insert(*layer);
                }
            }
            self.keep_items(StoreItem::Root(root.name), &items, KeptBecause::Rooted);
        }
        let mut rooted = HashSet::new();
        for layer in pulled {
            rooted.extend(inner.layer_digests(&layer)?);
        }
        let (keep, rest): (Vec<Oci>, _) = std::mem::take(oci)
            .into_iter()
            .partition(|oci| rooted.contains(&oci.digest));
        *oci = rest;
        for each in keep {
            self.keep_oci(each, KeptBecause::Rooted);
        }
        Ok(())
    }

    /// Keeps what was used lately, and takes it out of the lists.
    fn keep_used(&mut self, runs: &mut Vec<Run>, mounts: &mut Vec<Mount>, oci: &mut Vec<Oci>) {
        for run in std::mem::take(runs) {
            match self.reason(run.used) {
                Some(because) => self.keep_items(StoreItem::Realisation(run.key, run.name), &run.items, because),
                None => runs.push(run),
            }
        }
        for mount in std::mem::take(mounts) {
            match self.reason(mount.used) {
                Some(because) => self.keep_mount(mount, because),
                None => mounts.push(mount),
            }
        }
        for each in std::mem::take(oci) {
            match self.reason(each.used) {
                Some(because) => self.keep_oci(each, because),
                None => oci.push(each),
            }
        }
        let directories = (0..self.catalog.directories.len() as u32).map(Item::Directory);
        let blobs = (0..self.catalog.blobs.len() as u32).map(Item::Blob);
        let (mut leased, mut recent) = (Vec::new(), Vec::new());
        for item in directories.chain(blobs).filter(|item| !self.marks.has(*item)) {
            let used = match item {
                Item::Directory(number) => self.catalog.directories[number as usize].used,
                Item::Blob(number) => self.catalog.blobs[number as usize].used,
            };
            match self.reason(used) {
                Some(KeptBecause::Leased { .. }) => leased.push(item),
                Some(_) => recent.push(item),
                None => {}
            }
        }
        let lease = self.lease.clone();
        self.keep_loose(&leased, KeptBecause::Leased { lease });
        self.keep_loose(&recent, KeptBecause::Recent);
    }

    /// Keeps trees and blobs that nothing names.
    fn keep_loose(&mut self, items: &[Item], because: KeptBecause) {
        let bytes = self.marks.add_within(&self.catalog, items, u64::MAX).unwrap_or(0);
        self.say_loose(bytes, because);
    }

    fn say_loose(&mut self, bytes: u64, because: KeptBecause) {
        if bytes > 0 {
            let item = StoreItem::Unreferenced;
            self.kept.push(Kept { item, bytes, because });
        }
    }

    /// Keeps what the filter does not choose, and takes it out of the lists.
    fn keep_not_chosen(
        &mut self,
        runs: &mut Vec<Run>,
        mounts: &mut Vec<Mount>,
        oci: &mut Vec<Oci>,
        filter: GcFilter<'_>,
    ) {
        let because = || KeptBecause::NotChosen;
        let chosen = |item: &StoreItem, used: i64| {
            filter(&GcCandidate {
                item,
                used,
                realisation: None,
            })
        };
        for run in std::mem::take(runs) {
            if run.chosen {
                runs.push(run);
            } else {
                self.keep_items(StoreItem::Realisation(run.key, run.name), &run.items, because());
            }
        }
        for mount in std::mem::take(mounts) {
            if chosen(&StoreItem::CacheMount(mount.id.clone(), mount.slot), mount.used) {
                mounts.push(mount);
            } else {
                self.keep_mount(mount, because());
            }
        }
        for each in std::mem::take(oci) {
            if chosen(&StoreItem::OciBlob(each.digest), each.used) {
                oci.push(each);
            } else {
                self.keep_oci(each, because());
            }
        }
        if chosen(&StoreItem::Unreferenced, 0) {
            return;
        }
        // All that is left but what the chosen runs refer to.
        let mut theirs = Marks::new(&self.catalog);
        for item in runs.iter().flat_map(|run| &run.items) {
            theirs.add(&self.catalog, *item);
        }
        let directories = (0..self.catalog.directories.len() as u32).map(Item::Directory);
        let blobs = (0..self.catalog.blobs.len() as u32).map(Item::Blob);
        let loose: Vec<Item> = directories.chain(blobs).filter(|item| !theirs.has(*item)).collect();
        self.keep_loose(&loose, because());
    }

    fn keep_by_use(&mut self, runs: Vec<Run>, mounts: Vec<Mount>) -> (Vec<Run>, Vec<Mount>) {
        let unmarked = |number: &u32| !self.marks.has(Item::Directory(*number));
        let directories: Vec<u32> = match self.room() {
            0 => Vec::new(),
            _ => (0..self.catalog.directories.len() as u32).filter(unmarked).collect(),
        };
        let mut candidates: Vec<Candidate> = runs
            .into_iter()
            .map(Candidate::Run)
            .chain(mounts.into_iter().map(Candidate::Mount))
            .chain(directories.into_iter().map(Candidate::Directory))
            .collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.used(&self.catalog)));
        let (mut evicted_runs, mut evicted_mounts) = (Vec::new(), Vec::new());
        // Once something did not fit, nothing older takes its room; but what costs nothing more may stay.
        let mut full = false;
        let mut loose_bytes = 0;
        for candidate in candidates {
            let room = if full { 0 } else { self.room() };
            match candidate {
                Candidate::Run(run) => match self.marks.add_within(&self.catalog, &run.items, room) {
                    Some(bytes) => self.kept.push(Kept {
                        item: StoreItem::Realisation(run.key, run.name),
                        bytes,
                        because: KeptBecause::Room,
                    }),
                    None => {
                        full = true;
                        evicted_runs.push(run);
                    }
                },
                Candidate::Mount(mount) if mount.bytes <= room && !full => self.keep_mount(mount, KeptBecause::Room),
                Candidate::Mount(mount) => {
                    full = true;
                    evicted_mounts.push(mount);
                }
                Candidate::Directory(directory) => {
                    let fits = self
                        .marks
                        .add_within(&self.catalog, &[Item::Directory(directory)], room);
                    full |= fits.is_none();
                    loose_bytes += fits.unwrap_or(0);
                }
            }
        }
        if !full {
            loose_bytes += self.keep_blobs_by_use();
        }
        self.say_loose(loose_bytes, KeptBecause::Room);
        (evicted_runs, evicted_mounts)
    }

    /// The bytes it kept.
    fn keep_blobs_by_use(&mut self) -> u64 {
        let unmarked = |number: &u32| !self.marks.has(Item::Blob(*number));
        let mut loose: Vec<u32> = (0..self.catalog.blobs.len() as u32).filter(unmarked).collect();
        loose.sort_by_key(|number| std::cmp::Reverse(self.catalog.blobs[*number as usize].used));
        let mut kept = 0;
        for number in loose {
            let room = self.room();
            match self.marks.add_within(&self.catalog, &[Item::Blob(number)], room) {
                Some(bytes) => kept += bytes,
                None => break,
            }
        }
        kept
    }

    fn keep_oci_by_use(&mut self, oci: Vec<Oci>) -> Vec<Oci> {
        let mut evicted = Vec::new();
        for each in oci {
            if evicted.is_empty() && each.size <= self.room() && self.limit > 0 {
                self.keep_oci(each, KeptBecause::Room);
            } else {
                evicted.push(each);
            }
        }
        evicted
    }
}

/// The tick after which a use is recent; none is when the time to keep is zero.
fn recent(policy: &GcPolicy) -> i64 {
    if policy.keep_duration.is_zero() {
        return i64::MAX;
    }
    let keep = i64::try_from(policy.keep_duration.as_millis()).unwrap_or(i64::MAX);
    wall_clock().saturating_sub(keep)
}

pub(in crate::store) fn snapshot_items(catalog: &Catalog, snapshot: &Snapshot) -> Vec<Item> {
    std::iter::once(&snapshot.tree)
        .chain(snapshot.layers.iter().map(|layer| &layer.diff))
        .filter_map(|digest| catalog.directory(digest).map(Item::Directory))
        .collect()
}

/// What a realisation refers to, as far as it is here.
pub(in crate::store) fn realisation_items(catalog: &Catalog, realisation: &Realisation) -> Vec<Item> {
    let log = realisation
        .log
        .iter()
        .filter_map(|log| catalog.blob(log).map(Item::Blob));
    realisation
        .outputs
        .iter()
        .flatten()
        .flat_map(|snapshot| snapshot_items(catalog, snapshot))
        .chain(log)
        .collect()
}

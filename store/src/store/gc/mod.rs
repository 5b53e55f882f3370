//! Garbage collection.
//!
//! ```text
//! catalog (all rows, at tick T) ─► plan: what is kept, in order, until the limit ─► sweep in short turns
//!      must be kept: gc roots; all used since the oldest living lease began; all used within `keep_duration`
//!      then by use, newest first: realisations, cache mounts, trees that nothing names; then loose blobs; then OCI blobs
//! ```
//! Builds go on meanwhile. Each turn of the sweep holds the sweep lock, so that no process counts on something that the
//! index does not say; first it marks what was put or touched since T, then it deletes rows in one synced
//! transaction, then the files of those rows, and lets go. A kill between any two steps leaves files without rows, which
//! the next gc removes; never a row without its bytes.
//!
//! A realisation outlives its content: its row stays, with `kept = 0`, until there are too many such rows.

pub(super) mod catalog;
mod compact;
pub(super) mod plan;
pub(super) mod rows;
mod sweep;
mod tidy;

use std::fmt;
use std::time::Duration;

use super::index::wall_clock;
use super::{Realisation, Store};
use crate::{BlobDigest, CacheKey, Sha256Digest, StoreError};
use plan::Plan;

/// What gc is to reach. Without any of the three sizes everything goes that need not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// What was used within this time is kept whatever the sizes.
    pub keep_duration: Duration,
    /// The store shall be no larger, in bytes.
    pub max_used: Option<u64>,
    /// Nothing is removed while the store is no larger than this.
    pub reserved: Option<u64>,
    /// The file system shall have this much free.
    pub min_free: Option<u64>,
    /// Also what is cheap or dear to lose: cache mounts when no size asks for it, and the memory of runs whose content
    /// is gone.
    pub all: bool,
}

/// Something gc may take, as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct GcCandidate<'c> {
    /// What it is; never a root.
    pub item: &'c StoreItem,
    /// Last use in milliseconds since 1970; zero for [`StoreItem::Unreferenced`], which is many things.
    pub used: i64,
    /// The record of a realisation.
    pub realisation: Option<&'c Realisation>,
}

/// Says which candidates may go.
pub type GcFilter<'f> = &'f dyn Fn(&GcCandidate<'_>) -> bool;

/// Sizes of a store and its disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What the store takes.
    pub used: u64,
    /// What the file system has free.
    pub free: u64,
}

impl GcPolicy {
    /// Whether it has sizes that are not kept to. They count everything, whatever a filter chooses.
    pub fn is_over(&self, space: Space) -> bool {
        let has_sizes = self.max_used.is_some() || self.min_free.is_some() || self.reserved.is_some();
        has_sizes && limit(self, space.used, space.free).is_some()
    }
}

/// Whether gc only says what it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// Nothing changes.
    Yes,
    /// It is done.
    No,
}

/// Something that gc keeps or removes as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreItem {
    /// A named root and all it refers to.
    Root(String),
    /// The content of a remembered run, and its name.
    Realisation(CacheKey, String),
    /// A cache mount, and which of its folders.
    CacheMount(String, u32),
    /// A compressed layer, manifest or config.
    OciBlob(Sha256Digest),
    /// A blob by itself.
    Blob(BlobDigest),
    /// Trees and blobs that no root or realisation refers to.
    Unreferenced,
    /// Files that a killed process left.
    Leftovers,
}

impl fmt::Display for StoreItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => write!(f, "gc root `{name}`"),
            Self::Realisation(key, name) => write!(f, "`{name}` ({})", &key.to_string()[..12]),
            Self::CacheMount(id, 0) => write!(f, "cache mount `{id}`"),
            Self::CacheMount(id, slot) => write!(f, "cache mount `{id}` ({slot})"),
            Self::OciBlob(digest) => write!(f, "layer {}", digest.oci()),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Unreferenced => f.write_str("unreferenced trees and blobs"),
            Self::Leftovers => f.write_str("files of killed processes"),
        }
    }
}

/// Why something is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptBecause {
    /// It is a gc root, or a pulled layer of one.
    Rooted,
    /// It was used since a build that still runs began.
    Leased {
        /// Its lease.
        lease: String,
    },
    /// It is being used this moment.
    Busy,
    /// It was used within `keep_duration`.
    Recent,
    /// There is room for it.
    Room,
    /// Cache mounts go only for a size or with `all`.
    NotAsked,
    /// No filter chose it.
    NotChosen,
}

impl fmt::Display for KeptBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rooted => f.write_str("a gc root keeps it"),
            Self::Leased { lease } => write!(f, "used since the running build {lease} began"),
            Self::Busy => f.write_str("in use"),
            Self::Recent => f.write_str("used within the time to keep"),
            Self::Room => f.write_str("within the size limit"),
            Self::NotAsked => f.write_str("cache mounts go for a size limit or with `all`"),
            Self::NotChosen => f.write_str("no filter chose it"),
        }
    }
}

/// Something gc removed, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// What.
    pub item: StoreItem,
    /// Bytes that went with it: what nothing kept, nor anything named before it in the report, refers to.
    pub bytes: u64,
    /// Last use in milliseconds since 1970; `None` for what is many things.
    pub used: Option<i64>,
}

/// Something gc kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What.
    pub item: StoreItem,
    /// Bytes it adds to what was kept before it.
    pub bytes: u64,
    /// Why.
    pub because: KeptBecause,
}

/// What gc did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// What went, most recently used first.
    pub removed: Vec<Removed>,
    /// What stayed, in the order of the right to stay.
    pub kept: Vec<Kept>,
    /// Bytes of all that went. Small blobs give their space back with their pack, so `used_after` may lag behind.
    pub freed: u64,
    /// Bytes of the store on disk before.
    pub used_before: u64,
    /// Bytes of the store on disk after; before, when nothing was done.
    pub used_after: u64,
}

impl GcReport {
    fn note(&mut self, item: StoreItem, bytes: u64) {
        self.freed += bytes;
        self.removed.push(Removed {
            item,
            bytes,
            used: None,
        });
    }
}

/// Tries to get below a size that space outside the content (free pages, pack rests) keeps it above.
const ROUNDS: u32 = 3;

impl Store {
    /// Removes what the policy does not keep. Safe beside running builds and other collectors.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read or written or a file cannot be removed; what was removed until then
    /// stays removed, and nothing else is lost.
    pub fn gc(&self, policy: &GcPolicy, dry_run: DryRun) -> Result<GcReport, StoreError> {
        self.gc_where(policy, dry_run, &|_| true)
    }

    /// How large the store is and how much its file system has free: what the sizes of policies are about.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be measured.
    pub fn space(&self) -> Result<Space, StoreError> {
        let inner = &self.0.inner;
        inner.flush()?;
        Ok(Space {
            used: inner.disk_use()?.total(),
            free: inner.free_bytes()?,
        })
    }

    /// Whether anything that gc could take was not used for this long, as far as can be told at once: loose blobs are not
    /// looked at.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked.
    pub fn has_idle(&self, time: Duration) -> Result<bool, StoreError> {
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let before = wall_clock().saturating_sub(time);
        self.0.inner.index.read("look for what is idle", |connection| {
            connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM realisations WHERE used < ?1 AND kept = 1)
                     OR EXISTS (SELECT 1 FROM directories WHERE used < ?1)
                     OR EXISTS (SELECT 1 FROM caches WHERE used < ?1) OR EXISTS (SELECT 1 FROM oci WHERE used < ?1)",
                )?
                .query_row([before], |row| row.get(0))
        })
    }

    /// [`Store::gc`] that takes only what `filter` chooses.
    ///
    /// # Errors
    /// As [`Store::gc`].
    pub fn gc_where(&self, policy: &GcPolicy, dry_run: DryRun, filter: GcFilter<'_>) -> Result<GcReport, StoreError> {
        let inner = &self.0.inner;
        if dry_run == DryRun::No {
            inner.check_writable()?;
        }
        let mut early = GcReport::default();
        let flushed = inner.flush();
        if dry_run == DryRun::No && inner.is_scarce()? {
            // What can go without a row being written goes before rows are.
            inner.give_reserve_up()?;
            inner.remove_dead_scratch()?;
            flushed.or_else(|_| inner.flush())?;
            inner.remove_orphans(&mut early)?;
        } else {
            flushed?;
        }
        if inner.is_writable() {
            // A moment without unflushed rows: what others have just found shows in the plan.
            drop(inner.sweep_lock.sweep()?);
        }
        let mut report = self.collect(policy, dry_run, filter)?;
        if dry_run == DryRun::No {
            inner.make_reserve();
        }
        report.removed.extend(early.removed);
        report.freed += early.freed;
        Ok(report)
    }

    fn collect(&self, policy: &GcPolicy, dry_run: DryRun, filter: GcFilter<'_>) -> Result<GcReport, StoreError> {
        let inner = &self.0.inner;
        let disk = inner.disk_use()?;
        let used_before = disk.total();
        let mut report = GcReport {
            used_before,
            used_after: used_before,
            ..GcReport::default()
        };
        let limit = limit(policy, used_before, inner.free_bytes()?);
        let Some(goal) = limit else {
            if dry_run == DryRun::No {
                inner.tidy(policy, &mut report)?;
                report.used_after = inner.disk_use()?.total();
            } else {
                // Nothing need go; why each thing stays is worth the look only to somebody who asks.
                Plan::make(inner, policy, u64::MAX, filter)?.describe(&mut report);
            }
            return Ok(report);
        };
        // They count, but only content can go.
        let mut target = goal.saturating_sub(disk.work + disk.reserve);
        for round in 1..=ROUNDS {
            let plan = Plan::make(inner, policy, target, filter)?;
            plan.describe(&mut report);
            if dry_run == DryRun::Yes {
                break;
            }
            let (evicted, kept_bytes) = (plan.evicts(), plan.kept_bytes);
            inner.sweep_plan(plan, &mut report)?;
            inner.tidy(policy, &mut report)?;
            report.used_after = inner.disk_use()?.total();
            let excess = report.used_after.saturating_sub(goal);
            if goal == 0 || excess == 0 || !evicted || round == ROUNDS {
                break;
            }
            target = kept_bytes.min(target).saturating_sub(excess);
        }
        Ok(report)
    }
}

/// The size to come down to; `None` when there is nothing to do for a size.
fn limit(policy: &GcPolicy, used: u64, free: u64) -> Option<u64> {
    if policy.max_used.is_none() && policy.min_free.is_none() {
        // `reserved` alone means: down to this.
        return Some(policy.reserved.unwrap_or(0)).filter(|reserved| *reserved == 0 || used > *reserved);
    }
    let lacking = policy.min_free.unwrap_or(0).saturating_sub(free);
    let for_free = if lacking > 0 {
        used.saturating_sub(lacking)
    } else {
        u64::MAX
    };
    let limit = policy
        .max_used
        .unwrap_or(u64::MAX)
        .min(for_free)
        .max(policy.reserved.unwrap_or(0));
    (used > limit).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_combine_as_buildkit_combines_them() {
        let policy = |max_used, reserved, min_free| GcPolicy {
            max_used,
            reserved,
            min_free,
            ..GcPolicy::default()
        };
        let cases = [
            // used 100, free 50
            (policy(None, None, None), Some(0)),
            (policy(Some(100), None, None), None),
            (policy(Some(99), None, None), Some(99)),
            (policy(Some(60), Some(80), None), Some(80)),
            (policy(Some(60), Some(100), None), None),
            (policy(None, None, Some(50)), None),
            (policy(None, None, Some(70)), Some(80)),
            (policy(None, Some(90), Some(70)), Some(90)),
            (policy(Some(60), None, Some(70)), Some(60)),
            (policy(None, None, Some(1_000)), Some(0)),
            (policy(None, Some(40), None), Some(40)),
            (policy(None, Some(100), None), None),
        ];
        for (policy, want) in cases {
            assert_eq!(limit(&policy, 100, 50), want, "{policy:?}");
        }
    }
}

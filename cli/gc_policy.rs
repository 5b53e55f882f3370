//! When and what is collected without being asked: `[gc]` of the settings, with BuildKit's rules.
//!
//! ```toml
//! [gc]
//! automatic = true             # collect when builds leave the store over a rule's sizes
//! keep-results = 2             # results of a target that are roots: the last one and those before it
//!
//! [[gc.policy]]                # in this order; without any, the built-in ones
//! filters = ["type==exec.cachemount", "type==source.local"]
//! keep-duration = "48h"
//! max-used-space = "20GB"      # sizes may be a share of the disk: "10%"
//! ```

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use cbs_solver::{KeyParts, PartValue};
use cbs_store::{DryRun, GcCandidate, GcPolicy, GcReport, Realisation, Store, StoreItem};
use serde::{Deserialize, Deserializer};

use crate::commands::{parse_bytes, parse_duration};
use crate::filters::{Fields, Filter};
use crate::roots::KEEP_RESULTS;

/// How often the store is measured while a build runs.
const WATCH: Duration = Duration::from_secs(5);
/// How often, in seconds, rules without sizes are looked at, and the built-in rules.
const SELDOM: i64 = 600;
/// The fact that says when that was.
const CHECKED: (&str, &str) = ("cbs.gc", "checked");

/// `[gc]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct GcConfig {
    /// Whether builds collect what is over the rules' sizes; they do.
    pub(crate) automatic: Option<bool>,
    /// How many results of a target are roots.
    pub(crate) keep_results: Option<usize>,
    /// What to collect; without any the built-in rules.
    pub(crate) policy: Vec<GcRule>,
}

/// `[[gc.policy]]`: one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct GcRule {
    /// Also what is dear to lose.
    pub(crate) all: bool,
    /// Only what one of these chooses.
    #[serde(deserialize_with = "filters")]
    pub(crate) filters: Vec<String>,
    /// What was used within this time stays.
    #[serde(deserialize_with = "duration")]
    pub(crate) keep_duration: Option<Duration>,
    /// Nothing goes while the store is no larger.
    #[serde(deserialize_with = "space")]
    pub(crate) reserved_space: Option<Space>,
    /// The store shall be no larger.
    #[serde(deserialize_with = "space")]
    pub(crate) max_used_space: Option<Space>,
    /// The disk shall have this much free.
    #[serde(deserialize_with = "space")]
    pub(crate) min_free_space: Option<Space>,
}

/// An amount of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Bytes.
    Bytes(u64),
    /// Percent of the file system that the store is on.
    Percent(u8),
}

impl Space {
    /// `20GB`, `512MiB`, `10%`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let Some(number) = text.strip_suffix('%') else {
            return Ok(Self::Bytes(parse_bytes(text)?));
        };
        let number = number.trim().parse().ok().filter(|&number: &u8| number <= 100);
        let number = number.with_context(|| format!("`{text}` is no share of a disk such as 10%"))?;
        Ok(Self::Percent(number))
    }

    fn of(self, disk: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk / 100 * u64::from(percent),
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

fn space<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Space>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(bytes) => Ok(Some(Space::Bytes(bytes))),
        Written::Text(text) => Space::parse(&text).map(Some).map_err(serde::de::Error::custom),
    }
}

fn filters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    for text in &texts {
        Filter::parse(text).map_err(serde::de::Error::custom)?;
    }
    Ok(texts)
}

impl GcConfig {
    /// How many results of a target are roots.
    pub(crate) fn keep_results(&self) -> usize {
        self.keep_results.unwrap_or(KEEP_RESULTS).max(1)
    }

    /// The rules that hold. The built-in ones are BuildKit's, but for what is below ten gigabytes: that is left alone.
    pub(crate) fn rules(&self) -> Vec<GcRule> {
        if !self.policy.is_empty() {
            return self.policy.clone();
        }
        let least = Some(Space::Bytes(10_000_000_000));
        let day = 24 * 3_600;
        let cheap = GcRule {
            filters: ["source.local", "exec.cachemount", "source.git.checkout"]
                .map(|kind| format!("type=={kind}"))
                .to_vec(),
            keep_duration: Some(Duration::from_secs(2 * day)),
            max_used_space: least,
            ..GcRule::default()
        };
        let old = GcRule {
            keep_duration: Some(Duration::from_secs(60 * day)),
            max_used_space: least,
            ..GcRule::default()
        };
        let size = GcRule {
            reserved_space: least,
            max_used_space: Some(Space::Bytes(100_000_000_000)),
            min_free_space: Some(Space::Percent(20)),
            ..GcRule::default()
        };
        let rest = GcRule {
            all: true,
            ..size.clone()
        };
        vec![cheap, old, size, rest]
    }
}

impl GcRule {
    fn has_sizes(&self) -> bool {
        self.reserved_space.is_some() || self.max_used_space.is_some() || self.min_free_space.is_some()
    }

    /// The rule for a store, whose disk has a size.
    pub(crate) fn policy(&self, store: &Store) -> anyhow::Result<GcPolicy> {
        let root = store.root();
        let stat =
            rustix::fs::statvfs(root).with_context(|| format!("cannot measure the disk of `{}`", root.display()))?;
        let disk = stat.f_blocks.saturating_mul(stat.f_frsize);
        let bytes = |space: Option<Space>| space.map(|space| space.of(disk));
        Ok(GcPolicy {
            keep_duration: self.keep_duration.unwrap_or_default(),
            max_used: bytes(self.max_used_space),
            reserved: bytes(self.reserved_space),
            min_free: bytes(self.min_free_space),
            all: self.all,
        })
    }

    /// Collects by this rule alone.
    pub(crate) fn collect(&self, store: &Store, dry_run: DryRun) -> anyhow::Result<GcReport> {
        let filters = self.filters.iter().map(|text| Filter::parse(text));
        let filters = filters.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(store.gc_where(&self.policy(store)?, dry_run, &|candidate| {
            filters.is_empty() || filters.iter().any(|filter| filter.matches(&Candidate(*candidate)))
        })?)
    }
}

/// What runs of different operations are called in filters.
pub(crate) fn run_type(run: &Realisation) -> &'static str {
    let parts = KeyParts::decode(&run.key_parts);
    let text = |name: &str| {
        let parts = parts.as_ref().ok()?;
        let part = parts.parts().iter().find(|part| part.name == name)?;
        match &part.value {
            PartValue::Text(text) => Some(text.as_slice()),
            _ => None,
        }
    };
    match text("scheme") {
        Some(b"git") => "source.git.checkout",
        Some(b"local") => "source.local",
        _ => "regular",
    }
}

struct Candidate<'c>(GcCandidate<'c>);

impl Fields for Candidate<'_> {
    fn field(&self, key: &str) -> Option<String> {
        let Self(candidate) = self;
        let item = candidate.item;
        let is_mutable = matches!(item, StoreItem::CacheMount(..));
        Some(match key {
            "id" => match item {
                StoreItem::Realisation(key, _) => key.to_string(),
                StoreItem::CacheMount(id, slot) => format!("{id}:{slot}"),
                StoreItem::OciBlob(digest) => digest.oci().to_string(),
                _ => return None,
            },
            "description" => item.to_string(),
            "type" => match (item, candidate.realisation) {
                (_, Some(run)) => run_type(run).to_owned(),
                (StoreItem::CacheMount(..), _) => "exec.cachemount".to_owned(),
                (StoreItem::OciBlob(_), _) => "layer".to_owned(),
                // What nothing names are the folders that builds copied from.
                _ => "source.local".to_owned(),
            },
            "mutable" => is_mutable.to_string(),
            "immutable" => (!is_mutable).to_string(),
            // Something in use or shared with a root is not asked about: it stays.
            "inuse" | "rooted" | "shared" => "false".to_owned(),
            "private" => "true".to_owned(),
            _ => return None,
        })
    }

    fn idle(&self) -> Duration {
        idle(self.0.used)
    }
}

/// How long ago a time in milliseconds since 1970 is.
pub(crate) fn idle(used: i64) -> Duration {
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(used).unwrap_or_default());
    SystemTime::now().duration_since(then).unwrap_or_default()
}

/// Collects by all rules whose sizes the store is over; the bytes that went. Rules without sizes, and the built-in ones,
/// are looked at now and then only.
pub(crate) fn collect_when_over(store: &Store, config: &GcConfig) -> anyhow::Result<u64> {
    if config.automatic == Some(false) {
        return Ok(0);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let (namespace, key) = CHECKED;
    let checked = store.fact(namespace, key)?.map_or(0, |(_, written)| written);
    let is_time = now - checked >= SELDOM || checked > now;
    let rules = config.rules();
    let is_own = !config.policy.is_empty();
    let due: Vec<&GcRule> = rules
        .iter()
        .filter(|rule| is_time || (is_own && rule.has_sizes()))
        .collect();
    if is_time {
        store.put_fact(namespace, key, b"")?;
    }
    let (mut freed, mut space) = (0, None);
    for rule in due {
        if let Some(time) = rule.keep_duration
            && !store.has_idle(time)?
        {
            continue;
        }
        let is_due = !rule.has_sizes() || {
            let space = match space {
                Some(space) => space,
                None => *space.insert(store.space()?),
            };
            rule.policy(store)?.is_over(space)
        };
        if is_due {
            freed += rule.collect(store, DryRun::No)?.freed;
            space = None;
        }
    }
    Ok(freed)
}

/// Keeps the store within its rules while a build runs. What the build uses has a lease and stays.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Watch {
    /// Begins watching; a machine out of threads is not watched.
    pub(crate) fn start(store: &Store, config: &GcConfig) -> Self {
        Self::every(WATCH, store, config)
    }

    fn every(interval: Duration, store: &Store, config: &GcConfig) -> Self {
        if config.automatic == Some(false) {
            return Self {
                stop: None,
                thread: None,
            };
        }
        let (stop, stopped) = channel::<()>();
        let (store, config) = (store.clone(), config.clone());
        let watch = move || {
            let (mut freed, mut pause) = (0, interval);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // A full disk or a locked database shows where it hurts; here it is tried again.
                let gone = collect_when_over(&store, &config).unwrap_or_default();
                freed += gone;
                // What cannot go now, since it is in use, can hardly go a moment later.
                pause = if gone > 0 {
                    interval
                } else {
                    (pause * 2).min(interval * 60)
                };
            }
            freed
        };
        Self {
            stop: Some(stop),
            thread: std::thread::Builder::new().name("gc".into()).spawn(watch).ok(),
        }
    }

    /// Ends watching, after what is under way; the bytes that went.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop = None;
        let thread = self.thread.take();
        // A collector that panicked has said so.
        thread.map_or(0, |thread| thread.join().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_bytes_or_shares() {
        assert_eq!(Space::parse("20GB").expect("bytes"), Space::Bytes(20_000_000_000));
        assert_eq!(Space::parse("10%").expect("share").of(5_000), 500);
        for text in ["101%", "x%", "-1", "10 parsecs"] {
            assert!(Space::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_watch_collects_while_something_runs() {
        use cbs_store::{Access, BlobStore as _};
        let folder = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&folder.path().join("store"), Access::ReadWrite).expect("store");
        let blob = store.put_bytes(&vec![7; 2_000_000]).expect("put");
        store.flush().expect("flush");
        let lease = store.lease().expect("lease");
        let kept = store.put_bytes(&vec![8; 2_000_000]).expect("put");
        let config = GcConfig {
            policy: vec![GcRule {
                max_used_space: Some(Space::Bytes(7_000_000)),
                ..GcRule::default()
            }],
            ..GcConfig::default()
        };
        let watch = Watch::every(Duration::from_millis(10), &store, &config);
        let start = std::time::Instant::now();
        while store.blob(&blob).expect("ask").is_some() {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing is collected");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(watch.finish() >= 2_000_000);
        assert!(store.blob(&kept).expect("ask").is_some(), "what the build uses stays");
        drop(lease);
    }

    #[test]
    fn the_built_in_rules_leave_small_stores_alone() {
        for rule in GcConfig::default().rules() {
            let least = rule.reserved_space.or(rule.max_used_space);
            assert_eq!(least, Some(Space::Bytes(10_000_000_000)), "{rule:?}");
        }
    }
}

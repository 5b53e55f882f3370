//! The entries of list attributes, and their command line form (`type=local,dest=out`).

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};

use super::csv_line::split_fields;
pub(crate) use crate::dockerfile::go::parse_bool;

/// A cache to import from or export to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// The backend: `registry`, `local`, `inline`, `gha`, `s3`, …
    pub kind: String,
    /// Everything else that was given.
    pub attributes: BTreeMap<String, String>,
}

/// One way in which a result leaves the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The exporter: `image`, `registry`, `docker`, `oci`, `local`, `tar`, `cacheonly`, …
    pub kind: String,
    /// The file or folder written to; empty for none, `-` for stdout.
    pub destination: String,
    /// Everything else that was given.
    pub attributes: BTreeMap<String, String>,
}

/// A secret offered to the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// The id under which build steps ask for it.
    pub id: String,
    /// The file it is read from; empty for none.
    pub source: String,
    /// The environment variable it is read from; empty for none.
    pub env: String,
}

/// An SSH agent or keys offered to the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssh {
    /// The id under which build steps ask for it.
    pub id: String,
    /// The agent socket or the key files; empty for the agent of the caller.
    pub paths: Vec<String>,
}

/// An attestation added to the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    /// `provenance` or `sbom`.
    pub kind: String,
    /// Set to leave it out.
    pub disabled: bool,
    /// Everything else that was given.
    pub attributes: BTreeMap<String, String>,
}

/// A source policy, or how policies are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Policy files.
    pub files: Vec<String>,
    /// Whether policies before this one are forgotten.
    pub reset: bool,
    /// Whether no policy applies.
    pub disabled: bool,
    /// Whether sources that no policy mentions are refused.
    pub strict: Option<bool>,
    /// How much the policy tells.
    pub log_level: Option<String>,
}

/// Limits for the processes of build steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory, as a size such as `512m`.
    pub memory: Option<String>,
    /// Memory and swap together; `-1` for no limit.
    pub memory_swap: Option<String>,
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// Scheduler period in microseconds.
    pub cpu_period: Option<i64>,
    /// CPU time within a period in microseconds.
    pub cpu_quota: Option<i64>,
    /// CPUs that may be used, such as `0-1`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Processes and threads at once; buildx has no such limit.
    pub pids: Option<i64>,
}

/// Why the text of an entry cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("{text:?} is no comma-separated list: {reason}")]
    Fields { text: String, reason: String },
    #[error("field {field:?} must have the form key=value")]
    NoValue { field: String },
    #[error("a type is required in {text:?}, as in type=registry")]
    NoType { text: String },
    #[error("unknown key {key:?} in {field:?}")]
    UnknownKey { key: String, field: String },
    #[error("unsupported secret type {kind:?}, there are file and env")]
    SecretType { kind: String },
    #[error("value {value:?} of {key:?} must be a bool")]
    Bool { key: String, value: String },
    #[error("value {value:?} of resource {key:?} must be a whole number")]
    Integer { key: String, value: String },
    #[error("unknown log level {value:?}")]
    LogLevel { value: String },
}

/// Splits at commas, then each field at its first equals sign.
fn pairs(text: &str) -> Result<Vec<(String, String)>, EntryError> {
    fields(text)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((String::from(key), String::from(value))),
            None => Err(EntryError::NoValue { field }),
        })
        .collect()
}

fn fields(text: &str) -> Result<Vec<String>, EntryError> {
    split_fields(text, ',').map_err(|reason| EntryError::Fields {
        text: String::from(text),
        reason,
    })
}

fn bool_of(key: &str, value: &str) -> Result<bool, EntryError> {
    parse_bool(value).ok_or_else(|| EntryError::Bool {
        key: String::from(key),
        value: String::from(value),
    })
}

impl CacheEntry {
    fn parse(text: &str) -> Result<CacheEntry, EntryError> {
        let mut entry = CacheEntry::default();
        for (key, value) in pairs(text)? {
            match key.to_lowercase() {
                key if key == "type" => entry.kind = value,
                key => {
                    entry.attributes.insert(key, value);
                }
            }
        }
        entry.checked(text)
    }

    pub(crate) fn checked(self, text: &str) -> Result<CacheEntry, EntryError> {
        if self.kind.is_empty() {
            Err(EntryError::NoType {
                text: String::from(text),
            })
        } else {
            Ok(self)
        }
    }

    /// Reads `type=…,key=value`, or a list of plain image names, each of which is a registry cache. Nothing gives none.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<CacheEntry>, EntryError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        if text.contains('=') {
            return Ok(vec![CacheEntry::parse(text)?]);
        }
        let registry = |reference: String| CacheEntry {
            kind: String::from("registry"),
            attributes: BTreeMap::from([(String::from("ref"), reference)]),
        };
        Ok(fields(text)?.into_iter().map(registry).collect())
    }
}

impl Output {
    /// Reads `type=…,key=value`, or a plain path: a folder, or `-` for a tar archive on stdout.
    pub(crate) fn parse(text: &str) -> Result<Output, EntryError> {
        let all = fields(text)?;
        if all.len() == 1 && all[0] == text && !text.starts_with("type=") {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(Output {
                kind: String::from(kind),
                destination: String::from(text),
                ..Output::default()
            });
        }
        let mut output = Output::default();
        for (key, value) in pairs(text)? {
            match key.to_lowercase().trim() {
                "type" => output.kind = value,
                "dest" => output.destination = value,
                key => {
                    output.attributes.insert(String::from(key), value);
                }
            }
        }
        output.checked(text)
    }

    pub(crate) fn checked(self, text: &str) -> Result<Output, EntryError> {
        if self.kind.is_empty() {
            Err(EntryError::NoType {
                text: String::from(text),
            })
        } else {
            Ok(self)
        }
    }
}

impl Secret {
    pub(crate) fn parse(text: &str) -> Result<Secret, EntryError> {
        let mut secret = Secret::default();
        let mut from_env = false;
        for (key, value) in pairs(text)? {
            let key = key.to_lowercase();
            match key.as_str() {
                "type" if matches!(value.as_str(), "file" | "env") => from_env = value == "env",
                "type" => return Err(EntryError::SecretType { kind: value }),
                "id" => secret.id = value,
                "source" | "src" => secret.source = value,
                "env" => secret.env = value,
                _ => {
                    return Err(EntryError::UnknownKey {
                        field: format!("{key}={value}"),
                        key,
                    });
                }
            }
        }
        if from_env && secret.env.is_empty() {
            secret.env = std::mem::take(&mut secret.source);
        }
        Ok(secret)
    }
}

impl Ssh {
    /// Reads `id`, or `id=path,path`.
    pub(crate) fn parse(text: &str) -> Ssh {
        match text.split_once('=') {
            Some((id, paths)) => Ssh {
                id: String::from(id),
                paths: paths.split(',').map(String::from).collect(),
            },
            None => Ssh {
                id: String::from(text),
                paths: Vec::new(),
            },
        }
    }
}

impl Attestation {
    pub(crate) fn parse(text: &str) -> Result<Attestation, EntryError> {
        let mut attestation = Attestation::default();
        for (key, value) in pairs(text)? {
            match key.to_lowercase().trim() {
                "type" => attestation.kind = value,
                "disabled" => attestation.disabled = bool_of(&key, &value)?,
                _ => {
                    attestation.attributes.insert(key, value);
                }
            }
        }
        if attestation.kind.is_empty() {
            return Err(EntryError::NoType {
                text: String::from(text),
            });
        }
        Ok(attestation)
    }

    /// The entry for `--sbom` and `--provenance`: a bool, or attributes.
    pub(crate) fn from_flag(kind: &str, value: &str) -> String {
        match parse_bool(value) {
            Some(enabled) => format!("type={kind},disabled={}", !enabled),
            None => format!("type={kind},{value}"),
        }
    }
}

impl Policy {
    pub(crate) fn parse(text: &str) -> Result<Policy, EntryError> {
        let mut policy = Policy::default();
        for (key, value) in pairs(text)? {
            policy.set(key.to_lowercase().trim(), &value)?;
        }
        Ok(policy)
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), EntryError> {
        match key {
            "filename" if !value.is_empty() => self.files.push(String::from(value)),
            "reset" => self.reset = bool_of(key, value)?,
            "disabled" => self.disabled = bool_of(key, value)?,
            "strict" => self.strict = Some(bool_of(key, value)?),
            "log-level" => {
                const LEVELS: [&str; 8] = ["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"];
                let level = value.to_lowercase();
                if !LEVELS.contains(&level.as_str()) {
                    return Err(EntryError::LogLevel {
                        value: String::from(value),
                    });
                }
                self.log_level = Some(if level == "warn" {
                    String::from("warning")
                } else {
                    level
                });
            }
            _ => {
                return Err(EntryError::UnknownKey {
                    key: String::from(key),
                    field: format!("{key}={value}"),
                });
            }
        }
        Ok(())
    }
}

impl Resources {
    /// Takes over every limit that the other one sets.
    pub(crate) fn merge(&mut self, other: &Resources) {
        fn replace<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if other.is_some() {
                own.clone_from(other);
            }
        }
        replace(&mut self.memory, &other.memory);
        replace(&mut self.memory_swap, &other.memory_swap);
        replace(&mut self.cpu_shares, &other.cpu_shares);
        replace(&mut self.cpu_period, &other.cpu_period);
        replace(&mut self.cpu_quota, &other.cpu_quota);
        replace(&mut self.cpuset_cpus, &other.cpuset_cpus);
        replace(&mut self.cpuset_mems, &other.cpuset_mems);
        replace(&mut self.pids, &other.pids);
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), EntryError> {
        let text = || Some(String::from(value));
        let integer = || match value.parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(EntryError::Integer {
                key: String::from(key),
                value: String::from(value),
            }),
        };
        match key {
            "memory" => self.memory = text(),
            "memory-swap" => self.memory_swap = text(),
            "cpu-shares" => self.cpu_shares = integer()?,
            "cpu-period" => self.cpu_period = integer()?,
            "cpu-quota" => self.cpu_quota = integer()?,
            "cpuset-cpus" => self.cpuset_cpus = text(),
            "cpuset-mems" => self.cpuset_mems = text(),
            "pids" => self.pids = integer()?,
            _ => {
                return Err(EntryError::UnknownKey {
                    key: String::from(key),
                    field: format!("resources.{key}"),
                });
            }
        }
        Ok(())
    }
}

/// An entry whose key was seen before takes the place of the earlier one.
pub(crate) fn keep_last_by<T>(entries: &mut Vec<T>, key: impl Fn(&T) -> String) {
    let mut kept: Vec<T> = Vec::with_capacity(entries.len());
    let mut positions: HashMap<String, usize> = HashMap::new();
    for entry in entries.drain(..) {
        match positions.entry(key(&entry)) {
            Entry::Occupied(position) => kept[*position.get()] = entry,
            Entry::Vacant(vacant) => {
                vacant.insert(kept.len());
                kept.push(entry);
            }
        }
    }
    *entries = kept;
}

/// Of equal entries one is left. The last entry takes the place of the one that goes: an order nobody would choose,
/// but definitions in use print it.
pub(crate) fn drop_repeats<T: PartialEq>(entries: &mut Vec<T>) {
    if entries.len() < 2 {
        return;
    }
    for index in (0..entries.len() - 1).rev() {
        let repeat = entries
            .iter()
            .skip(index + 1)
            .position(|other| *other == entries[index]);
        if let Some(offset) = repeat {
            entries.swap_remove(index + 1 + offset);
        }
    }
}

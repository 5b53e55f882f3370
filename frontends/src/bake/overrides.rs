//! `--set target.key=value`: what is set for which target, and setting it.

use std::collections::HashMap;

use super::entitlements::Grants;
use super::entries::{Attestation, CacheEntry, EntryError, Output, Policy, Secret, Ssh, keep_last_by, parse_bool};
use super::error::BakeError;
use super::hcl::traversal::hint;
use super::model::Target;
use super::paths::glob_match;

/// All that is given for one key of one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setting {
    /// The key behind the name of the target, such as `args.VERSION`.
    key: String,
    value: String,
    /// For keys that collect: every value, in order.
    values: Vec<String>,
    /// Whether the last one was given with `+=`.
    append: bool,
    /// The last one as it was given, for messages.
    text: String,
}

/// The settings by target.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    by_target: HashMap<String, Vec<Setting>>,
}

/// Keys whose values collect.
const LISTS: &[&str] = &[
    "output",
    "cache-to",
    "cache-from",
    "tags",
    "platform",
    "secrets",
    "ssh",
    "attest",
    "entitlements",
    "annotations",
    "policy",
    "no-cache-filter",
    "ulimits",
];

impl Overrides {
    /// Sorts the settings by the targets they are for; patterns match targets only.
    pub(crate) fn new(
        targets: &[Target],
        settings: &[String],
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Overrides, BakeError> {
        let mut overrides = Overrides::default();
        for text in settings {
            let fail = |reason: String| BakeError::Override {
                setting: text.clone(),
                reason,
            };
            let (left, value) = match text.split_once('=') {
                Some((left, value)) => (left, Some(value)),
                None => (text.as_str(), None),
            };
            let append = left.ends_with('+');
            let path = left.strip_suffix('+').unwrap_or(left);
            let Some((pattern, key)) = path.split_once('.') else {
                return Err(fail(String::from("a key is expected, as in target.key=value")));
            };
            let (head, name) = key
                .split_once('.')
                .map_or((key, None), |(head, name)| (head, Some(name)));
            if value.is_none() && head != "args" {
                return Err(fail(String::from("a value is expected, as in target.key=value")));
            }
            let needs_name = matches!(
                head,
                "args" | "contexts" | "labels" | "resources" | "secret" | "extra-hosts"
            );
            if needs_name && name.is_none() {
                return Err(fail(format!("{head} requires a name, as in target.{head}.name=value")));
            }
            if append && matches!(head, "resources" | "secret") {
                return Err(fail(format!("{head} cannot be appended to")));
            }
            let value = match (value, name) {
                (Some(value), _) => Some(String::from(value)),
                // An argument without a value is copied from the environment, if it is there.
                (None, Some(name)) => lookup(name),
                (None, None) => None,
            };
            let names = matching(targets, pattern)?;
            let Some(value) = value else { continue };
            for target in names {
                let of_target = overrides.by_target.entry(target).or_default();
                let at = match of_target.iter().position(|setting| setting.key == key) {
                    Some(at) => at,
                    None => {
                        of_target.push(Setting {
                            key: String::from(key),
                            ..Setting::default()
                        });
                        of_target.len() - 1
                    }
                };
                let setting = &mut of_target[at];
                setting.text.clone_from(text);
                if LISTS.contains(&head) {
                    setting.append = append;
                    setting.values.push(value.clone());
                } else {
                    setting.value.clone_from(&value);
                }
            }
        }
        Ok(overrides)
    }

    pub(crate) fn of(&self, target: &str) -> &[Setting] {
        self.by_target.get(target).map_or(&[], Vec::as_slice)
    }
}

fn matching(targets: &[Target], pattern: &str) -> Result<Vec<String>, BakeError> {
    if targets.iter().any(|target| target.name == pattern) {
        return Ok(vec![String::from(pattern)]);
    }
    let names = targets.iter().map(|target| target.name.as_str());
    let matched: Vec<String> = names
        .clone()
        .filter(|name| glob_match(pattern, name) == Some(true))
        .map(String::from)
        .collect();
    if matched.is_empty() {
        return Err(BakeError::NoMatch {
            pattern: String::from(pattern),
            hint: hint(pattern, names),
        });
    }
    Ok(matched)
}

/// Sets everything that is given for a target. Paths that are named this way are granted.
pub(crate) fn apply(target: &mut Target, settings: &[Setting], grants: &mut Grants) -> Result<(), BakeError> {
    let mut named_secrets: Vec<String> = Vec::new();
    let mut single_secrets = Vec::new();
    for setting in settings {
        let fail = |reason: String| BakeError::Override {
            setting: setting.text.clone(),
            reason,
        };
        if let Some(id) = setting.key.strip_prefix("secret.") {
            single_secrets.push((id, setting));
            continue;
        }
        set(target, setting, grants, &mut named_secrets).map_err(fail)?;
    }
    // A single secret is changed in the list that the other settings leave.
    for (id, setting) in single_secrets {
        let fail = |reason: String| BakeError::Override {
            setting: setting.text.clone(),
            reason,
        };
        update_secret(target, id, &setting.value).map_err(fail)?;
        named_secrets.push(String::from(id));
    }
    for secret in &target.secrets {
        if named_secrets.contains(&secret.id) && !secret.source.is_empty() {
            grants.read.push(secret.source.clone());
        }
    }
    Ok(())
}

fn parse_each<T>(values: &[String], parse: fn(&str) -> Result<T, EntryError>) -> Result<Vec<T>, String> {
    values
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| parse(text).map_err(|error| error.to_string()))
        .collect()
}

fn caches(values: &[String]) -> Result<Vec<CacheEntry>, String> {
    let mut entries = Vec::new();
    for text in values {
        entries.extend(CacheEntry::parse_all(text).map_err(|error| error.to_string())?);
    }
    Ok(entries)
}

fn set(
    target: &mut Target,
    setting: &Setting,
    grants: &mut Grants,
    named_secrets: &mut Vec<String>,
) -> Result<(), String> {
    let value = || setting.value.clone();
    let (head, name) = setting.key.split_once('.').unwrap_or((&setting.key, ""));
    let boolean = || parse_bool(&setting.value).ok_or_else(|| format!("{:?} is no bool for key {head}", setting.value));
    let texts = |current: Vec<String>| {
        let mut texts = if setting.append { current } else { Vec::new() };
        texts.extend_from_slice(&setting.values);
        texts
    };
    match head {
        "context" => target.context = Some(value()),
        "dockerfile" => target.dockerfile = Some(value()),
        "args" => {
            target.args.insert(String::from(name), value());
        }
        "contexts" => {
            target.contexts.insert(String::from(name), value());
        }
        "labels" => {
            target.labels.insert(String::from(name), value());
        }
        "extra-hosts" => {
            target.extra_hosts.insert(String::from(name), value());
        }
        "tags" => target.tags = Some(texts(target.tags.take().unwrap_or_default())),
        "platform" => target.platforms = Some(texts(target.platforms.take().unwrap_or_default())),
        "no-cache-filter" => target.no_cache_filter = texts(std::mem::take(&mut target.no_cache_filter)),
        "ulimits" => target.ulimits = texts(std::mem::take(&mut target.ulimits)),
        "cache-from" => {
            if !setting.append {
                target.cache_from.clear();
            }
            target.add_cache_from(&caches(&setting.values)?);
            let local = target.cache_from.iter().filter(|entry| entry.kind == "local");
            grants
                .read
                .extend(local.filter_map(|entry| entry.attributes.get("src").cloned()));
        }
        "cache-to" => {
            let mut entries = if setting.append {
                target.cache_to.take().unwrap_or_default()
            } else {
                Vec::new()
            };
            entries.extend(caches(&setting.values)?);
            super::entries::drop_repeats(&mut entries);
            let local = entries.iter().filter(|entry| entry.kind == "local");
            grants
                .write
                .extend(local.filter_map(|entry| entry.attributes.get("dest").cloned()));
            target.cache_to = Some(entries);
        }
        "target" => target.target = Some(value()),
        "call" => target.call = Some(value()),
        "secrets" => {
            let secrets = parse_each(&setting.values, Secret::parse)?;
            named_secrets.extend(secrets.iter().map(|secret| secret.id.clone()));
            if !setting.append {
                target.secrets.clear();
            }
            target.add_secrets(&secrets);
        }
        "ssh" => {
            let entries = parse_each(&setting.values, |text| Ok(Ssh::parse(text)))?;
            if !setting.append {
                target.ssh.clear();
            }
            target.add_ssh(&entries);
            grants
                .read
                .extend(target.ssh.iter().flat_map(|entry| entry.paths.iter().cloned()));
        }
        "output" => {
            let mut outputs = if setting.append {
                target.outputs.take().unwrap_or_default()
            } else {
                Vec::new()
            };
            outputs.extend(parse_each(&setting.values, Output::parse)?);
            super::entries::drop_repeats(&mut outputs);
            let destinations = outputs.iter().map(|output| &output.destination);
            grants
                .write
                .extend(destinations.filter(|destination| !destination.is_empty()).cloned());
            target.outputs = Some(outputs);
        }
        "entitlements" => {
            target.entitlements.extend_from_slice(&setting.values);
            grants.network_host |= setting.values.iter().any(|value| value == "network.host");
            grants.security_insecure |= setting.values.iter().any(|value| value == "security.insecure");
        }
        "annotations" => target.annotations.extend_from_slice(&setting.values),
        "attest" => {
            let attestations = parse_each(&setting.values, Attestation::parse)?;
            target.add_attestations(&attestations);
            keep_last_by(&mut target.attest, |attestation| attestation.kind.clone());
        }
        "policy" => {
            if !setting.append {
                target.policy.clear();
            }
            target.policy.extend(parse_each(&setting.values, Policy::parse)?);
        }
        "no-cache" => target.no_cache = Some(boolean()?),
        "pull" => target.pull = Some(boolean()?),
        "push" => target.outputs = set_push(target.outputs.take(), boolean()?),
        "load" => target.outputs = set_load(target.outputs.take(), boolean()?),
        "shm-size" => target.shm_size = Some(value()),
        "network" => target.network = Some(value()),
        "resources" => {
            let resources = target.resources.get_or_insert_default();
            resources.set(name, &setting.value).map_err(|error| error.to_string())?;
        }
        _ => return Err(format!("unknown key {head:?}")),
    }
    Ok(())
}

fn update_secret(target: &mut Target, id: &str, value: &str) -> Result<(), String> {
    let Some(secret) = target.secrets.iter_mut().find(|secret| secret.id == id) else {
        return Err(format!("secret {id:?} must be declared before it can be overridden"));
    };
    let next = Secret::parse(value).map_err(|error| error.to_string())?;
    if !next.id.is_empty() && next.id != id {
        return Err(format!("id {:?} is not that of the declared secret {id:?}", next.id));
    }
    secret.env = next.env;
    secret.source = next.source;
    Ok(())
}

fn set_push(outputs: Option<Vec<Output>>, push: bool) -> Option<Vec<Output>> {
    let mut outputs = match outputs {
        Some(outputs) => outputs,
        None if push => Vec::new(),
        None => return None,
    };
    if !push {
        outputs.retain(|output| output.kind != "registry");
    }
    let only_docker = outputs.iter().all(|output| output.kind == "docker");
    for output in outputs.iter_mut().filter(|output| output.kind == "image") {
        output.attributes.insert(String::from("push"), push.to_string());
    }
    if push && only_docker {
        let attributes = [(String::from("push"), String::from("true"))].into();
        outputs.push(Output {
            kind: String::from("image"),
            destination: String::new(),
            attributes,
        });
    }
    Some(outputs)
}

fn set_load(outputs: Option<Vec<Output>>, load: bool) -> Option<Vec<Output>> {
    if !load {
        return outputs;
    }
    let mut outputs = outputs.unwrap_or_default();
    let is_loaded = outputs
        .iter()
        .any(|output| output.kind == "docker" && output.destination.is_empty());
    let is_file = |output: &Output| !matches!(output.kind.as_str(), "docker" | "image" | "registry" | "oci");
    if !is_loaded && !outputs.iter().any(is_file) {
        outputs.push(Output {
            kind: String::from("docker"),
            ..Output::default()
        });
    }
    Some(outputs)
}

//! From a Compose service with a build to a target.

use std::collections::BTreeMap;

use super::fields::{Dictionary, Fields};
use super::yaml::{Map, Yaml};
use crate::bake::entries::{Attestation, CacheEntry, EntryError, Output, Secret, Ssh, drop_repeats};
use crate::bake::model::Target;
use crate::bake::plan::Ulimit;
use crate::bake::resolve::sanitize_name;
use crate::dockerfile::go::parse_size;

const BUILD_KEYS: [&str; 25] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

/// What a service refers to.
pub(super) struct Surroundings<'s> {
    /// The secrets of the document.
    pub(super) secrets: &'s Map,
    /// The names of the services, and whether those have a build.
    pub(super) services: &'s BTreeMap<String, bool>,
    /// The value of an argument that has none.
    pub(super) lookup: &'s dyn Fn(&str) -> Option<String>,
}

/// Makes a target of the build of a service.
pub(super) fn target(
    service: &str,
    build: &Map,
    image: Option<String>,
    surroundings: &Surroundings<'_>,
) -> Result<Target, String> {
    let path = format!("services.{service}.build");
    let fields = Fields::new(build, &path);
    fields.only(&BUILD_KEYS)?;
    let dockerfile = fields.filled("dockerfile")?;
    let dockerfile_inline = fields.filled("dockerfile_inline")?;
    if dockerfile.is_some() && dockerfile_inline.is_some() {
        return Err(format!("{path}: dockerfile and dockerfile_inline exclude each other"));
    }
    let entry = |error: EntryError| format!("{path}: {error}");
    let mut target = Target {
        name: sanitize_name(service),
        context: fields.filled("context")?,
        contexts: contexts(&fields, &path, surroundings)?,
        dockerfile,
        dockerfile_inline,
        args: resolved(fields.dictionary("args")?, surroundings.lookup),
        // A label without a value is empty.
        labels: fields
            .dictionary("labels")?
            .into_iter()
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect(),
        tags: Some(fields.texts("tags")?),
        cache_from: caches(&fields.texts("cache_from")?).map_err(entry)?,
        cache_to: non_empty(caches(&fields.texts("cache_to")?).map_err(entry)?),
        target: fields.filled("target")?,
        secrets: secrets(&fields, &path, surroundings.secrets)?,
        ssh: ssh(&fields, &path)?,
        platforms: non_empty(fields.texts("platforms")?),
        pull: fields.bool("pull")?.then_some(true),
        no_cache: fields.bool("no_cache")?.then_some(true),
        network: fields.filled("network")?,
        shm_size: shm_size(&fields, &path)?,
        ulimits: ulimits(&fields, &path)?,
        extra_hosts: fields
            .hosts("extra_hosts")?
            .into_iter()
            .map(|(host, to)| (host, to.join(",")))
            .collect(),
        ..Target::default()
    };
    for kind in ["sbom", "provenance"] {
        if let Some(value) = fields.text_or_bool(kind)?.filter(|value| !value.is_empty()) {
            let attestation = Attestation::parse(&Attestation::from_flag(kind, &value)).map_err(entry)?;
            target.add_attestations(&[attestation]);
        }
    }
    // These have no counterpart; what they must be is checked all the same.
    fields.texts("entitlements")?;
    fields.text_or_texts("no_cache_filter")?;
    fields.text("isolation")?;
    fields.bool("privileged")?;
    if let Some(extension) = fields.get("x-bake") {
        extend(&mut target, extension, &format!("{path}.x-bake"))?;
    }
    if target.tags.as_ref().is_none_or(Vec::is_empty) {
        target.tags = image.filter(|image| !image.is_empty()).map(|image| vec![image]);
    }
    Ok(target)
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

/// Fills in what has no value, and drops what gets none.
fn resolved(dictionary: Dictionary, lookup: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    dictionary
        .into_iter()
        .filter_map(|(name, value)| {
            let value = value.or_else(|| lookup(&name))?;
            Some((name, value))
        })
        .collect()
}

fn caches(texts: &[String]) -> Result<Vec<CacheEntry>, EntryError> {
    let mut entries = Vec::new();
    for text in texts {
        entries.extend(CacheEntry::parse_all(text)?);
    }
    Ok(entries)
}

fn contexts(
    fields: &Fields<'_>,
    path: &str,
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut contexts = BTreeMap::new();
    for (name, context) in fields.dictionary("additional_contexts")? {
        let context = context.unwrap_or_default();
        if let Some(service) = context.strip_prefix("service:") {
            match surroundings.services.get(service) {
                Some(true) => {}
                Some(false) => {
                    return Err(format!(
                        "{path}.additional_contexts.{name}: service {service:?} has no build"
                    ));
                }
                None => {
                    return Err(format!(
                        "{path}.additional_contexts.{name}: there is no service {service:?}"
                    ));
                }
            }
        }
        contexts.insert(name, linked(&context));
    }
    Ok(contexts)
}

/// A context that is another service becomes one that is another target.
fn linked(context: &str) -> String {
    match context.split_once(':') {
        Some(("service" | "target", name)) => format!("target:{}", sanitize_name(name)),
        _ => String::from(context),
    }
}

fn secrets(fields: &Fields<'_>, path: &str, known: &Map) -> Result<Vec<Secret>, String> {
    let items = match fields.get("secrets") {
        None => return Ok(Vec::new()),
        Some(Yaml::List(items)) => items,
        Some(other) => return Err(format!("{path}.secrets must be a list, not {}", other.kind())),
    };
    let mut secrets = Vec::new();
    for item in items {
        let id = match item {
            Yaml::Text(id) => id.clone(),
            Yaml::Map(mount) => {
                let at = format!("{path}.secrets");
                let mount = Fields::new(mount, &at);
                mount.only(&["source", "target", "uid", "gid", "mode"])?;
                mount.text("source")?.unwrap_or_default()
            }
            other => {
                return Err(format!(
                    "{path}.secrets must hold strings or mappings, not {}",
                    other.kind()
                ));
            }
        };
        let Some(definition) = known.get(&id) else {
            return Err(format!("{path}.secrets: secret {id:?} is not defined"));
        };
        secrets.push(secret(id, definition)?);
    }
    Ok(secrets)
}

fn secret(id: String, definition: &Yaml) -> Result<Secret, String> {
    let path = format!("secrets.{id}");
    let definition = match definition {
        Yaml::Map(definition) => definition,
        other => return Err(format!("{path} must be a mapping, not {}", other.kind())),
    };
    let fields = Fields::new(definition, &path);
    let is_external = match fields.get("external") {
        Some(Yaml::Map(_)) => true,
        _ => fields.bool("external")?,
    };
    if is_external {
        return Err(format!("{path} is external, which a build cannot use"));
    }
    Ok(Secret {
        id,
        source: fields.text("file")?.unwrap_or_default(),
        env: fields.text("environment")?.unwrap_or_default(),
    })
}

/// Makes sure that there are no keys that nobody knows.
pub(super) fn check_build(build: &Map, path: &str) -> Result<(), String> {
    Fields::new(build, path).only(&BUILD_KEYS)
}

/// Makes sure that a secret is one, whether or not it is used.
pub(super) fn check_secret(name: &str, definition: &Yaml) -> Result<(), String> {
    let path = format!("secrets.{name}");
    let Yaml::Map(definition) = definition else {
        return Err(format!("{path} must be a mapping, not {}", definition.kind()));
    };
    let fields = Fields::new(definition, &path);
    fields.only(&[
        "name",
        "environment",
        "file",
        "external",
        "labels",
        "driver",
        "driver_opts",
        "template_driver",
    ])?;
    for key in ["name", "environment", "file", "driver", "template_driver"] {
        fields.text(key)?;
    }
    Ok(())
}

/// Makes sure that a secret comes from somewhere, once all files are merged.
pub(super) fn check_secret_source(name: &str, definition: &Yaml) -> Result<(), String> {
    let is_filled = |key: &str| match definition {
        Yaml::Map(definition) => definition.get(key).is_some_and(|value| match value {
            Yaml::Null | Yaml::Bool(false) => false,
            Yaml::Text(text) => !text.is_empty(),
            _ => true,
        }),
        _ => false,
    };
    if ["file", "environment", "external", "driver"].into_iter().any(is_filled) {
        Ok(())
    } else {
        Err(format!("secrets.{name} must have a file or an environment"))
    }
}

fn ssh(fields: &Fields<'_>, path: &str) -> Result<Vec<Ssh>, String> {
    let mut agents = Vec::new();
    for (id, value) in fields.dictionary("ssh")? {
        if value.is_none() && id != "default" && matches!(fields.get("ssh"), Some(Yaml::List(_))) {
            return Err(format!("{path}.ssh: {id:?} has no key; write {id}=path"));
        }
        let paths = value.filter(|path| !path.is_empty()).into_iter().collect();
        agents.push(Ssh { id, paths });
    }
    sort_ssh(&mut agents);
    Ok(agents)
}

fn sort_ssh(agents: &mut [Ssh]) {
    agents.sort_by(|left, right| (&left.id, &left.paths).cmp(&(&right.id, &right.paths)));
}

fn shm_size(fields: &Fields<'_>, path: &str) -> Result<Option<String>, String> {
    let bytes = match fields.get("shm_size") {
        None => return Ok(None),
        Some(Yaml::Integer(bytes)) => i64::try_from(*bytes).unwrap_or(i64::MAX),
        Some(Yaml::Text(text)) => {
            parse_size(text).ok_or_else(|| format!("{path}.shm_size: {text:?} is no size; write one such as 64m"))?
        }
        Some(other) => {
            return Err(format!(
                "{path}.shm_size must be a number or a string, not {}",
                other.kind()
            ));
        }
    };
    Ok((bytes > 0).then(|| size_text(bytes)))
}

/// A size in the largest unit that says it in four digits; other sizes in bytes.
fn size_text(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    let digits = 4_usize.saturating_sub(format!("{}", size.trunc()).len());
    let short = format!("{size:.digits$}");
    let is_exact = short.parse() == Ok(size);
    let short = if short.contains('.') {
        short.trim_end_matches('0').trim_end_matches('.')
    } else {
        &short
    };
    if is_exact {
        format!("{short}{unit}")
    } else {
        bytes.to_string()
    }
}

fn ulimits(fields: &Fields<'_>, path: &str) -> Result<Vec<String>, String> {
    let map = match fields.get("ulimits") {
        None => return Ok(Vec::new()),
        Some(Yaml::Map(map)) => map,
        Some(other) => return Err(format!("{path}.ulimits must be a mapping, not {}", other.kind())),
    };
    let mut ulimits = Vec::new();
    for (name, limit) in map {
        let at = format!("{path}.ulimits.{name}");
        let number = |value: Option<&Yaml>| match value {
            Some(Yaml::Integer(number)) => Ok(number.to_string()),
            Some(Yaml::Text(text)) if text.parse::<i64>().is_ok() => Ok(text.clone()),
            Some(other) => Err(format!("{at} must be a whole number, not {}", other.kind())),
            None => Err(format!("{at} needs both soft and hard")),
        };
        let text = match limit {
            Yaml::Map(both) => {
                Fields::new(both, &at).only(&["soft", "hard"])?;
                format!("{name}={}:{}", number(both.get("soft"))?, number(both.get("hard"))?)
            }
            Yaml::Text(text) => return Err(format!("{at} must be a whole number, not {text:?}")),
            single => {
                let limit = number(Some(single))?;
                format!("{name}={limit}:{limit}")
            }
        };
        Ulimit::parse(&text).map_err(|problem| format!("{at}: {problem}"))?;
        ulimits.push(text);
    }
    Ok(ulimits)
}

/// Adds what only bake knows, and Compose has no keys for.
fn extend(target: &mut Target, extension: &Yaml, path: &str) -> Result<(), String> {
    let map = match extension {
        Yaml::Null => return Ok(()),
        Yaml::Map(map) => map,
        other => return Err(format!("{path} must be a mapping, not {}", other.kind())),
    };
    let fields = Fields::new(map, path);
    let words = |key: &str| words(map.get(key), &format!("{path}.{key}"));
    let entry = |error: EntryError| format!("{path}: {error}");
    add_distinct(&mut target.tags, words("tags")?);
    target.add_cache_from(&caches(&words("cache-from")?).map_err(entry)?);
    add_all(&mut target.cache_to, caches(&words("cache-to")?).map_err(entry)?);
    let secrets: Result<Vec<Secret>, EntryError> = words("secret")?.iter().map(|text| Secret::parse(text)).collect();
    target.add_secrets(&secrets.map_err(entry)?);
    let agents: Vec<Ssh> = words("ssh")?.iter().map(|text| Ssh::parse(text)).collect();
    target.add_ssh(&agents);
    sort_ssh(&mut target.ssh);
    add_distinct(&mut target.platforms, words("platforms")?);
    let outputs: Result<Vec<Output>, EntryError> = words("output")?.iter().map(|text| Output::parse(text)).collect();
    add_all(&mut target.outputs, outputs.map_err(entry)?);
    if fields.get("pull").is_some_and(|value| *value != Yaml::Null) {
        target.pull = Some(fields.bool("pull")?);
    }
    if fields.get("no-cache").is_some_and(|value| *value != Yaml::Null) {
        target.no_cache = Some(fields.bool("no-cache")?);
    }
    let mut filter = Some(std::mem::take(&mut target.no_cache_filter));
    add_distinct(&mut filter, words("no-cache-filter")?);
    target.no_cache_filter = filter.unwrap_or_default();
    if let Some(list @ Yaml::List(_)) = fields.get("contexts") {
        return Err(format!("{path}.contexts must be a mapping, not {}", list.kind()));
    }
    if fields.get("contexts").is_some_and(|value| *value != Yaml::Null) {
        for (name, context) in fields.dictionary("contexts")? {
            // What Compose itself says wins.
            target
                .contexts
                .entry(name)
                .or_insert_with(|| linked(&context.unwrap_or_default()));
        }
    }
    Ok(())
}

/// A list of scalars, or one text that is split at blanks.
fn words(value: Option<&Yaml>, path: &str) -> Result<Vec<String>, String> {
    match value {
        None | Some(Yaml::Null) => Ok(Vec::new()),
        Some(Yaml::List(items)) => items
            .iter()
            .map(|item| match item {
                Yaml::List(_) | Yaml::Map(_) => Err(format!("{path} must hold strings only, not {}", item.kind())),
                scalar => Ok(scalar.to_text().unwrap_or_default()),
            })
            .collect(),
        Some(Yaml::Map(_)) => Err(format!("{path} must be a string or a list of strings, not a mapping")),
        Some(scalar) => Ok(scalar
            .to_text()
            .unwrap_or_default()
            .split_whitespace()
            .map(String::from)
            .collect()),
    }
}

fn add_distinct(list: &mut Option<Vec<String>>, more: Vec<String>) {
    if more.is_empty() {
        return;
    }
    let list = list.get_or_insert_default();
    list.extend(more);
    let mut seen = std::collections::HashSet::new();
    list.retain(|text| seen.insert(text.clone()));
}

fn add_all<T: PartialEq>(list: &mut Option<Vec<T>>, more: Vec<T>) {
    if !more.is_empty() {
        let list = list.get_or_insert_default();
        list.extend(more);
        drop_repeats(list);
    }
}

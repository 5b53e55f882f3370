//! Values as attributes of targets and groups.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::blocks::Output as Decoded;
use crate::bake::entries::{Attestation, CacheEntry, EntryError, Output, Policy, Resources, Secret, Ssh};
use crate::bake::model::Target;
use crate::bake::value::{Members, ObjectType, Type, Value, convert, mismatch, to_json};

/// The attributes that mean something in a target; others are ignored.
pub(super) const TARGET_ATTRIBUTES: &[&str] = &[
    "description",
    "inherits",
    "annotations",
    "attest",
    "context",
    "contexts",
    "dockerfile",
    "dockerfile-inline",
    "args",
    "labels",
    "tags",
    "cache-from",
    "cache-to",
    "target",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "network",
    "no-cache-filter",
    "shm-size",
    "ulimits",
    "resources",
    "call",
    "entitlements",
    "extra-hosts",
    "policy",
];

/// The attributes that mean something in a group.
pub(super) const GROUP_ATTRIBUTES: &[&str] = &["description", "targets"];

/// Sets one attribute.
///
/// # Errors
/// Says why the value does not fit.
pub(super) fn set(output: &mut Decoded, name: &str, value: &Value) -> Result<(), String> {
    match output {
        Decoded::Target(target) => set_target(target, name, value),
        Decoded::Group(group) => {
            match name {
                "description" => group.description = text(value)?.ok_or_else(null)?,
                _ => group.targets = texts(value)?.unwrap_or_default(),
            }
            Ok(())
        }
    }
}

fn set_target(target: &mut Target, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "description" => target.description = text(value)?.ok_or_else(null)?,
        "inherits" => target.inherits = texts(value)?.unwrap_or_default(),
        "annotations" => target.annotations = texts(value)?.unwrap_or_default(),
        "attest" => target.attest = entries(value, |value| attestation(value).map(|entry| vec![entry]))?,
        "context" => target.context = text(value)?,
        "contexts" => {
            let contexts = map(value)?;
            if let Some((name, _)) = contexts.iter().find(|(_, context)| context.is_none()) {
                return Err(format!("context {name:?} must not be null"));
            }
            target.contexts = without_nulls(contexts);
        }
        "dockerfile" => target.dockerfile = text(value)?,
        "dockerfile-inline" => target.dockerfile_inline = text(value)?,
        "args" => (target.args, target.unset.args) = split_nulls(map(value)?),
        "labels" => (target.labels, target.unset.labels) = split_nulls(map(value)?),
        "tags" => target.tags = texts(value)?,
        "cache-from" => target.cache_from = entries(value, caches)?,
        "cache-to" => target.cache_to = Some(entries(value, caches)?),
        "target" => target.target = text(value)?,
        "secret" => target.secrets = entries(value, |value| secret(value).map(|entry| vec![entry]))?,
        "ssh" => target.ssh = entries(value, |value| ssh(value).map(|entry| vec![entry]))?,
        "platforms" => target.platforms = texts(value)?,
        "output" => target.outputs = Some(entries(value, |value| output(value).map(|entry| vec![entry]))?),
        "pull" => target.pull = boolean(value)?,
        "no-cache" => target.no_cache = boolean(value)?,
        "network" => target.network = text(value)?,
        "no-cache-filter" => target.no_cache_filter = texts(value)?.unwrap_or_default(),
        "shm-size" => target.shm_size = text(value)?,
        "ulimits" => target.ulimits = texts(value)?.unwrap_or_default(),
        "resources" => target.resources = Some(resources(value)?),
        "call" => target.call = text(value)?,
        "entitlements" => target.entitlements = texts(value)?.unwrap_or_default(),
        "extra-hosts" => (target.extra_hosts, target.unset.extra_hosts) = split_nulls(map(value)?),
        "policy" => target.policy = entries(value, |value| policy(value).map(|entry| vec![entry]))?,
        _ => {}
    }
    Ok(())
}

fn null() -> String {
    String::from("null is not allowed")
}

fn converted(value: &Value, wanted: &Type) -> Result<Value, String> {
    convert(value, wanted).map_err(|error| error.to_string())
}

fn text(value: &Value) -> Result<Option<String>, String> {
    Ok(converted(value, &Type::String)?.as_str().map(String::from))
}

fn boolean(value: &Value) -> Result<Option<bool>, String> {
    Ok(converted(value, &Type::Bool)?.as_bool())
}

fn texts(value: &Value) -> Result<Option<Vec<String>>, String> {
    let list = converted(value, &Type::list(Type::String))?;
    let Some(elements) = list.as_sequence() else {
        return Ok(None);
    };
    elements
        .iter()
        .enumerate()
        .map(|(index, element)| match element.as_str() {
            Some(text) => Ok(String::from(text)),
            None => Err(format!("element {index} must not be null")),
        })
        .collect::<Result<Vec<String>, String>>()
        .map(Some)
}

fn map(value: &Value) -> Result<BTreeMap<String, Option<String>>, String> {
    let members = converted(value, &Type::map(Type::String))?;
    let members = members.as_members().into_iter().flatten();
    Ok(members
        .map(|(key, value)| (key.to_string(), value.as_str().map(String::from)))
        .collect())
}

fn without_nulls(map: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// What has a value, and the names of what has none.
fn split_nulls(map: BTreeMap<String, Option<String>>) -> (BTreeMap<String, String>, Vec<String>) {
    let unset = map.iter().filter(|(_, value)| value.is_none());
    let unset = unset.map(|(name, _)| name.clone()).collect();
    (without_nulls(map), unset)
}

/// The entries of a list; empty strings and nulls are skipped, so that an entry can be made conditional.
fn entries<T>(value: &Value, read: fn(&Value) -> Result<Vec<T>, String>) -> Result<Vec<T>, String> {
    let elements = match value {
        Value::List(_, elements) | Value::Tuple(elements) => elements,
        Value::Null(_) => return Err(null()),
        other => return Err(mismatch(&other.type_of(), &Type::list(Type::map(Type::String)))),
    };
    let mut all = Vec::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        if element.is_null() || element.as_str() == Some("") {
            continue;
        }
        all.extend(read(element).map_err(|reason| format!("entry {index}: {reason}"))?);
    }
    Ok(all)
}

fn entry_error(error: EntryError) -> String {
    error.to_string()
}

/// The members of an object as texts.
fn attributes(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let map = map(value)?;
    match map.iter().find(|(_, value)| value.is_none()) {
        Some((key, _)) => Err(format!("{key:?} must not be null")),
        None => Ok(without_nulls(map)),
    }
}

fn shown(value: &Value) -> String {
    to_json(value).unwrap_or_default()
}

fn caches(value: &Value) -> Result<Vec<CacheEntry>, String> {
    if let Some(text) = value.as_str() {
        return CacheEntry::parse_all(text).map_err(entry_error);
    }
    let mut attributes = attributes(value)?;
    let kind = attributes.remove("type").unwrap_or_default();
    let entry = CacheEntry { kind, attributes }
        .checked(&shown(value))
        .map_err(entry_error)?;
    Ok(vec![entry])
}

fn output(value: &Value) -> Result<Output, String> {
    if let Some(text) = value.as_str() {
        return Output::parse(text).map_err(entry_error);
    }
    let mut attributes = attributes(value)?;
    let kind = attributes.remove("type").unwrap_or_default();
    let destination = attributes.remove("dest").unwrap_or_default();
    Output {
        kind,
        destination,
        attributes,
    }
    .checked(&shown(value))
    .map_err(entry_error)
}

fn attestation(value: &Value) -> Result<Attestation, String> {
    if let Some(text) = value.as_str() {
        return Attestation::parse(text).map_err(entry_error);
    }
    let mut attributes = attributes(value)?;
    let kind = attributes.remove("type").unwrap_or_default();
    let disabled = match attributes.remove("disabled") {
        Some(text) => crate::bake::entries::parse_bool(&text).ok_or_else(|| format!("{text:?} is no bool"))?,
        None => false,
    };
    Ok(Attestation {
        kind,
        disabled,
        attributes,
    })
}

fn optional_object(attributes: &[(&str, Type)]) -> Type {
    let names: BTreeSet<Rc<str>> = attributes.iter().map(|(name, _)| Rc::from(*name)).collect();
    let attributes = attributes
        .iter()
        .map(|(name, of)| (Rc::from(*name), of.clone()))
        .collect();
    Type::Object(Rc::new(ObjectType {
        attributes,
        optional: names,
    }))
}

fn member_text(members: &Members, name: &str) -> Option<String> {
    members.get(name).and_then(Value::as_str).map(String::from)
}

fn secret(value: &Value) -> Result<Secret, String> {
    if let Some(text) = value.as_str() {
        return Secret::parse(text).map_err(entry_error);
    }
    let wanted = optional_object(&[("id", Type::String), ("src", Type::String), ("env", Type::String)]);
    let object = converted(value, &wanted)?;
    let Some(members) = object.as_members() else {
        return Err(null());
    };
    let get = |name: &str| member_text(members, name).unwrap_or_default();
    Ok(Secret {
        id: get("id"),
        source: get("src"),
        env: get("env"),
    })
}

fn ssh(value: &Value) -> Result<Ssh, String> {
    if let Some(text) = value.as_str() {
        return Ok(Ssh::parse(text));
    }
    let wanted = optional_object(&[("id", Type::String), ("paths", Type::list(Type::String))]);
    let object = converted(value, &wanted)?;
    let Some(members) = object.as_members() else {
        return Err(null());
    };
    let paths = match members.get("paths") {
        Some(paths) => texts(paths)?.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(Ssh {
        id: member_text(members, "id").unwrap_or_default(),
        paths,
    })
}

fn resources(value: &Value) -> Result<Resources, String> {
    let wanted = optional_object(&[
        ("memory", Type::String),
        ("memory-swap", Type::String),
        ("cpu-shares", Type::Number),
        ("cpu-period", Type::Number),
        ("cpu-quota", Type::Number),
        ("cpuset-cpus", Type::String),
        ("cpuset-mems", Type::String),
        ("pids", Type::Number),
    ]);
    let object = converted(value, &wanted)?;
    let Some(members) = object.as_members() else {
        return Err(null());
    };
    let integer = |name: &str| match members.get(name).and_then(Value::as_number) {
        Some(number) => number
            .to_i64()
            .map(Some)
            .ok_or_else(|| format!("{name} must be a whole number")),
        None => Ok(None),
    };
    Ok(Resources {
        memory: member_text(members, "memory"),
        memory_swap: member_text(members, "memory-swap"),
        cpu_shares: integer("cpu-shares")?,
        cpu_period: integer("cpu-period")?,
        cpu_quota: integer("cpu-quota")?,
        cpuset_cpus: member_text(members, "cpuset-cpus"),
        cpuset_mems: member_text(members, "cpuset-mems"),
        pids: integer("pids")?,
    })
}

fn policy(value: &Value) -> Result<Policy, String> {
    if let Some(text) = value.as_str() {
        return Policy::parse(text).map_err(entry_error);
    }
    let Some(members) = value.as_members() else {
        return Err(mismatch(&value.type_of(), &Type::map(Type::String)));
    };
    let mut policy = Policy::default();
    for (name, member) in members {
        if member.is_null() || member.as_str() == Some("") {
            continue;
        }
        let member = text(member)?.unwrap_or_default();
        policy.set(name, &member).map_err(entry_error)?;
    }
    Ok(policy)
}

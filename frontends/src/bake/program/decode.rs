//! Values as attributes of targets and groups, and back again for references.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::blocks::Output as Decoded;
use crate::bake::entries::{Attestation, CacheEntry, EntryError, Output, Policy, Resources, Secret, Ssh};
use crate::bake::model::{Group, Target};
use crate::bake::value::{Members, Number, ObjectType, Type, Value, convert, mismatch, to_json};

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
        "args" => target.args = without_nulls(map(value)?),
        "labels" => target.labels = without_nulls(map(value)?),
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
        "resources" => target.resources = resources(value)?,
        "call" => target.call = text(value)?,
        "entitlements" => target.entitlements = texts(value)?.unwrap_or_default(),
        "extra-hosts" => target.extra_hosts = without_nulls(map(value)?),
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
    let Some(elements) = list.as_sequence() else { return Ok(None) };
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
    Ok(members.map(|(key, value)| (key.to_string(), value.as_str().map(String::from))).collect())
}

fn without_nulls(map: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
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
    let entry = CacheEntry { kind, attributes }.checked(&shown(value)).map_err(entry_error)?;
    Ok(vec![entry])
}

fn output(value: &Value) -> Result<Output, String> {
    if let Some(text) = value.as_str() {
        return Output::parse(text).map_err(entry_error);
    }
    let mut attributes = attributes(value)?;
    let kind = attributes.remove("type").unwrap_or_default();
    let destination = attributes.remove("dest").unwrap_or_default();
    Output { kind, destination, attributes }.checked(&shown(value)).map_err(entry_error)
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
    Ok(Attestation { kind, disabled, attributes })
}

fn optional_object(attributes: &[(&str, Type)]) -> Type {
    let names: BTreeSet<Rc<str>> = attributes.iter().map(|(name, _)| Rc::from(*name)).collect();
    let attributes = attributes.iter().map(|(name, of)| (Rc::from(*name), of.clone())).collect();
    Type::Object(Rc::new(ObjectType { attributes, optional: names }))
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
    let Some(members) = object.as_members() else { return Err(null()) };
    let get = |name: &str| member_text(members, name).unwrap_or_default();
    Ok(Secret { id: get("id"), source: get("src"), env: get("env") })
}

fn ssh(value: &Value) -> Result<Ssh, String> {
    if let Some(text) = value.as_str() {
        return Ok(Ssh::parse(text));
    }
    let wanted = optional_object(&[("id", Type::String), ("paths", Type::list(Type::String))]);
    let object = converted(value, &wanted)?;
    let Some(members) = object.as_members() else { return Err(null()) };
    let paths = match members.get("paths") {
        Some(paths) => texts(paths)?.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(Ssh { id: member_text(members, "id").unwrap_or_default(), paths })
}

fn resources(value: &Value) -> Result<Option<Resources>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let wanted = optional_object(&[
        ("memory", Type::String),
        ("memory-swap", Type::String),
        ("cpu-shares", Type::Number),
        ("cpu-period", Type::Number),
        ("cpu-quota", Type::Number),
        ("cpuset-cpus", Type::String),
        ("cpuset-mems", Type::String),
    ]);
    let object = converted(value, &wanted)?;
    let Some(members) = object.as_members() else { return Err(null()) };
    let integer = |name: &str| match members.get(name).and_then(Value::as_number) {
        Some(number) => number.to_i64().map(Some).ok_or_else(|| format!("{name} must be a whole number")),
        None => Ok(None),
    };
    Ok(Some(Resources {
        memory: member_text(members, "memory"),
        memory_swap: member_text(members, "memory-swap"),
        cpu_shares: integer("cpu-shares")?,
        cpu_period: integer("cpu-period")?,
        cpu_quota: integer("cpu-quota")?,
        cpuset_cpus: member_text(members, "cpuset-cpus"),
        cpuset_mems: member_text(members, "cpuset-mems"),
    }))
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

/// What a reference to a target or group sees.
pub(super) fn to_value(output: &Decoded) -> Value {
    match output {
        Decoded::Target(target) => target_value(target),
        Decoded::Group(group) => group_value(group),
    }
}

fn group_value(group: &Group) -> Value {
    object([
        ("name", Value::string(&group.name)),
        ("description", Value::string(&group.description)),
        ("targets", list_value(&group.targets)),
    ])
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::object(members.into_iter().map(|(name, value)| (Rc::from(name), value)).collect())
}

fn list_value(texts: &[String]) -> Value {
    Value::strings(texts.iter().map(String::as_str))
}

/// An empty list that was not set is null, like everything that was not set.
fn list_or_null(texts: &[String]) -> Value {
    if texts.is_empty() { Value::Null(Type::list(Type::String)) } else { list_value(texts) }
}

fn text_value(text: Option<&str>) -> Value {
    text.map_or(Value::Null(Type::String), Value::string)
}

fn bool_value(value: Option<bool>) -> Value {
    value.map_or(Value::Null(Type::Bool), Value::Bool)
}

fn string_map<'m>(members: impl IntoIterator<Item = (&'m str, &'m str)>) -> Value {
    let members: Members = members.into_iter().map(|(key, value)| (Rc::from(key), Value::string(value))).collect();
    Value::Map(Type::String, Rc::new(members))
}

fn map_or_null(map: &BTreeMap<String, String>) -> Value {
    if map.is_empty() {
        return Value::Null(Type::map(Type::String));
    }
    string_map(map.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn typed_map<'m>(kind: &'m str, more: &[(&'m str, &'m str)], attributes: &'m BTreeMap<String, String>) -> Value {
    let attributes = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    string_map(attributes.chain([("type", kind)]).chain(more.iter().copied()))
}

fn list_of(values: impl Iterator<Item = Value>, empty: Type) -> Value {
    let values: Vec<Value> = values.collect();
    let element = values.first().map_or(empty, Value::type_of);
    Value::list(element, values)
}

fn target_value(target: &Target) -> Value {
    let maps = || Type::map(Type::String);
    let caches = |entries: &[CacheEntry]| {
        list_of(entries.iter().map(|entry| typed_map(&entry.kind, &[], &entry.attributes)), maps())
    };
    let outputs = target.outputs.as_deref().unwrap_or_default().iter();
    let attest = target.attest.iter().map(|entry| {
        let disabled: &[(&str, &str)] = if entry.disabled { &[("disabled", "true")] } else { &[] };
        typed_map(&entry.kind, disabled, &entry.attributes)
    });
    let secrets = target.secrets.iter().map(|entry| {
        object([
            ("id", Value::string(&entry.id)),
            ("src", Value::string(&entry.source)),
            ("env", Value::string(&entry.env)),
        ])
    });
    let ssh = target
        .ssh
        .iter()
        .map(|entry| object([("id", Value::string(&entry.id)), ("paths", list_value(&entry.paths))]));
    object([
        ("name", Value::string(&target.name)),
        ("description", Value::string(&target.description)),
        ("inherits", list_or_null(&target.inherits)),
        ("annotations", list_or_null(&target.annotations)),
        ("attest", list_of(attest, maps())),
        ("context", text_value(target.context.as_deref())),
        ("contexts", map_or_null(&target.contexts)),
        ("dockerfile", text_value(target.dockerfile.as_deref())),
        ("dockerfile-inline", text_value(target.dockerfile_inline.as_deref())),
        ("args", map_or_null(&target.args)),
        ("labels", map_or_null(&target.labels)),
        ("tags", target.tags.as_deref().map_or(Value::Null(Type::list(Type::String)), list_value)),
        ("cache-from", caches(&target.cache_from)),
        ("cache-to", caches(target.cache_to.as_deref().unwrap_or_default())),
        ("target", text_value(target.target.as_deref())),
        ("secret", list_of(secrets, Type::Dynamic)),
        ("ssh", list_of(ssh, Type::Dynamic)),
        ("platforms", target.platforms.as_deref().map_or(Value::Null(Type::list(Type::String)), list_value)),
        ("output", list_of(outputs.map(|entry| typed_map(&entry.kind, &[("dest", &entry.destination)], &entry.attributes)), maps())),
        ("pull", bool_value(target.pull)),
        ("no-cache", bool_value(target.no_cache)),
        ("network", text_value(target.network.as_deref())),
        ("no-cache-filter", list_or_null(&target.no_cache_filter)),
        ("shm-size", text_value(target.shm_size.as_deref())),
        ("ulimits", list_or_null(&target.ulimits)),
        ("resources", target.resources.as_ref().map_or_else(Value::null, resources_value)),
        ("call", text_value(target.call.as_deref())),
        ("entitlements", list_or_null(&target.entitlements)),
        ("extra-hosts", map_or_null(&target.extra_hosts)),
        ("policy", list_of(target.policy.iter().map(policy_value), maps())),
    ])
}

fn resources_value(resources: &Resources) -> Value {
    let number = |value: Option<i64>| value.map_or(Value::Null(Type::Number), |value| Value::number(Number::from_i64(value)));
    object([
        ("memory", text_value(resources.memory.as_deref())),
        ("memory-swap", text_value(resources.memory_swap.as_deref())),
        ("cpu-shares", number(resources.cpu_shares)),
        ("cpu-period", number(resources.cpu_period)),
        ("cpu-quota", number(resources.cpu_quota)),
        ("cpuset-cpus", text_value(resources.cpuset_cpus.as_deref())),
        ("cpuset-mems", text_value(resources.cpuset_mems.as_deref())),
    ])
}

fn policy_value(policy: &Policy) -> Value {
    let mut members: Vec<(&str, String)> = Vec::new();
    members.extend(policy.files.first().map(|file| ("filename", file.clone())));
    members.extend(policy.reset.then(|| ("reset", String::from("true"))));
    members.extend(policy.disabled.then(|| ("disabled", String::from("true"))));
    members.extend(policy.strict.map(|strict| ("strict", strict.to_string())));
    members.extend(policy.log_level.clone().map(|level| ("log-level", level)));
    string_map(members.iter().map(|(key, value)| (*key, value.as_str())))
}

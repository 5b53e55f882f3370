//! Targets and groups as values, for references such as `target.app.tags`.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::blocks::Output as Decoded;
use crate::bake::entries::{CacheEntry, Policy, Resources};
use crate::bake::model::{Group, Target};
use crate::bake::value::{Members, Number, Type, Value};

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
    Value::object(
        members
            .into_iter()
            .map(|(name, value)| (Rc::from(name), value))
            .collect(),
    )
}

fn list_value(texts: &[String]) -> Value {
    Value::strings(texts.iter().map(String::as_str))
}

/// An empty list that was not set is null, like everything that was not set.
fn list_or_null(texts: &[String]) -> Value {
    if texts.is_empty() {
        Value::Null(Type::list(Type::String))
    } else {
        list_value(texts)
    }
}

fn text_value(text: Option<&str>) -> Value {
    text.map_or(Value::Null(Type::String), Value::string)
}

fn bool_value(value: Option<bool>) -> Value {
    value.map_or(Value::Null(Type::Bool), Value::Bool)
}

fn string_map<'m>(members: impl IntoIterator<Item = (&'m str, &'m str)>) -> Value {
    let members: Members = members
        .into_iter()
        .map(|(key, value)| (Rc::from(key), Value::string(value)))
        .collect();
    Value::Map(Type::String, Rc::new(members))
}

fn map_or_null(map: &BTreeMap<String, String>, unset: &[String]) -> Value {
    if map.is_empty() && unset.is_empty() {
        return Value::Null(Type::map(Type::String));
    }
    let set = map
        .iter()
        .map(|(key, value)| (Rc::from(key.as_str()), Value::string(value)));
    let unset = unset
        .iter()
        .map(|key| (Rc::from(key.as_str()), Value::Null(Type::String)));
    Value::Map(Type::String, Rc::new(set.chain(unset).collect()))
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
        list_of(
            entries
                .iter()
                .map(|entry| typed_map(&entry.kind, &[], &entry.attributes)),
            maps(),
        )
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
        ("contexts", map_or_null(&target.contexts, &[])),
        ("dockerfile", text_value(target.dockerfile.as_deref())),
        ("dockerfile-inline", text_value(target.dockerfile_inline.as_deref())),
        ("args", map_or_null(&target.args, &target.unset.args)),
        ("labels", map_or_null(&target.labels, &target.unset.labels)),
        (
            "tags",
            target
                .tags
                .as_deref()
                .map_or(Value::Null(Type::list(Type::String)), list_value),
        ),
        ("cache-from", caches(&target.cache_from)),
        ("cache-to", caches(target.cache_to.as_deref().unwrap_or_default())),
        ("target", text_value(target.target.as_deref())),
        ("secret", list_of(secrets, Type::Dynamic)),
        ("ssh", list_of(ssh, Type::Dynamic)),
        (
            "platforms",
            target
                .platforms
                .as_deref()
                .map_or(Value::Null(Type::list(Type::String)), list_value),
        ),
        (
            "output",
            list_of(
                outputs.map(|entry| typed_map(&entry.kind, &[("dest", &entry.destination)], &entry.attributes)),
                maps(),
            ),
        ),
        ("pull", bool_value(target.pull)),
        ("no-cache", bool_value(target.no_cache)),
        ("network", text_value(target.network.as_deref())),
        ("no-cache-filter", list_or_null(&target.no_cache_filter)),
        ("shm-size", text_value(target.shm_size.as_deref())),
        ("ulimits", list_or_null(&target.ulimits)),
        (
            "resources",
            target.resources.as_ref().map_or_else(Value::null, resources_value),
        ),
        ("call", text_value(target.call.as_deref())),
        ("entitlements", list_or_null(&target.entitlements)),
        (
            "extra-hosts",
            map_or_null(&target.extra_hosts, &target.unset.extra_hosts),
        ),
        ("policy", list_of(target.policy.iter().map(policy_value), maps())),
    ])
}

fn resources_value(resources: &Resources) -> Value {
    let number = |value: Option<i64>| {
        value.map_or(Value::Null(Type::Number), |value| {
            Value::number(Number::from_i64(value))
        })
    };
    object([
        ("memory", text_value(resources.memory.as_deref())),
        ("memory-swap", text_value(resources.memory_swap.as_deref())),
        ("cpu-shares", number(resources.cpu_shares)),
        ("cpu-period", number(resources.cpu_period)),
        ("cpu-quota", number(resources.cpu_quota)),
        ("cpuset-cpus", text_value(resources.cpuset_cpus.as_deref())),
        ("cpuset-mems", text_value(resources.cpuset_mems.as_deref())),
        ("pids", number(resources.pids)),
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

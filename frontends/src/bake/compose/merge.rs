//! Laying one Compose document over another, and bringing what can be written in several ways into one form.

use std::collections::HashMap;

use super::yaml::{Map, Path, Yaml};

/// Lays a document over an earlier one: mappings by key, lists one behind the other, everything else replaced.
///
/// # Errors
/// The path at which the two do not fit together.
pub(super) fn merge(earlier: &mut Map, later: Map) -> Result<(), String> {
    merge_maps(earlier, later, &mut Vec::new())
}

/// Lays a service over the one it extends.
pub(super) fn extend_service(base: &mut Map, service: Map) -> Result<(), String> {
    merge_maps(base, service, &mut vec![String::from("services"), String::from("x")])
}

/// Lays a resource such as a service over an imported one of the same name.
pub(super) fn merge_resource(imported: Yaml, own: Yaml, kind: &str, name: &str) -> Result<Yaml, String> {
    merge_values(imported, own, &mut vec![String::from(kind), String::from(name)])
}

/// Drops what the places say.
pub(super) fn forget(map: &mut Map, places: &[Path]) {
    for place in places {
        if let Some((last, parents)) = place.split_last() {
            let mut at = Some(&mut *map);
            for key in parents {
                at = match at.and_then(|map| map.get_mut(key)) {
                    Some(Yaml::Map(below)) => Some(below),
                    _ => None,
                };
            }
            if let Some(map) = at {
                map.remove(last);
            }
        }
    }
}

/// The part of a path behind the name of a service.
fn in_service(path: &[String]) -> Option<Vec<&str>> {
    match path {
        [kind, _, rest @ ..] if kind == "services" => Some(rest.iter().map(String::as_str).collect()),
        _ => None,
    }
}

fn merge_values(earlier: Yaml, later: Yaml, path: &mut Path) -> Result<Yaml, String> {
    match in_service(path).as_deref() {
        Some(["build"]) => {
            let mut base = build_map(earlier);
            merge_maps(&mut base, build_map(later), path)?;
            return Ok(Yaml::Map(base));
        }
        Some(["build", "args" | "additional_contexts" | "labels"] | ["env_file" | "environment" | "labels"]) => {
            let mut items = to_sequence(earlier);
            items.extend(to_sequence(later));
            return Ok(Yaml::List(items));
        }
        Some(["build", "extra_hosts"]) => {
            let mut items = to_sequence(earlier);
            for item in to_sequence(later) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            return Ok(Yaml::List(items));
        }
        Some(["command" | "entrypoint"]) => return Ok(later),
        // Written as a list or as a mapping, and no part of a build: the later one will do.
        Some(
            [
                "depends_on" | "networks" | "models" | "logging" | "dns" | "dns_search" | "dns_opt" | "tmpfs"
                | "sysctls",
            ],
        )
        | Some(
            [
                "annotations" | "extra_hosts" | "label_file" | "ulimits" | "healthcheck" | "deploy",
                ..,
            ],
        ) => {
            return Ok(later);
        }
        _ => {}
    }
    match (earlier, later) {
        (earlier, Yaml::Null) => Ok(earlier),
        (Yaml::Map(mut earlier), Yaml::Map(later)) => {
            merge_maps(&mut earlier, later, path)?;
            Ok(Yaml::Map(earlier))
        }
        (Yaml::List(mut earlier), Yaml::List(later)) => {
            earlier.extend(later);
            Ok(Yaml::List(earlier))
        }
        (earlier @ (Yaml::Map(_) | Yaml::List(_)), later) => Err(format!(
            "{}: {} cannot replace {}",
            path.join("."),
            later.kind(),
            earlier.kind()
        )),
        (_, later) => Ok(later),
    }
}

fn merge_maps(earlier: &mut Map, later: Map, path: &mut Path) -> Result<(), String> {
    for (key, value) in later {
        let merged = match earlier.remove(&key) {
            None => value,
            Some(before) => {
                path.push(key.clone());
                let merged = merge_values(before, value, path)?;
                path.pop();
                merged
            }
        };
        earlier.insert(key, merged);
    }
    Ok(())
}

/// A build that is only a path has it as its context.
fn build_map(build: Yaml) -> Map {
    match build {
        Yaml::Map(map) => map,
        context @ Yaml::Text(_) => Map::from([(String::from("context"), context)]),
        _ => Map::new(),
    }
}

/// A mapping as `key=value` texts; a text alone as one element.
fn to_sequence(value: Yaml) -> Vec<Yaml> {
    match value {
        Yaml::List(items) => items,
        text @ Yaml::Text(_) => vec![text],
        Yaml::Map(map) => {
            let mut texts: Vec<String> = Vec::new();
            for (key, value) in map {
                match value {
                    Yaml::Null => texts.push(key),
                    Yaml::List(items) => {
                        texts.extend(
                            items
                                .iter()
                                .map(|item| format!("{key}={}", item.to_text().unwrap_or_default())),
                        );
                    }
                    value => texts.push(format!("{key}={}", value.to_text().unwrap_or_default())),
                }
            }
            texts.sort();
            texts.into_iter().map(Yaml::Text).collect()
        }
        _ => Vec::new(),
    }
}

/// Brings all services into the one form that merging results in, and drops what later entries of lists replace.
///
/// # Errors
/// The path of what cannot be what it is.
pub(super) fn canonical(document: &mut Map) -> Result<(), String> {
    let Some(Yaml::Map(services)) = document.get_mut("services") else {
        return Ok(());
    };
    for (name, service) in services {
        let Yaml::Map(service) = service else { continue };
        if let Some(build) = service.get_mut("build") {
            match build {
                Yaml::Map(_) => {}
                Yaml::Text(_) => *build = Yaml::Map(build_map(std::mem::replace(build, Yaml::Null))),
                other => {
                    return Err(format!(
                        "services.{name}.build must be a mapping or a string, not {}",
                        other.kind()
                    ));
                }
            }
            if let Yaml::Map(build) = build {
                for key in ["args", "additional_contexts", "labels", "tags"] {
                    keep_last_of_key(build.get_mut(key));
                }
                if let Some(contexts) = build.get_mut("additional_contexts") {
                    let contexts_map = pairs(contexts)
                        .map_err(|problem| format!("services.{name}.build.additional_contexts: {problem}"))?;
                    *contexts = Yaml::Map(contexts_map);
                }
            }
        }
        keep_last_of_key(service.get_mut("environment"));
        if let Some(files) = service.get_mut("env_file") {
            let items = to_sequence(std::mem::replace(files, Yaml::Null))
                .into_iter()
                .map(|file| match file {
                    Yaml::Text(path) => Yaml::Map(Map::from([(String::from("path"), Yaml::Text(path))])),
                    other => other,
                });
            *files = Yaml::List(items.collect());
        }
    }
    Ok(())
}

/// `key=value` texts as a mapping.
fn pairs(value: &Yaml) -> Result<Map, String> {
    match value {
        Yaml::Map(map) => Ok(map.clone()),
        Yaml::List(items) => items
            .iter()
            .map(|item| match item.as_text().and_then(|text| text.split_once('=')) {
                Some((key, value)) => Ok((String::from(key), Yaml::Text(String::from(value)))),
                None => Err(format!(
                    "{:?} must have the form name=context",
                    item.to_text().unwrap_or_default()
                )),
            })
            .collect(),
        other => Err(format!("it must be a mapping or a list, not {}", other.kind())),
    }
}

/// Of several `key=value` texts with one key the last one is left, in the place of the first.
fn keep_last_of_key(list: Option<&mut Yaml>) {
    let Some(Yaml::List(items)) = list else { return };
    let mut kept: Vec<Yaml> = Vec::with_capacity(items.len());
    let mut positions: HashMap<String, usize> = HashMap::new();
    for item in items.drain(..) {
        let key = item
            .as_text()
            .map(|text| String::from(text.split_once('=').map_or(text, |(key, _)| key)));
        match key.as_ref().and_then(|key| positions.get(key)) {
            Some(&at) => kept[at] = item,
            None => {
                if let Some(key) = key {
                    positions.insert(key, kept.len());
                }
                kept.push(item);
            }
        }
    }
    *items = kept;
}

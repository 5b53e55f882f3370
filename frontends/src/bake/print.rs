//! `--print`: the resolved groups and targets as JSON, in the form that a bake file in JSON has.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::entries::{Attestation, CacheEntry, Output, Policy, Resources, Secret, Ssh};
use super::model::{Group, Target};

/// The document, without a line break at its end.
pub(crate) fn print(groups: &BTreeMap<String, Group>, targets: &BTreeMap<String, Target>) -> String {
    let mut document = Map::new();
    if !groups.is_empty() {
        let groups = groups
            .iter()
            .map(|(name, group)| (name.clone(), Json::Object(group_json(group))));
        document.insert(String::from("group"), Json::Object(groups.collect()));
    }
    let targets = targets
        .iter()
        .map(|(name, target)| (name.clone(), Json::Object(target_json(target))));
    document.insert(String::from("target"), Json::Object(targets.collect()));
    format!("{:#}", Json::Object(document))
}

/// What is printed can be read again, so text that looks like a template is escaped where templates are read.
fn escape(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

/// Adds what is not empty.
struct Writer(Map<String, Json>);

impl Writer {
    fn text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.0.insert(String::from(key), Json::from(text));
        }
    }

    fn filled(&mut self, key: &str, text: &str) {
        self.text(key, Some(text).filter(|text| !text.is_empty()));
    }

    fn flag(&mut self, key: &str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.0.insert(String::from(key), Json::from(flag));
        }
    }

    fn texts<'t>(&mut self, key: &str, texts: impl IntoIterator<Item = &'t String>) {
        self.list(key, texts.into_iter().map(|text| Json::from(text.as_str())));
    }

    fn list(&mut self, key: &str, items: impl IntoIterator<Item = Json>) {
        let items: Vec<Json> = items.into_iter().collect();
        if !items.is_empty() {
            self.0.insert(String::from(key), Json::Array(items));
        }
    }

    fn map(&mut self, key: &str, entries: &BTreeMap<String, String>, change: fn(&str) -> String) {
        if !entries.is_empty() {
            let entries = entries
                .iter()
                .map(|(name, text)| (name.clone(), Json::from(change(text))));
            self.0.insert(String::from(key), Json::Object(entries.collect()));
        }
    }
}

fn group_json(group: &Group) -> Map<String, Json> {
    let mut writer = Writer(Map::new());
    writer.filled("description", &group.description);
    // The one list that is printed when there is nothing in it: as `null`, since the group is there.
    let targets = match group.targets.as_slice() {
        [] => Json::Null,
        targets => targets.iter().map(String::as_str).collect(),
    };
    writer.0.insert(String::from("targets"), targets);
    writer.0
}

pub(crate) fn target_json(target: &Target) -> Map<String, Json> {
    let mut writer = Writer(Map::new());
    writer.filled("description", &target.description);
    writer.list(
        "annotations",
        target.annotations.iter().map(|text| Json::from(escape(text))),
    );
    writer.list("attest", target.attest.iter().map(attestation_json));
    writer.text("context", target.context.as_deref());
    writer.map("contexts", &target.contexts, |text| String::from(text));
    writer.text("dockerfile", target.dockerfile.as_deref());
    writer.text(
        "dockerfile-inline",
        target.dockerfile_inline.as_deref().map(escape).as_deref(),
    );
    writer.map("args", &target.args, escape);
    writer.map("labels", &target.labels, escape);
    writer.texts("tags", target.tags.iter().flatten());
    writer.list("cache-from", target.cache_from.iter().map(cache_json));
    writer.list("cache-to", target.cache_to.iter().flatten().map(cache_json));
    writer.text("target", target.target.as_deref());
    writer.list("secret", target.secrets.iter().map(secret_json));
    writer.list("ssh", target.ssh.iter().map(ssh_json));
    writer.texts("platforms", target.platforms.iter().flatten());
    writer.list("output", target.outputs.iter().flatten().map(output_json));
    writer.flag("pull", target.pull);
    writer.flag("no-cache", target.no_cache);
    writer.text("network", target.network.as_deref());
    writer.texts("no-cache-filter", &target.no_cache_filter);
    writer.text("shm-size", target.shm_size.as_deref());
    writer.texts("ulimits", &target.ulimits);
    if let Some(resources) = &target.resources {
        let resources = resources_json(resources);
        if !resources.is_empty() {
            writer.0.insert(String::from("resources"), Json::Object(resources));
        }
    }
    writer.text("call", target.call.as_deref());
    writer.texts("entitlements", &target.entitlements);
    writer.map("extra-hosts", &target.extra_hosts, escape);
    writer.list("policy", target.policy.iter().map(policy_json));
    writer.0
}

/// Attributes and what has a field of its own, in the order of their names.
fn attributes_json<'t>(
    attributes: &'t BTreeMap<String, String>,
    own: impl IntoIterator<Item = (&'t str, &'t str)>,
) -> Json {
    let mut all: BTreeMap<&str, &str> = attributes
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    all.extend(own.into_iter().filter(|(_, text)| !text.is_empty()));
    Json::Object(
        all.into_iter()
            .map(|(key, text)| (String::from(key), Json::from(text)))
            .collect(),
    )
}

fn attestation_json(attestation: &Attestation) -> Json {
    let mut json = attributes_json(&attestation.attributes, []);
    if let Json::Object(fields) = &mut json {
        fields.insert(String::from("type"), Json::from(attestation.kind.as_str()));
        if attestation.disabled {
            fields.insert(String::from("disabled"), Json::Bool(true));
        }
    }
    json
}

fn cache_json(cache: &CacheEntry) -> Json {
    attributes_json(&cache.attributes, [("type", cache.kind.as_str())])
}

fn output_json(output: &Output) -> Json {
    attributes_json(
        &output.attributes,
        [("type", output.kind.as_str()), ("dest", output.destination.as_str())],
    )
}

fn secret_json(secret: &Secret) -> Json {
    let mut writer = Writer(Map::new());
    writer.filled("id", &secret.id);
    writer.filled("src", &secret.source);
    writer.filled("env", &secret.env);
    Json::Object(writer.0)
}

fn ssh_json(ssh: &Ssh) -> Json {
    let mut writer = Writer(Map::new());
    writer.filled("id", &ssh.id);
    writer.texts("paths", &ssh.paths);
    Json::Object(writer.0)
}

fn resources_json(resources: &Resources) -> Map<String, Json> {
    let mut writer = Writer(Map::new());
    writer.text("memory", resources.memory.as_deref());
    writer.text("memory-swap", resources.memory_swap.as_deref());
    for (key, number) in [
        ("cpu-shares", resources.cpu_shares),
        ("cpu-period", resources.cpu_period),
        ("cpu-quota", resources.cpu_quota),
        ("pids", resources.pids),
    ] {
        if let Some(number) = number {
            writer.0.insert(String::from(key), Json::from(number));
        }
    }
    writer.text("cpuset-cpus", resources.cpuset_cpus.as_deref());
    writer.text("cpuset-mems", resources.cpuset_mems.as_deref());
    writer.0
}

fn policy_json(policy: &Policy) -> Json {
    let mut writer = Writer(Map::new());
    writer.texts("filename", &policy.files);
    writer.flag("reset", policy.reset.then_some(true));
    writer.flag("disabled", policy.disabled.then_some(true));
    writer.flag("strict", policy.strict);
    writer.text("log-level", policy.log_level.as_deref());
    Json::Object(writer.0)
}

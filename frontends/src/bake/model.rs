//! What a bake definition comes to: targets and groups, and how one target is laid over another.

use std::collections::BTreeMap;

use super::entries::{Attestation, CacheEntry, Output, Policy, Resources, Secret, Ssh, drop_repeats, keep_last_by};

/// Several targets under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The name; empty for none.
    pub name: String,
    /// What the group is for; empty when nothing is said.
    pub description: String,
    /// Targets and groups, in the order of the file.
    pub targets: Vec<String>,
}

/// One thing to build.
///
/// `None` means that nothing was said, which differs from an empty list: only the latter clears what is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The name by which it is asked for.
    pub name: String,
    /// What the target is for; empty when nothing is said.
    pub description: String,
    /// The targets this one was built upon; empty once it is resolved.
    pub inherits: Vec<String>,
    /// `[type[platform]:]key=value` for manifests and indexes.
    pub annotations: Vec<String>,
    /// Provenance and SBOM.
    pub attest: Vec<Attestation>,
    /// The build context, as it was written.
    pub context: Option<String>,
    /// Further contexts by name; `target:x` is the result of another target.
    pub contexts: BTreeMap<String, String>,
    /// The Dockerfile within the context.
    pub dockerfile: Option<String>,
    /// The text of the Dockerfile, instead of a file.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Image labels.
    pub labels: BTreeMap<String, String>,
    /// Names of the resulting image.
    pub tags: Option<Vec<String>>,
    /// Where caches are imported from.
    pub cache_from: Vec<CacheEntry>,
    /// Where the cache is exported to.
    pub cache_to: Option<Vec<CacheEntry>>,
    /// The stage of the Dockerfile to build.
    pub target: Option<String>,
    /// Secrets offered to the build.
    pub secrets: Vec<Secret>,
    /// SSH agents and keys offered to the build.
    pub ssh: Vec<Ssh>,
    /// Platforms to build for.
    pub platforms: Option<Vec<String>>,
    /// What becomes of the result.
    pub outputs: Option<Vec<Output>>,
    /// Whether base images are looked up again.
    pub pull: Option<bool>,
    /// Whether the cache is ignored.
    pub no_cache: Option<bool>,
    /// The network mode of build steps.
    pub network: Option<String>,
    /// Stages whose cache is ignored.
    pub no_cache_filter: Vec<String>,
    /// The size of `/dev/shm`.
    pub shm_size: Option<String>,
    /// `type=soft[:hard]` limits.
    pub ulimits: Vec<String>,
    /// Memory and CPU limits.
    pub resources: Option<Resources>,
    /// What to do instead of building, such as `outline`.
    pub call: Option<String>,
    /// Privileges that the build asks for.
    pub entitlements: Vec<String>,
    /// Host names and their addresses.
    pub extra_hosts: BTreeMap<String, String>,
    /// Source policies.
    pub policy: Vec<Policy>,
    /// Set when the target is there only because another one uses its result.
    pub linked: bool,
    pub(crate) bases: Bases,
    pub(crate) unset: Unset,
}

/// Names that the block itself sets to null. Only references from expressions see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unset {
    pub(crate) args: Vec<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) extra_hosts: Vec<String>,
}

/// The folders that relative paths of a target start from, for definitions that are relative to their file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bases {
    /// The folder of the file the target is defined in.
    pub(crate) file: Option<String>,
    /// The folder for the context, if the context was set.
    pub(crate) context: Option<String>,
    /// The target whose context was taken over by reference.
    pub(crate) context_of: Option<String>,
    /// The folders for named contexts.
    pub(crate) contexts: BTreeMap<String, String>,
    /// Whether the default context is that of the file.
    pub(crate) use_file: bool,
}

impl Target {
    /// Lays another target over this one: scalars and most lists are replaced, maps merged by key, the rest appended.
    pub(crate) fn merge(&mut self, other: &Target) {
        if other.bases.file.is_some() {
            self.bases.file.clone_from(&other.bases.file);
            self.bases.use_file = other.bases.use_file;
        }
        if other.context.is_some() {
            self.context.clone_from(&other.context);
            self.bases.context.clone_from(&other.bases.context);
            self.bases.context_of.clone_from(&other.bases.context_of);
        }
        for (name, context) in &other.contexts {
            self.contexts.insert(name.clone(), context.clone());
            match other.bases.contexts.get(name) {
                Some(base) => self.bases.contexts.insert(name.clone(), base.clone()),
                None => self.bases.contexts.remove(name),
            };
        }
        fn replace<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if other.is_some() {
                own.clone_from(other);
            }
        }
        fn merge_maps(own: &mut BTreeMap<String, String>, other: &BTreeMap<String, String>) {
            own.extend(other.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        replace(&mut self.dockerfile, &other.dockerfile);
        replace(&mut self.dockerfile_inline, &other.dockerfile_inline);
        replace(&mut self.tags, &other.tags);
        replace(&mut self.target, &other.target);
        replace(&mut self.call, &other.call);
        replace(&mut self.platforms, &other.platforms);
        replace(&mut self.cache_to, &other.cache_to);
        replace(&mut self.outputs, &other.outputs);
        replace(&mut self.pull, &other.pull);
        replace(&mut self.no_cache, &other.no_cache);
        replace(&mut self.network, &other.network);
        replace(&mut self.shm_size, &other.shm_size);
        merge_maps(&mut self.args, &other.args);
        merge_maps(&mut self.labels, &other.labels);
        merge_maps(&mut self.extra_hosts, &other.extra_hosts);
        if let Some(resources) = &other.resources {
            self.resources.get_or_insert_default().merge(resources);
        }
        if !other.description.is_empty() {
            self.description.clone_from(&other.description);
        }
        self.annotations.extend_from_slice(&other.annotations);
        self.policy.extend_from_slice(&other.policy);
        self.no_cache_filter.extend_from_slice(&other.no_cache_filter);
        self.ulimits.extend_from_slice(&other.ulimits);
        self.entitlements.extend_from_slice(&other.entitlements);
        self.inherits.extend_from_slice(&other.inherits);
        self.add_attestations(&other.attest);
        self.add_secrets(&other.secrets);
        self.add_ssh(&other.ssh);
        self.add_cache_from(&other.cache_from);
    }

    pub(crate) fn add_attestations(&mut self, more: &[Attestation]) {
        self.attest.extend_from_slice(more);
        keep_last_by(&mut self.attest, |attestation| attestation.kind.clone());
    }

    pub(crate) fn add_secrets(&mut self, more: &[Secret]) {
        self.secrets.extend_from_slice(more);
        keep_last_by(&mut self.secrets, |secret| secret.id.clone());
    }

    pub(crate) fn add_ssh(&mut self, more: &[Ssh]) {
        self.ssh.extend_from_slice(more);
        keep_last_by(&mut self.ssh, |ssh| ssh.id.clone());
    }

    pub(crate) fn add_cache_from(&mut self, more: &[CacheEntry]) {
        if !more.is_empty() {
            self.cache_from.extend_from_slice(more);
            drop_repeats(&mut self.cache_from);
        }
    }

    /// Drops repeats and empty entries, and adds the entitlement that the host network needs.
    pub(crate) fn normalize(&mut self) {
        distinct(&mut self.annotations);
        keep_last_by(&mut self.attest, |attestation| attestation.kind.clone());
        keep_last_by(&mut self.secrets, |secret| secret.id.clone());
        keep_last_by(&mut self.ssh, |ssh| ssh.id.clone());
        for list in [&mut self.tags, &mut self.platforms].into_iter().flatten() {
            distinct(list);
        }
        drop_repeats(&mut self.cache_from);
        if let Some(entries) = &mut self.cache_to {
            drop_repeats(entries);
        }
        if let Some(outputs) = &mut self.outputs {
            drop_repeats(outputs);
        }
        distinct(&mut self.no_cache_filter);
        distinct(&mut self.ulimits);
        if self.network.as_deref() == Some("host") {
            self.entitlements.push(String::from("network.host"));
        }
        distinct(&mut self.entitlements);
        self.contexts.retain(|_, context| !context.is_empty());
    }
}

/// Keeps the first of equal texts and no empty ones.
fn distinct(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
}

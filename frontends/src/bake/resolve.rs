//! From everything that is defined to what is asked for: groups opened up, inheritance and overrides applied, and
//! the targets added that others take their contexts from.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::entitlements::Grants;
use super::entries::Output;
use super::error::BakeError;
use super::hcl::traversal::hint;
use super::model::{Group, Target};
use super::overrides::{Overrides, apply};
use super::paths::glob_match;
use super::program::Config;
use super::rebase::rebase;

/// Longer chains of inheritance or links are refused.
const MAX_CHAIN: u32 = 10_000;

/// The result of resolving.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) targets: BTreeMap<String, Target>,
    /// All targets, those whose results others use before those.
    pub(crate) order: Vec<String>,
    /// The names in the order, for looking up.
    ordered: HashSet<String>,
    /// Paths that are named in overrides, and therefore meant.
    pub(crate) grants: Grants,
}

/// As stipulated for Compose services, a dot in a name is an underscore.
pub(crate) fn sanitize_name(name: &str) -> String {
    name.replace('.', "_")
}

pub(crate) fn resolve(
    config: &Config,
    requested: &[String],
    settings: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Resolved, BakeError> {
    let resolver = Resolver {
        config,
        targets: first_positions(config.targets.iter().map(|target| target.name.as_str())),
        groups: first_positions(config.groups.iter().map(|group| group.name.as_str())),
        overrides: Overrides::new(&config.targets, settings, lookup)?,
        known: RefCell::default(),
        cuts: Cell::new(0),
        depth: Cell::new(0),
        grants: RefCell::default(),
    };
    let mut names: Vec<String> = Vec::new();
    for name in requested {
        resolver.match_names(&sanitize_name(name), &mut names)?;
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut resolved = Resolved::default();
    for name in &names {
        let (targets, groups) = resolver.open_group(name);
        for target in targets {
            if !resolved.targets.contains_key(&target) {
                let requested_by = (target != *name).then_some(name.as_str());
                resolved
                    .targets
                    .insert(target.clone(), resolver.resolve_target(&target, requested_by)?);
            }
        }
        for group in groups {
            if let Some(&at) = resolver.groups.get(group.as_str()) {
                resolved
                    .groups
                    .entry(group)
                    .or_insert_with(|| config.groups[at].clone());
            }
        }
    }
    for name in &names {
        if name == "default" && resolved.groups.contains_key("default") {
            continue;
        }
        let default = resolved.groups.entry(String::from("default")).or_default();
        default.targets.push(name.clone());
    }
    if let Some(default) = resolved.groups.get_mut("default") {
        default.targets.sort();
        default.targets.dedup();
    }
    let requested: Vec<String> = resolved.targets.keys().cloned().collect();
    for name in requested {
        resolver.load_links(&name, &mut resolved, &mut Vec::new())?;
    }
    resolved.grants = resolver.grants.into_inner();
    Ok(resolved)
}

fn first_positions<'n>(names: impl Iterator<Item = &'n str>) -> HashMap<&'n str, usize> {
    let mut positions = HashMap::new();
    for (at, name) in names.enumerate() {
        positions.entry(name).or_insert(at);
    }
    positions
}

struct Resolver<'c> {
    config: &'c Config,
    targets: HashMap<&'c str, usize>,
    groups: HashMap<&'c str, usize>,
    overrides: Overrides,
    /// Targets whose inheritance is worked out, unless a cycle was cut on the way.
    known: RefCell<HashMap<usize, Rc<Target>>>,
    cuts: Cell<u64>,
    depth: Cell<u32>,
    grants: RefCell<Grants>,
}

impl Resolver<'_> {
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.targets.keys().chain(self.groups.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn match_names(&self, pattern: &str, names: &mut Vec<String>) -> Result<(), BakeError> {
        if !pattern.contains(['*', '?', '[', ']']) {
            names.push(String::from(pattern));
            return Ok(());
        }
        let before = names.len();
        let groups = self.config.groups.iter().map(|group| &group.name);
        let targets = self.config.targets.iter().map(|target| &target.name);
        names.extend(
            groups
                .chain(targets)
                .filter(|name| glob_match(pattern, name) == Some(true))
                .cloned(),
        );
        if names.len() == before {
            return Err(BakeError::NoMatch {
                pattern: String::from(pattern),
                hint: hint(pattern, self.names().into_iter()),
            });
        }
        Ok(())
    }

    /// The targets and the groups that a name stands for, without repeats.
    fn open_group(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let mut visited = HashMap::new();
        let opened = self.group(name, &mut visited);
        let distinct = |names: &[String]| {
            let mut seen = HashSet::new();
            names
                .iter()
                .filter(|name| seen.insert(name.as_str()))
                .cloned()
                .collect()
        };
        (distinct(&opened.0), distinct(&opened.1))
    }

    fn group(&self, name: &str, visited: &mut HashMap<String, Rc<Opened>>) -> Rc<Opened> {
        if let Some(opened) = visited.get(name) {
            return opened.clone();
        }
        let Some(&at) = self.groups.get(name) else {
            return Rc::new((vec![String::from(name)], Vec::new()));
        };
        if self.depth.get() >= MAX_CHAIN {
            return Rc::default();
        }
        // A group that is met again while it is open gives nothing, and its name then means a target.
        visited.insert(String::from(name), Rc::default());
        self.depth.set(self.depth.get() + 1);
        let mut targets = Vec::new();
        let mut groups = vec![String::from(name)];
        let (mut seen_targets, mut seen_groups) = (HashSet::new(), HashSet::from([String::from(name)]));
        for member in &self.config.groups[at].targets {
            let opened = self.group(member, visited);
            if opened.0.is_empty() {
                targets.extend(seen_targets.insert(member.clone()).then(|| member.clone()));
            } else {
                targets.extend(
                    opened
                        .0
                        .iter()
                        .filter(|target| seen_targets.insert((*target).clone()))
                        .cloned(),
                );
            }
            groups.extend(
                opened
                    .1
                    .iter()
                    .filter(|group| seen_groups.insert((*group).clone()))
                    .cloned(),
            );
        }
        self.depth.set(self.depth.get() - 1);
        let opened = Rc::new((targets, groups));
        visited.insert(String::from(name), opened.clone());
        opened
    }

    fn resolve_target(&self, name: &str, needed_by: Option<&str>) -> Result<Target, BakeError> {
        let resolved = self.target(name, needed_by, &mut HashMap::new())?;
        let mut target = resolved.map_or_else(Target::default, |target| (*target).clone());
        target.inherits = Vec::new();
        if target.context.is_none() {
            let base = target.bases.file.as_deref().filter(|_| target.bases.use_file);
            target.context = Some(base.map_or_else(|| String::from("."), |base| rebase(base, ".")));
        }
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some(String::from("Dockerfile"));
        }
        Ok(target)
    }

    /// A target with everything it inherits and its overrides; `None` where a cycle comes back to one being made.
    fn target(
        &self,
        name: &str,
        needed_by: Option<&str>,
        visited: &mut HashMap<usize, Option<Rc<Target>>>,
    ) -> Result<Option<Rc<Target>>, BakeError> {
        let Some(&at) = self.targets.get(name) else {
            let near = if self.groups.contains_key(name) {
                String::from("; it is a group that contains itself, directly or through others")
            } else {
                hint(name, self.names().into_iter())
            };
            let by = needed_by.map_or_else(String::new, |by| format!(", which {by:?} names"));
            return Err(BakeError::UnknownTarget {
                name: String::from(name),
                needed_by: needed_by.map(String::from),
                hint: format!("{by}{near}"),
            });
        };
        match visited.get(&at) {
            Some(Some(target)) => return Ok(Some(target.clone())),
            Some(None) => {
                self.cuts.set(self.cuts.get() + 1);
                return Ok(None);
            }
            None => {}
        }
        if let Some(target) = self.known.borrow().get(&at) {
            return Ok(Some(target.clone()));
        }
        if self.depth.get() >= MAX_CHAIN {
            let reason = format!("the chain of inheritance is longer than {MAX_CHAIN}");
            return Err(BakeError::Target {
                target: String::from(name),
                attribute: "inherits",
                reason,
            });
        }
        let cuts = self.cuts.get();
        visited.insert(at, None);
        self.depth.set(self.depth.get() + 1);
        let own = &self.config.targets[at];
        let mut merged = Target::default();
        for parent in &own.inherits {
            if let Some(parent) = self.target(parent, Some(name), visited)? {
                merged.merge(&parent);
            }
        }
        self.depth.set(self.depth.get() - 1);
        merged.merge(own);
        merged.name = String::from(name);
        apply(&mut merged, self.overrides.of(name), &mut self.grants.borrow_mut())?;
        merged.normalize();
        let merged = Rc::new(merged);
        visited.insert(at, Some(merged.clone()));
        if self.cuts.get() == cuts {
            self.known.borrow_mut().insert(at, merged.clone());
        }
        Ok(Some(merged))
    }

    /// Adds the targets whose results are contexts of this one, and puts all of them into the order of building.
    fn load_links(&self, name: &str, resolved: &mut Resolved, path: &mut Vec<String>) -> Result<(), BakeError> {
        if resolved.ordered.contains(name) {
            return Ok(());
        }
        let fail = |reason: String| BakeError::Target {
            target: String::from(name),
            attribute: "contexts",
            reason,
        };
        if path.len() >= MAX_CHAIN as usize {
            return Err(fail(format!("the chain of linked targets is longer than {MAX_CHAIN}")));
        }
        path.push(String::from(name));
        let contexts: Vec<String> = resolved.targets.get(name).map_or_else(Vec::new, |target| {
            target
                .contexts
                .values()
                .filter_map(|context| context.strip_prefix("target:"))
                .map(String::from)
                .collect()
        });
        for linked in contexts {
            if linked == name {
                return Err(fail(String::from("a target cannot link to itself")));
            }
            if path.contains(&linked) {
                return Err(fail(format!(
                    "infinite loop of links: {} -> {linked}",
                    path.join(" -> ")
                )));
            }
            if !resolved.targets.contains_key(&linked) {
                let mut target = self.resolve_target(&linked, Some(name))?;
                target.outputs = Some(vec![Output {
                    kind: String::from("cacheonly"),
                    ..Output::default()
                }]);
                target.linked = true;
                resolved.targets.insert(linked.clone(), target);
            }
            self.load_links(&linked, resolved, path)?;
            let Some(other) = resolved.targets.get(&linked) else {
                continue;
            };
            let (entitlements, platforms) = (other.entitlements.clone(), other.platforms.clone().unwrap_or_default());
            let Some(target) = resolved.targets.get_mut(name) else {
                continue;
            };
            for entitlement in entitlements {
                if !target.entitlements.contains(&entitlement) {
                    target.entitlements.push(entitlement);
                }
            }
            let own = target.platforms.as_deref().unwrap_or_default();
            if own.len() > 1 && platforms.len() > 1 && !own.iter().all(|platform| platforms.contains(platform)) {
                return Err(fail(format!(
                    "target {linked:?} cannot be used, because the platforms {own:?} are not among {platforms:?}"
                )));
            }
        }
        path.pop();
        resolved.ordered.insert(String::from(name));
        resolved.order.push(String::from(name));
        Ok(())
    }
}

/// Targets and groups that a group comes to.
type Opened = (Vec<String>, Vec<String>);

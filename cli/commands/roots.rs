//! `cbs roots`, `pin` and `unpin`: what keeps things in the store.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use cbs_image::reference::Reference;
use cbs_store::{Access, GcRoot, Store};
use clap::Args;
use serde_json::{Value, json};

use super::{open_store, print};
use crate::args::Global;
use crate::record::{Record, find_root};
use crate::roots::{RootKind, pin_root, tag_root};

/// `cbs roots`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RootsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Only those of a kind
    #[arg(long, value_parser = ["result", "earlier", "tag", "pin"], value_name = "KIND")]
    kind: Option<String>,
    /// Print names only
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

/// `cbs pin`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PinArgs {
    /// What was realised: its name, a unique end of it, or one of its tags
    #[arg(value_name = "REF")]
    reference: String,
    /// What the pin is called [default: the end of the name and of the tree's digest]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// `cbs unpin`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct UnpinArgs {
    /// Names of pins, or tags
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// `cbs roots`.
pub(crate) fn list(global: &Global, args: &RootsArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadOnly)?;
    let mut roots = store.gc_roots()?;
    if let Some(kind) = &args.kind {
        roots.retain(|root| RootKind::of(&root.name).name() == kind);
    }
    let text = if args.json {
        format!("{}\n", Value::from(roots.iter().map(as_json).collect::<Vec<_>>()))
    } else if args.quiet {
        roots.iter().map(|root| format!("{}\n", root.name)).collect()
    } else {
        as_text(&roots)
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(roots: &[GcRoot]) -> String {
    let mut text = format!("{:<8} {:<14} {:<12} NAME\n", "KIND", "CREATED", "TREE");
    for root in roots {
        let tree = root.snapshots.first().map(|snapshot| snapshot.tree.to_string());
        text.push_str(&format!(
            "{:<8} {:<14} {:<12} {}\n",
            RootKind::of(&root.name).name(),
            ago(root.created),
            tree.as_deref().map_or("-", |tree| &tree[..12]),
            root.name,
        ));
    }
    text
}

fn as_json(root: &GcRoot) -> Value {
    let trees: Vec<String> = root
        .snapshots
        .iter()
        .map(|snapshot| snapshot.tree.to_string())
        .collect();
    let record = Record::of_root(root).ok();
    let platforms: Vec<String> = record
        .iter()
        .flat_map(|record| &record.platforms)
        .map(|platform| platform.platform.to_string())
        .collect();
    json!({
        "name": root.name, "kind": RootKind::of(&root.name).name(), "trees": trees, "created": root.created,
        "platforms": platforms, "tags": record.map(|record| record.names).unwrap_or_default(),
    })
}

/// How long a time in seconds since 1970 is gone, in the unit that fits.
pub(crate) fn ago(seconds: i64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let Ok(gone) = SystemTime::now().duration_since(then) else {
        return "now".to_owned();
    };
    let seconds = gone.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// `cbs pin`.
pub(crate) fn pin(global: &Global, args: &PinArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadWrite)?;
    let root = find_root(&store, &args.reference)?;
    let name = match &args.name {
        Some(name) => checked(name)?,
        None => default_name(&root),
    };
    let pinned = GcRoot {
        name: pin_root(&name),
        ..root.clone()
    };
    if let Some(other) = store.gc_root(&pinned.name)?
        && other.snapshots != root.snapshots
    {
        bail!("`{name}` is pinned to another result; choose another name, or `cbs unpin {name}` first");
    }
    store.set_root(&pinned)?;
    store.sync().context("cannot write the store")?;
    print(&format!("{name}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// A name that cannot be taken for something else.
fn checked(name: &str) -> anyhow::Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_plain) {
        bail!("`{name}` is no name for a pin: letters, digits, `-`, `_` and `.` make one");
    }
    Ok(name.to_owned())
}

/// `app-91bc2f03a4d1`.
fn default_name(root: &GcRoot) -> String {
    let end = root.name.rsplit(['/', '#', ':']).next().unwrap_or_default();
    let mut name: String = end
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    if let Some(snapshot) = root.snapshots.first() {
        name.push('-');
        name.push_str(&snapshot.tree.to_string()[..12]);
    }
    name
}

/// `cbs unpin`.
pub(crate) fn unpin(global: &Global, args: &UnpinArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadWrite)?;
    for name in &args.names {
        let found = candidates(name)
            .into_iter()
            .find_map(|root| match store.remove_root(&root) {
                Ok(false) => None,
                other => Some(other),
            });
        match found {
            Some(removed) => drop(removed?),
            None => bail!(not_pinned(&store, name)?),
        }
    }
    store.sync().context("cannot write the store")?;
    Ok(ExitCode::SUCCESS)
}

/// The roots that a name given to `unpin` can mean.
fn candidates(name: &str) -> Vec<String> {
    let mut roots = vec![pin_root(name)];
    if matches!(RootKind::of(name), RootKind::Pin | RootKind::Tag) {
        roots.push(name.to_owned());
    }
    if let Ok(tag) = name.parse::<Reference>() {
        roots.push(tag_root(&tag));
    }
    roots
}

fn not_pinned(store: &Store, name: &str) -> anyhow::Result<String> {
    let roots = store.gc_roots()?;
    if roots.iter().any(|root| root.name == name) {
        return Ok(format!(
            "`{name}` is a result, not a pin; `cbs store unroot {name}` forgets it"
        ));
    }
    let pins: Vec<&str> = roots.iter().filter_map(|root| root.name.strip_prefix("pin:")).collect();
    Ok(match pins.as_slice() {
        [] => format!("`{name}` is neither a pin nor a tag; nothing is pinned"),
        pins => format!("`{name}` is neither a pin nor a tag; pins are {}", pins.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_are_plain() {
        for name in ["v1.2", "before_move-3"] {
            assert_eq!(checked(name).expect(name), name);
        }
        for name in ["", "/a", "a#b", "a~1", "pin:a"] {
            assert!(checked(name).is_err(), "{name}");
        }
        let root = GcRoot {
            name: "/src/docker bake.hcl#app".to_owned(),
            snapshots: Vec::new(),
            payload: Vec::new(),
            created: 0,
        };
        assert_eq!(default_name(&root), "app");
    }
}

//! The gc roots that commands make, told apart by their names.
//!
//! ```text
//! /src/docker-bake.hcl#app      the last result of a target
//! /src/docker-bake.hcl#app~1    the one before it
//! tag:docker.io/example/app:1   what a tag was last given to
//! pin:NAME                      what somebody pinned
//! failed:/src/docker-bake.hcl#app   the logs of a build that failed, and what its steps left
//! ```

use cbs_image::reference::Reference;
use cbs_store::{GcRoot, Store};

/// Before the name of a tag.
const TAG: &str = "tag:";
/// Before the name of a target whose last build failed.
pub(crate) const FAILED: &str = "failed:";
/// Before the name of a pin.
const PIN: &str = "pin:";

/// Results of a target that are kept when nobody says how many: the last one and the one before it.
pub(crate) const KEEP_RESULTS: usize = 2;

/// What keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKind {
    /// The last result of a target.
    Result,
    /// A result before the last one.
    Earlier,
    /// A tag.
    Tag,
    /// Somebody who pinned it.
    Pin,
    /// A build that failed.
    Failed,
}

impl RootKind {
    /// The kind of a root of this name.
    pub(crate) fn of(name: &str) -> Self {
        if name.starts_with(TAG) {
            Self::Tag
        } else if name.starts_with(PIN) {
            Self::Pin
        } else if name.starts_with(FAILED) {
            Self::Failed
        } else if split_earlier(name).is_some() {
            Self::Earlier
        } else {
            Self::Result
        }
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Earlier => "earlier",
            Self::Tag => "tag",
            Self::Pin => "pin",
            Self::Failed => "failed",
        }
    }
}

/// `NAME~N`.
fn split_earlier(name: &str) -> Option<(&str, usize)> {
    let (target, number) = name.rsplit_once('~')?;
    let number = number.parse().ok().filter(|&number| number > 0)?;
    Some((target, number))
}

/// The root of a tag.
pub(crate) fn tag_root(tag: &Reference) -> String {
    format!("{TAG}{}", tag.clone().with_default_tag())
}

/// The root of a pin.
pub(crate) fn pin_root(name: &str) -> String {
    format!("{PIN}{name}")
}

/// The root of the `number`th result before the last one.
pub(crate) fn earlier_root(target: &str, number: usize) -> String {
    match number {
        0 => target.to_owned(),
        number => format!("{target}~{number}"),
    }
}

/// All roots that a finished target leaves: its own, those of its tags, and its earlier results, each one further back
/// when this one differs from the last. `last` is the target's root as it is.
pub(crate) fn roots_of_result(
    store: &Store,
    result: GcRoot,
    tags: &[Reference],
    last: Option<&GcRoot>,
    keep: usize,
) -> anyhow::Result<Vec<GcRoot>> {
    let mut roots = Vec::new();
    if let Some(last) = last.filter(|last| last.snapshots != result.snapshots) {
        let mut moved = Some(last.clone());
        for number in 1..keep {
            let Some(root) = moved else { break };
            let name = earlier_root(&result.name, number);
            moved = store.gc_root(&name)?;
            roots.push(GcRoot { name, ..root });
        }
    }
    for tag in tags {
        roots.push(GcRoot {
            name: tag_root(tag),
            ..result.clone()
        });
    }
    roots.push(result);
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use cbs_store::{Access, Snapshot, TreeDigest};

    use super::*;

    #[test]
    fn kinds_are_told_by_names() {
        for (name, want) in [
            ("/src/bake.hcl#app", RootKind::Result),
            ("/src/bake.hcl#app~1", RootKind::Earlier),
            ("/src/odd~name", RootKind::Result),
            ("tag:docker.io/library/a:1", RootKind::Tag),
            ("pin:before-the-move", RootKind::Pin),
            ("failed:/src/bake.hcl#app~1", RootKind::Failed),
        ] {
            assert_eq!(RootKind::of(name), want, "{name}");
        }
    }

    #[test]
    fn results_move_back_and_the_oldest_is_let_go() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&folder.path().join("store"), Access::ReadWrite).expect("store");
        let tag: Reference = "a:1".parse().expect("reference");
        let trees = |store: &Store| -> Vec<(String, u8)> {
            let roots = store.gc_roots().expect("roots");
            let number = |root: &GcRoot| root.snapshots[0].tree.as_bytes()[0];
            roots.iter().map(|root| (root.name.clone(), number(root))).collect()
        };
        for number in [1, 2, 2, 3] {
            let result = GcRoot {
                name: "/t".to_owned(),
                snapshots: vec![Snapshot {
                    tree: TreeDigest::from_bytes([number; 32]),
                    layers: Vec::new(),
                }],
                payload: Vec::new(),
                created: 1,
            };
            let last = store.gc_root("/t").expect("root");
            let tags = if number == 1 { vec![tag.clone()] } else { Vec::new() };
            for root in roots_of_result(&store, result, &tags, last.as_ref(), KEEP_RESULTS).expect("roots") {
                store.set_root(&root).expect("set");
            }
        }
        let name = |name: &str| name.to_owned();
        assert_eq!(
            trees(&store),
            [
                (name("/t"), 3),
                (name("/t~1"), 2),
                (name("tag:docker.io/library/a:1"), 1)
            ]
        );
    }
}

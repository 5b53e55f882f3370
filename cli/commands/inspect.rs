//! `cbs store diff` and `path-info`: what differs between two trees, and what is known about one.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::Context as _;
use cbs_store::compare::Times;
use cbs_store::edit::lookup;
use cbs_store::{BlobDigest, DirectoryStore as _, Entry, Layer, Node, Snapshot, Store, StoreError, TreeDigest};
use clap::Args;
use serde_json::{Value, json};

use super::trees::{change_json, change_text, changes, entry_json, kind_and_size};
use super::{find_tree, print};
use crate::failure::Usage;
use crate::progress::human_bytes;

/// `cbs store diff`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DiffArgs {
    /// What it was: a name or tree digest, then the path: NAME[:PATH]
    before: String,
    /// What it is
    after: String,
    /// Also report paths of which nothing but the time differs
    #[arg(long)]
    times: bool,
    /// Report no more paths than this
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true, value_name = "N")]
    limit: usize,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// `cbs store path-info`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PathInfoArgs {
    /// A name or tree digest, then the path: NAME[:PATH]
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 when something differs, as `diff` has it.
pub(crate) fn diff(store: &Store, args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let (before, after) = (folder(store, &args.before)?, folder(store, &args.after)?);
    let times = if args.times { Times::Count } else { Times::Ignore };
    let found = changes(store, (&before, &after), times, args.limit, &|_| true)
        .with_context(|| format!("cannot compare `{}` with `{}`", args.before, args.after))?;
    if args.json {
        let list: Vec<Value> = found.shown.iter().map(|change| change_json(change, times)).collect();
        print(&format!("{}\n", json!({ "changes": list, "more": found.more })))?;
    } else {
        let mut text: String = found
            .shown
            .iter()
            .map(|change| format!("{}\n", change_text(change, times)))
            .collect();
        if found.more > 0 {
            text.push_str(&format!("and {} more\n", found.more));
        }
        print(&text)?;
    }
    Ok(if found.is_empty() && found.more == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn folder(store: &Store, reference: &str) -> anyhow::Result<TreeDigest> {
    let (tree, path) = find_tree(store, reference)?;
    if path.is_empty() {
        return Ok(tree);
    }
    match entry(store, reference)?.node {
        Node::Directory(below) => Ok(below.digest),
        _ => Err(Usage(format!("`{reference}` is no folder; `cbs store cat` shows files")).into()),
    }
}

fn entry(store: &Store, reference: &str) -> anyhow::Result<Entry> {
    let (tree, path) = find_tree(store, reference)?;
    lookup(store, &tree, &path)?.with_context(|| format!("`{path}` is not in `{reference}`"))
}

/// `cbs store path-info`.
pub(crate) fn path_info(store: &Store, args: &PathInfoArgs) -> anyhow::Result<ExitCode> {
    let mut facts = Vec::new();
    for reference in &args.references {
        facts.push(Facts::of(store, reference)?);
    }
    if args.json {
        let list: Vec<Value> = facts.iter().map(Facts::json).collect();
        print(&format!("{}\n", Value::from(list)))?;
    } else {
        let texts: Vec<String> = facts.iter().map(Facts::text).collect();
        print(&texts.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known about a path.
struct Facts {
    reference: String,
    entry: Entry,
    /// Whether every byte of it is here.
    complete: bool,
    /// How an image would ship it, when it is a result.
    layers: Vec<Layer>,
    /// Roots that keep it.
    roots: Vec<String>,
    /// Runs that made it: name, key, seconds since 1970.
    made_by: Vec<(String, String, i64)>,
}

impl Facts {
    fn of(store: &Store, reference: &str) -> anyhow::Result<Self> {
        let (tree, path) = find_tree(store, reference)?;
        let entry = lookup(store, &tree, &path)?.with_context(|| format!("`{path}` is not in `{reference}`"))?;
        let wanted = match &entry.node {
            // The root itself may not be among its own entries.
            Node::Directory(_) if path.trim_matches('/').is_empty() => Some(Wanted::Tree(tree)),
            Node::Directory(below) => Some(Wanted::Tree(below.digest)),
            Node::File { blob, .. } => Some(Wanted::Blob(*blob)),
            _ => None,
        };
        let complete = match &wanted {
            Some(Wanted::Tree(tree)) => store.is_complete(tree)?,
            Some(Wanted::Blob(blob)) => cbs_store::BlobStore::blob(store, blob)?.is_some(),
            None => true,
        };
        let all_roots = store.gc_roots()?;
        let mut layers = Vec::new();
        let mut roots = Vec::new();
        let mut made_by = Vec::new();
        if let Some(wanted) = wanted {
            let mut without = HashSet::new();
            for root in &all_roots {
                let mut keeps = false;
                for snapshot in &root.snapshots {
                    if wanted == Wanted::Tree(snapshot.tree) && layers.is_empty() {
                        layers.clone_from(&snapshot.layers);
                    }
                    keeps = keeps || holds(store, snapshot, wanted, &mut without)?;
                }
                if keeps {
                    roots.push(root.name.clone());
                }
            }
            if let Wanted::Tree(tree) = wanted {
                let made = |output: &Snapshot| output.tree == tree;
                for (key, run) in store.realisations()? {
                    if run.outputs.iter().flatten().any(made) {
                        made_by.push((run.name, key.to_string(), run.created));
                    }
                }
            }
        }
        Ok(Self {
            reference: reference.to_owned(),
            entry,
            complete,
            layers,
            roots,
            made_by,
        })
    }

    fn text(&self) -> String {
        let (kind, size) = kind_and_size(&self.entry.node);
        let mut text = format!("{}\n", self.reference);
        let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<10} {value}\n"));
        match &self.entry.node {
            Node::Directory(below) => {
                row("tree", below.digest.to_string());
                row("content", below.content.to_string());
                row(
                    "holds",
                    format!("{} entries, {}", below.totals.entries, human_bytes(size)),
                );
            }
            Node::File { blob, .. } => {
                row("blob", blob.to_string());
                row("size", format!("{size} bytes"));
            }
            _ => row("type", kind.to_owned()),
        }
        let meta = &self.entry.meta;
        row("mode", format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid));
        row(
            "bytes",
            if self.complete { "all here" } else { "not all here" }.to_owned(),
        );
        for (number, layer) in self.layers.iter().enumerate() {
            let diff_id = layer
                .diff_id
                .map(|id| format!(" from {}", id.oci()))
                .unwrap_or_default();
            row("layer", format!("{number}: {}{diff_id}", layer.diff));
        }
        for (name, key, _) in &self.made_by {
            row("made by", format!("{name} ({})", &key[..12]));
        }
        for root in &self.roots {
            row("kept by", root.clone());
        }
        if self.roots.is_empty() {
            row("kept by", "no root; gc may take it".to_owned());
        }
        text
    }

    fn json(&self) -> Value {
        let mut value = entry_json(&self.entry);
        if let (Some(map), Node::Directory(below)) = (value.as_object_mut(), &self.entry.node) {
            map.insert("content".to_owned(), below.content.to_string().into());
            map.insert("entries".to_owned(), below.totals.entries.into());
        }
        if let Some(map) = value.as_object_mut() {
            let layers = self.layers.iter().map(|layer| {
                json!({ "diff": layer.diff.to_string(), "diffId": layer.diff_id.map(|id| id.oci().to_string()) })
            });
            let made_by = self
                .made_by
                .iter()
                .map(|(name, key, created)| json!({ "name": name, "key": key, "created": created }));
            map.insert("reference".to_owned(), self.reference.clone().into());
            map.insert("complete".to_owned(), self.complete.into());
            map.insert("layers".to_owned(), layers.collect::<Vec<_>>().into());
            map.insert("madeBy".to_owned(), made_by.collect::<Vec<_>>().into());
            map.insert("roots".to_owned(), self.roots.clone().into());
        }
        value
    }
}

/// What somebody asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Tree(TreeDigest),
    Blob(BlobDigest),
}

/// Whether a snapshot has something in it. `without` remembers trees that do not.
fn holds(
    store: &Store,
    snapshot: &Snapshot,
    wanted: Wanted,
    without: &mut HashSet<TreeDigest>,
) -> Result<bool, StoreError> {
    let mut visited = HashSet::new();
    let mut waiting: Vec<TreeDigest> = vec![snapshot.tree];
    waiting.extend(snapshot.layers.iter().map(|layer| layer.diff));
    while let Some(tree) = waiting.pop() {
        if wanted == Wanted::Tree(tree) {
            return Ok(true);
        }
        if without.contains(&tree) || !visited.insert(tree) {
            continue;
        }
        // What is gone holds nothing.
        let Some(directory) = store.directory(&tree)? else {
            continue;
        };
        for entry in &directory.entries {
            match &entry.node {
                Node::Directory(below) => waiting.push(below.digest),
                Node::File { blob, .. } if wanted == Wanted::Blob(*blob) => return Ok(true),
                _ => {}
            }
        }
    }
    without.extend(visited);
    Ok(false)
}

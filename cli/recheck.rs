//! Whether steps give the same when they run again: the report of `--check` and `--recheck`.

use std::io::Read as _;

use anyhow::Context as _;
use cbs_solver::Rechecked;
use cbs_store::compare::{Change, Times};
use cbs_store::{BlobDigest, BlobStore as _, DirectoryStore as _, Entry, Node, Snapshot, Store};
use serde_json::{Value, json};

use crate::commands::trees::{Changes, change_json, change_text, changes};

/// Paths shown of one step.
const PATHS: usize = 50;
/// Bytes looked at to find where two files part.
const LOOK: usize = 64 << 20;

/// What came of running steps again.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many ran.
    pub(crate) steps: usize,
    /// Those that gave something else.
    pub(crate) different: Vec<Different>,
}

/// A step that gave something else.
#[derive(Debug)]
pub(crate) struct Different {
    name: String,
    /// Why it gave nothing.
    failure: Option<String>,
    /// What differs, and where in the file.
    paths: Vec<(Change, Option<String>)>,
    more: usize,
}

impl Report {
    /// Compares what both runs gave.
    pub(crate) fn new(store: &Store, rechecked: Vec<Rechecked>) -> anyhow::Result<Self> {
        let mut report = Self {
            steps: rechecked.len(),
            ..Self::default()
        };
        for step in rechecked {
            let name = step.name.clone();
            let different = compare(store, step).with_context(|| format!("cannot compare the results of `{name}`"))?;
            report.different.extend(different);
        }
        Ok(report)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for different in &self.different {
            text.push_str(&format!("not the same again: {}\n", different.name));
            if let Some(failure) = &different.failure {
                text.push_str(&format!("  it failed: {failure}\n"));
            }
            for (change, place) in &different.paths {
                let place = place.as_ref().map(|place| format!("; {place}")).unwrap_or_default();
                text.push_str(&format!("  {}{place}\n", change_text(change, Times::Ignore)));
            }
            if different.more > 0 {
                text.push_str(&format!("  and {} more\n", different.more));
            }
        }
        let (steps, different) = (self.steps, self.different.len());
        text.push_str(&match different {
            0 => format!("{steps} steps ran again and gave the same\n"),
            _ => format!("{different} of {steps} steps gave something else when they ran again\n"),
        });
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let different = self.different.iter().map(|different| {
            let paths = different.paths.iter().map(|(change, place)| {
                let mut value = change_json(change, Times::Ignore);
                if let Some(map) = value.as_object_mut() {
                    map.insert("where".to_owned(), place.clone().into());
                }
                value
            });
            json!({
                "name": different.name, "failure": different.failure, "more": different.more,
                "paths": paths.collect::<Vec<_>>(),
            })
        });
        json!({ "steps": self.steps, "different": different.collect::<Vec<_>>() })
    }
}

fn compare(store: &Store, step: Rechecked) -> anyhow::Result<Option<Different>> {
    let mut different = Different {
        name: step.name,
        failure: None,
        paths: Vec::new(),
        more: 0,
    };
    let after = match step.after {
        Ok(after) => after,
        Err(err) => {
            different.failure = Some(crate::failure::chain(&err));
            return Ok(Some(different));
        }
    };
    for (before, after) in step.before.iter().zip(&after) {
        let (before, after) = (tree(store, before.as_ref())?, tree(store, after.as_ref())?);
        let Changes { shown, more } = changes(store, (&before, &after), Times::Ignore, PATHS, &|_| true)?;
        different.more += more;
        for change in shown {
            let place = place(store, &change)?;
            different.paths.push((change, place));
        }
    }
    Ok((!different.paths.is_empty()).then_some(different))
}

fn tree(store: &Store, snapshot: Option<&Snapshot>) -> anyhow::Result<cbs_store::TreeDigest> {
    Ok(match snapshot {
        Some(snapshot) => snapshot.tree,
        None => store.put_directory(cbs_store::Directory::empty_root())?.digest,
    })
}

/// Where two files part: `from byte 17, line 2`.
fn place(store: &Store, change: &Change) -> anyhow::Result<Option<String>> {
    let blob = |entry: &Option<Entry>| match entry.as_ref().map(|entry| &entry.node) {
        Some(Node::File { blob, .. }) => Some(*blob),
        _ => None,
    };
    let (Some(before), Some(after)) = (blob(&change.before), blob(&change.after)) else {
        return Ok(None);
    };
    if before == after {
        return Ok(None);
    }
    let (Some(before), Some(after)) = (head(store, &before)?, head(store, &after)?) else {
        return Ok(None);
    };
    let same = before
        .iter()
        .zip(&after)
        .take_while(|(one, other)| one == other)
        .count();
    let line = before[..same].iter().filter(|byte| **byte == b'\n').count() + 1;
    Ok(Some(format!("from byte {same}, line {line}")))
}

fn head(store: &Store, blob: &BlobDigest) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(blob) = store.blob(blob)? else { return Ok(None) };
    let mut bytes = Vec::new();
    blob.reader().take(LOOK as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

//! How differences between trees are shown.

use std::ops::ControlFlow;

use cbs_store::compare::{Change, Times, compare};
use cbs_store::{DirectoryStore, Entry, Node, StoreError, TreeDigest};
use serde_json::{Map, Value, json};

use crate::progress::human_bytes;

/// The changes that somebody wants to see, and how many more there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The first ones, by path.
    pub(crate) shown: Vec<Change>,
    /// How many there are beyond them.
    pub(crate) more: usize,
}

impl Changes {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

/// Compares trees; keeps the first `limit` changes that `wanted` accepts.
pub(crate) fn changes(
    store: &dyn DirectoryStore,
    (before, after): (&TreeDigest, &TreeDigest),
    times: Times,
    limit: usize,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<Changes, StoreError> {
    let mut found = Changes::default();
    compare(store, before, after, times, &mut |change| {
        if !wanted(&change.path) {
            return ControlFlow::Continue(());
        }
        if found.shown.len() < limit {
            found.shown.push(change);
        } else {
            found.more += 1;
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// `etc/motd: content 3f2a… 12B became 91bc… 14B`.
pub(crate) fn change_text(change: &Change, times: Times) -> String {
    let path = path_text(&change.path);
    let mut parts = Vec::new();
    for aspect in aspects(change, times) {
        let of = |entry: &Option<Entry>| entry.as_ref().map(|entry| value(entry, aspect)).unwrap_or_default();
        parts.push(match (aspect, &change.before, &change.after) {
            ("new", _, Some(after)) => format!("new, {}", brief(after)),
            ("gone", Some(before), _) => format!("gone, was {}", brief(before)),
            _ => format!("{aspect} {} became {}", of(&change.before), of(&change.after)),
        });
    }
    format!("{path}: {}", parts.join("; "))
}

/// The same as JSON.
pub(crate) fn change_json(change: &Change, times: Times) -> Value {
    json!({
        "path": path_text(&change.path), "changes": aspects(change, times),
        "before": change.before.as_ref().map(entry_json), "after": change.after.as_ref().map(entry_json),
    })
}

fn aspects(change: &Change, times: Times) -> Vec<&'static str> {
    let mut aspects = change.aspects();
    // Next to a change that counts, the time says nothing.
    if times == Times::Ignore || aspects.contains(&"content") {
        aspects.retain(|aspect| *aspect != "time");
    }
    aspects
}

fn path_text(path: &[u8]) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    String::from_utf8_lossy(path).into_owned()
}

fn value(entry: &Entry, aspect: &str) -> String {
    let meta = &entry.meta;
    match aspect {
        "mode" => format!("{:04o}", meta.mode),
        "owner" => format!("{}:{}", meta.uid, meta.gid),
        "time" => meta.mtime.seconds.to_string(),
        "attributes" => {
            let names = meta.xattrs.iter().map(|(name, _)| String::from_utf8_lossy(name));
            format!("({})", names.collect::<Vec<_>>().join(", "))
        }
        "hard links" => match &entry.node {
            Node::File { link: Some(link), .. } => link.count.to_string(),
            _ => "1".to_owned(),
        },
        _ => brief(entry),
    }
}

fn brief(entry: &Entry) -> String {
    match &entry.node {
        Node::File { blob, size, .. } => format!("{} {}", &blob.to_string()[..12], human_bytes(*size)),
        Node::Directory(below) => format!("a folder of {} entries", below.totals.entries),
        Node::Symlink(target) => format!("a link to {}", String::from_utf8_lossy(target)),
        Node::CharDevice(major, minor) => format!("character device {major}:{minor}"),
        Node::BlockDevice(major, minor) => format!("block device {major}:{minor}"),
        Node::Fifo => "a pipe".to_owned(),
        Node::Whiteout => "a whiteout".to_owned(),
    }
}

/// What an entry is called by kind, and its size.
pub(crate) fn kind_and_size(node: &Node) -> (&'static str, u64) {
    match node {
        Node::File { size, .. } => ("file", *size),
        Node::Directory(below) => ("directory", below.totals.bytes),
        Node::Symlink(_) => ("symlink", 0),
        Node::CharDevice(..) => ("char", 0),
        Node::BlockDevice(..) => ("block", 0),
        Node::Fifo => ("fifo", 0),
        Node::Whiteout => ("whiteout", 0),
    }
}

/// An entry as JSON.
pub(crate) fn entry_json(entry: &Entry) -> Value {
    let (kind, size) = kind_and_size(&entry.node);
    let meta = &entry.meta;
    let mut map = Map::new();
    map.insert("name".to_owned(), String::from_utf8_lossy(&entry.name).into());
    map.insert("type".to_owned(), kind.into());
    map.insert("mode".to_owned(), format!("{:04o}", meta.mode).into());
    map.insert("uid".to_owned(), meta.uid.into());
    map.insert("gid".to_owned(), meta.gid.into());
    map.insert("mtime".to_owned(), meta.mtime.seconds.into());
    map.insert("size".to_owned(), size.into());
    let digest = match &entry.node {
        Node::File { blob, .. } => Value::from(blob.to_string()),
        Node::Directory(below) => Value::from(below.digest.to_string()),
        _ => Value::Null,
    };
    map.insert("digest".to_owned(), digest);
    if let Node::Symlink(target) = &entry.node {
        map.insert("target".to_owned(), String::from_utf8_lossy(target).into());
    }
    if !meta.xattrs.is_empty() {
        let names = meta
            .xattrs
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        map.insert("xattrs".to_owned(), names.collect::<Vec<_>>().into());
    }
    map.into()
}

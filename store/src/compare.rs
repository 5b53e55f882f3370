//! What differs between two trees, path by path, for people: equal subtrees are skipped by digest.

use std::ops::ControlFlow;

use crate::deep::deep;
use crate::{Directory, DirectoryStore, Entry, Node, StoreError, TreeDigest};

/// Whether modification times count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// A path whose time alone differs is reported.
    Count,
    /// Only what an export shows when times are clamped: content, modes, owners, attributes, links.
    Ignore,
}

/// A path that two trees do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path from the root, without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    /// What it was; `None` when it is new. A new or removed directory comes once, without what is below.
    pub before: Option<Entry>,
    /// What it is; `None` when it is gone.
    pub after: Option<Entry>,
}

impl Change {
    /// What differs, in words: `new`, `gone`, or some of `type`, `content`, `link target`, `device`, `mode`, `owner`,
    /// `attributes`, `hard links`, `time`.
    pub fn aspects(&self) -> Vec<&'static str> {
        let (before, after) = match (&self.before, &self.after) {
            (Some(before), Some(after)) => (before, after),
            (None, _) => return vec!["new"],
            (_, None) => return vec!["gone"],
        };
        let mut aspects = Vec::new();
        match (&before.node, &after.node) {
            (Node::Directory(_), Node::Directory(_)) => {}
            (
                Node::File { blob, link, .. },
                Node::File {
                    blob: new_blob,
                    link: new_link,
                    ..
                },
            ) => {
                if blob != new_blob {
                    aspects.push("content");
                }
                if link.is_some() != new_link.is_some() {
                    aspects.push("hard links");
                }
            }
            (Node::Symlink(old), Node::Symlink(new)) if old != new => aspects.push("link target"),
            (old, new) if std::mem::discriminant(old) != std::mem::discriminant(new) => aspects.push("type"),
            (old, new) if old != new => aspects.push("device"),
            _ => {}
        }
        let (old, new) = (&before.meta, &after.meta);
        let checks = [
            (old.mode != new.mode, "mode"),
            ((old.uid, old.gid) != (new.uid, new.gid), "owner"),
            (old.xattrs != new.xattrs, "attributes"),
            (old.mtime != new.mtime, "time"),
        ];
        aspects.extend(checks.iter().filter(|(differs, _)| *differs).map(|(_, name)| *name));
        aspects
    }
}

/// Compares two trees and reports each path that differs, parents before children, until `report` says to stop.
///
/// # Errors
/// [`StoreError::MissingDirectory`] when a directory that must be read is not here, and failures of the store.
pub fn compare(
    trees: &dyn DirectoryStore,
    before: &TreeDigest,
    after: &TreeDigest,
    times: Times,
    report: &mut dyn FnMut(Change) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    let (old, new) = (trees.need_directory(before)?, trees.need_directory(after)?);
    let mut comparison = Comparison {
        trees,
        times,
        path: Vec::new(),
        report,
    };
    let (old_root, new_root) = (root_entry(&old), root_entry(&new));
    if let (Some(old_root), Some(new_root)) = (old_root, new_root)
        && comparison.entry(&old_root, &new_root).is_break()
    {
        return Ok(());
    }
    comparison.directories(&old, &new).map(drop)
}

/// The root as an entry without a name, when it has metadata of its own.
fn root_entry(directory: &Directory) -> Option<Entry> {
    Some(Entry {
        name: Vec::new(),
        meta: directory.root.clone()?,
        node: Node::Directory(directory.seal().0),
    })
}

struct Comparison<'a> {
    trees: &'a dyn DirectoryStore,
    times: Times,
    path: Vec<u8>,
    report: &'a mut dyn FnMut(Change) -> ControlFlow<()>,
}

impl Comparison<'_> {
    fn directories(&mut self, before: &Directory, after: &Directory) -> Result<ControlFlow<()>, StoreError> {
        let (mut old, mut new) = (before.entries.iter().peekable(), after.entries.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(ControlFlow::Continue(())),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let pair = (old.next_if(|_| order.is_le()), new.next_if(|_| order.is_ge()));
            let length = self.path.len();
            let name = pair.0.or(pair.1).map(|entry| entry.name.as_slice()).unwrap_or_default();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            let flow = match pair {
                (Some(old), Some(new)) => self.both(old, new)?,
                (old, new) => self.say(old.cloned(), new.cloned()),
            };
            self.path.truncate(length);
            if flow.is_break() {
                return Ok(flow);
            }
        }
    }

    fn both(&mut self, before: &Entry, after: &Entry) -> Result<ControlFlow<()>, StoreError> {
        if before == after {
            return Ok(ControlFlow::Continue(()));
        }
        if self.entry(before, after).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let (Node::Directory(old), Node::Directory(new)) = (&before.node, &after.node) else {
            return Ok(ControlFlow::Continue(()));
        };
        let same = match self.times {
            Times::Count => old.digest == new.digest,
            Times::Ignore => old.content == new.content,
        };
        if same {
            return Ok(ControlFlow::Continue(()));
        }
        let (old, new) = (
            self.trees.need_directory(&old.digest)?,
            self.trees.need_directory(&new.digest)?,
        );
        deep(|| self.directories(&old, &new))
    }

    /// Reports an entry of both trees if something counts.
    fn entry(&mut self, before: &Entry, after: &Entry) -> ControlFlow<()> {
        let change = Change {
            path: Vec::new(),
            before: Some(before.clone()),
            after: Some(after.clone()),
        };
        let mut aspects = change.aspects();
        if self.times == Times::Ignore {
            aspects.retain(|aspect| *aspect != "time");
        }
        if aspects.is_empty() {
            return ControlFlow::Continue(());
        }
        self.say(change.before, change.after)
    }

    fn say(&mut self, before: Option<Entry>, after: Option<Entry>) -> ControlFlow<()> {
        (self.report)(Change {
            path: self.path.clone(),
            before,
            after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStore as _, MemoryStore, Metadata, Timestamp};

    fn tree(store: &MemoryStore, files: &[(&str, &str, u32, i64)]) -> TreeDigest {
        let mut root = Directory::empty_root();
        let mut below = Directory::default();
        for (name, text, mode, seconds) in files {
            let mut meta = Metadata::new(*mode);
            meta.mtime = Timestamp {
                seconds: *seconds,
                nanos: 0,
            };
            let node = Node::File {
                blob: store.put_bytes(text.as_bytes()).expect("put"),
                size: text.len() as u64,
                link: None,
            };
            let (name, directory) = match name.strip_prefix("dir/") {
                Some(name) => (name, &mut below),
                None => (*name, &mut root),
            };
            directory.set(Entry {
                name: name.as_bytes().to_vec(),
                meta,
                node,
            });
        }
        let below = store.put_directory(below).expect("put");
        root.set(Entry {
            name: b"dir".to_vec(),
            meta: Metadata::new(0o755),
            node: Node::Directory(below),
        });
        store.put_directory(root).expect("put").digest
    }

    fn changes(store: &MemoryStore, before: &TreeDigest, after: &TreeDigest, times: Times) -> Vec<String> {
        let mut found = Vec::new();
        compare(store, before, after, times, &mut |change| {
            let path = String::from_utf8_lossy(&change.path).into_owned();
            found.push(format!("{path}: {}", change.aspects().join(", ")));
            ControlFlow::Continue(())
        })
        .expect("compare");
        found
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let store = MemoryStore::default();
        let before = tree(
            &store,
            &[("a", "1", 0o644, 5), ("dir/b", "1", 0o644, 5), ("gone", "", 0o644, 5)],
        );
        let after = tree(
            &store,
            &[("a", "2", 0o600, 5), ("dir/b", "1", 0o644, 6), ("new", "", 0o644, 5)],
        );
        assert_eq!(
            changes(&store, &before, &after, Times::Count),
            ["a: content, mode", "dir/b: time", "gone: gone", "new: new"]
        );
        assert_eq!(
            changes(&store, &before, &after, Times::Ignore),
            ["a: content, mode", "gone: gone", "new: new"]
        );
        assert!(changes(&store, &after, &after, Times::Count).is_empty());
    }

    #[test]
    fn it_stops_when_told_to() {
        let store = MemoryStore::default();
        let before = tree(&store, &[]);
        let after = tree(&store, &[("a", "", 0o644, 5), ("b", "", 0o644, 5)]);
        let mut count = 0;
        compare(&store, &before, &after, Times::Count, &mut |_| {
            count += 1;
            ControlFlow::Break(())
        })
        .expect("compare");
        assert_eq!(count, 1);
    }
}

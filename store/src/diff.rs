//! Layers: what changed between two trees, and trees with changes applied.
//!
//! ```text
//! lower ─┐                    base ─┐
//!        ├─ diff ─► layer           ├─ apply ─► tree       layer ─┐
//! upper ─┘                   layer ─┘                            ├─ stack ─► layer
//!                                                         layer ─┘
//! ```
//! A layer is a tree without root metadata that holds what an OCI layer holds: changed entries, their parent
//! directories with their real metadata, and a whiteout for each name that is gone. Equal subtrees are skipped by
//! digest. `apply(a, diff(a, b))` is `b` but for what a layer cannot carry: a directory of which nothing but the time
//! changed keeps the time it has in `a`, and a name that did not change leaves its hard link group when other members
//! did.

use crate::deep::deep;
use crate::edit::{renamed_link, settled};
use crate::{Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node, StoreError, TreeDigest};

/// The layer that holds nothing.
///
/// # Errors
/// When the store cannot be written.
pub fn empty_layer(trees: &dyn DirectoryStore) -> Result<TreeDigest, StoreError> {
    Ok(trees.put_directory(Directory::default())?.digest)
}

/// The tree that holds nothing: a root directory, 0755 and root's.
///
/// # Errors
/// When the store cannot be written.
pub fn empty_tree(trees: &dyn DirectoryStore) -> Result<TreeDigest, StoreError> {
    Ok(trees.put_directory(Directory::empty_root())?.digest)
}

/// The layer that makes `upper` of `lower` (`None` is nothing).
///
/// A directory is a change when its mode, owner or attributes changed, not by its time; everything else when metadata,
/// time or content did. A removed directory is one whiteout; no directory is ever opaque. The root is never recorded.
///
/// # Errors
/// When a directory is missing or the store fails.
pub fn diff(
    trees: &dyn DirectoryStore,
    lower: Option<&TreeDigest>,
    upper: &TreeDigest,
) -> Result<TreeDigest, StoreError> {
    let entries = match lower {
        Some(lower) => changes(trees, lower, upper)?,
        None => trees.need_directory(upper)?.entries.clone(),
    };
    let layer = Directory {
        entries,
        ..Directory::default()
    };
    settled(trees, &trees.put_directory(layer)?.digest)
}

fn changes(trees: &dyn DirectoryStore, lower: &TreeDigest, upper: &TreeDigest) -> Result<Vec<Entry>, StoreError> {
    if lower == upper {
        return Ok(Vec::new());
    }
    let (lower, upper) = (trees.need_directory(lower)?, trees.need_directory(upper)?);
    let mut entries = Vec::new();
    for pair in pairs(&lower.entries, &upper.entries) {
        match pair {
            (Some(old), None) => entries.push(whiteout(&old.name)),
            (None, Some(new)) => entries.push(new.clone()),
            (Some(old), Some(new)) => entries.extend(change(trees, old, new)?),
            (None, None) => {}
        }
    }
    Ok(entries)
}

/// The entry a layer needs to make `new` of `old`.
fn change(trees: &dyn DirectoryStore, old: &Entry, new: &Entry) -> Result<Option<Entry>, StoreError> {
    let (Node::Directory(old_below), Node::Directory(new_below)) = (&old.node, &new.node) else {
        return Ok((!same(old, new)).then(|| new.clone()));
    };
    let entries = deep(|| changes(trees, &old_below.digest, &new_below.digest))?;
    if entries.is_empty() && same_apart_from_time(&old.meta, &new.meta) {
        return Ok(None);
    }
    let below = trees.put_directory(Directory {
        entries,
        ..Directory::default()
    })?;
    Ok(Some(Entry {
        node: Node::Directory(below),
        ..new.clone()
    }))
}

/// Whether two entries that are no directories are the same to a layer: link groups do not count, since a layer can
/// only link names that it holds.
fn same(old: &Entry, new: &Entry) -> bool {
    old.meta == new.meta
        && match (&old.node, &new.node) {
            (
                Node::File { blob, size, .. },
                Node::File {
                    blob: new_blob,
                    size: new_size,
                    ..
                },
            ) => blob == new_blob && size == new_size,
            (old, new) => old == new,
        }
}

fn same_apart_from_time(old: &Metadata, new: &Metadata) -> bool {
    (old.mode, old.uid, old.gid, &old.xattrs) == (new.mode, new.uid, new.gid, &new.xattrs)
}

fn whiteout(name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        meta: Metadata::new(0),
        node: Node::Whiteout,
    }
}

/// Walks two sorted lists side by side.
fn pairs<'e>(
    lower: &'e [Entry],
    upper: &'e [Entry],
) -> impl Iterator<Item = (Option<&'e Entry>, Option<&'e Entry>)> + 'e {
    let (mut lower, mut upper) = (lower.iter().peekable(), upper.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (lower.peek(), upper.peek()) {
            (Some(old), Some(new)) => old.name.cmp(&new.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return None,
        };
        Some((
            if order.is_le() { lower.next() } else { None },
            if order.is_ge() { upper.next() } else { None },
        ))
    })
}

/// A tree with a layer applied. A directory over a directory keeps what is in it and takes the new metadata; anything
/// else replaces what has its name. A whiteout for a name that is not there says nothing.
///
/// # Errors
/// When a directory is missing or the store fails.
pub fn apply(
    trees: &dyn DirectoryStore,
    base: Option<&TreeDigest>,
    layer: &TreeDigest,
) -> Result<TreeDigest, StoreError> {
    over(trees, base, layer, Rule::LayerOverTree)
}

/// A tree laid over another, neither of which has whiteouts: [`apply`] without a look at what comes in whole.
/// `lower`'s root metadata stays. BuildKit's merge applies the *layers* of its later inputs one by one, so that their
/// removals count; this is for inputs that have none.
///
/// # Errors
/// When a directory is missing or the store fails.
pub fn merge(
    trees: &dyn DirectoryStore,
    lower: Option<&TreeDigest>,
    upper: &TreeDigest,
) -> Result<TreeDigest, StoreError> {
    over(trees, lower, upper, Rule::TreeOverTree)
}

/// Two layers as one: applying it is applying `lower` and then `upper`.
///
/// # Errors
/// When a directory is missing or the store fails.
pub fn stack(trees: &dyn DirectoryStore, lower: &TreeDigest, upper: &TreeDigest) -> Result<TreeDigest, StoreError> {
    over(trees, Some(lower), upper, Rule::LayerOverLayer)
}

/// What is laid over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    LayerOverTree,
    TreeOverTree,
    LayerOverLayer,
}

fn over(
    trees: &dyn DirectoryStore,
    base: Option<&TreeDigest>,
    layer: &TreeDigest,
    rule: Rule,
) -> Result<TreeDigest, StoreError> {
    let base = match base {
        Some(base) => *base,
        None => empty_tree(trees)?,
    };
    let lower = trees.need_directory(&base)?;
    let upper = trees.need_directory(layer)?;
    let overlay = Overlay {
        trees,
        rule,
        // Groups of the two sides are told apart only when both have some.
        renames: upper.totals().links > 0 && lower.totals().links > 0,
    };
    let merged = overlay.directories(&lower, &upper)?;
    if merged == *lower {
        return Ok(base);
    }
    let result = trees.put_directory(merged)?;
    if lower.totals().links == 0 && upper.totals().links == 0 {
        return Ok(result.digest);
    }
    settled(trees, &result.digest)
}

struct Overlay<'a> {
    trees: &'a dyn DirectoryStore,
    rule: Rule,
    renames: bool,
}

impl Overlay<'_> {
    fn directories(&self, lower: &Directory, upper: &Directory) -> Result<Directory, StoreError> {
        let keeps_marks = self.rule == Rule::LayerOverLayer;
        if upper.opaque {
            let mut result = self.stripped(upper)?;
            result.opaque = keeps_marks;
            result.root = lower.root.clone();
            return Ok(result);
        }
        let mut entries = Vec::with_capacity(lower.entries.len().max(upper.entries.len()));
        for pair in pairs(&lower.entries, &upper.entries) {
            match pair {
                (Some(old), None) => entries.push(old.clone()),
                (old, Some(new)) => entries.extend(self.entry(old, new)?),
                (None, None) => {}
            }
        }
        Ok(Directory {
            root: lower.root.clone(),
            opaque: lower.opaque && keeps_marks,
            entries,
        })
    }

    fn entry(&self, old: Option<&Entry>, new: &Entry) -> Result<Option<Entry>, StoreError> {
        let below = match (&new.node, old.map(|old| &old.node)) {
            (Node::Whiteout, _) => return Ok((self.rule == Rule::LayerOverLayer).then(|| new.clone())),
            (Node::Directory(new_below), Some(Node::Directory(old_below))) => {
                let lower = self.trees.need_directory(&old_below.digest)?;
                let upper = self.trees.need_directory(&new_below.digest)?;
                let merged = deep(|| self.directories(&lower, &upper))?;
                if merged == *lower {
                    *old_below
                } else {
                    self.trees.put_directory(merged)?
                }
            }
            (Node::Directory(new_below), old) => {
                // Over a layer's file or whiteout, a directory hides what that one hid.
                let hides = self.rule == Rule::LayerOverLayer && old.is_some();
                self.fresh(new_below, hides)?
            }
            _ => {
                return Ok(Some(Entry {
                    node: self.renamed(&new.node),
                    ..new.clone()
                }));
            }
        };
        Ok(Some(Entry {
            node: Node::Directory(below),
            ..new.clone()
        }))
    }

    /// A directory that meets nothing below it.
    fn fresh(&self, below: &DirectoryRef, hides: bool) -> Result<DirectoryRef, StoreError> {
        let whole = self.rule != Rule::LayerOverTree && !(self.renames && below.totals.links > 0);
        if whole && !hides {
            return Ok(*below);
        }
        let directory = self.trees.need_directory(&below.digest)?;
        let mut result = if whole {
            Directory::clone(&directory)
        } else {
            self.stripped(&directory)?
        };
        result.opaque |= hides;
        if result == *directory {
            return Ok(*below);
        }
        self.trees.put_directory(result)
    }

    /// A layer's directory as it is where nothing is below: in a tree without marks, in a layer as it was.
    fn stripped(&self, directory: &Directory) -> Result<Directory, StoreError> {
        let mut entries = Vec::with_capacity(directory.entries.len());
        for entry in &directory.entries {
            let node = match &entry.node {
                Node::Whiteout if self.rule == Rule::LayerOverTree => continue,
                Node::Directory(below) => Node::Directory(deep(|| self.fresh(below, false))?),
                other => self.renamed(other),
            };
            entries.push(Entry { node, ..entry.clone() });
        }
        Ok(Directory {
            root: None,
            opaque: directory.opaque && self.rule == Rule::LayerOverLayer,
            entries,
        })
    }

    /// A node whose link group cannot be taken for one of the lower side.
    fn renamed(&self, node: &Node) -> Node {
        match node {
            Node::File {
                blob,
                size,
                link: Some(link),
            } if self.renames => Node::File {
                blob: *blob,
                size: *size,
                link: Some(renamed_link(link, 0)),
            },
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests;

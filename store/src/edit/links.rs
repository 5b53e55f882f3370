//! Hard link groups: their ids and counts when members come and go.
//!
//! In a settled tree a group has at least two members, its count is their number, and its id is a hash of the bytes
//! and of the path of the first member in walking order; so equal trees have equal ids however they were made.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};

use super::draft::{Draft, Level, Slot};
use crate::deep::deep;
use crate::{BlobDigest, DirectoryStore, KeyHasher, LinkGroup, Metadata, Node, StoreError, TreeDigest};

/// What members of one group have in common. An id alone is not trusted: it comes from outside.
type GroupKey = (u64, BlobDigest, Metadata);

struct Group {
    id: u64,
    count: u32,
}

fn first_eight(hash: [u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes)
}

/// Counts the groups of a draft anew, names them by their first member and dissolves those of one member. Opens every
/// directory that has links below it, and no other.
pub(crate) fn settle(draft: &mut Draft<'_>) -> Result<(), StoreError> {
    let trees = draft.trees();
    let root = draft.root()?;
    let mut groups = HashMap::new();
    let mut taken = HashSet::new();
    visit(trees, root, &mut Vec::new(), &mut |path, blob, meta, link| {
        match groups.entry((link.id, *blob, meta.clone())) {
            MapEntry::Occupied(mut known) => {
                let group: &mut Group = known.get_mut();
                group.count = group.count.saturating_add(1);
            }
            MapEntry::Vacant(free) => {
                let mut hasher = KeyHasher::new("cbs.link.v1");
                let mut id = first_eight(hasher.field(blob.as_bytes()).field(path).finish());
                // Two first paths that hash alike are kept apart, in walking order.
                while !taken.insert(id) {
                    id = id.wrapping_add(1);
                }
                free.insert(Group { id, count: 1 });
            }
        }
        None
    })?;
    visit(trees, root, &mut Vec::new(), &mut |_, blob, meta, link| {
        let key: GroupKey = (link.id, *blob, meta.clone());
        Some(groups.get(&key).filter(|group| group.count > 1).map(|group| LinkGroup {
            id: group.id,
            count: group.count,
        }))
    })
}

/// A group's name unlike any that is here, the same for all members that come with one import.
pub(crate) fn renamed_link(link: &LinkGroup, import: u64) -> LinkGroup {
    let mut hasher = KeyHasher::new("cbs.link.import.v1");
    LinkGroup {
        id: first_eight(hasher.number(import).number(link.id).finish()),
        count: link.count,
    }
}

/// Makes the group ids of something that comes from elsewhere unlike those that are here, until [`settle`] names them.
pub(crate) fn import(trees: &dyn DirectoryStore, slot: &mut Slot, import: u64) -> Result<(), StoreError> {
    match &mut slot.node {
        Node::File { link: Some(link), .. } => *link = renamed_link(link, import),
        Node::Directory(below) if below.totals.links > 0 || slot.open.is_some() => {
            if let Some(level) = slot.open(trees)? {
                visit(trees, level, &mut Vec::new(), &mut |_, _, _, link| {
                    Some(Some(renamed_link(link, import)))
                })?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Called with path, bytes, metadata and group of a member; `Some` is its new group or, inside, none.
type Visitor<'v> = dyn FnMut(&[u8], &BlobDigest, &Metadata, &LinkGroup) -> Option<Option<LinkGroup>> + 'v;

/// Visits all group members in walking order, opening directories that have some.
fn visit(
    trees: &dyn DirectoryStore,
    level: &mut Level,
    path: &mut Vec<u8>,
    visitor: &mut Visitor<'_>,
) -> Result<(), StoreError> {
    for (name, slot) in &mut level.entries {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        match &mut slot.node {
            Node::File {
                blob,
                link: place @ Some(_),
                ..
            } => {
                if let Some(link) = place
                    && let Some(new) = visitor(path, blob, &slot.meta, link)
                {
                    *place = new;
                }
            }
            Node::Directory(below) if slot.open.is_some() || below.totals.links > 0 => {
                if let Some(level) = slot.open(trees)? {
                    deep(|| visit(trees, level, path, visitor))?;
                }
            }
            _ => {}
        }
        path.truncate(length);
    }
    Ok(())
}

/// A tree with its groups settled; the same digest when it has none.
pub(crate) fn settled(trees: &dyn DirectoryStore, root: &TreeDigest) -> Result<TreeDigest, StoreError> {
    if trees.need_directory(root)?.totals().links == 0 {
        return Ok(*root);
    }
    let mut draft = Draft::new(trees, *root);
    draft.links_touched = true;
    Ok(draft.commit()?.digest)
}

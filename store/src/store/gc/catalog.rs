//! The whole graph of the store in memory, for questions about reachability.
//!
//! Blobs and directories are numbered by the order of their digests; edges are numbers. One sequential read of the
//! tables replaces millions of look-ups: about 64 bytes a blob, 64 a directory and 4 an entry, and a walk costs
//! nanoseconds a step.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::{BlobDigest, Directory, Node, TreeDigest};

/// What SQLite and its indexes need for a blob beside its bytes, about.
pub(in crate::store) const BLOB_ROW: u64 = 96;
/// The same for a directory beside its encoding.
pub(in crate::store) const DIRECTORY_ROW: u64 = 128;

/// A row of `blobs`.
#[derive(Debug)]
pub(in crate::store) struct BlobItem {
    pub(in crate::store) digest: BlobDigest,
    pub(in crate::store) size: u64,
    pub(in crate::store) used: i64,
    /// Zero: a file of its own.
    pub(in crate::store) pack: i64,
}

/// A row of `directories`.
#[derive(Debug)]
pub(in crate::store) struct DirectoryItem {
    pub(in crate::store) digest: TreeDigest,
    pub(in crate::store) id: i64,
    pub(in crate::store) used: i64,
    /// Bytes of its encoding.
    pub(in crate::store) length: u64,
    /// It refers to something that is not here, or cannot be decoded.
    pub(in crate::store) broken: bool,
    first_edge: usize,
    edges: u32,
}

/// A node of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum Item {
    Blob(u32),
    Directory(u32),
}

/// Marks the edges that lead to directories.
const DIRECTORY_EDGE: u32 = 1 << 31;

#[derive(Debug, Default)]
pub(in crate::store) struct Catalog {
    /// The tick the tables were read at.
    pub(in crate::store) tick: i64,
    pub(in crate::store) blobs: Vec<BlobItem>,
    pub(in crate::store) directories: Vec<DirectoryItem>,
    edges: Vec<u32>,
    blob_starts: Beginnings,
    directory_starts: Beginnings,
}

impl Catalog {
    /// Reads the tables as they are at one moment.
    pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let transaction = connection.unchecked_transaction()?;
        let mut catalog = Self {
            tick: transaction.query_row("SELECT tick FROM meta", [], |row| row.get(0))?,
            ..Self::default()
        };
        let mut query = transaction.prepare("SELECT digest, size, used, ifnull(pack, 0) FROM blobs ORDER BY digest")?;
        let rows = query.query_map([], |row| {
            Ok(BlobItem {
                digest: BlobDigest::from_bytes(row.get(0)?),
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                used: row.get(2)?,
                pack: row.get(3)?,
            })
        })?;
        for row in rows {
            catalog.blobs.push(row?);
        }
        let mut query = transaction.prepare("SELECT digest, id, used, length(data) FROM directories")?;
        let rows = query.query_map([], |row| {
            Ok(DirectoryItem {
                digest: TreeDigest::from_bytes(row.get(0)?),
                id: row.get(1)?,
                used: row.get(2)?,
                length: row.get::<_, i64>(3)?.cast_unsigned(),
                broken: false,
                first_edge: 0,
                edges: 0,
            })
        })?;
        for row in rows {
            catalog.directories.push(row?);
        }
        catalog.directories.sort_unstable_by_key(|item| item.digest);
        catalog.blob_starts = Beginnings::of(&catalog.blobs, |item| item.digest.as_bytes());
        catalog.directory_starts = Beginnings::of(&catalog.directories, |item| item.digest.as_bytes());
        catalog.load_edges(&transaction)?;
        Ok(catalog)
    }

    fn load_edges(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let by_id: HashMap<i64, u32> = (0_u32..).zip(&self.directories).map(|(n, item)| (item.id, n)).collect();
        let mut query = connection.prepare("SELECT id, data FROM directories")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let Some(&number) = by_id.get(&id) else { continue };
            let first_edge = self.edges.len();
            let mut broken = false;
            match Directory::decode(row.get_ref(1)?.as_blob()?) {
                Ok(directory) => {
                    for entry in &directory.entries {
                        match self.target(&entry.node) {
                            Some(Some(Item::Blob(blob))) => self.edges.push(blob),
                            Some(Some(Item::Directory(below))) => self.edges.push(below | DIRECTORY_EDGE),
                            Some(None) => broken = true,
                            None => {}
                        }
                    }
                }
                Err(_) => broken = true,
            }
            let edges = (self.edges.len() - first_edge) as u32;
            let item = &mut self.directories[number as usize];
            (item.first_edge, item.edges, item.broken) = (first_edge, edges, broken);
        }
        Ok(())
    }

    /// What an entry refers to: `None` for one that refers to nothing, `Some(None)` when it is not here.
    pub(in crate::store) fn target(&self, node: &Node) -> Option<Option<Item>> {
        match node {
            Node::File { blob, .. } => Some(self.blob(blob).map(Item::Blob)),
            Node::Directory(below) => Some(self.directory(&below.digest).map(Item::Directory)),
            _ => None,
        }
    }

    pub(in crate::store) fn blob(&self, digest: &BlobDigest) -> Option<u32> {
        self.blob_starts
            .find(&self.blobs, digest.as_bytes(), |item| item.digest.as_bytes())
    }

    pub(in crate::store) fn directory(&self, digest: &TreeDigest) -> Option<u32> {
        self.directory_starts
            .find(&self.directories, digest.as_bytes(), |item| item.digest.as_bytes())
    }

    /// What a directory refers to, as far as it is here.
    pub(in crate::store) fn below(&self, directory: u32) -> impl Iterator<Item = Item> + '_ {
        let item = &self.directories[directory as usize];
        self.edges[item.first_edge..item.first_edge + item.edges as usize]
            .iter()
            .map(|&edge| match edge & DIRECTORY_EDGE {
                0 => Item::Blob(edge),
                _ => Item::Directory(edge & !DIRECTORY_EDGE),
            })
    }

    /// Bytes that an item occupies, its row not counted.
    pub(in crate::store) fn size(&self, item: Item) -> u64 {
        match item {
            Item::Blob(blob) => self.blobs[blob as usize].size,
            Item::Directory(directory) => self.directories[directory as usize].length,
        }
    }

    /// Bytes that an item occupies, its row included.
    pub(in crate::store) fn cost(&self, item: Item) -> u64 {
        self.size(item)
            + match item {
                Item::Blob(_) => BLOB_ROW,
                Item::Directory(_) => DIRECTORY_ROW,
            }
    }
}

/// Where in a list sorted by digest each beginning of a digest starts. Digests are spread evenly, so that few share one.
#[derive(Debug, Default)]
struct Beginnings {
    /// One for each value of the first `bits` bits, and the end.
    starts: Vec<u32>,
    bits: u32,
}

impl Beginnings {
    fn of<T>(items: &[T], key: impl Fn(&T) -> &[u8; 32]) -> Self {
        let bits = items.len().max(2).ilog2();
        let mut starts = vec![0_u32; (1 << bits) + 1];
        for item in items {
            starts[beginning(key(item), bits) + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        Self { starts, bits }
    }

    /// The place of a digest in the list that this was made of.
    fn find<T>(&self, items: &[T], digest: &[u8; 32], key: impl Fn(&T) -> &[u8; 32]) -> Option<u32> {
        let at = beginning(digest, self.bits);
        let (start, end) = (*self.starts.get(at)?, *self.starts.get(at + 1)?);
        let some = &items[start as usize..end as usize];
        let position = some.binary_search_by(|item| key(item).cmp(digest)).ok()?;
        Some(start + position as u32)
    }
}

/// The first bits of a digest, at most 32.
fn beginning(digest: &[u8; 32], bits: u32) -> usize {
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    first.checked_shr(32 - bits).unwrap_or(0) as usize
}

/// One byte for each item of a catalog, and a walk that sets it.
#[derive(Debug)]
pub(in crate::store) struct Marks {
    blobs: Vec<bool>,
    directories: Vec<bool>,
    /// Cost of all that is marked.
    pub(in crate::store) bytes: u64,
}

impl Marks {
    pub(in crate::store) fn new(catalog: &Catalog) -> Self {
        Self {
            blobs: vec![false; catalog.blobs.len()],
            directories: vec![false; catalog.directories.len()],
            bytes: 0,
        }
    }

    pub(in crate::store) fn has(&self, item: Item) -> bool {
        match item {
            Item::Blob(blob) => self.blobs[blob as usize],
            Item::Directory(directory) => self.directories[directory as usize],
        }
    }

    fn slot(&mut self, item: Item) -> &mut bool {
        match item {
            Item::Blob(blob) => &mut self.blobs[blob as usize],
            Item::Directory(directory) => &mut self.directories[directory as usize],
        }
    }

    /// Marks an item and all below it.
    pub(in crate::store) fn add(&mut self, catalog: &Catalog, item: Item) {
        self.add_within(catalog, &[item], u64::MAX);
    }

    /// Marks items and all below them if that costs no more than `limit`; else marks nothing and gives `None`. A walk
    /// stops at what is marked: all below that is marked too.
    pub(in crate::store) fn add_within(&mut self, catalog: &Catalog, items: &[Item], limit: u64) -> Option<u64> {
        let mut added = Vec::new();
        let mut cost = 0_u64;
        let mut waiting = items.to_vec();
        while let Some(item) = waiting.pop() {
            if std::mem::replace(self.slot(item), true) {
                continue;
            }
            added.push(item);
            cost += catalog.cost(item);
            if cost > limit {
                for item in added {
                    *self.slot(item) = false;
                }
                return None;
            }
            if let Item::Directory(directory) = item {
                // Not only unmarked ones: the check above is the one that counts.
                waiting.extend(catalog.below(directory));
            }
        }
        self.bytes += cost;
        Some(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_agrees_with_a_scan() {
        for count in [0_usize, 1, 2, 3, 1_000] {
            let mut all: Vec<[u8; 32]> = (0..count).map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
            // Unevenly spread ones too.
            all.extend((0..count).map(|n| {
                let mut low = [0; 32];
                low[24..].copy_from_slice(&(n as u64).to_be_bytes());
                low
            }));
            all.sort_unstable();
            let beginnings = Beginnings::of(&all, |item| item);
            let find = |digest| beginnings.find(&all, digest, |item| item);
            for (index, digest) in all.iter().enumerate() {
                assert_eq!(find(digest), Some(index as u32));
            }
            assert_eq!(find(&[255; 32]), None);
            assert_eq!(find(blake3::hash(b"absent").as_bytes()), None);
        }
    }
}

//! One level of a tree, its canonical encoding and its two digests.
//!
//! ```text
//! Directory { root?, opaque, entries sorted by name }
//!     entry = name, metadata, node;  node = file | directory | symlink | device | fifo | whiteout
//! encode ──BLAKE3──► TreeDigest      (everything)
//!        └─BLAKE3──► ContentDigest   (no times, no link groups)
//! ```
//! A directory's own metadata stands in its parent's entry, so that a listing needs one row. Only the root of a tree has no
//! parent: its metadata is [`Directory::root`]. A layer (one change set) is the same type, with whiteout entries and
//! the opaque flag. The encoding (`encoding`) is a disk format.

use crate::digest::{BlobDigest, ContentDigest, KeyHasher, TreeDigest};

mod encoding;

/// Longest name Linux allows in one directory level (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// A point in time as a file system keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10⁹.
    pub nanos: u32,
}

/// What every entry has: permissions, owner, time and extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky (`07777`); the file type is the node's.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name, names unique.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Timestamp {
    /// The time of what a build makes without saying when (a directory that COPY needs, one whose entries changed):
    /// fixed, so that equal steps give equal trees. Exporters put the image's own time in its place.
    pub const MADE: Self = Self { seconds: 1, nanos: 0 };
}

impl Metadata {
    /// Root-owned metadata at the epoch without attributes.
    pub fn new(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Vec::new(),
        }
    }
}

/// What lies below a directory, itself not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Entries of every kind.
    pub entries: u64,
    /// Sum of file sizes in bytes; each name counts.
    pub bytes: u64,
    /// Entries that belong to a hard link group; zero lets edits skip the subtree when they renumber groups.
    pub links: u64,
}

/// A stored directory as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryRef {
    /// Names the directory.
    pub digest: TreeDigest,
    /// Names what it holds apart from times.
    pub content: ContentDigest,
    /// Sums over all below it.
    pub totals: Totals,
}

/// Members with the same group in one tree are one inode. Derived from content and the first member's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkGroup {
    /// Which group.
    pub id: u64,
    /// How many names of this tree are in it: `st_nlink`.
    pub count: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A regular file.
    File {
        /// Names its bytes.
        blob: BlobDigest,
        /// Their number.
        size: u64,
        /// Its hard link group when it has other names.
        link: Option<LinkGroup>,
    },
    /// A directory.
    Directory(DirectoryRef),
    /// A symbolic link and the text it holds.
    Symlink(Vec<u8>),
    /// A character device, `(major, minor)`.
    CharDevice(u32, u32),
    /// A block device, `(major, minor)`.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// In a layer: the name is gone.
    Whiteout,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The name: not empty, no `/`, no NUL, not `.` or `..`, at most [`NAME_MAX`] bytes; not necessarily UTF-8.
    pub name: Vec<u8>,
    /// Its metadata. A whiteout's is all zero.
    pub meta: Metadata,
    /// What it is.
    pub node: Node,
}

impl Entry {
    /// The directory reference when this is one.
    pub fn directory(&self) -> Option<&DirectoryRef> {
        match &self.node {
            Node::Directory(reference) => Some(reference),
            _ => None,
        }
    }
}

/// One level of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Directory {
    /// Metadata of the root of a tree; `None` everywhere below, where the parent's entry has it.
    pub root: Option<Metadata>,
    /// In a layer: hides what a lower layer has here.
    pub opaque: bool,
    /// Sorted by name, names unique.
    pub entries: Vec<Entry>,
}

/// Bytes that are no directory, or a name no directory may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The encoding is damaged or of another version; the text says what was being read.
    #[error("damaged directory: {0}")]
    Damaged(&'static str),
    /// The name may not stand in a directory.
    #[error("`{}` is no valid name", String::from_utf8_lossy(.0).escape_debug())]
    BadName(Vec<u8>),
}

/// Checks that a name may stand in a directory.
///
/// # Errors
/// [`DirectoryError::BadName`] for empty, `.`, `..`, over-long names and those with `/` or NUL.
pub fn check_name(name: &[u8]) -> Result<(), DirectoryError> {
    let bad = name.is_empty()
        || name == b"."
        || name == b".."
        || name.len() > NAME_MAX
        || name.iter().any(|&byte| byte == b'/' || byte == 0);
    if bad {
        Err(DirectoryError::BadName(name.to_vec()))
    } else {
        Ok(())
    }
}

impl Directory {
    /// An empty root with docker's default metadata: 0755, root-owned, at the epoch.
    pub fn empty_root() -> Self {
        Self {
            root: Some(Metadata::new(0o755)),
            ..Self::default()
        }
    }

    /// Finds a name.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.position(name).ok().map(|index| &self.entries[index])
    }

    /// Where a name is (`Ok`) or would be inserted (`Err`).
    pub fn position(&self, name: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name))
    }

    /// Inserts or replaces the entry of that name.
    pub fn set(&mut self, entry: Entry) {
        match self.position(&entry.name) {
            Ok(index) => self.entries[index] = entry,
            Err(index) => self.entries.insert(index, entry),
        }
    }

    /// Takes a name out.
    pub fn take(&mut self, name: &[u8]) -> Option<Entry> {
        self.position(name).ok().map(|index| self.entries.remove(index))
    }

    /// Sums over all below.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            entries: self.entries.len() as u64,
            ..Totals::default()
        };
        for entry in &self.entries {
            match &entry.node {
                Node::File { size, link, .. } => {
                    totals.bytes = totals.bytes.saturating_add(*size);
                    totals.links += u64::from(link.is_some());
                }
                Node::Directory(below) => {
                    totals.entries = totals.entries.saturating_add(below.totals.entries);
                    totals.bytes = totals.bytes.saturating_add(below.totals.bytes);
                    totals.links = totals.links.saturating_add(below.totals.links);
                }
                _ => {}
            }
        }
        totals
    }

    /// The content digest: [`Directory::root`], link groups and all times left out.
    pub fn content_digest(&self) -> ContentDigest {
        let mut hasher = KeyHasher::new("cbs.content.v1");
        hasher.number(u64::from(self.opaque)).number(self.entries.len() as u64);
        for entry in &self.entries {
            hasher.field(&entry.name);
            hash_content(&mut hasher, entry);
        }
        ContentDigest::from_bytes(hasher.finish())
    }

    /// The digest of encoded bytes, with a domain tag so that no file's digest can equal it.
    pub fn digest_of(encoded: &[u8]) -> TreeDigest {
        let mut hasher = KeyHasher::new("cbs.dir.v1");
        hasher.field(encoded);
        TreeDigest::from_bytes(hasher.finish())
    }

    /// Encodes and names the directory.
    pub fn seal(&self) -> (DirectoryRef, Vec<u8>) {
        let encoded = self.encode();
        let digest = Self::digest_of(&encoded);
        (
            DirectoryRef {
                digest,
                content: self.content_digest(),
                totals: self.totals(),
            },
            encoded,
        )
    }
}

/// Adds an entry's content (its name apart) to a cache key: what BuildKit's content checksum sees.
pub fn hash_content(hasher: &mut KeyHasher, entry: &Entry) {
    let meta = &entry.meta;
    hasher
        .number(u64::from(meta.mode))
        .number(u64::from(meta.uid))
        .number(u64::from(meta.gid));
    hasher.number(meta.xattrs.len() as u64);
    for (name, value) in &meta.xattrs {
        hasher.field(name).field(value);
    }
    match &entry.node {
        Node::File { blob, size, .. } => hasher.number(0).number(*size).field(blob.as_bytes()),
        Node::Directory(below) => hasher.number(1).field(below.content.as_bytes()),
        Node::Symlink(target) => hasher.number(2).field(target),
        Node::CharDevice(major, minor) => hasher.number(3).number(u64::from(*major)).number(u64::from(*minor)),
        Node::BlockDevice(major, minor) => hasher.number(4).number(u64::from(*major)).number(u64::from(*minor)),
        Node::Fifo => hasher.number(5),
        Node::Whiteout => hasher.number(6),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn meta() -> impl Strategy<Value = Metadata> {
        (
            0..0o10000_u32,
            any::<u32>(),
            any::<u32>(),
            any::<i64>(),
            0..1_000_000_000_u32,
            btree_map(vec(any::<u8>(), 1..8), vec(any::<u8>(), 0..8), 0..3),
        )
            .prop_map(|(mode, uid, gid, seconds, nanos, xattrs)| Metadata {
                mode,
                uid,
                gid,
                mtime: Timestamp { seconds, nanos },
                xattrs: xattrs.into_iter().collect(),
            })
    }

    fn node() -> impl Strategy<Value = Node> {
        let link = proptest::option::of((any::<u64>(), any::<u32>()).prop_map(|(id, count)| LinkGroup { id, count }));
        prop_oneof![
            (any::<[u8; 32]>(), any::<u64>(), link).prop_map(|(blob, size, link)| Node::File {
                blob: BlobDigest::from_bytes(blob),
                size,
                link
            }),
            (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u32; 3]>()).prop_map(|(digest, content, totals)| {
                Node::Directory(DirectoryRef {
                    digest: TreeDigest::from_bytes(digest),
                    content: ContentDigest::from_bytes(content),
                    totals: Totals {
                        entries: totals[0].into(),
                        bytes: totals[1].into(),
                        links: totals[2].into(),
                    },
                })
            }),
            vec(any::<u8>(), 0..16).prop_map(Node::Symlink),
            (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::CharDevice(major, minor)),
            Just(Node::Fifo),
            Just(Node::Whiteout),
        ]
    }

    fn directory() -> impl Strategy<Value = Directory> {
        let name = vec(1..=255_u8, 1..12).prop_filter("valid name", |name| check_name(name).is_ok());
        (
            proptest::option::of(meta()),
            any::<bool>(),
            btree_map(name, (meta(), node()), 0..8),
        )
            .prop_map(|(root, opaque, entries)| Directory {
                root,
                opaque,
                entries: entries
                    .into_iter()
                    .map(|(name, (meta, node))| Entry { name, meta, node })
                    .collect(),
            })
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(directory in directory()) {
            prop_assert_eq!(Directory::decode(&directory.encode()), Ok(directory));
        }

        #[test]
        fn decode_never_panics_and_accepts_only_canonical_bytes(bytes in vec(any::<u8>(), 0..256)) {
            if let Ok(directory) = Directory::decode(&bytes) {
                prop_assert_eq!(directory.encode(), bytes);
            }
        }

        #[test]
        fn times_do_not_touch_the_content_digest(mut directory in directory()) {
            let before = directory.content_digest();
            for entry in &mut directory.entries {
                entry.meta.mtime = Timestamp { seconds: 7, nanos: 7 };
            }
            prop_assert_eq!(directory.content_digest(), before);
        }
    }

    /// The digests are a disk format: when this fails, old stores cannot be read, and `FORMAT` must change.
    #[test]
    fn digests_are_pinned() {
        let mut directory = Directory::empty_root();
        directory.set(Entry {
            name: b"hello".to_vec(),
            meta: Metadata::new(0o644),
            node: Node::File {
                blob: BlobDigest::of(b"hi\n"),
                size: 3,
                link: None,
            },
        });
        let (reference, _) = directory.seal();
        assert_eq!(
            reference.digest.to_string(),
            "7a8bec9dedd5055b2e397cad9bee32cfe467d6e1c642dbbc19fd45b82391fb6c"
        );
        assert_eq!(
            reference.content.to_string(),
            "0c4f63ef739bbf579e8c94bb1bbdefa39f342eafabaf462640fc72c26149b0db"
        );
    }

    #[test]
    fn bad_names_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(b"\xff\xfe").is_ok());
    }
}

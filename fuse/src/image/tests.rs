use std::collections::BTreeMap;

use cbs_store::{BlobStore, DirectoryStore, LinkGroup, MemoryStore, Timestamp};

use super::*;

fn entry(name: &str, node: Node) -> Entry {
    Entry {
        name: name.into(),
        meta: Metadata::new(0o644),
        node,
    }
}

fn image_of(store: &MemoryStore, root: Directory) -> Result<Vec<u8>, ImageError> {
    let tree = store.put_directory(root).expect("put").digest;
    let file = tempfile::tempfile().expect("a file");
    write_image(store, tree, &file, &|| false)?;
    let mut bytes = vec![0; file.metadata().expect("stat").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    Ok(bytes)
}

/// Reads an image back, as little of it as these tests need.
struct Reader(Vec<u8>);

impl Reader {
    fn number<const N: usize>(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.0[at..at + N]);
        u64::from_le_bytes(bytes)
    }

    fn content(&self, inode: u64) -> Vec<u8> {
        let at = (inode * SLOT) as usize;
        let layout = self.number::<2>(at) >> 1;
        let size = self.number::<8>(at + 8) as usize;
        let blocks_at = self.number::<4>(at + 16) as usize * BLOCK as usize;
        let xattrs = match self.number::<2>(at + 2) as usize {
            0 => 0,
            units => 12 + 4 * (units - 1),
        };
        match layout {
            0 => self.0[blocks_at..blocks_at + size].to_vec(),
            2 => {
                let rest = size % BLOCK as usize;
                let rest_at = at + INODE as usize + xattrs;
                assert_eq!(
                    rest_at / BLOCK as usize,
                    (rest_at + rest - 1) / BLOCK as usize,
                    "a tail crosses a block"
                );
                [
                    &self.0[blocks_at..blocks_at + size - rest],
                    &self.0[rest_at..rest_at + rest],
                ]
                .concat()
            }
            other => panic!("layout {other}"),
        }
    }

    fn list(&self, inode: u64) -> BTreeMap<Vec<u8>, u64> {
        let content = Reader(self.content(inode));
        let mut names = BTreeMap::new();
        let mut last = Vec::new();
        for start in (0..content.0.len()).step_by(BLOCK as usize) {
            let end = content.0.len().min(start + BLOCK as usize);
            let count = content.number::<2>(start + 8) as usize / 12;
            for index in 0..count {
                let at = start + 12 * index;
                let from = start + content.number::<2>(at + 8) as usize;
                let to = if index + 1 < count {
                    start + content.number::<2>(at + 20) as usize
                } else {
                    end
                };
                let name: Vec<u8> = content.0[from..to]
                    .iter()
                    .copied()
                    .take_while(|byte| *byte != 0)
                    .collect();
                assert!(last < name, "{name:?} is out of order");
                last = name.clone();
                names.insert(name, content.number::<8>(at));
            }
        }
        names
    }

    fn root(&self) -> u64 {
        self.number::<2>(SUPER_BLOCK as usize + 14)
    }
}

#[test]
fn content_of_every_length_reads_back() {
    let store = MemoryStore::default();
    let mut root = Directory::empty_root();
    let mut want = BTreeMap::new();
    for length in (0..=INLINE_LIMIT as usize)
        .step_by(97)
        .chain([4032, 4033, 4095, 4096, 4097, 8192, 16384])
    {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8).collect();
        let blob = store.put_bytes(&bytes).expect("put");
        let mut file = entry(
            &format!("f{length}"),
            Node::File {
                blob,
                size: length as u64,
                link: None,
            },
        );
        if length % 2 == 0 {
            file.meta.xattrs.push((b"user.x".to_vec(), vec![1; length % 300]));
        }
        root.set(file);
        want.insert(format!("f{length}").into_bytes(), bytes);
    }
    let reader = Reader(image_of(&store, root).expect("image"));
    assert_eq!(reader.0.len() as u64 % BLOCK, 0);
    let listed = reader.list(reader.root());
    assert_eq!(listed.len(), want.len() + 2);
    for (name, bytes) in want {
        assert!(
            reader.content(listed[&name]) == bytes,
            "{}",
            String::from_utf8_lossy(&name)
        );
    }
}

#[test]
fn directories_know_themselves_and_their_parents() {
    let store = MemoryStore::default();
    let mut below = Directory::default();
    for number in 0..3000 {
        below.set(entry(&format!("!{number}-{}", "n".repeat(number % 200)), Node::Fifo));
    }
    below.set(entry("gone", Node::Whiteout));
    let below = store.put_directory(below).expect("put");
    let mut middle = Directory::default();
    middle.set(entry("big", Node::Directory(below)));
    middle.set(entry(
        "empty",
        Node::Directory(store.put_directory(Directory::default()).expect("put")),
    ));
    let middle = store.put_directory(middle).expect("put");
    let mut root = Directory::empty_root();
    root.set(entry("a", Node::Directory(middle)));
    root.set(entry("b", Node::Directory(middle)));
    let reader = Reader(image_of(&store, root).expect("image"));
    let root = reader.list(reader.root());
    assert_eq!((root[&b"."[..]], root[&b".."[..]]), (reader.root(), reader.root()));
    assert_ne!(root[&b"a"[..]], root[&b"b"[..]]);
    for name in [b"a", b"b"] {
        let middle = reader.list(root[&name[..]]);
        assert_eq!(
            (middle[&b"."[..]], middle[&b".."[..]]),
            (root[&name[..]], reader.root())
        );
        let big = reader.list(middle[&b"big"[..]]);
        assert_eq!(
            (big[&b"."[..]], big[&b".."[..]]),
            (middle[&b"big"[..]], root[&name[..]])
        );
        assert_eq!(big.len(), 3002);
        assert_eq!(reader.list(middle[&b"empty"[..]]).len(), 2);
    }
}

#[test]
fn hard_links_share_an_inode_and_time_may_be_before_1970() {
    let store = MemoryStore::default();
    let blob = store.put_bytes(b"x").expect("put");
    let file = |link| Node::File { blob, size: 1, link };
    let group = Some(LinkGroup { id: 9, count: 2 });
    let mut root = Directory::empty_root();
    for (name, node) in [
        ("a", file(group)),
        ("b", file(group)),
        ("c", file(None)),
        ("d", file(None)),
    ] {
        let mut entry = entry(name, node);
        entry.meta.mtime = Timestamp { seconds: -5, nanos: 7 };
        root.set(entry);
    }
    let reader = Reader(image_of(&store, root).expect("image"));
    let names = reader.list(reader.root());
    assert_eq!(names[&b"a"[..]], names[&b"b"[..]]);
    assert_ne!(names[&b"c"[..]], names[&b"d"[..]]);
    let at = (names[&b"a"[..]] * SLOT) as usize;
    assert_eq!(
        (reader.number::<4>(at + 44), reader.number::<8>(at + 32) as i64),
        (2, -5)
    );
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let store = MemoryStore::default();
    for (name, length) in [
        ("btrfs.compression", 1),
        ("user.too-long", 70_000),
        (&*format!("user.{}", "n".repeat(256)), 1),
    ] {
        let mut root = Directory::empty_root();
        let mut fifo = entry("fifo", Node::Fifo);
        fifo.meta.xattrs.push((name.as_bytes().to_vec(), vec![0; length]));
        root.set(fifo);
        assert!(
            matches!(image_of(&store, root), Err(ImageError::NotRepresentable(_))),
            "{name}"
        );
    }
    let mut root = Directory::empty_root();
    root.set(entry(
        "lost",
        Node::File {
            blob: BlobDigest::of(b"?"),
            size: 1,
            link: None,
        },
    ));
    assert!(matches!(
        image_of(&store, root),
        Err(ImageError::Store(StoreError::MissingBlob(_)))
    ));
}

use cbs_store::{BlobDigest, BlobStore, DirectoryStore, Entry, LinkGroup, MemoryStore, Metadata};

use super::*;

fn entry(name: &str, node: Node) -> Entry {
    Entry {
        name: name.into(),
        meta: Metadata::new(0o644),
        node,
    }
}

fn file(bytes: &[u8], link: Option<u64>) -> Node {
    Node::File {
        blob: BlobDigest::of(bytes),
        size: bytes.len() as u64,
        link: link.map(|id| LinkGroup { id, count: 2 }),
    }
}

/// `same1` and `same2` are equal files, `dir1` and `dir2` equal directories with a member of a link group each.
fn sample(store: &MemoryStore) -> TreeDigest {
    store.put_bytes(b"x").expect("put");
    let below = Directory {
        entries: vec![entry("hard", file(b"x", Some(7))), entry("other", file(b"y", None))],
        ..Directory::default()
    };
    let below = store.put_directory(below).expect("put");
    let mut root = Directory::empty_root();
    for (name, node) in [
        ("dir1", Node::Directory(below)),
        ("dir2", Node::Directory(below)),
        ("gone", Node::Whiteout),
        ("same1", file(b"x", None)),
        ("same2", file(b"x", None)),
    ] {
        root.set(entry(name, node));
    }
    store.put_directory(root).expect("put").digest
}

struct Fixture {
    store: MemoryStore,
    table: NodeTable,
    key: RootKey,
}

impl Fixture {
    fn new() -> Self {
        let store = MemoryStore::default();
        let key = RootKey::Tree(sample(&store));
        let fixture = Self {
            store,
            table: NodeTable::default(),
            key,
        };
        fixture.add();
        fixture
    }

    fn add(&self) {
        let RootKey::Tree(tree) = &self.key else { unreachable!() };
        let directory = self.store.need_directory(tree).expect("stored");
        self.table.add_root(self.key.clone(), directory, None);
    }

    fn enter(&self) -> NodeId {
        self.table.enter(&self.key).expect("added").node
    }

    fn find(&self, parent: NodeId, name: &str) -> Option<Attributes> {
        loop {
            match self.table.lookup(parent, name.as_bytes(), Whiteouts::Hidden) {
                Step::Done((_, found)) => return found,
                Step::Load(node, digest) => {
                    let directory = self.store.need_directory(&digest).expect("stored");
                    self.table.add_listing(&node, directory);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn look(&self, parent: NodeId, name: &str) -> NodeId {
        self.find(parent, name).expect(name).node
    }

    fn ranges(&self) -> usize {
        self.table.size().ranges
    }
}

#[test]
fn only_hard_links_share_a_node() {
    let fixture = Fixture::new();
    let root = fixture.enter();
    let (dir1, dir2) = (fixture.look(root, "dir1"), fixture.look(root, "dir2"));
    assert_ne!(dir1, dir2);
    assert_ne!(fixture.look(root, "same1"), fixture.look(root, "same2"));
    assert_eq!(fixture.look(dir1, "hard"), fixture.look(dir2, "hard"));
    assert_ne!(fixture.look(dir1, "other"), fixture.look(dir2, "other"));
    assert_eq!(fixture.find(dir1, "hard").expect("there").links, 2);
    assert_eq!(fixture.find(dir1, "missing"), None);
    assert_eq!(fixture.find(root, "gone"), None);
    assert!(matches!(
        fixture
            .table
            .lookup(fixture.look(root, "same1"), b"x", Whiteouts::Hidden),
        Step::NotDirectory
    ));
    assert!(matches!(
        fixture.table.lookup(NodeId(1 << 40), b"x", Whiteouts::Hidden),
        Step::Stale
    ));
}

#[test]
fn ranges_go_with_their_last_reference() {
    let fixture = Fixture::new();
    let root = fixture.enter();
    let dir1 = fixture.look(root, "dir1");
    let hard = fixture.look(dir1, "hard");
    let path = |id| fixture.table.node(id).map(|node| node.path());
    assert_eq!(path(hard), Some(b"dir1/hard".to_vec()));
    assert_eq!(fixture.ranges(), 2);

    // A child may outlive its parents.
    fixture.table.forget(dir1, 1);
    fixture.table.forget(root, 1);
    assert_eq!(fixture.ranges(), 1);
    assert_eq!(path(hard), Some(b"dir1/hard".to_vec()));
    fixture.table.forget(hard, 1);
    assert_eq!(fixture.table.size(), TableSize { ranges: 0, entries: 0 });
    assert_eq!(path(hard), None);
    assert!(fixture.table.enter(&fixture.key).is_none());

    // A listing that only ever answered "nothing" goes with its parent.
    fixture.add();
    let root = fixture.enter();
    let dir1 = fixture.look(root, "dir1");
    assert_eq!(fixture.find(dir1, "missing"), None);
    assert_eq!(fixture.ranges(), 2);
    fixture.table.forget(dir1, 1);
    fixture.table.forget(root, 1);
    assert_eq!(fixture.ranges(), 0);
}

#[test]
fn a_hard_link_group_finds_a_new_node_when_the_first_is_gone() {
    let fixture = Fixture::new();
    let root = fixture.enter();
    let (dir1, dir2) = (fixture.look(root, "dir1"), fixture.look(root, "dir2"));
    let first = fixture.look(dir1, "hard");
    fixture.table.forget(first, 1);
    let second = fixture.look(dir2, "hard");
    assert_ne!(first, second);
    assert_eq!(fixture.look(dir1, "hard"), second);
    fixture.table.forget(second, 5);
    fixture.table.forget(second, 5);
    assert!(fixture.table.node(second).is_none(), "too many forgets do no harm");
}

struct Sink(Vec<(Vec<u8>, NodeId, u64)>, usize);

impl ListingSink for Sink {
    fn add(&mut self, name: &[u8], attributes: &Attributes, _keep: Keep, next: u64) -> Fit {
        if self.0.len() == self.1 {
            return Fit::Full;
        }
        self.0.push((name.to_vec(), attributes.node, next));
        Fit::Taken
    }
}

#[test]
fn listings_go_on_where_they_stopped() {
    let fixture = Fixture::new();
    let root = fixture.enter();
    let mut seen = Vec::new();
    let mut from = 0;
    loop {
        let mut sink = Sink(Vec::new(), 2);
        let step = fixture
            .table
            .list(root, from, Listing::Plus, Whiteouts::Hidden, &mut sink);
        assert!(matches!(step, Step::Done(_)));
        let Some((_, _, next)) = sink.0.last() else { break };
        from = *next;
        seen.extend(sink.0);
    }
    let names: Vec<_> = seen.iter().map(|(name, ..)| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, [".", "..", "dir1", "dir2", "same1", "same2"]);
    // Every entry but the dots is one reference.
    for (_, node, _) in &seen[2..] {
        assert_eq!(fixture.ranges(), 1);
        fixture.table.forget(*node, 1);
    }
    fixture.table.forget(root, 1);
    assert_eq!(fixture.ranges(), 0);
}

#[test]
fn no_depth_of_a_tree_exhausts_the_stack() {
    const DEPTH: usize = 100_000;
    let deep = || {
        let store = MemoryStore::default();
        let mut below = store.put_directory(Directory::default()).expect("put");
        for _ in 0..DEPTH {
            let mut directory = Directory::default();
            directory.set(entry("d", Node::Directory(below)));
            below = store.put_directory(directory).expect("put");
        }
        let fixture = Fixture {
            store,
            table: NodeTable::default(),
            key: RootKey::Tree(below.digest),
        };
        fixture.add();
        let mut nodes = vec![fixture.enter()];
        for _ in 0..DEPTH {
            nodes.push(fixture.look(*nodes.last().expect("not empty"), "d"));
        }
        let deepest = fixture.table.node(nodes[DEPTH]).expect("known");
        assert_eq!(deepest.path().len(), 2 * DEPTH - 1);
        // Parents first: the deepest is what keeps them.
        for node in nodes {
            fixture.table.forget(node, 1);
        }
        assert_eq!(fixture.ranges(), 0);
        drop(deepest);
    };
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(deep)
        .expect("start")
        .join()
        .expect("no overflow");
}

#[test]
fn the_budget_names_the_trees_not_used_for_longest() {
    let store = MemoryStore::default();
    let table = NodeTable::default();
    let keys: Vec<_> = (0..4_u8)
        .map(|number| {
            let mut root = Directory::empty_root();
            for entries in 0..10_u8 {
                root.set(entry(&format!("{entries}"), file(&[number], None)));
            }
            let tree = store.put_directory(root).expect("put").digest;
            table.add_root(RootKey::Tree(tree), store.need_directory(&tree).expect("stored"), None);
            RootKey::Tree(tree)
        })
        .collect();
    table.enter(&keys[0]);
    assert_eq!(table.size().entries, 44);
    assert_eq!(table.over_budget(44, |_| true), []);
    assert_eq!(table.over_budget(43, |_| true), [keys[1].clone()]);
    assert_eq!(table.over_budget(43, |key| *key != keys[1]), [keys[2].clone()]);
    assert_eq!(table.over_budget(0, |_| true), keys[1..]);
}

#[test]
fn small_files_behind_a_file_are_found_but_not_too_many() {
    let fixture = Fixture::new();
    let root = fixture.enter();
    let first = fixture.look(root, "same1");
    let node = fixture.table.node(first).expect("known");
    assert_eq!(node.small_files_after(), [BlobDigest::of(b"x")]);
    let last = fixture.look(root, "same2");
    let last = fixture.table.node(last).expect("known");
    assert!(last.small_files_after().is_empty());
    assert_eq!(node.directory_number(), last.directory_number());

    let many = |count: usize, size: u64| {
        let mut directory = Directory::empty_root();
        for index in 0..count {
            let node = Node::File {
                blob: BlobDigest::of(&index.to_le_bytes()),
                size,
                link: None,
            };
            directory.set(entry(&format!("f{index:03}"), node));
        }
        let key = RootKey::Tree(fixture.store.put_directory(directory.clone()).expect("put").digest);
        fixture.table.add_root(key.clone(), Arc::new(directory), None);
        let root = fixture.table.enter(&key).expect("added").node;
        let first = fixture.look(root, "f000");
        fixture.table.node(first).expect("known").small_files_after()
    };
    let few = many(100, 1);
    assert_eq!(few.first(), Some(&BlobDigest::of(&1_usize.to_le_bytes())));
    assert_eq!(few.len(), 32);
    assert_eq!(many(100, 16 << 10).len(), 16);
    assert!(many(100, 0).is_empty(), "there is nothing to fetch");
    assert!(many(100, 17 << 10).is_empty(), "those are files of the store");
}

//! `cbs du`, `gc`, `store …` and `mount` over a store with content.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cbs_store::{
    Access, BlobStore, Directory, DirectoryStore, Entry, GcRoot, Layer, Metadata, Node, Snapshot, Store, TreeDigest,
};

use crate::env::TestEnv;

const LARGE: usize = 100_000;

/// A world whose store has a root `app:1` with a large and a small file, and a tree nothing keeps.
fn world() -> (TestEnv, TreeDigest) {
    let env = TestEnv::new();
    let store = Store::open(&env.path("store"), Access::ReadWrite).expect("open");
    let file = |name: &str, bytes: &[u8]| {
        let node = Node::File {
            blob: store.put_bytes(bytes).expect("put"),
            size: bytes.len() as u64,
            link: None,
        };
        Entry {
            name: name.as_bytes().to_vec(),
            meta: Metadata::new(0o644),
            node,
        }
    };
    let mut root = Directory::empty_root();
    root.set(file("large", &vec![b'x'; LARGE]));
    root.set(file("small", b"hello\n"));
    let tree = store.put_directory(root.clone()).expect("put").digest;
    root.root = None;
    let diff = store.put_directory(root).expect("put").digest;
    let snapshot = Snapshot {
        tree,
        layers: vec![Layer { diff, diff_id: None }],
    };
    let root = GcRoot {
        name: "app:1".into(),
        snapshots: vec![snapshot],
        payload: Vec::new(),
        created: 1,
    };
    store.set_root(&root).expect("root");
    let mut loose = Directory::empty_root();
    loose.set(file("loose", &vec![b'y'; LARGE]));
    store.put_directory(loose).expect("put");
    store.flush().expect("flush");
    (env, tree)
}

#[test]
fn trees_are_listed_and_read() {
    let (env, tree) = world();
    assert_eq!(env.cbs(&["store", "ls", "app:1"]).ok().stdout, "large\nsmall\n");
    assert_eq!(env.cbs(&["store", "cat", "app:1:small"]).ok().stdout, "hello\n");
    assert_eq!(
        env.cbs(&["store", "cat", &format!("{tree}:/small")]).ok().stdout,
        "hello\n"
    );
    assert!(env.cbs(&["store", "roots"]).ok().stdout.contains(&tree.to_string()));
    env.cbs(&["store", "ls", "app:2"]).fails_with(&["app:2", "app:1"]);
    env.cbs(&["store", "cat", "app:1:none"]).fails_with(&["none"]);
    env.cbs(&["--store", &env.at("nowhere"), "du"]).fails_with(&["nowhere"]);
}

#[test]
fn gc_takes_what_nothing_keeps() {
    let (env, _) = world();
    let dry = env.cbs(&["gc", "--dry-run"]).ok().stdout;
    assert!(dry.contains("app:1"), "the root is explained: {dry}");
    let du = |env: &TestEnv| -> serde_json::Value {
        serde_json::from_str(&env.cbs(&["du", "--json"]).ok().stdout).expect("JSON")
    };
    assert_eq!(du(&env)["disk"]["largeBlobs"]["count"], 2);
    env.cbs(&["gc", "--all"]).ok();
    assert_eq!(du(&env)["disk"]["largeBlobs"]["count"], 1);
    assert_eq!(env.cbs(&["store", "cat", "app:1:large"]).ok().stdout.len(), LARGE);
    env.cbs(&["store", "unroot", "app:1"]).ok();
    env.cbs(&["store", "unroot", "app:1"]).fails_with(&["app:1"]);
    env.cbs(&["gc", "--all"]).ok();
    assert_eq!(du(&env)["disk"]["largeBlobs"]["count"], 0);
    env.cbs(&["gc", "--max-used-space", "3parsecs"])
        .fails_with(&["parsecs"]);
}

#[test]
fn damage_is_named_and_mended() {
    let (env, _) = world();
    env.cbs(&["store", "verify"]).ok();
    let hex = cbs_store::BlobDigest::of(&vec![b'x'; LARGE]).to_string();
    let path = env.path("store/blobs").join(&hex[..2]).join(&hex);
    fs::remove_file(&path).expect("blob file");
    fs::write(&path, vec![b'z'; LARGE]).expect("write");
    let said = env.cbs(&["store", "verify"]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains(&hex), "{}", said.stdout);
    let said = env.cbs(&["store", "verify", "--repair"]);
    assert!(
        said.stdout.contains(&hex) && said.stdout.contains("mended"),
        "{}",
        said.stdout
    );
}

#[test]
fn mount_shows_trees_and_ends_with_an_interrupt_as_root() {
    let (env, tree) = world();
    let mut child = env
        .cbs_command(&["mount", &env.at("mnt")])
        .stderr(Stdio::null())
        .spawn()
        .expect("cbs starts");
    let file = env.path("mnt").join(tree.to_string()).join("large");
    let start = Instant::now();
    while !file.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nothing appears below the mount"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read(&file).expect("read").len(), LARGE);
    assert_eq!(
        fs::read_to_string(env.path("mnt/app:1/small")).expect("by name"),
        "hello\n"
    );
    env.tool("kill", &["-INT", &child.id().to_string()]).ok();
    assert!(child.wait().expect("wait").success());
    env.nothing_left();
}

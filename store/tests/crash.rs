//! Processes killed at any instant, and several at once on one store.
//!
//! A test starts this very program again, told by its environment to be a child: it works on the store until it is
//! killed. Whatever the instant, the store must open, verify clean, and have all that was committed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cbs_store::{
    Access, BlobDigest, BlobStore, CacheKey, Directory, DirectoryStore, DryRun, Entry, GcPolicy, GcRoot, Metadata,
    Node, Realisation, Repair, Sharing, Snapshot, Store,
};

/// Names the store to a child, and its role.
const CHILD: &str = "CBS_CRASH_TEST_CHILD";

/// Stands before what a child says; the test harness says other things.
const SAID: &str = "child: ";

/// Bytes that differ with `seed`.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut out {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    out
}

fn content(seed: u64) -> Vec<u8> {
    bytes(seed, (seed as usize * 1_237) % 40_000)
}

/// A tree of 20 files, which ones depends on `seed`.
fn put_tree(store: &Store, seed: u64) -> Snapshot {
    let mut directory = Directory::empty_root();
    for number in 0..20 {
        let content = content(seed % 7 * 10 + number);
        let blob = store.put_bytes(&content).expect("put");
        directory.set(Entry {
            name: number.to_string().into_bytes(),
            meta: Metadata::new(0o644),
            node: Node::File {
                blob,
                size: content.len() as u64,
                link: None,
            },
        });
    }
    let tree = store.put_directory(directory).expect("put directory").digest;
    Snapshot { tree, layers: vec![] }
}

fn key(seed: u64) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    CacheKey::from_bytes(bytes)
}

fn run(snapshot: Snapshot) -> Realisation {
    Realisation {
        outputs: vec![Some(snapshot)],
        name: "step".to_owned(),
        duration: Duration::ZERO,
        peak_memory: 0,
        log: None,
        key_parts: vec![],
        created: 0,
    }
}

/// Puts trees, realisations and roots for ever, and says what it has committed.
fn work(store: &Store, start: u64) {
    for seed in start.. {
        let lease = store.lease().expect("lease");
        let dir = lease.new_dir("upper").expect("scratch");
        std::fs::write(dir.join("large"), bytes(seed, 50_000)).expect("write");
        store.adopt_file(&dir.join("large")).expect("adopt");
        let snapshot = put_tree(store, seed);
        if seed % 3 == 0 {
            let root = GcRoot {
                name: format!("root {}", seed % 6),
                snapshots: vec![snapshot],
                payload: vec![],
                created: 0,
            };
            store.set_root(&root).expect("root");
            println!("{SAID}root {}", root.name);
        } else {
            store.put_realisation(&key(seed), &run(snapshot)).expect("realisation");
            println!("{SAID}run {seed}");
        }
        let mut cache = store
            .cache_mount("id", Sharing::Private, &|| false)
            .expect("mount")
            .expect("not cancelled");
        cache.seeded().expect("seeded");
        store.put_oci_bytes(&content(seed)).expect("put");
    }
}

/// Collects for ever, hard and soft.
fn collect(store: &Store) {
    for round in 0_u64.. {
        let policy = GcPolicy {
            all: round % 3 == 0,
            max_used: (round % 2 == 0).then_some(5 << 20),
            ..GcPolicy::default()
        };
        store.gc(&policy, DryRun::No).expect("gc");
        println!("{SAID}gc {round}");
    }
}

/// Not a test of its own: what the children run.
#[test]
fn child() {
    let Some(role) = std::env::var_os(CHILD) else { return };
    let role = role.into_string().expect("text");
    let (role, path) = role.split_once(':').expect("role:path");
    let store = Store::open(Path::new(path), Access::ReadWrite).expect("open");
    match role.split_once('=') {
        Some(("work", start)) => work(&store, start.parse().expect("number")),
        _ => collect(&store),
    }
}

fn start(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{role}:{}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a child")
}

/// Kills a child after a while; gives what it had said.
fn kill_after(mut child: Child, lines: usize, pause: Duration) -> Vec<String> {
    let stdout = child.stdout.take().expect("piped");
    let mut said = Vec::new();
    let mut output = BufReader::new(stdout);
    let mut line = String::new();
    while said.len() < lines {
        line.clear();
        if output.read_line(&mut line).expect("read") == 0 {
            let mut why = String::new();
            child
                .stderr
                .take()
                .expect("piped")
                .read_to_string(&mut why)
                .expect("read");
            panic!("the child ended by itself: {why}");
        }
        said.extend(after_mark(&line));
    }
    std::thread::sleep(pause);
    child.kill().expect("kill");
    child.wait().expect("wait");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("read");
    // The last line may be cut short, and then nothing follows from it.
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    said.extend(whole.lines().filter_map(after_mark));
    said
}

fn after_mark(line: &str) -> Option<String> {
    line.split_once(SAID).map(|(_, said)| said.trim().to_owned())
}

fn check(path: &Path) {
    let store = Store::open(path, Access::ReadWrite).expect("open after a kill");
    let report = store.verify(Repair::No).expect("verify");
    assert_eq!(report.problems, []);
}

/// A pause that differs from round to round, without a clock or chance.
fn pause(round: u64) -> Duration {
    Duration::from_micros(round * 7_919 % 23_000)
}

fn new_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("store");
    (folder, path)
}

#[test]
fn a_killed_writer_loses_nothing_it_had_committed() {
    let (_folder, path) = new_folder();
    let mut committed = Vec::new();
    for round in 0..8 {
        let said = kill_after(start(&format!("work={}", round * 1_000), &path), 4, pause(round));
        committed.extend(said);
        check(&path);
    }
    let store = Store::open(&path, Access::ReadWrite).expect("open");
    let mut runs = 0;
    for line in committed.iter().filter_map(|line| line.strip_prefix("run ")) {
        let seed: u64 = line.parse().expect("number");
        let found = store.realisation(&key(seed)).expect("look").expect("it was committed");
        let tree = found.outputs[0].as_ref().expect("an output").tree;
        assert!(store.is_complete(&tree).expect("look"));
        let directory = store.need_directory(&tree).expect("here");
        for entry in &directory.entries {
            let Node::File { blob, size, .. } = entry.node else {
                panic!("{entry:?}")
            };
            assert_eq!(store.blob(&blob).expect("look").expect("here").size(), size);
        }
        runs += 1;
    }
    assert!(runs > 8, "{committed:?}");
    // A lease sweeps what the dead left, in the background, before the store closes.
    drop(store.lease().expect("lease"));
    drop(store);
    let left = std::fs::read_dir(path.join("work")).expect("list").count();
    assert_eq!(left, 0);
}

#[test]
fn killed_collectors_and_writers_leave_a_sound_store() {
    let (_folder, path) = new_folder();
    for round in 0..8 {
        let collectors = [start("gc", &path), start("gc", &path)];
        let writers: HashMap<u64, Child> = (0..2)
            .map(|writer| (writer, start(&format!("work={}", (round * 2 + writer) * 1_000), &path)))
            .collect();
        for (writer, child) in writers {
            kill_after(child, 3, pause(round * 3 + writer));
            if round % 2 == 0 {
                // Beside the others, which are still at work.
                let store = Store::open(&path, Access::ReadWrite).expect("open beside them");
                let lease = store.lease().expect("lease");
                let snapshot = put_tree(&store, round);
                store.flush().expect("flush");
                assert!(store.is_complete(&snapshot.tree).expect("look"));
                assert!(
                    store
                        .blob(&BlobDigest::of(&content(round % 7 * 10)))
                        .expect("look")
                        .is_some()
                );
                drop(lease);
            }
        }
        for (number, child) in (0..).zip(collectors) {
            kill_after(child, 1, pause(round * 5 + number));
        }
        check(&path);
    }
    // And one that is left alone cleans up.
    let store = Store::open(&path, Access::ReadWrite).expect("open");
    for root in store.gc_roots().expect("list") {
        for snapshot in &root.snapshots {
            assert!(store.is_complete(&snapshot.tree).expect("look"), "root {}", root.name);
        }
        store.remove_root(&root.name).expect("remove");
    }
    let all = GcPolicy {
        all: true,
        ..GcPolicy::default()
    };
    let report = store.gc(&all, DryRun::No).expect("gc");
    let disk = store.disk_use().expect("measure");
    let content = disk.large.bytes + disk.packs.bytes + disk.layers.bytes + disk.caches.bytes + disk.work;
    assert_eq!(content, 0, "{disk:?} after {report:?}");
}

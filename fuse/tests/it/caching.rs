//! What the kernel keeps, and what it lets go.

use std::fs;
use std::time::{Duration, Instant};

use cbs_fuse::{LowerMode, RequestCounts, RunMount};
use cbs_store::{Node, TreeDigest};

use crate::common::{World, entry, shell, walk};

#[test]
fn answers_are_asked_for_once_needs_root() {
    let Some(world) = World::new() else { return };
    let below = world.put(vec![
        world.file("file", b"bytes"),
        entry("link", 0o777, Node::Symlink(b"file".to_vec())),
    ]);
    let tree = world.put_root(vec![entry("dir", 0o755, Node::Directory(below))]);
    let run = world.run(LowerMode::DataOnly);
    let view = run.view(tree);
    let overlay = world.overlay(&view, "o");
    let ask = |root: &std::path::Path| {
        for missing in ["missing", "dir/missing", "dir/missing/below"] {
            assert!(!root.join(missing).exists());
        }
        assert_eq!(
            fs::read_link(root.join("dir/link")).expect("link"),
            std::path::Path::new("file")
        );
        assert_eq!(fs::read(root.join("dir/link")).expect("read"), b"bytes");
        assert_eq!(walk(root).len(), 3);
    };
    for root in [view.path(), &overlay.merged] {
        ask(root);
        let before = run.counts();
        for _ in 0..3 {
            ask(root);
        }
        assert_eq!(run.counts(), before, "{root:?}");
    }
}

/// `directories` directories of 100 files each.
fn wide(world: &World, seed: u32, directories: usize) -> TreeDigest {
    let file = world.file("x", format!("{seed}").as_bytes());
    let files = (0..100)
        .map(|number| {
            let mut file = file.clone();
            file.name = format!("file{number}").into_bytes();
            file
        })
        .collect();
    let below = world.put(files);
    world.put_root(
        (0..directories)
            .map(|number| entry(format!("dir{number}"), 0o755, Node::Directory(below)))
            .collect(),
    )
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn trees_out_of_use_are_dropped_when_there_are_too_many_entries_needs_root() {
    let Some(world) = World::new() else { return };
    let mut config = world.config(LowerMode::DataOnly);
    config.entry_budget = 150_000;
    let run = RunMount::mount(config).expect("mount");
    let in_use = wide(&world, 0, 10);
    let in_use = run.view(in_use);
    assert_eq!(walk(in_use.path()).len(), 1010);
    let mut peak = 0;
    for seed in 1..=5 {
        let view = run.view(wide(&world, seed, 1000));
        assert_eq!(
            shell(&format!("find '{}' -type f -printf x | wc -c", view.path().display())).trim(),
            "100000"
        );
        peak = peak.max(run.known_entries());
    }
    // Budget, the tree being walked, and the one in use.
    assert!(peak <= 150_000 + 101_001 + 1_011, "{peak} entries known");
    // The tree in use was never dropped. (Dropping others makes the kernel ask for the attributes of the mount's root, and
    // it may not be done with giving their nodes back.)
    let counts = || RequestCounts {
        getattr: 0,
        forget: 0,
        ..run.counts()
    };
    let before = counts();
    assert_eq!(walk(in_use.path()).len(), 1010);
    assert_eq!(counts(), before);
    // The next tree makes the rest go.
    let last = run.view(wide(&world, 9, 1));
    assert_eq!(walk(last.path()).len(), 101);
    wait_until("the kernel did not let go", || run.known_entries() < 150_000);
}

#[test]
fn memory_goes_back_when_the_kernel_forgets_needs_root() {
    let Some(world) = World::new() else { return };
    let run = world.run(LowerMode::DataOnly);
    let observed = {
        let observer = std::sync::Arc::new(crate::observe::Recorder::default());
        let view = run.observed_view(wide(&world, 1, 1000), observer);
        let found = shell(&format!("find '{}' -type f -printf x | wc -c", view.path().display()));
        assert_eq!(found.trim(), "100000");
        assert_eq!(run.known_entries(), 101_001);
        view.path().to_owned()
    };
    // A view that nobody can come back to is dropped at once.
    wait_until("the kernel did not let go", || run.known_entries() == 0);
    assert!(!observed.exists());
}

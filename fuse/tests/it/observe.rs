//! What an observer is told.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use cbs_fuse::{LowerMode, Observer, Use};
use cbs_store::Node;

use crate::common::{World, entry, noise};

/// Remembers everything.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<BTreeSet<(String, Use)>>);

impl Observer for Recorder {
    fn observe(&self, path: &[u8], used: Use) {
        let path = String::from_utf8_lossy(path).into_owned();
        self.0.lock().expect("unpoisoned").insert((path, used));
    }
}

impl Recorder {
    fn take(&self) -> Vec<(String, Use)> {
        std::mem::take(&mut *self.0.lock().expect("unpoisoned"))
            .into_iter()
            .collect()
    }
}

#[test]
fn each_view_sees_its_own_first_uses_needs_root() {
    let Some(world) = World::new() else { return };
    let below = world.put(vec![
        world.file("small", b"small"),
        world.file("large", &noise(100_000, 1)),
        world.file("unread", &noise(100_000, 2)),
        entry("link", 0o777, Node::Symlink(b"small".to_vec())),
    ]);
    let tree = world.put_root(vec![
        entry("dir", 0o755, Node::Directory(below)),
        world.file("other", b"x"),
    ]);
    let run = world.run(LowerMode::Plain);
    let plain = run.view(tree);
    fs::read(plain.path().join("dir/small")).expect("read");
    for name in ["first", "second"] {
        let recorder = Arc::new(Recorder::default());
        let view = run.observed_view(tree, Arc::clone(&recorder) as Arc<dyn Observer>);
        let overlay = world.overlay(&view, name);
        assert_eq!(recorder.take(), []);
        let root = &overlay.merged;
        fs::read(root.join("dir/link")).expect("read");
        fs::read(root.join("dir/large")).expect("read");
        fs::metadata(root.join("dir/unread")).expect("stat");
        assert!(!root.join("dir/missing").exists());
        let want = [
            ("dir", Use::Hit),
            ("dir/large", Use::Hit),
            ("dir/large", Use::Read),
            ("dir/link", Use::Hit),
            ("dir/link", Use::ReadLink),
            ("dir/missing", Use::Miss),
            ("dir/small", Use::Hit),
            ("dir/small", Use::Read),
            ("dir/unread", Use::Hit),
        ];
        assert_eq!(recorder.take(), want.map(|(path, used)| (path.to_owned(), used)));
        fs::read_dir(root).expect("list").count();
        assert_eq!(recorder.take(), [(String::new(), Use::List)]);
    }
}

#[test]
fn data_only_views_report_large_files_at_lookup_needs_root() {
    let Some(world) = World::new() else { return };
    let tree = world.put_root(vec![world.file("large", &noise(100_000, 1)), world.file("small", b"x")]);
    let run = world.run(LowerMode::DataOnly);
    let recorder = Arc::new(Recorder::default());
    let view = run.observed_view(tree, Arc::clone(&recorder) as Arc<dyn Observer>);
    let overlay = world.overlay(&view, "o");
    for name in ["large", "small"] {
        fs::metadata(overlay.merged.join(name)).expect("stat");
    }
    let want = [("large", Use::Hit), ("large", Use::Read), ("small", Use::Hit)];
    assert_eq!(recorder.take(), want.map(|(path, used)| (path.to_owned(), used)));
}

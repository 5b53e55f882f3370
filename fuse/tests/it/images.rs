//! Trees that are used much get an image, and nothing but speed changes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cbs_fuse::{ImageConfig, LowerMode, RunConfig, RunMount, View};
use cbs_store::TreeDigest;

use crate::caching::wait_until;
use crate::common::{World, load, noise, shell, xattr};
use crate::mirror::{assert_same, zoo};

fn config(world: &World, budget: u64) -> RunConfig {
    RunConfig {
        images: Some(ImageConfig {
            folder: world.path("images"),
            mounts: world.folder("image-mounts"),
            budget,
        }),
        ..world.config(LowerMode::DataOnly)
    }
}

/// Asks enough about a tree to make an image worth it.
fn ask_much(view: &View) {
    for _ in 0..2048 {
        // Attributes are never cached.
        assert_eq!(xattr(view.path(), b"user.none"), None);
    }
}

fn images(world: &World) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(world.path("images")) else {
        return Vec::new();
    };
    found.map(|entry| entry.expect("entry").path()).collect()
}

fn view_with_image(world: &World, run: &RunMount, tree: TreeDigest) -> View {
    let view = run.view(tree);
    if view.lower_dir() == view.path() {
        let before = images(world).len();
        ask_much(&view);
        wait_until("no image was made", || images(world).len() > before);
    }
    let view = run.view(tree);
    assert_ne!(view.lower_dir(), view.path(), "the image is not used");
    view
}

#[test]
fn an_overlay_over_an_image_equals_the_directory_needs_root() {
    let Some(world) = World::new() else { return };
    let original = world.folder("original");
    zoo(&original);
    shell(&format!(
        "cd '{}'; mkdir many; for n in $(seq 700); do echo $n > many/entry-$n-with-a-long-name; done; mkdir -p deep/{1}; ln -s {2} long-link",
        original.display(),
        "d/".repeat(60),
        "/x".repeat(2000),
    ));
    let tree = load(&world.store, &original);
    let run = RunMount::mount(config(&world, 1 << 30)).expect("mount");
    let view = view_with_image(&world, &run, tree);
    let overlay = world.overlay(&view, "o");
    let before = run.counts();
    assert_same(&original, &overlay.merged);
    assert_eq!(run.counts(), before, "the kernel had to ask");
    // The tree itself is still there for those who read it without an overlay.
    assert_same(&original, view.path());

    let large = overlay.merged.join("a/b/large");
    let mut file = OpenOptions::new().append(true).open(&large).expect("open");
    file.write_all(b"more").expect("append");
    assert!(fs::read(&large).expect("read") == [noise(3_000_001, 3), b"more".to_vec()].concat());
    shell(&format!(
        "cd '{}'; rm -r many; mkdir many; mv a/small a/moved; chmod 700 suid; test -z \"$(ls many)\"; ./suid",
        overlay.merged.display()
    ));
    assert_eq!(
        xattr(&overlay.upper.join("many"), b"trusted.overlay.opaque"),
        Some(b"y".to_vec())
    );
    // Another overlay can still be put on top, as a container in a container does.
    let nested = world.folder("nested");
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        overlay.merged.display(),
        world.folder("nested-upper").display(),
        world.folder("nested-work").display()
    );
    shell(&format!(
        "mount -t overlay overlay -o {options} '{0}'; cat '{0}/a/moved'; umount '{0}'",
        nested.display()
    ));
}

#[test]
fn images_outlive_the_process_and_make_room_for_new_ones_needs_root() {
    let Some(world) = World::new() else { return };
    let trees: Vec<_> = (0..3)
        .map(|n| {
            let entries = (0..100)
                .map(|m| world.file(format!("f{m}"), &noise(10_000, n * 100 + m + 1)))
                .collect();
            world.put_root(entries)
        })
        .collect();
    let size = |path: &Path| fs::metadata(path).expect("stat").blocks() * 512;
    {
        let run = RunMount::mount(config(&world, 5 << 19)).expect("mount");
        view_with_image(&world, &run, trees[0]);
        let image = &images(&world)[0];
        assert!((1_000_000..1_300_000).contains(&size(image)), "{}", size(image));
        view_with_image(&world, &run, trees[1]);
    }
    assert_eq!(
        std::sync::Arc::strong_count(&world.store),
        1,
        "the store is still in use"
    );
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains("erofs"), "{mounts}");
    assert_eq!(fs::read_dir(world.path("image-mounts")).expect("list").count(), 0);

    let run = RunMount::mount(config(&world, 5 << 19)).expect("mount");
    for tree in [trees[1], trees[0]] {
        let view = run.view(tree);
        assert_ne!(view.lower_dir(), view.path(), "the image is not used");
    }
    // Only two fit: the one that was not used for longest goes.
    let before = images(&world);
    ask_much(&run.view(trees[2]));
    let name = |tree: TreeDigest| move |path: &PathBuf| path.display().to_string().contains(&tree.to_string());
    wait_until("no image was made", || images(&world).iter().any(name(trees[2])));
    let after = images(&world);
    assert_eq!((before.len(), after.len()), (2, 2));
    assert!(!after.iter().any(name(trees[1])), "{after:?}");
    // Those who use it do not notice.
    let overlay = world.overlay(&run.view(trees[1]), "o");
    assert!(fs::read(overlay.merged.join("f5")).expect("read") == noise(10_000, 106));
}

#[test]
fn a_damaged_image_is_not_used_needs_root() {
    let Some(world) = World::new() else { return };
    let tree = world.put_root(vec![world.file("file", b"content")]);
    let folder = world.folder("images");
    fs::write(folder.join(format!("{tree}.1.erofs")), noise(100_000, 1)).expect("write");
    let run = RunMount::mount(config(&world, 1 << 20)).expect("mount");
    let view = run.view(tree);
    assert_eq!(view.lower_dir(), view.path());
    let overlay = world.overlay(&view, "o");
    assert_eq!(fs::read(overlay.merged.join("file")).expect("read"), b"content");
}

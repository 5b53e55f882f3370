//! Flattened exports: folders and tars.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use cbs_image::ImageError;
use cbs_image::export::{
    Destination, LocalMode, LocalOptions, Owners, PlatformSplit, RootfsOptions, RootfsTime, write_local,
    write_rootfs_tar,
};
use cbs_image::platform::Platform;
use cbs_store::TreeDigest;

use super::support::*;

fn options(roots: &[(&str, TreeDigest)]) -> LocalOptions {
    LocalOptions {
        rootfs: RootfsOptions {
            roots: roots
                .iter()
                .map(|(name, tree)| (name.parse::<Platform>().expect("platform"), *tree))
                .collect(),
            platform_split: PlatformSplit::Together,
            time: RootfsTime::Keep,
        },
        mode: LocalMode::Copy,
        owners: Owners::Caller,
    }
}

fn export(world: &World, options: &LocalOptions, dest: &Path) -> Result<(), ImageError> {
    write_local(&world.store, options, dest, &|| false)
}

#[test]
fn files_modes_times_links() {
    let world = World::new();
    let dest = world.path("out");
    let noise = "x".repeat(100_000);
    let tree = world.tree(
        None,
        &format!("d d 555\nf d/large 4755 {noise}\nf small 600 text\nl link ../out\np pipe 640\nd empty 1777"),
    );
    for _ in 0..2 {
        export(&world, &options(&[("linux/amd64", tree)]), &dest).expect("export");
        let meta = |name: &str| std::fs::symlink_metadata(dest.join(name)).expect(name);
        assert_eq!(std::fs::read(dest.join("d/large")).expect("large"), noise.as_bytes());
        assert_eq!(std::fs::read(dest.join("small")).expect("small"), b"text");
        assert_eq!(
            std::fs::read_link(dest.join("link")).expect("link"),
            Path::new("../out")
        );
        for (name, mode) in [
            ("d", 0o555),
            ("d/large", 0o4755),
            ("small", 0o600),
            ("pipe", 0o640),
            ("empty", 0o1777),
        ] {
            assert_eq!(meta(name).permissions().mode() & 0o7777, mode, "{name}");
            assert_eq!(meta(name).mtime(), 1_600_000_000, "{name}");
        }
        assert!(meta("pipe").file_type().is_fifo());
    }
    let linked = world.linked(b"shared");
    export(&world, &options(&[("linux/amd64", linked)]), &dest).expect("export");
    export(&world, &options(&[("linux/amd64", linked)]), &dest).expect("export again");
    let meta = |name: &str| std::fs::metadata(dest.join(name)).expect(name);
    assert_eq!(meta("one").ino(), meta("two").ino());
    assert_eq!(meta("one").nlink(), 2);
    assert!(dest.join("small").exists(), "what was there stays");
    let names = std::fs::read_dir(&dest).expect("folder");
    assert!(
        !names
            .map(|name| name.expect("name").file_name())
            .any(|name| name.to_string_lossy().contains(".cbs"))
    );
}

#[test]
fn what_a_killed_export_left_goes_and_one_at_work_is_left_alone() {
    let world = World::new();
    let dest = world.path("out");
    let tree = world.tree(None, "f small 600 text");
    std::fs::create_dir_all(dest.join(".cbs-export-0")).expect("a dead one");
    std::fs::write(dest.join(".cbs-export-0/1"), "half").expect("write");
    std::fs::create_dir(dest.join(".cbs-export-3")).expect("a living one");
    let living = std::fs::File::open(dest.join(".cbs-export-3")).expect("open");
    living.lock().expect("lock");
    let mut options = options(&[("linux/amd64", tree)]);
    for mode in [LocalMode::Copy, LocalMode::Delete] {
        options.mode = mode;
        export(&world, &options, &dest).expect("export");
        let entries = std::fs::read_dir(&dest).expect("list");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        assert_eq!(names, [".cbs-export-3", "small"], "{mode:?}");
    }
}

#[test]
fn nothing_is_written_outside() {
    let world = World::new();
    let (dest, outside) = (world.path("out"), world.path("outside"));
    std::fs::create_dir_all(&dest).expect("dest");
    std::fs::create_dir_all(&outside).expect("outside");
    std::fs::write(outside.join("file"), "old").expect("file");
    symlink(&outside, dest.join("dir")).expect("link");
    symlink(outside.join("file"), dest.join("file")).expect("link");
    let tree = world.tree(None, "f dir/new 644 new\nf file 644 new");
    export(&world, &options(&[("linux/amd64", tree)]), &dest).expect("export");
    assert_eq!(std::fs::read(outside.join("file")).expect("file"), b"old");
    assert_eq!(std::fs::read_dir(&outside).expect("outside").count(), 1);
    assert_eq!(std::fs::read(dest.join("dir/new")).expect("new"), b"new");
    assert!(std::fs::symlink_metadata(dest.join("file")).expect("file").is_file());
}

#[test]
fn kinds_replace_each_other() {
    let world = World::new();
    let dest = world.path("out");
    let one = world.tree(None, "f a 644 file\nf b/c/d 644 deep");
    let two = world.tree(None, "f a/b 644 below\nf b 644 file");
    for tree in [one, two, one] {
        export(&world, &options(&[("linux/amd64", tree)]), &dest).expect("export");
    }
    assert!(dest.join("a").is_file());
    assert!(dest.join("b/c/d").is_file());
}

#[test]
fn delete_mirrors() {
    let world = World::new();
    let dest = world.path("out");
    std::fs::create_dir_all(dest.join("old/deep")).expect("old");
    std::fs::write(dest.join("old/deep/file"), "x").expect("file");
    std::fs::create_dir_all(dest.join("kept")).expect("kept");
    std::fs::write(dest.join("kept/gone"), "x").expect("file");
    let mut options = options(&[("linux/amd64", world.tree(None, "f kept/file 644 x"))]);
    options.mode = LocalMode::Delete;
    export(&world, &options, &dest).expect("export");
    assert!(!dest.join("old").exists() && !dest.join("kept/gone").exists() && dest.join("kept/file").exists());
}

#[test]
fn several_platforms() {
    let world = World::new();
    let one = world.tree(None, "f bin/app 755 amd64\nd shared 755\nf etc/amd 644 x");
    let two = world.tree(None, "f bin/app 755 arm\nd shared 755\nf etc/arm 644 x");
    let mut options = options(&[("linux/amd64", one), ("linux/arm/v7", two)]);
    let err = export(&world, &options, &world.path("together")).expect_err("both have bin/app");
    assert_eq!(
        err.to_string(),
        "cannot overwrite /bin/app from linux/amd64 with linux/arm/v7 when split option is disabled"
    );
    options.rootfs.platform_split = PlatformSplit::Folders;
    options.rootfs.time = RootfsTime::Set(86_400);
    let dest = world.path("split");
    export(&world, &options, &dest).expect("export");
    assert_eq!(std::fs::read(dest.join("linux_arm_v7/bin/app")).expect("arm"), b"arm");
    assert_eq!(
        std::fs::metadata(dest.join("linux_amd64/etc")).expect("etc").mtime(),
        86_400
    );
    let apart = world.tree(None, "f etc/other 644 y");
    options.rootfs.roots[1].1 = apart;
    options.rootfs.platform_split = PlatformSplit::Together;
    let dest = world.path("merged");
    export(&world, &options, &dest).expect("export");
    assert!(dest.join("etc/amd").exists() && dest.join("etc/other").exists() && dest.join("bin/app").exists());
}

#[test]
fn a_tar_holds_the_root() {
    let world = World::new();
    let tree = world.sample().tree;
    let path = world.path("root.tar");
    let rootfs = options(&[("linux/amd64", tree)]).rootfs;
    write_rootfs_tar(&world.store, &rootfs, Destination::File(&path)).expect("tar");
    let mut stream = Vec::new();
    write_rootfs_tar(&world.store, &rootfs, Destination::Stream(&mut stream)).expect("tar");
    assert!(std::fs::read(&path).expect("tar") == stream);
    let Some(listing) = must("tar", &["-tvf", &path.display().to_string()]) else {
        return;
    };
    for part in ["etc/os-release", "bin/sh -> tool", "tmp/"] {
        assert!(listing.contains(part), "{part} in {listing}");
    }
    assert!(!listing.contains("passwd") && !listing.contains(".wh."), "{listing}");
}

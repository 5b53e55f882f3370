//! A tree in a mount looks like the directory it was made from.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cbs_fuse::LowerMode;
use cbs_store::INLINE_LIMIT;

use crate::common::{World, load, noise, shell, walk, xattr, xattrs};

const MODES: [LowerMode; 2] = [LowerMode::DataOnly, LowerMode::Plain];

/// A directory with one of everything.
pub(crate) fn zoo(at: &Path) {
    fs::create_dir_all(at.join("a/b/c")).expect("mkdir");
    fs::write(at.join("empty"), "").expect("write");
    fs::write(at.join("a/small"), "small\n").expect("write");
    fs::write(at.join("a/at-limit"), noise(INLINE_LIMIT as usize, 1)).expect("write");
    fs::write(at.join("a/above-limit"), noise(INLINE_LIMIT as usize + 1, 2)).expect("write");
    fs::write(at.join("a/64k"), noise(64 << 10, 4)).expect("write");
    fs::write(at.join("a/above-64k"), noise((64 << 10) + 1, 5)).expect("write");
    fs::write(at.join("a/b/large"), noise(3_000_001, 3)).expect("write");
    for name in [
        &b"\xff\xfe not utf-8"[..],
        b"new\nline",
        b"tr\xc3\xa4ge",
        b"-dash",
        b"a:b,c\\d",
        b"\x01",
    ] {
        fs::write(at.join(std::ffi::OsStr::from_bytes(name)), name).expect("write");
    }
    fs::write(at.join("n".repeat(255)), "long name").expect("write");
    shell(&format!(
        r"cd '{}'
        ln -s a/small link; ln -s /nowhere/at/all dangling; ln -s . a/loop
        ln a/small a/b/hard; ln a/small hard2; ln a/b/large a/hard-large
        mkfifo fifo; mknod null c 1 3; mknod big c 500 70000; mknod disk b 8 300
        cp /bin/true suid; chmod 4755 suid; chmod 2750 a/b; chmod 1777 a/b/c; chmod 000 empty; chown 12:345 a/small
        setfattr -n user.color -v red a/small 2>/dev/null || true
        touch -d '1960-02-03 04:05:06.789' a/small; touch -d '2040-01-01' a; touch -h -d '2001-01-01' link",
        at.display()
    ));
    for (path, name, value) in [
        (
            "suid",
            "security.capability",
            &b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
        ),
        ("a/small", "user.color", b"red"),
        ("a/small", "user.empty", b""),
        ("a", "trusted.on-a-directory", b"x"),
        ("a/b/large", "user.large", &[7; 1000]),
    ] {
        rustix::fs::setxattr(at.join(path), name, value, rustix::fs::XattrFlags::empty()).expect("setxattr");
    }
}

/// Compares everything `stat`, `readlink`, `read` and `getxattr` tell.
pub(crate) fn assert_same(original: &Path, shown: &Path) {
    let paths = walk(original);
    assert_eq!(walk(shown), paths);
    for path in paths {
        let (want, got) = (original.join(&path), shown.join(&path));
        let (want_stat, got_stat) = (
            fs::symlink_metadata(&want).expect("stat"),
            fs::symlink_metadata(&got).expect("stat"),
        );
        let key = |stat: &fs::Metadata| {
            let size = if stat.is_dir() { 0 } else { stat.size() };
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            (
                stat.mode(),
                stat.uid(),
                stat.gid(),
                size,
                links,
                stat.rdev(),
                stat.mtime(),
                stat.mtime_nsec(),
            )
        };
        assert_eq!(key(&got_stat), key(&want_stat), "{path:?}");
        assert_eq!(xattrs(&got), xattrs(&want), "{path:?}");
        if want_stat.is_symlink() {
            assert_eq!(
                fs::read_link(&got).expect("read link"),
                fs::read_link(&want).expect("read link")
            );
        }
        if want_stat.is_file() {
            assert!(
                fs::read(&got).expect("read") == fs::read(&want).expect("read"),
                "{path:?} differs"
            );
        }
    }
}

#[test]
fn a_mounted_tree_equals_its_directory_needs_root() {
    let Some(world) = World::new() else { return };
    let original = world.folder("original");
    zoo(&original);
    let tree = load(&world.store, &original);
    for mode in MODES {
        let run = world.run(mode);
        let view = run.view(tree);
        assert_same(&original, view.path());
        assert_eq!(run.take_failure().map(|err| err.to_string()), None);
    }
}

#[test]
fn an_overlay_over_a_tree_equals_its_directory_needs_root() {
    let Some(world) = World::new() else { return };
    let original = world.folder("original");
    zoo(&original);
    let tree = load(&world.store, &original);
    for mode in MODES {
        let run = world.run(mode);
        let overlay = world.overlay(&run.view(tree), &format!("{mode:?}"));
        assert_same(&original, &overlay.merged);
        assert_eq!(
            xattr(&overlay.merged.join("a/b/large"), b"trusted.overlay.metacopy"),
            None
        );
        if mode == LowerMode::DataOnly {
            let counts = run.counts();
            let small = counts.read;
            fs::read(overlay.merged.join("a/above-64k")).expect("read");
            assert_eq!(run.counts().read, small);
        }
    }
}

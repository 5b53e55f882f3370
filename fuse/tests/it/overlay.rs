//! Programs that work in an overlay over a tree.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::thread;

use cbs_fuse::{LowerMode, probe};
use cbs_store::{INLINE_LIMIT, LinkGroup, Node, TreeDigest};

use crate::common::{World, entry, load, noise, shell, shell_output, xattr};

const MODES: [LowerMode; 2] = [LowerMode::DataOnly, LowerMode::Plain];

#[test]
fn probing_finds_the_fast_mode_and_leaves_nothing_needs_root() {
    let Some(world) = World::new() else { return };
    let scratch = world.folder("scratch");
    let mode = probe(&scratch, cbs_fuse::Privilege::detect()).expect("probe");
    assert_eq!(mode, LowerMode::DataOnly, "this kernel is known to support it");
    assert_eq!(fs::read_dir(&scratch).expect("list").count(), 0);
}

#[test]
fn equal_files_are_not_the_same_file_and_hard_links_are_needs_root() {
    let Some(world) = World::new() else { return };
    for size in [10, INLINE_LIMIT as usize * 2] {
        let bytes = noise(size, 5);
        let mut link = world.file("link1", &bytes);
        let Node::File { link: group, .. } = &mut link.node else {
            unreachable!()
        };
        *group = Some(LinkGroup { id: 77, count: 2 });
        let mut second = link.clone();
        second.name = b"link2".to_vec();
        let below = world.put(vec![world.file("a", &bytes), second]);
        let tree = world.put_root(vec![
            world.file("a", &bytes),
            world.file("b", &bytes),
            link,
            entry("sub1", 0o755, Node::Directory(below)),
            entry("sub2", 0o755, Node::Directory(below)),
        ]);
        for mode in MODES {
            let run = world.run(mode);
            let overlay = world.overlay(&run.view(tree), &format!("{mode:?}{size}"));
            let dir = overlay.merged.display();
            // GNU cp refuses when device and inode are equal.
            shell(&format!("cd '{dir}'; cp a b; cp sub1/a a; cp -r sub1 sub3; cmp a b"));
            let stat = |path: &str| fs::metadata(overlay.merged.join(path)).expect("stat");
            assert_eq!(stat("link1").nlink(), 2);
            assert_eq!(stat("link1").ino(), stat("sub1/link2").ino());
            assert_eq!(stat("link1").ino(), stat("sub2/link2").ino());
            assert_ne!(stat("sub1").ino(), stat("sub2").ino());
            assert_ne!(stat("sub1/a").ino(), stat("sub2/a").ino());
        }
    }
}

#[test]
fn lower_files_can_be_changed_needs_root() {
    let Some(world) = World::new() else { return };
    let (small, large) = (b"small\n".to_vec(), noise(2_000_000, 9));
    let below = world.put(vec![world.file("inner", &small)]);
    let tree = world.put_root(vec![
        world.file("small", &small),
        world.file("large", &large),
        world.file("removed", &large),
        world.file("chmod", &large),
        entry("dir", 0o755, Node::Directory(below)),
        entry("gone", 0o755, Node::Directory(below)),
    ]);
    for mode in MODES {
        let run = world.run(mode);
        let view = run.view(tree);
        let overlay = world.overlay(&view, &format!("{mode:?}"));
        for (name, bytes) in [("small", &small), ("large", &large)] {
            let path = overlay.merged.join(name);
            let mut file = OpenOptions::new().append(true).open(&path).expect("open");
            file.write_all(b"appended").expect("append");
            let want = [bytes.as_slice(), b"appended"].concat();
            assert!(fs::read(&path).expect("read") == want, "{mode:?} {name}");
            assert!(fs::read(overlay.upper.join(name)).expect("read") == want);
            assert!(
                fs::read(view.path().join(name)).expect("read") == *bytes,
                "the tree has changed"
            );
        }
        let dir = overlay.merged.display();
        shell(&format!(
            "cd '{dir}'; rm removed; rm -r gone; chmod 700 chmod; echo x > dir/new; mkdir gone; touch gone/fresh"
        ));
        assert!(!overlay.merged.join("removed").exists());
        assert!(
            fs::symlink_metadata(overlay.upper.join("removed"))
                .expect("whiteout")
                .file_type()
                .is_char_device()
        );
        assert_eq!(
            xattr(&overlay.upper.join("gone"), b"trusted.overlay.opaque"),
            Some(b"y".to_vec())
        );
        // With metacopy=off a change of mode copies the bytes up as well.
        assert!(fs::read(overlay.upper.join("chmod")).expect("read") == large);
        assert_eq!(xattr(&overlay.upper.join("chmod"), b"trusted.overlay.metacopy"), None);
        let listed = shell(&format!("cd '{dir}'; find . -mindepth 1 | sort | tr '\\n' ' '"));
        assert_eq!(
            listed,
            "./chmod ./dir ./dir/inner ./dir/new ./gone ./gone/fresh ./large ./small "
        );
        // Renaming a lower directory is refused with EXDEV, which mv understands.
        shell(&format!("cd '{dir}'; mv dir moved; test -e moved/inner; test ! -e dir"));
    }
}

#[test]
fn large_files_are_read_by_the_kernel_needs_root() {
    let Some(world) = World::new() else { return };
    let original = world.folder("original");
    fs::write(original.join("data"), noise(5_000_000, 3)).expect("write");
    // Executing maps the file.
    fs::copy("/bin/bash", original.join("bash")).expect("copy");
    let tree = load(&world.store, &original);
    let run = world.run(LowerMode::DataOnly);
    let overlay = world.overlay(&run.view(tree), "o");
    let dir = overlay.merged.display();
    shell(&format!(
        "cmp '{dir}/data' '{}/data'; '{dir}/bash' -c 'exit 0'",
        original.display()
    ));
    shell(&format!(
        "dd if='{dir}/data' of=/dev/null bs=64k iflag=direct status=none"
    ));
    let counts = run.counts();
    assert_eq!(counts.read, 0, "{counts:?}");
    assert!(counts.open <= 1, "one refusal of open is enough: {counts:?}");
    // The bytes are those of the blob file, and so is the page cache: it is mapped while the overlay maps it.
    assert_eq!(shell(&format!("stat -c %s '{dir}/data'")).trim(), "5000000");
}

#[test]
fn privileged_programs_keep_their_privileges_needs_root() {
    let Some(world) = World::new() else { return };
    let original = world.folder("original");
    // CAP_DAC_READ_SEARCH, permitted and effective, version 2.
    shell(&format!(
        "cd '{}'; cp /bin/cat capcat; cp /usr/bin/id suid-id; chmod 4755 suid-id; echo hidden > secret; chmod 600 secret; mknod null c 1 3; chmod 666 null; mkfifo fifo; chmod 755 .",
        original.display()
    ));
    let capability = b"\x01\0\0\x02\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::setxattr(
        original.join("capcat"),
        "security.capability",
        capability,
        rustix::fs::XattrFlags::empty(),
    )
    .expect("setxattr");
    shell(&format!("chmod 755 '{}'", world.path("").display()));
    let tree = load(&world.store, &original);
    for mode in MODES {
        let run = world.run(mode);
        let overlay = world.overlay(&run.view(tree), &format!("{mode:?}"));
        let dir = overlay.merged.display();
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
        assert_eq!(shell(&format!("{nobody} '{dir}/capcat' '{dir}/secret'")), "hidden\n");
        assert!(!shell_output(&format!("{nobody} cat '{dir}/secret'")).status.success());
        assert_eq!(shell(&format!("{nobody} '{dir}/suid-id' -u")), "0\n");
        shell(&format!("echo x > '{dir}/null'; test -c '{dir}/null'"));
        assert_eq!(
            shell(&format!(
                "(echo through > '{dir}/fifo') & timeout 5 cat '{dir}/fifo'; wait"
            )),
            "through\n"
        );
    }
}

#[test]
fn a_directory_of_ten_thousand_entries_needs_root() {
    let Some(world) = World::new() else { return };
    let file = world.file("x", b"x");
    let entries = (0..10_000)
        .map(|number| {
            let mut entry = file.clone();
            entry.name = format!("entry-{number}-{}", "n".repeat(number % 150)).into_bytes();
            entry
        })
        .collect();
    let below = world.put(entries);
    let tree = world.put_root(vec![entry("dir", 0o755, Node::Directory(below))]);
    for mode in MODES {
        let run = world.run(mode);
        let view = run.view(tree);
        let overlay = world.overlay(&view, &format!("{mode:?}"));
        for dir in [view.path().join("dir"), overlay.merged.join("dir")] {
            for _ in 0..2 {
                let names: BTreeSet<_> = fs::read_dir(&dir)
                    .expect("list")
                    .map(|e| e.expect("entry").file_name())
                    .collect();
                assert_eq!(names.len(), 10_000);
            }
            assert_eq!(shell(&format!("ls -l '{}' | wc -l", dir.display())).trim(), "10001");
        }
        File::create(overlay.merged.join("dir/new")).expect("create");
        fs::remove_file(overlay.merged.join("dir/entry-0-")).expect("remove");
        assert_eq!(fs::read_dir(overlay.merged.join("dir")).expect("list").count(), 10_000);
    }
}

#[test]
fn stored_overlay_attributes_are_content_needs_root() {
    let Some(world) = World::new() else { return };
    let secret = world.file("visible", b"still here");
    let below = world.put(vec![secret]);
    let mut dir = entry("dir", 0o755, Node::Directory(below));
    dir.meta.xattrs = vec![(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())];
    let mut file = world.file("file", &noise(100, 1));
    file.meta.xattrs = vec![
        (b"trusted.overlay.metacopy".to_vec(), Vec::new()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc/passwd".to_vec()),
        (b"user.overlay.redirect".to_vec(), b"/x".to_vec()),
    ];
    let tree = world.put_root(vec![dir, file]);
    for mode in MODES {
        let run = world.run(mode);
        let overlay = world.overlay(&run.view(tree), &format!("{mode:?}"));
        assert_eq!(
            fs::read(overlay.merged.join("dir/visible")).expect("read"),
            b"still here"
        );
        assert_eq!(fs::read(overlay.merged.join("file")).expect("read"), noise(100, 1));
        // As overlayfs shows a nested overlay's attributes to those above it.
        assert_eq!(
            xattr(&overlay.merged.join("dir"), b"trusted.overlay.opaque"),
            Some(b"y".to_vec())
        );
        let redirect = xattr(&overlay.merged.join("file"), b"trusted.overlay.redirect");
        assert_eq!(redirect, Some(b"/etc/passwd".to_vec()));
        assert_eq!(
            xattr(&overlay.merged.join("file"), b"user.overlay.redirect"),
            Some(b"/x".to_vec())
        );
    }
}

#[test]
fn whiteouts_are_no_files_of_a_mounted_tree_needs_root() {
    let Some(world) = World::new() else { return };
    let tree = world.put_root(vec![world.file("file", b"x"), entry("gone", 0, Node::Whiteout)]);
    let run = world.run(LowerMode::DataOnly);
    let view = run.view(tree);
    assert_eq!(fs::read_dir(view.path()).expect("list").count(), 1);
    assert!(fs::symlink_metadata(view.path().join("gone")).is_err());
}

#[test]
fn many_readers_of_many_trees_needs_root() {
    let Some(world) = World::new() else { return };
    let files: Vec<Vec<u8>> = (0..60).map(|n| noise(1 << (n % 20), n + 1)).collect();
    let trees: Vec<TreeDigest> = (0..6)
        .map(|tree| {
            let mut entries: Vec<_> = files
                .iter()
                .enumerate()
                .map(|(n, bytes)| world.file(format!("f{n}"), bytes))
                .collect();
            entries.push(world.file("which", format!("{tree}").as_bytes()));
            let below = world.put(entries.clone());
            entries.push(entry("below", 0o755, Node::Directory(below)));
            world.put_root(entries)
        })
        .collect();
    for mode in MODES {
        let run = world.run(mode);
        let overlays: Vec<_> = trees
            .iter()
            .enumerate()
            .map(|(n, tree)| world.overlay(&run.view(*tree), &format!("{mode:?}{n}")))
            .collect();
        thread::scope(|scope| {
            for reader in 0..12 {
                let (overlays, files) = (&overlays, &files);
                scope.spawn(move || {
                    for step in 0..files.len() {
                        let n = (step * 7 + reader * 5) % files.len();
                        let overlay = &overlays[(reader + step) % overlays.len()];
                        let folder = if step % 2 == 0 {
                            overlay.merged.clone()
                        } else {
                            overlay.merged.join("below")
                        };
                        let mut got = Vec::new();
                        File::open(folder.join(format!("f{n}")))
                            .expect("open")
                            .read_to_end(&mut got)
                            .expect("read");
                        assert!(got == files[n], "file {n}");
                    }
                });
            }
        });
        assert_eq!(run.take_failure().map(|err| err.to_string()), None);
    }
}

#[test]
fn what_the_store_lacks_is_an_error_that_says_so_needs_root() {
    let Some(world) = World::new() else { return };
    let missing = |size| Node::File {
        blob: cbs_store::BlobDigest::of(b"never stored"),
        size,
        link: None,
    };
    let reference = world.put(Vec::new());
    let nowhere = cbs_store::DirectoryRef {
        digest: TreeDigest::from_bytes([1; 32]),
        ..reference
    };
    let tree = world.put_root(vec![
        entry("small", 0o644, missing(12)),
        entry("large", 0o644, missing(1 << 20)),
        entry("dir", 0o755, Node::Directory(nowhere)),
        world.file("good", b"good"),
    ]);
    let run = world.run(LowerMode::Plain);
    let view = run.view(tree);
    for name in ["small", "large", "dir/x"] {
        let err = fs::read(view.path().join(name)).expect_err(name);
        assert_eq!(err.raw_os_error(), Some(5), "{name}");
        let failure = run.take_failure().expect("a reason").to_string();
        assert!(failure.ends_with("is not in the store"), "{failure}");
    }
    assert_eq!(fs::read(view.path().join("good")).expect("read"), b"good");
    let unknown = run.view(TreeDigest::from_bytes([2; 32]));
    assert_eq!(
        fs::metadata(unknown.path()).expect_err("unknown").kind(),
        std::io::ErrorKind::NotFound
    );
}

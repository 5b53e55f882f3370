use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::*;
use crate::edit::lookup;
use crate::patterns::PathFilter;
use crate::testing::{any_tree, check, dump, layer, tree};
use crate::{DirectoryStore, KnownIds, Metadata, Node, Timestamp, TreeDigest};

fn threads() -> NonZeroUsize {
    NonZeroUsize::new(3).expect("not zero")
}

/// Writes a tree to the disk, devices as root only.
fn write(store: &MemoryStore, root: &TreeDigest, dir: &Path) {
    let mut first = std::collections::HashMap::new();
    write_level(store, root, dir, &mut first);
}

fn write_level(
    store: &MemoryStore,
    root: &TreeDigest,
    dir: &Path,
    first: &mut std::collections::HashMap<u64, PathBuf>,
) {
    let directory = store.need_directory(root).expect("directory");
    if directory.opaque {
        rustix::fs::setxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("opaque");
    }
    for entry in &directory.entries {
        let path = dir.join(OsStr::from_bytes(&entry.name));
        let device = |kind, (major, minor)| {
            rustix::fs::mknodat(
                CWD,
                &path,
                kind,
                Mode::from_raw_mode(entry.meta.mode),
                rustix::fs::makedev(major, minor),
            )
            .expect("mknod");
        };
        match &entry.node {
            Node::Directory(below) => {
                std::fs::create_dir(&path).expect("mkdir");
                write_level(store, &below.digest, &path, first);
            }
            Node::Symlink(target) => std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).expect("symlink"),
            Node::CharDevice(major, minor) => device(FileType::CharacterDevice, (*major, *minor)),
            Node::BlockDevice(major, minor) => device(FileType::BlockDevice, (*major, *minor)),
            Node::Fifo => device(FileType::Fifo, (0, 0)),
            Node::Whiteout => device(FileType::CharacterDevice, (0, 0)),
            Node::File { blob, size, link } => {
                if let Some(known) = link.and_then(|link| first.get(&link.id)) {
                    std::fs::hard_link(known, &path).expect("link");
                    continue;
                }
                let mut bytes = vec![0; usize::try_from(*size).expect("size")];
                let blob = store.blob(blob).expect("blob").expect("blob");
                blob.read_at(&mut bytes, 0).expect("read");
                std::fs::write(&path, bytes).expect("write");
                if let Some(link) = link {
                    first.insert(link.id, path.clone());
                }
            }
        }
        adjust(&path, &entry.meta, &entry.node);
    }
}

fn adjust(path: &Path, meta: &Metadata, node: &Node) {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).expect("chown");
    if !matches!(node, Node::Symlink(_)) {
        rustix::fs::chmod(path, Mode::from_raw_mode(meta.mode)).expect("chmod");
    }
    for (name, value) in &meta.xattrs {
        rustix::fs::setxattr(path, name.as_slice(), value, XattrFlags::empty()).expect("attribute");
    }
    let time = Timespec {
        tv_sec: meta.mtime.seconds,
        tv_nsec: meta.mtime.nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimes");
}

/// Tests that make devices and owners need root.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, needs root");
    }
    root
}

mod owners;

static EVERYONE: LazyLock<KnownIds> = LazyLock::new(KnownIds::all);

fn upper_options(stubs: &[PathBuf]) -> UpperOptions<'_> {
    UpperOptions {
        stubs,
        attributes: OverlayAttributes::Trusted,
        owners: &EVERYONE,
        threads: threads(),
    }
}

#[track_caller]
fn ingests(lower: &str, upper: &str, stubs: &[&str], layer_text: &str, tree_text: &str) {
    let store = MemoryStore::default();
    let lower = tree(&store, lower);
    let dir = tempfile::tempdir().expect("tempdir");
    write(&store, &layer(&store, upper), dir.path());
    let stubs: Vec<PathBuf> = stubs.iter().map(PathBuf::from).collect();
    let ingested = upperdir(&store, dir.path(), &lower, &upper_options(&stubs)).expect("ingest");
    check(&store, &ingested.layer, layer_text);
    check(&store, &ingested.tree, tree_text);
}

#[test]
fn upper_directories_as_root() {
    if !is_root("upper_directories_as_root") {
        return;
    }
    ingests("", "", &[], "", "");
    ingests(
        "f a/x =1\n f a/y =2\n f b =",
        "d a 700 1:2 @5\n w a/x\n f a/z @3 =3",
        &[],
        "d a 700 1:2 @5\n w a/x\n f a/z @3 =3",
        "d a 700 1:2 @5\n f a/y =2\n f a/z @3 =3\n f b =",
    );
    // Opaque directories become a whiteout for each vanished child.
    ingests(
        "f d/x =1\n f d/y =2",
        "d d @4\n o d\n f d/y =2\n f d/z =3",
        &[],
        "d d @4\n w d/x\n f d/z =3",
        "d d @4\n f d/y =2\n f d/z =3",
    );
    // Copied up and not changed, also a directory of which only the time changed.
    ingests(
        "d d @1\n f d/x @2 =1",
        "d d @9\n f d/x @2 =1",
        &[],
        "",
        "d d @1\n f d/x @2 =1",
    );
    ingests("", "w never", &[], "", "");
    // Links: among new files they stay, to a file that was there they do not.
    ingests(
        "f a =1",
        "f a =1\n h b =>a\n f n/x =2\n h n/y =>n/x",
        &[],
        "f b =1\n d n\n f n/x =2\n h n/y =>n/x",
        "f a =1\n f b =1\n d n\n f n/x =2\n h n/y =>n/x",
    );
    ingests(
        "",
        "c dev/null 666 1,3\n b dev/disk 8,1\n p fifo\n l l 5:6 @7 ->x",
        &[],
        "d dev\n b dev/disk 8,1\n c dev/null 666 1,3\n p fifo\n l l 5:6 @7 ->x",
        "d dev\n b dev/disk 8,1\n c dev/null 666 1,3\n p fifo\n l l 5:6 @7 ->x",
    );
}

#[test]
fn stubs_leave_no_trace_as_root() {
    if !is_root("stubs_leave_no_trace_as_root") {
        return;
    }
    let stubs = ["/etc/resolv.conf", "mnt", "mnt/a", "mnt/a/b", "cache"];
    ingests(
        "d etc 755 @1",
        "d etc 755 @8\n f etc/resolv.conf 600 =\n d mnt/a/b\n d cache 700",
        &stubs,
        "",
        "d etc @1",
    );
    // Something of the step's own keeps the directories above it.
    ingests(
        "d etc 755 @1",
        "d etc 755 @8\n f etc/resolv.conf =\n d mnt/a/b\n f mnt/own =1",
        &stubs,
        "d mnt\n f mnt/own =1",
        "d etc @1\n d mnt\n f mnt/own =1",
    );
    ingests("d cache 711", "d cache 700", &stubs, "", "d cache 711");
}

#[test]
fn only_capabilities_are_kept_as_root() {
    if !is_root("only_capabilities_are_kept_as_root") {
        return;
    }
    let store = MemoryStore::default();
    let lower = tree(
        &store,
        "f same user.note~n =1\n d dir user.note~n\n f mode user.note~n =1",
    );
    let dir = tempfile::tempdir().expect("tempdir");
    let upper = "f same user.note~n =1\n d dir user.note~n\n f dir/new =\n f mode 600 user.note~n =1\n f capped =x";
    write(&store, &layer(&store, upper), dir.path());
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    rustix::fs::setxattr(
        dir.path().join("capped"),
        "security.capability",
        capability,
        XattrFlags::empty(),
    )
    .expect("capability");
    let ingested = upperdir(&store, dir.path(), &lower, &upper_options(&[])).expect("ingest");
    let capped = lookup(&store, &ingested.layer, "capped").expect("look").expect("there");
    assert_eq!(
        capped.meta.xattrs,
        [(b"security.capability".to_vec(), capability.to_vec())]
    );
    let names: Vec<Vec<u8>> = store
        .need_directory(&ingested.layer)
        .expect("layer")
        .entries
        .iter()
        .map(|entry| entry.name.clone())
        .collect();
    assert_eq!(names, [&b"capped"[..], b"dir", b"mode"]);
    let same = lookup(&store, &ingested.tree, "same").expect("look").expect("there");
    assert_eq!(same.meta.xattrs, [(b"user.note".to_vec(), b"n".to_vec())]);
    let mode = lookup(&store, &ingested.tree, "mode").expect("look").expect("there");
    assert_eq!(mode.meta.xattrs, []);
}

/// The whole way: a tree on disk as the lower of a real overlay, changed, and read back.
#[test]
fn a_real_overlay_as_root() {
    if !is_root("a_real_overlay_as_root") {
        return;
    }
    let store = MemoryStore::default();
    let text = "f etc/a 640 1:2 @3 =a\n f etc/b =b\n f gone/x =\n f swap/x =\n f file =\n f opq/1 =\n f opq/2 =\n f ln/a =l\n h ln/b =>ln/a";
    let lower = tree(&store, text);
    let dir = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(at(name)).expect("mkdir");
    }
    write(&store, &lower, &at("lower"));
    let script = "set -e; mount -t overlay overlay -o index=off,redirect_dir=off,metacopy=off,xino=off,\
        lowerdir=lower,upperdir=upper,workdir=work merged; cd merged; \
        chmod 600 etc/b; touch -d @3 etc/a; rm -r gone swap file; echo s > swap; mkdir file; echo in > file/in; \
        rm -r opq; mkdir opq; echo 3 > opq/3; echo more >> ln/b; mkdir tmp; rmdir tmp; ln etc/a etc/hard; \
        head -c 100000 /dev/zero > big; cd ..; umount merged";
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .current_dir(dir.path())
        .status()
        .expect("unshare");
    assert!(status.success());
    let ingested = upperdir(&store, &at("upper"), &lower, &upper_options(&[])).expect("ingest");
    assert!(!at("upper/big").exists(), "large files are moved");
    let names: Vec<String> = dump(&store, &ingested.layer)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        names,
        [
            "f big",
            "d etc",
            "f etc/b",
            "f etc/hard",
            "d file",
            "f file/in",
            "w gone",
            "d ln",
            "f ln/b",
            "d opq",
            "w opq/1",
            "w opq/2",
            "f opq/3",
            "f swap"
        ]
    );
    let hard = lookup(&store, &ingested.tree, "etc/hard")
        .expect("look")
        .expect("there");
    assert_eq!((hard.meta.mode, hard.meta.uid, hard.meta.mtime.seconds), (0o640, 1, 3));
}

#[test]
fn paths_deeper_than_the_kernel_takes_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let name = "d".repeat(200);
    let mut level: std::os::fd::OwnedFd = std::fs::File::open(dir.path()).expect("open").into();
    for _ in 0..30 {
        rustix::fs::mkdirat(&level, &name, Mode::from_raw_mode(0o755)).expect("mkdir");
        level = rustix::fs::openat(&level, &name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).expect("open");
    }
    let store = MemoryStore::default();
    let result = scan_with(&store, dir.path(), &PathFilter::default(), None, Eagerness::Nothing);
    let removed = Command::new("rm").args(["-rf"]).arg(dir.path()).status();
    assert!(removed.expect("rm").success());
    assert!(matches!(result, Err(IngestError::TooDeep { .. })), "{result:?}");
}

const LATER: Timestamp = Timestamp {
    seconds: 1 << 40,
    nanos: 0,
};

fn scan_with(
    store: &MemoryStore,
    dir: &Path,
    filter: &PathFilter,
    cache: Option<&dyn StatCache>,
    eagerness: Eagerness,
) -> Result<Scan, IngestError> {
    let root = Metadata::new(0o755);
    let options = ScanOptions {
        filter,
        owners: Owners::Root,
        root: &root,
        cache,
        eagerness,
        now: LATER,
        threads: threads(),
    };
    scan(store, dir, &options)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn scans_what_the_filter_shows() {
    let dir = tempfile::tempdir().expect("tempdir");
    let other = MemoryStore::default();
    let text = "f a.txt @1 =a\n d empty @2\n d src 711 @3\n f src/big @4 =big\n f src/skip/deep/x @5 =x\n f src/skip/y =y\n l l ->a.txt\n p pipe";
    write(&other, &tree(&other, text), dir.path());
    let check_filter = |include: &[&str], exclude: &[&str], want: &str| {
        let store = MemoryStore::default();
        let filter = PathFilter::new(include, exclude).expect("filter");
        let scanned = scan_with(&store, dir.path(), &filter, None, Eagerness::Nothing).expect("scan");
        assert!(
            store.blob(&crate::BlobDigest::of(b"y")).expect("ask").is_none(),
            "nothing is stored yet"
        );
        scanned.store(&store).expect("store");
        let got = dump(&store, &scanned.tree);
        let names: Vec<&str> = got.lines().map(|line| line.split(' ').nth(1).expect("path")).collect();
        assert_eq!(names.join(" "), want, "{include:?} {exclude:?}");
    };
    let all = "a.txt empty l pipe src src/big src/skip src/skip/deep src/skip/deep/x src/skip/y";
    check_filter(&[], &[], all);
    check_filter(&[], &["src/skip"], "a.txt empty l pipe src src/big");
    check_filter(
        &[],
        &["src", "!src/skip/deep"],
        "a.txt empty l pipe src src/skip src/skip/deep src/skip/deep/x",
    );
    check_filter(&["src/big", "nope"], &[], "src src/big");
    check_filter(&["src/*/*/x"], &[], "src src/skip src/skip/deep src/skip/deep/x");
    check_filter(&["**/y", "e*"], &["src/b*"], "empty src src/skip src/skip/y");
    check_filter(&["src"], &["**"], "");
    let store = MemoryStore::default();
    let scanned = scan_with(&store, dir.path(), &PathFilter::default(), None, Eagerness::SmallFiles).expect("scan");
    check(
        &store,
        &scanned.tree,
        "f a.txt @1 =a\n d empty @2\n l l ->a.txt\n p pipe\n d src 711 @3\n f src/big @4 =big\n d src/skip\n d src/skip/deep\n f src/skip/deep/x @5 =x\n f src/skip/y =y",
    );
}

#[test]
fn hidden_files_are_not_opened() {
    let dir = tempfile::tempdir().expect("tempdir");
    // A link that a walk must not follow, and a socket.
    std::os::unix::fs::symlink("/", dir.path().join("root")).expect("symlink");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).expect("socket");
    let store = MemoryStore::default();
    let scanned = scan_with(&store, dir.path(), &PathFilter::default(), None, Eagerness::Nothing).expect("scan");
    assert_eq!(scanned.read, 0);
    scanned.store(&store).expect("store");
    let socket = lookup(&store, &scanned.tree, "sock").expect("look").expect("there");
    assert!(matches!(socket.node, Node::File { size: 0, .. }));
    let missing = scan_with(
        &store,
        &dir.path().join("none"),
        &PathFilter::default(),
        None,
        Eagerness::Nothing,
    );
    assert!(missing.expect_err("missing").to_string().contains("none"));
}

#[test]
fn the_cache_knows_unchanged_files() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (store, cache) = (MemoryStore::default(), MemoryStatCache::default());
    for index in 0..200 {
        std::fs::create_dir_all(dir.path().join(format!("d{}", index % 3))).expect("mkdir");
        std::fs::write(dir.path().join(format!("d{}/f{index}", index % 3)), format!("{index}")).expect("write");
    }
    let everything = PathFilter::default();
    let again =
        |filter: &PathFilter| scan_with(&store, dir.path(), filter, Some(&cache), Eagerness::Nothing).expect("scan");
    let first = again(&everything);
    assert_eq!(first.read, 200);
    let second = again(&everything);
    assert_eq!((second.read, second.tree), (0, first.tree));
    std::fs::write(dir.path().join("d1/f1"), "2").expect("same size, other bytes");
    std::fs::rename(dir.path().join("d2/f2"), dir.path().join("d2/f2b")).expect("rename");
    let third = again(&everything);
    // A rename changes the ctime on most file systems, and then the file is read again.
    assert!((1..=2).contains(&third.read), "{}", third.read);
    assert_ne!(third.tree, first.tree);
    // A scan that sees less does not forget the rest.
    let some = PathFilter::new::<&str, &str>(&[], &["**/f1*"]).expect("filter");
    std::fs::write(dir.path().join("d2/f5"), "changed").expect("write");
    assert_eq!(again(&some).read, 1);
    assert_eq!(again(&everything).read, 0);
    // What may change again within the same tick is never trusted.
    let root = Metadata::new(0o755);
    let options = ScanOptions {
        filter: &everything,
        owners: Owners::Keep,
        root: &root,
        cache: Some(&cache),
        eagerness: Eagerness::Nothing,
        now: Timestamp::default(),
        threads: threads(),
    };
    std::fs::write(dir.path().join("d0/f0"), "racy").expect("write");
    assert_eq!(scan(&store, dir.path(), &options).expect("scan").read, 1);
    assert_eq!(scan(&store, dir.path(), &options).expect("scan").read, 1);
}

#[test]
fn changes_between_scan_and_store_are_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("sub/file");
    std::fs::create_dir(dir.path().join("sub")).expect("mkdir");
    std::fs::write(&path, "before").expect("write");
    let store = MemoryStore::default();
    let scanned = scan_with(&store, dir.path(), &PathFilter::default(), None, Eagerness::Nothing).expect("scan");
    let fails = |change: &dyn Fn()| {
        change();
        let err = scanned.store(&store).expect_err("changed").to_string();
        assert_eq!(err, format!("`{}` changed while it was being read", path.display()));
    };
    fails(&|| std::fs::write(&path, "after!").expect("write"));
    fails(&|| std::fs::write(&path, "longer than before").expect("write"));
    fails(&|| std::fs::remove_file(&path).expect("remove"));
    fails(&|| {
        std::fs::rename(dir.path().join("sub"), dir.path().join("old")).expect("rename");
        std::os::unix::fs::symlink("old", dir.path().join("sub")).expect("symlink");
    });
}

#[test]
fn a_file_that_never_rests_is_named_and_others_are_taken_as_they_are() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = std::fs::File::create(dir.path().join("log")).expect("create");
    let stop = AtomicBool::new(false);
    let (store, filter) = (MemoryStore::default(), PathFilter::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                log.write_all(b"line\n").expect("write");
            }
        });
        for _ in 0..20 {
            match scan_with(&store, dir.path(), &filter, None, Eagerness::SmallFiles) {
                Ok(scanned) => {
                    let log = lookup(&store, &scanned.tree, "log").expect("look").expect("there");
                    let Node::File { size, .. } = log.node else {
                        panic!("{log:?}")
                    };
                    assert_eq!(size % 5, 0);
                }
                Err(err) => assert!(matches!(err, IngestError::Changed { .. }), "{err}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_store_on_disk_takes_it_all() {
    use crate::{Access, Store};
    let dir = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(&at("store"), Access::ReadWrite).expect("open");
    let _lease = store.lease().expect("lease");
    std::fs::create_dir_all(at("upper/sub")).expect("mkdir");
    std::fs::write(at("upper/sub/large"), vec![7; 100_000]).expect("write");
    std::fs::write(at("upper/sub/small"), "small").expect("write");
    let filter = PathFilter::default();
    let root = Metadata::new(0o755);
    let options = ScanOptions {
        filter: &filter,
        owners: Owners::Root,
        root: &root,
        cache: Some(&store),
        eagerness: Eagerness::SmallFiles,
        now: LATER,
        threads: threads(),
    };
    let scanned = scan(&store, &at("upper"), &options).expect("scan");
    assert_eq!(scanned.read, 2);
    assert!(!store.is_complete(&scanned.tree).expect("ask"));
    scanned.store(&store).expect("store");
    assert!(store.is_complete(&scanned.tree).expect("ask"));
    let again = scan(&store, &at("upper"), &options).expect("scan");
    assert_eq!((again.read, again.tree), (0, scanned.tree));
    let lower = crate::diff::empty_tree(&store).expect("tree");
    let ingested = upperdir(&store, &at("upper"), &lower, &upper_options(&[])).expect("ingest");
    assert!(!at("upper/sub/large").exists(), "large files are moved");
    store.flush().expect("flush");
    assert!(store.is_complete(&ingested.tree).expect("ask"));
    assert!(store.is_complete(&ingested.layer).expect("ask"));
    let small = lookup(&store, &ingested.tree, "sub/small")
        .expect("look")
        .expect("there");
    assert!(matches!(small.node, Node::File { size: 5, .. }));
}

#[test]
fn links_are_followed_within_the_root() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = MemoryStore::default();
    let text = "f real/deep/f =\n l dir ->real\n l abs ->/real/deep\n l real/up ->../../../other\n d other\n l loop ->loop\n l grow ->grow/x\n l w1 ->real\n l w2 ->other\n l top ->/";
    write(&store, &tree(&store, text), dir.path());
    let cases: &[(&[&str], Option<&[&str]>)] = &[
        (&["real/deep/f"], Some(&["real/deep/f"])),
        (&["dir/deep/f"], Some(&["dir", "real/deep/f"])),
        (&["/abs/f", "abs/g"], Some(&["abs", "real/deep/f", "real/deep/g"])),
        (&["dir/up/x"], Some(&["dir", "other/x", "real/up"])),
        (&["loop"], Some(&["loop"])),
        (&["grow"], Some(&["grow"])),
        (&["w*/f"], Some(&["other/f", "real/f", "w*"])),
        (&["real/*"], Some(&["other", "real/*"])),
        (&["none/x"], Some(&["none/x"])),
        (&["../real"], Some(&["real"])),
        (&["real", "real/deep"], Some(&["real"])),
        (&["top"], None),
        (&["."], None),
        (&[], Some(&[])),
    ];
    for (paths, want) in cases {
        let found = follow_links(dir.path(), paths).expect("follow");
        assert_eq!(found, want.map(strings), "{paths:?}");
    }
    assert!(matches!(follow_links(dir.path(), &["["]), Err(IngestError::Pattern(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn scanned_trees_equal_what_was_written(text in any_tree()) {
        if !is_root("scanned_trees_equal_what_was_written") {
            return Ok(());
        }
        let (other, store) = (MemoryStore::default(), MemoryStore::default());
        let dir = tempfile::tempdir().expect("tempdir");
        let written = tree(&other, &text);
        write(&other, &written, dir.path());
        let root = Metadata::new(0o755);
        let options = ScanOptions {
            filter: &PathFilter::default(),
            owners: Owners::Keep,
            root: &root,
            cache: None,
            eagerness: Eagerness::Nothing,
            now: LATER,
            threads: threads(),
        };
        let scanned = scan(&store, dir.path(), &options).expect("scan");
        scanned.store(&store).expect("store");
        prop_assert_eq!(dump(&store, &scanned.tree), dump(&other, &written));
        prop_assert_eq!(scanned.tree, written);
    }

    #[test]
    fn upper_directories_give_the_tree_that_was_made(lower in any_tree(), upper in any_tree()) {
        if !is_root("upper_directories_give_the_tree_that_was_made") {
            return Ok(());
        }
        let store = MemoryStore::default();
        let (lower, upper) = (tree(&store, &lower), tree(&store, &upper));
        let changes = crate::diff::diff(&store, Some(&lower), &upper).expect("diff");
        let dir = tempfile::tempdir().expect("tempdir");
        write(&store, &changes, dir.path());
        let ingested = upperdir(&store, dir.path(), &lower, &upper_options(&[])).expect("ingest");
        prop_assert_eq!(dump(&store, &ingested.layer), dump(&store, &changes));
        prop_assert_eq!(ingested.tree, crate::diff::apply(&store, Some(&lower), &changes).expect("apply"));
    }
}

use super::*;
use crate::MemoryStore;
use crate::testing::{any_tree, check, check_links, dump, tree};
use proptest::prelude::*;

const LATER: Timestamp = Timestamp { seconds: 9, nanos: 0 };

fn options<'a>(src: &'a str, dest: &'a str) -> CopyOptions<'a> {
    CopyOptions {
        source: Selection {
            src,
            follow_symlink: true,
            dir_copy_contents: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..Selection::default()
        },
        dest,
        owner: None,
        mode: None,
        timestamp: None,
        made: LATER,
        create_dest_path: true,
        always_replace_existing_dest_paths: false,
    }
}

/// Copies with the options of a Dockerfile's COPY, changed by `change`.
#[track_caller]
fn copied(dest: &str, source: &str, src: &str, to: &str, change: impl FnOnce(&mut CopyOptions<'_>), want: &str) {
    let store = MemoryStore::default();
    let (dest, source) = (tree(&store, dest), tree(&store, source));
    let mut options = options(src, to);
    change(&mut options);
    let result = copy(&store, &dest, &source, &options);
    match (want.strip_prefix("error: "), result) {
        (Some(want), Err(err)) => assert_eq!(err.to_string(), want),
        (None, Ok(tree)) => check(&store, &tree, want),
        (_, Err(err)) => panic!("{err}"),
        (_, Ok(tree)) => panic!("no error but\n{}", dump(&store, &tree)),
    }
}

#[test]
fn copies_files() {
    let source = "f d/x 640 1:2 @3 =hi\n l lnk ->d/x";
    copied("", source, "/d/x", "/", |_| {}, "f x 640 1:2 @3 =hi");
    copied("", source, "/d/x", "/new", |_| {}, "f new 640 1:2 @3 =hi");
    copied("", source, "/d/x", "/new/", |_| {}, "d new @9\n f new/x 640 1:2 @3 =hi");
    copied("", source, "/lnk", "/a/b", |_| {}, "d a @9\n f a/b 640 1:2 @3 =hi");
    copied("d a", source, "/lnk", "/a", |_| {}, "d a\n f a/lnk 640 1:2 @3 =hi");
    copied("f x =old", source, "/d/x", "/x", |_| {}, "f x 640 1:2 @3 =hi");
    copied("d x", source, "/d/x", "/x/", |_| {}, "d x\n f x/x 640 1:2 @3 =hi");
    copied(
        "d x/x",
        source,
        "/d/x",
        "/x/",
        |_| {},
        "error: cannot replace directory `/x/x` with a file",
    );
    copied("f x =", source, "/d/x", "/x/y", |_| {}, "error: `/x`: not a directory");
    copied(
        "",
        source,
        "/d/none",
        "/",
        |_| {},
        "error: `/d/none`: no such file or directory",
    );
    copied(
        "",
        source,
        "/lnk",
        "/l",
        |o| o.source.follow_symlink = false,
        "l l ->d/x",
    );
    copied(
        "",
        source,
        "/d/x",
        "/n/x",
        |o| o.create_dest_path = false,
        "error: `/n`: no such file or directory",
    );
}

#[test]
fn copies_directories() {
    let source = "d d 700 1:1 @2\n f d/f @3 =f\n d d/sub 711 @4\n f d/sub/g @5 =g";
    copied(
        "",
        source,
        "/d",
        "/new",
        |_| {},
        "d new @2\n f new/f @3 =f\n d new/sub 711 @4\n f new/sub/g @5 =g",
    );
    copied(
        "",
        source,
        "/d",
        "/new",
        |o| o.source.dir_copy_contents = false,
        "d new 700 1:1 @2\n f new/f @3 =f\n d new/sub 711 @4\n f new/sub/g @5 =g",
    );
    // The top directory keeps mode and owner, those below take the source's; what is there already stays.
    copied(
        "d new 750 7:7\n d new/sub 700 7:7\n f new/sub/keep =k\n f new/sub/g 600 =old",
        source,
        "/d",
        "/new",
        |_| {},
        "d new 750 7:7 @2\n f new/f @3 =f\n d new/sub 711 @4\n f new/sub/g @5 =g\n f new/sub/keep =k",
    );
    copied(
        "f new/sub =x",
        source,
        "/d",
        "/new",
        |_| {},
        "error: cannot copy a directory onto `/new/sub`, which is not a directory",
    );
    copied(
        "d new/f",
        source,
        "/d",
        "/new",
        |_| {},
        "error: cannot replace directory `/new/f` with a file",
    );
    copied(
        "f new/sub =x\n d new/f",
        source,
        "/d",
        "/new",
        |o| o.always_replace_existing_dest_paths = true,
        "d new @2\n f new/f @3 =f\n d new/sub 711 @4\n f new/sub/g @5 =g",
    );
    copied(
        "f new =",
        source,
        "/d",
        "/new",
        |_| {},
        "error: cannot copy a directory onto `/new`, which is not a directory",
    );
    copied(
        "d e",
        "d e 700 @2",
        "/e",
        "/made/here",
        |_| {},
        "d e\n d made @9\n d made/here @2",
    );
    copied("", "f a =1\n d b", "/", "/", |_| {}, "f a =1\n d b");
}

#[test]
fn changes_owner_mode_and_time() {
    let source = "d d 700 1:1 @2\n f d/f 644 @3 =f\n f d/x 755 =x\n l d/l ->f\n d d/sub 755 @4\n f d/sub/g 4755 =g";
    copied(
        "",
        source,
        "/d",
        "/n/m",
        |o| {
            o.owner = Some(Owner { uid: 5, gid: 6 });
            o.mode = Some(ModeChange::Set(0o4711));
            o.timestamp = Some(Timestamp { seconds: 8, nanos: 0 });
        },
        "d n 711 5:6 @8\n d n/m 711 5:6 @8\n f n/m/f 4711 5:6 @8 =f\n l n/m/l 5:6 @8 ->f\n d n/m/sub 4711 5:6 @8
         f n/m/sub/g 4711 5:6 @8 =g\n f n/m/x 4711 5:6 @8 =x",
    );
    copied(
        "",
        source,
        "/d",
        "/n",
        |o| o.mode = Some(ModeChange::parse("u=rwX,go=X").expect("mode")),
        "d n @2\n f n/f 600 @3 =f\n l n/l ->f\n d n/sub 711 @4\n f n/sub/g 711 =g\n f n/x 711 =x",
    );
}

#[test]
fn follows_destination_links_inside_the_root() {
    let dest = "d real\n l lnk ->/real\n l up ->../../real\n l dangling ->/not/yet\n l d2 ->dangling";
    let all = |more: &str| {
        let mut lines: Vec<&str> = dest.lines().chain(more.lines()).map(str::trim).collect();
        lines.sort_by_key(|line| line.split(' ').nth(1));
        lines.join("\n")
    };
    copied(dest, "f x =1", "/x", "/lnk/", |_| {}, &all("f real/x =1"));
    copied(
        dest,
        "f x =1",
        "/x",
        "/lnk/n/m",
        |_| {},
        &all("d real/n @9\nf real/n/m =1"),
    );
    copied(dest, "f x =1", "/x", "/up/", |_| {}, &all("f real/x =1"));
    copied(dest, "f x =1", "/x", "/d2", |_| {}, &all("d not @9\nf not/yet =1"));
    copied(
        "l a ->b\nl b ->a",
        "f x =1",
        "/x",
        "/a",
        |_| {},
        "error: `/a`: too many levels of symbolic links",
    );
    // Links inside the source are kept, and meet what is there by name.
    copied("f d/l =x", "l s/l ->y", "/s", "/d", |_| {}, "d d\n l d/l ->y");
}

#[test]
fn wildcards() {
    let source =
        "f a1 =1\n f a2 =2\n f b =b\n f .a =dot\n d ad\n f ad/in =in\n f x/y/one.txt =o\n f x/z/two.txt =t\n l al ->b";
    copied(
        "",
        source,
        "/a*",
        "/o/",
        |_| {},
        "d o\n f o/a1 =1\n f o/a2 =2\n f o/al =b\n f o/in =in",
    );
    copied("", source, "/nope*", "/o/", |_| {}, "");
    copied(
        "",
        source,
        "/nope*",
        "/",
        |o| o.source.allow_empty_wildcard = false,
        "error: `/nope*`: no such file or directory",
    );
    copied(
        "",
        source,
        "/x/*/*.txt",
        "/o/",
        |_| {},
        "d o @9\n f o/one.txt =o\n f o/two.txt =t",
    );
    copied(
        "",
        source,
        "/x/*",
        "/o/",
        |_| {},
        "d o\n f o/one.txt =o\n f o/two.txt =t",
    );
    copied(
        "",
        source,
        "/?",
        "/o",
        |_| {},
        "error: cannot copy a directory onto `/o`, which is not a directory",
    );
    // Each overwrites the same file, the last one wins.
    copied("", source, "/a[12]", "/o", |_| {}, "f o =2");
    copied(
        "",
        source,
        "/missing/*",
        "/o",
        |_| {},
        "error: `/missing`: no such file or directory",
    );
    copied(
        "",
        "f [x] =1",
        "/[x]",
        "/o/",
        |o| o.source.allow_wildcard = false,
        "d o @9\n f o/[x] =1",
    );
    copied("", source, "/[", "/o", |_| {}, "error: syntax error in pattern `[`");
}

#[test]
fn patterns_select() {
    let source = "f a.txt =a\n f b.md =b\n d sub 711\n f sub/c.txt =c\n d sub/deep 700\n f sub/deep/d.txt =d\n d empty";
    let exclude = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let with = |excluded: &[&str], want: &str| {
        let patterns = exclude(excluded);
        copied_with(source, &[], &patterns, &[], want);
    };
    with(&["*.md", "sub"], "d o\n f o/a.txt =a\n d o/empty");
    with(
        &["sub", "!sub/c.txt"],
        "d o\n f o/a.txt =a\n f o/b.md =b\n d o/empty\n d o/sub 711\n f o/sub/c.txt =c",
    );
    with(
        &["**", "!**/d.txt"],
        "d o\n d o/sub 711\n d o/sub/deep 700\n f o/sub/deep/d.txt =d",
    );
    let included = exclude(&["sub/*/*.txt"]);
    copied_with(
        source,
        &included,
        &[],
        &[],
        "d o\n d o/sub 711\n d o/sub/deep 700\n f o/sub/deep/d.txt =d",
    );
    let (included, required) = (exclude(&["sub"]), exclude(&["/sub"]));
    copied_with(
        source,
        &included,
        &exclude(&["sub/deep"]),
        &required,
        "d o\n d o/sub 711\n f o/sub/c.txt =c",
    );
    let (included, required) = (exclude(&["no/such"]), exclude(&["/no/such"]));
    copied_with(
        source,
        &included,
        &[],
        &required,
        "error: `/no/such`: no such file or directory",
    );
}

#[track_caller]
fn copied_with(source: &str, include: &[String], exclude: &[String], required: &[String], want: &str) {
    let store = MemoryStore::default();
    let (dest, source) = (tree(&store, "d o"), tree(&store, source));
    let mut options = options("/", "/o");
    options.source.include = include;
    options.source.exclude = exclude;
    options.source.required_paths = required;
    match (want.strip_prefix("error: "), copy(&store, &dest, &source, &options)) {
        (Some(want), Err(err)) => assert_eq!(err.to_string(), want),
        (_, result) => check(&store, &result.expect("copy"), want),
    }
}

#[test]
fn a_pending_directory_gives_an_existing_one_only_its_mode() {
    let include = ["a/*/f".to_owned()];
    let store = MemoryStore::default();
    let dest = tree(&store, "d o/a 700 7:7 @6");
    let source = tree(&store, "d a 711 1:1 @2\n d a/b 711 1:1 @3\n f a/b/f =f\n f a/b/g =g");
    let mut options = options("/", "/o");
    options.source.include = &include;
    let result = copy(&store, &dest, &source, &options).expect("copy");
    check(
        &store,
        &result,
        "d o\n d o/a 711 7:7 @6\n d o/a/b 711 1:1 @3\n f o/a/b/f =f",
    );
}

#[test]
fn hard_links_are_kept_within_one_source() {
    let source = "f h/one =s\n h h/s/three =>h/one\n h h/two =>h/one\n f other =s";
    copied(
        "",
        source,
        "/h",
        "/h",
        |_| {},
        "d h\n f h/one =s\n d h/s\n h h/s/three =>h/one\n h h/two =>h/one",
    );
    // A part of a group is counted anew, a single member is no group.
    copied("", source, "/h/s", "/n", |_| {}, "d n\n f n/three =s");
    copied(
        "",
        source,
        "/h/[ot]*",
        "/n/",
        |_| {},
        "d n @9\n f n/one =s\n f n/two =s",
    );
    let changed = "d n 700\n f n/one 700 =s\n d n/s 700\n h n/s/three =>n/one\n h n/two =>n/one";
    copied(
        "",
        source,
        "/h",
        "/n",
        |o| o.mode = Some(ModeChange::Set(0o700)),
        changed,
    );
    // The same source twice makes two groups; overwriting a member shrinks the old one.
    let store = MemoryStore::default();
    let source = tree(&store, source);
    let mut edit = Edit::scratch(&store);
    edit.copy(&source, &options("/h", "/a")).expect("copy");
    edit.copy(&source, &options("/h", "/b")).expect("copy");
    edit.copy(&source, &options("/other", "/a/two")).expect("copy");
    let result = edit.commit().expect("commit");
    check(
        &store,
        &result,
        "d a\n f a/one =s\n d a/s\n h a/s/three =>a/one\n f a/two =s
         d b\n f b/one =s\n d b/s\n h b/s/three =>b/one\n h b/two =>b/one",
    );
}

#[test]
fn copies_into_absent_places_without_reading_the_source() {
    let store = MemoryStore::default();
    let source = tree(&store, "f big/d1/f =1\n f big/d2/f =2");
    let dest = tree(&store, "d usr/lib");
    let big = lookup(&store, &source, "big").expect("lookup").expect("there");
    let result = copy(&store, &dest, &source, &options("/big", "/usr/lib/new")).expect("copy");
    let new = lookup(&store, &result, "usr/lib/new").expect("lookup").expect("there");
    assert_eq!(new.node, big.node);
}

#[test]
fn mkdir_mkfile_symlink_remove() {
    let store = MemoryStore::default();
    let base = tree(
        &store,
        "d d 700\n f d/f 755 3:4 =old\n l lnk ->d\n l fl ->d/f\n f x1 =\n f x2 =",
    );
    let mkdir = |path, make_parents| Mkdir {
        path,
        mode: 0o7750,
        make_parents,
        owner: Some(Owner { uid: 1, gid: 2 }),
        mtime: LATER,
    };
    let mut edit = Edit::new(&store, &base);
    edit.mkdir(&mkdir("/lnk/a/b", true)).expect("parents");
    edit.mkdir(&mkdir("/d", false)).expect("existing directories stay");
    edit.mkdir(&mkdir("/x1", false)).expect("existing files too");
    let failed = edit.mkdir(&mkdir("/x1", true)).map_err(|err| err.to_string());
    assert_eq!(failed, Err("`/x1`: not a directory".to_owned()));
    let failed = edit.mkdir(&mkdir("/no/dir", false)).map_err(|err| err.to_string());
    assert_eq!(failed, Err("`/no`: no such file or directory".to_owned()));
    let blob = crate::BlobStore::put_bytes(&store, b"new").expect("put");
    let mkfile = |path, owner| Mkfile {
        path,
        mode: 0o4600,
        blob,
        size: 3,
        owner,
        mtime: LATER,
    };
    edit.mkfile(&mkfile("fl", None)).expect("through a link");
    edit.mkfile(&mkfile("/new", Some(Owner { uid: 8, gid: 8 })))
        .expect("new");
    assert!(matches!(
        edit.mkfile(&mkfile("/d", None)),
        Err(EditError::IsADirectory { .. })
    ));
    let symlink = |path| Symlink {
        target: "../t",
        path,
        owner: None,
        mtime: LATER,
    };
    edit.symlink(&symlink("/d/s")).expect("symlink");
    assert!(matches!(edit.symlink(&symlink("/d/f")), Err(EditError::Exists { .. })));
    let remove = |path, allow_not_found, allow_wildcard| Remove {
        path,
        allow_not_found,
        allow_wildcard,
    };
    edit.remove(&remove("/x?", false, true)).expect("wildcard");
    edit.remove(&remove("/none*", false, true)).expect("no match");
    edit.remove(&remove("/gone", true, false)).expect("allowed");
    assert!(matches!(
        edit.remove(&remove("/gone", false, false)),
        Err(EditError::NotFound { .. })
    ));
    assert!(matches!(edit.remove(&remove("/..", true, false)), Err(EditError::Root)));
    edit.remove(&remove("/lnk/../lnk", false, false))
        .expect("the link, not the directory");
    check(
        &store,
        &edit.commit().expect("commit"),
        "d d 700\n d d/a 750 1:2 @9\n d d/a/b 750 1:2 @9\n f d/f 755 3:4 @9 =new\n l d/s @9 ->../t\n l fl ->d/f
         f new 600 8:8 @9 =new",
    );
}

#[test]
fn resolves_links_inside_the_tree() {
    let store = MemoryStore::default();
    let root = tree(
        &store,
        "f a/b/f =x\n l abs ->/a/b\n l rel ->a/../a/./b/\n l out ->../../../a\n l loop ->loop\n l dang ->no/x",
    );
    let cases = [
        ("", LastLink::Follow, Some("")),
        ("/abs/f", LastLink::Follow, Some("a/b/f")),
        ("rel/f", LastLink::Keep, Some("a/b/f")),
        ("rel", LastLink::Keep, Some("rel")),
        ("rel/.", LastLink::Keep, Some("rel")),
        ("out/b", LastLink::Follow, Some("a/b")),
        ("abs/..", LastLink::Follow, Some("a")),
        ("../../a", LastLink::Follow, Some("a")),
        ("dang/y", LastLink::Follow, Some("no/x/y")),
        ("no/../a/b", LastLink::Follow, Some("a/b")),
        ("loop", LastLink::Keep, Some("loop")),
        ("loop", LastLink::Follow, None),
        ("a/b/f/g", LastLink::Follow, None),
    ];
    for (path, last, want) in cases {
        let resolved = resolve(&store, &root, path, last).ok();
        let found = resolved.map(|resolved| String::from_utf8(resolved.path).expect("text"));
        assert_eq!(found.as_deref(), want, "{path}");
    }
    assert_eq!(read_link(&store, &root, "abs").expect("read"), Some(b"/a/b".to_vec()));
    assert_eq!(read_link(&store, &root, "a/b/f/g").expect("read"), None);
    assert_eq!(lookup(&store, &root, "a/b/f/g").expect("look"), None);
}

#[test]
fn subtrees_and_back() {
    let store = MemoryStore::default();
    let root = tree(&store, "d a 711 1:2 @3\n f a/x =s\n h a/y =>a/x\n h z =>a/x\n f f =");
    let sub = subtree(&store, &root, "/a").expect("subtree");
    check(&store, &sub, "f x =s\n h y =>x");
    let top = lookup(&store, &sub, "/").expect("look").expect("root");
    assert_eq!((top.meta.mode, top.meta.uid, top.meta.mtime.seconds), (0o711, 1, 3));
    let mut edit = Edit::new(&store, &root);
    edit.put_tree("/b/c", &sub).expect("put");
    let after = edit.commit().expect("commit");
    check(
        &store,
        &after,
        "d a 711 1:2 @3\n f a/x =s\n h a/y =>a/x\n d b @3\n d b/c 711 1:2 @3\n f b/c/x =s\n h b/c/y =>b/c/x\n f f =\n h z =>a/x",
    );
    assert!(matches!(
        subtree(&store, &root, "f"),
        Err(EditError::NotADirectory { .. })
    ));
    assert!(matches!(subtree(&store, &root, "n"), Err(EditError::NotFound { .. })));
}

#[test]
fn keys_see_what_the_copy_sees() {
    let store = MemoryStore::default();
    let digest = |text: &str, src: &str, exclude: &[&str]| {
        let exclude: Vec<String> = exclude.iter().map(|&text| text.to_owned()).collect();
        let mut selection = options(src, "").source;
        selection.exclude = &exclude;
        select_digest(&store, &tree(&store, text), &selection).expect("digest")
    };
    let base = digest("f a/b/f =1", "/a/b", &[]);
    assert_eq!(
        base,
        digest("d x/b 700 @7\n f x/b/f @8 =1", "/x/b", &[]),
        "place and times do not count"
    );
    assert_eq!(
        base,
        digest("f a/b/f =1\n f a/b/skip =2", "/a/b", &["skip"]),
        "what is left out does not count"
    );
    assert_ne!(base, digest("f a/b/f 600 =1", "/a/b", &[]));
    assert_ne!(base, digest("f a/b/g =1", "/a/b", &[]));
    assert_ne!(base, digest("f a/b/f =2", "/a/b", &[]));
    let wild = digest("f a/f1 =1\n f a/f2 =2\n f b =", "/a/f*", &[]);
    assert_eq!(wild, digest("f x/f1 =1\n f x/f2 =2\n f x/g =", "/x/f*", &[]));
    assert_ne!(
        wild,
        digest("f a/f1 =1\n f a/f3 =2", "/a/f*", &[]),
        "matched names count"
    );
    assert_eq!(
        digest("f b/f =1\n l a ->b", "/a", &[]),
        digest("f a/f =1", "/a", &[]),
        "links are followed"
    );
}

proptest! {
    #[test]
    fn trees_round_trip_through_text(text in any_tree()) {
        let store = MemoryStore::default();
        let first = tree(&store, &text);
        check_links(&store, &first);
        prop_assert_eq!(tree(&store, &dump(&store, &first)), first);
    }

    #[test]
    fn made_is_found_and_removed_is_gone(text in any_tree(), names in prop::collection::vec("[abcd]", 1..4)) {
        let store = MemoryStore::default();
        let root = tree(&store, &text);
        let path = names.join("/");
        let mut edit = Edit::new(&store, &root);
        let options = Mkdir { path: &path, mode: 0o755, make_parents: true, owner: None, mtime: LATER };
        if edit.mkdir(&options).is_ok() {
            let after = edit.commit().expect("commit");
            let found = lookup(&store, &after, &path).expect("look");
            let made = matches!(found, Some(Entry { node: Node::Directory(_), .. }));
            prop_assert!(made);
        }
        let mut edit = Edit::new(&store, &root);
        let options = Remove { path: &path, allow_not_found: true, allow_wildcard: false };
        if edit.remove(&options).is_ok() {
            let after = edit.commit().expect("commit");
            check_links(&store, &after);
            let gone = resolve(&store, &after, &path, LastLink::Keep);
            prop_assert!(gone.is_err() || gone.is_ok_and(|resolved| resolved.entry.is_none()));
        }
    }

    #[test]
    fn copies_equal_their_source(text in any_tree(), dest in any_tree()) {
        let store = MemoryStore::default();
        let (source, dest) = (tree(&store, &text), tree(&store, &dest));
        let result = copy(&store, &dest, &source, &options("/", "/fresh/place")).expect("copy");
        let copied = subtree(&store, &result, "/fresh/place").expect("subtree");
        prop_assert_eq!(dump(&store, &copied), dump(&store, &source));
        check_links(&store, &result);
        // Onto what is there: either it fails, or all of the source is there.
        let selection = options("/", "/").source;
        if let Ok(merged) = copy(&store, &dest, &source, &options("/", "/")) {
            check_links(&store, &merged);
            let again = copy(&store, &merged, &source, &options("/", "/")).expect("again");
            prop_assert_eq!(again, merged);
        }
        prop_assert_eq!(
            select_digest(&store, &source, &selection).expect("digest"),
            select_digest(&store, &result, &Selection { src: "/fresh/place", ..selection }).expect("digest")
        );
    }

    #[test]
    fn patterns_copy_what_they_match(
        text in any_tree(),
        include in prop::collection::vec("[abc*/]{1,3}", 0..3),
        exclude in prop::collection::vec("!?[abc*/]{1,3}", 0..3),
    ) {
        let store = MemoryStore::default();
        let source = tree(&store, &text);
        let mut options = options("/", "/");
        options.source.include = &include;
        options.source.exclude = &exclude;
        let empty = tree(&store, "");
        let Ok(result) = copy(&store, &empty, &source, &options) else { return Ok(()) };
        let include_list = crate::patterns::PatternList::new(&include).expect("good");
        let exclude_list = crate::patterns::PatternList::new(&exclude).expect("good");
        let has_include = !include_list.is_empty() || !include.is_empty();
        let result = dump(&store, &result);
        for line in dump(&store, &source).lines() {
            let path = line.split(' ').nth(1).expect("path");
            // Asked as a walk asks.
            let (mut inc, mut exc) = (None, None);
            let (mut i, mut e) = (true, false);
            for end in path.match_indices('/').map(|(slash, _)| slash).chain([path.len()]) {
                let (matched, here) = include_list.matches_below(&path[..end], inc.as_ref());
                (i, inc) = (matched || !has_include, Some(here));
                let (matched, here) = exclude_list.matches_below(&path[..end], exc.as_ref());
                (e, exc) = (matched, Some(here));
            }
            let there = result.lines().any(|line| line.split(' ').nth(1) == Some(path));
            let below = result.lines().any(|line| line.split(' ').nth(1).is_some_and(|p| p.starts_with(&format!("{path}/"))));
            prop_assert_eq!(there, (i && !e) || below, "{} in {}", path, result);
        }
    }
}

use super::super::*;
use super::LATER;
use crate::MemoryStore;
use crate::testing::{check, dump, tree};

pub(super) fn options<'a>(src: &'a str, dest: &'a str) -> CopyOptions<'a> {
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

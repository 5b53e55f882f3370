use super::*;
use crate::MemoryStore;
use crate::testing::{any_tree, check, check_links, dump, tree};
use copying::options;
use proptest::prelude::*;

mod copying;

const LATER: Timestamp = Timestamp { seconds: 9, nanos: 0 };

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

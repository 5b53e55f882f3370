use super::*;

#[test]
fn clean_paths() {
    let cases = [
        ("", "."),
        (".", "."),
        ("./a//b/", "a/b"),
        ("/", "/"),
        ("//a/../..", "/"),
        ("../a/..", ".."),
        ("a/../../b", "../b"),
        ("/../x", "/x"),
    ];
    for (path, want) in cases {
        assert_eq!(clean_path(path), want, "cleaning {path:?}");
    }
}

#[test]
fn globs() {
    let cases = [
        ("*", "abc", true),
        ("*", "a/b", false),
        ("*", "", true),
        ("a*b*c", "axxbyybc", true),
        ("a*b*c", "axxbyyb", false),
        ("*x", "xxx", true),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("a?c", "aéc", true),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[^a-c]x", "dx", true),
        ("[\\-x]", "-", true),
        ("\\*", "*", true),
        ("\\*", "x", false),
        ("a/*/c", "a/b/c", true),
        ("a/*", "a/b/c", false),
        ("**", "a/b", false),
        ("*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
    ];
    for (pattern, path, want) in cases {
        assert_eq!(
            Glob::new(pattern).expect("a good pattern").matches(path),
            want,
            "{pattern} on {path}"
        );
    }
}

#[test]
fn bad_globs() {
    for bad in ["[", "[]", "[a", "a\\", "[-]", "[x-]", "[^"] {
        assert_eq!(
            Glob::new(bad),
            Err(PatternError::Syntax { pattern: bad.into() }),
            "{bad}"
        );
    }
}

#[test]
fn lists() {
    let cases: &[(&[&str], &str, bool)] = &[
        (&["a"], "a", true),
        (&["a"], "a/b/c", true),
        (&["a"], "b/a", false),
        (&["**/a"], "a", true),
        (&["**/a"], "x/y/a", true),
        (&["**/a"], "x/ya", false),
        (&["**/a"], "x/a/y", true),
        (&["**.go"], "x/y.go", true),
        (&["a/**"], "a/b", true),
        (&["a/**"], "a", false),
        (&["a**"], "ab/c", true),
        (&["a/**/z"], "a/z", true),
        (&["a/**/z"], "a/b/c/z", true),
        (&["a/**/z"], "a/bz", false),
        (&["**/*.txt"], "x.txt", true),
        (&["**/*.txt"], "d/e/x.txt", true),
        (&["*/x"], "a/x", true),
        (&["*/x"], "a/b/x", false),
        (&["*", "!keep"], "keep", false),
        (&["*", "!keep"], "other", true),
        (&["dir", "!dir/keep"], "dir/keep", false),
        (&["dir", "!dir/keep"], "dir/keep/below", false),
        (&["dir", "!dir/keep", "dir/keep/not"], "dir/keep/not", true),
        (&["!a", "a"], "a", true),
        (&["."], "a", false),
        (&["**"], "a/b", true),
        (&["x/"], "x/y", true),
        (&["a.b"], "axb", false),
        (&["a+(b)$|{2}"], "a+(b)$|{2}", true),
        (&["[ab]/c"], "b/c", true),
        (&["\\!x"], "!x", true),
        (&["  "], "a", false),
        (&[], "a", false),
    ];
    for (patterns, path, want) in cases {
        let list = PatternList::new(patterns.iter()).expect("good patterns");
        assert_eq!(list.matches(path), *want, "{patterns:?} on {path}");
        // A walk from the top gives the same answer.
        let mut parent = None;
        let mut last = false;
        for (end, _) in path
            .char_indices()
            .filter(|&(_, c)| c == '/')
            .chain([(path.len(), '/')])
        {
            let (matched, here) = list.matches_below(&path[..end], parent.as_ref());
            (last, parent) = (matched, Some(here));
        }
        assert_eq!(last, *want, "walking {patterns:?} on {path}");
    }
}

#[test]
fn bad_lists() {
    assert_eq!(PatternList::new(["!"]), Err(PatternError::LoneExclusion));
    assert!(PatternList::new(["a", "[x"]).is_err());
}

#[test]
fn pruning_errs_on_the_side_of_walking() {
    let list = PatternList::new(["dir", "!dir/sub/keep*", "!**/always"]).expect("good patterns");
    assert!(list.may_reinclude_below("dir/sub"));
    assert!(list.may_reinclude_below("anything"));
    let list = PatternList::new(["dir", "!dir/sub/keep*"]).expect("good patterns");
    assert!(list.may_reinclude_below("dir"));
    assert!(list.may_reinclude_below("dir/sub"));
    assert!(list.may_reinclude_below("dir/sub/keep1"));
    assert!(!list.may_reinclude_below("dir/other"));
    assert!(!list.may_reinclude_below("other"));
    assert!(list.may_match_below("dir/x"));
    assert!(!list.may_match_below("other"));
}

#[test]
fn ignore_files() {
    let text = "\u{feff}# comment\r\n\r\n /a/b/ \r\n!  /c\n #x\n!\n.\n/\na/../b\n";
    assert_eq!(
        parse_ignore_file(text.as_bytes()),
        ["a/b", "!c", "#x", "!", ".", "/", "b"]
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged(pattern in "[a-c*?/!\\[\\]\\\\^-]{0,10}", path in "[a-c/]{0,10}") {
        if let Ok(list) = PatternList::new([&pattern]) {
            let matched = list.matches(&path);
            proptest::prop_assert_eq!(list.matches_below(&path, None).0, matched);
        }
    }

    #[test]
    fn what_is_said_of_all_below_holds(
        patterns in proptest::collection::vec("!?[a-c*?/]{1,5}", 0..4),
        path in proptest::collection::vec("[a-c]{1,2}", 1..5),
    ) {
        let Ok(list) = PatternList::new(&patterns) else { return Ok(()) };
        let mut verdict = list.below("", None);
        let mut parent = None;
        for depth in 1..=path.len() {
            let text = path[..depth].join("/");
            let (matched, here) = list.matches_below(&text, parent.as_ref());
            match verdict {
                Below::Matched => proptest::prop_assert!(matched, "{patterns:?} {text}"),
                Below::Unmatched => proptest::prop_assert!(!matched, "{patterns:?} {text}"),
                Below::Mixed => verdict = list.below(&text, Some(&here)),
            }
            parent = Some(here);
        }
    }
}

#[test]
fn names_need_not_be_utf8() {
    let glob = Glob::new("a?b*").expect("a good pattern");
    assert!(glob.matches(b"a\xffb\xfe\xfd"));
    assert!(!glob.matches(b"a\xff\xffb"));
    assert!(PatternList::new(["**/x"]).expect("a good pattern").matches(b"\xff/x"));
}

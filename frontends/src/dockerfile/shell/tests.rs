use super::*;

struct Fixed(&'static [(&'static str, &'static str)]);

impl Variables for Fixed {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

const ENV: Fixed = Fixed(&[
    ("PWD", "/home"),
    ("SHELL", "bash"),
    ("NULL", ""),
    ("V", "/a/b.tar.gz"),
    ("STAR", "a*b"),
    ("S", "one  two"),
]);

/// `None` stands for an error.
fn check(cases: &[(&str, Option<&str>)]) {
    for (text, want) in cases {
        let got = Shell::new('\\').expand(text, &ENV).map(|expansion| expansion.text);
        assert_eq!(got.as_deref().ok(), *want, "expanding {text:?}: {got:?}");
    }
}

#[test]
fn quotes_and_escapes() {
    check(&[
        ("hello", Some("hello")),
        ("he'll'o", Some("hello")),
        ("he'llo", None),
        ("he\\'llo", Some("he'llo")),
        ("abc\\tdef", Some("abctdef")),
        ("\"abc\\tdef\"", Some("abc\\tdef")),
        ("\"abc\\\\tdef\"", Some("abc\\tdef")),
        ("'abc\\tdef'", Some("abc\\tdef")),
        ("hello\\", Some("hello")),
        ("hello\\\\", Some("hello\\")),
        ("\"hello", None),
        ("\"hello\\\"", None),
        ("\"''\"", Some("''")),
        ("he\\$PWD", Some("he$PWD")),
        ("\"he\\$PWD\"", Some("he$PWD")),
        ("he\\\\$PWD", Some("he\\/home")),
        ("'$PWD'", Some("$PWD")),
        ("안'녕'하세요", Some("안녕하세요")),
        ("  a  b ", Some("  a  b ")),
        ("< << <<X", Some("< << <<X")),
    ]);
}

#[test]
fn names() {
    check(&[
        ("he$PWD", Some("he/home")),
        ("he$pwd.", Some("he.")),
        ("$.", Some("$.")),
        ("$", Some("$")),
        ("he$1x", Some("hex")),
        ("$999aaa", Some("aaa")),
        ("$@@@", Some("@@")),
        ("${1}", Some("")),
        ("${$}", Some("")),
        ("$PWD_x", Some("")),
        ("${PWD}_x", Some("/home_x")),
        ("${}", None),
        ("${.}", None),
        ("he${PWD", None),
        ("${{aaa}", None),
        ("${aaa}}", Some("}")),
        ("${:}", None),
    ]);
}

#[test]
fn defaults_and_alternatives() {
    check(&[
        ("${X:-000}x", Some("000x")),
        ("${PWD:-000}x", Some("/homex")),
        ("${X:-${Y:-$PWD}}", Some("/home")),
        ("${NULL:-d}|${NULL-d}", Some("d|")),
        ("${PWD:+${SHELL}}", Some("bash")),
        ("${X:+a}|${NULL:+a}|${NULL+a}", Some("||a")),
        ("${PWD:+${PWD}:}x", Some("/home:x")),
        ("${X:-\\$PWD:}x", Some("$PWD:x")),
        ("${X?}", None),
        ("${NULL?}", Some("")),
        ("${NULL:?}", None),
        ("${PWD:=0}", None),
        ("${X:YYY}", None),
        ("${aaa:-bbb", None),
        ("${aaa:-bbb {foo}", Some("bbb {foo")),
    ]);
    let error = Shell::new('\\')
        .expand("${X:?need $PWD}", &ENV)
        .expect_err("X is not set");
    assert_eq!(
        error.to_string(),
        r#"failed to process "${X:?need $PWD}": X: need /home"#
    );
}

#[test]
fn trimming_and_replacing() {
    check(&[
        ("${V#*/}", Some("a/b.tar.gz")),
        ("${V##*/}", Some("b.tar.gz")),
        ("${V%.*}", Some("/a/b.tar")),
        ("${V%%.*}", Some("/a/b")),
        ("${V%/*}|${V%%/*}", Some("/a|")),
        ("${V#nothing}", Some("/a/b.tar.gz")),
        ("${V/a/X}", Some("/X/b.tar.gz")),
        ("${V//a/X}", Some("/X/b.tXr.gz")),
        ("${V//\\//_}", Some("_a_b.tar.gz")),
        ("${V/t*z/}", Some("/a/b.")),
        ("${V/?/}", Some("a/b.tar.gz")),
        ("${STAR#a\\*}", Some("b")),
        ("${STAR#a\\b}", None),
        ("${STAR//\\*/x}", Some("axb")),
        ("${SHELL//*/R}", Some("R")),
        ("${V/a}", None),
        ("${X#a}|${X/a/b}", Some("|")),
        ("${PWD:#a}", None),
    ]);
}

#[test]
fn words_split_after_expansion() {
    let cases: &[(&str, &[&str])] = &[
        ("a${X}b", &["ab"]),
        ("a${S}b", &["aone", "twob"]),
        ("a\"${S}\"b", &["aone  twob"]),
        ("  a\\ b c ", &["a b", "c"]),
        ("", &[]),
        ("\"\" x", &["x"]),
        ("${P:-8}0/udp", &["80/udp"]),
        ("cat << EOF >x", &["cat", "<< EOF", ">x"]),
    ];
    for (text, want) in cases {
        let words = Shell::new('\\').expand(text, &ENV).expect(text).words;
        assert_eq!(words, *want, "splitting {text:?}");
    }
}

#[test]
fn raw_modes() {
    let raw = Shell {
        escape: '\\',
        quotes: Quotes::Keep,
        escapes: Escapes::Remove,
        unset: Unset::Keep,
    };
    let text = r#"RUN echo "$PWD" '$PWD' $X ${X:-y} \$PWD"#;
    let want = r#"RUN echo "/home" '$PWD' $X ${X:-y} $PWD"#;
    assert_eq!(raw.expand(text, &ENV).expect("expands").text, want);
    let heredoc = Shell {
        quotes: Quotes::Ignore,
        ..Shell::new('\\')
    };
    assert_eq!(
        heredoc.expand("it's \"$PWD\" \\$x\n", &ENV).expect("expands").text,
        "it's \"/home\" $x\n"
    );
    let backtick = Shell::new('`');
    assert_eq!(
        backtick.expand("c:\\$SHELL`$x", &ENV).expect("expands").text,
        "c:\\bash$x"
    );
}

#[test]
fn mentioned_names_are_told_apart() {
    let expansion = Shell::new('\\').expand("$PWD ${X:-$Y}", &ENV).expect("expands");
    assert_eq!(expansion.matched.into_iter().collect::<Vec<_>>(), ["PWD"]);
    assert_eq!(expansion.unmatched.into_iter().collect::<Vec<_>>(), ["X", "Y"]);
}

proptest::proptest! {
    #[test]
    fn any_text_expands_or_errs(text in "[$a{}:/#%'\"\\\\<?*+ -]{0,24}") {
        let _result = Shell::new('\\').expand(&text, &ENV);
        let keep = Shell { quotes: Quotes::Keep, escapes: Escapes::Keep, unset: Unset::Keep, ..Shell::new('\\') };
        let _result = keep.expand(&text, &NoVariables);
    }

    #[test]
    fn plain_text_stays(text in "[a-z0-9./:=_-]{0,24}") {
        proptest::prop_assert_eq!(Shell::new('\\').expand(&text, &ENV).expect("plain").text, text);
    }
}

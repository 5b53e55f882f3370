//! What users read when something is wrong.

use super::*;

fn errors(text: &str, attrs: &[(&str, &str)]) -> String {
    try_lower(text, attrs).expect_err(text).to_string()
}

#[test]
fn a_message_shows_the_place() {
    let text = "FROM alpine\n\nCOPY --chwon=1 \\\n  a /b\n";
    insta::assert_snapshot!(errors(text, &[]), @r#"
    Dockerfile:3:6: unknown flag: --chwon (did you mean chown?)
    --------------------
       1 |     FROM alpine
       2 |
       3 | >>> COPY --chwon=1 \
         |          ^^^^^^^^^
       4 | >>>   a /b
    --------------------
    "#);
}

#[test]
fn all_complaints_of_lowering() {
    let text = "FROM alpine\nSTOPSIGNAL SIGNOPE\nEXPOSE 99999\nCOPY --chmod=9z9 a /b\nENV A=${}\nLABEL A=\"abc\nENV B=\"${X:?need the X}\"\n\
                RUN --mount=type=nfs,target=/x y\nADD --checksum=sha256:00 a /b\nCOPY http://h/x /\nRUN --mount=target=/ x\nVOLUME $NONE\nRUN []\n\
                COPY --chmod=u+q a b\nCOPY https://h/r.git /x\n";
    insta::assert_snapshot!(brief(text, &[]), @r#"
    2: invalid signal: SIGNOPE
    3: invalid containerPort: 99999
    4: invalid chmod parameter: '9z9'. it should be octal string and between 0 and 07777
    5: failed to process "${}": syntax error: bad substitution
    6: failed to process "\"abc": unexpected end of statement while looking for matching double-quote
    7: failed to process "\"${X:?need the X}\"": X: need the X
    8: unsupported mount type "nfs" (there are bind, cache, tmpfs, secret, ssh)
    9: checksum requires HTTP(S) or Git sources
    10: source can't be a URL for COPY
    11: invalid mount target "/" (a path below it is needed: target=PATH)
    12: VOLUME specified can not be an empty string
    13: RUN requires at least one argument
    14: invalid chmod parameter: 'u+q'. it should be octal, or symbolic such as u+x,go=r
    15: source can't be a git ref for COPY
    "#);
}

/// Lines and messages without excerpts.
fn brief(text: &str, attrs: &[(&str, &str)]) -> String {
    match try_lower(text, attrs) {
        Err(FrontendError::Dockerfile(error)) => {
            let line = |place: Option<super::super::Place>| place.map_or(0, |place| place.line);
            error
                .diagnostics
                .iter()
                .map(|found| format!("{}: {}\n", line(found.place), found.message))
                .collect()
        }
        Err(other) => other.to_string(),
        Ok(_) => "lowers".to_owned(),
    }
}

#[test]
fn stages() {
    type Attrs = &'static [(&'static str, &'static str)];
    let cases: &[(&str, Attrs, &str)] = &[
        (
            "FROM alpine AS one\n",
            &[("target", "onee")],
            "0: target stage \"onee\" could not be found (did you mean one?)\n",
        ),
        ("FROM alpine\nCOPY --from=7 /a /b\n", &[], "2: invalid stage index 7\n"),
        (
            "FROM alpine AS a\nCOPY --from=a /a /b\n",
            &[],
            "2: circular dependency detected on stage: a\n",
        ),
        (
            "FROM alpine AS a\nCOPY --from=b /a /b\nFROM alpine AS b\nCOPY --from=a /a /b\n",
            &[],
            "4: circular dependency detected on stage: a\n",
        ),
        (
            "FROM alpine AS a\nCOPY --from=b /x /y\nFROM alpine AS b\nFROM a\n",
            &[],
            "2: cannot copy from stage \"b\", it needs to be defined before current stage\n",
        ),
        (
            "FROM alpine AS a\nRUN --mount=from=b,target=/m x\nFROM alpine AS b\nFROM a\n",
            &[],
            "2: cannot mount from stage \"b\" to \"/m\", stage needs to be defined before current command\n",
        ),
        (
            "FROM alpime\n",
            &[],
            "1: alpime: docker.io/library/alpime:latest: not found (did you mean alpine?)\n",
        ),
        (
            "FROM Alpine\n",
            &[],
            "1: failed to parse stage name \"Alpine\": invalid reference `Alpine`: the repository name must be lowercase\n",
        ),
        ("ARG IMG\nFROM $IMG\n", &[], "2: base name ($IMG) should not be blank\n"),
        (
            "FROM --platform=$NO alpine\n",
            &[],
            "1: empty platform value from expression $NO\n",
        ),
        (
            "FROM alpine\nCOPY --from=$X /a /b\n",
            &[],
            "2: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround\n",
        ),
        (
            "FROM alpine AS x\nFROM scratch\nCOPY --from=nowhere/y /a /b\n",
            &[],
            "3: nowhere/y: docker.io/nowhere/y:latest: not found\n",
        ),
    ];
    for (text, attrs, want) in cases {
        assert_eq!(brief(text, attrs), *want, "lowering {text:?}");
    }
}

#[test]
fn unused_stages_are_read_but_not_resolved() {
    assert_eq!(brief("FROM nowhere:1\nRUN x\nFROM scratch\n", &[]), "lowers");
    assert_eq!(
        brief("FROM scratch AS a\nFROM scratch\nNOPE z\n", &[("target", "a")]),
        "3: unknown instruction: NOPE (did you mean COPY?)\n"
    );
}

#[test]
fn one_mistake_for_two_platforms_is_one_complaint() {
    let found = brief("FROM nowhere:1\n", &[("platform", "linux/amd64,linux/arm64")]);
    assert_eq!(found, "1: nowhere:1: docker.io/library/nowhere:1: not found\n");
}

#[test]
fn other_frontends_are_refused() {
    for ours in [
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile:1.7-labs",
        "docker/dockerfile-upstream:master",
    ] {
        assert_eq!(brief(&format!("# syntax={ours}\nFROM scratch\n"), &[]), "lowers");
    }
    let error = brief(
        "# check=skip=all\n# syntax=example.com/other:1 more\nFROM scratch\n",
        &[],
    );
    assert!(
        error.contains("`example.com/other:1`") && error.contains("line 2"),
        "{error}"
    );
    assert_eq!(
        brief(
            "# syntax=other\nFROM scratch\n",
            &[("build-arg:BUILDKIT_SYNTAX", "dockerfile.v0")]
        ),
        "lowers"
    );
    let error = brief("FROM scratch\n", &[("build-arg:BUILDKIT_SYNTAX", "other/x y")]);
    assert!(error.contains("`other/x`"), "{error}");
}

#[test]
fn a_bad_ignore_file_is_told() {
    let error = try_lower_with("FROM scratch\nCOPY . /\n", Some("[a-\n"), &options(&[])).expect_err("a bad pattern");
    assert!(error.to_string().contains("[a-"), "{error}");
}

proptest::proptest! {
    #[test]
    fn whatever_parses_lowers_or_complains(
        lines in proptest::collection::vec(
            "(ARG|ENV|LABEL|RUN|COPY|ADD|WORKDIR|USER|EXPOSE|VOLUME|CMD|STOPSIGNAL|ONBUILD RUN|ONBUILD COPY|HEALTHCHECK CMD|FROM)\
             ( --(from=(a|0|1|tools|\\$A)|chown=[a1:$]{0,3}|chmod=[u+x70]{1,3}|link|parents|mount=(type=(cache|bind|tmpfs|secret|ssh|\\$A),)?(target|from|source|id)=[/a$]{0,3}))?\
             ( (a|/b/|\\./c|\\$A|\\$\\{A:-[a/$]{0,2}\\}|X=[1$A\"]{0,3}|80-82/udp|https://h/r.git#x|http://h/f|\\[\"a\"\\]|AS|<<E)){1,4}(\nE)?",
            0..8,
        )
    ) {
        let text = format!("ARG A=1\nFROM alpine AS a\n{}\n", lines.join("\n"));
        match try_lower(&text, &[("platform", "linux/amd64,linux/arm64")]) {
            Ok(lowered) => proptest::prop_assert_eq!(lowered.platforms.len(), 2),
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
        }
        let _results = linted(&text, Some("a\n"), &[]);
    }
}

use proptest::prelude::*;

use super::super::ast::{Body, CommandForm, PairForm};
use super::*;

fn parsed(text: &str) -> (Dockerfile, Vec<Complaint>) {
    parse(&SourceFile::new("Dockerfile", text.as_bytes()))
}

fn good(text: &str) -> Dockerfile {
    let (dockerfile, complaints) = parsed(text);
    assert_eq!(complaints, [], "parsing {text:?}");
    dockerfile
}

fn commands(text: &str) -> Vec<Instruction> {
    good(&format!("FROM scratch\n{text}")).stages.remove(0).commands
}

/// Lines and messages of all complaints.
fn complaints(text: &str) -> Vec<(u32, String)> {
    let complaints = parsed(text).1.into_iter();
    complaints
        .map(|complaint| (complaint.lines.map_or(0, |lines| lines.first), complaint.message))
        .collect()
}

#[test]
fn continuations_and_comments() {
    let text = "FROM scratch\n# c \\\nRUN a \\\n  # inside\n\n  b \\  \nc\nRUN x \\\\\nRUN y \\";
    let dockerfile = good(text);
    let stage = &dockerfile.stages[0];
    let codes: Vec<_> = stage
        .commands
        .iter()
        .map(|command| command.head.code.as_str())
        .collect();
    assert_eq!(codes, ["RUN a   b c", "RUN x \\\\", "RUN y"]);
    assert_eq!(stage.commands[0].head.lines, LineRange { first: 3, last: 7 });
    assert_eq!(dockerfile.empty_continuations, [7]);
}

#[test]
fn directives() {
    let dockerfile =
        good("# Escape = `\n#check=skip=all;error=true \n# note\n# escape=\\\nFROM scratch\nRUN a `\n b\n");
    assert_eq!(dockerfile.escape, '`');
    assert_eq!(
        dockerfile.check.as_ref().map(|check| check.value.as_str()),
        Some("skip=all;error=true")
    );
    assert_eq!(dockerfile.stages[0].commands[0].head.code, "RUN a  b");
    assert_eq!(good("\n# escape=`\nFROM a").escape, '\\');
    assert_eq!(good("\u{feff}# escape=`\r\nFROM a\r\n").escape, '`');
    assert_eq!(complaints("# escape=`\n# escape=`\nFROM a")[0].0, 2);
    assert_eq!(
        complaints("# escape=^\nFROM a")[0],
        (1, "invalid escape token '^' does not match ` or \\".into())
    );
}

#[test]
fn syntax_is_found_in_any_dress() {
    let image = |data: &str| detect_syntax(data.as_bytes()).map(|syntax| (syntax.image, syntax.line));
    assert_eq!(
        image("# syntax=docker/dockerfile:1 extra\nFROM a"),
        Some(("docker/dockerfile:1".into(), 1))
    );
    assert_eq!(image("#!/bin/x\n#  SYNTAX = a\n"), Some(("a".into(), 2)));
    assert_eq!(image("# check=skip=all\n# syntax=a\n"), Some(("a".into(), 2)));
    assert_eq!(image("// syntax=a\n{}"), Some(("a".into(), 1)));
    assert_eq!(image("{\"syntax\": \"a\"}"), Some(("a".into(), 1)));
    assert_eq!(image("# a comment\n# syntax=a\n"), None);
}

#[test]
fn heredocs() {
    let list =
        commands("RUN <<A cat <<-'B'\nx\nA\n\ty\n\tB\nCOPY <<'C' a /d/\n$v\nC\nRUN [\"<<X\"]\nONBUILD RUN <<E\nz\nE\n");
    let Body::Run(run) = &list[0].body else { panic!("a RUN") };
    let documents: Vec<_> = run
        .command
        .heredocs
        .iter()
        .map(|doc| (doc.name.as_str(), doc.content.as_slice()))
        .collect();
    assert_eq!(documents, [("A", b"x\n".as_slice()), ("B", b"\ty\n")]);
    assert_eq!(run.command.heredocs[1].chomped(), b"y\n");
    let Body::Copy(copy) = &list[1].body else {
        panic!("a COPY")
    };
    assert_eq!(
        (copy.transfer.documents[0].expand, copy.transfer.sources.len()),
        (false, 1)
    );
    let Body::Onbuild(trigger) = &list[3].body else {
        panic!("an ONBUILD")
    };
    assert_eq!(trigger, "RUN <<E\nz\nE");
    assert_eq!(list[3].head.lines, LineRange { first: 11, last: 13 });
    assert_eq!(
        complaints("FROM a\nRUN <<E\nx\n"),
        [(2, "unterminated heredoc: `E` is missing".into())]
    );
    assert_eq!(
        complaints("FROM a\nCOPY x <<E\nE\n"),
        [(2, "COPY cannot accept a heredoc as a destination".into())]
    );
}

#[test]
fn forms_of_commands() {
    let list =
        commands("CMD [\"a\", \"b\"]\nCMD ['a']\nCMD\nENTRYPOINT []\nRUN  a  b \nVOLUME [\"/x\"] /y\nSHELL [\"s\"]\n");
    let forms: Vec<_> = list
        .iter()
        .filter_map(|command| match &command.body {
            Body::Cmd(line) | Body::Entrypoint(line) => Some((line.form, line.args.join("|"))),
            Body::Run(run) => Some((run.command.form, run.command.args.join("|"))),
            _ => None,
        })
        .collect();
    let want = [
        (CommandForm::Exec, "a|b"),
        (CommandForm::Shell, "['a']"),
        (CommandForm::Shell, ""),
        (CommandForm::Exec, ""),
        (CommandForm::Shell, "a  b"),
    ];
    assert_eq!(forms, want.map(|(form, text)| (form, text.to_owned())));
    let Body::Volume(volumes) = &list[5].body else {
        panic!("a VOLUME")
    };
    assert_eq!(
        volumes.iter().map(|word| word.value.as_str()).collect::<Vec<_>>(),
        ["[\"/x\"]", "/y"]
    );
}

#[test]
fn pairs() {
    let list = commands("ENV a=1 b=\"x y\" c=\nENV old  some value\nLABEL a = b\nARG x y=1\n");
    let Body::Env(env) = &list[0].body else {
        panic!("an ENV")
    };
    let got: Vec<_> = env
        .iter()
        .map(|pair| (pair.key.as_str(), pair.value.as_str()))
        .collect();
    assert_eq!(got, [("a", "1"), ("b", "\"x y\""), ("c", "")]);
    let Body::Env(old) = &list[1].body else {
        panic!("an ENV")
    };
    assert_eq!((old[0].value.as_str(), old[0].form), ("some value", PairForm::Legacy));
    let Body::Label(label) = &list[2].body else {
        panic!("a LABEL")
    };
    assert_eq!((label[0].key.as_str(), label[0].value.as_str()), ("a", "= b"));
}

#[test]
fn every_word_has_a_place() {
    let text = "FROM scratch\nCOPY --chown=1 \\\n  a \"b\" \\\n # c\n /d/\n";
    let stage = &good(text).stages[0];
    let Body::Copy(copy) = &stage.commands[0].body else {
        panic!("a COPY")
    };
    let place = |word: &Word| std::str::from_utf8(line::slice(text.as_bytes(), word.span)).expect("utf-8");
    let transfer = &copy.transfer;
    let words = [&transfer.sources[0], &transfer.sources[1], &transfer.destination];
    assert_eq!(words.map(place), ["a", "\"b\"", "/d/"]);
    assert_eq!(transfer.chown.as_ref().map(place), Some("--chown=1"));
    assert_eq!(place(&stage.commands[0].head.keyword), "COPY");
}

#[test]
fn all_complaints_at_once() {
    let text = "FROM a AS 1st\nRUNN x\nFROM a b\nCOPY --chwon=1 a b\nCOPY one\nENV A\nENV A=1 B\nARG\nSHELL /bin/sh\n\
                CMD --f x\nHEALTHCHECK RUN x\nHEALTHCHECK CMD\nONBUILD ONBUILD RUN x\nCMD [\"a\", 1]\nCOPY --link=maybe a b\n\
                RUN --moont=x y\nSTOPSIGNAL\nWORKDIR\nEXPOSE\nRUN --network=lan x\nHEALTHCHECK --interval=1us CMD x\n";
    let shown: String = complaints(text)
        .iter()
        .map(|(line, text)| format!("{line}: {text}\n"))
        .collect();
    insta::assert_snapshot!(shown, @r#"
    1: invalid name for build stage: "1st", name can't start with a number or contain symbols
    2: unknown instruction: RUNN (did you mean RUN?)
    3: FROM requires either one or three arguments
    4: unknown flag: --chwon (did you mean chown?)
    5: COPY requires at least two arguments, but only one was provided. Destination could not be determined
    6: ENV must have two arguments
    7: Syntax error - can't find = in "B" of ENV. Must be of the form: name=value
    8: ARG requires at least one argument
    9: SHELL requires the arguments to be in JSON form: /bin/sh
    10: unknown flag: --f (there are none)
    11: Unknown type "RUN" in HEALTHCHECK (try CMD)
    12: Missing command after HEALTHCHECK CMD
    13: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed
    14: when using JSON array syntax, arrays must be comprised of strings only
    15: expecting boolean value for flag --link, not: maybe (there are true and false)
    16: unknown flag: --moont (did you mean mount?)
    17: STOPSIGNAL requires exactly one argument
    18: WORKDIR requires exactly one argument
    19: EXPOSE requires at least one argument
    20: invalid network mode "lan" (there are default, none, host)
    21: Interval "interval" cannot be less than 1ms
    "#);
}

#[test]
fn instructions_before_from() {
    assert_eq!(
        complaints("RUN x\nFROM a"),
        [(1, "no build stage in current context".into())]
    );
    assert_eq!(complaints("# only\n"), [(1, "file with no instructions".into())]);
    assert_eq!(complaints(""), [(0, "the Dockerfile cannot be empty".into())]);
    assert_eq!(
        complaints("ARG a"),
        [],
        "a file without stages has no targets, and can be asked for them"
    );
    let long = format!("FROM a\nRUN {}\n", "x".repeat(65_535));
    assert_eq!(complaints(&long)[0].0, 2);
}

#[test]
fn triggers() {
    let place = Head {
        lines: LineRange { first: 7, last: 7 },
        ..Head::default()
    };
    let run = parse_trigger("RUN a", &place).expect("a RUN");
    assert_eq!(run.head.lines.first, 7);
    let error = parse_trigger("FROBNICATE all", &place).expect_err("unknown");
    assert!(
        error.message.contains("FROBNICATE") && error.lines == Some(place.lines),
        "{error:?}"
    );
    assert!(parse_trigger("RUN a\nRUN b", &place).is_err());
    assert!(parse_trigger("FROM a", &place).is_err());
}

/// Reads a text, prints what was understood, and reads that.
fn is_stable(text: &str) -> Result<(), TestCaseError> {
    let Some(printed) = print::print(&parsed(text).0) else {
        return Ok(());
    };
    let (again, complaints) = parsed(&printed);
    prop_assert_eq!(complaints, [], "{:?} was printed as {:?}", text, printed);
    prop_assert_eq!(print::print(&again), Some(printed), "of {:?}", text);
    Ok(())
}

fn line() -> impl Strategy<Value = String> {
    let word = "[a-z$/.]{1,5}|\\$\\{[a-z]:-[a-z]\\}|\"[a-z ]{0,4}\"|'[a-z]'|[a-z]\\\\ [a-z]";
    let words = move |count| proptest::collection::vec(word, count).prop_map(|words| words.join(" "));
    prop_oneof![
        words(1..4).prop_map(|words| format!("RUN {words}")),
        words(1..4).prop_map(|words| format!("RUN --mount=type=cache,target=/c --network=none {words}")),
        words(2..4).prop_map(|words| format!("COPY --link --chown=1:2 --exclude='a b' {words}")),
        words(1..3).prop_map(|words| format!("ADD --checksum=x --unpack=false {words} /d/")),
        (word, word).prop_map(|(key, value)| format!("ENV k={key} l={value}")),
        (word, word).prop_map(|(key, value)| format!("LABEL \"a b\"={key} {value}=x")),
        words(1..4).prop_map(|words| format!("ENV key {words}")),
        word.prop_map(|value| format!("# a about a\nARG a={value} b")),
        proptest::collection::vec(word, 1..3).prop_map(|words| format!("CMD {}", serde_json::Value::from(words))),
        words(1..3).prop_map(|words| format!("HEALTHCHECK --interval=5s --retries=2 CMD {words}")),
        words(1..3).prop_map(|words| format!("ONBUILD RUN {words}")),
        words(1..3).prop_map(|words| format!("VOLUME {words}")),
        words(1..3).prop_map(|words| format!("USER {words}")),
        Just("EXPOSE 80 443/tcp".to_owned()),
        Just("SHELL [\"a\", \"b c\"]".to_owned()),
        words(0..3).prop_map(|words| format!("RUN <<-\"EOF\" cat <<B\n\t{words}\n\tEOF\nx\nB")),
        words(0..3).prop_map(|words| format!("COPY <<A <<\"B\" f /d/\n{words}\nA\nB")),
        words(1..3).prop_map(|words| format!("FROM --platform=$P {words}")),
        word.prop_map(|name| format!("RUN a \\\n  # comment\n {name}")),
    ]
}

proptest! {
    #[test]
    fn parse_never_panics(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (dockerfile, complaints) = parse(&SourceFile::new("f", &data));
        let is_empty = dockerfile.stages.is_empty() && dockerfile.global_args.is_empty();
        prop_assert!(!complaints.is_empty() || !is_empty);
    }

    #[test]
    fn dockerfile_like_text_never_panics(
        lines in proptest::collection::vec(
            "(# (escape|check|syntax)=.{0,3}|FROM|from|RUN|COPY|ADD|ENV|ARG|LABEL|CMD|ONBUILD RUN|HEALTHCHECK|EXPOSE|VOLUME|SHELL)?\
             ( --[a-z]{1,6}(=[a-z'\"\\\\,=$]{0,6})?){0,2}( [a-z$'\"<>\\[\\]{}=,:/\\\\`\t]{0,8}){0,4}( <<-?[\"']?E[\"']?)?\\\\?\r?",
            0..12,
        )
    ) {
        let text = lines.join("\n");
        let file = SourceFile::new("Dockerfile", text.as_bytes());
        let (_, complaints) = parse(&file);
        for complaint in &complaints {
            let shown = file.diagnostic(complaint).to_string();
            prop_assert!(shown.starts_with("Dockerfile:"));
        }
        let _syntax = detect_syntax(text.as_bytes());
        if complaints.is_empty() {
            is_stable(&text)?;
        }
    }

    /// Lines that are well-formed more often than not.
    #[test]
    fn printing_and_reading_back_changes_nothing(lines in proptest::collection::vec(line(), 0..12)) {
        let text = format!("FROM scratch AS one\n{}", lines.join("\n"));
        if parsed(&text).1.is_empty() {
            is_stable(&text)?;
        }
    }
}

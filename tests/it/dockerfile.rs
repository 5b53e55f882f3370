//! `cbs check` and `cbs context ls`, and what Dockerfiles are told when they are wrong.

use serde_json::Value;

use crate::env::TestEnv;

#[test]
fn check_says_what_is_questionable() {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", "FROM scratch as Base\nMAINTAINER me\nCMD echo hi\n");
    let said = env.cbs(&["check", "ctx"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    for needle in [
        "Check complete, 4 warnings have been found!",
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
        "Dockerfile:1",
        "MaintainerDeprecated",
        "JSONArgsRecommended",
        "'as' and 'FROM' keywords' casing do not match",
    ] {
        assert!(said.stdout.contains(needle), "no `{needle}` in:\n{}", said.stdout);
    }
    let said = env.cbs(&["check", "--json", "--skip=FromAsCasing,StageNameCasing", "ctx"]);
    let found: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let rules: Vec<&str> = found["warnings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|w| w["ruleName"].as_str())
        .collect();
    assert_eq!(
        (said.code, rules),
        (1, vec!["MaintainerDeprecated", "JSONArgsRecommended"])
    );
    env.cbs(&["check", "--skip=all", "ctx"]).ok();

    // A build minds only when it is told to.
    env.cbs(&["build", "ctx"]).ok();
    env.write("ctx/Dockerfile", "# check=error=true\nFROM scratch\nMAINTAINER me\n");
    env.cbs(&["build", "ctx"])
        .fails_with(&["lint violation found for rules: MaintainerDeprecated"]);
    env.write("ctx/Dockerfile", "FROM scratch\nCOPPY a b\n");
    let said = env.cbs(&["check", "ctx"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains("unknown instruction: COPPY (did you mean COPY?)"),
        "{}",
        said.stdout
    );
}

#[test]
fn questions_about_a_file_do_not_need_its_base_images() {
    let env = TestEnv::new();
    env.write(
        "ctx/Dockerfile",
        "# syntax=docker/dockerfile:1\n# V the version\nARG V=1\n# base what all need\nFROM 127.0.0.1:1/none:$V AS base\n\
         ENV A=$FROM_THE_BASE\nRUN --mount=type=secret,id=s,required x\n",
    );
    let said = env.cbs(&["build", "--call=outline,format=json", "ctx"]).ok();
    let outline: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(outline["args"][0]["name"], "V");
    assert_eq!(outline["secrets"][0]["required"], true);
    assert!(said.stderr.contains("127.0.0.1:1/none:1"), "{}", said.stderr);
    // What an unknown image may define is not called undefined.
    env.cbs(&["check", "ctx"]).ok();
    env.cbs(&["build", "ctx"])
        .fails_with(&["127.0.0.1:1/none:1", "Dockerfile:5"]);
    let said = env.cbs(&["build", "--call=targets", "ctx"]).ok();
    assert!(said.stdout.contains("what all need"), "{}", said.stdout);
}

#[test]
fn context_ls_names_the_rule_that_decided() {
    let env = TestEnv::new();
    for name in [
        "a.log",
        "keep.log",
        "src/main.rs",
        "src/x.log",
        "target/big",
        "target/keep/me",
    ] {
        env.write(&format!("ctx/{name}"), "12345");
    }
    env.write(
        "ctx/.dockerignore",
        "# logs\n*.log\n!keep.log\n\ntarget\n!target/keep\n",
    );
    env.write("ctx/other.dockerignore", "src\n");
    let said = env.cbs(&["context", "ls", "ctx"]).ok();
    assert_eq!(
        said.stdout,
        ".dockerignore\nkeep.log\nother.dockerignore\nsrc/\nsrc/main.rs\nsrc/x.log\ntarget/\ntarget/keep/\ntarget/keep/me\n"
    );
    let said = env.cbs(&["context", "ls", "--explain", "ctx"]).ok();
    for needle in [
        "- a.log  ctx/.dockerignore:2: *.log\n",
        "+ keep.log  ctx/.dockerignore:3: !keep.log\n",
        "+ src/main.rs\n",
        "- target/big  ctx/.dockerignore:5: target\n",
        "+ target/keep/me  ctx/.dockerignore:6: !target/keep\n",
        "6 files, ",
    ] {
        assert!(said.stdout.contains(needle), "no {needle:?} in:\n{}", said.stdout);
    }
    let said = env.cbs(&["context", "ls", "--json", "-f", "ctx/other", "ctx"]).ok();
    let found: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(found["ignoreFile"], "ctx/other.dockerignore");
    let src = found["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|entry| entry["path"] == "src/");
    assert_eq!(src.expect("src")["rule"]["line"], 1);

    // What it lists is what COPY gets.
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY . /\n");
    let output = format!("type=local,dest={}", env.at("out"));
    env.cbs(&["build", "--output", &output, "ctx"]).ok();
    let listed = env.cbs(&["context", "ls", "ctx"]).ok().stdout;
    let found = env
        .tool(
            "sh",
            &["-c", "cd out && find . -mindepth 1 | sed 's|^./||' | LC_ALL=C sort"],
        )
        .ok()
        .stdout;
    let mut listed: Vec<&str> = listed.lines().map(|line| line.trim_end_matches('/')).collect();
    listed.sort_unstable();
    assert_eq!(found.lines().collect::<Vec<_>>(), listed);
    env.cbs(&["context", "ls", "nowhere"]).fails_with(&["nowhere"]);
}

#[test]
fn foreign_frontends_are_refused_in_clear_words() {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", "# syntax=example.com/my/frontend:1\nFROM scratch\n");
    env.cbs(&["build", "ctx"])
        .fails_with(&["example.com/my/frontend:1", "line 1", "docker/dockerfile"]);
    env.write(
        "ctx/Dockerfile",
        "# syntax=docker/dockerfile-upstream:master\nFROM scratch\n",
    );
    env.cbs(&["build", "ctx"]).ok();
    env.cbs(&["build", "--build-arg", "BUILDKIT_SYNTAX=other/thing", "ctx"])
        .fails_with(&["other/thing"]);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let env = TestEnv::new();
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "FROM scratch\nCOYP a b\n",
            &[],
            &["Dockerfile:2:1", "did you mean COPY?", "^^^^"],
        ),
        (
            "FROM scratch\nCOPY --form=x a b\n",
            &[],
            &["Dockerfile:2:6", "did you mean from?", "^^^^^^^^"],
        ),
        (
            "FROM scratch AS base\n",
            &["--target=bsae"],
            &["\"bsae\" could not be found", "did you mean base?"],
        ),
        ("FROM $IMGE\n", &[], &["Dockerfile:1:6", "declare its ARG"]),
        (
            "FROM scratch\nCOPY --from=5 a b\n",
            &[],
            &["Dockerfile:2:6", "invalid stage index 5"],
        ),
        (
            "FROM scratch\nRUN --mount=type=chache x\n",
            &[],
            &["Dockerfile:2", "did you mean cache?"],
        ),
        (
            "FROM --platform=$BULDPLATFORM scratch\n",
            &[],
            &["did you mean BUILDPLATFORM?"],
        ),
    ];
    for (file, flags, needles) in cases {
        env.write("ctx/Dockerfile", file);
        let mut args = vec!["build", "ctx"];
        args.extend_from_slice(flags);
        env.cbs(&args).fails_with(needles);
    }
}

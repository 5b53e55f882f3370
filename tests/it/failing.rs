//! Steps that fail: exit codes, time limits, memory, what is kept of them and taken out.

use std::fs;

use crate::env::TestEnv;
use crate::steps::{build, world};

#[test]
fn codes_and_signals_are_told_as_root() {
    let env = world();
    for (command, needles) in [
        ("exit 7", &["exit code: 7", "Dockerfile:3"][..]),
        ("sh -c 'kill -9 $$'; exit $?", &["exit code: 137"]),
        ("nothing-of-that-name", &["exit code: 127", "not found"]),
        ("[\"/nothing\"]", &["exit code: 127", "/nothing"]),
        ("[\"/etc/passwd\"]", &["exit code: 126", "permission denied"]),
    ] {
        let said = build(&env, &format!("RUN {command}\n"), &[]).fails_with(needles);
        assert!(said.stderr.contains("cbs shell"), "no hint:\n{}", said.stderr);
    }
    env.nothing_left();
}

#[test]
fn a_step_that_takes_too_long_is_ended_as_root() {
    let env = world();
    build(&env, "RUN sleep 1000000\n", &["--step-timeout", "500ms"])
        .fails_with(&["it took longer than the 500ms of --step-timeout"]);
    build(&env, "RUN true\n", &["--step-timeout", "1h"]).ok();
    for wrong in ["0", "soon", "5 days"] {
        build(&env, "RUN true\n", &["--step-timeout", wrong]).fails_with(&["--step-timeout"]);
    }
    env.nothing_left();
}

#[test]
fn running_out_of_memory_is_said_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN tail -c 200000000 /dev/zero > /dev/null\n",
    );
    env.write(
        "ctx/docker-bake.hcl",
        "target \"default\" {\n  resources = { memory = \"32m\" }\n}\n",
    );
    let said: crate::env::Said = env
        .cbs_command(&["bake", "--progress", "plain"])
        .current_dir(env.path("ctx"))
        .output()
        .expect("cbs starts")
        .into();
    said.fails_with(&["lack of memory"]);
    env.nothing_left();
}

#[test]
fn what_a_failed_step_left_can_be_taken_out_as_root() {
    let env = world();
    let step = "WORKDIR /work\nRUN mkdir reports && echo one > reports/a && echo two > reports/b && echo alone > single && exit 3\n";
    let (folder, file) = (
        format!("reports={}", env.at("got/reports")),
        format!("/work/single={}", env.at("got/one")),
    );
    build(
        &env,
        step,
        &["--artifact-on-failure", &folder, "--artifact-on-failure", &file],
    )
    .fails_with(&["exit code: 3"]);
    let text = |name: &str| fs::read_to_string(env.path(name)).unwrap_or_default();
    assert_eq!(
        (text("got/reports/a"), text("got/reports/b")),
        ("one\n".into(), "two\n".into())
    );
    assert_eq!(text("got/one"), "alone\n");
    let missing = format!("nothing={}", env.at("got/none"));
    build(&env, step, &["--artifact-on-failure", &missing]).fails_with(&["exit code: 3", "nothing` is not there"]);
    let cached = "RUN --mount=type=cache,target=/c touch /c/x && false\n";
    let from_cache = format!("/c/x={}", env.at("got/x"));
    build(&env, cached, &["--artifact-on-failure", &from_cache]).fails_with(&["cbs cache export"]);
    build(&env, step, &["--artifact-on-failure", "reports"]).fails_with(&["PATH=DEST"]);
    env.nothing_left();
}

/// Feeds a script to a shell in a step; what it printed.
pub(crate) fn shell(env: &TestEnv, args: &[&str], script: &str) -> crate::env::Said {
    use std::io::Write as _;
    let mut all = vec!["shell"];
    all.extend_from_slice(args);
    let mut child = env
        .cbs_command(&all)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("cbs starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A shell that ends early has read enough.
    stdin.write_all(script.as_bytes()).unwrap_or_default();
    drop(stdin);
    child.wait_with_output().expect("wait").into()
}

#[test]
fn a_failed_step_can_be_entered_as_root() {
    let env = world();
    env.write("secret", "hush");
    let secret = format!("id=s,src={}", env.at("secret"));
    let step = "ENV GREETING=hello\nWORKDIR /work\nUSER app\nUSER root\n\
         RUN echo before > first\n\
         RUN --mount=type=secret,id=s --mount=type=tmpfs,target=/t --mount=source=rootfs/etc,target=/e,rw \
         echo left > second; echo changed > /e/group; cat /run/secrets/s > /dev/null; exit 9\n\
         RUN never\n";
    // Without --keep-failed: the state before it.
    build(&env, step, &["--secret", &secret]).fails_with(&["exit code: 9", "--keep-failed", "--on-failure shell"]);
    let said = shell(
        &env,
        &["ctx", "--secret", &secret],
        "cat first; ls; cat /run/secrets/s; echo $GREETING; pwd; exit 4\n",
    );
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert_eq!(said.stdout, "before\nfirst\nhushhello\n/work\n");
    assert!(said.stderr.contains("before `"), "{}", said.stderr);
    shell(&env, &["ctx", "--after"], "").fails_with(&["--keep-failed"]);
    // With it: what it left, on all its mounts.
    build(&env, step, &["--secret", &secret, "--keep-failed"]).fails_with(&["cbs shell"]);
    let look = "cat first second /e/group; test -e /run/secrets/s || echo no secret\n";
    let said = shell(&env, &["ctx"], look).ok();
    assert_eq!(said.stdout, "before\nleft\nchanged\nno secret\n");
    let said = shell(&env, &["ctx", "--before"], "ls; head -1 /e/group\n").ok();
    assert_eq!(said.stdout, "first\nroot:x:0:\n");
    // Nothing done there is kept.
    shell(&env, &["ctx"], "rm second first\n").ok();
    assert_eq!(shell(&env, &["ctx"], "cat second\n").ok().stdout, "left\n");
    // It is kept from gc, and another program than a shell can be run.
    env.cbs(&["gc", "--all"]).ok();
    let said = env.cbs(&["shell", "ctx", "--", "cat", "/work/second"]).ok();
    assert_eq!(said.stdout, "left\n");
    // Other steps of the build that failed, by a part of their name.
    let said = shell(&env, &["ctx#echo before", "--before"], "ls; echo done\n").ok();
    assert_eq!(said.stdout, "done\n");
    shell(&env, &["ctx#nothing"], "").fails_with(&["nothing", "RUN echo before > first"]);
    // A build that succeeds takes its place.
    build(&env, "RUN echo fine > /fine\n", &["--output", "type=cacheonly"]).ok();
    env.nothing_left();
}

#[test]
fn steps_that_succeeded_can_be_entered_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN echo one > /one\nRUN echo two > /two; rm /one\n",
    );
    env.cbs(&["build", "-t", "example/it:1", "ctx"]).ok();
    let list = "ls -d /one /two 2>/dev/null\n";
    let seen = |args: &[&str]| shell(&env, args, list).stdout;
    assert_eq!(seen(&["example/it:1"]), "/two\n");
    assert_eq!(seen(&["example/it:1", "--before"]), "/one\n");
    assert_eq!(seen(&["ctx#echo one", "--before"]), "");
    assert_eq!(seen(&["ctx#echo one", "--after"]), "/one\n");
    assert_eq!(seen(&[]), "/two\n", "the last build is the default");
    shell(&env, &["other"], "").fails_with(&["other"]);
    let said = env.cbs(&["shell", "ctx", "--", "/no/such/program"]);
    said.fails_with(&["/no/such/program"]);
    env.nothing_left();
}

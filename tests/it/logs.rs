//! `cbs log`: what steps printed, also those that failed, and while they run.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::env::TestEnv;
use crate::steps::{Running, build, world};

#[test]
fn logs_of_failed_steps_are_kept_as_root() {
    let env = world();
    let step = "RUN echo went well\nRUN seq 100000; echo to stderr >&2; exit 3\n";
    build(&env, step, &[]).fails_with(&["exit code: 3"]);
    let log = env.cbs(&["log", "ctx"]).ok().stdout;
    assert!(
        log.contains("went well\n") && log.contains("to stderr\n"),
        "{}",
        log.len()
    );
    assert!(log.contains("ERROR: process") && log.contains("exit code: 3"));
    // Two pipes are read as it happens, so lines of one may be within lines of the other.
    let output = env.cbs(&["log", "ctx#seq", "--stream", "stdout"]).ok().stdout;
    assert!(output.contains("\n77777\n"), "{}", output.len());
    // One step, by a part of its name; one stream; with times.
    let errors = env
        .cbs(&["log", "ctx#seq", "--stream", "stderr", "--timestamps"])
        .ok()
        .stdout;
    let line = errors
        .lines()
        .find(|line| line.ends_with("to stderr"))
        .expect("the line");
    assert!(line.contains("Z stderr to stderr") && line.starts_with("20"), "{line}");
    assert!(!errors.contains("77777"));
    // The last build is the default, and gc leaves it alone.
    env.cbs(&["gc", "--all"]).ok();
    assert!(env.cbs(&["log", "#seq"]).ok().stdout.contains("to stderr"));
    let json = env.cbs(&["log", "ctx", "--json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let failed = json.as_array().and_then(|steps| steps.last()).expect("a step");
    assert!(
        failed["error"].as_str().expect("text").contains("exit code: 3"),
        "{failed}"
    );
    assert!(failed["log"].as_str().expect("text").contains("to stderr"));
    assert!(failed["records"][0]["time"].as_str().expect("text").ends_with('Z'));
    env.cbs(&["log", "ctx#nothing"])
        .fails_with(&["nothing", "RUN echo went well"]);
    // A success takes the failure's place.
    build(&env, "RUN printf '\"better\"'\n", &[]).ok();
    let json = env.cbs(&["log", "ctx#printf", "--json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["log"], "\"better\"");
    let roots = env.cbs(&["store", "roots"]).ok().stdout;
    assert!(!roots.contains("failed:"), "{roots}");
    env.nothing_left();
}

#[test]
fn binary_output_and_long_lines_are_kept_as_they_are_as_root() {
    let env = world();
    build(
        &env,
        "RUN head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end\n\
         RUN printf 'a\\000\\377\\033[31mb\\r\\n'; head -c 100000 /bin/busybox\n\
         RUN i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done\n",
        &["--output", "type=image"],
    )
    .ok();
    let mut command = env.cbs_command(&["log", "ctx#printf"]);
    let log = command.output().expect("cbs log").stdout;
    let head = b"a\0\xff\x1b[31mb\r\n";
    assert!(log.windows(head.len()).any(|window| window == head));
    let busybox = std::fs::read("/bin/busybox").expect("busybox");
    assert!(log.windows(50_000).any(|window| window == &busybox[10_000..60_000]));
    let long = env.cbs(&["log", "ctx#tr"]).ok().stdout;
    assert_eq!(long.lines().map(str::len).max(), Some(3_000_000));
    for (stream, other) in [("stdout", "err 0"), ("stderr", "out 0")] {
        let log = env.cbs(&["log", "ctx#while", "--stream", stream]).ok().stdout;
        assert_eq!(log.lines().count(), 2001, "{stream}");
        assert!(!log.contains(other));
    }
    env.nothing_left();
}

#[test]
fn a_running_build_can_be_followed_as_root() {
    let env: TestEnv = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\n\
         RUN --mount=type=cache,target=/c echo first; while ! test -e /c/go; do sleep 0.05; done; echo second; exit 6\n",
    );
    let mut command = env.cbs_command(&["build", "--progress", "quiet", "ctx"]);
    let mut building = Running(command.spawn().expect("cbs build"));
    // The build may not have come so far that it can be found.
    let mut following;
    let mut lines = loop {
        following = env
            .cbs_command(&["log", "ctx#echo first", "--follow"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cbs log");
        let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
        if lines.next().is_some() {
            break lines;
        }
        following.wait().expect("wait");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(lines.next().expect("a line").expect("text"), "first");
    // The step's mount is a folder of the store.
    let script = "for c in store/caches/*/0; do touch $c/go; done";
    env.tool("sh", &["-c", script]).ok();
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(rest[0], "second");
    assert!(rest.last().expect("a line").contains("exit code: 6"), "{rest:?}");
    assert_eq!(following.wait().expect("wait").code(), Some(1));
    building.0.wait().expect("wait");
    // Afterwards it is what was kept.
    let log = env.cbs(&["log", "ctx", "--follow"]).ok().stdout;
    assert!(log.contains("first\nsecond\n"), "{log}");
    env.nothing_left();
}

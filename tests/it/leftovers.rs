//! After a build that failed, was cancelled or was killed, nothing of it is left: no mount in any namespace, no process,
//! cgroup, network namespace, scratch or temporary file.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::crash::assert_nothing_left;
use crate::env::TestEnv;
use crate::steps::Running;

/// Steps at once that would run for ever, in all ways there are, and one that may fail.
const DOCKERFILE: &str = r#"FROM scratch AS base
COPY rootfs /
FROM base AS daemon
RUN --mount=type=cache,target=/cache setsid sleep 98765 & sleep 98765 & touch /cache/daemon; sleep 98765
FROM base AS alone
RUN --network=none --mount=type=tmpfs,target=/tmp touch /tmp/x; trap '' TERM INT HUP; while true; do sleep 1; done
FROM base AS bound
RUN --mount=type=bind,from=base,target=/base,rw --mount=type=secret,id=s touch /base/x; dd if=/dev/zero of=/big bs=1M count=3; sleep 98765
FROM base AS failing
ARG PAUSE=98765
RUN sleep $PAUSE; exit 7
FROM base
COPY --from=daemon / /1
COPY --from=alone / /2
COPY --from=bound / /3
COPY --from=failing / /4
"#;

fn world() -> TestEnv {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.busybox("ctx/rootfs");
    std::os::unix::fs::symlink("busybox", env.path("ctx/rootfs/bin/setsid")).expect("link");
    env.write("secret", "s3cret");
    let bake = r#"{"target": {"app": {"context": "ctx", "secret": ["id=s,src=secret"], "output": ["type=oci,dest=out.tar"],
        "resources": {"memory": "300m", "cpu-shares": 256}}}}"#;
    env.write("bake.json", bake);
    fs::create_dir(env.path("tmp")).expect("mkdir");
    env
}

fn start(env: &TestEnv, pause: &str) -> Child {
    let set = format!("app.args.PAUSE={pause}");
    let mut command = env.cbs_command(&["bake", "-f", "bake.json", "--jobs", "4", "--set", &set, "app"]);
    command.env("TMPDIR", env.path("tmp"));
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cbs starts")
}

/// Waits until all four steps run, as far as their scratch tells.
fn until_running(env: &TestEnv) {
    let begun = Instant::now();
    loop {
        let leases = fs::read_dir(env.path("store/work")).into_iter().flatten().flatten();
        let uppers = leases.flat_map(|lease| fs::read_dir(lease.path()).into_iter().flatten().flatten());
        if uppers
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("run"))
            .count()
            >= 4
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the steps never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    // From the scratch to the programs.
    std::thread::sleep(Duration::from_millis(150));
}

#[test]
fn a_killed_mount_is_taken_off_as_root() {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY x /\n");
    env.write("ctx/x", "x");
    env.cbs(&["build", "-t", "example/x:1", "ctx"]).ok();
    for signal in ["-KILL", "-TERM"] {
        let mut child = env
            .cbs_command(&["mount", &env.at("mnt")])
            .stderr(Stdio::null())
            .spawn()
            .expect("cbs starts");
        let begun = Instant::now();
        while !fs::read_dir(env.path("mnt")).is_ok_and(|mut names| names.next().is_some()) {
            assert!(begun.elapsed() < Duration::from_secs(10), "nothing is mounted");
            std::thread::sleep(Duration::from_millis(10));
        }
        env.tool("kill", &[signal, &child.id().to_string()]).ok();
        child.wait().expect("wait");
        assert_nothing_left(&env, &BTreeSet::from([child.id()]));
    }
}

#[track_caller]
fn check(env: &TestEnv, dead: u32) {
    assert_nothing_left(env, &BTreeSet::from([dead]));
    assert_eq!(
        fs::read_dir(env.path("tmp")).expect("list").count(),
        0,
        "left in TMPDIR"
    );
    assert!(!env.path("out.tar").exists());
    env.cbs(&["store", "verify"]).ok();
}

#[test]
fn a_failed_step_takes_the_others_with_it_as_root() {
    let env = world();
    let child = start(&env, "0.5");
    let id = child.id();
    let output = child.wait_with_output().expect("wait");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("exit code: 7"), "{said}");
    check(&env, id);
}

#[test]
fn cancelled_builds_leave_nothing_as_root() {
    let env = world();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = start(&env, "98765");
        until_running(&env);
        let asked = Instant::now();
        env.tool("kill", &[signal, &child.id().to_string()]).ok();
        assert_eq!(child.wait().expect("wait").code(), Some(code));
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "it took {:?}",
            asked.elapsed()
        );
        check(&env, child.id());
    }
}

#[test]
fn killed_builds_leave_nothing_after_the_next_command_as_root() {
    let env = world();
    env.write("next/Dockerfile", "FROM scratch\nCOPY x /\n");
    env.write("next/x", "x");
    for next in [vec!["build", "next"], vec!["gc"]] {
        let mut child = start(&env, "98765");
        until_running(&env);
        child.kill().expect("kill");
        child.wait().expect("wait");
        env.cbs(&next).ok();
        check(&env, child.id());
    }
}

#[test]
fn a_step_that_outlived_its_guard_is_ended_by_the_next_command_as_root() {
    let env = crate::steps::world();
    let mark = format!("9{:06}", std::process::id());
    // The kernel lets go of a process that changes its user, so that nothing but the guard would end this one.
    let step = format!("RUN exec /bin/busybox su app -c 'exec sleep {mark}'\n");
    env.write("ctx/Dockerfile", &format!("FROM scratch\nCOPY rootfs /\n{step}"));
    let mut command = env.cbs_command(&["build", "--memory", "300m", "--progress", "quiet", "ctx"]);
    let mut building = Running(command.spawn().expect("cbs starts"));
    let sleeping = format!("^sleep {mark}$");
    let is_there = || env.tool("pgrep", &["-f", &sleeping]).code == 0;
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the step never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = building.0.id();
    env.tool("pkill", &["-KILL", "-x", "-P", &id.to_string(), "cbs-guard"])
        .ok();
    env.tool("kill", &["-KILL", &id.to_string()]).ok();
    building.0.wait().expect("wait");
    assert!(is_there(), "nobody is left to end it");
    env.cbs(&["gc"]).ok();
    let begun = Instant::now();
    while is_there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
    env.cbs(&["gc"]).ok();
    assert_nothing_left(&env, &BTreeSet::from([id]));
}

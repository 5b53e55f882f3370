//! kill -9 and Ctrl-C at any instant: nothing is left, and the next build is whole.

use std::process::Stdio;
use std::time::Duration;

use crate::env::TestEnv;

const DOCKERFILE: &str = "FROM REGISTRY/cbs-test/busybox:1
RUN for i in $(seq 400); do echo $i > /f$i; done
RUN head -c 3000000 /dev/zero > /zeros; sleep 0.1
RUN sleep 0.1; cat /f* > /all
";

#[test]
fn kill_9_during_a_build_as_root() {
    let env = TestEnv::with_registry();
    env.write("ctx/Dockerfile", DOCKERFILE);
    let output = format!("type=oci,dest={}", env.at("out.tar"));
    let build = ["build", "--output", &output, "ctx"];
    // Spread over start, pull, run, ingest and export; the store is kept from one to the next.
    for delay in (0..20).map(|step| step * 35) {
        let mut child = env
            .cbs_command(&build)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cbs starts");
        std::thread::sleep(Duration::from_millis(delay));
        // It may have finished before the kill.
        child.kill().unwrap_or_default();
        child.wait().expect("wait");
        // The first one may die before there is a store.
        if delay % 140 == 0 && env.path("store/cbs.db").exists() {
            env.cbs(&["store", "verify"]).ok();
        }
    }
    env.cbs(&build).ok();
    let killed = std::fs::read(env.path("out.tar")).unwrap();
    env.nothing_left();
    env.cbs(&["store", "verify"]).ok();

    std::fs::rename(env.path("store"), env.path("killed-store")).unwrap();
    env.cbs(&build).ok();
    assert_eq!(
        std::fs::read(env.path("out.tar")).unwrap(),
        killed,
        "a quiet build gives the same bytes"
    );
}

#[test]
fn interrupt_stops_the_container_as_root() {
    let env = TestEnv::with_registry();
    env.write("ctx/Dockerfile", "FROM REGISTRY/cbs-test/busybox:1\nRUN sleep 987654\n");
    let mut child = env
        .cbs_command(&["build", "ctx"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cbs starts");
    let running = || env.tool("pgrep", &["-f", "sleep 987654"]).code == 0;
    for _ in 0..200 {
        if running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(running(), "the step never started");
    env.tool("kill", &["-INT", &child.id().to_string()]).ok();
    let status = child.wait().expect("wait");
    assert_eq!(status.code(), Some(130), "the exit code shells expect of Ctrl-C");
    assert!(!running(), "the container outlived cbs");
    env.nothing_left();
}

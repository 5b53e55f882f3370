//! kill -9 and Ctrl-C at any instant: nothing is left, and the next build is whole.
//!
//! ```text
//! start cbs ─ random pause ─ SIGKILL ─┬─ verify is clean
//!      ▲                              └─ the same command again: same bytes as in a quiet store, nothing left
//!      └── next kind of command: build, gc of everything, exports, several at once
//! ```
//! `CBS_CRASH_KILLS` is how often (200), `CBS_CRASH_SEED` where chance begins.

mod chance;
mod leftovers;
mod victims;

use std::process::Stdio;
use std::time::Duration;

use crate::env::TestEnv;
pub(crate) use chance::Chance;
pub(crate) use leftovers::assert_nothing_left;
use victims::{Kind, World};

/// Kills of one run of the tests, unless told otherwise.
const KILLS: u64 = 200;

/// A number that the environment may give.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Kills commands of some kinds until it was done `kills` times.
fn kill_and_check(name: &str, kinds: &[Kind], kills: u64) {
    let seed = setting("CBS_CRASH_SEED", 1);
    let mut chance = Chance::new(seed, name);
    let mut world = World::new();
    while world.kills < kills {
        let kind = kinds[chance.below(kinds.len() as u64) as usize];
        // Most often one kill; sometimes what follows it is killed as well.
        let in_a_row = 1 + chance.below(4) / 3 + chance.below(6) / 5;
        for _ in 0..in_a_row {
            world.kill(kind, &mut chance);
        }
        world.check(kind);
    }
    world.finish();
    eprintln!("{name}: {} kills, {} of them in time", world.kills, world.in_time);
    assert!(
        world.in_time * 2 > world.kills,
        "most commands ended before they were killed"
    );
}

#[test]
fn kill_9_during_builds_as_root() {
    kill_and_check(
        "builds",
        &[Kind::Build, Kind::Limited, Kind::BuildTwice],
        setting("CBS_CRASH_KILLS", KILLS) / 2,
    );
}

#[test]
fn kill_9_during_gc_and_exports_as_root() {
    let kinds = [Kind::Gc, Kind::Layout, Kind::Local, Kind::Archive, Kind::BuildBesideGc];
    kill_and_check("gc and exports", &kinds, setting("CBS_CRASH_KILLS", KILLS).div_ceil(2));
}

#[test]
fn kill_9_during_a_pull_as_root() {
    let env = TestEnv::with_registry();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN cat /etc/passwd > /copy\n",
    );
    let output = format!("type=oci,dest={}", env.at("out.tar"));
    let build = ["build", "--output", &output, "ctx"];
    // Spread over start, pull, run, ingest and export; the store is kept from one to the next.
    for delay in (0..12).map(|step| step * 30) {
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

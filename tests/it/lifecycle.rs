//! Store commands around a build: du, gc, verify, mount, log, plan, definitions.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::TestEnv;

const DOCKERFILE: &str =
    "FROM REGISTRY/cbs-test/busybox:1\nRUN echo one > /one; echo said-one\nRUN seq 100000 > /two\n";

fn built() -> TestEnv {
    let env = TestEnv::with_registry();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.cbs(&["build", "-t", "example/it:1", "ctx"]).ok();
    env
}

#[test]
fn du_gc_and_verify_as_root() {
    let env = built();
    env.cbs(&["store", "verify"]).ok();
    let du: serde_json::Value =
        serde_json::from_str(&env.cbs(&["du", "--json"]).ok().stdout).expect("du --json is JSON");
    assert!(du.is_object(), "{du}");
    env.cbs(&["gc", "--dry-run"]).ok();
    env.cbs(&["gc", "--all"]).ok();
    // The root kept the image: exporting needs no registry.
    env.cbs(&["export", "example/it:1", "--type", "tar", "-o", &env.at("out.tar")])
        .ok();
    assert!(
        env.tool("tar", &["-tf", &env.at("out.tar")])
            .ok()
            .stdout
            .contains("two")
    );
    env.nothing_left();
}

#[test]
fn damage_is_named_refused_and_repaired_as_root() {
    let env = built();
    let blob = largest_blob(&env);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
    let said = env.cbs(&["store", "verify"]);
    assert_ne!(said.code, 0);
    assert!(
        (said.stdout + &said.stderr).contains(&name),
        "the damaged blob is named"
    );
    let said = env.cbs(&["store", "verify", "--repair"]);
    assert!(
        (said.stdout + &said.stderr).contains(&name),
        "the repair says what it did"
    );
    env.cbs(&["store", "verify"]).ok();
    // What was lost is built again.
    env.cbs(&[
        "build",
        "-t",
        "example/it:1",
        "--output",
        &format!("type=tar,dest={}", env.at("out.tar")),
        "ctx",
    ])
    .ok();
    let two = env.tool("tar", &["-xOf", &env.at("out.tar"), "two"]).ok().stdout;
    assert_eq!(two.lines().last(), Some("100000"));
}

fn largest_blob(env: &TestEnv) -> std::path::PathBuf {
    let mut blobs = Vec::new();
    for folder in fs::read_dir(env.path("store/blobs")).expect("blobs").flatten() {
        for file in fs::read_dir(folder.path()).expect("folder").flatten() {
            blobs.push((file.metadata().expect("metadata").len(), file.path()));
        }
    }
    // The second largest is the `seq` output; the largest is busybox.
    blobs.sort();
    blobs[blobs.len() - 2].1.clone()
}

#[test]
fn mount_shows_trees_and_leaves_nothing_as_root() {
    let env = built();
    let dir = env.path("mnt");
    let mut child = env
        .cbs_command(&["mount", &env.at("mnt")])
        .stdout(Stdio::null())
        .spawn()
        .expect("cbs mount");
    let start = Instant::now();
    let found = loop {
        let names: Vec<_> = fs::read_dir(&dir)
            .map(|entries| entries.flatten().collect())
            .unwrap_or_default();
        if let Some(found) = names
            .iter()
            .map(|entry| entry.path())
            .find_map(|path| find(&path, "two"))
        {
            break found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "nothing appears below the mount"
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(fs::read_to_string(found).unwrap().lines().count(), 100_000);
    env.tool("kill", &["-INT", &child.id().to_string()]).ok();
    child.wait().expect("wait");
    env.nothing_left();
}

fn find(below: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let direct = below.join(name);
    if direct.exists() {
        return Some(direct);
    }
    fs::read_dir(below)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .find_map(|entry| {
            let path = entry.path().join(name);
            path.exists().then_some(path)
        })
}

#[test]
fn logs_are_kept_as_root() {
    let env = built();
    let log = env.cbs(&["log", "example/it:1"]).ok().stdout;
    assert!(log.contains("said-one"), "{log}");
}

#[test]
fn a_written_definition_is_realised_as_root() {
    let env = built();
    let plan = env.cbs(&["plan", "ctx", "--json"]).ok().stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("plan --json is JSON");
    assert!(plan.to_string().contains("RUN seq 100000"), "{plan}");
    env.cbs(&["plan", "ctx", "--output", &env.at("graph.pb")]).ok();
    let output = format!("type=tar,dest={}", env.at("graph.tar"));
    env.cbs(&["realize", &env.at("graph.pb"), "--output", &output]).ok();
    assert!(
        env.tool("tar", &["-tf", &env.at("graph.tar")])
            .ok()
            .stdout
            .contains("two")
    );
}

//! No space, no descriptors, no right to write, a store of another version: what is said, and that nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::env::{Said, TestEnv};

const DOCKERFILE: &str = r#"FROM scratch
COPY rootfs /
RUN i=0; while [ $i -lt 60 ]; do echo "$i" > /f$i; i=$((i+1)); done; head -c 1500000 /dev/urandom > /large || true
RUN cat /large /f* > /all; cat /all /all > /more; wc -c < /large > /size
RUN --mount=type=cache,target=/cache cp /more /cache/more; rm /more
"#;

fn world() -> TestEnv {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.busybox("ctx/rootfs");
    env
}

fn build(env: &TestEnv, dest: &str) -> Said {
    env.cbs(&["build", "--output", &format!("type=oci,dest={}", env.at(dest)), "ctx"])
}

#[track_caller]
fn is_clean(env: &TestEnv) {
    let said = env.cbs(&["store", "verify"]).ok();
    assert!(said.stdout.contains("all as named"), "{}", said.stdout);
}

/// Mounts a small disk where the store will be; taken off with its world.
struct Small<'a>(&'a TestEnv, String);

impl<'a> Small<'a> {
    fn tmpfs(env: &'a TestEnv, name: &str, size: u64) -> Self {
        let at = env.at(name);
        fs::create_dir_all(&at).expect("mkdir");
        env.tool("mount", &["-t", "tmpfs", "-o", &format!("size={size}k"), "tmpfs", &at])
            .ok();
        Self(env, at)
    }

    fn ext4(env: &'a TestEnv, name: &str, size: u64) -> Self {
        let (at, image) = (env.at(name), env.at("image"));
        fs::create_dir_all(&at).expect("mkdir");
        fs::File::create(&image)
            .and_then(|file| file.set_len(size << 10))
            .expect("make a disk");
        env.tool("mkfs.ext4", &["-q", "-m", "0", &image]).ok();
        env.tool("mount", &["-o", "loop", &image, &at]).ok();
        Self(env, at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        self.0.tool("umount", &["-l", &self.1]);
    }
}

#[test]
fn a_full_disk_at_any_point_costs_a_message_as_root() {
    // What a build needs here is between the first and the last; 0 KiB would be no limit to tmpfs.
    let mut failed = 0;
    for size in (1..17).map(|step| step * 1_500) {
        let env = world();
        let disk = Small::tmpfs(&env, "store", size);
        let said = build(&env, "out.tar");
        if said.code != 0 {
            said.fails_with(&["No space left on device", "help:"]);
            failed += 1;
            assert!(!env.path("out.tar").exists());
        }
        if env.path("store/cbs.db").exists() {
            let said = env.cbs(&["store", "verify"]);
            let is_fresh = said.stderr.contains("holds nothing yet");
            assert!(
                is_fresh || said.stdout.contains("all as named"),
                "{size}: {}{}",
                said.stdout,
                said.stderr
            );
            // gc works where nothing else does, unless there was never room for what it sets aside.
            if !is_fresh {
                let said = env.cbs(&["gc", "--all"]);
                assert!(said.code == 0 || size < 6_000, "{size}: {}", said.stderr);
            }
        }
        env.tool("mount", &["-o", "remount,size=64m", &disk.1]).ok();
        build(&env, "out.tar").ok();
        is_clean(&env);
        env.nothing_left_but_the_store_disk();
    }
    assert!((3..16).contains(&failed), "{failed} sizes were too small");
}

#[test]
fn a_full_ext4_costs_a_message_as_root() {
    let env = world();
    let _disk = Small::ext4(&env, "store", 12_000);
    build(&env, "out.tar").fails_with(&["No space left on device", "cbs gc"]);
    is_clean(&env);
    env.cbs(&["gc", "--all"]).ok();
    is_clean(&env);
    env.nothing_left_but_the_store_disk();
}

#[test]
fn a_full_disk_of_the_output_keeps_the_old_one_as_root() {
    let env = world();
    let _disk = Small::tmpfs(&env, "disk", 1_000);
    fs::write(env.path("disk/out.tar"), "old").unwrap();
    build(&env, "disk/out.tar").fails_with(&["No space left on device", "disk/out.tar"]);
    assert_eq!(fs::read(env.path("disk/out.tar")).unwrap(), b"old");
    assert_eq!(fs::read_dir(env.path("disk")).unwrap().count(), 1);
    is_clean(&env);
    build(&env, "out.tar").ok();
}

#[test]
fn nobody_to_talk_to_is_no_failure_as_root() {
    let env = world();
    let run = |script: &str| {
        let script = format!("\"$0\" {script}");
        let said = env.tool("sh", &["-c", &script, env!("CARGO_BIN_EXE_cbs")]);
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        said.code
    };
    assert_eq!(run("build ctx 2>/dev/full"), 0);
    assert_eq!(run("build --progress plain ctx 2>/dev/full"), 0);
    assert_eq!(run("build --progress rawjson ctx 2>/dev/full"), 0);
    assert_eq!(run("build nowhere 2>/dev/full"), 1);
    assert_eq!(run("gc 2>/dev/full"), 0);
    for command in ["du", "gc", "roots", "store verify", "store ls ctx"] {
        // What is asked for and cannot be given is a failure, and is said.
        assert_eq!(run(&format!("{command} >/dev/full")), 1, "{command}");
    }
    is_clean(&env);
}

#[test]
fn a_store_on_a_disk_without_a_single_free_block_is_opened_to_be_collected_as_root() {
    let env = world();
    let disk = Small::tmpfs(&env, "store", 24_000);
    build(&env, "out.tar").ok();
    // As after a copy, or of another program that made it smaller.
    fs::remove_file(env.path("store/cbs.db-shm")).expect("the shared memory of the index");
    env.tool("dd", &["if=/dev/zero", &format!("of={}/other", disk.1), "bs=4k"]);
    env.cbs(&["store", "unroot", &env.at("ctx")]).ok();
    env.cbs(&["gc", "--all"]).ok();
    env.tool("rm", &[&format!("{}/other", disk.1)]).ok();
    build(&env, "out.tar").ok();
    is_clean(&env);
}

#[test]
fn few_descriptors_cost_a_message_as_root() {
    let env = world();
    build(&env, "wanted.tar").ok();
    let (mut failed, mut built) = (0, 0);
    for limit in (12..100).step_by(8) {
        env.cbs(&["store", "unroot", &env.at("ctx")]);
        env.cbs(&["gc", "--all"]).ok();
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let output = format!("type=oci,dest={}", env.at("out.tar"));
        let words = [
            "-c",
            &script,
            env!("CARGO_BIN_EXE_cbs"),
            "build",
            "--output",
            &output,
            "ctx",
        ];
        let said = env.tool("sh", &words);
        if said.code == 0 {
            built += 1;
        } else {
            failed += 1;
            let is_said = said.stderr.contains("Too many open files") && said.stderr.contains("ulimit");
            assert!(
                is_said && !said.stderr.contains("panicked"),
                "{limit}:\n{}",
                said.stderr
            );
        }
        is_clean(&env);
        // Removing scratch takes descriptors as well: what stayed goes with the next command that has some.
        env.cbs(&["gc"]).ok();
        env.nothing_left();
    }
    assert!(failed > 3, "{failed} failed, {built} did not");
    build(&env, "out.tar").ok();
}

#[test]
fn a_store_that_cannot_be_written_can_be_looked_at_as_root() {
    let env = world();
    build(&env, "out.tar").ok();
    let before = tree_listing(&env);
    let store = env.at("store");
    env.tool("mount", &["--bind", &store, &store]).ok();
    env.tool("mount", &["-o", "remount,ro,bind", &store]).ok();
    let disk = Small(&env, store);
    is_clean(&env);
    let root = env.at("ctx");
    env.cbs(&["du"]).ok();
    env.cbs(&["store", "roots"]).ok();
    env.cbs(&["log", &root]).ok();
    assert!(env.cbs(&["store", "ls", &root]).ok().stdout.contains("size"));
    assert_eq!(
        env.cbs(&["store", "cat", &format!("{root}:/size")]).ok().stdout,
        "1500000\n"
    );
    env.cbs(&["gc", "--dry-run"]);
    for words in [
        vec!["gc"],
        vec!["build", "ctx"],
        vec!["export", &root, "-o", "x.tar"],
        vec!["store", "unroot", &root],
    ] {
        env.cbs(&words).fails_with(&["Read-only file system", "--store"]);
    }
    drop(disk);
    assert_eq!(tree_listing(&env), before, "nothing changed");
    is_clean(&env);
}

/// Names and sizes of the store's files, but for those that say who is at work.
fn tree_listing(env: &TestEnv) -> String {
    env.tool(
        "find",
        &[
            &env.at("store"),
            "-type",
            "f",
            "!",
            "-name",
            "*-shm",
            "-printf",
            "%P %s\n",
        ],
    )
    .ok()
    .stdout
}

#[test]
fn a_store_of_somebody_else_as_root() {
    let env = world();
    build(&env, "out.tar").ok();
    let stranger = |words: &[&str]| {
        let mut all = vec![
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_cbs"),
        ];
        all.extend(words);
        env.tool("setpriv", &all)
    };
    // The folder of the world is closed to others; the store alone shall be what refuses.
    fs::set_permissions(env.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    for words in [
        ["store", "verify"],
        ["gc", "--all"],
        ["build", "ctx"],
        ["store", "roots"],
    ] {
        stranger(&words).fails_with(&["Permission denied", &env.at("store")]);
    }
    is_clean(&env);
}

#[test]
fn stores_of_other_versions_and_other_databases_are_named_and_left_alone_as_root() {
    let env = world();
    build(&env, "out.tar").ok();
    let database = env.at("store/cbs.db");
    let sql = |text: &str| {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.close()";
        env.tool("python3", &["-c", script, &database, text]).ok();
    };
    let root = env.at("ctx");
    let commands = [
        vec!["build", "ctx"],
        vec!["gc", "--all"],
        vec!["store", "verify"],
        vec!["du"],
        vec!["log", &root],
    ];
    sql("PRAGMA user_version = 99");
    for words in &commands {
        env.cbs(words).fails_with(&["format 99", &env.at("store"), "help:"]);
    }
    sql("PRAGMA user_version = 0");
    for words in &commands {
        env.cbs(words).fails_with(&["cbs.db", "not the database of a store"]);
    }
    sql("PRAGMA user_version = 1");
    is_clean(&env);

    let whole = fs::read(&database).unwrap();
    fs::write(
        &database,
        "this is a text of some length, and no database at all\n".repeat(100),
    )
    .unwrap();
    for words in &commands {
        env.cbs(words).fails_with(&["not a database"]);
    }
    fs::write(&database, whole).unwrap();
    is_clean(&env);
}

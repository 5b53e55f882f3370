//! What surrounds builds, as users who are not root: shells, cache mounts, failures and logs, mounts, gc.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::{Said, TestEnv};
use crate::steps::{Running, world};
use crate::users::User;

/// A Dockerfile over the base of [`world`].
fn write(env: &TestEnv, steps: &str) {
    env.write("ctx/Dockerfile", &format!("FROM scratch\nCOPY rootfs /\n{steps}"));
}

/// A user's command with something to read.
fn fed(user: &User<'_>, args: &[&str], input: &[u8]) -> Said {
    let mut command = user.command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("cbs starts");
    // One that ends early has read enough.
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).unwrap_or_default();
    drop(stdin);
    child.wait_with_output().expect("wait").into()
}

fn failures_are_kept_entered_and_told(env: &TestEnv, user: &User<'_>, owner: &str) {
    env.write("secret", "hush");
    write(
        env,
        "WORKDIR /work\nRUN echo before > first\n\
         RUN --mount=type=secret,id=s --mount=type=cache,target=/c --mount=source=rootfs/etc,target=/e,rw \
         mkdir reports && echo left > reports/second && chmod 600 reports/second && chown $OWNER reports/second; \
         echo changed > /e/group; echo out; echo err >&2; exit 9\n"
            .replace("$OWNER", owner)
            .as_str(),
    );
    let taken = format!("reports/second={}", user.at("taken"));
    let args = [
        "build",
        "--secret=id=s,src=secret",
        "--keep-failed",
        "--artifact-on-failure",
        &taken,
        "ctx",
    ];
    user.cbs(&args).fails_with(&["exit code: 9", "cbs shell"]);
    assert_eq!(std::fs::read_to_string(user.at("taken")).expect("taken"), "left\n");
    let log = user.cbs(&["log", "ctx"]).ok().stdout;
    assert!(
        log.contains("\nout\n") && log.contains("\nerr\n") && log.contains("exit code: 9"),
        "{log}"
    );
    assert!(
        user.cbs(&["log", "ctx#first", "--json"])
            .ok()
            .stdout
            .contains("echo before")
    );
    let look = b"cat first reports/second /e/group; stat -c %u:%g reports/second; touch /c/x && id -u; exit 3\n";
    let said = fed(user, &["shell", "ctx"], look);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert_eq!(said.stdout, format!("before\nleft\nchanged\n{owner}\n0\n"));
    let said = fed(
        user,
        &["shell", "ctx", "--before", "--secret=id=s,src=secret"],
        b"ls; cat /run/secrets/s\n",
    );
    assert_eq!(said.ok().stdout, "first\nhush");
    // It is kept from gc, and let go of when the step succeeds.
    user.cbs(&["gc", "--all"]).ok();
    let said = user.cbs(&["shell", "ctx", "--", "cat", "/work/reports/second"]);
    assert_eq!(said.ok().stdout, "left\n");
    write(env, "RUN echo fine\n");
    user.cbs(&["build", "ctx"]).ok();
    assert_eq!(
        fed(user, &["shell", "ctx"], b"ls /work || pwd\n").ok().stdout,
        "/\n",
        "that of the last build"
    );
    user.nothing_left();
}

#[test]
fn a_user_with_ranges_looks_into_what_failed() {
    let env = world();
    failures_are_kept_entered_and_told(&env, &User::with_ranges(&env), "5:7");
}

#[test]
fn a_user_with_one_id_looks_into_what_failed() {
    let env = world();
    failures_are_kept_entered_and_told(&env, &User::with_one_id(&env), "0:0");
}

fn cache_mounts_are_things_of_their_own(env: &TestEnv, user: &User<'_>, owner: &str) {
    write(
        env,
        &format!(
            "RUN --mount=type=cache,target=/c cd /c && echo one > file && chmod 640 file && chown {owner} file && \
             ln file hard && ln -s file soft && mkdir -m 700 deep && chown {owner} deep && echo two > deep/x\n"
        ),
    );
    user.cbs(&["build", "ctx"]).ok();
    let listed = user.cbs(&["cache", "ls"]).ok().stdout;
    assert!(listed.contains("  /c\n"), "{listed}");
    let tar = user.at("c.tar");
    user.cbs(&["cache", "export", "/c", "-o", &tar]).ok();
    let list = env.tool("tar", &["-tvf", &tar, "--numeric-owner"]).ok().stdout;
    let row = format!("-rw-r----- {}", owner.replace(':', "/"));
    for needle in [row.as_str(), "link to", "soft -> file", "deep/x"] {
        assert!(list.contains(needle), "no {needle} in\n{list}");
    }
    // What others own inside the namespace is removed by its owner outside, too.
    user.cbs(&["cache", "rm", "/c"]).ok();
    assert_eq!(user.cbs(&["cache", "ls"]).ok().stdout, "");
    let archive = std::fs::read(&tar).expect("tar");
    fed(user, &["cache", "import", "/c"], &archive).ok();
    write(
        env,
        "RUN --mount=type=cache,target=/c cat /c/file /c/deep/x && stat -c %a:%u:%g:%h /c/file\n",
    );
    let said = user.cbs(&["build", "--progress=plain", "ctx"]).ok();
    let row = format!(" 640:{owner}:2\n");
    for needle in [" one\n", " two\n", row.as_str()] {
        assert!(said.stderr.contains(needle), "no {needle:?} in\n{}", said.stderr);
    }
    assert!(user.cbs(&["du"]).ok().stdout.contains("/c"), "it has a size");
    user.cbs(&["cache", "rm", "--all"]).ok();
    user.cbs(&["store", "verify"]).ok();
    user.nothing_left();
}

#[test]
fn cache_mounts_of_a_user_with_ranges() {
    let env = world();
    cache_mounts_are_things_of_their_own(&env, &User::with_ranges(&env), "1000:2000");
}

#[test]
fn cache_mounts_of_a_user_with_one_id() {
    let env = world();
    cache_mounts_are_things_of_their_own(&env, &User::with_one_id(&env), "0:0");
}

#[test]
fn an_archive_with_owners_a_user_does_not_have_is_refused_whole() {
    let env = world();
    let user = User::with_one_id(&env);
    env.write("new/file", "x");
    env.tool(
        "tar",
        &[
            "-C",
            &env.at("new"),
            "--owner=33",
            "--group=44",
            "-cf",
            &env.at("new.tar"),
            ".",
        ],
    )
    .ok();
    user.cbs(&["cache", "import", "/c", "-i", &env.at("new.tar")])
        .fails_with(&["new.tar", "33"]);
    assert_eq!(user.cbs(&["cache", "ls"]).ok().stdout, "");
}

#[test]
fn gc_of_a_user_takes_what_the_steps_left() {
    let env = world();
    write(
        &env,
        "RUN mkdir -m 700 /own && echo x > /own/file && chown -R 5:5 /own\nRUN --mount=type=cache,target=/c chown 9:9 /c\n",
    );
    let user = User::with_ranges(&env);
    user.cbs(&["build", "-t", "example/it:1", "ctx"]).ok();
    user.cbs(&["gc", "--all"]).ok();
    user.cbs(&["export", "example/it:1", "-o", &user.at("one.tar")]).ok();
    // Without its names nothing keeps it.
    let roots = user.cbs(&["store", "roots"]).ok().stdout;
    for root in roots.lines().filter_map(|line| line.split_once("  ")) {
        user.cbs(&["store", "unroot", root.1]).ok();
    }
    user.cbs(&["gc", "--all"]).ok();
    user.cbs(&["export", "example/it:1", "-o", &user.at("two.tar")])
        .fails_with(&["example/it:1"]);
    assert_eq!(user.cbs(&["du", "--format", "json"]).ok().stdout, "");
    user.nothing_left();
}

#[test]
fn a_user_mounts_for_himself() {
    let env = world();
    write(
        &env,
        "RUN echo made > /made && chmod 640 /made && chown 5:5 /made && dd if=/dev/zero of=/big bs=1M count=2\n",
    );
    let user = User::with_ranges(&env);
    user.cbs(&["build", "-t", "example/it:1", "ctx"]).ok();
    for signal in ["-INT", "-KILL"] {
        let mut command = user.command(&["mount", &user.at("mnt")]);
        let mut mounted = Running(command.stderr(Stdio::null()).spawn().expect("cbs starts"));
        let pid = mounted.0.id();
        let inside = |script: &str| user.inside(pid, script);
        let start = Instant::now();
        while inside("ls mnt/*").code != 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is mounted");
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = inside("cd mnt/*it:1* && cat bin/../etc/group && stat -c %a:%u made && wc -c < big").ok();
        assert!(said.stdout.ends_with("640:5\n2097152\n"), "{}", said.stdout);
        inside("! touch mnt/*it:1*/x && ! cat mnt/*it:1*/made").ok();
        env.tool("kill", &[signal, &pid.to_string()]).ok();
        mounted.0.wait().expect("wait");
        let start = Instant::now();
        while env.tool("pgrep", &["-f", &user.at("mnt")]).code == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "something still serves");
            std::thread::sleep(Duration::from_millis(20));
        }
        user.nothing_left();
    }
    // A folder that is not the user's is refused as the system says it.
    std::fs::create_dir(env.path("roots")).expect("mkdir");
    user.cbs(&["mount", &env.at("roots")])
        .fails_with(&["a user cannot mount on", "roots", "cbs store ls"]);
}

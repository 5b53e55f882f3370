//! `cbs cache`: cache mounts as things of their own.

use std::fs;

use crate::steps::{Running, build, out, world};

#[test]
fn cache_mounts_are_listed_moved_and_removed_as_root() {
    let env = world();
    let fill = "RUN --mount=type=cache,target=/c cd /c && echo one > file && chmod 640 file && chown 1000:2000 file && \
        ln file hard && ln -s file soft && mkdir -p deep/er && echo two > deep/er/x && mkfifo fifo && chmod 751 .\n";
    build(&env, fill, &[]).ok();
    let listed = env.cbs(&["cache", "ls"]).ok().stdout;
    assert!(listed.contains("  /c\n"), "{listed}");
    let listed: serde_json::Value =
        serde_json::from_str(&env.cbs(&["cache", "ls", "--json"]).ok().stdout).expect("JSON");
    assert_eq!(listed[0]["id"], "//c");
    // Out, and the same bytes again.
    env.cbs(&["cache", "export", "/c", "-o", &env.at("c.tar")]).ok();
    env.tool(
        "sh",
        &[
            "-c",
            &format!("{} cache export /c > again.tar", env!("CARGO_BIN_EXE_cbs")),
        ],
    )
    .ok();
    assert_eq!(
        fs::read(env.path("c.tar")).expect("tar"),
        fs::read(env.path("again.tar")).expect("tar")
    );
    let list = env
        .tool("tar", &["-tvf", &env.at("c.tar"), "--numeric-owner"])
        .ok()
        .stdout;
    for needle in [
        "-rw-r----- 1000/2000",
        "link to",
        "soft -> file",
        "prw-r--r--",
        "deep/er/x",
        "drwxr-x--x",
    ] {
        assert!(list.contains(needle), "no {needle} in\n{list}");
    }
    // Gone, and back from a compressed archive, into another mount as well.
    env.cbs(&["cache", "rm", "/c"]).ok();
    assert_eq!(env.cbs(&["cache", "ls"]).ok().stdout, "");
    env.cbs(&["cache", "rm", "/c"])
        .fails_with(&["no cache mount `/c`", "has none"]);
    env.tool("zstd", &["-q", &env.at("c.tar")]).ok();
    env.cbs(&["cache", "import", "/c", "-i", &env.at("c.tar.zst")]).ok();
    env.tool(
        "sh",
        &[
            "-c",
            &format!("{} cache import other < c.tar", env!("CARGO_BIN_EXE_cbs")),
        ],
    )
    .ok();
    let look = "RUN --mount=type=cache,target=/c --mount=type=cache,id=other,target=/o cat /c/file /o/deep/er/x /c/soft > /seen && \
        stat -c '%a %u %g %h' /c/file /o > /stat\n";
    build(&env, look, &[]).ok();
    assert_eq!(out(&env, "seen"), "one\ntwo\none\n");
    assert_eq!(out(&env, "stat"), "640 1000 2000 2\n751 0 0 3\n");
    // What was there is replaced; a damaged archive replaces nothing.
    fs::write(env.path("bad.tar"), &fs::read(env.path("c.tar")).expect("tar")[..2000]).expect("write");
    env.cbs(&["cache", "import", "/c", "-i", &env.at("bad.tar")])
        .fails_with(&["bad.tar", "/c"]);
    env.cbs(&["cache", "import", "/c", "-i", &env.at("nothing.tar")])
        .fails_with(&["nothing.tar"]);
    fs::create_dir(env.path("new")).expect("mkdir");
    fs::write(env.path("new/only"), "x").expect("write");
    env.tool("tar", &["-C", &env.at("new"), "-cf", &env.at("new.tar"), "."])
        .ok();
    env.cbs(&["cache", "import", "/c", "-i", &env.at("new.tar")]).ok();
    build(
        &env,
        "RUN --mount=type=cache,target=/c ls /c > /seen\n",
        &["--no-cache"],
    )
    .ok();
    assert_eq!(out(&env, "seen"), "only\n");
    env.cbs(&["cache", "export", "nothing"])
        .fails_with(&["no cache mount `nothing`", "/c", "other"]);
    env.cbs(&["cache", "rm", "--all"]).ok();
    assert_eq!(env.cbs(&["cache", "ls"]).ok().stdout, "");
    env.nothing_left();
}

#[test]
fn a_cache_mount_in_use_stays_as_root() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        "FROM scratch\nCOPY rootfs /\nRUN --mount=type=cache,target=/c touch /c/busy; while ! test -e /c/go; do sleep 0.05; done\n",
    );
    let mut command = env.cbs_command(&["build", "--progress", "quiet", "ctx"]);
    let mut building = Running(command.spawn().expect("cbs build"));
    let start = std::time::Instant::now();
    let is_busy = || env.tool("sh", &["-c", "ls store/caches/*/0/busy"]).code == 0;
    while !is_busy() {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(120),
            "the step does not begin"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    env.cbs(&["cache", "rm", "/c"]).fails_with(&["/c", "running step"]);
    env.tool("sh", &["-c", "for slot in store/caches/*/0; do touch $slot/go; done"])
        .ok();
    assert!(building.0.wait().expect("wait").success());
    env.cbs(&["cache", "rm", "/c"]).ok();
}

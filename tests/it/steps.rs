//! A world for tests of RUN steps: a base image of nothing but busybox, from a folder, so that no registry is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::env::{Said, TestEnv};

/// What the tests' Dockerfiles begin with.
const BASE: &str = "FROM scratch AS base\nCOPY rootfs /\n";

const APPLETS: &[&str] = &[
    "sh",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mkfifo",
    "mount",
    "mv",
    "nc",
    "nslookup",
    "od",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "route",
    "sed",
    "seq",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "unshare",
    "uname",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// A world with a context `ctx` that has a root file system of busybox.
pub(crate) fn world() -> TestEnv {
    let env = TestEnv::new();
    let root = env.path("ctx/rootfs");
    fs::create_dir_all(root.join("bin")).expect("mkdir");
    fs::create_dir_all(root.join("etc")).expect("mkdir");
    fs::create_dir_all(root.join("tmp")).expect("mkdir");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static must be installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("symlink");
    }
    env.write(
        "ctx/rootfs/etc/passwd",
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nlone:x:1001:1001::/:/bin/sh\n",
    );
    env.write(
        "ctx/rootfs/etc/group",
        "root:x:0:\napp:x:1000:\nextra:x:2000:app,lone\nmore:x:2001:app\n",
    );
    env
}

/// Builds the base and these lines; what ends up in the image is below `out`.
pub(crate) fn build(env: &TestEnv, lines: &str, flags: &[&str]) -> Said {
    env.write("ctx/Dockerfile", &format!("{BASE}{lines}"));
    let output = format!("type=local,dest={}", env.at("out"));
    let mut args = vec!["build", "--progress", "plain", "--output", &output];
    args.extend_from_slice(flags);
    args.push("ctx");
    env.cbs(&args)
}

/// A file of the last build's result.
pub(crate) fn out(env: &TestEnv, path: &str) -> String {
    let path = env.path("out").join(path.trim_start_matches('/'));
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Whether the last build's result has it.
pub(crate) fn has(env: &TestEnv, path: &str) -> bool {
    Path::new(&env.at("out"))
        .join(path.trim_start_matches('/'))
        .symlink_metadata()
        .is_ok()
}

/// A command in the background, which does not outlive a test that fails.
pub(crate) struct Running(pub(crate) std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that ended already is no failure.
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

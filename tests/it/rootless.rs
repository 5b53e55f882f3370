//! Builds by users who are not root, with ranges of ids and with one id only.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::env::TestEnv;
use crate::users::User;

/// Owners of others below and above the steps, all of them changed in some way.
const OWNERS: &str = r#"FROM REGISTRY/cbs-test/busybox:1
COPY --chown=33:44 one /srv/kept
COPY --chown=33:44 one /srv/deep/changed
COPY --chown=33:44 one /srv/deep/gone
COPY --chown=0:44 one /srv/group
RUN echo more >> /srv/deep/changed && rm /srv/deep/gone && chmod 750 /srv/deep && chmod 4755 /srv/group \
 && echo new > /srv/deep/new && ln -s kept /srv/link && mkdir /srv/made && rm -r /bin/false
RUN seq 60000 > /big && ln /big /big-too && mkdir -p /a/b/c && rm -r /srv/made && mkdir /srv/made && : > /srv/made/x
RUN echo 1 >> /big && mv /a/b /a/d && mkfifo /srv/fifo
"#;
/// What only works where other users exist.
const CHANGES: &str = "RUN chown 33:44 /srv/made && chown -h 7 /srv/link && echo app:x:1000:1000::/home/app: >> /etc/passwd \
    && mkdir -p /home/app && chown app:1000 /home/app && mkdir -m 700 /home/own\n\
    USER app\nWORKDIR /home/app\nRUN id -u > uid && chmod 600 uid\nUSER 33:44\nRUN --mount=type=cache,target=/c,uid=33 touch /c/x\n\
USER root\nRUN --mount=type=secret,id=s,uid=33,mode=0400,required=true cat /run/secrets/s > /secret && chown 65536 /secret\n";

fn world(text: &str) -> TestEnv {
    let env = TestEnv::with_registry();
    env.write("ctx/one", "one\n");
    env.write("ctx/s", "hidden\n");
    env.write("ctx/Dockerfile", text);
    env
}

/// The flags of a build whose digest does not depend on the clock.
fn flags(dest: &str) -> Vec<String> {
    let output = format!("type=oci,dest={dest},rewrite-timestamp=true");
    [
        "build",
        "--secret",
        "id=s,src=ctx/s",
        "--metadata-file",
        &format!("{dest}.json"),
        "--output",
        &output,
        "ctx",
    ]
    .map(ToOwned::to_owned)
    .into()
}

fn digest(env: &TestEnv, metadata: &str) -> String {
    let text = std::fs::read_to_string(env.path(metadata)).expect("metadata");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value["containerimage.digest"].as_str().expect("a digest").to_owned()
}

fn built_by_root(env: &TestEnv) -> String {
    let flags = flags(&env.at("root.tar"));
    let args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut command = env.cbs_command(&args);
    crate::env::Said::from(command.env("SOURCE_DATE_EPOCH", "1").output().expect("cbs")).ok();
    digest(env, "root.tar.json")
}

fn build_as(user: &User<'_>) -> crate::env::Said {
    let flags = flags(&user.at("out.tar"));
    let args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut command = user.command(&args);
    command.env("SOURCE_DATE_EPOCH", "1").output().expect("cbs").into()
}

#[test]
fn a_user_with_ranges_builds_what_root_builds() {
    let env = world(&format!("{OWNERS}{CHANGES}"));
    let root = built_by_root(&env);
    let user = User::with_ranges(&env);
    let said = build_as(&user).ok();
    assert!(!said.stderr.contains("WARNING"), "{}", said.stderr);
    assert_eq!(digest(&env, "ranges/out.tar.json"), root);
    // A second time nothing runs, and the store is sound.
    let said = build_as(&user).ok();
    assert!(said.stderr.contains("CACHED"), "{}", said.stderr);
    user.cbs(&["store", "verify"]).ok();
    user.cbs(&["du"]).ok();
    user.nothing_left();
    user.cbs(&["gc", "--all"]).ok();
    user.nothing_left();
}

#[test]
fn a_user_with_one_id_builds_the_same_when_owners_stay() {
    let env = world(OWNERS);
    let root = built_by_root(&env);
    let user = User::with_one_id(&env);
    let said = build_as(&user).ok();
    let warning = "rootless with a single id: `/etc/subuid` has no range for user 54321";
    assert_eq!(said.stderr.matches(warning).count(), 1, "{}", said.stderr);
    assert_eq!(digest(&env, "single/out.tar.json"), root);
    user.nothing_left();
    for (text, needles) in [
        (
            "USER 33\nRUN id",
            ["Dockerfile:", "user 33, who is to run the step, does not exist"],
        ),
        (
            "RUN --mount=type=cache,target=/c,gid=7 id",
            ["Dockerfile:", "group 7, who is to own cache mount `/c`, does not exist"],
        ),
        (
            "RUN --mount=type=secret,id=s,uid=5 id",
            ["Dockerfile:", "user 5, who is to own `/run/secrets/s`, does not exist"],
        ),
    ] {
        env.write("ctx/Dockerfile", &format!("FROM REGISTRY/cbs-test/busybox:1\n{text}\n"));
        build_as(&user).fails_with(&needles).fails_with(&["/etc/subuid"]);
    }
    user.nothing_left();
}

#[test]
fn limits_without_delegation_are_said_to_be_missing() {
    let env = world("FROM REGISTRY/cbs-test/busybox:1\nRUN id\n");
    env.write(
        "docker-bake.hcl",
        "target \"default\" {\n  context = \"ctx\"\n  resources = { memory = \"64m\" }\n}\n",
    );
    let user = User::with_ranges(&env);
    let said = user.cbs(&["bake", "--allow", "fs=*"]).ok();
    assert!(said.stderr.contains("limit memory was not set"), "{}", said.stderr);
    user.nothing_left();
}

#[test]
fn the_container_of_a_user_is_no_weaker_than_roots() {
    let env = world(
        "FROM REGISTRY/cbs-test/busybox:1\n\
         RUN --network=none grep NoNewPrivs: /proc/self/status; grep CapEff: /proc/self/status; ls /sys/class/net; \
         echo x > /proc/sys/kernel/hostname || echo sealed; mknod /n c 1 3 || echo no nodes; \
         mount -t tmpfs t /tmp || echo no mounts; cat /proc/keys | wc -c\n",
    );
    let user = User::with_ranges(&env);
    let said = build_as(&user).ok();
    for line in ["00000000a80425fb", " lo", "sealed", "no nodes", "no mounts", " 0"] {
        assert!(said.stderr.contains(line), "no `{line}` in:\n{}", said.stderr);
    }
    user.nothing_left();
}

const SLOW: &str = "FROM REGISTRY/cbs-test/busybox:1\n\
    RUN mkdir -m 700 /p && chown 5:5 /p && touch /p/x && echo is-running && sleep 1000\n";

/// Starts a build and waits until its step runs.
fn started(user: &User<'_>, env: &TestEnv) -> Child {
    let log = std::fs::File::create(env.path("log")).expect("log");
    let child = user
        .command(&["build", "--progress=plain", "ctx"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("cbs");
    wait_until("the step runs", || {
        let text = std::fs::read_to_string(env.path("log")).unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with('#') && line.ends_with(" is-running"))
    });
    child
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(env: &TestEnv, child: &Child, name: &str) {
    env.tool("kill", &[name, &child.id().to_string()]).ok();
}

#[test]
fn an_interrupted_user_leaves_nothing() {
    let env = world(SLOW);
    let user = User::with_ranges(&env);
    let mut child = started(&user, &env);
    signal(&env, &child, "-INT");
    assert_eq!(child.wait().expect("wait").code(), Some(130));
    user.nothing_left();
}

#[test]
fn a_killed_user_leaves_nothing_for_long() {
    let env = world(SLOW);
    let user = User::with_ranges(&env);
    let mut child = started(&user, &env);
    signal(&env, &child, "-KILL");
    assert_eq!(child.wait().expect("wait").signal(), Some(9));
    // What the step left belongs to ids that are not the user's, and goes all the same.
    env.write("ctx/Dockerfile", "FROM REGISTRY/cbs-test/busybox:1\nRUN echo ok\n");
    user.cbs(&["build", "ctx"]).ok();
    user.nothing_left();
}

#[test]
fn without_user_namespaces_only_run_fails_and_says_why() {
    let env = world("FROM REGISTRY/cbs-test/busybox:1\nCOPY one /one\n");
    let user = User::with_ranges(&env).without_namespaces();
    build_as(&user).ok();
    env.write("ctx/Dockerfile", "FROM REGISTRY/cbs-test/busybox:1\nRUN id\n");
    build_as(&user).fails_with(&[
        "RUN needs a user namespace when cbs is not run by root",
        "or run cbs as root",
    ]);
    user.nothing_left();
    assert!(user.home().join("out.tar").exists());
}

#[test]
fn the_doctor_tells_what_a_user_has() {
    let env = TestEnv::new();
    let said = User::with_ranges(&env).cbs(&["doctor"]).ok();
    for part in [
        "without root, in a user namespace",
        "ranges of user and group ids",
        "data-only layers",
    ] {
        assert!(said.stdout.contains(part), "no `{part}` in:\n{}", said.stdout);
    }
    let said = User::with_one_id(&env).cbs(&["doctor"]);
    assert!(said.stdout.contains("steps have one user only"), "{}", said.stdout);
    let said = User::with_ranges_named(&env, "refused")
        .without_namespaces()
        .cbs(&["doctor"]);
    assert!(said.stdout.contains("without a user namespace"), "{}", said.stdout);
    assert_ne!(said.code, 0);
}

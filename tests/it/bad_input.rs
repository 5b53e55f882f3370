//! Bad input: what the user sees names the file, the line and the thing.

use crate::env::TestEnv;

#[test]
fn files_that_are_wrong() {
    let env = TestEnv::new();
    env.cbs(&["build", "nowhere"]).fails_with(&["nowhere"]);
    env.write("empty/x", "");
    env.cbs(&["build", "empty"]).fails_with(&["Dockerfile"]);
    env.write("typo/Dockerfile", "FROM scratch\nCOPPY a b\n");
    env.cbs(&["build", "typo"])
        .fails_with(&["Dockerfile:2", "COPPY a b", "COPY"]);
    env.write("bake/docker-bake.hcl", "target \"a\" {\n  dockerfile = \n}\n");
    env.cbs(&["bake", "-f", "bake/docker-bake.hcl", "a"])
        .fails_with(&["docker-bake.hcl:2"]);
    env.write("bake/ok.hcl", "target \"app\" {}\ntarget \"web\" {}\n");
    env.cbs(&["realize", "bake/ok.hcl#ap"])
        .fails_with(&["ap", "app", "web"]);
    env.write("stage/Dockerfile", "FROM scratch AS one\nFROM scratch AS two\n");
    env.cbs(&["build", "--target", "on", "stage"])
        .fails_with(&["on", "one"]);
    env.cbs(&["build", "--output", "type=floppy,dest=x", "stage"])
        .fails_with(&["floppy", "oci"]);
    env.cbs(&["export", "never-built", "-o", "x"])
        .fails_with(&["never-built"]);
    std::fs::write(env.path("bad.pb"), b"\xff\xff\xff").unwrap();
    env.cbs(&["realize", "bad.pb"]).fails_with(&["bad.pb"]);
}

#[test]
fn registries_that_do_not_answer_or_have_nothing() {
    let env = TestEnv::with_registry();
    env.write("none/Dockerfile", "FROM REGISTRY/cbs-test/nothing:1\n");
    env.cbs(&["build", "none"])
        .fails_with(&["cbs-test/nothing:1", "Dockerfile:1"]);
    env.write("down/Dockerfile", "FROM 127.0.0.1:1/some/image:1\n");
    env.cbs(&["build", "down"]).fails_with(&["127.0.0.1:1"]);
}

#[test]
fn a_step_that_fails_as_root() {
    let env = TestEnv::with_registry();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN echo first\nRUN echo last words; exit 7\n",
    );
    env.cbs(&["build", "ctx"])
        .fails_with(&["Dockerfile:3", "exit 7", "exit code: 7", "last words"]);
    env.nothing_left();
}

#[test]
fn a_full_disk_as_root() {
    let env = TestEnv::with_registry();
    let store = env.at("store");
    std::fs::create_dir(&store).unwrap();
    env.tool("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs", &store])
        .ok();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN head -c 30000000 /dev/urandom > /big || true\nRUN cp /big /big2\n",
    );
    let said = env.cbs(&["build", "ctx"]);
    let verify = env.cbs(&["store", "verify"]);
    env.tool("umount", &["-l", &store]).ok();
    said.fails_with(&["No space left"]);
    verify.ok();
}

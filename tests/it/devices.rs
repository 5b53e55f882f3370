//! Devices by the Container Device Interface.

use crate::env::{Said, TestEnv};
use crate::failing::shell;
use crate::users::User;

const SPEC: &str = "cdiVersion: \"0.6.0\"
kind: example.com/thing
annotations:
  org.mobyproject.buildkit.device.class: things
containerEdits:
  env: [SPEC=whole]
devices:
  - name: one
    containerEdits:
      env: [THING=one, PATH=/bin:/extra]
      deviceNodes:
        - path: /dev/things/one
          hostPath: /dev/zero
      mounts:
        - hostPath: FOLDER
          containerPath: /opt/thing
          options: [ro, bind]
  - name: free
    annotations: {org.mobyproject.buildkit.device.autoallow: \"true\"}
    containerEdits:
      env: [THING=free]
      hooks: [{hookName: createContainer, path: /usr/bin/some-hook}]
";

fn world() -> TestEnv {
    let env = TestEnv::with_registry();
    env.write("driver/lib", "from the host\n");
    env.write("cdi/thing.yaml", &SPEC.replace("FOLDER", &env.at("driver")));
    env.write("cdi/broken.json", "{");
    env
}

fn build(env: &TestEnv, run: &str, flags: &[&str]) -> Said {
    env.write("ctx/Dockerfile", &format!("FROM REGISTRY/cbs-test/busybox:1\n{run}\n"));
    let mut command = env.cbs_command(&["build", "--progress=plain", "--no-cache"]);
    command.args(flags).arg("ctx").env("CBS_CDI_SPEC_DIRS", env.path("cdi"));
    command.output().expect("cbs").into()
}

const USES: &str = "echo $SPEC $THING $PATH; cat /opt/thing/lib; (echo > /opt/thing/x) 2> /dev/null || echo read-only; \
    head -c 4 /dev/things/one | wc -c";

#[track_caller]
fn used(said: Said) {
    let said = said.ok();
    for line in ["whole one /bin:/extra", "from the host", "read-only", " 4"] {
        assert!(said.stderr.contains(line), "no `{line}` in:\n{}", said.stderr);
    }
}

#[test]
fn a_granted_device_is_in_the_step() {
    let env = world();
    let run = format!("RUN --device=example.com/thing=one,required {USES}");
    for grant in [
        "device",
        "device=example.com/thing=one",
        "device=example.com/thing",
        "device=things",
    ] {
        used(build(&env, &run, &["--allow", grant]));
    }
    // By kind, by class, by flag.
    let said = build(
        &env,
        "RUN --device=things,required echo $SPEC $THING",
        &["--allow", "device"],
    )
    .ok();
    // The last of two values for one name counts.
    assert!(said.stderr.contains(" whole one\n"), "{}", said.stderr);
    let flag = ["--allow", "device", "--device", "example.com/thing=one"];
    used(build(&env, &format!("RUN {USES}"), &flag));
    // A shell in that step has it, too, without being told where it is described.
    let said = shell(&env, &["ctx"], &format!("{USES}\n")).ok();
    assert_eq!(said.stdout, "whole one /bin:/extra\nfrom the host\nread-only\n4\n");
    // Nothing of it is in the image.
    let output = format!("type=tar,dest={}", env.at("out.tar"));
    build(&env, &run, &["--allow", "device", "-o", &output]).ok();
    let listing = env.tool("tar", &["-tf", &env.at("out.tar")]).ok().stdout;
    assert!(!listing.contains("thing"), "{listing}");
    env.nothing_left();
}

#[test]
fn devices_are_refused_with_the_flag_that_grants_them() {
    let env = world();
    let run = "RUN --device=example.com/thing=one,required id";
    build(&env, run, &[]).fails_with(&[
        "Dockerfile:2",
        "device `example.com/thing=one` is not allowed; grant it with --allow device=example.com/thing=one",
    ]);
    build(&env, run, &["--allow", "device=example.com/thing=free"]).fails_with(&["is not allowed"]);
    // It allows itself, and wants what is not done.
    let said = build(&env, "RUN --device=example.com/thing=free,required echo $THING", &[]).ok();
    assert!(said.stderr.contains(" free\n"), "{}", said.stderr);
    assert!(said.stderr.contains("`/usr/bin/some-hook`"), "{}", said.stderr);
}

#[test]
fn absent_devices_are_named_with_those_there_are() {
    let env = world();
    build(
        &env,
        "RUN --device=example.com/other=1,required id",
        &["--allow", "device"],
    )
    .fails_with(&[
        "Dockerfile:2",
        "there is no device `example.com/other=1`",
        &env.at("cdi"),
        "example.com/thing=free, example.com/thing=one",
        "broken.json",
    ]);
    // One that is not required is left out.
    let said = build(&env, "RUN --device=example.com/other=1 echo went on", &[]).ok();
    assert!(said.stderr.contains("optional device left out"), "{}", said.stderr);
    assert!(said.stderr.contains(" went on\n"), "{}", said.stderr);
    env.write("cdi/thing.yaml", &SPEC.replace("/dev/zero", "/dev/not-there"));
    build(
        &env,
        "RUN --device=example.com/thing=one,required id",
        &["--allow", "device"],
    )
    .fails_with(&["cannot find the device node `/dev/not-there`"]);
    for (flag, needle) in [("", "must begin with a name"), ("a.b/c=d,maybe", "`maybe` is neither")] {
        let said = build(&env, "RUN id", &["--device", flag]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        said.fails_with(&["--device", needle]);
    }
}

#[test]
fn a_bake_target_asks_for_devices_and_is_granted_them() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        &format!("FROM REGISTRY/cbs-test/busybox:1\nRUN --device=example.com/thing=one,required {USES}\n"),
    );
    env.write(
        "docker-bake.hcl",
        "target \"default\" {\n  context = \"ctx\"\n  entitlements = [\"device=example.com/thing=one\"]\n}\n",
    );
    let bake = |flags: &[&str]| -> Said {
        let mut command = env.cbs_command(&["bake", "--progress=plain", "--cdi-spec-dir", &env.at("cdi")]);
        command.args(flags).output().expect("cbs").into()
    };
    bake(&[]).fails_with(&[
        "Access to device example.com/thing=one",
        "--allow device=example.com/thing=one",
    ]);
    used(bake(&["--allow", "device=example.com/thing=one"]));
}

#[test]
fn users_have_the_devices_that_they_may_open() {
    let env = world();
    env.write(
        "ctx/Dockerfile",
        &format!("FROM REGISTRY/cbs-test/busybox:1\nRUN --device=example.com/thing=one,required {USES}\n"),
    );
    let user = User::with_ranges(&env);
    let args = [
        "build",
        "--progress=plain",
        "--allow",
        "device",
        "--cdi-spec-dir",
        &env.at("cdi"),
        "ctx",
    ];
    used(user.cbs(&args));
    user.nothing_left();
}

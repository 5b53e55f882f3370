//! The straight road: the example's bake file to a running image, every part real.

use std::fs;

use crate::env::{TestEnv, top};

/// A world whose registry has Debian images. Making them takes a minute, so the root file systems are kept in the target
/// folder between runs.
fn debian_world() -> TestEnv {
    let mut env = TestEnv::new();
    env.start_registry();
    let work = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("debian-bases");
    let script = top().join("examples/push-debian-bases.py");
    let args = [
        script.to_str().expect("path"),
        "--registry",
        &env.registry(),
        "--work",
        work.to_str().expect("path"),
    ];
    env.tool("python3", &args).ok();
    env.tool(
        "cp",
        &["-a", top().join("examples/app").to_str().expect("path"), &env.at("app")],
    )
    .ok();
    env
}

fn realize(env: &TestEnv, dest: &str) -> crate::env::Said {
    let output = format!("type=oci,dest={dest}");
    env.cbs_command(&[
        "realize",
        "app/docker-bake.hcl#app-release",
        "--progress",
        "plain",
        "--output",
        &output,
    ])
    .env("BASE", format!("{}/demo/debian", env.registry()))
    .env("BUILD_TAG", "build")
    .env("RUN_TAG", "run")
    .env("VERSION", "1.2.3")
    .output()
    .expect("cbs starts")
    .into()
}

fn ran(said: &crate::env::Said, step: &str) -> bool {
    // Plain progress prints `#N [stage 1/2] RUN …` once and `#N CACHED` or `#N DONE`.
    let Some(number) = said
        .stderr
        .lines()
        .find(|line| line.contains(step))
        .and_then(|line| line.split(' ').next())
    else {
        return false;
    };
    said.stderr
        .lines()
        .any(|line| line.starts_with(&format!("{number} DONE")))
}

#[test]
fn bake_target_to_running_image_as_root() {
    let mut env = debian_world();
    let first = realize(&env, &env.at("app.tar")).ok();
    assert!(ran(&first, "RUN mkdir -p /out"), "{}", first.stderr);

    // The archive is what the field's tools read and run.
    // It has two tags, and skopeo wants to be told which.
    let archive = format!("oci-archive:{}:1.2.3", env.at("app.tar"));
    let inspect = env.tool("skopeo", &["inspect", "--config", &archive]).ok().stdout;
    for needle in [
        "\"APP_HOME=/opt/app\"",
        "\"8080/tcp\"",
        "com.example.channel",
        "\"1.2.3\"",
        "\"greet\"",
    ] {
        assert!(inspect.contains(needle), "no {needle} in {inspect}");
    }
    env.tool(
        "skopeo",
        &["copy", "--quiet", &archive, &format!("oci:{}:app", env.at("layout"))],
    )
    .ok();
    env.tool(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{}:app", env.at("layout")),
            &env.at("bundle"),
        ],
    )
    .ok();
    let config = env.path("bundle/config.json");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("\"terminal\": true", "\"terminal\": false");
    fs::write(&config, text.replace("\"terminal\":true", "\"terminal\":false")).unwrap();
    let name = format!("cbs-it-{}", std::process::id());
    let run = env
        .tool(
            "runc",
            &["--root", &env.at("runc"), "run", "--bundle", &env.at("bundle"), &name],
        )
        .ok();
    assert_eq!(run.stdout, "hello, world! (cbs example 1.2.3)\n");
    let rootfs = env.path("bundle/rootfs/opt/app");
    assert_eq!(
        fs::read_to_string(rootfs.join("share/words-test.log")).unwrap(),
        "greeting: ok\n"
    );
    assert!(
        !rootfs.join("share/assets/draft-note.txt").exists(),
        ".dockerignore leaves drafts out"
    );

    // Into a registry and back.
    let remote = format!("docker://{}/demo/app:1.2.3", env.registry());
    env.tool(
        "skopeo",
        &["copy", "--quiet", "--dest-tls-verify=false", &archive, &remote],
    )
    .ok();
    let back = format!("oci-archive:{}", env.at("back.tar"));
    env.tool("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &remote, &back])
        .ok();

    // The same again runs nothing, pulls nothing and gives the same bytes.
    let pulls = |env: &TestEnv| {
        env.registry_log()
            .lines()
            .filter(|line| line.contains("/blobs/"))
            .count()
    };
    let before = pulls(&env);
    let second = realize(&env, &env.at("again.tar")).ok();
    assert_eq!(pulls(&env), before, "a cached build fetches no blob");
    for step in ["RUN mkdir -p /out", "RUN cc -Wall", "RUN groupadd"] {
        assert!(!ran(&second, step), "{step} ran again:\n{}", second.stderr);
    }
    assert_eq!(
        fs::read(env.path("app.tar")).unwrap(),
        fs::read(env.path("again.tar")).unwrap()
    );

    // A changed source file runs only the steps that see it.
    fs::write(env.path("app/assets/fox.txt"), "The lazy dog sleeps.\n").unwrap();
    let third = realize(&env, &env.at("changed.tar")).ok();
    assert!(
        ran(&third, "RUN <<SCRIPT"),
        "the assets stage sees it:\n{}",
        third.stderr
    );
    for step in ["RUN mkdir -p /out", "RUN cc -Wall", "RUN groupadd"] {
        assert!(
            !ran(&third, step),
            "{step} does not see assets/fox.txt:\n{}",
            third.stderr
        );
    }
    env.tool(
        "cp",
        &[
            "-a",
            top().join("examples/app/assets/fox.txt").to_str().unwrap(),
            &env.at("app/assets/"),
        ],
    )
    .ok();

    // What was realised is exported again without a registry and without a build.
    realize(&env, &env.at("restored.tar")).ok();
    let digest = |env: &TestEnv, tar: &str| {
        let archive = format!("oci-archive:{}:1.2.3", env.at(tar));
        env.tool("skopeo", &["inspect", "--format", "{{.Digest}}", &archive])
            .ok()
            .stdout
    };
    assert_eq!(digest(&env, "restored.tar"), digest(&env, "app.tar"));

    // A store built anew gives the same digest.
    fs::rename(env.path("store"), env.path("old-store")).unwrap();
    realize(&env, &env.at("rebuilt.tar")).ok();
    assert_eq!(digest(&env, "rebuilt.tar"), digest(&env, "app.tar"));
    env.nothing_left();

    env.stop_registry();
    for (kind, dest) in [
        ("oci", "x.oci.tar"),
        ("docker", "x.docker.tar"),
        ("tar", "x.tar"),
        ("local", "x.dir"),
    ] {
        env.cbs(&[
            "export",
            "app/docker-bake.hcl#app-release",
            "--type",
            kind,
            "-o",
            &env.at(dest),
        ])
        .ok();
    }
    assert_eq!(digest(&env, "x.oci.tar"), digest(&env, "app.tar"));
    env.tool(
        "skopeo",
        &["inspect", &format!("docker-archive:{}", env.at("x.docker.tar"))],
    )
    .ok();
    let listing = env.tool("tar", &["-tf", &env.at("x.tar")]).ok().stdout;
    assert!(listing.contains("opt/app/bin/greet"), "{listing}");
    assert!(env.path("x.dir/opt/app/bin/greet").exists());
    env.nothing_left();
}

//! `cbs lock`, `--locked` and `--offline`.

use std::fs;

use crate::env::TestEnv;
use crate::repositories::{change, git_daemon, repository};
use crate::web::Web;

#[test]
fn locked_targets_are_built_from_what_was_locked() {
    let mut env = TestEnv::with_registry();
    let commit = repository(&env, "git/app");
    let daemon = git_daemon(&env, "git");
    env.write("www/file", "first\n");
    let web = Web::serve(env.path("www"), None);
    env.write(
        "app/docker-bake.hcl",
        "target \"app\" {}\ntarget \"other\" { dockerfile-inline = \"FROM scratch\" }\n",
    );
    let dockerfile = format!(
        "FROM REGISTRY/cbs-test/busybox:1\nADD {}/file /file\nADD git://127.0.0.1:{}/app#main:sub /sub/\n\
         ADD git://127.0.0.1:{}/app#{commit} /by-commit/\n",
        web.url(),
        daemon.port,
        daemon.port
    );
    env.write("app/Dockerfile", &dockerfile);
    let realize = |flags: &[&str]| {
        fs::remove_dir_all(env.path("out")).unwrap_or_default();
        let output = format!("type=local,dest={}", env.at("out"));
        let mut args = vec!["realize", "app/docker-bake.hcl#app", "--output", &output];
        args.extend_from_slice(flags);
        env.cbs(&args)
    };
    realize(&["--locked"]).fails_with(&["app/cbs.lock", "cbs lock"]);
    let said = env.cbs(&["lock", "app/docker-bake.hcl#app"]).ok();
    assert!(said.stdout.contains("3 sources locked"), "{}", said.stdout);
    let lock: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(env.path("app/cbs.lock")).expect("lock")).expect("JSON");
    assert_eq!(lock["version"], 1);
    let repository = format!("git://127.0.0.1:{}/app#main", daemon.port);
    assert_eq!(lock["pins"][&repository], commit);
    let image = format!("docker-image://{}/cbs-test/busybox:1", env.registry());
    assert!(
        lock["pins"][&image]
            .as_str()
            .is_some_and(|pin| pin.starts_with("sha256:")),
        "{lock}"
    );
    assert_eq!(
        lock["targets"]["docker-bake.hcl#app"].as_array().map(Vec::len),
        Some(3),
        "{lock}"
    );
    realize(&["--locked"]).ok();
    env.cbs(&["lock", "--check", "app/docker-bake.hcl#app"]).ok();

    // Everything moves on.
    env.write("www/file", "second\n");
    let moved = change(&env, "git/app", "two\n");
    env.tool(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--src-tls-verify=false",
            &format!("docker://{}/cbs-test/cfg:1", env.registry()),
            &format!("docker://{}/cbs-test/busybox:1", env.registry()),
        ],
    )
    .ok();
    web.asked();
    realize(&["--locked"]).ok();
    assert_eq!(fs::read_to_string(env.path("out/file")).expect("file"), "first\n");
    assert_eq!(
        web.asked(),
        Vec::<String>::new(),
        "a locked download that is here is not asked for"
    );
    let said = env.cbs(&["lock", "--check", "app/docker-bake.hcl#app"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains(&format!("{moved} (was {commit})")),
        "{}",
        said.stdout
    );
    realize(&[]).ok();
    assert_eq!(fs::read_to_string(env.path("out/file")).expect("file"), "second\n");

    // Somewhere else, what cannot be had any more is said.
    let store = env.at("other-store");
    let mut command = env.cbs_command(&["--store", &store, "realize", "--locked", "app/docker-bake.hcl#app"]);
    crate::env::Said::from(command.output().expect("cbs")).fails_with(&["/file", "checksum mismatch"]);

    // A source that is new has no pin.
    env.write("app/Dockerfile", &format!("{dockerfile}ADD {}/new /\n", web.url()));
    env.write("www/new", "new\n");
    realize(&["--locked"]).fails_with(&["/new` is not locked", "cbs lock"]);
    env.cbs(&["lock", "app/docker-bake.hcl#app"]).ok();
    realize(&["--locked"]).ok();
    env.write("app/Dockerfile", &dockerfile);
    env.cbs(&["lock", "app/docker-bake.hcl#app"]).ok();

    // Offline: all is here, but for what never was.
    realize(&["--locked"]).ok();
    env.stop_registry();
    drop(daemon);
    web.go_down();
    let offline = |flags: &[&str]| {
        let mut args = vec!["realize", "app/docker-bake.hcl#app", "--offline"];
        args.extend_from_slice(flags);
        env.cbs(&args)
    };
    offline(&["--locked"]).ok();
    offline(&[]).ok();
    let mut command = env.cbs_command(&[
        "--store",
        &env.at("third"),
        "realize",
        "--offline",
        "app/docker-bake.hcl#app",
    ]);
    crate::env::Said::from(command.output().expect("cbs")).fails_with(&["busybox:1", "network is off"]);
    offline(&["--output", "type=image,push=true,name=x"]).fails_with(&["--offline", "pushed"]);
    env.nothing_left();
}

#[test]
fn locks_lie_beside_dockerfiles_too() {
    let env = TestEnv::new();
    env.write("www/file", "first\n");
    let web = Web::serve(env.path("www"), None);
    env.write(
        "app/Dockerfile",
        &format!("FROM scratch AS a\nADD {}/file /\nFROM scratch\n", web.url()),
    );
    let said = env.cbs(&["lock", "--json", "app#a"]).ok();
    let answer: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(answer["app#a"]["target"], ".#a");
    assert!(env.path("app/cbs.lock").exists());
    env.write("www/file", "second\n");
    env.cbs(&["build", "--locked", "--target=a", "app"]).ok();
    env.cbs(&["build", "--locked", "-f", "app/Dockerfile", "--target=a", "app"])
        .ok();
    env.write("app/cbs.lock", "{\"version\": 9}");
    env.cbs(&["build", "--locked", "--target=a", "app"])
        .fails_with(&["app/cbs.lock", "version 9"]);
    env.cbs(&["lock", "http://127.0.0.1:1/x.git"])
        .fails_with(&["http://127.0.0.1:1/x.git"]);
}

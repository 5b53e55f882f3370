//! What comes from outside: downloads, repositories, images, layouts.

use std::fs;

use crate::env::{Said, TestEnv};
use crate::repositories::{change, git, git_daemon, repository, ssh_server};
use crate::web::Web;

/// Builds `ctx` into the folder `out`.
fn build(env: &TestEnv, dockerfile: &str, flags: &[&str]) -> Said {
    env.write("ctx/Dockerfile", dockerfile);
    fs::remove_dir_all(env.path("out")).unwrap_or_default();
    let output = format!("type=local,dest={}", env.at("out"));
    let mut args = vec!["build", "--progress=plain", "--output", &output, "ctx"];
    args.extend_from_slice(flags);
    env.cbs(&args)
}

fn out(env: &TestEnv, path: &str) -> String {
    let path = env.path("out").join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

#[test]
fn downloads_are_revalidated_checked_and_kept() {
    let env = TestEnv::new();
    env.write("www/a/b.txt", "first\n");
    let web = Web::serve(env.path("www"), None);
    let file = format!("FROM scratch\nADD --chmod=644 {}/a/b.txt?x=1 /\n", web.url());
    build(&env, &file, &[]).ok();
    assert_eq!(out(&env, "b.txt"), "first\n");
    assert_eq!(web.asked(), ["GET /a/b.txt?x=1 200"]);
    build(&env, &file, &[]).ok();
    assert_eq!(web.asked(), ["GET /a/b.txt?x=1 304 if-none-match"]);
    env.write("www/a/b.txt", "second\n");
    build(&env, &file, &[]).ok();
    assert_eq!(out(&env, "b.txt"), "second\n");
    assert_eq!(web.asked(), ["GET /a/b.txt?x=1 200 if-none-match"]);

    // What a checksum names is not asked for again.
    let sum = env.tool("sha256sum", &[&env.at("www/a/b.txt")]).ok().stdout[..64].to_owned();
    let checked = |sum: &str| format!("FROM scratch\nADD --checksum=sha256:{sum} {}/a/b.txt /\n", web.url());
    build(&env, &checked(&sum), &[]).ok();
    assert_eq!(web.asked(), Vec::<String>::new());
    let wrong = "0".repeat(64);
    build(&env, &checked(&wrong), &[]).fails_with(&["checksum mismatch", &wrong, &sum, "Dockerfile:2"]);
    let missing = format!("FROM scratch\nADD {}/nope /\n", web.url());
    build(&env, &missing, &[]).fails_with(&["/nope", "404"]);

    // Without the network there is what was seen last, and no more.
    web.asked();
    build(&env, &file, &["--offline"]).ok();
    build(&env, &checked(&sum), &["--offline"]).ok();
    build(&env, &missing, &["--offline"]).fails_with(&["/nope", "not in the store", "network"]);
    assert_eq!(web.asked(), Vec::<String>::new());
    env.nothing_left();
}

#[test]
fn repositories_by_branch_tag_commit_and_folder() {
    let env = TestEnv::new();
    let first = repository(&env, "git/app");
    git(&env, "git/app", &["branch", "old"]);
    let daemon = git_daemon(&env, "git");
    let url = format!("git://127.0.0.1:{}/app", daemon.port);
    let second = change(&env, "git/app", "two\n");
    let add = |fragment: &str, flags: &str| format!("FROM scratch\nADD {flags} {url}{fragment} /\n");
    for (fragment, top) in [
        ("", "two\n"),
        ("#main", "two\n"),
        ("#old", "one\n"),
        ("#v1", "one\n"),
        ("#refs/tags/v1", "one\n"),
        (&format!("#{first}"), "one\n"),
        (&format!("?ref=old&checksum={}", &first[..12]), "one\n"),
    ] {
        build(&env, &add(fragment, ""), &[]).ok();
        assert_eq!(out(&env, "top"), top, "{fragment}");
        assert!(!env.path("out/.git").exists(), "{fragment}");
    }
    build(&env, &add("#main:sub", ""), &[]).ok();
    assert_eq!(out(&env, "file"), "in sub\n");
    assert!(!env.path("out/top").exists());
    build(&env, &add("#main", "--keep-git-dir=true"), &[]).ok();
    assert_eq!(git(&env, "out", &["rev-parse", "HEAD"]), second);
    build(&env, &add("#main", &format!("--checksum={first}")), &[]).fails_with(&["checksum mismatch", &first, &second]);
    build(&env, &add("#nope", ""), &[]).fails_with(&["no branch, tag or commit `nope`", "Dockerfile:2"]);

    // A repository can be the context, too, and its commit is the time of the image.
    let output = format!("type=local,dest={}", env.at("ctx-out"));
    env.write("git/app/Dockerfile", "FROM scratch\nCOPY top /got\n");
    git(&env, "git/app", &["add", "."]);
    git(&env, "git/app", &["commit", "--quiet", "-m", "file"]);
    env.cbs(&["build", "--output", &output, &url]).ok();
    assert_eq!(fs::read_to_string(env.path("ctx-out/got")).expect("got"), "two\n");
    let tar = format!("type=oci,dest={},tar=false", env.at("layout"));
    env.cbs(&["build", "--output", &tar, &url]).ok();
    let config = env
        .tool("skopeo", &["inspect", "--config", &format!("oci:{}", env.at("layout"))])
        .ok();
    assert!(
        config.stdout.contains("\"created\": \"2020-02-02T02:02:02Z\""),
        "{}",
        config.stdout
    );

    // Offline, a branch is where it was last seen.
    drop(daemon);
    build(&env, &add("#old", ""), &["--offline"]).ok();
    assert_eq!(out(&env, "top"), "one\n");
    build(&env, &add("#never", ""), &["--offline"]).fails_with(&["app#never", "not in the store"]);
    env.nothing_left();
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let env = TestEnv::new();
    repository(&env, "git/part");
    let daemon = git_daemon(&env, "git");
    let base = format!("git://127.0.0.1:{}", daemon.port);
    repository(&env, "git/whole");
    git(
        &env,
        "git/whole",
        &["submodule", "--quiet", "add", &format!("{base}/part"), "part"],
    );
    git(&env, "git/whole", &["commit", "--quiet", "-m", "with part"]);
    build(&env, &format!("FROM scratch\nADD {base}/whole /\n"), &[]).ok();
    assert_eq!(out(&env, "part/top"), "one\n");
    assert!(
        !env.path("out/part/.git").exists(),
        "what git keeps is not part of a source"
    );
    build(
        &env,
        &format!("FROM scratch\nADD {base}/whole?submodules=false /\n"),
        &[],
    )
    .ok();
    assert!(!env.path("out/part/top").exists());
}

#[test]
fn private_repositories_open_to_tokens_headers_and_agents_as_root() {
    let env = TestEnv::new();
    repository(&env, "git/app");
    git(&env, "git/app", &["update-server-info"]);
    // `x-access-token:s3cret`
    let web = Web::serve(env.path("git"), Some("basic eC1hY2Nlc3MtdG9rZW46czNjcmV0"));
    let file = format!("FROM scratch\nADD {}/app/.git#main /\n", web.url());
    build(&env, &file, &[]).fails_with(&["/app/.git", "Dockerfile:2", "help: give a token"]);
    env.write("token", "s3cret\n");
    env.write("header", "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0");
    let host = web.url()["http://".len()..].to_owned();
    for secret in [
        "id=GIT_AUTH_TOKEN,src=token".to_owned(),
        "id=GIT_AUTH_HEADER,src=header".to_owned(),
        format!("id=GIT_AUTH_TOKEN.{host},src=token"),
    ] {
        fs::remove_dir_all(env.path("store")).expect("a store");
        let said = build(&env, &file, &["--secret", &secret]).ok();
        assert_eq!(out(&env, "top"), "one\n", "{secret}");
        assert!(!said.stderr.contains("s3cret"), "{}", said.stderr);
    }

    env.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &env.at("key")])
        .ok();
    let server = ssh_server(&env);
    let url = format!("ssh://root@127.0.0.1:{}{}", server.port, env.at("git/app/.git"));
    let file = format!("FROM scratch\nADD {url}#v1:sub /\n");
    build(&env, &file, &[]).fails_with(&["ssh"]);
    build(&env, &file, &["--ssh", &format!("default={}", env.at("key"))]).ok();
    assert_eq!(out(&env, "file"), "in sub\n");
    drop(server);
    env.nothing_left();
}

#[test]
fn images_by_tag_digest_platform_and_layout() {
    let env = TestEnv::with_registry();
    let registry = env.registry();
    let layout = format!("type=oci,dest={},tar=false,name=app:1", env.at("layout"));
    env.write(
        "base/Dockerfile",
        "FROM scratch\nCOPY Dockerfile /is\nENV FROM_LAYOUT=yes\n",
    );
    env.cbs(&["build", "--output", &layout, "base"]).ok();
    let multi = format!("docker://{registry}/cbs-test/multi:1");
    let raw = env
        .tool(
            "skopeo",
            &["inspect", "--tls-verify=false", "--format={{.Digest}}", &multi],
        )
        .ok();
    let digest = raw.stdout.trim().to_owned();
    let arch = |from: &str, flags: &[&str]| {
        let output = format!("type=oci,dest={},tar=false", env.at("one"));
        env.write("ctx/Dockerfile", &format!("FROM {from}\nLABEL a=b\n"));
        fs::remove_dir_all(env.path("one")).unwrap_or_default();
        let mut args = vec!["build", "--output", &output, "ctx"];
        args.extend_from_slice(flags);
        env.cbs(&args).ok();
        env.tool("skopeo", &["inspect", "--config", &format!("oci:{}", env.at("one"))])
            .ok()
            .stdout
    };
    let by_tag = arch(&format!("{registry}/cbs-test/multi:1"), &["--platform=linux/arm64"]);
    let by_digest = arch(
        &format!("{registry}/cbs-test/multi@{digest}"),
        &["--platform=linux/arm64"],
    );
    let by_flag = arch(&format!("--platform=linux/arm64 {registry}/cbs-test/multi:1"), &[]);
    for config in [&by_tag, &by_digest, &by_flag] {
        assert!(config.contains("\"architecture\": \"arm64\""), "{config}");
    }
    for context in [
        format!("thing=oci-layout://{}:1", env.at("layout")),
        format!("thing=oci-layout://{}", env.at("layout")),
    ] {
        let config = arch("thing", &["--build-context", &context]);
        assert!(config.contains("FROM_LAYOUT=yes"), "{config}");
    }
}

#[test]
fn named_contexts_of_every_kind() {
    let env = TestEnv::with_registry();
    repository(&env, "git/app");
    let daemon = git_daemon(&env, "git");
    env.write("www/file.txt", "from the web\n");
    let web = Web::serve(env.path("www"), None);
    env.write("dir/a", "from a folder\n");
    env.write("dir/ignored", "x\n");
    env.write("dir/.dockerignore", "ignored\n");
    let flags = [
        format!("folder={}", env.at("dir")),
        format!("repo=git://127.0.0.1:{}/app#v1:sub", daemon.port),
        format!("web={}/file.txt", web.url()),
        format!("image=docker-image://{}/cbs-test/busybox:1", env.registry()),
    ];
    let mut args: Vec<&str> = Vec::new();
    for flag in &flags {
        args.extend(["--build-context", flag]);
    }
    let file = "FROM scratch AS stage\nCOPY Dockerfile /from-stage\nFROM scratch\nCOPY --from=folder / /folder/\n\
                COPY --from=repo / /repo/\nCOPY --from=web / /web/\nCOPY --from=image /etc/passwd /passwd\n\
                COPY --from=stage / /\n";
    build(&env, file, &args).ok();
    assert_eq!(out(&env, "folder/a"), "from a folder\n");
    assert!(!env.path("out/folder/ignored").exists());
    assert_eq!(out(&env, "repo/file"), "in sub\n");
    assert_eq!(out(&env, "web/context"), "from the web\n");
    assert!(out(&env, "passwd").contains("root"));
    assert!(env.path("out/from-stage").exists());

    // A name can stand in for a stage or an image, and for another target of a bake file.
    env.write("bake/dir/a", "from a folder\n");
    env.write("bake/docker-bake.hcl", "target \"base\" {\n  context = \"dir\"\n  dockerfile-inline = \"FROM scratch\\nCOPY a /\"\n}\n\
                target \"app\" {\n  contexts = { base = \"target:base\" }\n  dockerfile-inline = \"FROM base\\nCOPY docker-bake.hcl /b\"\n}\n");
    let output = format!("type=local,dest={}", env.at("baked"));
    env.cbs(&["realize", "bake/docker-bake.hcl#app", "--output", &output])
        .ok();
    assert_eq!(fs::read_to_string(env.path("baked/a")).expect("a"), "from a folder\n");

    let epoch = |name: &str| {
        let output = format!("type=oci,dest={},tar=false", env.at("timed"));
        fs::remove_dir_all(env.path("timed")).unwrap_or_default();
        let date = format!("SOURCE_DATE_EPOCH={name}");
        let mut all = vec!["build", "--output", &output, "--build-arg", &date, "ctx"];
        all.extend_from_slice(&args);
        env.cbs(&all).ok();
        env.tool("skopeo", &["inspect", "--config", &format!("oci:{}", env.at("timed"))])
            .ok()
            .stdout
    };
    assert!(epoch("repo").contains("\"created\": \"2020-02-02T02:02:02Z\""));
}

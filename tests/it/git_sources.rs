//! Repositories as sources: what of them is taken, how they are opened, and as contexts.

use std::fs;
use std::process::Stdio;

use cbs_solver::llb::{DefinitionBuilder, Edge};
use cbs_solver::{pb, write_definition};

use crate::env::{Said, TestEnv};
use crate::repositories::{change, git, git_daemon, repository, ssh_server};
use crate::smart_git::SmartGit;
use crate::steps::Running;

/// `x-access-token:s3cret`, as the basic scheme has it.
const HEADER: &str = "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0";

/// Builds a Dockerfile of `FROM scratch` and these lines into `out`.
fn build(env: &TestEnv, lines: &str, flags: &[&str]) -> Said {
    env.write("ctx/Dockerfile", &format!("FROM scratch\n{lines}\n"));
    into_out(env, &[&["build", "--progress=plain", "ctx"], flags].concat())
}

fn into_out(env: &TestEnv, args: &[&str]) -> Said {
    fs::remove_dir_all(env.path("out")).unwrap_or_default();
    let output = format!("type=local,dest={}", env.at("out"));
    let mut all = args.to_vec();
    all.extend(["--output", &output]);
    env.cbs(&all)
}

fn out(env: &TestEnv, path: &str) -> String {
    let path = env.path("out").join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

#[test]
fn every_way_to_name_a_commit() {
    let env = TestEnv::new();
    let first = repository(&env, "git/app");
    git(&env, "git/app", &["tag", "light"]);
    git(&env, "git/app", &["branch", "dir/old"]);
    let middle = change(&env, "git/app", "two\n");
    git(&env, "git/app", &["branch", "both"]);
    git(&env, "git/app", &["tag", "both", &first]);
    let last = change(&env, "git/app", "three\n");
    let server = SmartGit::serve(&env, "git", None);
    let url = server.url("app");
    for (rest, top) in [
        ("", "three\n"),
        ("#main", "three\n"),
        ("#refs/heads/main", "three\n"),
        ("#dir/old", "one\n"),
        ("#light", "one\n"),
        ("#v1", "one\n"),
        ("#refs/tags/v1", "one\n"),
        // A branch goes before a tag of its name.
        ("#both", "two\n"),
        ("?tag=both", "one\n"),
        ("?branch=both", "two\n"),
        ("?branch=main", "three\n"),
        ("?ref=light", "one\n"),
        // Neither a branch nor a tag ends there.
        (&format!("#{middle}"), "two\n"),
        (&format!("?ref=main&checksum={}", &last[..12]), "three\n"),
        (&format!("?branch=main&commit={last}"), "three\n"),
        (&format!("?ref=main&checksum={first}&fetch-by-commit"), "one\n"),
    ] {
        build(&env, &format!("ADD {url}{rest} /"), &[]).ok();
        assert_eq!(out(&env, "top"), top, "{rest}");
        assert!(!env.path("out/.git").exists(), "{rest}");
    }
    for rest in ["#main:sub", "#main:/sub/", "?ref=main&subdir=sub", "?subdir=sub"] {
        build(&env, &format!("ADD {url}{rest} /"), &[]).ok();
        assert_eq!(out(&env, "file"), "in sub\n", "{rest}");
        assert!(!env.path("out/top").exists(), "{rest}");
    }
    build(&env, &format!("ADD --checksum={last} {url}#main /"), &[]).ok();
    build(&env, &format!("ADD --checksum={} {url}#v1 /", &first[..8]), &[]).ok();
    for (flags, rest, needles) in [
        (
            format!("--checksum={first}"),
            "#main",
            vec!["checksum mismatch", &first, &last],
        ),
        (
            format!("--checksum={first}"),
            &format!("#{last}"),
            vec!["checksum mismatch", &first, &last],
        ),
        (
            format!("--checksum={first}"),
            &format!("?checksum={last}"),
            vec!["checksum mismatch"],
        ),
        (String::new(), "#nothing", vec!["no branch, tag or commit `nothing`"]),
        (
            String::new(),
            "?tag=main",
            vec!["no branch, tag or commit `refs/tags/main`"],
        ),
        (
            String::new(),
            "?branch=v1",
            vec!["no branch, tag or commit `refs/heads/v1`"],
        ),
        (String::new(), "#main:nowhere", vec!["nowhere"]),
        (String::new(), "#main:top", vec!["top"]),
        (
            String::new(),
            "?ref=main&tag=v1",
            vec!["conflicts", "main", "refs/tags/v1"],
        ),
        (String::new(), "?branch=a&tag=b", vec!["conflicts"]),
        (String::new(), "?colour=red", vec!["unexpected query \"colour\""]),
        (String::new(), "?submodules=maybe", vec!["submodules", "maybe"]),
        (String::new(), "?mtime=now", vec!["mtime", "now"]),
        (String::new(), "?ref=", vec!["\"ref\" has no value"]),
        (
            String::new(),
            &format!("#{}", "0".repeat(40)),
            vec!["has no branch, tag or commit `0000", &url],
        ),
    ] {
        build(&env, &format!("ADD {flags} {url}{rest} /"), &[])
            .fails_with(&needles)
            .fails_with(&["Dockerfile:2"]);
    }
    build(&env, &format!("ADD {} /", server.url("nothing")), &[]).fails_with(&["/nothing/.git", "Dockerfile:2"]);
    env.nothing_left();
}

#[test]
fn what_git_keeps_can_be_kept_and_asked() {
    let env = TestEnv::new();
    let first = repository(&env, "git/app");
    git(&env, "git/app", &["tag", "light"]);
    let last = change(&env, "git/app", "two\n");
    let server = SmartGit::serve(&env, "git", None);
    let url = server.url("app");
    let described = |rest: &str, flag: &str| {
        build(&env, &format!("ADD {flag} {url}{rest} /"), &[]).ok();
        let config = out(&env, ".git/config");
        assert!(config.contains(&url) && !config.contains("caches"), "{config}");
        let head = git(&env, "out", &["rev-parse", "HEAD"]);
        assert_eq!(git(&env, "out", &["status", "--porcelain"]), "");
        (
            head,
            git(&env, "out", &["describe", "--tags", "--always", "--abbrev=40"]),
        )
    };
    let flag = "--keep-git-dir=true";
    assert_eq!(described("#v1", flag), (first.clone(), "v1".to_owned()));
    assert_eq!(described("#light", flag), (first.clone(), "light".to_owned()));
    assert_eq!(
        described("?tag=v1&keep-git-dir=1", ""),
        (first.clone(), "v1".to_owned())
    );
    assert_eq!(described("#main", flag), (last.clone(), last.clone()));
    assert_eq!(git(&env, "out", &["rev-parse", "refs/heads/main"]), last);
    assert_eq!(described(&format!("#{first}"), flag), (first.clone(), first.clone()));
    assert_eq!(described("", flag), (last.clone(), last));
    build(&env, &format!("ADD {flag} {url}?keep-git-dir=false /"), &[]).fails_with(&["keep-git-dir", "Dockerfile:2"]);
    build(&env, &format!("ADD --keep-git-dir=maybe {url} /"), &[]).fails_with(&["keep-git-dir", "Dockerfile:2"]);
}

#[test]
fn names_that_move_are_followed_and_commits_stay() {
    let env = TestEnv::new();
    let first = repository(&env, "git/app");
    let server = SmartGit::serve(&env, "git", None);
    let url = server.url("app");
    let top = |rest: &str, flags: &[&str]| {
        build(&env, &format!("ADD {url}{rest} /"), flags).ok();
        out(&env, "top")
    };
    assert_eq!((top("#main", &[]), top("#v1", &[])), ("one\n".into(), "one\n".into()));
    // Another history under the same names.
    env.write("git/app/top", "other\n");
    git(&env, "git/app", &["commit", "--quiet", "-a", "--amend", "-m", "other"]);
    git(&env, "git/app", &["tag", "-f", "-a", "v1", "-m", "moved"]);
    assert_eq!(
        (top("#main", &[]), top("#v1", &[])),
        ("other\n".into(), "other\n".into())
    );
    // What was once here is not asked for.
    server.asked();
    assert_eq!(top(&format!("#{first}"), &["--no-cache"]), "one\n");
    assert_eq!(server.asked(), Vec::<String>::new());
    server.go_down();
    assert_eq!(top("#main", &["--offline"]), "other\n");
    assert_eq!(top(&format!("#{first}"), &["--offline", "--no-cache"]), "one\n");
    build(&env, &format!("ADD {url}#other /"), &["--offline"]).fails_with(&[
        "#other",
        "not in the store",
        "Dockerfile:2",
    ]);
    build(&env, &format!("ADD {url}#{} /", "1".repeat(40)), &["--offline"]).fails_with(&["not in the store"]);
    build(&env, &format!("ADD {url}#main /"), &[]).fails_with(&["ls-remote", &url, "Dockerfile:2"]);
}

/// A repository with a submodule that has one itself, the second by a relative address.
fn nested(env: &TestEnv, url: impl Fn(&str) -> String) {
    repository(env, "git/inner");
    repository(env, "git/middle");
    git(
        env,
        "git/middle",
        &["submodule", "--quiet", "add", "../../git/inner", "inner"],
    );
    git(
        env,
        "git/middle",
        &["config", "-f", ".gitmodules", "submodule.inner.url", "../../inner/.git"],
    );
    git(env, "git/middle", &["commit", "--quiet", "-a", "-m", "with inner"]);
    repository(env, "git/outer");
    git(
        env,
        "git/outer",
        &["submodule", "--quiet", "add", "../../git/middle", "middle"],
    );
    git(
        env,
        "git/outer",
        &["config", "-f", ".gitmodules", "submodule.middle.url", &url("middle")],
    );
    git(env, "git/outer", &["commit", "--quiet", "-a", "-m", "with middle"]);
}

#[test]
fn submodules_of_submodules_come_along_with_the_token_of_their_host() {
    let env = TestEnv::new();
    let server = SmartGit::serve(&env, "git", Some(HEADER));
    nested(&env, |name| server.url(name));
    env.write("token", "s3cret\n");
    let add = format!("ADD {} /", server.url("outer"));
    let for_host = format!("id=GIT_AUTH_TOKEN.{},src=token", server.host());
    build(&env, &add, &["--secret", &for_host]).ok();
    assert_eq!(out(&env, "middle/inner/sub/file"), "in sub\n");
    let git_dirs = env.tool("find", &[&env.at("out"), "-name", ".git"]).ok().stdout;
    assert_eq!(git_dirs, "");
    // They are here now, also without the server; but not for whoever never had them.
    build(&env, &add, &["--offline"]).ok();
    // A token for no host in particular is for the one repository.
    fs::remove_dir_all(env.path("store")).expect("a store");
    let for_one = "id=GIT_AUTH_TOKEN,src=token";
    build(&env, &add, &["--secret", for_one]).fails_with(&["submodule", "middle", "Dockerfile:2", "GIT_AUTH_TOKEN"]);
    let without = format!("ADD {}?submodules=false /", server.url("outer"));
    let said = build(&env, &without, &["--secret", for_one]).ok();
    assert!(env.path("out/middle").is_dir() && !env.path("out/middle/top").exists());
    assert!(
        !said.stderr.contains("s3cret") && !said.stderr.contains(HEADER),
        "{}",
        said.stderr
    );
    build(&env, &add, &["--offline", "--secret", for_one]).fails_with(&["submodules of", "not in the store"]);
    // With their `.git`, and no secret in it.
    let keep = format!("ADD --keep-git-dir=true {} /", server.url("outer"));
    build(&env, &keep, &["--secret", &for_host]).ok();
    assert_eq!(git(&env, "out/middle/inner", &["log", "-1", "--format=%s"]), "one");
    let found = env.tool("grep", &["-rlE", "s3cret|eC1hY2Nl", &env.at("out")]);
    assert_eq!(found.stdout, "", "no secret stays");
    env.nothing_left();
}

#[test]
fn secrets_open_smart_servers() {
    let env = TestEnv::new();
    repository(&env, "git/app");
    let server = SmartGit::serve(&env, "git", Some(HEADER));
    env.write("token", "s3cret\n");
    env.write("header", HEADER);
    env.write("wrong", "wrong");
    let add = format!("ADD {}#main /", server.url("app"));
    build(&env, &add, &[]).fails_with(&["Dockerfile:2", "help: give a token with --secret id=GIT_AUTH_TOKEN"]);
    build(&env, &add, &["--secret=id=GIT_AUTH_TOKEN,src=wrong"]).fails_with(&["Dockerfile:2", "help: give a token"]);
    let host = server.host();
    for secrets in [
        vec!["id=GIT_AUTH_TOKEN,src=token".to_owned()],
        vec!["id=GIT_AUTH_HEADER,src=header".to_owned()],
        vec![format!("id=GIT_AUTH_HEADER.{host},src=header")],
        // What is for the host goes before what is for any.
        vec![
            format!("id=GIT_AUTH_TOKEN.{host},src=token"),
            "id=GIT_AUTH_HEADER,src=wrong".to_owned(),
        ],
        vec![
            "id=GIT_AUTH_TOKEN.elsewhere,src=wrong".to_owned(),
            "id=GIT_AUTH_TOKEN,src=token".to_owned(),
        ],
    ] {
        fs::remove_dir_all(env.path("store")).expect("a store");
        let mut flags = Vec::new();
        for secret in &secrets {
            flags.extend(["--secret", secret]);
        }
        build(&env, &add, &flags).ok();
        assert_eq!(out(&env, "top"), "one\n", "{secrets:?}");
    }
    let token = format!("GIT_AUTH_TOKEN.{host}");
    into_out(
        &env,
        &[
            "build",
            &server.url("app"),
            "--secret",
            "id=GIT_AUTH_TOKEN,src=token",
            "--file",
            "ctx/Dockerfile",
        ],
    )
    .ok();
    // In a bake file, by a variable.
    env.write(
        "docker-bake.hcl",
        &format!(
            "target \"app\" {{\n  context = \"{}\"\n  dockerfile-inline = \"FROM scratch\\nCOPY top /\"\n  secret = [\"id={token},env=TOKEN\"]\n}}\n",
            server.url("app")
        ),
    );
    let mut command = env.cbs_command(&[
        "bake",
        "app",
        "--set",
        &format!("app.output=type=local,dest={}", env.at("out")),
    ]);
    Said::from(command.env("TOKEN", "s3cret").output().expect("cbs")).ok();
    assert_eq!(out(&env, "top"), "one\n");
}

#[test]
fn repositories_as_contexts() {
    let env = TestEnv::new();
    repository(&env, "git/app");
    env.write("git/app/dir/Dockerfile", "FROM scratch\nCOPY . /all/\n");
    env.write("git/app/dir/.dockerignore", "ignored\n");
    env.write("git/app/dir/ignored", "x\n");
    env.write("git/app/dir/own", "own\n");
    env.write("git/app/dir/Other", "FROM scratch\nCOPY own /other\n");
    git(&env, "git/app", &["add", "."]);
    git(&env, "git/app", &["commit", "--quiet", "-m", "with a context"]);
    let server = SmartGit::serve(&env, "git", None);
    let url = server.url("app");
    for context in [format!("{url}#main:dir"), format!("{url}?branch=main&subdir=dir")] {
        into_out(&env, &["build", &context]).ok();
        assert_eq!(out(&env, "all/own"), "own\n");
        // As with BuildKit, ignore files are for folders of this machine.
        assert!(env.path("out/all/ignored").exists() && !env.path("out/all/.git").exists());
        into_out(&env, &["build", "-f", "Other", &context]).ok();
        assert_eq!(out(&env, "other"), "own\n");
    }
    let keep = "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
    env.write("Whole", "FROM scratch\nCOPY . /all/\n");
    into_out(
        &env,
        &["build", "--build-arg", keep, "-f", "Whole", &format!("{url}#main")],
    )
    .ok();
    assert!(env.path("out/all/.git/HEAD").exists());
    into_out(&env, &["build", &url]).fails_with(&["Dockerfile", &url]);
    into_out(&env, &["build", &format!("{url}#main:nowhere")]).fails_with(&["nowhere"]);
    into_out(&env, &["build", &format!("{url}#never")]).fails_with(&["no branch, tag or commit `never`"]);
    into_out(&env, &["build", "-f", "Missing", &format!("{url}#main:dir")]).fails_with(&["Missing"]);

    // Named ones, of both commands.
    let named = format!("thing={url}#v1:sub");
    build(&env, "COPY --from=thing / /", &["--build-context", &named]).ok();
    assert_eq!(out(&env, "file"), "in sub\n");
    build(&env, "COPY --from=thing nope /", &["--build-context", &named]).fails_with(&["nope", "Dockerfile:2"]);
    let wrong = format!("thing={url}#never");
    build(&env, "COPY --from=thing / /", &["--build-context", &wrong]).fails_with(&["`never`"]);
    env.write(
        "docker-bake.hcl",
        &format!(
            "target \"app\" {{\n  contexts = {{ thing = \"{url}#v1\" }}\n  dockerfile-inline = \"FROM scratch\\nCOPY --from=thing top /\"\n}}\n"
        ),
    );
    into_out(&env, &["realize", "docker-bake.hcl#app"]).ok();
    assert_eq!(out(&env, "top"), "one\n");
    server.go_down();
    into_out(&env, &["build", "--offline", &format!("{url}#main:dir")]).ok();
    into_out(&env, &["realize", "--offline", "docker-bake.hcl#app"]).ok();
    env.nothing_left();
}

#[test]
fn agents_and_known_hosts_open_ssh_servers_as_root() {
    let env = TestEnv::new();
    repository(&env, "git/app");
    env.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &env.at("key")])
        .ok();
    let server = ssh_server(&env);
    let url = format!("ssh://root@127.0.0.1:{}{}", server.port, env.at("git/app/.git"));
    let add = format!("ADD {url}#main /");
    // The agent of the caller.
    let socket = env.at("agent");
    let mut agent = env.command("ssh-agent");
    agent.args(["-D", "-a", &socket]).stdout(Stdio::null());
    let agent = Running(agent.spawn().expect("ssh-agent"));
    let start = std::time::Instant::now();
    let add_key = || {
        let mut command = env.command("ssh-add");
        let ran = command
            .args(["-q", &env.at("key")])
            .env("SSH_AUTH_SOCK", &socket)
            .output();
        ran.expect("ssh-add").status.success()
    };
    while !add_key() {
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "no agent");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    env.write("ctx/Dockerfile", &format!("FROM scratch\n{add}\n"));
    let with_agent = |args: &[&str]| -> Said {
        let output = format!("type=local,dest={}", env.at("out"));
        let mut command = env.cbs_command(&["build", "--progress=plain", "--output", &output]);
        command.args(args).env("SSH_AUTH_SOCK", &socket);
        command.output().expect("cbs").into()
    };
    with_agent(&["ctx"]).fails_with(&["ssh", "Dockerfile:2", "--ssh default"]);
    with_agent(&["--ssh", "default", "ctx"]).ok();
    assert_eq!(out(&env, "top"), "one\n");
    with_agent(&["--ssh", &format!("default={socket}"), "--no-cache", "ctx"]).ok();
    // A context over ssh asks for the caller's agent by itself.
    env.write("Df", "FROM scratch\nCOPY top /context\n");
    with_agent(&["-f", "Df", &format!("{url}#main")]).ok();
    assert_eq!(out(&env, "context"), "one\n");

    // Definitions can say which hosts are known.
    let host_key = fs::read_to_string(env.path("host_key.pub")).expect("key");
    let other_key = fs::read_to_string(env.path("key.pub")).expect("key");
    let realize = |key: &str| {
        let attrs = [
            ("git.fullurl", url.clone()),
            ("git.mountsshsock", "default".to_owned()),
            ("git.knownsshhosts", format!("[127.0.0.1]:{} {key}", server.port)),
        ];
        definition(&env, "git://127.0.0.1/app#main", &attrs);
        fs::remove_dir_all(env.path("store")).unwrap_or_default();
        into_out(&env, &["realize", "graph.pb"])
    };
    realize(&other_key).fails_with(&["Host key verification failed"]);
    realize(&host_key).fails_with(&["Permission denied"]);
    drop((server, agent));
    env.nothing_left();
}

/// A definition of one repository.
fn definition(env: &TestEnv, identifier: &str, attrs: &[(&str, String)]) {
    let source = pb::SourceOp {
        identifier: identifier.to_owned(),
        attrs: attrs.iter().map(|(a, b)| ((*a).to_owned(), b.clone())).collect(),
    };
    let op = pb::Op {
        op: Some(pb::op::Op::Source(source)),
        ..Default::default()
    };
    let mut builder = DefinitionBuilder::default();
    let digest = builder.add(&op, pb::OpMetadata::default());
    let mut bytes = Vec::new();
    write_definition(&builder.definition(Some(Edge::first(digest))), &mut bytes).expect("encodes");
    fs::write(env.path("graph.pb"), bytes).expect("write");
}

#[test]
fn a_daemon_that_goes_away_is_told() {
    let env = TestEnv::new();
    repository(&env, "git/app");
    let daemon = git_daemon(&env, "git");
    let add = format!("ADD git://127.0.0.1:{}/app#main /", daemon.port);
    build(&env, &add, &[]).ok();
    drop(daemon);
    build(&env, &add, &[]).fails_with(&["git ls-remote", "Dockerfile:2"]);
}

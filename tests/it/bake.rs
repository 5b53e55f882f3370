//! `cbs bake` from the file to the image: what the language says is what is built.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::env::TestEnv;

/// Says what its arguments are, and what it was built from.
const DOCKERFILE: &str = "FROM REGISTRY/cbs-test/busybox:1 AS base
ARG WHO=nobody
ARG NUMBER=0
RUN echo \"$WHO $NUMBER\" > /said
FROM base AS test
RUN echo tested > /tested
FROM base AS release
LABEL kind=release
";

fn world(bake: &str) -> TestEnv {
    let env = TestEnv::with_registry();
    env.write("app/Dockerfile", DOCKERFILE);
    env.write("app/docker-bake.hcl", bake);
    env
}

fn bake(env: &TestEnv, args: &[&str], variables: &[(&str, &str)]) -> crate::env::Said {
    let mut command = env.cbs_command(&["bake", "--progress", "plain"]);
    command.args(args).current_dir(env.path("app"));
    command.envs(variables.iter().copied());
    command.output().expect("cbs starts").into()
}

/// A file of what a target came to.
#[track_caller]
fn said(env: &TestEnv, target: &str, path: &str) -> String {
    let reference = format!("{}#{target}:{path}", env.at("app/docker-bake.hcl"));
    env.cbs(&["store", "cat", &reference]).ok().stdout
}

#[test]
fn targets_and_groups_as_root() {
    let env = world(
        r#"
        group "default" { targets = ["release", "test"] }
        target "release" {
          target = "release"
          tags   = ["example/app:1"]
          output = ["type=oci,dest=release.tar"]
        }
        target "test" {
          target = "test"
          args   = { WHO = "tester" }
        }
        target "unasked" { dockerfile = "nowhere" }
        "#,
    );
    bake(&env, &["--metadata-file", "built.json"], &[]).ok();
    assert_eq!(said(&env, "release", "/said"), "nobody 0\n");
    assert_eq!(said(&env, "test", "/said"), "tester 0\n");
    assert_eq!(said(&env, "test", "/tested"), "tested\n");
    let archive = format!("oci-archive:{}", env.at("app/release.tar"));
    let config = env.tool("skopeo", &["inspect", "--config", &archive]).ok().stdout;
    assert!(
        config.contains("\"kind\": \"release\"") || config.contains("\"kind\":\"release\""),
        "{config}"
    );
    let text = fs::read_to_string(env.path("app/built.json")).expect("metadata");
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(metadata["release"]["image.name"], "docker.io/example/app:1");
    for key in ["containerimage.digest", "containerimage.config.digest"] {
        let digest = metadata["release"][key].as_str().unwrap_or_default();
        assert!(digest.starts_with("sha256:"), "{key}: {text}");
    }
    assert!(
        metadata["release"]["containerimage.descriptor"]["size"].is_u64(),
        "{text}"
    );
    env.nothing_left();
}

#[test]
fn inheritance_as_root() {
    let env = world(
        r#"
        target "_common" {
          args   = { WHO = "parent", NUMBER = 1 }
          labels = { from = "parent" }
        }
        target "child" {
          inherits = ["_common"]
          target   = "release"
          args     = { NUMBER = 2 }
        }
        target "grandchild" {
          inherits = ["child"]
          args     = { WHO = "grandchild" }
          target   = "test"
        }
        "#,
    );
    bake(&env, &["child", "grandchild"], &[]).ok();
    assert_eq!(said(&env, "child", "/said"), "parent 2\n");
    assert_eq!(said(&env, "grandchild", "/said"), "grandchild 2\n");
    assert_eq!(said(&env, "grandchild", "/tested"), "tested\n");
    // What is set for a parent reaches its children.
    bake(&env, &["child", "--set", "_common.args.WHO=set"], &[]).ok();
    assert_eq!(said(&env, "child", "/said"), "set 2\n");
}

#[test]
fn variables_as_root() {
    let env = world(
        r#"
        variable "WHO" { default = "default" }
        variable "NUMBER" {
          type    = number
          default = 3
          validation {
            condition     = NUMBER > 0
            error_message = "NUMBER must be above zero"
          }
        }
        target "default" {
          target = "base"
          args   = { WHO = "${WHO}!", NUMBER = NUMBER + 1 }
          tags   = ["example/${WHO}:${NUMBER}"]
        }
        "#,
    );
    bake(&env, &[], &[]).ok();
    assert_eq!(said(&env, "default", "/said"), "default! 4\n");
    bake(&env, &[], &[("WHO", "env"), ("NUMBER", "10")]).ok();
    assert_eq!(said(&env, "default", "/said"), "env! 11\n");
    bake(&env, &["--var", "WHO=flag"], &[("WHO", "env")]).ok();
    assert_eq!(said(&env, "default", "/said"), "flag! 4\n");
    let wrong = bake(&env, &[], &[("NUMBER", "0")]);
    assert_eq!(wrong.stdout, "");
    wrong.fails_with(&[
        "docker-bake.hcl:7:",
        "NUMBER must be above zero",
        "condition     = NUMBER > 0",
    ]);
}

#[test]
fn functions_as_root() {
    let env = world(
        r#"
        function "increment" {
          params = [number]
          result = number + 1
        }
        function "join_all" {
          params          = [separator]
          variadic_params = words
          result          = join(separator, [for word in words : upper(word)])
        }
        target "default" {
          target = "base"
          args = {
            WHO    = join_all("-", "a", "b")
            NUMBER = increment(add(40, 1))
          }
        }
        "#,
    );
    bake(&env, &[], &[]).ok();
    assert_eq!(said(&env, "default", "/said"), "A-B 42\n");
}

#[test]
fn results_are_contexts_and_limits_hold_for_their_target_as_root() {
    let env = world(
        r#"
        target "tools" {
          dockerfile-inline = "FROM REGISTRY/cbs-test/busybox:1\nARG TOOL=hammer\nRUN echo $TOOL > /tool\n"
          resources         = { memory = "48m" }
        }
        target "app" {
          contexts          = { tools = "target:tools" }
          dockerfile-inline = <<EOT
            FROM tools
            ARG SIZE=1
            COPY --from=tools /tool /copied
            RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null > /limit; true
EOT
          resources = { memory = "64m" }
        }
        target "free" {
          dockerfile-inline = <<EOT
            FROM REGISTRY/cbs-test/busybox:1
            RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null > /limit; true
EOT
        }
        "#,
    );
    bake(&env, &["free", "app"], &[]).ok();
    assert_eq!(said(&env, "app", "/copied"), "hammer\n");
    let limit = said(&env, "app", "/limit");
    if !limit.is_empty() {
        assert_eq!(limit.trim(), (64 << 20).to_string(), "that of its own target");
        assert_ne!(said(&env, "free", "/limit"), limit, "others have none");
    }
    // What a Dockerfile takes is told when its base is another target, too.
    let outline = bake(&env, &["app", "--call", "outline"], &[]).ok().stdout;
    assert!(outline.contains("SIZE"), "{outline}");
    let check = bake(&env, &["app", "--check"], &[]).ok().stdout;
    assert!(check.contains("Check complete"), "{check}");
}

#[test]
fn the_target_that_fails_is_named_as_root() {
    let env = world(
        r#"
        target "good" { target = "base" }
        target "bad" { dockerfile-inline = "FROM REGISTRY/cbs-test/busybox:1\nRUN echo last words; exit 3\n" }
        target "wrong" { dockerfile-inline = "FROM REGISTRY/cbs-test/busybox:1\nCOPPY a b\n" }
        "#,
    );
    bake(&env, &["good", "bad"], &[]).fails_with(&["target `bad`: process", "exit code: 3", "last words"]);
    bake(&env, &["good", "wrong"], &[]).fails_with(&["target `wrong`", "Dockerfile:2", "COPPY a b"]);
    // The other one comes to its end when that is wanted.
    bake(&env, &["good", "bad", "--keep-going"], &[]).fails_with(&["target `bad`", "docker-bake.hcl#good"]);
    assert_eq!(said(&env, "good", "/said"), "nobody 0\n");
}

#[test]
fn what_is_outside_of_the_folder_must_be_granted_as_root() {
    let env = world(
        r#"
        target "default" {
          target = "base"
          output = ["type=local,dest=../out"]
          secret = ["id=token,src=../token"]
        }
        target "host" {
          target  = "base"
          network = "host"
        }
        "#,
    );
    env.write("token", "secret");
    let refused = bake(&env, &[], &[]);
    let wants = ["--allow fs.read=../token", "--allow fs.write=../out"];
    refused.fails_with(&wants);
    bake(&env, &["--allow", "fs.read=../token"], &[]).fails_with(&["fs.write=../out"]);
    bake(&env, &["--allow", "fs=.."], &[]).ok();
    assert_eq!(
        fs::read_to_string(env.path("out/said")).expect("exported"),
        "nobody 0\n"
    );
    bake(&env, &["host"], &[]).fails_with(&["--allow network.host"]);
    bake(&env, &["host", "--allow", "network.host"], &[]).ok();
    bake(&env, &[], &[("BUILDX_BAKE_ENTITLEMENTS_FS", "0")]).ok();
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("address").port()
}

fn serve(mut command: Command, port: u16) -> Server {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("server starts");
    let server = Server(child);
    for _ in 0..500 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return server;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no server on port {port}")
}

#[test]
fn definitions_from_elsewhere_as_root() {
    let env = world(
        r#"
        target "default" { target = "base" }
        target "reader" {
          target = "base"
          secret = ["id=token,src=../token"]
        }
        target "local" {
          context    = "cwd://"
          dockerfile = "cwd://Dockerfile"
          target     = "base"
          args       = { WHO = "local" }
        }
        "#,
    );
    // Over http: one file; its contexts are those of the caller.
    let port = free_port();
    let mut http = env.command("python3");
    http.args([
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &port.to_string(),
        "--directory",
        &env.at("app"),
    ]);
    let http_server = serve(http, port);
    let url = format!("http://127.0.0.1:{port}/docker-bake.hcl");
    let printed = bake(&env, &[&url, "--print"], &[]).ok().stdout;
    assert!(printed.contains("\"target\": \"base\""), "{printed}");

    // Over git: the files beside it are the context.
    let git = |args: &[&str]| {
        let mut words = vec!["-C", "app", "-c", "user.name=t", "-c", "user.email=t@example.org"];
        words.extend(args);
        env.tool("git", &words.iter().map(|word| word.as_ref()).collect::<Vec<&str>>())
            .ok();
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "x"]);
    let port = free_port();
    // Not `git daemon`, whose server would outlive it.
    let folder = env.tool("git", &["--exec-path"]).ok().stdout;
    let mut daemon = env.command(std::path::Path::new(folder.trim()).join("git-daemon"));
    let base = format!("--base-path={}", env.at("app"));
    daemon.args([
        "--export-all",
        "--listen=127.0.0.1",
        &format!("--port={port}"),
        &base,
        &env.at("app"),
    ]);
    let git_server = serve(daemon, port);
    let url = format!("git://127.0.0.1:{port}/.git#main");
    env.write(
        "elsewhere/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1 AS base\nARG WHO=x\nRUN echo \"own $WHO\" > /said\n",
    );
    let from = |args: &[&str]| -> crate::env::Said {
        let mut command = env.cbs_command(&["bake", "--progress", "plain", &url]);
        command.args(args).current_dir(env.path("elsewhere"));
        command.output().expect("cbs starts").into()
    };
    from(&["--set", "default.output=type=local,dest=out"]).ok();
    assert_eq!(
        fs::read_to_string(env.path("elsewhere/out/said")).expect("exported"),
        "nobody 0\n"
    );
    // Files of the caller's folder can be named; what is above it must be granted.
    from(&["local", "--set", "local.output=type=local,dest=here"]).ok();
    assert_eq!(
        fs::read_to_string(env.path("elsewhere/here/said")).expect("exported"),
        "own local\n"
    );
    env.write("token", "secret");
    from(&["reader"]).fails_with(&["--allow fs.read=../token"]);
    from(&["reader", "--allow", "fs.read=../token"]).ok();
    drop((http_server, git_server));
    env.nothing_left();
}

#[test]
fn metadata_has_references_of_builds_and_their_warnings_as_root() {
    let env = world(
        r#"
        group "default" { targets = ["base", "test"] }
        target "base" { target = "base" }
        target "test" { target = "test" }
        "#,
    );
    let odd = format!(
        "{}\nfrom base as odd\n",
        fs::read_to_string(env.path("app/Dockerfile")).expect("Dockerfile")
    );
    env.write("app/Dockerfile", &odd);
    let read = || -> Value {
        let text = fs::read_to_string(env.path("app/built.json")).expect("metadata");
        serde_json::from_str(&text).expect("JSON")
    };
    let arguments = ["--metadata-file", "built.json"];
    bake(&env, &arguments, &[]).ok();
    let metadata = read();
    assert!(metadata.get("buildx.build.warnings").is_none(), "{metadata}");
    let reference = metadata["test"]["buildx.build.ref"].as_str().expect("a reference");
    let id = reference.strip_prefix("default/default/").expect("builder and node");
    assert_ne!(metadata["base"]["buildx.build.ref"], reference);
    for name in [reference, id] {
        let log = env.cbs(&["log", "--json", name]).ok().stdout;
        assert!(log.contains("echo tested > /tested"), "{log}");
        env.cbs(&["why", name]).ok();
    }

    // Both targets are of one file: what it should not say is said once.
    bake(&env, &arguments, &[("BUILDX_METADATA_WARNINGS", "true")]).ok();
    let metadata = read();
    let warnings = metadata["buildx.build.warnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), 1, "{metadata}");
    let warning = &warnings[0];
    // `ConsistentInstructionCasing` in base64.
    assert!(
        warning["short"]
            .as_str()
            .is_some_and(|text| text.starts_with("Q29uc2lzdGVudEluc3RydWN0aW9uQ2FzaW5n")),
        "{warning}"
    );
    assert_eq!(warning["sourceInfo"]["filename"], "Dockerfile");
    assert!(
        warning["range"][0]["start"]["line"].is_u64() && warning["url"].is_string(),
        "{warning}"
    );

    // As a stream it is JSON to the end.
    let mut command = env.cbs_command(&["bake", "--progress", "rawjson"]);
    let said: crate::env::Said = command
        .current_dir(env.path("app"))
        .output()
        .expect("cbs starts")
        .into();
    let lines: Vec<Value> = said
        .ok()
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["warnings"][0]["short"] == warning["short"])
    );
    env.nothing_left();
}

#[test]
fn switches_take_a_boolean_as_dockers_do() {
    let env = TestEnv::new();
    env.write("docker-bake.hcl", "target \"default\" {}\n");
    let outputs = |flags: &[&str]| -> Value {
        let said = env.cbs(&[&["bake", "--print"], flags].concat()).ok();
        let printed: Value = serde_json::from_str(&said.stdout).expect("JSON");
        printed["target"]["default"]["output"].clone()
    };
    assert_eq!(outputs(&["--push=false", "--load=false"]), Value::Null);
    assert_eq!(outputs(&["--push=true"])[0]["push"], "true");
    assert_eq!(outputs(&["--load"])[0]["type"], "docker");
}

//! Named contexts of `cbs build` and bake: every kind, what a lock has of them, and what is said when one is not there.

use std::fs;

use crate::env::{Said, TestEnv};
use crate::repositories::{change, git, repository};
use crate::site::{Answer, Site};
use crate::smart_git::SmartGit;

/// Builds a Dockerfile with contexts into `out`.
fn build(env: &TestEnv, dockerfile: &str, contexts: &[&str], flags: &[&str]) -> Said {
    env.write("ctx/Dockerfile", dockerfile);
    let mut args = vec!["build", "--progress=plain", "ctx"];
    for context in contexts {
        args.extend(["--build-context", context]);
    }
    args.extend_from_slice(flags);
    into_out(env, &args)
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

/// The digest of an image, as skopeo names it.
fn digest_of(env: &TestEnv, image: &str) -> String {
    let said = env.tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format={{.Digest}}", image],
    );
    said.ok().stdout.trim().to_owned()
}

/// A layout with one image for each tag, whose file `is` says which it is; for two platforms.
fn layout(env: &TestEnv, tags: &[&str]) {
    for tag in tags {
        env.write(
            "base/Dockerfile",
            "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY is /\n",
        );
        env.write("base/is", tag);
        let output = format!("type=oci,dest={},tar=false,name=app:{tag}", env.at("layout"));
        env.cbs(&[
            "build",
            "--platform=linux/amd64,linux/arm64",
            "--output",
            &output,
            "base",
        ])
        .ok();
    }
}

#[test]
fn images_stand_for_names_by_tag_digest_and_platform() {
    let env = TestEnv::with_registry();
    let registry = env.registry();
    let multi = format!("{registry}/cbs-test/multi:1");
    let digest = digest_of(&env, &format!("docker://{multi}"));
    let config = |context: &str, from: &str, flags: &[&str]| {
        let output = format!("type=oci,dest={},tar=false", env.at("image"));
        fs::remove_dir_all(env.path("image")).unwrap_or_default();
        env.write("ctx/Dockerfile", &format!("{from}\nLABEL a=b\n"));
        let mut args = vec!["build", "--build-context", context, "--output", &output, "ctx"];
        args.extend_from_slice(flags);
        env.cbs(&args).ok();
        let image = format!("oci:{}", env.at("image"));
        env.tool("skopeo", &["inspect", "--config", &image]).ok().stdout
    };
    let by_tag = format!("base=docker-image://{multi}");
    let by_digest = format!("base=docker-image://{registry}/cbs-test/multi@{digest}");
    let by_both = format!("base=docker-image://{multi}@{digest}");
    for context in [&by_tag, &by_digest, &by_both] {
        for (from, flags, arch) in [
            ("FROM base", &["--platform=linux/arm64"][..], "arm64"),
            ("FROM --platform=linux/arm64 base", &[], "arm64"),
            ("FROM base", &["--platform=linux/amd64"], "amd64"),
        ] {
            let said = config(context, from, flags);
            assert!(
                said.contains(&format!("\"architecture\": \"{arch}\"")),
                "{context} {from}: {said}"
            );
        }
    }
    // One for a platform goes before one for all.
    let special = format!("base::linux/arm64=docker-image://{registry}/cbs-test/cfg:1");
    let flags = ["--build-context", &special, "--platform=linux/amd64"];
    assert!(config(&by_tag, "FROM base", &flags).contains("\"architecture\": \"amd64\""));
    // A name stands for a stage and for an image that is called so, too.
    let from = format!("FROM {registry}/cbs-test/busybox:1");
    let instead = format!("{registry}/cbs-test/busybox:1=docker-image://{multi}");
    let said = config(&instead, &from, &["--platform=linux/arm64"]);
    assert!(said.contains("\"architecture\": \"arm64\""), "{said}");
    build(
        &env,
        "FROM scratch AS thing\nFROM scratch\nCOPY --from=thing /etc/passwd /\n",
        &[&format!("thing=docker-image://{registry}/cbs-test/busybox:1")],
        &[],
    )
    .ok();
    assert!(out(&env, "passwd").contains("root"));
    for (context, needles) in [
        (
            format!("base=docker-image://{registry}/cbs-test/nothing:1"),
            vec!["cbs-test/nothing:1"],
        ),
        (
            format!(
                "base=docker-image://{registry}/cbs-test/multi@sha256:{}",
                "0".repeat(64)
            ),
            vec!["cbs-test/multi", "0000"],
        ),
        ("base=docker-image://UPPER".to_owned(), vec!["UPPER", "lowercase"]),
    ] {
        build(&env, "FROM base\nCOPY Dockerfile /\n", &[&context], &[]).fails_with(&needles);
    }
    build(
        &env,
        "FROM base\nCOPY Dockerfile /\n",
        &[&by_tag],
        &["--platform=linux/s390x"],
    )
    .fails_with(&["linux/s390x", "linux/amd64", "linux/arm64"]);
    env.nothing_left();
}

#[test]
fn layouts_by_tag_digest_and_platform() {
    let env = TestEnv::new();
    layout(&env, &["one", "two"]);
    let digest = digest_of(&env, &format!("oci:{}:one", env.at("layout")));
    let dockerfile = "FROM thing AS t\nFROM t\nCOPY Dockerfile /\n";
    for (rest, is) in [
        (":one", "one"),
        (":two", "two"),
        (&format!("@{digest}"), "one"),
        (&format!(":one@{digest}"), "one"),
    ] {
        let context = format!("thing=oci-layout://{}{rest}", env.at("layout"));
        build(&env, dockerfile, &[&context], &[]).ok();
        assert_eq!(out(&env, "is"), is, "{rest}");
        // The network is not needed, and a folder may be named as it is seen from here.
        build(
            &env,
            dockerfile,
            &[&format!("thing=oci-layout://layout{rest}")],
            &["--offline"],
        )
        .ok();
        assert_eq!(out(&env, "is"), is, "{rest}");
    }
    let path = env.at("layout");
    for (rest, flags, needles) in [
        (":three", &[][..], vec!["three", "one", "two"]),
        (&format!("@sha256:{}", "0".repeat(64)), &[], vec!["0000"]),
        ("@sha256:12", &[], vec!["`12` is not a digest"]),
        (":one", &["--platform=linux/s390x"], vec!["linux/s390x", "linux/amd64"]),
        ("", &[], vec!["layout", "one", "two"]),
    ] {
        build(&env, dockerfile, &[&format!("thing=oci-layout://{path}{rest}")], flags).fails_with(&needles);
    }
    fs::create_dir(env.path("empty")).expect("mkdir");
    build(&env, dockerfile, &["thing=oci-layout://empty:one"], &[]).fails_with(&["empty"]);
    build(&env, dockerfile, &["thing=oci-layout://nowhere:one"], &[]).fails_with(&[
        "--build-context",
        "thing",
        "nowhere",
    ]);
    env.nothing_left();
}

#[test]
fn folders_and_downloads_are_what_they_are() {
    let env = TestEnv::new();
    env.write("dir/sub/file", "from a folder\n");
    env.write("dir/ignored", "x\n");
    env.write("dir/.dockerignore", "ignored\n");
    env.tool("tar", &["-C", &env.at("dir"), "-czf", &env.at("a.tar.gz"), "."])
        .ok();
    let archive = fs::read(env.path("a.tar.gz")).expect("archive");
    let site = Site::serve(move |asked| match asked.path.as_str() {
        "/a.tar.gz" => Answer::ok(archive.clone()),
        _ => Answer::status(404),
    });
    let folder = format!("thing={}", env.at("dir"));
    build(&env, "FROM scratch\nCOPY --from=thing . /\n", &[&folder], &[]).ok();
    assert_eq!(out(&env, "sub/file"), "from a folder\n");
    assert!(!env.path("out/ignored").exists());
    build(&env, "FROM scratch\nCOPY --from=thing sub/nope /\n", &[&folder], &[])
        .fails_with(&["sub/nope", "Dockerfile:2"]);
    build(
        &env,
        "FROM scratch\nCOPY --from=thing . /\n",
        &["thing=dir/sub/file"],
        &[],
    )
    .fails_with(&["--build-context", "thing", "is no folder"]);
    build(&env, "FROM scratch\nCOPY --from=thing . /\n", &["thing=nowhere"], &[]).fails_with(&[
        "--build-context",
        "thing",
        "nowhere",
    ]);
    // A download is one file, as with BuildKit, whatever is in it.
    let download = format!("thing={}", site.url("/a.tar.gz"));
    build(
        &env,
        "FROM scratch\nCOPY --from=thing context /a.tar.gz\n",
        &[&download],
        &[],
    )
    .ok();
    assert_eq!(
        fs::read(env.path("out/a.tar.gz")).expect("file"),
        fs::read(env.path("a.tar.gz")).expect("archive")
    );
    let missing = format!("thing={}", site.url("/nothing"));
    build(&env, "FROM scratch\nCOPY --from=thing . /\n", &[&missing], &[]).fails_with(&["/nothing", "404"]);
    // As the main context it is unpacked.
    env.write("Whole", "FROM scratch\nCOPY sub/file /whole\n");
    into_out(&env, &["build", "-f", "Whole", &site.url("/a.tar.gz")]).ok();
    assert_eq!(out(&env, "whole"), "from a folder\n");
    env.nothing_left();
}

#[test]
fn targets_are_contexts_of_targets() {
    let env = TestEnv::new();
    env.write("a/x", "of a\n");
    let file = |extra: &str| {
        env.write(
            "docker-bake.hcl",
            &format!(
                r#"
target "base" {{
  context = "a"
  dockerfile-inline = <<EOT
FROM scratch
ENV NAME=base
COPY x /x
EOT
}}
target "app" {{
  contexts = {{ base = "target:base" }}
  dockerfile-inline = <<EOT
FROM base AS own
FROM scratch
COPY --from=base x /from-base
COPY --from=own x /from-own
EOT
}}
{extra}"#
            ),
        );
    };
    file("");
    into_out(&env, &["realize", "docker-bake.hcl#app"]).ok();
    assert_eq!(
        (out(&env, "from-base"), out(&env, "from-own")),
        ("of a\n".into(), "of a\n".into())
    );
    for (contexts, needles) in [
        ("{ base = \"target:nothing\" }", vec!["nothing"]),
        ("{ base = \"target:wrong\" }", vec!["wrong"]),
    ] {
        file(&format!(
            "target \"wrong\" {{\n  contexts = {contexts}\n  dockerfile-inline = \"FROM base\"\n}}\n"
        ));
        into_out(&env, &["realize", "docker-bake.hcl#wrong"]).fails_with(&needles);
    }
    build(&env, "FROM base\n", &["base=target:app"], &[]).fails_with(&["--build-context `base=target:app`", "bake"]);
    env.nothing_left();
}

#[test]
fn contexts_are_locked_and_all_that_is_missing_is_said() {
    let mut env = TestEnv::with_registry();
    let commit = repository(&env, "git/app");
    let server = SmartGit::serve(&env, "git", None);
    let site = Site::serve(|asked| match asked.path.as_str() {
        "/gone" => Answer::status(404),
        path => Answer::ok(path.to_owned()),
    });
    layout(&env, &["one"]);
    env.write("dir/file", "from a folder\n");
    let (registry, git_url) = (env.registry(), server.url("app"));
    let bake = format!(
        r#"
target "base" {{
  dockerfile-inline = "FROM {registry}/cbs-test/multi:1"
}}
target "app" {{
  contexts = {{
    base = "target:base"
    image = "docker-image://{registry}/cbs-test/busybox:1"
    repo = "{git_url}#main:sub"
    file = "{}"
    dir = "dir"
    lay = "oci-layout://{}:one"
  }}
  dockerfile-inline = <<EOT
FROM base AS b
FROM scratch
COPY --from=image /etc/passwd /passwd
COPY --from=repo file /repo
COPY --from=file context /file
COPY --from=dir file /dir
COPY --from=lay is /is
ADD {} /added
COPY --from=b / /b/
EOT
}}
"#,
        site.url("/context"),
        env.at("layout"),
        site.url("/added")
    );
    env.write("docker-bake.hcl", &bake);
    let with = |env: &TestEnv, flags: &[&str]| into_out(env, &[&["realize", "docker-bake.hcl#app"], flags].concat());
    let pins = |env: &TestEnv| -> serde_json::Value {
        let text = fs::read_to_string(env.path("cbs.lock")).expect("lock");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["pins"].clone()
    };
    with(&env, &["--locked"]).fails_with(&["cbs.lock", "cbs lock"]);
    env.cbs(&["lock", "docker-bake.hcl#app"]).ok();
    let pinned = pins(&env);
    let names: Vec<&String> = pinned.as_object().expect("an object").keys().collect();
    let image = format!("docker-image://{registry}/cbs-test/busybox:1");
    let base = format!("docker-image://{registry}/cbs-test/multi:1");
    let repo = names
        .iter()
        .find(|name| name.starts_with("git://"))
        .expect("the repository")
        .to_string();
    assert_eq!(pinned[&repo], commit);
    assert!(repo.ends_with("#main"), "{repo}");
    for name in [&image, &base, &site.url("/context"), &site.url("/added")] {
        assert!(
            pinned[name].as_str().is_some_and(|pin| pin.starts_with("sha256:")),
            "{name} in {pinned}"
        );
    }
    assert_eq!(names.len(), 5, "folders and layouts are what they are: {names:?}");
    with(&env, &["--locked"]).ok();
    // The branch moves on; the lock does not.
    env.write("git/app/sub/file", "moved\n");
    git(&env, "git/app", &["add", "."]);
    change(&env, "git/app", "two\n");
    with(&env, &["--locked"]).ok();
    assert_eq!(out(&env, "repo"), "in sub\n");
    with(&env, &[]).ok();
    assert_eq!(out(&env, "repo"), "moved\n");

    // What has no pin is said, all of it.
    let text = fs::read_to_string(env.path("cbs.lock")).expect("lock");
    let mut lock: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let left = lock["pins"].as_object_mut().expect("pins");
    left.retain(|name, _| *name == base);
    env.write("cbs.lock", &lock.to_string());
    let said = with(&env, &["--locked"]).fails_with(&["missing in the lock file", "cbs lock"]);
    for name in [&image, &repo, &site.url("/context"), &site.url("/added")] {
        assert!(
            said.stderr.contains(&format!("\n  {name}\n")),
            "{name} in\n{}",
            said.stderr
        );
    }
    assert!(!said.stderr.contains(&format!("\n  {base}\n")), "{}", said.stderr);

    // Offline, what was here once is here.
    env.write("cbs.lock", &text);
    env.stop_registry();
    server.go_down();
    site.asked();
    with(&env, &["--offline"]).ok();
    with(&env, &["--offline", "--locked", "--no-cache"]).ok();
    assert!(site.asked().is_empty());
    // And in an empty store everything is missing, said at once.
    fs::rename(env.path("store"), env.path("full-store")).expect("rename");
    let said = with(&env, &["--offline"]).fails_with(&["missing in the store"]);
    let missing: Vec<&str> = said
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.contains('|'))
        .collect();
    let bare = |name: &str| name.trim_start_matches("docker-image://").to_owned();
    let mut wanted = vec![
        bare(&base),
        bare(&image),
        repo,
        site.url("/added"),
        site.url("/context"),
    ];
    wanted.sort();
    assert_eq!(missing, wanted, "{}", said.stderr);
    // So is a context that the Dockerfile would be in, beside what the other target lacks.
    let main = format!("{git_url}#main");
    env.write(
        "two.hcl",
        &format!(
            "group \"default\" {{ targets = [\"far\", \"near\"] }}\ntarget \"far\" {{ context = \"{main}\" }}\n\
             target \"near\" {{ dockerfile-inline = \"FROM {registry}/cbs-test/cfg:1\" }}\n"
        ),
    );
    let said = env.cbs(&["bake", "-f", "two.hcl", "--offline"]);
    said.fails_with(&["missing in the store", "app/.git#main\n", "cbs-test/cfg:1\n"]);
    env.nothing_left();
}

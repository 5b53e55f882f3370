//! What surrounds the build commands: settings, the doctor, completion, manual pages, docker's client.

use std::fs;
use std::os::unix::fs::symlink;

use crate::env::{Said, TestEnv};

const BAKE: &str = r#"
variable "TAG" { default = "latest" }
group "default" { targets = ["app"] }
target "app" {
  description = "the application"
  tags = ["app:${TAG}"]
}
target "application-tests" { inherits = ["app"] }
"#;

fn own(env: &TestEnv, args: &[&str]) -> Said {
    // The machine's settings are not the test's.
    let mut command = env.cbs_command(args);
    command.env("XDG_CONFIG_HOME", env.path("xdg"));
    command.output().expect("cbs starts").into()
}

#[test]
fn settings_are_set_shown_and_checked() {
    let env = TestEnv::new();
    own(&env, &["config", "set", "build.jobs", "3"]).ok();
    own(
        &env,
        &[
            "config",
            "set",
            "registry.\"docker.io\".mirrors",
            "[\"mirror.example\"]",
        ],
    )
    .ok();
    assert_eq!(own(&env, &["config", "get", "build.jobs"]).ok().stdout, "3\n");
    let shown = own(&env, &["config", "show"]).ok().stdout;
    assert!(
        shown.contains("jobs = 3") && shown.contains("mirror.example"),
        "{shown}"
    );
    assert!(
        own(&env, &["config", "path"])
            .ok()
            .stdout
            .contains("xdg/cbs/config.toml")
    );
    assert_eq!(own(&env, &["config", "get", "store"]).code, 1);
    own(&env, &["config", "set", "build.jobs", "many"]).fails_with(&["jobs"]);
    let unknown = own(&env, &["config", "set", "build.job", "3"]);
    assert_eq!(unknown.code, 2);
    unknown.fails_with(&["there is no setting `build.job`", "build.jobs"]);

    // A file that is wrong stops what builds, with its place, and not what mends it.
    fs::write(env.path("xdg/cbs/config.toml"), "[build]\njobs = 3\njobz = 4\n").expect("write");
    own(&env, &["du"]).fails_with(&["config.toml:3:1: unknown field `jobz`", "3 | jobz = 4"]);
    own(&env, &["config", "path"]).ok();
    env.cbs(&["du", "--config", &env.at("nowhere.toml")])
        .fails_with(&["nowhere.toml"]);

    // Settings are what builds go by; flags win.
    env.write("only.toml", &format!("store = \"{}\"\n", env.at("elsewhere")));
    let mut du = env.cbs_command(&["--config", &env.at("only.toml"), "bake", "--print"]);
    env.write("docker-bake.hcl", BAKE);
    let said: Said = du.env_remove("CBS_STORE").output().expect("cbs starts").into();
    said.ok();
    let mut gc = env.cbs_command(&["--config", &env.at("only.toml"), "gc"]);
    let said: Said = gc.env_remove("CBS_STORE").output().expect("cbs starts").into();
    said.ok();
    assert!(env.path("elsewhere").is_dir());
}

#[test]
fn the_doctor_finds_this_machine_fit_as_root() {
    let env = TestEnv::new();
    let said = env.cbs(&["doctor", "--json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(report["works"], true);
    let checks = report["checks"].as_array().expect("a list");
    for name in ["kernel", "fuse", "overlay", "namespaces", "store", "git", "emulation"] {
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no {name} in {}", said.stdout));
        assert!(
            check["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
            "{check}"
        );
        assert!(check["state"] == "ok" || check["help"].is_string(), "{check}");
    }
    assert!(env.cbs(&["doctor"]).ok().stdout.contains("overlay"));
    env.write("bad.toml", "nonsense = 1\n");
    let said = env.cbs(&["doctor", "--config", &env.at("bad.toml")]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains("bad.toml:1:1"), "{}", said.stdout);
    env.nothing_left();
}

/// What bash offers behind these words.
fn bash_offers(env: &TestEnv, words: &[&str]) -> String {
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <(cbs completion bash)\nCOMP_WORDS=(cbs {line}); COMP_CWORD={at}; COMP_LINE=x; COMP_TYPE=9; COMP_KEY=9\n\
         f=$(complete -p cbs | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n$f cbs {last} x\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line = line.join(" "),
        at = words.len(),
        last = line.last().cloned().unwrap_or_default(),
    );
    let bin = env.path("bin");
    fs::create_dir_all(&bin).expect("mkdir");
    if !bin.join("cbs").exists() {
        symlink(env!("CARGO_BIN_EXE_cbs"), bin.join("cbs")).expect("link");
    }
    let mut bash = env.command("bash");
    bash.args(["-c", &script]);
    bash.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let said: Said = bash.output().expect("bash starts").into();
    said.ok().stdout
}

#[test]
fn bash_completes_flags_and_targets() {
    let env = TestEnv::new();
    env.write("docker-bake.hcl", BAKE);
    let lines = |words: &[&str]| -> Vec<String> {
        bash_offers(&env, words)
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    };
    assert_eq!(lines(&["bake", "app"]), ["app", "application-tests"]);
    assert!(lines(&["do"]).contains(&"doctor".to_owned()));
    assert!(lines(&["bake", "--pri"]).contains(&"--print".to_owned()));
    assert_eq!(lines(&["bake", "--var", "T"]), ["TAG="]);
    assert_eq!(lines(&["bake", "--set", "application"]), ["application-tests."]);
    env.write("other.hcl", "target \"zoo\" {}\n");
    assert_eq!(lines(&["bake", "-f", "other.hcl", "z"]), ["zoo"]);
    assert_eq!(
        lines(&["realize", "other.hcl#"]),
        ["other.hcl#default", "other.hcl#zoo"][1..]
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(
            env.cbs(&["completion", shell]).ok().stdout.contains("CBS_COMPLETE"),
            "{shell}"
        );
    }
}

#[test]
fn every_command_has_a_manual_page_and_examples_where_they_help() {
    let env = TestEnv::new();
    env.cbs(&["man", &env.at("man")]).ok();
    let names: Vec<String> = fs::read_dir(env.path("man"))
        .expect("pages")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for name in [
        "cbs.1",
        "cbs-build.1",
        "cbs-bake.1",
        "cbs-realize.1",
        "cbs-store-verify.1",
        "cbs-config-set.1",
    ] {
        assert!(names.iter().any(|found| found == name), "no {name} in {names:?}");
    }
    let page = fs::read_to_string(env.path("man/cbs-bake.1")).expect("page");
    assert!(page.contains(".TH") && page.contains("metadata\\-file"), "{page}");
    for command in [
        "build", "bake", "realize", "export", "plan", "log", "gc", "config", "doctor",
    ] {
        let help = env.cbs(&[command, "--help"]).ok().stdout;
        assert!(
            help.contains("Examples:") && help.contains("  cbs "),
            "{command}: {help}"
        );
    }
}

#[test]
fn docker_calls_it_as_a_plugin() {
    let env = TestEnv::new();
    env.write("docker-bake.hcl", BAKE);
    fs::create_dir_all(env.path("docker/cli-plugins")).expect("mkdir");
    symlink(env!("CARGO_BIN_EXE_cbs"), env.path("docker/cli-plugins/docker-cbs")).expect("link");
    let docker = |args: &[&str]| -> Said {
        let mut command = env.command("docker");
        command.env("DOCKER_CONFIG", env.path("docker")).args(args);
        command.output().expect("the docker client must be installed").into()
    };
    let help = docker(&["--help"]).ok();
    assert!(
        help.stdout.contains("cbs*") && help.stdout.contains("content-addressed store"),
        "{}",
        help.stdout
    );
    let printed = docker(&["cbs", "bake", "--print", "--set", "app.args.A=1"]).ok();
    assert!(printed.stdout.contains("\"app:latest\""), "{}", printed.stdout);
    assert!(
        docker(&["cbs", "bake", "--help"])
            .ok()
            .stdout
            .contains("Usage: docker cbs bake")
    );
    docker(&["-l", "error", "cbs", "bake", "nothing"]).fails_with(&["failed to find target \"nothing\"", "app"]);
    let offered = docker(&["__complete", "cbs", "bake", "app"]).ok().stdout;
    assert!(
        offered.contains("app\tthe application\n") && offered.contains("application-tests"),
        "{offered}"
    );
}

#[test]
fn settings_are_what_builds_go_by_as_root() {
    let env = TestEnv::with_registry();
    // A registry that is nowhere, behind a mirror that is here.
    env.write(
        "config.toml",
        "[build]\nprogress = \"plain\"\njobs = 1\nplatforms = [\"linux/386\"]\nlower-mode = \"plain\"\n\
         [registry.\"registry.invalid\"]\nmirrors = [\"REGISTRY\"]\n",
    );
    env.write(
        "ctx/Dockerfile",
        "FROM --platform=$BUILDPLATFORM registry.invalid/cbs-test/busybox:1\nARG TARGETARCH\n\
         RUN echo $TARGETARCH > /arch; wc -c < /bin/busybox > /size\n",
    );
    let build = |more: &[&str]| {
        let mut args = vec!["--config", "config.toml", "build", "-t", "example/set", "ctx"];
        args.extend(more);
        env.cbs(&args).ok()
    };
    let said = build(&[]);
    assert!(
        said.stderr.contains("registry.invalid/cbs-test/busybox:1"),
        "{}",
        said.stderr
    );
    let cat = |path: &str| {
        let reference = format!("{}:{path}", env.at("ctx"));
        env.cbs(&["store", "cat", &reference]).ok().stdout
    };
    assert_eq!(cat("/arch"), "386\n", "the platform of the settings");
    assert!(
        cat("/size").trim().parse::<u64>().is_ok_and(|size| size > 100_000),
        "read through FUSE alone"
    );
    // Flags and the environment win.
    build(&["--platform", "linux/amd64"]);
    assert_eq!(cat("/arch"), "amd64\n");
    assert_eq!(build(&["--progress", "quiet"]).stderr, "");
    env.nothing_left();
}

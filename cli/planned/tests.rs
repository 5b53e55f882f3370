//! Flags to planned builds: what each one comes to.

use clap::Parser as _;

use cbs_frontends::dockerfile::{BuildOptions, NoCache, ResolveMode};
use cbs_solver::pb;

use super::*;
use crate::args::{Cli, Command};
use crate::output::OutputKind;
use crate::target::{DockerfileAt, Work};

fn plan(flags: &[&str]) -> anyhow::Result<BuildTarget> {
    let words = ["cbs", "build"].iter().chain(flags);
    let Command::Build(args) = Cli::try_parse_from(words)?.command else {
        bail!("no build");
    };
    let mut planned = Planned::default();
    planned.add_build(&args, &StandardInput::default(), "root".to_owned())?;
    planned.targets.pop().context("one target")
}

#[test]
fn flags_come_through_as_they_were_written() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").expect("write");
    let context = folder.path().to_str().expect("text");
    let flags = [
        "--build-arg",
        "A=${HOME} %{if}",
        "--label",
        "x=\"quoted\"",
        "-t",
        "example/a",
        "--add-host",
        "A:10.1.2.3",
        "--add-host",
        "a:::1",
        "--ulimit",
        "nofile=10:20",
        "--output",
        "type=oci,dest=/tmp/x,compression=zstd",
        context,
    ];
    let target = plan(&flags).expect("plans");
    let crate::target::Work::Dockerfile { options, .. } = &target.work else {
        panic!("a Dockerfile")
    };
    assert_eq!(options.build_args["A"], "${HOME} %{if}");
    assert_eq!(options.labels["x"], "\"quoted\"");
    assert_eq!(options.extra_hosts.len(), 2);
    assert_eq!(target.names[0].to_string(), "docker.io/example/a:latest");
    assert_eq!(target.outputs[0].attrs["compression"], "zstd");
    let wrong = plan(&["--ulimit", "nofile", context]).expect_err("malformed");
    assert!(wrong.to_string().contains("nofile"), "{wrong}");
}

/// What a flag must come to.
enum Want {
    /// It changes how the target is built.
    Built(fn(&BuildTarget, &BuildOptions) -> bool),
    /// It changes what builds may read or do.
    Allowed(fn(&Planned) -> bool),
    /// It is for the command itself.
    Kept(fn(&BuildArgs) -> bool),
    /// It is refused, and the message says this.
    NotYet(&'static str),
    /// It is taken and said to be without effect.
    NoEffect,
}

/// Every flag of `docker buildx build`, the old and hidden ones included.
fn flags() -> Vec<(&'static str, &'static str, Want)> {
    use Want::{Allowed, Built, Kept, NoEffect, NotYet};
    vec![
        (
            "--add-host",
            "a:10.1.2.3",
            Built(|_, options| options.extra_hosts.len() == 1),
        ),
        (
            "--allow",
            "network.host",
            Allowed(|planned| planned.sources.sandbox.allow_host_network),
        ),
        ("--annotation", "a=b", Built(|target, _| target.annotations.len() == 1)),
        ("--attest", "type=sbom", NotYet("attestations are not written yet")),
        ("--build-arg", "A=b", Built(|_, options| options.build_args["A"] == "b")),
        (
            "--build-context",
            "x=docker-image://y",
            Built(|_, options| options.contexts.contains_key("x")),
        ),
        ("--builder", "x", Kept(|args| args.common.builder.is_some())),
        (
            "--cache-from",
            "type=registry,ref=x",
            Kept(|args| !args.cache_from.is_empty()),
        ),
        ("--cache-to", "type=inline", NotYet("not exported yet")),
        (
            "--call",
            "outline",
            Built(|target, _| target.call.as_ref().is_some_and(|call| call.method == "outline")),
        ),
        ("--cgroup-parent", "x", Built(|_, options| options.cgroup_parent == "x")),
        (
            "--check",
            "",
            Built(|target, _| target.call.as_ref().is_some_and(|call| call.method == "lint")),
        ),
        ("--compress", "", NoEffect),
        (
            "--cpu-period",
            "1000",
            Built(|_, options| options.resources.cpu_period == 1000),
        ),
        (
            "--cpu-quota",
            "500",
            Built(|_, options| options.resources.cpu_quota == 500),
        ),
        (
            "--cpu-shares",
            "2",
            Built(|_, options| options.resources.cpu_shares == 2),
        ),
        (
            "--cpuset-cpus",
            "0,1",
            Built(|_, options| options.resources.cpuset_cpus == "0,1"),
        ),
        (
            "--cpuset-mems",
            "0",
            Built(|_, options| options.resources.cpuset_mems == "0"),
        ),
        (
            "--file",
            "Other",
            Built(
                |target, _| matches!(&target.work, Work::Dockerfile { file: DockerfileAt::Here(text), .. } if text.data == b"FROM scratch AS other\n"),
            ),
        ),
        ("--force-rm", "", NoEffect),
        ("--iidfile", "x", Kept(|args| args.iidfile.is_some())),
        ("--isolation", "x", NoEffect),
        ("--label", "a=b", Built(|_, options| options.labels["a"] == "b")),
        (
            "--load",
            "",
            Built(|target, _| target.outputs[0].kind == OutputKind::Docker),
        ),
        (
            "--memory",
            "64m",
            Built(|_, options| options.resources.memory == 64 << 20),
        ),
        (
            "--memory-swap",
            "-1",
            Built(|_, options| options.resources.memory_swap == -1),
        ),
        ("--metadata-file", "x", Kept(|args| args.common.metadata_file.is_some())),
        (
            "--network",
            "none",
            Built(|_, options| options.network == pb::NetMode::None),
        ),
        ("--no-cache", "", Built(|_, options| options.no_cache == NoCache::All)),
        (
            "--no-cache-filter",
            "a,b",
            Built(|_, options| options.no_cache == NoCache::Stages(vec!["a".into(), "b".into()])),
        ),
        (
            "--output",
            "type=oci,dest=/tmp/x",
            Built(|target, _| target.outputs[0].kind == OutputKind::Oci),
        ),
        (
            "--platform",
            "linux/arm64,linux/amd64",
            Built(|_, options| options.platforms.len() == 2),
        ),
        ("--policy", "filename=x.rego", NotYet("not evaluated yet")),
        ("--progress", "plain", Kept(|args| args.common.progress.is_some())),
        ("--provenance", "mode=max", NotYet("not written yet")),
        (
            "--pull",
            "",
            Built(|_, options| options.resolve_mode == ResolveMode::Pull),
        ),
        ("--push", "", NotYet("an image to push needs a name")),
        ("--quiet", "", Kept(|args| args.quiet)),
        (
            "--resource",
            "memory=64m,cpuset-cpus=0,1",
            Built(|_, options| options.resources.memory == 64 << 20 && options.resources.cpuset_cpus == "0,1"),
        ),
        ("--rm", "", NoEffect),
        ("--sbom", "true", NotYet("not written yet")),
        (
            "--secret",
            "id=x,env=HOME",
            Allowed(|planned| planned.sources.secrets.contains_key("x")),
        ),
        ("--security-opt", "x", NoEffect),
        ("--shm-size", "64m", Built(|_, options| options.shm_size == 64 << 20)),
        ("--squash", "", NoEffect),
        (
            "--ssh",
            "a=SOCKET",
            Allowed(|planned| planned.sources.ssh.contains_key("a")),
        ),
        ("--tag", "a", Built(|target, _| target.names.len() == 1)),
        (
            "--target",
            "x",
            Built(|_, options| options.target.as_deref() == Some("x")),
        ),
        ("--ulimit", "nofile=1:2", Built(|_, options| options.ulimits.len() == 1)),
    ]
}

#[test]
fn every_flag_of_docker_build_comes_to_something() {
    let folder = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    std::fs::write(at("Dockerfile"), "FROM scratch\n").expect("write");
    std::fs::write(at("Other"), "FROM scratch AS other\n").expect("write");
    let _agent = std::os::unix::net::UnixListener::bind(at("socket")).expect("socket");
    for (flag, value, want) in flags() {
        let value = match value {
            "Other" => at("Other"),
            value => value.replace("SOCKET", &at("socket")),
        };
        let mut words = vec!["cbs", "build", flag];
        words.extend((!value.is_empty()).then_some(value.as_str()));
        let context = at("");
        words.push(&context);
        let parsed = Cli::try_parse_from(&words).unwrap_or_else(|err| panic!("{flag}: {err}"));
        let Command::Build(args) = parsed.command else {
            panic!("{flag}: a build")
        };
        let mut planned = Planned::default();
        let done = planned.add_build(&args, &StandardInput::default(), "root".to_owned());
        if let Want::NotYet(text) = want {
            let said = format!("{:#}", done.expect_err(flag));
            assert!(said.contains(text), "{flag}: {said}");
            continue;
        }
        done.unwrap_or_else(|err| panic!("{flag}: {err:#}"));
        let target = planned.targets.last().expect("one target");
        let Work::Dockerfile { options, .. } = &target.work else {
            panic!("{flag}: a Dockerfile")
        };
        let holds = match want {
            Want::Built(holds) => holds(target, options),
            Want::Allowed(holds) => holds(&planned),
            Want::Kept(holds) => holds(&args),
            Want::NoEffect => args.legacy.without_effect() == [flag],
            Want::NotYet(_) => false,
        };
        assert!(holds, "{flag} {value} comes to nothing");
    }
}

#[test]
fn a_push_has_a_name() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").expect("write");
    let context = folder.path().to_str().expect("text");
    for flags in [
        &["--push", "--tag=a"][..],
        &["--output=type=registry,name=a"],
        &["--push", "--check"],
    ] {
        let planned = plan(&[flags, &[context]].concat()).expect("it has one");
        let output = &planned.outputs[0];
        assert_eq!(output.flag("push", false), Ok(true), "{flags:?}");
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").expect("write");
    let context = folder.path().to_str().expect("text");
    for (flags, want) in [
        (["--resource", "cores=2"], "there is no limit `cores`"),
        (["--resource", "memory"], "NAME=VALUE"),
        (["--resource", "memory=lots"], "lots"),
        (["--cpu-quota", "x"], "cpu-quota"),
    ] {
        let [flag, value] = flags;
        let said = format!("{:#}", plan(&[flag, value, context]).expect_err(value));
        assert!(said.contains(want), "{flag} {value}: {said}");
    }
}

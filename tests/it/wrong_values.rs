//! Wrong values, one row each: the flag or line is named, and what there is instead.

use crate::env::TestEnv;

/// A value of a flag of `cbs build`, and what is said about it.
const BUILD: &[(&str, &[&str])] = &[
    (
        "--progress=fancy",
        &["--progress", "auto, tty, plain, rawjson, quiet, none"],
    ),
    ("--no-cache=maybe", &["--no-cache", "true, false"]),
    ("--pull=7", &["--pull", "true, false"]),
    ("--push=perhaps", &["--push", "true, false"]),
    ("--load=x", &["--load", "true, false"]),
    ("--jobs=0", &["--jobs", "`auto` or a number above zero"]),
    ("--jobs=many", &["--jobs", "`auto` or a number above zero"]),
    ("--platform=linux/", &["--platform", "`linux/` is no platform"]),
    ("--platform=linux/amd64/v1/x", &["--platform", "OS/ARCH[/VARIANT]"]),
    (
        "--output=type=zip",
        &[
            "--output",
            "`zip` is not known (oci, docker, tar, local, image, registry, cacheonly)",
        ],
    ),
    (
        "--output=type=oci,dest=x,compression=rar",
        &["--output", "`uncompressed`, `gzip` or `zstd`"],
    ),
    (
        "--output=type=oci,dest=x,compression-level=99",
        &["--output", "gzip has levels 0 to 9"],
    ),
    (
        "--output=type=oci,dest=x,compression-level=x",
        &["--output", "compression-level=x", "whole number"],
    ),
    (
        "--output=type=oci,dest=x,tar=perhaps",
        &["--output", "tar=perhaps is not true or false"],
    ),
    (
        "--output=type=oci,dest=x,colour=red",
        &["--output", "`colour` is not known; there are name,"],
    ),
    ("--output=type=oci,dest", &["--output", "key=value"]),
    ("--output=type=oci,\"dest=x", &["--output", "a quote is not closed"]),
    (
        "--output=type=image,push=maybe",
        &["--output", "push=maybe is not true or false"],
    ),
    (
        "--output=type=image,name=UPPER:1",
        &["--output", "name=UPPER:1", "lowercase"],
    ),
    ("--output=type=local", &["--output", "dest is required"]),
    (
        "--output=type=local,dest=x,mode=move",
        &["--output", "there are copy and delete"],
    ),
    ("--output=type=registry", &["--output", "needs a name: --tag NAME"]),
    (
        "--output=type=oci,dest=x,source-date-epoch=now",
        &["--output", "seconds since 1970"],
    ),
    (
        "--output=type=image,annotation-what.a=b",
        &["--output", "`what` is not known; there are manifest,"],
    ),
    ("--tag=UPPER", &["--tag", "UPPER", "lowercase"]),
    ("--tag=a b", &["--tag", "a b", "[HOST[:PORT]/]NAME[:TAG][@DIGEST]"]),
    ("--tag=a:b:c", &["--tag", "a:b:c"]),
    ("--tag=x@sha256:00", &["--tag", "64 lower-case hex digits"]),
    ("--build-arg==x", &["--build-arg `=x`", "NAME[=VALUE]"]),
    ("--build-context=foo", &["--build-context `foo`", "NAME=VALUE"]),
    ("--build-context=foo=", &["--build-context `foo=`", "NAME=VALUE"]),
    ("--build-context==bar", &["--build-context `=bar`", "NAME=VALUE"]),
    (
        "--build-context=foo=oci-layout:///nowhere",
        &["--build-context", "foo", "/nowhere"],
    ),
    ("--build-context=foo=/nowhere", &["--build-context", "foo", "/nowhere"]),
    (
        "--build-context=foo=target:x",
        &["--build-context `foo=target:x`", "bake"],
    ),
    ("--label=foo", &["--label `foo`", "NAME=VALUE"]),
    ("--label==x", &["--label `=x`", "NAME=VALUE"]),
    ("--annotation=foo", &["--annotation", "key=value"]),
    (
        "--annotation=what:foo=bar",
        &[
            "--annotation",
            "index, index-descriptor, manifest and manifest-descriptor",
        ],
    ),
    ("--add-host=foo", &["--add-host `foo`", "NAME:IP"]),
    (
        "--add-host=foo:bar",
        &["--add-host `foo:bar`", "neither an IP address nor `host-gateway`"],
    ),
    (
        "--network=bridge",
        &["--network", "`bridge` is not known; there are default, none and host"],
    ),
    ("--shm-size=lots", &["--shm-size", "such as 64m"]),
    ("--ulimit=nofile", &["--ulimit", "name=soft[:hard]"]),
    ("--ulimit=nofile=x", &["--ulimit", "whole number"]),
    ("--ulimit=nofile=9:3", &["--ulimit", "must not be above the hard one"]),
    ("--ulimit=colour=3", &["--ulimit", "there are core, cpu,"]),
    ("--cache-from=colour=red", &["--cache-from", "type=registry"]),
    ("--cache-to=type=inline", &["--cache-to", "not exported yet"]),
    ("--attest=sbom", &["--attest", "not written yet"]),
    ("--provenance=mode=huge", &["--provenance", "only `false`"]),
    ("--sbom=perhaps", &["--sbom", "only `false`"]),
    ("--device=", &["--device", "vendor.com/class=name"]),
    (
        "--device=a.b/c=d,maybe",
        &["--device", "neither `optional` nor `required`"],
    ),
    ("--resource=memory=lots", &["--resource", "such as 64m"]),
    (
        "--resource=cpu=3",
        &["--resource `cpu=3`", "memory, memory-swap, cpu-shares"],
    ),
    ("--resource=memory", &["--resource `memory`", "NAME=VALUE"]),
    ("--memory=lots", &["--memory", "such as 64m"]),
    ("--cpu-quota=x", &["--cpu-quota", "a number is required"]),
    ("--call=dance", &["--call=dance", "build, check, outline and targets"]),
    (
        "--call=check,format=xml",
        &["--call", "`xml` is not known; there are text and json"],
    ),
    ("--call=check,outline", &["--call", "only one method"]),
    ("--print=graph", &["--print `graph`", "`llb`"]),
    ("--step-timeout=soon", &["--step-timeout", "ms, s, m, h, d"]),
    ("--step-timeout=0", &["--step-timeout", "more than nothing"]),
    ("--artifact-on-failure=foo", &["--artifact-on-failure", "PATH=DEST"]),
    ("--on-failure=cry", &["--on-failure", "shell"]),
    (
        "--allow=everything",
        &["--allow", "network.host, security.insecure, device"],
    ),
    (
        "--allow=network.host=1",
        &["--allow", "network.host=1", "does not accept a value"],
    ),
    ("--secret=id=", &["--secret", "needs an id"]),
    ("--secret=id=x,mode=4", &["--secret", "unknown key \"mode\""]),
    ("--ssh=x=/nowhere", &["--ssh", "/nowhere"]),
    ("--policy=x", &["--policy", "key=value"]),
    ("--lower-mode=odd", &["--lower-mode", "data-only, plain"]),
    ("--colour=red", &["--colour"]),
];

/// A command line, and what is said about it.
const OTHERS: &[(&[&str], &[&str])] = &[
    (&["bake", "--set", "foo"], &["foo", "target.key=value"]),
    (&["bake", "--set", "app.colour=red", "app"], &["app.colour=red"]),
    (&["bake", "--set", "app.no-cache=maybe", "app"], &["app.no-cache=maybe"]),
    (
        &["bake", "--set", "app.secret=foo", "app"],
        &["app.secret=foo", "target.secret.name=value"],
    ),
    (&["bake", "--var", "foo"], &["--var", "name=value"]),
    (&["bake", "--list", "nothing"], &["--list", "targets and variables"]),
    (&["bake", "--list", "targets,format=xml"], &["--list", "table and json"]),
    (&["bake", "--allow", "nothing", "app"], &["--allow", "network.host"]),
    (&["bake", "--progress", "loud", "app"], &["--progress", "auto, tty"]),
    (&["bake", "--policy", "x", "app"], &["--policy", "key=value"]),
    (&["realize"], &["REF"]),
    (
        &["realize", "--set", "a.b=c", "ctx/Dockerfile"],
        &["--set and --var are for bake files"],
    ),
    (
        &["realize", "--platform", "a/b/c/d", "ctx/Dockerfile"],
        &["--platform", "OS/ARCH[/VARIANT]"],
    ),
    (
        &["realize", "--output", "type=zip", "ctx/Dockerfile"],
        &["--output", "oci, docker, tar"],
    ),
    (&["realize", "--jobs", "x", "ctx"], &["--jobs", "`auto` or a number"]),
    (&["shell", "--before", "--after"], &["--before", "--after"]),
    (&["shell", "--colour"], &["--colour"]),
    (&["cache"], &["ls, export, import, rm"]),
    (&["cache", "rm", "--all", "x"], &["--all", "ID"]),
    (&["cache", "rm"], &["ID"]),
    (&["log", "--stream", "both"], &["--stream", "stdout, stderr"]),
    (&["log", "--follow", "--json"], &["--follow", "--json"]),
    (&["lock"], &["REF"]),
    (
        &["lock", "--var", "x", "ctx/Dockerfile"],
        &["--set and --var are for bake files"],
    ),
    (&["gc", "--max-used-space", "lots"], &["--max-used-space", "kB, MB, GB"]),
    (
        &["gc", "--min-free-space", "200%"],
        &["--min-free-space", "such as 10%"],
    ),
    (
        &["gc", "--keep-duration", "soon"],
        &["--keep-duration", "ms, s, m, h, d"],
    ),
    (
        &["gc", "--filter", "colour==red"],
        &["colour==red", "there are id, parents"],
    ),
    (&["du", "--format", "xml"], &["--format", "json and pretty"]),
    (
        &["export", "x", "--type", "zip", "-o", "x"],
        &["--type", "oci, docker, tar, local, registry"],
    ),
    (&["export", "x", "-o", "type=zip"], &["--output", "`zip` is not known"]),
    (&["plan", "ctx", "--print", "x"], &["--print", "llb"]),
    (&["graph", "--format", "x"], &["--format", "dot, svg, json"]),
    (&["config", "get", "nothing"], &["nothing", "build.jobs"]),
];

/// An instruction on the third line, and what is said about it.
const INSTRUCTIONS: &[(&str, &[&str])] = &[
    (
        "RUN --mount=type=magic,target=/x true",
        &["\"magic\"", "bind, cache, tmpfs, secret, ssh"],
    ),
    ("RUN --mount=type=cache true", &["target=PATH"]),
    ("RUN --mount=type=cache,target=/ true", &["target=PATH"]),
    (
        "RUN --mount=type=cache,target=/x,sharing=never true",
        &["\"never\"", "shared, private, locked"],
    ),
    (
        "RUN --mount=type=cache,target=/x,mode=rwx true",
        &["rwx for mode", "octal digits"],
    ),
    (
        "RUN --mount=type=cache,target=/x,mode=99 true",
        &["99 for mode", "octal digits"],
    ),
    (
        "RUN --mount=type=cache,target=/x,uid=root true",
        &["root for uid", "a number"],
    ),
    (
        "RUN --mount=type=cache,target=/x,gid=-1 true",
        &["-1 for gid", "a number"],
    ),
    (
        "RUN --mount=type=cache,target=/x,ro=maybe true",
        &["ro: maybe", "true and false"],
    ),
    (
        "RUN --mount=type=cache,target=/x,colour=red true",
        &["'colour'", "there are", "sharing"],
    ),
    (
        "RUN --mount=type=cache,target=/x,tagret=red true",
        &["did you mean target?"],
    ),
    (
        "RUN --mount=type=cache,target=/x,required true",
        &["'required'", "secret and ssh mounts"],
    ),
    ("RUN --mount=type=cache,target=/x,from=$X true", &["alias stage"]),
    (
        "RUN --mount=type=bind,target=/x,from=nowhere/ true",
        &["\"nowhere/\"", "NAME[:TAG][@DIGEST]"],
    ),
    (
        "RUN --mount=type=bind,target=/x,sharing=locked true",
        &["sharing set for bind"],
    ),
    (
        "RUN --mount=type=bind,target=/x,size=3 true",
        &["'size'", "tmpfs mounts"],
    ),
    ("RUN --mount=type=bind,target=/x,mode=1 true", &["mode not allowed"]),
    ("RUN --mount=target true", &["'target' must be a key=value pair"]),
    ("RUN --mount= true", &["csv mounts: an empty value"]),
    ("RUN --mount=type= true", &["bind, cache, tmpfs, secret, ssh"]),
    (
        "RUN --mount=type=tmpfs,target=/x,size=lots true",
        &["size: lots", "64m"],
    ),
    ("RUN --mount=type=secret true", &["one of source, target required"]),
    ("RUN --mount=type=secret,id=x,source=y true", &["both source and id"]),
    (
        "RUN --mount=type=secret,id=x,required=maybe true",
        &["required: maybe", "true and false"],
    ),
    (
        "RUN --mount=type=secret,id=x,from=base true",
        &["should not have a from"],
    ),
    ("RUN --mount=type=ssh,mode=x true", &["x for mode", "octal digits"]),
    ("RUN --mount=type=ssh,sharing=shared true", &["sharing set for ssh"]),
    ("RUN --mount type=cache true", &["missing a value on flag: --mount"]),
    ("RUN --network=bridge true", &["\"bridge\"", "default, none, host"]),
    ("RUN --security=loose true", &["\"loose\"", "sandbox, insecure"]),
    ("RUN --device= true", &["csv devices: an empty value"]),
    (
        "RUN --device=a.b/c=d,required=maybe true",
        &["required: maybe", "true and false"],
    ),
    ("RUN --device=a.b/c=d,colour=red true", &["'colour'", "name, required"]),
    ("RUN --nothing=x true", &["--nothing", "mount, network, security"]),
    ("COPY --chmod=999 f /", &["'999'", "octal"]),
    ("COPY --chmod=u+q f /", &["'u+q'", "u+x,go=r"]),
    ("COPY --link=maybe f /", &["--link", "true and false"]),
    ("COPY --from=9 f /", &["stage index 9"]),
    ("COPY --colour f /", &["--colour", "there are", "chown"]),
    ("ADD --keep-git-dir=maybe f /", &["--keep-git-dir", "true and false"]),
    (
        "ADD --checksum=md5:1 http://h/f /",
        &["md5:1", "sha256, sha384 or sha512"],
    ),
    ("EXPOSE x/y", &["invalid proto: y", "tcp, udp, sctp"]),
    ("STOPSIGNAL SIGNOTHING", &["SIGNOTHING"]),
    ("HEALTHCHECK --interval=x CMD true", &["\"x\" for --interval", "30s"]),
    ("HEALTHCHECK MAYBE", &["MAYBE", "CMD"]),
    ("FROM --platform=a/b/c/d scratch", &["a/b/c/d", "OS/ARCH[/VARIANT]"]),
];

fn world() -> TestEnv {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY f /\n");
    env.write("ctx/f", "f");
    env.write("docker-bake.hcl", "target \"app\" {\n  context = \"ctx\"\n}\n");
    env
}

#[test]
fn flags_of_build() {
    let env = world();
    for (flag, needles) in BUILD {
        let said = env.cbs(&["build", flag, "ctx"]);
        assert_eq!(said.code, 2, "{flag}: {}", said.stderr);
        assert!(!said.stderr.contains("{\"target\""), "{flag}: {}", said.stderr);
        said.fails_with(needles);
    }
    assert!(!env.path("x").exists(), "nothing is written");
    assert!(!env.cbs(&["store", "roots"]).stdout.contains("ctx"), "nothing is built");
}

#[test]
fn flags_of_other_commands() {
    let env = world();
    env.cbs(&["build", "ctx"]).ok();
    for (args, needles) in OTHERS {
        let said = env.cbs(args);
        assert_eq!(said.code, 2, "{args:?}: {}", said.stderr);
        said.fails_with(needles);
    }
}

#[test]
fn instructions() {
    let env = world();
    for (line, needles) in INSTRUCTIONS {
        env.write(
            "wrong/Dockerfile",
            &format!("FROM scratch AS base\nFROM base\n{line}\n"),
        );
        let said = env.cbs(&["build", "wrong"]);
        assert_eq!(said.code, 1, "{line}: {}", said.stderr);
        let said = said.fails_with(needles).fails_with(&["Dockerfile:3", line]);
        assert!(!said.stderr.contains("RUN true"), "{line} ran:\n{}", said.stderr);
    }
}

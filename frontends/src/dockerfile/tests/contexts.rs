//! Named contexts, remote main contexts, and the times of sources.

use super::super::{GitRef, MainContext, context_definition};
use super::*;

fn dump_with(text: &str, options: &BuildOptions) -> String {
    let lowered = try_lower_with(text, None, options).unwrap_or_else(|error| panic!("{error}"));
    dump(&lowered.platforms[0].definition)
}

#[test]
fn named_contexts() {
    let text = "FROM base\nCOPY --from=dir /a/b /x\nRUN --mount=from=dir,source=c,target=/m x\nCOPY --from=lay . /l\nCOPY --from=git . /g\n";
    let attrs = [
        ("context:base", "docker-image://alpine:3"),
        ("context:dir", "local:dir"),
        ("sharedkey:localdir:dir", "key"),
        ("local-sessionid:dir", "session"),
        (
            "context:lay",
            "oci-layout:///lay@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
        ("context:git", "https://h/r.git#main"),
    ];
    insta::assert_snapshot!(dump_with(text, &options(&attrs)), @r#"
    v0 source docker-image://docker.io/library/alpine:3@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [context base] docker.io/library/alpine:3
    v1 source local://dir local.excludepatterns=["ignored"] local.followpaths=["a/b","c"] local.session=session local.sharedkeyhint=context:dir-key  # [context dir] load from client
    v2 file v0 copy v1:/a/b -> /x wild contents follow parents  # [stage-0 1/5] COPY --from=dir /a/b /x :2
    v3 exec ["/bin/sh", "-c", "x"] env=["PATH=/bin"] cwd=/
         BIND / <- v2 out=0
         BIND /m <- v1:/c ro  # [stage-0 2/5] RUN --mount=from=dir,source=c,target=/m x :3
    v4 source oci-layout://docker.io/library/lay@sha256:d1b33ce5bc140e649c00f12aa3dd611c4a9a38b81ec750e8acd2f7b511b29a1e oci.store=/lay  # [context lay] OCI load from client
    v5 file v3 copy v4:/ -> /l wild contents follow parents  # [stage-0 3/5] COPY --from=lay . /l :4
    v6 source git://h/r.git#main git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h/r.git  # [internal] load git source https://h/r.git#main
    v7 file v5 copy v6:/ -> /g wild contents follow parents  # [stage-0 4/5] COPY --from=git . /g :5
    = v7
    "#);
}

#[test]
fn a_context_stands_in_for_a_stage() {
    let text = "FROM nowhere:1 AS base\nRUN exit 1\nFROM base\nRUN pwd\n";
    let options = options(&[("context:base", "docker-image://user")]);
    insta::assert_snapshot!(dump_with(text, &options), @r#"
    v0 source docker-image://docker.io/library/user:latest@sha256:6f39b641a64e2c89ce3d6a1af2a4f11a7e1b7fdbd94c481ad698dcde8b81b819  # [context base] docker.io/library/user:latest
    v1 exec ["/bin/sh", "-c", "pwd"] env=["PATH=/bin"] cwd=/srv user=app
         BIND / <- v0 out=0  # [stage-1 1/1] RUN pwd :4
    = v1
    "#);
}

#[test]
fn a_platform_may_have_its_own_context() {
    let attrs = [
        ("context:base::linux/arm64", "docker-image://tools"),
        ("context:base", "docker-image://alpine"),
        ("platform", "linux/amd64,linux/arm64"),
    ];
    let lowered = try_lower_with("FROM base\n", None, &options(&attrs)).expect("lowers");
    let names: Vec<_> = lowered
        .platforms
        .iter()
        .map(|result| result.base.clone().expect("a base").reference)
        .collect();
    let names: Vec<_> = names
        .into_iter()
        .map(|reference| reference.expect("a name").repository().to_owned())
        .collect();
    assert_eq!(names, ["library/alpine", "library/tools"]);
}

#[test]
fn inputs_bring_their_graph_and_config() {
    let other = lowered("FROM alpine\nENV FROM_OTHER=1\nRUN other\n", &[])
        .platforms
        .remove(0);
    let context = NamedContext::Input {
        definition: other.definition,
        config: Some(other.config.to_vec().expect("to JSON")),
    };
    let options = with_context(options(&[]), "other", context);
    let lowered = try_lower_with("FROM other\nRUN mine\n", None, &options).expect("lowers");
    assert_eq!(lowered.platforms[0].config.config.env, ["PATH=/bin", "FROM_OTHER=1"]);
    insta::assert_snapshot!(dump(&lowered.platforms[0].definition), @r#"
    v0 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [1/2] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :1
    v1 exec ["/bin/sh", "-c", "other"] env=["PATH=/bin", "FROM_OTHER=1"] cwd=/
         BIND / <- v0 out=0  # [2/2] RUN other :3
    v2 exec ["/bin/sh", "-c", "mine"] env=["PATH=/bin", "FROM_OTHER=1"] cwd=/
         BIND / <- v1 out=0  # [1/2] RUN mine :2
    = v2
    "#);
}

#[test]
fn an_empty_input_is_the_empty_tree() {
    let context = NamedContext::Input {
        definition: pb::Definition::default(),
        config: None,
    };
    let options = with_context(options(&[]), "nothing", context);
    insta::assert_snapshot!(dump_with("FROM scratch\nCOPY --from=nothing / /\n", &options), @r#"
    v0 file - copy -:/ -> / wild contents follow parents  # [stage-0 1/1] COPY --from=nothing / / :2
    = v0
    "#);
}

#[test]
fn remote_main_contexts() {
    let mut git = options(&[("build-arg:SOURCE_DATE_EPOCH", "context"), ("contextsubdir", "sub")]);
    git.context = MainContext::Git {
        url: "https://h/r.git#v1:dir".into(),
    };
    insta::assert_snapshot!(dump_with("FROM scratch\nCOPY a /\nWORKDIR /w\n", &git), @r#"
    v0 source git://h/r.git#v1:dir git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h/r.git git.mtime=commit  # [internal] load git source https://h/r.git#v1:dir
    v1 file - copy v0:/sub -> / contents
    v2 file - copy v1:/a -> / wild contents follow parents  # [1/2] COPY a / :2
    v3 file v2 mkdir /w 755 time=1600000000000000000  # [2/2] WORKDIR /w :3
    = v3
    "#);
    let definition = context_definition(&git).expect("reads").expect("a remote context");
    assert_eq!(definition.def.len(), 3);
    let mut archive = options(&[]);
    archive.context = MainContext::HttpArchive {
        url: "http://h/c.tgz".into(),
    };
    insta::assert_snapshot!(dump_with("FROM scratch\nCOPY a /\n", &archive), @r#"
    v0 source http://h/c.tgz http.filename=context  # [internal] load remote build context
    v1 file - copy v0:/context -> / unpack
    v2 file - copy v1:/a -> / wild contents follow parents  # [1/1] COPY a / :2
    = v2
    "#);
    assert_eq!(context_definition(&options(&[])), Ok(None));
    assert!(GitRef::parse_context("github.com/a/b#x").expect("reads").is_some());
}

#[test]
fn epochs() {
    let epoch = |text: &str, attrs: &[(&str, &str)]| try_lower(text, attrs).map(|lowered| lowered.epoch);
    assert_eq!(
        epoch("FROM scratch\n", &[("build-arg:SOURCE_DATE_EPOCH", "7")]).ok(),
        Some(Some(7))
    );
    assert_eq!(
        epoch("ARG SOURCE_DATE_EPOCH=8\nFROM scratch\n", &[]).ok(),
        Some(Some(8))
    );
    let reset = [("build-arg:SOURCE_DATE_EPOCH", "")];
    assert_eq!(
        epoch("ARG SOURCE_DATE_EPOCH=8\nFROM scratch\n", &reset).ok(),
        Some(None)
    );
    let stage =
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nARG V=1\nADD https://h/$V.tar /\nFROM scratch\nWORKDIR /x\n";
    let lowered = lowered(stage, &[]);
    assert_eq!(lowered.epoch, Some(1_600_000_000));
    assert_eq!(
        lowered.platforms[0].config.history[0].created.as_deref(),
        Some("2020-09-13T12:26:40Z")
    );
    for bad in [
        "FROM scratch\n",
        "FROM alpine AS src\n",
        "FROM scratch AS src\nCOPY a /\n",
        "FROM scratch AS src\n",
    ] {
        let error = epoch(bad, &[("build-arg:SOURCE_DATE_EPOCH", "src")])
            .expect_err(bad)
            .to_string();
        assert!(error.contains("SOURCE_DATE_EPOCH"), "{error}");
    }
}

#[test]
fn scans_are_asked_for_by_argument() {
    let text = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM alpine AS a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x\nFROM scratch\nCOPY --from=a /x /\n";
    let lowered = lowered(text, &[]);
    let names: Vec<&str> = lowered.platforms[0]
        .scan
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["context", "a"]);
}

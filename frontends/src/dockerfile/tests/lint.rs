//! Build checks.

use super::*;

#[test]
fn every_rule() {
    let cases: &[(&str, Option<&str>, &[&str])] = &[
        ("FROM scratch AS Big\n", None, &["StageNameCasing:1"]),
        ("FROM scratch as x\n", None, &["FromAsCasing:1"]),
        ("FROM alpine\nRUN a \\\n\n b\n", None, &["NoEmptyContinuation:4"]),
        (
            "FROM scratch\nlabel a=b\nLABEL c=d\n",
            None,
            &["ConsistentInstructionCasing:2"],
        ),
        (
            "from scratch\nlabel a=b\nLABEL c=d\n",
            None,
            &["ConsistentInstructionCasing:3"],
        ),
        (
            "FROM scratch AS a\nFROM scratch AS a\n",
            None,
            &["DuplicateStageName:2"],
        ),
        ("FROM scratch AS context\n", None, &["ReservedStageName:1"]),
        ("FROM scratch\nCMD a\n", None, &["JSONArgsRecommended:2"]),
        ("FROM scratch\nSHELL [\"x\"]\nCMD a\n", None, &[]),
        ("FROM scratch\nMAINTAINER a\n", None, &["MaintainerDeprecated:2"]),
        ("ARG V=alpine\nFROM ${V}$W\n", None, &["UndefinedArgInFrom:2"]),
        ("FROM scratch\nWORKDIR a\nWORKDIR b\n", None, &["WorkdirRelativePath:2"]),
        ("FROM scratch\nLABEL a=$PAHT b=$PATH\n", None, &["UndefinedVar:2"]),
        ("FROM scratch\nARG X\nLABEL a=$X\n", None, &[]),
        (
            "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n",
            None,
            &["MultipleInstructionsDisallowed:2"],
        ),
        ("FROM scratch\nENV a b\n", None, &["LegacyKeyValueFormat:2"]),
        (
            "FROM --platform=$TARGETPLATFORM alpine\n",
            None,
            &["RedundantTargetPlatform:1"],
        ),
        (
            "FROM scratch\nARG GIT_TOKEN\nENV PUBLIC_KEY=1\nENV PASSWD=x\n",
            None,
            &["SecretsUsedInArgOrEnv:2", "SecretsUsedInArgOrEnv:4"],
        ),
        ("ARG I\nFROM ${I:-alpine}\nFROM a$I\n", None, &[]),
        (
            "FROM --platform=linux/amd64 alpine\n",
            None,
            &["FromPlatformFlagConstDisallowed:1"],
        ),
        ("FROM --platform=linux/amd64 alpine AS x-amd64\n", None, &[]),
        (
            "FROM scratch\nCOPY a.log d/ok /\nADD x/b.log /\n",
            Some("**/*.log\n"),
            &["CopyIgnoredFile:2", "CopyIgnoredFile:3"],
        ),
        ("FROM scratch\nCOPY a.log /\n", Some("*.log\n!b.log\n"), &[]),
        ("FROM scratch\nCOPY . /\n", Some("*\n"), &["CopyIgnoredFile:2"]),
        ("FROM scratch\nCOPY . /\n", Some("a\n"), &[]),
        (
            "# check=experimental=all\n# about it\nFROM scratch AS x\n",
            None,
            &["InvalidDefinitionDescription:3"],
        ),
        ("FROM scratch\nEXPOSE 80/TCP\n", None, &["ExposeProtoCasing:2"]),
        (
            "FROM scratch\nEXPOSE 127.0.0.1:80:90\n",
            None,
            &["ExposeInvalidFormat:2"],
        ),
    ];
    for (text, ignore, want) in cases {
        let mut results = linted(text, *ignore, &[]);
        // Some cases name images that do not exist; the rules come first.
        results.error = None;
        assert_eq!(rules(&results), *want, "checking {text:?}");
    }
    let other = linted(
        "FROM --platform=linux/amd64 arm\n",
        None,
        &[("platform", "linux/arm64")],
    );
    assert!(other.error.is_some());
}

#[test]
fn a_default_must_name_an_image() {
    let results = linted("ARG I\nFROM $I\n", None, &[("build-arg:I", "alpine")]);
    assert_eq!(rules(&results), ["InvalidDefaultArgInFrom:2"]);
    assert_eq!(results.status(), 1);
}

#[test]
fn the_base_must_be_for_the_platform() {
    struct Wrong;
    impl MetaResolver for Wrong {
        fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
            let config = br#"{"architecture":"s390x","os":"linux","config":{}}"#.to_vec();
            Box::pin(async move {
                Ok(ResolvedImage {
                    reference: request.reference,
                    digest: None,
                    config,
                })
            })
        }
        fn ignore_file<'a>(&'a self, _local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
            Box::pin(async { Ok(None) })
        }
        fn source_time(&self, _source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
            Box::pin(async { Ok(None) })
        }
    }
    let input = DockerfileInput {
        name: "Dockerfile",
        data: b"FROM x\n",
        ignore_file: None,
    };
    let results = run(check(&input, &options(&[]), &Wrong)).expect("checks");
    assert_eq!(rules(&results), ["InvalidBaseImagePlatform:1"]);
    assert_eq!(
        results.warnings[0].detail,
        "Base image x was pulled with platform \"linux/s390x\", expected \"linux/amd64\" for current build"
    );
}

#[test]
fn skipping() {
    let text =
        "# check=skip=StageNameCasing;error=true\nFROM scratch AS Big\n# check=skip=JSONArgsRecommended\nCMD a\n";
    assert_eq!(rules(&linted(text, None, &[])), Vec::<String>::new());
    assert!(try_lower(text, &[]).is_ok());
    let argument = [("build-arg:BUILDKIT_DOCKERFILE_CHECK", "skip=FromAsCasing;error=1")];
    let error = try_lower(text, &argument).expect_err("the argument wins").to_string();
    assert!(
        error.contains("lint violation found for rules: StageNameCasing"),
        "{error}"
    );
}

#[test]
fn all_stages_are_checked_without_a_target() {
    let text = "FROM scratch AS a\nCMD a\nFROM scratch AS b\n";
    assert_eq!(rules(&linted(text, None, &[])), ["JSONArgsRecommended:2"]);
    assert_eq!(rules(&linted(text, None, &[("target", "b")])), Vec::<String>::new());
}

#[test]
fn warnings_of_a_build_say_the_line() {
    let shown: Vec<String> = lowered("FROM scratch\nCMD a\n", &[])
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        shown,
        [
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)"
        ]
    );
}

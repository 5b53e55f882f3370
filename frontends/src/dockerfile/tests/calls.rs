//! The answers to `--call`.

use super::super::{outline, targets};
use super::*;

const FILE: &str = "# V the version\nARG V=1 W\nARG U=${V}2\nARG UNUSED=x\n# base what all need\nFROM alpine:$V AS base\n\
                    RUN --mount=type=secret,id=s,required x\n# out the result\nFROM --platform=$BUILDPLATFORM base AS out\nARG W U L=3\n\
                    RUN --mount=type=ssh x\n";

fn input(text: &str) -> DockerfileInput<'_> {
    DockerfileInput {
        name: "Dockerfile",
        data: text.as_bytes(),
        ignore_file: None,
    }
}

/// Locations and sources are the same all over; the rest is what differs.
fn short(json: &impl serde::Serialize) -> String {
    let mut value = serde_json::to_value(json).expect("to JSON");
    if let Some(map) = value.as_object_mut() {
        map.remove("sources");
    }
    let text = value.to_string();
    text.replace("\"location\":{\"ranges\":[", "\"at\":[")
        .replace("{\"start\":{\"line\":", "")
        .replace("},\"end\":{\"line\":", "-")
}

#[test]
fn outlines() {
    let answer = run(outline(&input(FILE), &options(&[("build-arg:W", "w")]), &World)).expect("an outline");
    insta::assert_snapshot!(short(&answer), @r#"{"name":"out","description":"the result","args":[{"name":"V","description":"the version","value":"1","at":[2-2}}]}},{"name":"U","value":"12","at":[3-3}}]}},{"name":"L","value":"3","at":[10-10}}]}},{"name":"W","value":"w","at":[10-10}}]}}],"secrets":[{"name":"s","required":true,"at":[7-7}}]}}],"ssh":[{"name":"default","at":[11-11}}]}}]}"#);
    insta::assert_snapshot!(answer.to_string(), @r#"
    TARGET:      out
    DESCRIPTION: the result

    BUILD ARG   VALUE   DESCRIPTION
    V           1       the version
    U           12      
    L           3       
    W           w       

    SECRET   REQUIRED
    s        true

    SSH       REQUIRED
    default
    "#);
}

#[test]
fn target_lists() {
    let answer = targets(&input(FILE), &options(&[])).expect("a list");
    insta::assert_snapshot!(short(&answer), @r#"{"targets":[{"name":"base","description":"what all need","base":"alpine:$V","at":[6-6}}]}},{"name":"out","default":true,"description":"the result","base":"base","platform":"$BUILDPLATFORM","at":[9-9}}]}}]}"#);
    insta::assert_snapshot!(answer.to_string(), @r#"
    TARGET        DESCRIPTION
    base          what all need
    out (default) the result
    "#);
    let unnamed = targets(&input("FROM a\nFROM b\n"), &options(&[])).expect("a list");
    assert_eq!(unnamed.to_string(), "TARGET    DESCRIPTION\n          \n(default) \n");
}

#[test]
fn a_file_without_stages_has_no_targets_and_does_not_build() {
    let found = targets(&input("ARG a\n"), &options(&[])).expect("a list");
    assert!(found.targets.is_empty());
    let error = linted("ARG a\n", None, &[]).error.expect("an error");
    assert_eq!(error.message, "dockerfile contains no stages to build");
}

#[test]
fn checks() {
    let answer = linted("FROM scratch\nCMD a\nNOPE\n", None, &[]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).expect("to JSON"), @r#"
    {
      "warnings": [],
      "sources": [
        {
          "filename": "Dockerfile",
          "data": "RlJPTSBzY3JhdGNoCkNNRCBhCk5PUEUK",
          "language": "Dockerfile"
        }
      ],
      "buildError": {
        "message": "dockerfile parse error on line 3: unknown instruction: NOPE (did you mean COPY?)",
        "location": {
          "ranges": [
            {
              "start": {
                "line": 3
              },
              "end": {
                "line": 3
              }
            }
          ]
        }
      }
    }
    "#);
    let fine = linted("FROM scratch\n", None, &[]);
    assert_eq!((fine.status(), fine.warnings.len()), (0, 0));
}

//! Compose files as definitions.

use std::collections::BTreeMap;

use crate::bake::{Bake, BakeError, BakeOptions, MemoryHost, NoFetcher, load};

fn bake(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Bake, BakeError> {
    let host = files.iter().fold(MemoryHost::default(), |host, (name, text)| {
        host.with(&format!("/src/{name}"), text)
    });
    let environment: BTreeMap<String, String> = environment
        .iter()
        .map(|(name, value)| (String::from(*name), String::from(*value)))
        .collect();
    let options = BakeOptions {
        environment,
        working_directory: String::from("/src"),
        local_platform: String::from("linux/amd64"),
        ..BakeOptions::default()
    };
    load(&options, &host, &NoFetcher)
}

const SERVICES: &str = "
services:
  app.web:
    image: acme/app:${TAG:-latest}
    build:
      context: ./app
      args: { A: 1, FROM_ENV: }
      x-bake:
        platforms: linux/amd64 linux/arm64
  db:
    image: postgres
  tool:
    build:
      context: tool
      additional_contexts: { app: 'service:app.web' }
";

#[test]
fn services_with_a_build_are_targets() {
    let bake = bake(&[("compose.yaml", SERVICES)], &[("FROM_ENV", "x")]).expect("it loads");
    assert_eq!(bake.groups["default"].targets, ["app_web", "tool"]);
    let app = &bake.targets["app_web"];
    assert_eq!(app.context.as_deref(), Some("app"));
    assert_eq!(app.tags.as_deref(), Some(&[String::from("acme/app:latest")][..]));
    assert_eq!(app.platforms.as_ref().map(Vec::len), Some(2));
    assert_eq!(app.args["FROM_ENV"], "x");
    assert_eq!(bake.targets["tool"].contexts["app"], "target:app_web");
}

#[test]
fn the_environment_wins_over_the_file_of_variables() {
    let tag = |environment: &[(&str, &str)]| {
        let files = [("compose.yaml", SERVICES), (".env", "TAG=from-file\n")];
        let bake = bake(&files, environment).expect("it loads");
        bake.targets["app_web"].tags.clone().expect("tags")[0].clone()
    };
    assert_eq!(tag(&[]), "acme/app:from-file");
    assert_eq!(tag(&[("TAG", "from-env")]), "acme/app:from-env");
}

#[test]
fn native_files_are_laid_over_services() {
    let files = [
        ("compose.yaml", SERVICES),
        ("docker-bake.hcl", "target \"tool\" {\n tags = [\"tool:dev\"]\n}\n"),
    ];
    let bake = bake(&files, &[]).expect("it loads");
    assert_eq!(
        bake.targets["tool"].tags.as_deref(),
        Some(&[String::from("tool:dev")][..])
    );
    assert_eq!(bake.targets["tool"].context.as_deref(), Some("tool"));
}

#[test]
fn mistakes_are_refused() {
    let with_build = |line: &str| format!("services:\n  app:\n    build:\n      context: .\n      {line}\n");
    let cases = [
        (with_build("dokerfile: D"), "dokerfile"),
        (with_build("ulimits: { nofile: \"5\" }"), "nofile"),
        (with_build("args: { A: .inf }"), "finite"),
        (with_build("args: { \"\": x }"), "without a name"),
        (with_build("x-bake: { contexts: [a=b] }"), "contexts"),
        (with_build("secrets: [nobody]"), "nobody"),
        (with_build("tags: [\"${NEEDED?give it}\"]"), "give it"),
        (
            with_build("") + "secrets:\n  s:\n    name: x\n",
            "file or an environment",
        ),
        (String::from("services: [a]\n"), "services"),
        (String::from("services:\n\tapp: x\n"), "compose"),
    ];
    for (text, words) in cases {
        let error = bake(&[("compose.yaml", &text)], &[])
            .err()
            .map(|error| error.to_string());
        let message = error.unwrap_or_else(|| panic!("it should not load:\n{text}"));
        assert!(message.contains(words), "{text}: {message}");
    }
}

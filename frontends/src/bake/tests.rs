//! Whole definitions: what they come to, in which order it is built, and how mistakes are shown.

use super::*;

fn options(targets: &[&str]) -> BakeOptions {
    BakeOptions {
        targets: targets.iter().map(|target| String::from(*target)).collect(),
        environment: BTreeMap::from([(String::from("HOME"), String::from("/root"))]),
        working_directory: String::from("/src"),
        home_directory: String::from("/root"),
        local_platform: String::from("linux/amd64"),
        ..BakeOptions::default()
    }
}

fn bake(definition: &str, options: &BakeOptions) -> Result<Bake, BakeError> {
    let host = MemoryHost::default().with("/src/docker-bake.hcl", definition);
    load(options, &host, &NoFetcher)
}

fn loaded(definition: &str, targets: &[&str]) -> Bake {
    bake(definition, &options(targets)).unwrap_or_else(|error| panic!("{error}\nin\n{definition}"))
}

fn message(definition: &str, targets: &[&str]) -> String {
    match bake(definition, &options(targets)) {
        Ok(bake) => panic!("it should not load, but gives {}", bake.print_json()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_default_group_is_taken_when_nothing_is_asked_for() {
    let bake = loaded(
        r#"
        group "default" { targets = ["webapp"] }
        target "webapp" {
          dockerfile = "Dockerfile.webapp"
          tags       = ["acme/webapp:latest"]
        }
        target "other" {}
        "#,
        &[],
    );
    insta::assert_snapshot!(bake.print_json(), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "webapp"
          ]
        }
      },
      "target": {
        "webapp": {
          "context": ".",
          "dockerfile": "Dockerfile.webapp",
          "tags": [
            "acme/webapp:latest"
          ]
        }
      }
    }
    "#);
}

#[test]
fn a_child_has_its_own_values_then_those_of_the_last_parent() {
    let bake = loaded(
        r#"
        target "_common" {
          args = { GO_VERSION = "1.23", BUILDKIT_CONTEXT_KEEP_GIT_DIR = 1 }
        }
        target "dev" {
          inherits = ["_common"]
          args     = { BUILDKIT_CONTEXT_KEEP_GIT_DIR = 0 }
          tags     = ["acme/app:dev"]
          labels   = { author = "someone" }
        }
        target "release" {
          inherits  = ["dev", "_common"]
          tags      = ["acme/app:latest"]
          platforms = ["linux/amd64", "linux/arm64"]
        }
        "#,
        &["dev", "release"],
    );
    let (dev, release) = (&bake.builds[0], &bake.builds[1]);
    assert_eq!(dev.args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"], "0");
    assert_eq!(dev.args["GO_VERSION"], "1.23");
    assert_eq!(
        release.args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"], "1",
        "the right parent wins"
    );
    assert_eq!(release.labels["author"], "someone");
    assert_eq!(release.tags, ["acme/app:latest"]);
    assert_eq!(release.platforms.len(), 2);
}

#[test]
fn a_variable_is_given_by_flag_then_environment_then_default() {
    let definition = r#"
        variable "TAG" { default = "latest" }
        target "default" { tags = ["acme/webapp:${TAG}"] }
    "#;
    let mut options = options(&[]);
    let tags = |options: &BakeOptions| bake(definition, options).expect("it loads").builds[0].tags.clone();
    assert_eq!(tags(&options), ["acme/webapp:latest"]);
    options.environment.insert("TAG".into(), "env".into());
    assert_eq!(tags(&options), ["acme/webapp:env"]);
    options.variables.push("TAG=flag".into());
    assert_eq!(tags(&options), ["acme/webapp:flag"]);
    options.variables.clear();
    options.environment.insert("TAG".into(), String::new());
    assert_eq!(tags(&options), ["acme/webapp:"], "empty is given, too");
}

#[test]
fn functions_of_the_language_and_of_the_file_can_be_called() {
    let bake = loaded(
        r#"
        function "increment" {
          params = [number]
          result = number + 1
        }
        function "join_all" {
          params          = [separator]
          variadic_params = rest
          result          = join(separator, rest)
        }
        target "default" {
          args = {
            built_in = "${add(123, 1)}"
            own      = "${increment(123)}"
            twice    = increment(increment("1"))
            all      = join_all("-", "a", "b", 3)
          }
        }
        "#,
        &[],
    );
    let args: Vec<(&str, &str)> = bake.builds[0]
        .args
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        args,
        [("all", "a-b-3"), ("built_in", "124"), ("own", "124"), ("twice", "3")]
    );
}

#[test]
fn a_target_is_built_after_those_it_links_to() {
    let bake = loaded(
        r#"
        target "app" { contexts = { base = "target:base", tools = "target:tools" } }
        target "base" { output = ["type=docker"] }
        target "tools" { contexts = { base = "target:base" } }
        "#,
        &["app"],
    );
    let order: Vec<&str> = bake.builds.iter().map(|build| &*build.name).collect();
    assert_eq!(order, ["base", "tools", "app"]);
    assert_eq!(bake.builds[2].linked_targets().collect::<Vec<_>>(), ["base", "tools"]);
    let base = &bake.builds[0];
    assert!(base.linked);
    assert_eq!(base.outputs[0].kind, "cacheonly", "its own output is not written");
}

#[test]
fn references_see_what_a_block_sets_to_null() {
    let definition = |expression: &str| {
        format!(
            "target \"a\" {{\n args = {{ X = \"1\", N = null }}\n}}\ntarget \"default\" {{\n args = {{ v = jsonencode({expression}) }}\n}}\n"
        )
    };
    let cases = [
        ("target.a.args", r#"{"N":null,"X":"1"}"#),
        ("target.a.args.N", "null"),
        ("length(target.a.args)", "2"),
        ("target.a.labels", "null"),
    ];
    for (expression, want) in cases {
        let bake = loaded(&definition(expression), &[]);
        assert_eq!(bake.builds[0].args["v"], want, "{expression}");
        let printed = bake.print_json();
        assert!(!printed.contains("\"N\": null"), "{printed}");
    }
    assert!(!loaded(&definition("1"), &["a"]).builds[0].args.contains_key("N"));
}

#[test]
fn a_matrix_gives_a_target_for_each_combination() {
    let bake = loaded(
        r#"
        target "app" {
          matrix = { item = [{ name = "x", port = 80 }, { name = "y", port = 81 }], mode = ["dev"] }
          name   = "${item.name}-${mode}"
          args   = { PORT = item.port }
        }
        "#,
        &["app"],
    );
    assert_eq!(bake.groups["app"].targets, ["x-dev", "y-dev"]);
    assert_eq!(bake.targets["y-dev"].args["PORT"], "81");
}

#[test]
fn what_nobody_granted_is_missing() {
    let definition = r#"
        target "default" {
          network = "host"
          output  = ["type=local,dest=/elsewhere/out"]
        }
    "#;
    let host = MemoryHost::default().with("/src/docker-bake.hcl", definition);
    let missing = |options: &BakeOptions| {
        let bake = load(options, &host, &NoFetcher).expect("it loads");
        let missing = bake.missing_privileges(options, &host).expect("it can be told");
        missing.len()
    };
    let mut options = options(&[]);
    assert_eq!(missing(&options), 2);
    options.allow.push("network.host".into());
    assert_eq!(missing(&options), 1);
    options.allow.push("fs.write=/elsewhere".into());
    assert_eq!(missing(&options), 0);
}

#[test]
fn a_mistake_is_shown_in_its_line() {
    let text = message(
        "target \"default\" {\n  tags = [\"app:${TGA}\"]\n}\nvariable \"TAG\" {}\n",
        &[],
    );
    insta::assert_snapshot!(text, @r#"
    docker-bake.hcl:2:18: there is no variable named "TGA", did you mean "TAG"? (there are: BAKE_CMD_CONTEXT, BAKE_LOCAL_PLATFORM, TAG)
      |
    2 |   tags = ["app:${TGA}"]
      |                  ^^^
    "#);
}

#[test]
fn mistakes_are_refused() {
    let cases = [
        ("target \"default\" { args = { a = [1][0][0] } }", "docker-bake.hcl:1"),
        ("target \"default\" { args = { a = [[1]].0.0 } }", "[0][1]"),
        ("target \"default\" { resources = null }", "null"),
        (
            "variable \"V\" {\n validation \"x\" {\n  condition = true\n }\n}",
            "label",
        ),
        ("variable \"V\" {\n description = V\n}", "description"),
        (
            "function \"f\" {\n params = [a]\n result = f(a)\n}\ntarget \"default\" {}",
            "cycle",
        ),
        ("target \"default\" { contexts = { a = \"target:default\" } }", "itself"),
        ("target \"default\" { inherits = [\"nobody\"] }", "nobody"),
        ("group \"default\" {}", "targets"),
        ("target \"default\" { name = \"x\" }", "matrix"),
        (
            "target \"default\" { secret = [\"id=a,src=missing.txt\"] }",
            "missing.txt",
        ),
        ("", "default"),
    ];
    for (definition, words) in cases {
        let text = message(&format!("{definition}\n"), &[]);
        assert!(text.contains(words), "{definition}: {text}");
    }
}

#[test]
fn an_inheritance_cycle_is_no_mistake() {
    let bake = loaded(
        "target \"a\" {\n inherits = [\"b\"]\n tags = [\"a\"]\n}\ntarget \"b\" {\n inherits = [\"a\"]\n context = \"b\"\n}\n",
        &["a", "b"],
    );
    assert_eq!(bake.targets["a"].context.as_deref(), Some("b"));
    assert_eq!(bake.targets["b"].tags.as_deref(), Some(&[String::from("a")][..]));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(loaded("\u{feff}target \"default\" {}\n", &[]).builds.len(), 1);
}

#[test]
fn listings_leave_out_what_starts_with_an_underscore() {
    let host = MemoryHost::default().with(
        "/src/docker-bake.hcl",
        "variable \"TAG\" {\n default = \"v1\"\n description = \"the ${\"tag\"}\"\n}\ntarget \"_base\" {}\ntarget \"app\" { description = \"the app\" }\ngroup \"default\" { targets = [\"app\"] }\n",
    );
    let text = |what: &str| {
        let listing = Listing::parse(what).expect("a listing");
        list(&options(&[]), listing, &host, &NoFetcher).expect("it is listed")
    };
    assert_eq!(text("targets"), "TARGET\tDESCRIPTION\napp\tthe app\ndefault\tapp\n");
    assert_eq!(
        text("type=variables,format=json"),
        "[\n  {\n    \"name\": \"TAG\",\n    \"description\": \"the tag\",\n    \"value\": \"v1\"\n  }\n]\n"
    );
}

#[test]
fn what_is_found_out_late_has_its_place_too() {
    for (definition, want) in [
        (
            "target \"a\" { inherits = [\"bse\"] }\ntarget \"base\" {}",
            "docker-bake.hcl:1:26: failed to find target \"bse\"",
        ),
        (
            "group \"a\" { targets = [\"x\", \"bse\"] }\ntarget \"x\" {}",
            "docker-bake.hcl:1:29: failed to find target",
        ),
        (
            "target \"a\" {\n contexts = { c = \"target:bse\" }\n}",
            "docker-bake.hcl:2:19: failed to find target",
        ),
        // The one it is inherited from says it.
        (
            "target \"b\" {\n ulimits = [\"x\"]\n}\ntarget \"a\" { inherits = [\"b\"] }",
            "docker-bake.hcl:2:12: target \"a\", ulimits",
        ),
        ("target \"a\" {\n shm-size = \"lots\"\n}", "2 |  shm-size = \"lots\""),
    ] {
        let said = message(definition, &["a"]);
        assert!(said.contains(want), "{definition}\n{said}");
    }
    // What comes from the command line has no place in the file.
    let set = BakeOptions {
        overrides: vec!["a.ulimits=x".into()],
        ..options(&["a"])
    };
    let said = bake("target \"a\" { ulimits = [] }", &set)
        .expect_err("no ulimit")
        .to_string();
    assert!(said.starts_with("target \"a\", ulimits"), "{said}");
}

#[test]
fn attributes_of_outputs_are_lower_case_and_trimmed() {
    let printed = loaded(r#"target "default" { output = ["Type=image, Push=true"] }"#, &[]).print_json();
    let printed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    let want = serde_json::json!([{ "type": "image", "push": "true" }]);
    assert_eq!(printed["target"]["default"]["output"], want);
}

#[test]
fn a_group_of_nothing_prints_that_it_has_no_targets() {
    let host = MemoryHost::default().with("/src/compose.yaml", "services: {s: {image: x}}\n");
    let printed = load(&options(&[]), &host, &NoFetcher).expect("loads").print_json();
    let printed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(printed["group"], serde_json::json!({ "default": { "targets": null } }));
}

#[test]
fn years_beyond_four_digits_are_written_as_go_writes_them() {
    let definition = r#"target "default" {
      args = { before = timeadd("0000-01-01T00:00:00Z", "-1h"), after = unixtimestampparse(1e18).rfc3339 }
    }"#;
    let printed: serde_json::Value = serde_json::from_str(&loaded(definition, &[]).print_json()).expect("JSON");
    let want = serde_json::json!({ "after": "31688740476-10-23T01:46:40Z", "before": "-0001-12-31T23:00:00Z" });
    assert_eq!(printed["target"]["default"]["args"], want);
}

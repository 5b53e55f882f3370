//! What keeps results: targets, their earlier results, tags and pins.

use serde_json::Value;

use crate::env::TestEnv;

fn build(env: &TestEnv, text: &str, tag: &str) {
    env.write(
        "ctx/Dockerfile",
        &format!("FROM scratch\nCOPY <<EOF /text\n{text}\nEOF\n"),
    );
    env.cbs(&["build", "-t", tag, "ctx"]).ok();
}

fn roots(env: &TestEnv, more: &[&str]) -> Vec<Value> {
    let mut args = vec!["roots", "--json"];
    args.extend(more);
    let value: Value = serde_json::from_str(&env.cbs(&args).ok().stdout).expect("JSON");
    value.as_array().expect("a list").clone()
}

fn names(env: &TestEnv) -> Vec<String> {
    let text = env.cbs(&["roots", "--quiet"]).ok().stdout;
    text.lines().map(|line| line.replace(&env.at(""), "")).collect()
}

fn text(env: &TestEnv, reference: &str) -> String {
    env.cbs(&["store", "cat", &format!("{reference}:text")]).ok().stdout
}

#[test]
fn every_tag_keeps_what_it_was_given_to() {
    let env = TestEnv::new();
    build(&env, "one", "example/a:1");
    build(&env, "two", "example/a:2");
    build(&env, "three", "example/a:2");
    assert_eq!(text(&env, "example/a:1"), "one\n");
    assert_eq!(text(&env, "example/a:2"), "three\n");
    assert_eq!(text(&env, "ctx"), "three\n");
    assert_eq!(text(&env, &format!("{}~1", env.at("ctx"))), "two\n");
    assert_eq!(
        names(&env),
        ["ctx", "ctx~1", "tag:docker.io/example/a:1", "tag:docker.io/example/a:2"]
    );
    env.cbs(&["gc", "--all"]).ok();
    assert_eq!(text(&env, "example/a:1"), "one\n");
    env.cbs(&["export", "example/a:1", "--type", "tar", "-o", &env.at("a.tar")])
        .ok();
    assert_eq!(env.tool("tar", &["-xOf", "a.tar", "text"]).ok().stdout, "one\n");

    env.cbs(&["unpin", "example/a:1"]).ok();
    env.cbs(&["export", "example/a:1", "--type", "tar", "-o", &env.at("b.tar")])
        .fails_with(&["never realised"]);
    env.cbs(&["unpin", "example/a:1"])
        .fails_with(&["neither a pin nor a tag"]);
    assert_eq!(roots(&env, &["--kind", "tag"]).len(), 1);
}

#[test]
fn pins_outlive_what_is_built_later() {
    let env = TestEnv::new();
    build(&env, "one", "example/a:1");
    env.cbs(&["pin", "ctx", "first"]).ok();
    let made = env.cbs(&["pin", "example/a:1"]).ok().stdout;
    for text in ["two", "three", "four"] {
        build(&env, text, "example/a:1");
    }
    env.cbs(&["gc", "--all"]).ok();
    assert_eq!(text(&env, "first"), "one\n");
    assert_eq!(text(&env, made.trim()), "one\n");
    let listed = env.cbs(&["roots"]).ok().stdout;
    assert!(listed.contains("pin:first") && listed.contains("result"), "{listed}");
    let pin = &roots(&env, &["--kind", "pin"])[0];
    assert_eq!(
        (&pin["kind"], &pin["tags"][0]),
        (&"pin".into(), &"docker.io/example/a:1".into())
    );

    env.cbs(&["pin", "ctx", "first"])
        .fails_with(&["another result", "cbs unpin first"]);
    env.cbs(&["pin", "ctx", "no/name"]).fails_with(&["no/name"]);
    env.cbs(&["pin", "nothing", "x"]).fails_with(&["never realised"]);
    env.cbs(&["unpin", "first", made.trim()]).ok();
    env.cbs(&["unpin", &env.at("ctx")]).fails_with(&["is a result"]);
    env.cbs(&["store", "cat", "first:text"]).fails_with(&["first"]);
    env.cbs(&["gc", "--all"]).ok();
    assert!(!names(&env).iter().any(|name| name.starts_with("pin:")));
}

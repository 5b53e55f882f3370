//! `cbs why`, `graph`, `store diff` and `path-info` over real builds.

use serde_json::Value;

use crate::env::{Said, TestEnv};

const DOCKERFILE: &str = "ARG BASE=1
FROM REGISTRY/cbs-test/busybox:$BASE
ARG VERSION=1
RUN echo $VERSION > /version
COPY app.txt other/ /app/
RUN cat /app/app.txt > /copy
";

fn world() -> TestEnv {
    let env = TestEnv::with_registry();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.write("ctx/app.txt", "one\n");
    env.write("ctx/other/b.txt", "same\n");
    env.write("ctx/unseen.txt", "never copied\n");
    env
}

fn build(env: &TestEnv, more: &[&str]) -> Said {
    let mut args = vec!["build", "-t", "example/why:1", "ctx"];
    args.extend(more);
    env.cbs(&args).ok()
}

fn why(env: &TestEnv, reference: &str) -> Vec<Value> {
    let said = env.cbs(&["why", reference, "--json"]).ok();
    let value: Value = serde_json::from_str(&said.stdout).expect("why --json is JSON");
    value["steps"].as_array().expect("steps").clone()
}

#[track_caller]
fn step<'s>(steps: &'s [Value], name: &str) -> &'s Value {
    let found = steps
        .iter()
        .find(|step| step["name"].as_str().expect("name").contains(name));
    found.unwrap_or_else(|| panic!("no {name} in {steps:#?}"))
}

#[test]
fn why_names_the_file_the_argument_the_base_and_the_text_as_root() {
    let env = world();
    build(&env, &[]);
    let first = step(&why(&env, "example/why:1"), "RUN cat").clone();
    assert_eq!(first["how"], "first-time", "{first}");

    // Nothing changed: nothing ran.
    build(&env, &[]);
    assert!(why(&env, "example/why:1").is_empty());
    assert!(env.cbs(&["why", "ctx"]).ok().stdout.contains("nothing ran"));

    // One file, and one that no step looks at.
    env.write("ctx/app.txt", "two!\n");
    env.write("ctx/unseen.txt", "changed\n");
    build(&env, &[]);
    let steps = why(&env, "example/why:1");
    let copy = step(&steps, "COPY app.txt");
    assert_eq!(copy["differences"][0]["kind"], "files", "{copy:#}");
    let files = copy["inputs"][0]["files"].as_array().expect("files");
    assert_eq!(files.len(), 1, "{files:#?}");
    assert_eq!(files[0]["path"], "app.txt");
    assert_eq!(files[0]["changes"][0], "content");
    assert_eq!(files[0]["before"]["size"], 4);
    assert_eq!(files[0]["after"]["size"], 5);
    assert_ne!(files[0]["before"]["digest"], files[0]["after"]["digest"]);
    let run = step(&steps, "RUN cat");
    assert_eq!(run["differences"][0]["kind"], "base", "{run:#}");
    assert_eq!(run["inputs"][0]["files"][0]["path"], "app/app.txt", "{run:#}");
    assert!(
        steps
            .iter()
            .all(|step| !step["name"].as_str().unwrap().contains("RUN echo"))
    );
    let text = env.cbs(&["why", "example/why:1"]).ok().stdout;
    assert!(text.contains("app.txt: content") && !text.contains("unseen"), "{text}");

    // An argument.
    build(&env, &["--build-arg", "VERSION=2"]);
    let steps = why(&env, "example/why:1");
    let run = step(&steps, "RUN echo");
    let difference = &run["differences"][0];
    assert_eq!(difference["part"], "environment VERSION", "{run:#}");
    assert_eq!(
        (&difference["before"], &difference["after"]),
        (&"1".into(), &"2".into())
    );
    let text = env.cbs(&["why", "example/why:1#RUN echo"]).ok().stdout;
    assert!(text.contains("VERSION") && text.contains("`1` became `2`"), "{text}");

    // The text of an instruction.
    env.write(
        "ctx/Dockerfile",
        &DOCKERFILE.replace("RUN cat /app/app.txt", "RUN cat /app/b.txt"),
    );
    build(&env, &["--build-arg", "VERSION=2"]);
    let steps = why(&env, "example/why:1");
    let run = step(&steps, "RUN cat");
    assert_eq!(run["differences"][0]["kind"], "instruction", "{run:#}");
    assert!(
        run["earlierName"].as_str().expect("name").contains("app.txt"),
        "{run:#}"
    );
    let text = env.cbs(&["why", "example/why:1"]).ok().stdout;
    assert!(text.contains("RUN cat /app/app.txt"), "{text}");

    // The base.
    env.cbs(&[
        "build",
        "-t",
        "x",
        "--output",
        &format!("type=registry,name={}/cbs-test/busybox:2", env.registry()),
        "base",
    ])
    .fails_with(&["base"]);
    env.write(
        "base/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN echo new > /etc/issue\n",
    );
    let output = format!("type=registry,name={}/cbs-test/busybox:2", env.registry());
    env.cbs(&["build", "--output", &output, "base"]).ok();
    build(&env, &["--build-arg", "VERSION=2", "--build-arg", "BASE=2"]);
    let steps = why(&env, "example/why:1");
    let run = step(&steps, "RUN echo");
    assert_eq!(run["differences"][0]["kind"], "base", "{run:#}");
    let first = run["first"].as_str().expect("first");
    assert!(
        first.contains("base image") && first.matches("sha256:").count() == 2,
        "{first}"
    );
    assert_eq!(run["inputs"][0]["files"][0]["path"], "etc/issue", "{run:#}");

    // Told to run all.
    build(
        &env,
        &["--build-arg", "VERSION=2", "--build-arg", "BASE=2", "--no-cache"],
    );
    assert_eq!(step(&why(&env, "example/why:1"), "RUN cat")["how"], "refused");
    env.cbs(&["why", "example/why:1#nonsense"]).fails_with(&["nonsense"]);
    env.cbs(&["why", "example/none:1"]).fails_with(&["never realised"]);
    env.nothing_left();
}

#[test]
fn graphs_are_written_in_three_formats_as_root() {
    let env = world();
    build(&env, &[]);
    let json: Value = serde_json::from_str(&env.cbs(&["graph", "example/why:1", "--json"]).ok().stdout).expect("JSON");
    let vertices = json["vertices"].as_array().expect("vertices");
    let ran = vertices
        .iter()
        .filter(|vertex| vertex["ran"] == true && vertex["kind"] == "exec");
    assert_eq!(ran.count(), 2, "{json:#}");
    let edges = json["edges"].as_array().expect("edges");
    assert!(edges.len() >= 4, "{json:#}");
    assert!(edges.iter().all(|edge| edge["from"].as_u64() < edge["to"].as_u64()));
    let dot = env.cbs(&["graph", "example/why:1"]).ok().stdout;
    assert!(
        dot.starts_with("digraph ") && dot.contains("RUN echo 1 > /version") && dot.contains("ran "),
        "{dot}"
    );
    assert_eq!(dot.matches(" -> ").count(), edges.len());
    build(&env, &[]);
    let svg = env.cbs(&["graph", "ctx", "--format", "svg"]).ok().stdout;
    assert!(
        svg.contains("<svg ") && svg.contains("cached, took") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    assert_eq!(svg.matches("<path").count(), edges.len());
    env.write("graph.svg", &svg);
    env.tool(
        "python3",
        &["-c", "import sys, xml.dom.minidom as x; x.parse('graph.svg')"],
    )
    .ok();
    env.cbs(&["graph", "nothing/here"]).fails_with(&["never realised"]);
}

#[test]
fn trees_are_compared_and_described_as_root() {
    let env = world();
    build(&env, &[]);
    env.cbs(&["pin", "example/why:1", "before"]).ok();
    env.write("ctx/app.txt", "two!\n");
    build(&env, &[]);
    let said = env.cbs(&["store", "diff", "before", "example/why:1", "--json"]);
    assert_eq!(said.code, 1, "they differ: {}", said.stderr);
    let value: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let paths: Vec<&str> = value["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| change["path"].as_str().expect("path"))
        .collect();
    assert_eq!(paths, ["app/app.txt", "copy"]);
    let said = env.cbs(&["store", "diff", "before:app", "example/why:1:app"]);
    assert!(said.stdout.starts_with("app.txt: content "), "{}", said.stdout);
    assert_eq!(env.cbs(&["store", "diff", "before", "before"]).ok().stdout, "");
    env.cbs(&["store", "diff", "before:app/app.txt", "before"])
        .fails_with(&["no folder"]);

    let said = env
        .cbs(&[
            "store",
            "path-info",
            "example/why:1",
            "example/why:1:app/app.txt",
            "--json",
        ])
        .ok();
    let value: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(value[0]["complete"], true, "{value:#}");
    assert!(value[0]["layers"].as_array().expect("layers").len() >= 3, "{value:#}");
    assert!(
        value[0]["madeBy"][0]["name"]
            .as_str()
            .expect("name")
            .contains("RUN cat"),
        "{value:#}"
    );
    let roots = |value: &Value| value["roots"].as_array().expect("roots").len();
    assert_eq!(
        (roots(&value[0]), roots(&value[1])),
        (2, 2),
        "result and tag: {value:#}"
    );
    assert_eq!(value[1]["size"], 5);
    let text = env.cbs(&["store", "path-info", "before:app"]).ok().stdout;
    assert!(text.contains("pin:before") && text.contains("2 entries"), "{text}");
    let list = env.cbs(&["store", "ls", "-l", "before:app"]).ok().stdout;
    assert!(list.contains("0644") && list.contains("app.txt"), "{list}");
    assert_eq!(env.cbs(&["store", "cat", "before:app/app.txt"]).ok().stdout, "one\n");
    env.cbs(&["store", "path-info", "before:none"]).fails_with(&["none"]);
}

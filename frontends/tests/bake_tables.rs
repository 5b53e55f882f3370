//! Tables of small definitions and what the reference tool makes of them: expressions, attributes and overrides.
//!
//! A line holds the input and, behind the last tab, the result in JSON or `error`.

#[path = "../examples/bake_print/arguments.rs"]
mod arguments;

use std::collections::BTreeMap;
use std::fmt::Display;

use arguments::{Arguments, Surroundings, run};
use cbs_frontends::bake::MemoryHost;
use clap::Parser as _;
use serde_json::{Map, Value as Json};

/// The target `default` of a definition, printed; an error without its text.
fn default_target(definition: &str, words: &[&str]) -> Result<Map<String, Json>, String> {
    let host = MemoryHost::default().with("/src/docker-bake.hcl", definition);
    let arguments =
        Arguments::try_parse_from(std::iter::once(&"bake").chain(words)).map_err(|error| error.to_string())?;
    let surroundings = Surroundings {
        environment: BTreeMap::from([(String::from("HOME"), String::from("/root"))]),
        working_directory: String::from("/src"),
        now: 1_780_000_000,
    };
    let printed = run(arguments, surroundings, &host).map_err(|error| error.to_string())?;
    let printed: Json = serde_json::from_str(&printed).expect("JSON is printed");
    Ok(printed["target"]["default"].as_object().expect("a target").clone())
}

/// Runs all lines of a table and names those that come out differently.
fn check<T: PartialEq + Display>(
    table: &str,
    least: usize,
    read: fn(&str) -> T,
    outcome: impl Fn(&str) -> Result<T, String>,
) {
    let mut failures = Vec::new();
    for line in table.lines() {
        let (input, want) = line.rsplit_once('\t').expect("a tab in each line");
        match (outcome(input), want) {
            (Err(_), "error") => {}
            (Err(message), want) => failures.push(format!("{input}\n  expected {want}\n  got {message}")),
            (Ok(got), want) if want != "error" && got == read(want) => {}
            (Ok(got), want) => failures.push(format!("{input}\n  expected {want}\n  got {got}")),
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
    assert!(table.lines().count() >= least, "the table is cut off");
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).expect("the table holds JSON")
}

#[test]
fn expressions() {
    check(
        include_str!("bake_tables/expressions.tsv"),
        1200,
        |text| String::from(text),
        |expression| {
            let definition = format!("target \"default\" {{\n  args = {{ v = jsonencode([\n{expression}\n]) }}\n}}\n");
            let target = default_target(&definition, &[])?;
            let text = target["args"]["v"].as_str().expect("a string");
            // What is printed is escaped, so that it can be read as a template again.
            let text = text.replace("$${", "${").replace("%%{", "%{");
            // As text, because JSON would be read with less precision. The brackets are not in the table.
            Ok(String::from(&text[1..text.len() - 1]))
        },
    );
}

#[test]
fn attributes() {
    check(include_str!("bake_tables/attributes.tsv"), 1600, json, |line| {
        let (attribute, value) = line.split_once('\t').expect("an attribute and a value");
        let definition =
            format!("target \"default\" {{\n {attribute} = {value}\n}}\ntarget \"x\" {{}}\ntarget \"a\" {{}}\n");
        let mut target = default_target(&definition, &[])?;
        for (name, default) in [("context", "."), ("dockerfile", "Dockerfile")] {
            if target.get(name).and_then(Json::as_str) == Some(default) {
                target.remove(name);
            }
        }
        Ok(Json::Object(target))
    });
}

#[test]
fn overrides() {
    let definition = include_str!("bake_tables/overrides.hcl");
    let plain = default_target(definition, &[]).expect("the definition without overrides");
    check(include_str!("bake_tables/overrides.tsv"), 150, json, |line| {
        let words: Vec<&str> = line.split(" | ").collect();
        let target = default_target(definition, &words)?;
        let names = plain.keys().chain(target.keys());
        let changed = names
            .filter(|name| plain.get(*name) != target.get(*name))
            .map(|name| (name.clone(), target.get(name).cloned().unwrap_or(Json::Null)));
        Ok(Json::Object(changed.collect()))
    });
}

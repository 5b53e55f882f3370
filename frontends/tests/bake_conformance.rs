//! The public conformance cases of bake: what `bake --print` prints, and what it refuses.

#[path = "../examples/bake_print/arguments.rs"]
mod arguments;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use arguments::{Arguments, Surroundings, run};
use cbs_frontends::bake::GivenInput;
use clap::Parser as _;
use regex::Regex;
use serde_json::{Map, Value as Json};

/// Files of a case that the definition does not see.
const NOT_INPUT: [&str; 4] = ["case.json", "expected.json", "expected.err", "expected.err.full"];
/// Some day in 2026.
const NOW: i64 = 1_780_000_000;

fn read_json(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn texts(value: &Json) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn copy_folder(from: &Path, to: &Path, leave_out: &[&str]) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("case folder") {
        let entry = entry.expect("entry");
        let name = entry.file_name();
        if leave_out.iter().any(|other| name == *other) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().expect("type").is_dir() {
            copy_folder(&entry.path(), &target, &[]);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// A key nobody else has, so that none lies in the tree.
fn make_key(path: &Path) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folder of the key");
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen, which is in openssh-client");
    assert!(status.success(), "ssh-keygen: {status}");
    fs::remove_file(path.with_extension("pub")).expect("the public key");
}

fn run_case(folder: &Path, case: &Json, work: &Path) -> Result<String, String> {
    copy_folder(folder, work, &NOT_INPUT);
    for key in texts(&case["keygen"]) {
        make_key(&work.join(key));
    }
    let stdin = case["stdin"]
        .as_str()
        .map(|name| fs::read(folder.join(name)).expect("stdin"));
    let host = GivenInput(stdin.unwrap_or_default());
    let mut environment = BTreeMap::from([(String::from("HOME"), String::from("/root"))]);
    for (name, value) in case["env"].as_object().into_iter().flatten() {
        environment.insert(name.clone(), value.as_str().expect("a text").to_owned());
    }
    let mut words = vec![String::from("bake_print")];
    for file in texts(&case["files"]) {
        words.extend([String::from("-f"), file]);
    }
    words.extend(texts(&case["args"]));
    words.extend(texts(&case["targets"]));
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    let surroundings = Surroundings {
        environment,
        working_directory: work.to_string_lossy().into_owned(),
        now: NOW,
    };
    run(arguments, surroundings, &host).map_err(|error| error.to_string())
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        Json::Bool(_) | Json::Number(_) => false,
    }
}

fn without_empty(fields: &Map<String, Json>) -> Map<String, Json> {
    let filled = fields.iter().filter(|(_, value)| !is_empty(value));
    filled.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Without what the reference leaves out when it is empty, so that absent, null and empty are the same.
fn tidy(document: &Json) -> Json {
    let part = |name: &str, tidy_one: fn(&Map<String, Json>) -> Map<String, Json>| {
        let parts = document[name].as_object().into_iter().flatten();
        let parts = parts.map(|(key, value)| {
            let fields = value.as_object().expect("an object");
            (key.clone(), Json::Object(tidy_one(fields)))
        });
        Json::Object(parts.collect())
    };
    serde_json::json!({"group": part("group", without_empty), "target": part("target", tidy_target)})
}

fn tidy_target(target: &Map<String, Json>) -> Map<String, Json> {
    let mut tidied = Map::new();
    for (key, value) in target {
        let value = match (key.as_str(), value) {
            ("args" | "labels" | "contexts" | "extra-hosts", Json::Object(fields)) => {
                let filled = fields.iter().filter(|(_, value)| !value.is_null());
                Json::Object(filled.map(|(name, value)| (name.clone(), value.clone())).collect())
            }
            ("secret" | "ssh" | "output" | "cache-from" | "cache-to" | "attest", Json::Array(entries)) => {
                let tidy_entry = |entry: &Json| {
                    let Json::Object(fields) = entry else {
                        return entry.clone();
                    };
                    let mut fields = fields.clone();
                    fields.retain(|name, value| {
                        let is_left_out = value.is_null()
                            || (matches!(key.as_str(), "secret" | "ssh") && is_empty(value))
                            || (name == "disabled" && *value == Json::Bool(false));
                        !is_left_out
                    });
                    Json::Object(fields)
                };
                Json::Array(entries.iter().map(tidy_entry).collect())
            }
            ("resources", Json::Object(fields)) => Json::Object(without_empty(fields)),
            _ => value.clone(),
        };
        if !is_empty(&value) {
            tidied.insert(key.clone(), value);
        }
    }
    tidied
}

/// With every array sorted, for cases where the order is an accident.
fn sorted(value: &Json) -> Json {
    match value {
        Json::Array(items) => {
            let mut items: Vec<Json> = items.iter().map(sorted).collect();
            items.sort_by_key(Json::to_string);
            Json::Array(items)
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), sorted(value)));
            // Keys in order, because the text of a value decides how arrays are sorted.
            Json::Object(fields.collect::<BTreeMap<_, _>>().into_iter().collect())
        }
        other => other.clone(),
    }
}

/// The first difference between two documents, if there is one.
struct Comparison<'c> {
    case: &'c Json,
}

impl Comparison<'_> {
    fn is_unordered(&self, path: &str) -> bool {
        match &self.case["unordered"] {
            Json::Bool(unordered) => *unordered,
            Json::Array(patterns) => patterns.iter().any(|pattern| {
                let pattern = regex::escape(pattern.as_str().expect("a pattern"));
                let pattern = format!("^{}$", pattern.replace(r"\*", ".*").replace(r"\?", "."));
                Regex::new(&pattern).expect("a pattern").is_match(path)
            }),
            _ => false,
        }
    }

    fn compare(&self, want: &Json, got: &Json, path: &str) -> Result<(), String> {
        if let Some(pattern) = self.case["regex"].get(path) {
            let pattern = Regex::new(pattern.as_str().expect("a pattern")).expect("a pattern");
            let fits = got.as_str().is_some_and(|text| pattern.is_match(text));
            return fits
                .then_some(())
                .ok_or_else(|| format!("{path}: {got} does not match {pattern}"));
        }
        match (want, got) {
            (Json::Object(wanted), Json::Object(fields)) => {
                if let Some(key) = wanted.keys().find(|key| !fields.contains_key(*key)) {
                    return Err(format!("{path}/{key}: missing, expected {}", wanted[key]));
                }
                if let Some(key) = fields.keys().find(|key| !wanted.contains_key(*key)) {
                    return Err(format!("{path}/{key}: unexpected {}", fields[key]));
                }
                let mut keys = wanted.keys();
                keys.try_for_each(|key| self.compare(&wanted[key], &fields[key], &format!("{path}/{key}")))
            }
            (Json::Array(_), Json::Array(_)) if self.is_unordered(path) => {
                let same = sorted(want) == sorted(got);
                same.then_some(())
                    .ok_or_else(|| format!("{path}: expected (any order) {want}, got {got}"))
            }
            (Json::Array(wanted), Json::Array(items)) if wanted.len() == items.len() => {
                let mut pairs = wanted.iter().zip(items).enumerate();
                pairs.try_for_each(|(at, (want, got))| self.compare(want, got, &format!("{path}/{at}")))
            }
            _ if want == got => Ok(()),
            _ => Err(format!("{path}: expected {want}, got {got}")),
        }
    }
}

fn check_error(case: &Json, message: &str) -> Result<(), String> {
    let message = message.to_lowercase();
    for mention in case["mentions"].as_array().into_iter().flatten() {
        let any_of = match mention {
            Json::Array(_) => texts(mention),
            other => vec![other.as_str().expect("a text").to_owned()],
        };
        if !any_of.iter().any(|words| message.contains(&words.to_lowercase())) {
            return Err(format!("the error does not mention {}: {message}", any_of.join(" or ")));
        }
    }
    Ok(())
}

fn check_case(folder: &Path) -> Result<(), String> {
    let case = read_json(&folder.join("case.json"));
    let temporary = tempfile::tempdir().expect("temporary folder");
    let work = fs::canonicalize(temporary.path()).expect("path").join("case");
    match (case["expect"].as_str(), run_case(folder, &case, &work)) {
        (Some("ok"), Ok(printed)) => {
            let got = serde_json::from_str(&printed).map_err(|error| format!("not JSON: {error}"))?;
            let want = read_json(&folder.join("expected.json"));
            let want = want.to_string().replace("{CWD}", &work.to_string_lossy());
            let want: Json = serde_json::from_str(&want).expect("still JSON");
            Comparison { case: &case }.compare(&tidy(&want), &tidy(&got), "")
        }
        (Some("ok"), Err(message)) => Err(message),
        (_, Err(message)) => check_error(&case, &message),
        (_, Ok(_)) => Err(String::from("it succeeds, and should not")),
    }
}

#[test]
fn public_cases() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/bake/cases");
    let mut folders: Vec<PathBuf> = fs::read_dir(&cases)
        .expect("cases")
        .map(|entry| entry.expect("entry").path())
        .collect();
    folders.sort();
    let failures: Vec<String> = folders
        .iter()
        .filter_map(|folder| {
            let name = folder.file_name().expect("a name").to_string_lossy();
            check_case(folder).err().map(|reason| format!("{name}: {reason}"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        folders.len(),
        failures.join("\n")
    );
    assert!(folders.len() >= 392, "only {} cases", folders.len());
}

//! The public conformance cases, as far as lowering decides them: config and history of each result, and the errors
//! that show before anything runs. What steps do is not tested here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cbs_frontends::dockerfile::{
    BuildOptions, DockerfileInput, ImageRequest, ImageStore, Lowered, MetaResolver, NamedContext, ResolveError,
    ResolvedImage, lower,
};
use cbs_image::platform::Platform;
use cbs_solver::{BoxFuture, pb};
use cbs_store::Sha256Digest;
use serde_json::{Value, json};

/// Cases that fail in a step, or before there is a Dockerfile: lowering has nothing to say about them.
const LATER_ERRORS: [&str; 21] = [
    "add-http-404",
    "add-http-checksum-bad",
    "add-missing",
    "copy-case-sensitive",
    "copy-chown-name-in-scratch",
    "copy-from-missing-path",
    "copy-missing-file",
    "copy-outside-context",
    "error-copy-missing-among-many",
    "error-missing-dockerfile",
    "error-run-failure-line",
    "ignore-copy-ignored-file",
    "mount-bind-missing-source",
    "mount-secret-required-missing",
    "mount-ssh-required",
    "onbuild-missing-file",
    "parents-missing",
    "run-command-not-found",
    "run-exit-code",
    "shell-inherited",
    "user-unknown-run",
];

const PATH: &str = "PATH=/bin:/sbin:/usr/bin";

/// The base images' configs, as `setup_bases.py` makes them.
fn base_config(name: &str, architecture: &str) -> Option<Value> {
    let entry = |text: &str, empty: bool| {
        let mut entry = json!({"created": "2020-01-01T00:00:00Z", "created_by": text});
        if empty {
            entry["empty_layer"] = json!(true);
        }
        entry
    };
    let image = |config: Value, history: Vec<Value>| {
        let layers = history
            .iter()
            .filter(|entry| entry.get("empty_layer").is_none())
            .count();
        let diff_ids: Vec<String> = (0..layers).map(|layer| format!("sha256:{layer:064x}")).collect();
        json!({"architecture": architecture, "os": "linux", "created": "2020-01-01T00:00:00Z", "config": config,
               "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history})
    };
    let busybox = || vec![entry("busybox base", false)];
    let mut found = match (name, architecture) {
        ("busybox", "amd64") => image(json!({"Env": [PATH]}), busybox()),
        ("bare", "amd64") => image(json!({"Env": [PATH]}), vec![entry("bare base", false)]),
        ("cfg", "amd64") => image(
            json!({"Env": [PATH, "BASE_VAR=frombase", "GREETING=hello base", "BLANK="],
                   "Entrypoint": ["/bin/echo", "base-entry"], "Cmd": ["base-cmd"], "User": "app", "WorkingDir": "/srv",
                   "Volumes": {"/data": {}}, "ExposedPorts": {"8080/tcp": {}},
                   "Labels": {"base.label": "1", "shared": "base"}, "StopSignal": "SIGUSR1", "Shell": ["/bin/sh", "-ec"],
                   "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 7_000_000_000_i64, "Retries": 2}}),
            vec![
                entry("busybox base", false),
                entry("cfg files", false),
                entry("cfg settings", true),
            ],
        ),
        ("onbuild", "amd64") => image(
            json!({"Env": [PATH], "OnBuild": ["COPY trigger.txt /onbuild/",
                   "RUN cat /onbuild/trigger.txt > /onbuild/copied", "ENV FROM_ONBUILD=yes"]}),
            busybox(),
        ),
        ("onbuild-arg", "amd64") => image(
            json!({"Env": [PATH], "WorkingDir": "/", "OnBuild": ["ARG OB_ARG=fallback", "ENV OB=${OB_ARG}-env",
                   "LABEL ob=$OB", "WORKDIR /ob/$OB", "USER app"]}),
            busybox(),
        ),
        ("onbuild-bad", "amd64") => image(json!({"Env": [PATH], "OnBuild": ["FROBNICATE all"]}), busybox()),
        ("multi", "amd64") => image(
            json!({"Env": [PATH, "ARCH_NAME=amd64"]}),
            vec![entry("amd64 base", false)],
        ),
        ("multi", "arm64") => image(
            json!({"Env": [PATH, "ARCH_NAME=arm64"]}),
            vec![entry("arm64 base", false)],
        ),
        ("tools", "amd64") => image(
            json!({"Env": [PATH, "TOOLS=amd64"]}),
            vec![entry("busybox base", false), entry("amd64 tools", false)],
        ),
        ("tools", "arm64") => image(json!({"Env": [PATH, "TOOLS=arm64"]}), vec![entry("arm64 tools", false)]),
        ("arm64only", _) => {
            let mut only = image(json!({"Env": [PATH]}), vec![entry("arm64 only", false)]);
            only["architecture"] = json!("arm64");
            only
        }
        ("nolayers", "amd64") => image(
            json!({"Env": ["ONLY=config"], "Labels": {"layers": "none"}}),
            vec![entry("no layers at all", true)],
        ),
        ("nopath", "amd64") => image(json!({"Cmd": ["/bin/sh"]}), busybox()),
        ("fs", "amd64") => image(
            json!({"Env": [PATH]}),
            vec![
                entry("busybox base", false),
                entry("fs one", false),
                entry("fs two", false),
            ],
        ),
        ("layout", _) => image(
            json!({"Env": [PATH, "LAYOUT=1"], "Labels": {"origin": "layout"}}),
            vec![entry("layout base", false)],
        ),
        _ => return None,
    };
    if name == "cfg" {
        found["author"] = json!("Base Author");
    }
    if found["architecture"] == "arm64" && name != "tools" {
        found["variant"] = json!("v8");
    }
    Some(found)
}

struct Bases {
    case: PathBuf,
}

impl MetaResolver for Bases {
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
        Box::pin(async move {
            let repository = request.reference.repository().to_owned();
            let name = match &request.store {
                ImageStore::OciLayout { .. } => Some("layout"),
                ImageStore::Registry => repository.strip_prefix("cbs-test/"),
            };
            let config = name.and_then(|name| base_config(name, &request.platform.architecture));
            let config = config.ok_or_else(|| ResolveError {
                subject: request.reference.to_string(),
                source: "not found".into(),
            })?;
            let config = serde_json::to_vec(&config).expect("json");
            Ok(ResolvedImage {
                digest: Some(Sha256Digest::of(&config)),
                reference: request.reference,
                config,
            })
        })
    }

    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
        Box::pin(async move { Ok(std::fs::read(self.case.join(local).join(".dockerignore")).ok()) })
    }

    fn source_time(&self, _source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
        Box::pin(async { Ok(None) })
    }
}

fn read_case(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("case.json")).expect("case.json")).expect("case.json is JSON")
}

async fn lower_case(dir: &Path, case: &Value) -> Result<Lowered, String> {
    let mut attrs = BTreeMap::new();
    for (key, value) in case["frontend_opts"].as_object().into_iter().flatten() {
        let key = if key == "network" { "force-network-mode" } else { key };
        let value = value.as_str().map_or_else(String::new, str::to_owned);
        attrs.insert(key.to_owned(), value);
    }
    if case["http"] != Value::Null {
        let name = dir.file_name().expect("a name").display().to_string();
        attrs.insert("build-arg:CBS_URL".to_owned(), format!("http://127.0.0.1:18555/{name}"));
    }
    let host = Platform::new("linux", "amd64", "");
    let mut options = BuildOptions::from_attrs(&attrs, host).map_err(|error| error.to_string())?;
    for (name, value) in case["named_contexts"].as_object().into_iter().flatten() {
        let value = value.as_str().expect("a text");
        let context = match value.strip_prefix("dir:") {
            Some(dir) => NamedContext::Local {
                name: dir.to_owned(),
                shared_key: String::new(),
            },
            None if value == "oci-layout" => {
                let digest = format!("sha256:{:064x}", 7);
                NamedContext::OciLayout {
                    store: "/layout".into(),
                    digest: Some(digest),
                    tag: None,
                }
            }
            None => NamedContext::parse(value, "").expect("a context"),
        };
        options.contexts.insert(name.clone(), context);
    }
    let context = dir.join("context");
    let name = case["dockerfile"].as_str().unwrap_or("Dockerfile");
    let path = context.join(name);
    let data = std::fs::read(&path).map_err(|error| format!("Dockerfile: {error}"))?;
    let beside =
        std::fs::read(path.with_file_name(format!("{}.dockerignore", path.file_name().expect("name").display())));
    let ignore = beside.or_else(|_| std::fs::read(context.join(".dockerignore"))).ok();
    let input = DockerfileInput {
        name,
        data: &data,
        ignore_file: ignore.as_deref(),
    };
    lower(&input, &options, &Bases { case: dir.to_owned() })
        .await
        .map_err(|error| error.to_string())
}

/// The facts about a config that count; absent and empty are the same.
fn config_facts(config: &Value) -> Value {
    let mut facts = serde_json::Map::new();
    let inner = config.get("config").unwrap_or(&Value::Null);
    for field in [
        "Env",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
        "User",
        "Labels",
        "StopSignal",
        "Healthcheck",
        "Shell",
        "OnBuild",
    ] {
        keep(&mut facts, field, inner.get(field));
    }
    for field in ["ExposedPorts", "Volumes"] {
        let names: Vec<&String> = inner[field]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect();
        keep(&mut facts, field, Some(&json!(names)));
    }
    for field in ["os", "architecture", "variant", "author"] {
        keep(&mut facts, field, config.get(field));
    }
    Value::Object(facts)
}

fn keep(facts: &mut serde_json::Map<String, Value>, field: &str, value: Option<&Value>) {
    let is_empty = match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    };
    if let (false, Some(value)) = (is_empty, value) {
        facts.insert(field.to_owned(), value.clone());
    }
}

fn history_facts(config: &Value, with_times: bool) -> Value {
    let entry = |entry: &Value| {
        let mut facts = serde_json::Map::new();
        for field in ["created_by", "comment", "empty_layer", "created"] {
            if field != "created" || with_times {
                keep(&mut facts, field, entry.get(field));
            }
        }
        Value::Object(facts)
    };
    config["history"]
        .as_array()
        .map_or_else(|| json!([]), |history| history.iter().map(entry).collect())
}

fn compare(case: &Value, expected: &Value, config: &Value) -> String {
    let mut differences = String::new();
    let compared = |section: &str| {
        case["compare"]
            .as_array()
            .is_some_and(|all| all.iter().any(|name| name == section))
    };
    let pairs = [
        ("config", config_facts(config)),
        ("history", history_facts(config, compared("mtimes"))),
    ];
    for (section, got) in pairs {
        let want = &expected[section];
        if !compared(section) || *want == got {
            continue;
        }
        let _ok = writeln!(differences, "  {section}\n    want {want}\n    got  {got}");
    }
    differences
}

fn check_result(dir: &Path, case: &Value, lowered: &Lowered) -> String {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(dir.join("expected.json")).expect("expected.json")).expect("JSON");
    let mut differences = String::new();
    for result in &lowered.platforms {
        let config: Value = serde_json::from_slice(&result.config.to_vec().expect("to JSON")).expect("JSON");
        let platform = result.platform.to_string();
        let expected = if lowered.index {
            &expected["platforms"][&platform]
        } else {
            &expected
        };
        differences.push_str(&compare(case, expected, &config));
        if let Some(steps) = expected["history"].as_array() {
            let layers = steps.iter().filter(|entry| entry.get("empty_layer").is_none()).count();
            if expected["layer_count"]
                .as_u64()
                .is_some_and(|count| count != layers as u64)
            {
                let _ok = writeln!(differences, "  layer count");
            }
        }
    }
    differences
}

fn check_error(dir: &Path, message: &str) -> String {
    let needles = std::fs::read_to_string(dir.join("expected.err")).expect("expected.err");
    let mut missing = String::new();
    for needle in needles.lines().filter(|needle| !needle.is_empty()) {
        let found = if let Some(pattern) = needle.strip_prefix('~') {
            let pattern = regex::RegexBuilder::new(pattern)
                .case_insensitive(true)
                .build()
                .expect("a pattern");
            pattern.is_match(message)
        } else if let Some(line) = needle.strip_prefix("@line ") {
            let pattern = format!(r"(line {line}\b|:{line}\b|(?m)^ *{line} \|)");
            regex::Regex::new(&pattern).expect("a pattern").is_match(message)
        } else {
            message.to_lowercase().contains(&needle.to_lowercase())
        };
        if !found {
            let _ok = writeln!(missing, "  `{needle}` is not in: {message}");
        }
    }
    missing
}

#[tokio::test]
async fn public_cases() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/dockerfile/cases");
    if !cases.is_dir() {
        println!("SKIPPED: no conformance cases at {}", cases.display());
        return;
    }
    let mut names: Vec<_> = std::fs::read_dir(&cases)
        .expect("cases")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    let mut failures = String::new();
    for name in &names {
        let dir = cases.join(name);
        let case = read_case(&dir);
        let name = name.to_string_lossy();
        let written = dir
            .join("context")
            .join(case["dockerfile"].as_str().unwrap_or("Dockerfile"));
        if !written.exists() && dir.join("prepare.sh").exists() {
            println!("SKIPPED: {name} makes its Dockerfile with prepare.sh");
            continue;
        }
        let fails_later = LATER_ERRORS.contains(&&*name);
        let differences = match (case["expect"].as_str(), lower_case(&dir, &case).await) {
            (Some("ok"), Ok(lowered)) => check_result(&dir, &case, &lowered),
            (Some("ok"), Err(message)) => format!("  does not lower: {message}\n"),
            (_, Ok(_)) if fails_later => String::new(),
            (_, Ok(_)) => "  lowers, and should not\n".to_owned(),
            (_, Err(message)) => check_error(&dir, &message),
        };
        if !differences.is_empty() {
            let _ok = write!(failures, "{name}\n{differences}");
        }
    }
    assert!(
        failures.is_empty(),
        "of {} cases, these differ:\n{failures}",
        names.len()
    );
    assert!(names.len() >= 300, "only {} cases", names.len());
}

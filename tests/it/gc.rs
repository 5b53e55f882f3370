//! gc by rules and filters, and `cbs du` against `du`.

use serde_json::Value;

use crate::env::{Said, TestEnv};

fn json(said: Said) -> Value {
    serde_json::from_str(&said.ok().stdout).expect("JSON")
}

fn total(env: &TestEnv) -> u64 {
    json(env.cbs(&["du", "--json"]))["disk"]["total"]
        .as_u64()
        .expect("a number")
}

/// Bytes that differ from seed to seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn build_noise(env: &TestEnv, seed: u64) -> Said {
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY noise /\n");
    std::fs::write(env.path("ctx/noise"), noise(seed, 5_000_000)).expect("write");
    env.cbs(&["build", "-t", "example/noise", "ctx"]).ok()
}

const CACHED: &str = "FROM REGISTRY/cbs-test/busybox:1
RUN --mount=type=cache,id=things,target=/c echo kept > /c/a; seq 20000 > /c/b; echo made > /made
";

#[test]
fn du_is_exact_to_the_byte_as_root() {
    let env = TestEnv::with_registry();
    env.write("ctx/Dockerfile", CACHED);
    env.cbs(&[
        "build",
        "-t",
        "example/du:1",
        "ctx",
        "--output",
        &format!("type=oci,dest={}", env.at("x.tar")),
    ])
    .ok();
    std::fs::write(env.path("store/layers/stray"), b"left by nobody").expect("write");
    let check = |what: &str| {
        let disk = json(env.cbs(&["du", "--json"]))["disk"].clone();
        let du = |flags: &str| -> u64 {
            let said = env.tool("du", &[flags, &env.at("store")]).ok().stdout;
            said.split_whitespace()
                .next()
                .expect("a number")
                .parse()
                .expect("a number")
        };
        assert_eq!(disk["total"], du("-sb"), "{what}: {disk:#}");
        assert_eq!(disk["allocated"], du("-sB1"), "{what}: {disk:#}");
    };
    check("after a build");
    env.cbs(&["gc"]).ok();
    check("after gc");

    // Shared and exclusive: a second image shares the base and all it has not changed.
    env.write("ctx/Dockerfile", &format!("{CACHED}RUN seq 30000 > /more\n"));
    env.cbs(&["build", "-t", "example/du:2", "ctx"]).ok();
    let usage = json(env.cbs(&["du", "--json"]));
    let root = |name: &str| {
        let roots = usage["roots"].as_array().expect("roots");
        roots.iter().find(|root| root["name"] == name).expect(name).clone()
    };
    let (one, two) = (root("tag:docker.io/example/du:1"), root("tag:docker.io/example/du:2"));
    assert!(two["exclusive"].as_u64() > Some(160_000), "/more is its own: {two}");
    assert!(one["shared"].as_u64() > one["exclusive"].as_u64(), "{one}");
    let sum = |root: &Value| root["shared"].as_u64().unwrap() + root["exclusive"].as_u64().unwrap();
    assert_eq!(Some(sum(&two)), two["bytes"].as_u64());

    // Records as docker shows them.
    let verbose = env.cbs(&["du", "--verbose"]).ok().stdout;
    for needle in [
        "Reclaimable:",
        "Type:",
        "exec.cachemount",
        "Last used:",
        "RUN seq 30000 > /more",
    ] {
        assert!(verbose.contains(needle), "no {needle} in {verbose}");
    }
    let lines = env
        .cbs(&["du", "--format", "json", "--filter", "type==exec.cachemount"])
        .ok()
        .stdout;
    let line: Value = serde_json::from_str(lines.trim()).expect("one line");
    assert_eq!(
        (&line["Mutable"], &line["Reclaimable"]),
        (&true.into(), &true.into()),
        "{line}"
    );
    let table = env.cbs(&["du", "--filter", "description~=seq 30000"]).ok().stdout;
    assert_eq!(table.lines().count(), 4, "a head, a row and two sums: {table}");
    env.cbs(&["du", "--filter", "colour==red"])
        .fails_with(&["colour", "type"]);
    env.cbs(&["du", "--format", "{{.ID}}"]).fails_with(&["--format"]);
}

#[test]
fn filters_choose_and_dry_runs_explain_as_root() {
    let env = TestEnv::with_registry();
    env.write("ctx/Dockerfile", CACHED);
    env.cbs(&["build", "-t", "example/a:1", "ctx"]).ok();
    env.write("ctx/Dockerfile", &CACHED.replace("echo made", "echo again"));
    for _ in 0..2 {
        // The second time the result moves nothing back.
        env.cbs(&["build", "-t", "example/a:1", "ctx"]).ok();
    }
    env.write("ctx/Dockerfile", &CACHED.replace("echo made", "echo last"));
    env.cbs(&["build", "-t", "example/a:1", "ctx"]).ok();

    // Every row says why; nothing is done.
    let before = total(&env);
    let dry = env.cbs(&["gc", "--dry-run"]).ok().stdout;
    let explained = |line: &str| line.contains("): ") || line.starts_with("would remove");
    assert!(dry.lines().all(explained), "{dry}");
    for needle in [
        "a gc root keeps it",
        "no root keeps it; last used",
        "go for a size limit or with `all`",
    ] {
        assert!(dry.contains(needle), "no `{needle}` in {dry}");
    }
    let recent = env
        .cbs(&["gc", "--dry-run", "--all", "--keep-duration", "1h"])
        .ok()
        .stdout;
    assert!(
        recent.contains("used within the last 1h") && recent.contains("would remove 0B"),
        "{recent}"
    );
    let roomy = env.cbs(&["gc", "--dry-run", "--max-used-space", "90%"]).ok().stdout;
    assert!(roomy.contains("within the size limit"), "{roomy}");
    assert_eq!(total(&env), before);

    // A filter takes what it chooses and nothing else.
    let chosen = json(env.cbs(&[
        "gc",
        "--dry-run",
        "--json",
        "--all",
        "--filter",
        "description~=echo made",
    ]));
    let removed = chosen["removed"].as_array().expect("removed");
    assert_eq!(removed.len(), 1, "{chosen:#}");
    assert!(removed[0]["item"].as_str().expect("item").contains("echo made"));
    let because = |value: &Value| value["because"] == "no filter chose it";
    assert!(
        chosen["kept"].as_array().expect("kept").iter().any(because),
        "{chosen:#}"
    );
    env.cbs(&["gc", "--filter", "until=1h", "--all"]).ok();
    assert_eq!(
        json(env.cbs(&["du", "--json"]))["caches"].as_array().map(Vec::len),
        Some(1)
    );
    env.cbs(&["gc", "--filter", "type==exec.cachemount"]).ok();
    let usage = json(env.cbs(&["du", "--json"]));
    assert_eq!(usage["caches"].as_array().map(Vec::len), Some(0));
    let runs = usage["realisations"].to_string();
    assert!(
        runs.contains("echo made") && runs.contains("echo last"),
        "runs stay: {runs}"
    );
    env.cbs(&["gc", "--filter", "nonsense"])
        .fails_with(&["nonsense", "type"]);
    env.cbs(&["gc", "--max-used-space", "150%"]).fails_with(&["150%"]);
    env.cbs(&["store", "verify"]).ok();
}

#[test]
fn builds_keep_to_the_rules_of_the_settings() {
    let env = TestEnv::new();
    env.write(
        "home/.config/cbs/config.toml",
        "[gc]\nkeep-results = 1\n[[gc.policy]]\nmax-used-space = \"12MB\"\n",
    );
    build_noise(&env, 1);
    let one = total(&env);
    assert!(
        (9_000_000..12_000_000).contains(&one),
        "one result and the reserve: {one}"
    );
    let said = build_noise(&env, 2);
    assert!(said.stderr.contains("gc removed 5.0"), "{}", said.stderr);
    assert!(total(&env) <= 12_000_000, "{}", total(&env));
    let kept = env.cbs(&["store", "cat", "example/noise:noise"]).ok().stdout.len();
    assert!(kept > 1_000_000, "the last result stays");

    // What roots keep is more than the rules allow: it stays, and the dry run says why.
    env.cbs(&["pin", "example/noise", "two"]).ok();
    build_noise(&env, 3);
    assert!(total(&env) > 12_000_000);
    let dry = env.cbs(&["gc", "--policy", "--dry-run"]).ok().stdout;
    assert!(
        dry.starts_with("rule: more than 12.00MB\n") && dry.contains("pin:two"),
        "{dry}"
    );
    env.cbs(&["unpin", "two"]).ok();
    env.cbs(&["gc", "--policy"]).ok();
    assert!(total(&env) <= 12_000_000);

    // Not without being asked when that is switched off.
    env.write(
        "home/.config/cbs/config.toml",
        "[gc]\nautomatic = false\nkeep-results = 1\n[[gc.policy]]\nmax-used-space = \"12MB\"\n",
    );
    build_noise(&env, 4);
    assert!(total(&env) > 12_000_000);

    env.write(
        "home/.config/cbs/config.toml",
        "[[gc.policy]]\nfilters = [\"colour==red\"]\n",
    );
    env.cbs(&["gc", "--policy"]).fails_with(&["config.toml", "colour"]);
    env.cbs(&["build", "ctx"]).fails_with(&["config.toml"]);
}

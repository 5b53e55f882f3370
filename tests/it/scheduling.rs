//! What runs when: remembered durations, going on after a failure, being interrupted, running again.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::{Said, TestEnv};

const STAGES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[test]
fn the_longest_way_goes_first_once_it_is_known_as_root() {
    let env = TestEnv::with_registry();
    let note = "RUN --mount=type=cache,id=order,target=/o";
    let mut text = "FROM REGISTRY/cbs-test/busybox:1 AS base\n".to_owned();
    // The one that happens to come last takes long, and nobody could have known.
    let last = "if [ $(wc -l < /o/list) = 8 ]; then sleep 0.5; else sleep 0.05; fi";
    for stage in STAGES {
        text.push_str(&format!(
            "FROM base AS {stage}\n{note} echo {stage} >> /o/list; {last}; touch /{stage}\n"
        ));
    }
    text.push_str("FROM base\n");
    for stage in STAGES {
        text.push_str(&format!("COPY --from={stage} /{stage} /\n"));
    }
    text.push_str(&format!("{note} mv /o/list /list\n"));
    env.write("ctx/Dockerfile", &text);
    let order = |more: &[&str]| -> Vec<String> {
        let mut args = vec!["build", "-t", "example/order", "ctx", "--jobs", "1"];
        args.extend(more);
        env.cbs(&args).ok();
        let list = env.cbs(&["store", "cat", "example/order:list"]).ok().stdout;
        list.lines().map(str::to_owned).collect()
    };
    let first = order(&[]);
    assert_eq!(first.len(), STAGES.len(), "{first:?}");
    let second = order(&["--no-cache"]);
    // One may have begun while the others were being looked up.
    assert!(second[..2].contains(&first[7]), "{first:?}, then {second:?}");

    // All at once: it takes as long as the longest.
    env.cbs(&["build", "ctx", "--jobs", "auto"]).ok();
    env.cbs(&["build", "ctx", "--jobs", "0"])
        .fails_with(&["--jobs", "auto"]);
}

#[test]
fn a_small_target_does_not_wait_for_a_crowd_as_root() {
    let env = TestEnv::with_registry();
    let note = "RUN --mount=type=cache,id=turns,target=/o";
    let mut text = "FROM REGISTRY/cbs-test/busybox:1 AS base\n".to_owned();
    for stage in STAGES {
        text.push_str(&format!(
            "FROM base AS {stage}\n{note} echo crowd >> /o/list; sleep 0.1; touch /{stage}\n"
        ));
    }
    text.push_str("FROM base AS crowd\n");
    for stage in STAGES {
        text.push_str(&format!("COPY --from={stage} /{stage} /\n"));
    }
    // Its way to the end is the shortest, so that by length alone it would come last.
    text.push_str(&format!(
        "FROM base AS small\n{note} echo small >> /o/list; cat /o/list > /list\n"
    ));
    env.write("ctx/Dockerfile", &text);
    let bake = "target \"crowd\" {\n  context = \"ctx\"\n  target = \"crowd\"\n}
target \"small\" {\n  context = \"ctx\"\n  target = \"small\"\n}\n";
    env.write("docker-bake.hcl", bake);
    env.cbs(&["bake", "crowd", "small", "--jobs", "2"]).ok();
    let list = env.cbs(&["store", "cat", "docker-bake.hcl#small:list"]).ok().stdout;
    let before = list.lines().filter(|line| *line == "crowd").count();
    assert!(before < STAGES.len() - 2, "it waited for nearly all of them: {list}");
}

const BAKE: &str = r#"
group "default" { targets = ["bad", "good", "above"] }
target "_" { context = "ctx" }
target "bad" {
  inherits = ["_"]
  target = "bad"
  output = ["type=tar,dest=bad.tar"]
}
target "good" {
  inherits = ["_"]
  target = "good"
  tags = ["example/good:1"]
  output = ["type=tar,dest=good.tar"]
}
target "above" {
  inherits = ["_"]
  target = "above"
  output = ["type=tar,dest=above.tar"]
}
"#;

#[test]
fn with_keep_going_the_other_targets_are_finished_as_root() {
    let env = TestEnv::with_registry();
    env.write("docker-bake.hcl", BAKE);
    let text = "FROM REGISTRY/cbs-test/busybox:1 AS base
FROM base AS bad
RUN echo about to fail; exit 3
FROM base AS good
RUN sleep 0.3; echo fine > /fine
FROM bad AS above
RUN echo never > /never
";
    env.write("ctx/Dockerfile", text);
    let said = env.cbs(&["bake", "--keep-going", "--metadata-file", "meta.json"]);
    let said = said.fails_with(&["exit code: 3", "about to fail"]);
    assert_eq!(said.code, 1);
    assert!(env.path("good.tar").exists(), "{}", said.stderr);
    assert!(!env.path("bad.tar").exists() && !env.path("above.tar").exists());
    assert_eq!(env.cbs(&["store", "cat", "example/good:1:fine"]).ok().stdout, "fine\n");
    let meta: Value = serde_json::from_str(&fs::read_to_string(env.path("meta.json")).expect("meta")).expect("JSON");
    assert!(meta.get("bad").is_none() && meta.get("good").is_some(), "{meta}");

    // Without it nothing is exported; by references it is the same.
    fs::remove_file(env.path("good.tar")).expect("remove");
    env.cbs(&["bake"]).fails_with(&["exit code: 3"]);
    assert!(!env.path("good.tar").exists());
    env.cbs(&["realize", "--keep-going", "docker-bake.hcl#bad", "docker-bake.hcl#good"])
        .fails_with(&["exit code: 3"]);
    assert!(env.path("good.tar").exists());
    env.nothing_left();
}

#[test]
fn with_keep_going_a_broken_dockerfile_stops_only_what_needs_it_as_root() {
    let env = TestEnv::with_registry();
    env.write(
        "docker-bake.hcl",
        r#"
        group "default" { targets = ["good", "bad", "worse", "missing", "above"] }
        target "good" {
          context = "good"
          output = ["type=tar,dest=good.tar"]
        }
        target "bad" { context = "bad" }
        target "worse" { context = "worse" }
        target "missing" { context = "nowhere" }
        target "above" {
          context = "good"
          contexts = { other = "target:bad" }
          output = ["type=tar,dest=above.tar"]
        }
        "#,
    );
    env.write(
        "good/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN echo fine > /fine\n",
    );
    fs::create_dir(env.path("nowhere")).expect("mkdir");
    env.write("bad/Dockerfile", "FROM REGISTRY/cbs-test/busybox:1\nRUNN echo never\n");
    env.write(
        "worse/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nCOPY --from=nobody-has-this /a /\nCOPPY a b\n",
    );
    let said = env.cbs(&["bake", "--keep-going", "--metadata-file", "meta.json"]);
    let said = said.fails_with(&[
        "target `bad`",
        "RUNN",
        "target `worse`",
        "COPPY",
        "target `missing`, dockerfile: cannot read the Dockerfile `nowhere/Dockerfile`",
    ]);
    assert_eq!(said.code, 1);
    assert!(
        env.path("good.tar").exists() && !env.path("above.tar").exists(),
        "{}",
        said.stderr
    );
    let meta: Value = serde_json::from_str(&fs::read_to_string(env.path("meta.json")).expect("meta")).expect("JSON");
    let names: Vec<&String> = meta.as_object().expect("targets").keys().collect();
    assert_eq!(names, ["good"]);

    // Without it nothing is built, and when all are broken there is nothing to go on with.
    fs::remove_file(env.path("good.tar")).expect("remove");
    env.cbs(&["bake"]).fails_with(&["target `bad`"]);
    assert!(!env.path("good.tar").exists());
    env.cbs(&["bake", "--keep-going", "bad"]).fails_with(&["RUNN"]);
    env.cbs(&["bake", "missing"]).fails_with(&["nowhere/Dockerfile"]);
    env.nothing_left();
}

#[test]
fn an_interrupt_ends_sleeping_steps_at_once_and_leaves_nothing_as_root() {
    let env = TestEnv::with_registry();
    let nap = format!("31.{}", std::process::id());
    let mut text = "FROM REGISTRY/cbs-test/busybox:1 AS base\n".to_owned();
    for stage in ["a", "b", "c"] {
        text.push_str(&format!(
            "FROM base AS {stage}\nRUN echo {stage} > /{stage}; sleep {nap}\n"
        ));
    }
    text.push_str("FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n");
    env.write("ctx/Dockerfile", &text);
    let mut child = env
        .cbs_command(&["build", "ctx", "--jobs", "3"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("cbs starts");
    let start = Instant::now();
    while sleeping(&nap) < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "the steps do not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Instant::now();
    env.tool("kill", &["-INT", &child.id().to_string()]).ok();
    let status = child.wait().expect("wait");
    let took = sent.elapsed();
    eprintln!("interrupted: ended after {took:?}");
    assert_eq!(status.code(), Some(130));
    // A tenth of a second on a quiet machine; tests run on others.
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    assert_eq!(sleeping(&nap), 0);
    env.nothing_left();
    env.cbs(&["store", "verify"]).ok();
    // Nothing of what was cut off is taken for a result.
    env.write("ctx/Dockerfile", &text.replace(&nap, "0"));
    let said = env.cbs(&["build", "ctx", "-t", "example/nap"]).ok();
    assert!(
        !said.stderr.contains("RUN echo a > /a; sleep 0\nCACHED"),
        "{}",
        said.stderr
    );
}

/// Processes that sleep for exactly this long.
fn sleeping(nap: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines
        .filter(|line| line.split(|byte| *byte == 0).any(|word| word == nap.as_bytes()))
        .count()
}

const RANDOM: &str = "FROM REGISTRY/cbs-test/busybox:1
RUN echo same > /same; mkdir /d; touch /d/empty
RUN echo head; (echo line; head -c 8 /dev/urandom | od) > /d/random; echo fixed > /fixed
RUN cat /d/random > /copy
";

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|err| panic!("{err}: {}\n{}", said.stdout, said.stderr))
}

#[test]
fn steps_that_give_something_else_again_are_named_as_root() {
    let env = TestEnv::with_registry();
    let random = RANDOM;
    env.write("ctx/Dockerfile", random);
    let said = env.cbs(&["realize", "ctx", "--check"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(
        said.stdout.contains("d/random: content") && said.stdout.contains("line 2"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("1 of 3 steps"), "{}", said.stdout);
    for innocent in ["copy:", "same:", "fixed:", "d/empty"] {
        assert!(!said.stdout.contains(innocent), "{innocent} is blamed: {}", said.stdout);
    }
    // The result is the first run's, and it is kept.
    let kept = env.cbs(&["store", "cat", "ctx:copy"]).ok().stdout;
    let again = env.cbs(&["build", "--recheck", "ctx", "--progress", "rawjson"]);
    assert_eq!(again.code, 1);
    let report = json(&again);
    assert_eq!(report["different"][0]["paths"][0]["path"], "d/random", "{report:#}");
    assert!(
        report["different"][0]["paths"][0]["where"]
            .as_str()
            .expect("where")
            .contains("line 2")
    );
    assert_eq!(env.cbs(&["store", "cat", "ctx:copy"]).ok().stdout, kept);

    // A name that differs, in a bake file, without the cache.
    env.write("docker-bake.hcl", "target \"default\" {\n  context = \"ctx\"\n}\n");
    let now = "FROM REGISTRY/cbs-test/busybox:1\nRUN touch /now-$(head -c 4 /dev/urandom | od -An -tx4 | tr -d ' ')\n";
    env.write("ctx/Dockerfile", now);
    let said = env.cbs(&["bake", "--recheck", "--no-cache"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains("new, ") && said.stdout.contains("gone, was "),
        "{}",
        said.stdout
    );

    // Times of files do not count, since exports clamp them.
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN echo a > /a\nRUN sleep 0.01; touch /b\n",
    );
    let said = env.cbs(&["realize", "ctx", "--check"]).ok();
    assert!(
        said.stdout.contains("2 steps ran again and gave the same"),
        "{}",
        said.stdout
    );

    // A step that fails the second time.
    let once = "FROM REGISTRY/cbs-test/busybox:1\nRUN --mount=type=cache,target=/c test ! -e /c/x && touch /c/x\n";
    env.write("ctx/Dockerfile", once);
    let said = env.cbs(&["realize", "ctx", "--check"]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains("it failed"), "{}", said.stdout);
    env.nothing_left();
}

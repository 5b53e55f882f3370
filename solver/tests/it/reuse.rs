//! What a second solve may and may not reuse.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cbs_solver::{
    CacheUse, Decision, FailureKind, MemoryIndex, Need, OnFailure, Reason, SolveConfig, SolveError, SolveResult, Stats,
    channel, solve,
};

use super::fake::{Fake, World, config, ctx, files_of, no_cache};

async fn must(fake: &Arc<Fake>, world: &World, targets: &[cbs_solver::llb::Edge]) -> SolveResult {
    must_with(fake, world, targets, &config()).await
}

async fn must_with(
    fake: &Arc<Fake>,
    world: &World,
    targets: &[cbs_solver::llb::Edge],
    config: &SolveConfig,
) -> SolveResult {
    solve(&ctx(fake), &world.graph(targets), config).await.expect("solve")
}

fn decision(result: &SolveResult, name: &str) -> Decision {
    let mut found = result.decisions.iter().filter(|decided| decided.name == name);
    found
        .next()
        .unwrap_or_else(|| panic!("no vertex {name}"))
        .decision
        .clone()
}

fn fake() -> Arc<Fake> {
    let fake = Fake::new(&MemoryIndex::default());
    fake.set("base", "os", "debian");
    fake.set("context", "a.c", "int a;");
    fake.set("context", "b.c", "int b;");
    fake
}

#[tokio::test]
async fn a_second_solve_pins_and_runs_nothing() {
    let (fake, mut world) = (fake(), World::default());
    let (base, context) = (world.source("base"), world.source("context"));
    let copied = world.copy(base, context, "a.c");
    let built = world.exec("make", &[copied]);
    let first = must(&fake, &world, &[built]).await;
    assert_eq!(fake.take_log(), ["copy /a.c /a.c", "make"]);
    let runs = fake.total_runs();
    let second = must(&fake, &world, &[built]).await;
    assert_eq!(fake.total_runs(), runs);
    assert_eq!(fake.pins.load(Ordering::Relaxed), 4);
    assert_eq!(first.targets, second.targets);
    let (cached, unneeded) = (1, 3);
    let stats = Stats {
        cached,
        unneeded,
        ..Stats::default()
    };
    assert_eq!(second.stats, stats, "only the target was looked up");
}

#[tokio::test]
async fn a_file_that_no_step_sees_changes_nothing() {
    let (fake, mut world) = (fake(), World::default());
    let (base, context) = (world.source("base"), world.source("context"));
    let copied = world.copy(base, context, "a.c");
    let built = world.exec("make", &[copied]);
    must(&fake, &world, &[built]).await;
    fake.take_log();
    fake.set("context", "b.c", "int changed;");
    let second = must(&fake, &world, &[built]).await;
    assert!(fake.take_log().is_empty());
    assert_eq!(decision(&second, "copy /a.c /a.c"), Decision::ContentHit);
    assert_eq!(decision(&second, "make"), Decision::ContentHit);
    let third = must(&fake, &world, &[built]).await;
    assert_eq!(
        decision(&third, "make"),
        Decision::DefinitionHit,
        "the hit was made known under the definition"
    );
}

#[tokio::test]
async fn a_changed_file_reruns_what_sees_it_and_says_why() {
    let (fake, mut world) = (fake(), World::default());
    let (base, context) = (world.source("base"), world.source("context"));
    let copied = world.copy(base, context, "a.c");
    let built = world.exec("make", &[copied]);
    let other = world.exec("lint", &[base]);
    must(&fake, &world, &[built, other]).await;
    fake.take_log();
    fake.set("context", "a.c", "int changed;");
    let second = must(&fake, &world, &[built, other]).await;
    assert_eq!(fake.take_log(), ["copy /a.c /a.c", "make"]);
    let Decision::Ran(Reason::Changed { differences: found, .. }) = decision(&second, "copy /a.c /a.c") else {
        panic!("{:?}", second.decisions)
    };
    let names: Vec<_> = found.iter().map(|difference| difference.name.as_str()).collect();
    assert_eq!(names, ["copied content"]);
    let Decision::Ran(Reason::Changed { differences: found, .. }) = decision(&second, "make") else {
        panic!("{:?}", second.decisions)
    };
    assert_eq!(found[0].name, "content of mount /");
}

#[tokio::test]
async fn a_changed_argument_is_named() {
    let fake = fake();
    for verb in ["make all", "make test"] {
        let mut world = World::default();
        let base = world.source("base");
        let metadata = cbs_solver::pb::OpMetadata {
            description: [("llb.customname".to_owned(), "[2/2] RUN make".to_owned())].into(),
            ..Default::default()
        };
        let built = world.exec_with(verb, &[base], metadata);
        let result = must(&fake, &world, &[built]).await;
        let Decision::Ran(reason) = decision(&result, "[2/2] RUN make") else {
            panic!("{:?}", result.decisions)
        };
        match reason {
            Reason::FirstTime => assert_eq!(verb, "make all"),
            Reason::Changed { differences: found, .. } => {
                assert_eq!(found[0].to_string(), "argument 1: `all` became `test`")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_equal_result_stops_the_change() {
    let (fake, mut world) = (fake(), World::default());
    let (base, context) = (world.source("base"), world.source("context"));
    let generated = world.exec("const generate", &[base, context]);
    let built = world.exec("make", &[generated]);
    must(&fake, &world, &[built]).await;
    fake.take_log();
    fake.set("context", "a.c", "int changed;");
    let second = must(&fake, &world, &[built]).await;
    assert_eq!(fake.take_log(), ["const generate"]);
    assert_eq!(decision(&second, "make"), Decision::ContentHit);
}

#[tokio::test]
async fn no_cache_runs_everything_and_the_newest_result_counts() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let fetched = world.exec("fresh fetch", &[base]);
    let built = world.exec("make", &[fetched]);
    let refuse = SolveConfig {
        cache: CacheUse::WriteOnly,
        ..config()
    };
    let first = must(&fake, &world, &[built]).await;
    let second = must_with(&fake, &world, &[built], &refuse).await;
    assert_ne!(first.targets, second.targets);
    assert_eq!(decision(&second, "make"), Decision::Ran(Reason::CacheRefused));
    assert_eq!(
        decision(&second, "fake://base"),
        Decision::DefinitionHit,
        "sources are known by their pins"
    );
    let third = must(&fake, &world, &[built]).await;
    assert_eq!(second.targets, third.targets);
}

#[tokio::test]
async fn one_step_without_cache_reruns_what_sees_its_change() {
    let fake = fake();
    let build = |metadata: fn() -> cbs_solver::pb::OpMetadata, verb: &str| {
        let mut world = World::default();
        let base = world.source("base");
        let fetched = world.exec_with(verb, &[base], metadata());
        let built = world.exec("make", &[fetched]);
        (world, built)
    };
    for (verb, expected) in [
        ("const fetch", vec!["const fetch"]),
        ("fresh fetch", vec!["fresh fetch", "make"]),
    ] {
        let (world, built) = build(Default::default, verb);
        must(&fake, &world, &[built]).await;
        fake.take_log();
        let (world, built) = build(no_cache, verb);
        let newest = must(&fake, &world, &[built]).await;
        assert_eq!(fake.take_log(), expected, "{verb}");
        let (world, built) = build(Default::default, verb);
        let again = must(&fake, &world, &[built]).await;
        assert_eq!(again.targets, newest.targets, "{verb}");
        assert!(fake.take_log().is_empty(), "{verb}");
    }
}

#[tokio::test]
async fn sources_known_by_their_pins_are_fetched_when_something_runs() {
    let mut fake = Fake::lazy(&MemoryIndex::default());
    fake.eager_pins = true;
    let fake = Arc::new(fake);
    fake.set("context", "a.c", "int a;");
    let mut world = World::default();
    let context = world.source("context");
    let digests = SolveConfig {
        need: Need::Digests,
        ..config()
    };
    let known = must_with(&fake, &world, &[context], &digests).await;
    assert_eq!(
        (fake.total_runs(), known.stats.cached),
        (0, 1),
        "its digests are enough"
    );
    let tree = known.targets[0].snapshot.as_ref().expect("a tree").tree;
    fake.memory.as_ref().expect("in memory").forget_bytes(tree);
    let built = world.exec("make", &[context]);
    let result = must(&fake, &world, &[built]).await;
    assert_eq!(fake.total_runs(), 2, "the source is fetched, then the step runs");
    assert_eq!(decision(&result, "fake://context"), Decision::Ran(Reason::BytesMissing));
}

#[tokio::test]
async fn lost_bytes_are_made_again_only_when_they_are_needed() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let tool = world.exec("tool", &[base]);
    let app = world.exec("app", &[base, tool]);
    let first = must(&fake, &world, &[app, tool]).await;
    fake.take_log();
    let tree = first.targets[1].snapshot.as_ref().expect("a tree").tree;
    fake.memory.as_ref().expect("in memory").forget_bytes(tree);
    must(&fake, &world, &[app]).await;
    assert!(fake.take_log().is_empty(), "the app's bytes are all there");
    let other = world.exec("other", &[base, tool]);
    let result = must(&fake, &world, &[other]).await;
    assert_eq!(fake.take_log(), ["other", "tool"]);
    assert_eq!(decision(&result, "tool"), Decision::Ran(Reason::BytesMissing));
}

#[tokio::test]
async fn lost_layers_are_brought_back_through_the_whole_chain() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let one = world.exec("one", &[base]);
    let two = world.exec("two", &[one]);
    let layers = SolveConfig {
        need: Need::Layers,
        ..config()
    };
    let first = must_with(&fake, &world, &[two], &layers).await;
    fake.take_log();
    let snapshot = first.targets[0].snapshot.clone().expect("a snapshot");
    assert_eq!(snapshot.layers.len(), 3);
    fake.memory
        .as_ref()
        .expect("in memory")
        .forget_bytes(snapshot.layers[1].diff);
    must(&fake, &world, &[two]).await;
    assert!(fake.take_log().is_empty(), "the tree is whole");
    // The fake brings back trees, not layers: the solver must notice instead of giving out a hole.
    let err = solve(&ctx(&fake), &world.graph(&[two]), &layers)
        .await
        .expect_err("a layer is missing");
    assert_eq!(err.kind(), FailureKind::Internal);
    assert_eq!(fake.take_log(), ["one"], "the step whose layer it is was run again");
}

#[tokio::test]
async fn equal_steps_of_two_targets_run_once() {
    let (fake, mut world) = (fake(), World::default());
    fake.set("twin", "os", "debian");
    let (base, twin) = (world.source("base"), world.source("twin"));
    // Two definitions, one content: the keys are found equal only when the sources are here.
    let (one, two) = (world.exec("sleep 20", &[base]), world.exec("sleep 20", &[twin]));
    let result = must(&fake, &world, &[one, two, one]).await;
    assert_eq!(fake.take_log(), ["sleep 20"]);
    assert_eq!(result.targets[0].snapshot, result.targets[1].snapshot);
    let ran = |decision: &Decision| matches!(decision, Decision::Ran(_));
    let decisions: Vec<_> = result
        .decisions
        .iter()
        .filter(|decided| decided.name == "sleep 20")
        .collect();
    assert_eq!(decisions.iter().filter(|decided| ran(&decided.decision)).count(), 1);
    assert!(decisions.iter().any(|decided| decided.decision == Decision::Shared));
}

#[tokio::test]
async fn two_solves_with_one_store_run_a_step_once() {
    let index = MemoryIndex::default();
    let (one, two) = (Fake::new(&index), Fake::new(&index));
    let mut world = World::default();
    for fake in [&one, &two] {
        fake.set("base", "os", "debian");
    }
    let base = world.source("base");
    let built = world.exec("sleep 50", &[base]);
    let targets = [built];
    let (first, second) = tokio::join!(must(&one, &world, &targets), must(&two, &world, &targets));
    assert_eq!(first.targets, second.targets);
    let ran = [one.take_log(), two.take_log()].concat();
    assert_eq!(ran, ["sleep 50"]);
}

#[tokio::test]
async fn layers_of_the_base_count_for_steps_that_build_upon_it() {
    let (fake, mut world) = (fake(), World::default());
    fake.set("both", "os", "debian");
    fake.set("both", "a.c", "int a;");
    let (base, context, both) = (world.source("base"), world.source("context"), world.source("both"));
    let two_layers = world.copy(base, context, "a.c");
    let one = world.exec("make", &[two_layers]);
    let other = world.exec("make", &[both]);
    let result = must(&fake, &world, &[one, other]).await;
    let layers: Vec<usize> = result
        .targets
        .iter()
        .map(|target| target.snapshot.as_ref().expect("snapshot").layers.len())
        .collect();
    assert_eq!(layers, [3, 2], "equal trees, and yet each image keeps its own layers");
    // Read-only, only the tree counts.
    let (one, other) = (world.exec("use", &[base, two_layers]), world.exec("use", &[base, both]));
    must(&fake, &world, &[one, other]).await;
    assert_eq!(fake.take_log(), ["copy /a.c /a.c", "make", "make", "use"]);
}

#[tokio::test]
async fn a_failure_says_where_and_what_was_printed_last() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let failed = world.exec("fail here", &[base]);
    let above = world.exec("above", &[failed]);
    let (sender, mut receiver) = channel();
    let mut ctx = ctx(&fake);
    ctx.events = sender;
    let err = solve(&ctx, &world.graph(&[above]), &config()).await.expect_err("fails");
    assert_eq!(err.kind(), FailureKind::ExitCode(7));
    let SolveError::Failed { failures, .. } = err else {
        panic!("{err}")
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].name, "fail here");
    assert_eq!(failures[0].log_tail, ["first line", "last line"]);
    assert!(fake.take_log().is_empty());
    drop(ctx);
    let mut ended = 0;
    while let Some(event) = receiver.recv().await {
        if let cbs_solver::Event::Ended {
            outcome: cbs_solver::Outcome::Failed(text),
            ..
        } = event
        {
            assert!(text.contains("exit code: 7"), "{text}");
            ended += 1;
        }
    }
    assert_eq!(ended, 1);
    // A failure is not remembered.
    assert_eq!(
        fake.runs.lock().unwrap().values().sum::<usize>(),
        1,
        "only the source ran to its end"
    );
}

#[tokio::test]
async fn keep_going_builds_what_does_not_need_the_failed() {
    let (fake, mut world) = (fake(), World::default());
    let (base, missing) = (world.source("base"), world.source("missing"));
    let failed = world.exec("fail", &[base]);
    let above = world.exec("above", &[failed]);
    let unpinned = world.exec("unpinned", &[base, missing]);
    let good = world.exec("good", &[base]);
    let keep_going = SolveConfig {
        on_failure: OnFailure::KeepGoing,
        ..config()
    };
    let graph = world.graph(&[above, good, unpinned, failed]);
    let err = solve(&ctx(&fake), &graph, &keep_going).await.expect_err("fails");
    let SolveError::Failed { failures, finished } = err else {
        panic!("{err}")
    };
    let mut names: Vec<_> = failures.iter().map(|failure| failure.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["fail", "fake://missing"]);
    assert_eq!(finished.targets.len(), 1);
    assert_eq!(finished.targets[0].name, "t1");
    assert_eq!(fake.take_log(), ["good"]);
    assert_eq!(decision(&finished, "above"), Decision::Failed);
    assert_eq!(decision(&finished, "unpinned"), Decision::Failed);
}

#[tokio::test]
async fn the_executors_panic_is_a_failed_step() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let failed = world.exec("panic", &[base]);
    let err = solve(&ctx(&fake), &world.graph(&[failed]), &config())
        .await
        .expect_err("fails");
    assert_eq!(err.kind(), FailureKind::Internal);
    assert_eq!(err.to_string(), "`panic`: the executor panicked: boom");
}

#[tokio::test]
async fn scratch_and_empty_requests_are_results() {
    let (fake, mut world) = (fake(), World::default());
    let made = world.exec("make", &[]);
    let result = must(&fake, &world, &[made]).await;
    let files = files_of(fake.index.as_ref(), result.targets[0].snapshot.as_ref());
    assert_eq!(files.len(), 1);
    let request = cbs_solver::Request {
        name: "nothing".into(),
        definition: Default::default(),
    };
    let graph = Arc::new(cbs_solver::Graph::build(&[request]).expect("graph"));
    let result = solve(&ctx(&fake), &graph, &config()).await.expect("solve");
    assert_eq!(result.targets[0].snapshot, None);
}

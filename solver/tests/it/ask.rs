//! Questions about solves: what would run, why something ran, and what caches elsewhere know.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cbs_solver::{
    BoxFuture, CacheUse, Ctx, Decision, Event, Expected, Index, MemoryIndex, Need, RemoteCache, SolveConfig, StepError,
    channel, explain, forecast, solve,
};
use cbs_store::{CacheKey, Realisation, Snapshot};

use super::fake::{Fake, World, config, ctx};

fn fake() -> Arc<Fake> {
    let fake = Fake::new(&MemoryIndex::default());
    fake.set("base", "os", "debian");
    fake.set("context", "a.c", "int a;");
    fake
}

fn world() -> (World, Arc<cbs_solver::Graph>) {
    let mut world = World::default();
    let (base, context) = (world.source("base"), world.source("context"));
    let copied = world.copy(base, context, "a.c");
    let built = world.exec("make", &[copied]);
    let linted = world.exec("lint", &[base]);
    let graph = world.graph(&[built, linted]);
    (world, graph)
}

async fn expectations(
    fake: &Arc<Fake>,
    graph: &Arc<cbs_solver::Graph>,
    config: &SolveConfig,
) -> Vec<(String, Expected)> {
    let mut found: Vec<_> = forecast(&ctx(fake), graph, config)
        .await
        .expect("forecast")
        .into_iter()
        .map(|forecast| (forecast.name, forecast.expected))
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn pairs(of: [Expected; 5]) -> Vec<(String, Expected)> {
    let names = ["copy /a.c /a.c", "fake://base", "fake://context", "lint", "make"];
    names.map(str::to_owned).into_iter().zip(of).collect()
}

#[tokio::test]
async fn a_forecast_runs_nothing_and_is_right() {
    use Expected::{Known, MayRun, Runs, Unneeded};
    let (fake, (_, graph)) = (fake(), world());
    assert_eq!(
        expectations(&fake, &graph, &config()).await,
        pairs([MayRun, Runs, Runs, MayRun, MayRun])
    );
    assert_eq!(fake.total_runs(), 0);
    solve(&ctx(&fake), &graph, &config()).await.expect("solve");
    let runs = fake.total_runs();
    assert_eq!(
        expectations(&fake, &graph, &config()).await,
        pairs([Unneeded, Unneeded, Unneeded, Known, Known])
    );
    fake.set("context", "a.c", "int changed;");
    assert_eq!(
        expectations(&fake, &graph, &config()).await,
        pairs([MayRun, Known, Runs, Known, MayRun])
    );
    let refuse = SolveConfig {
        cache: CacheUse::WriteOnly,
        ..config()
    };
    fake.set("context", "a.c", "int a;");
    assert_eq!(
        expectations(&fake, &graph, &refuse).await,
        pairs([Runs, Known, Known, Runs, Runs])
    );
    assert_eq!(fake.total_runs(), runs);
    fake.sources.lock().unwrap().remove("base");
    let err = forecast(&ctx(&fake), &graph, &config()).await.expect_err("no base");
    assert_eq!(err.to_string(), "`fake://base`: no source `base`");
}

#[tokio::test]
async fn the_store_remembers_why_something_ran() {
    let (fake, (_, graph)) = (fake(), world());
    let first = solve(&ctx(&fake), &graph, &config()).await.expect("solve");
    fake.set("context", "a.c", "int changed;");
    let second = solve(&ctx(&fake), &graph, &config()).await.expect("solve");
    let key = |result: &cbs_solver::SolveResult, name: &str| {
        let mut found = result.decisions.iter().filter(|decided| decided.name == name);
        found.next().expect("a decision").key.expect("a key")
    };
    let index = fake.index.as_ref();
    let explained = explain(index, &key(&first, "make")).expect("store").expect("known");
    assert_eq!((explained.earlier, explained.differences.len()), (None, 0));
    let explained = explain(index, &key(&second, "make")).expect("store").expect("known");
    assert_eq!(explained.name, "make");
    assert_eq!(explained.earlier, Some(key(&first, "make")));
    assert_eq!(explained.differences[0].name, "content of mount /");
    assert_eq!(explained.trees.len(), 1);
    let tree = &explained.trees[0];
    assert_eq!(tree.input, 0);
    let read = |tree| index.need_directory(&tree).expect("directory").entries.len();
    assert_eq!((tree.before.map(read), read(tree.after)), (Some(2), 2));
    assert_eq!(explain(index, &CacheKey::from_bytes([0; 32])).expect("store"), None);
}

/// A cache elsewhere: another index, whose trees come over when they are found and whose bytes when they are fetched.
#[derive(Debug)]
struct Elsewhere {
    there: MemoryIndex,
    here: MemoryIndex,
    found: AtomicUsize,
    fetched: AtomicUsize,
    broken: bool,
}

impl Elsewhere {
    fn bring(&self, snapshot: &Snapshot) {
        let trees = snapshot.layers.iter().map(|layer| layer.diff).chain([snapshot.tree]);
        for tree in trees {
            let directory = cbs_store::DirectoryStore::need_directory(&self.there, &tree).expect("there");
            cbs_store::DirectoryStore::put_directory(&self.here, cbs_store::Directory::clone(&directory)).expect("put");
            for entry in &directory.entries {
                if let cbs_store::Node::File { blob, .. } = &entry.node {
                    let blob = cbs_store::BlobStore::blob(&self.there, blob)
                        .expect("blob")
                        .expect("there");
                    cbs_store::BlobStore::put_reader(&self.here, &mut blob.reader()).expect("put");
                }
            }
            self.here.restore(&tree);
        }
    }
}

impl RemoteCache for Elsewhere {
    fn name(&self) -> &str {
        "elsewhere"
    }

    fn find(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<Option<Realisation>, StepError>> {
        Box::pin(async move {
            if self.broken {
                return Err(StepError::new(cbs_solver::FailureKind::Network, "connection refused"));
            }
            let found = keys.iter().find_map(|key| self.there.realisation(key).expect("there"));
            for snapshot in found.iter().flat_map(|found| found.outputs.iter().flatten()) {
                self.bring(snapshot);
                self.here.forget_bytes(snapshot.tree);
                self.found.fetch_add(1, Ordering::Relaxed);
            }
            Ok(found)
        })
    }

    fn fetch(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<bool, StepError>> {
        Box::pin(async move {
            self.fetched.fetch_add(1, Ordering::Relaxed);
            self.bring(&snapshot);
            Ok(true)
        })
    }
}

fn with_remote(fake: &Arc<Fake>, there: &MemoryIndex, broken: bool) -> (Ctx, Arc<Elsewhere>) {
    let remote = Arc::new(Elsewhere {
        there: there.clone(),
        here: fake.memory.clone().expect("in memory"),
        found: AtomicUsize::new(0),
        fetched: AtomicUsize::new(0),
        broken,
    });
    let mut ctx = ctx(fake);
    ctx.remotes.push(remote.clone());
    (ctx, remote)
}

#[tokio::test]
async fn what_another_machine_built_is_fetched_and_not_run() {
    let (elsewhere, (_, graph)) = (fake(), world());
    let built = solve(&ctx(&elsewhere), &graph, &config()).await.expect("solve");
    let there = elsewhere.memory.clone().expect("in memory");
    let here = fake();
    let (ctx, remote) = with_remote(&here, &there, false);
    let result = solve(&ctx, &graph, &config()).await.expect("solve");
    assert_eq!(result.targets, built.targets);
    assert!(here.take_log().is_empty());
    let hits = result
        .decisions
        .iter()
        .filter(|decided| decided.decision == Decision::RemoteHit("elsewhere".into()));
    assert_eq!(hits.count(), 3);
    assert_eq!(remote.found.load(Ordering::Relaxed), 3);
    assert_eq!(
        remote.fetched.load(Ordering::Relaxed),
        2,
        "only the bytes of the two targets were needed"
    );
    let again = solve(&ctx, &graph, &config()).await.expect("solve");
    assert_eq!(
        (again.stats.cached, remote.found.load(Ordering::Relaxed)),
        (2, 3),
        "it is known here now"
    );
}

#[tokio::test]
async fn a_broken_cache_is_a_warning() {
    let (here, (_, graph)) = (fake(), world());
    let (mut ctx, _) = with_remote(&here, &MemoryIndex::default(), true);
    let (sender, mut receiver) = channel();
    ctx.events = sender;
    let result = solve(&ctx, &graph, &config()).await.expect("solve");
    assert_eq!(result.stats.ran, 5);
    drop(ctx);
    let mut warnings = 0;
    while let Some(event) = receiver.recv().await {
        if let Event::Warning(warning) = event {
            assert_eq!(warning.short, "cache `elsewhere` is of no use: connection refused");
            warnings += 1;
        }
    }
    assert_eq!(warnings, 3);
}

#[tokio::test]
async fn events_tell_each_vertex_once_and_in_order() {
    let (fake, (_, graph)) = (fake(), world());
    for (solve_number, expected_started) in [(0, 5 + 2), (1, 2)] {
        let (sender, mut receiver) = channel();
        let mut ctx = ctx(&fake);
        ctx.events = sender;
        solve(&ctx, &graph, &config()).await.expect("solve");
        drop(ctx);
        let (mut added, mut started, mut ended) = (Vec::new(), 0, std::collections::HashSet::new());
        while let Some(event) = receiver.recv().await {
            match event {
                Event::Added(vertex) => {
                    assert!(vertex.inputs.iter().all(|input| added.contains(input)));
                    added.push(vertex.vertex);
                }
                Event::Started { vertex, .. } => {
                    assert!(added.contains(&vertex));
                    started += 1;
                }
                Event::Ended { vertex, .. } => {
                    ended.insert(vertex);
                }
                Event::Log { bytes, .. } => assert!(!bytes.is_empty()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((added.len(), ended.len()), (5, 5), "solve {solve_number}");
        assert_eq!(
            started, expected_started,
            "sources begin with their pins, solve {solve_number}"
        );
    }
}

#[tokio::test]
async fn a_directory_that_changes_under_the_build_is_a_failed_step() {
    let mut fake = Fake::lazy(&MemoryIndex::default());
    fake.eager_pins = true;
    let fake = Arc::new(fake);
    fake.set("context", "a.c", "int a;");
    let mut world = World::default();
    let context = world.source("context");
    let gate = world.exec("sleep 50", &[]);
    let target = world.exec("make", &[gate, context]);
    let graph = world.graph(&[target]);
    let need_layers = SolveConfig {
        need: Need::Layers,
        ..config()
    };
    let changing = fake.clone();
    let solving = tokio::spawn({
        let (ctx, graph) = (ctx(&fake), graph.clone());
        async move { solve(&ctx, &graph, &need_layers).await }
    });
    while changing.pins.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    let memory = changing.memory.as_ref().expect("in memory");
    let before = super::fake::snapshot_of(memory, None, &changing.sources.lock().unwrap()["context"].clone());
    memory.forget_bytes(before.tree);
    changing.set("context", "a.c", "int changed;");
    let err = solving.await.expect("no panic").expect_err("changed");
    assert_eq!(
        err.to_string(),
        "`fake://context`: `fake://context` changed while it was being read"
    );
}

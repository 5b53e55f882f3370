//! The same laws over the store on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cbs_solver::{LogReader, Need, SolveConfig, StoreIndex, solve};
use cbs_store::{Access, BlobStore, Store};

use super::fake::{Fake, World, config, ctx};

fn open(root: &std::path::Path) -> Arc<StoreIndex> {
    let store = Store::open(root, Access::ReadWrite).expect("open");
    let lease = Arc::new(store.lease().expect("lease"));
    Arc::new(StoreIndex { store, lease })
}

fn fake(index: &Arc<StoreIndex>) -> Arc<Fake> {
    let fake = Arc::new(Fake::over(index.clone()));
    fake.set("base", "os", "debian");
    fake.set("context", "a.c", "int a;");
    fake
}

fn world() -> (World, cbs_solver::llb::Edge) {
    let mut world = World::default();
    let (base, context) = (world.source("base"), world.source("context"));
    let copied = world.copy(base, context, "a.c");
    let target = world.exec("sleep 30", &[copied]);
    (world, target)
}

fn layers() -> SolveConfig {
    SolveConfig {
        need: Need::Layers,
        ..config()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_and_logs_outlive_the_process() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (mut world, target) = world();
    let loud = world.exec("loud step", &[target]);
    let graph = world.graph(&[loud]);
    let first = {
        let fake = fake(&open(folder.path()));
        solve(&ctx(&fake), &graph, &layers()).await.expect("solve")
    };
    assert_eq!(first.stats.ran, 5);
    let index = open(folder.path());
    let fake = fake(&index);
    let second = solve(&ctx(&fake), &graph, &layers()).await.expect("solve");
    assert_eq!(
        (second.stats.ran, second.stats.cached, second.stats.unneeded),
        (0, 1, 4)
    );
    assert_eq!(first.targets, second.targets);
    let key = second.decisions.last().expect("a decision").key.expect("a key");
    let log = index
        .store
        .realisation(&key)
        .expect("realisation")
        .expect("known")
        .log
        .expect("a log");
    let bytes = index.store.blob(&log).expect("blob").expect("here").reader();
    let text: Vec<u8> = LogReader::new(bytes)
        .expect("log")
        .flat_map(|record| record.expect("record").bytes)
        .collect();
    assert_eq!(text, b"loud-step".map(|byte| if byte == b'-' { b' ' } else { byte }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_of_one_store_run_a_step_once() {
    let folder = tempfile::tempdir().expect("tempdir");
    let fakes = [fake(&open(folder.path())), fake(&open(folder.path()))];
    let (world, target) = world();
    let graph = world.graph(&[target]);
    let solves = fakes.clone().map(|fake| {
        let graph = graph.clone();
        tokio::spawn(async move { solve(&ctx(&fake), &graph, &layers()).await.expect("solve") })
    });
    let mut results = Vec::new();
    for solving in solves {
        results.push(solving.await.expect("no panic").targets);
    }
    assert_eq!(results[0], results[1]);
    let ran: usize = fakes
        .iter()
        .map(|fake| fake.take_log().iter().filter(|name| *name == "sleep 30").count())
        .sum();
    assert_eq!(ran, 1);
    assert_eq!(
        fakes[0].running.load(Ordering::SeqCst) + fakes[1].running.load(Ordering::SeqCst),
        0
    );
}

//! Cancelled means gone, and soon.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cbs_solver::{MemoryIndex, SolveError, solve};

use super::fake::{Fake, World, config, ctx};

fn fake() -> Arc<Fake> {
    let fake = Fake::new(&MemoryIndex::default());
    fake.set("base", "os", "debian");
    fake
}

async fn running(fake: &Fake, count: usize) {
    while fake.running.load(Ordering::SeqCst) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_ends_the_solve_soon_even_with_a_deaf_step() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let targets = [
        world.exec("hang", &[base]),
        world.exec("deaf", &[base]),
        world.exec("sleep 10000", &[base]),
    ];
    let ctx = ctx(&fake);
    let (cancel, graph) = (ctx.cancel.clone(), world.graph(&targets));
    let solving = tokio::spawn(async move { solve(&ctx, &graph, &config()).await });
    running(&fake, 3).await;
    let started = Instant::now();
    cancel.cancel();
    let result = solving.await.expect("no panic");
    let took = started.elapsed();
    assert!(matches!(result, Err(SolveError::Cancelled)));
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(fake.running.load(Ordering::SeqCst), 0, "the deaf step was dropped");
    assert_eq!(fake.dropped.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_listen_end_the_solve_at_once() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let target = world.exec("hang", &[base]);
    let ctx = ctx(&fake);
    let (cancel, graph) = (ctx.cancel.clone(), world.graph(&[target]));
    let solving = tokio::spawn(async move { solve(&ctx, &graph, &config()).await });
    running(&fake, 1).await;
    let started = Instant::now();
    cancel.cancel();
    assert!(matches!(solving.await.expect("no panic"), Err(SolveError::Cancelled)));
    let took = started.elapsed();
    assert!(took < Duration::from_millis(60), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_failure_cancels_the_rest() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let slow = world.exec("sleep 10000", &[base]);
    let pause = world.exec("sleep 20", &[base]);
    let failed = world.exec("fail", &[pause]);
    let started = Instant::now();
    let err = solve(&ctx(&fake), &world.graph(&[slow, failed]), &config())
        .await
        .expect_err("fails");
    assert!(started.elapsed() < Duration::from_secs(5));
    let SolveError::Failed { failures, finished } = err else {
        panic!("{err}")
    };
    assert_eq!(failures.len(), 1, "that others were stopped is no failure of theirs");
    assert_eq!(finished.stats.abandoned, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_solve_drops_its_steps() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let target = world.exec("deaf", &[base]);
    let (ctx, graph) = (ctx(&fake), world.graph(&[target]));
    let solving = tokio::spawn(async move { solve(&ctx, &graph, &config()).await });
    running(&fake, 1).await;
    solving.abort();
    assert!(solving.await.expect_err("aborted").is_cancelled());
    while fake.running.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_another_solve_can_be_cancelled() {
    let index = MemoryIndex::default();
    let (one, two) = (Fake::new(&index), Fake::new(&index));
    let mut world = World::default();
    for fake in [&one, &two] {
        fake.set("base", "os", "debian");
    }
    let base = world.source("base");
    let target = world.exec("hang", &[base]);
    let graph = world.graph(&[target]);
    let (holder, waiter) = (ctx(&one), ctx(&two));
    let holding = tokio::spawn({
        let (ctx, graph) = (holder.clone(), graph.clone());
        async move { solve(&ctx, &graph, &config()).await }
    });
    running(&one, 1).await;
    let waiting = tokio::spawn({
        let (ctx, graph) = (waiter.clone(), graph.clone());
        async move { solve(&ctx, &graph, &config()).await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!waiting.is_finished());
    waiter.cancel.cancel();
    assert!(matches!(waiting.await.expect("no panic"), Err(SolveError::Cancelled)));
    assert!(two.take_log().is_empty());
    holder.cancel.cancel();
    assert!(matches!(holding.await.expect("no panic"), Err(SolveError::Cancelled)));
}

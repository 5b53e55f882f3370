//! Large graphs: linear, quick and without recursion.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cbs_solver::llb::Edge;
use cbs_solver::{MemoryIndex, Parallelism, Pressure, SolveConfig, solve};

use super::fake::{Fake, World, config, ctx};

/// Columns of steps over one base, joined at the end: `count` execs in all.
fn wide(world: &mut World, count: usize) -> Edge {
    let base = world.source("base");
    let columns = 100.min(count);
    let mut tips = Vec::new();
    for column in 0..columns {
        let mut tip = base;
        for row in 0..count / columns {
            tip = world.exec(&format!("const {column} {row}"), &[tip]);
        }
        tips.push(tip);
    }
    world.exec("join", &tips)
}

fn fake() -> Arc<Fake> {
    let fake = Fake::new(&MemoryIndex::default());
    fake.set("base", "os", "debian");
    fake
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_vertices_are_found_cached_quickly_and_linearly() {
    let (fake, mut world) = (fake(), World::default());
    let mut times = Vec::new();
    for count in [2_500, 10_000] {
        let target = wide(&mut world, count);
        solve(&ctx(&fake), &world.graph(&[target]), &config())
            .await
            .expect("solve");
        let definition = world.builder.definition(Some(target));
        let request = [cbs_solver::Request {
            name: "big".into(),
            definition,
        }];
        let started = Instant::now();
        let graph = Arc::new(cbs_solver::Graph::build(&request).expect("graph"));
        let result = solve(&ctx(&fake), &graph, &config()).await.expect("solve");
        times.push(started.elapsed());
        assert_eq!((result.stats.cached, result.stats.ran), (1, 0));
    }
    // Debug builds are several times slower than what users run.
    assert!(times[1] < Duration::from_secs(4), "{times:?}");
    assert!(times[1] < times[0] * 12, "four times the work: {times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_sees_is_walked_through_two_thousand_vertices() {
    let fake = fake();
    let mut took = Duration::ZERO;
    for noise in ["one", "two"] {
        fake.set("noise", "file", noise);
        let mut world = World::default();
        let (base, source) = (world.source("base"), world.source("noise"));
        let mut tips = Vec::new();
        for column in 0..40 {
            let mut tip = world.exec("const first", &[base, source]);
            for row in 0..50 {
                tip = world.exec(&format!("const {column} {row}"), &[tip]);
            }
            tips.push(tip);
        }
        let target = world.exec("join", &tips);
        let graph = world.graph(&[target]);
        fake.take_log();
        let started = Instant::now();
        solve(&ctx(&fake), &graph, &config()).await.expect("solve");
        took = started.elapsed();
    }
    assert_eq!(fake.take_log(), ["const first"], "its equal result stopped the change");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_a_hundred_thousand_does_not_overflow() {
    let (fake, mut world) = (fake(), World::default());
    let mut tip = world.source("base");
    for _ in 0..100_000 {
        let merge = cbs_solver::pb::MergeOp {
            inputs: vec![cbs_solver::pb::MergeInput { input: 0 }],
        };
        tip = world.add(cbs_solver::pb::op::Op::Merge(merge), &[tip], Default::default());
    }
    let graph = world.graph(&[tip]);
    assert_eq!(graph.len(), 100_001);
    // The fake cannot merge, so the first merge that runs fails; all were asked for by then.
    let err = solve(&ctx(&fake), &graph, &config()).await.expect_err("unsupported");
    assert!(err.to_string().contains("unknown op"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execs_keep_to_the_limit_and_sources_do_not_count() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let targets: Vec<Edge> = (0..12)
        .map(|number| world.exec(&format!("sleep 5 {number}"), &[base]))
        .collect();
    let config = SolveConfig {
        parallelism: Parallelism::Fixed(3.try_into().unwrap()),
        ..config()
    };
    solve(&ctx(&fake), &world.graph(&targets), &config)
        .await
        .expect("solve");
    assert_eq!(fake.peak.load(Ordering::SeqCst), 3);
}

#[derive(Debug)]
struct Idle;

impl Pressure for Idle {
    fn has_room(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_machine_is_given_more() {
    let (fake, mut world) = (fake(), World::default());
    let base = world.source("base");
    let targets: Vec<Edge> = (0..64)
        .map(|number| world.exec(&format!("sleep 200 {number}"), &[base]))
        .collect();
    let config = SolveConfig {
        parallelism: Parallelism::Auto {
            cores: 2.try_into().unwrap(),
            pressure: Arc::new(Idle),
        },
        ..config()
    };
    let started = Instant::now();
    solve(&ctx(&fake), &world.graph(&targets), &config)
        .await
        .expect("solve");
    let took = started.elapsed();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    assert!(fake.peak.load(Ordering::SeqCst) > 40);
}

//! How long a solve takes that has nothing to do: the floor of every build.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

#[path = "../tests/it/fake.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use cbs_solver::llb::Edge;
use cbs_solver::{Graph, MemoryIndex, Request, StoreIndex, pb, solve};
use cbs_store::{Access, Store};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use fake::{Fake, World, config, ctx};

/// Columns of steps over one base, joined at the end.
fn wide(world: &mut World, columns: usize, rows: usize) -> Edge {
    let base = world.source("base");
    let mut tips = Vec::new();
    for column in 0..columns {
        let mut tip = base;
        for row in 0..rows {
            tip = world.exec(&format!("const {column} {row}"), &[tip]);
        }
        tips.push(tip);
    }
    world.exec("join", &tips)
}

fn graph(definition: &pb::Definition) -> Arc<Graph> {
    let request = Request {
        name: "target".into(),
        definition: definition.clone(),
    };
    Arc::new(Graph::build(&[request]).unwrap())
}

fn nothing_to_do(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("solve/cached");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for (columns, rows) in [(1, 50), (20, 50), (200, 50)] {
        let mut world = World::default();
        let target = wide(&mut world, columns, rows);
        let definition = world.builder.definition(Some(target));

        group.bench_with_input(
            BenchmarkId::new("graph", columns * rows),
            &definition,
            |b, definition| {
                b.iter(|| graph(definition));
            },
        );
        let memory = Fake::new(&MemoryIndex::default());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::ReadWrite).unwrap();
        let lease = Arc::new(store.lease().unwrap());
        let disk = Arc::new(Fake::over(Arc::new(StoreIndex { store, lease })));
        for (name, fake) in [("memory", memory), ("store", disk)] {
            fake.set("base", "os", "debian");
            runtime
                .block_on(solve(&ctx(&fake), &graph(&definition), &config()))
                .unwrap();
            let id = BenchmarkId::new(name, columns * rows);
            group.bench_with_input(id, &definition, |b, definition| {
                b.iter(|| {
                    let graph = graph(definition);
                    let result = runtime.block_on(solve(&ctx(&fake), &graph, &config())).unwrap();
                    assert_eq!(result.stats.ran, 0);
                });
            });
        }
    }
    group.finish();
}

fn everything_by_content(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("solve/by-content");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for (columns, rows) in [(20, 50), (1, 100)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::ReadWrite).unwrap();
        let lease = Arc::new(store.lease().unwrap());
        let fake = Arc::new(Fake::over(Arc::new(StoreIndex { store, lease })));
        let mut number = 0;
        // A file that only the first row sees changes each time; every step is asked for and found by content.
        let mut build = || {
            number += 1;
            fake.set("base", "os", "debian");
            fake.set("noise", "file", &format!("{number}"));
            let mut world = World::default();
            let (base, noise) = (world.source("base"), world.source("noise"));
            let mut tips = Vec::new();
            for column in 0..columns {
                let mut tip = world.exec(&format!("const first {column}"), &[base, noise]);
                for row in 0..rows {
                    tip = world.exec(&format!("const {column} {row}"), &[tip]);
                }
                tips.push(tip);
            }
            let target = world.exec("join", &tips);
            let graph = world.graph(&[target]);
            runtime.block_on(solve(&ctx(&fake), &graph, &config())).unwrap().stats
        };
        build();
        group.bench_function(BenchmarkId::from_parameter(format!("{columns}x{rows}")), |b| {
            b.iter(|| assert_eq!(build().ran, columns + 1));
        });
    }
    group.finish();
}

criterion_group!(benches, nothing_to_do, everything_by_content);
criterion_main!(benches);

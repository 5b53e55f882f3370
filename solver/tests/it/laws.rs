//! Laws that hold for any graph.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cbs_solver::llb::Edge;
use cbs_solver::{MemoryIndex, solve};
use proptest::collection::vec;
use proptest::prelude::*;

use super::fake::{Fake, Files, World, config, ctx, exec_result};

const SOURCES: usize = 3;
const FILES: usize = 3;

/// A vertex by what it reads; numbers are taken modulo what is there.
#[derive(Clone, Debug)]
enum Plan {
    Exec { verb: usize, inputs: Vec<usize> },
    Constant { verb: usize, inputs: Vec<usize> },
    Copy { base: usize, from: usize, file: usize },
}

fn plan() -> impl Strategy<Value = Plan> {
    let inputs = || vec(any::<usize>(), 1..4);
    prop_oneof![
        (0..4_usize, inputs()).prop_map(|(verb, inputs)| Plan::Exec { verb, inputs }),
        (0..2_usize, inputs()).prop_map(|(verb, inputs)| Plan::Constant { verb, inputs }),
        (any::<usize>(), any::<usize>(), 0..FILES).prop_map(|(base, from, file)| Plan::Copy { base, from, file }),
    ]
}

/// What a vertex gives, by the book: its tree and its layers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Value {
    tree: Files,
    layers: Vec<Files>,
}

/// What a vertex sees: equal sights need one run between them.
type Sight = String;

fn sources(texts: &[[u8; FILES]; SOURCES]) -> Vec<Files> {
    let files = |text: &[u8; FILES]| (0..FILES).map(|file| (format!("f{file}"), vec![text[file]])).collect();
    texts.iter().map(files).collect()
}

/// Adds the plans to a world, and gives for each vertex its edge, value and sight.
fn model(world: &mut World, plans: &[Plan], texts: &[[u8; FILES]; SOURCES]) -> Vec<(Edge, Value, Option<Sight>)> {
    let mut made: Vec<(Edge, Value, Option<Sight>)> = Vec::new();
    for (number, files) in sources(texts).into_iter().enumerate() {
        let value = Value {
            tree: files.clone(),
            layers: vec![files],
        };
        made.push((world.source(&format!("s{number}")), value, None));
    }
    for plan in plans {
        let at = |number: usize| &made[number % made.len()];
        let (edge, base, added, sight) = match plan {
            Plan::Exec { verb, inputs } | Plan::Constant { verb, inputs } => {
                let verb = match plan {
                    Plan::Constant { .. } => format!("const c{verb}"),
                    _ => format!("run{verb}"),
                };
                let edges: Vec<Edge> = inputs.iter().map(|&input| at(input).0).collect();
                let trees: Vec<Files> = inputs.iter().map(|&input| at(input).1.tree.clone()).collect();
                let base = at(inputs[0]).1.clone();
                let args: Vec<String> = verb.split(' ').map(str::to_owned).collect();
                let added = exec_result(&args, &trees, 0);
                let sight = format!("{verb} {base:?} {:?}", &trees[1..]);
                (world.exec(&verb, &edges), base, added, sight)
            }
            Plan::Copy { base, from, file } => {
                let (base, from, name) = (at(*base), at(*from), format!("f{file}"));
                let bytes = from.1.tree[&name].clone();
                let sight = format!("copy {name} {:?} {bytes:?}", base.1);
                let added = Files::from([(name.clone(), bytes)]);
                (world.copy(base.0, from.0, &name), base.1.clone(), added, sight)
            }
        };
        let mut value = base;
        value.tree.extend(added.clone());
        value.layers.push(added);
        made.push((edge, value, Some(sight)));
    }
    made
}

fn fill(fake: &Fake, texts: &[[u8; FILES]; SOURCES]) {
    for (number, files) in sources(texts).into_iter().enumerate() {
        for (file, bytes) in files {
            fake.set(&format!("s{number}"), &file, &String::from_utf8_lossy(&bytes));
        }
    }
}

/// The sights of all that the targets reach.
fn reached(made: &[(Edge, Value, Option<Sight>)], plans: &[Plan], targets: &[usize]) -> HashSet<Sight> {
    let mut sights = HashSet::new();
    let mut pending: Vec<usize> = targets.to_vec();
    let mut seen = HashSet::new();
    while let Some(number) = pending.pop() {
        if !seen.insert(number) {
            continue;
        }
        sights.extend(made[number].2.clone());
        if let Some(plan) = number.checked_sub(SOURCES).map(|number| &plans[number]) {
            match plan {
                Plan::Exec { inputs, .. } | Plan::Constant { inputs, .. } => {
                    pending.extend(inputs.iter().map(|input| input % number));
                }
                Plan::Copy { base, from, .. } => pending.extend([base % number, from % number]),
            }
        }
    }
    sights
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_sees_a_change_runs_and_results_are_right(
        plans in vec(plan(), 1..16),
        wanted in vec(any::<usize>(), 1..4),
        before in any::<[[bool; FILES]; SOURCES]>(),
        after in any::<[[bool; FILES]; SOURCES]>(),
        eager_pins in any::<bool>(),
    ) {
        let texts = |bits: [[bool; FILES]; SOURCES]| bits.map(|bits| bits.map(|bit| b'a' + u8::from(bit)));
        let index = MemoryIndex::default();
        let mut fake = Fake::lazy(&index);
        fake.eager_pins = eager_pins;
        let fake = Arc::new(fake);
        let runtime = runtime();
        let mut known: HashSet<Sight> = HashSet::new();
        for texts in [texts(before), texts(before), texts(after), texts(before)] {
            fill(&fake, &texts);
            let mut world = World::default();
            let made = model(&mut world, &plans, &texts);
            let targets: Vec<usize> = wanted.iter().map(|number| number % made.len()).collect();
            let edges: Vec<Edge> = targets.iter().map(|&number| made[number].0).collect();
            let graph = world.graph(&edges);
            let result = runtime.block_on(solve(&ctx(&fake), &graph, &config())).expect("solve");

            for (&target, result) in targets.iter().zip(&result.targets) {
                let snapshot = result.snapshot.as_ref().expect("a snapshot");
                prop_assert_eq!(&super::fake::files_of(&index, Some(snapshot)), &made[target].1.tree);
                prop_assert_eq!(snapshot.layers.len(), made[target].1.layers.len());
            }
            let sights = reached(&made, &plans, &targets);
            let expected = sights.difference(&known).count();
            prop_assert_eq!(fake.take_log().len(), expected);
            known.extend(sights);

            let order: HashMap<_, _> = graph.order().iter().enumerate().map(|(place, &id)| (id, place)).collect();
            for &id in graph.order() {
                prop_assert!(graph.dependencies(id).all(|input| order[&input] < order[&id]));
            }
        }
        let counts: BTreeMap<_, _> = fake.runs.lock().unwrap().iter().map(|(digest, runs)| (digest.to_string(), *runs)).collect();
        prop_assert!(counts.values().all(|&runs| runs <= 3), "{:?}", counts);
    }
}

/// What is done to a solve in a stress run.
#[derive(Clone, Debug)]
struct Weather {
    fails: Vec<usize>,
    refuses: Vec<usize>,
    lost: Vec<usize>,
    all: bool,
}

fn weather() -> impl Strategy<Value = Weather> {
    let few = || vec(any::<usize>(), 0..3);
    (few(), few(), few(), any::<bool>()).prop_map(|(fails, refuses, lost, all)| Weather {
        fails,
        refuses,
        lost,
        all,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Failures, refused caches and lost bytes, together and over several solves of one store: every solve ends, nothing
    /// runs twice in one, what does not need a failure is built, and no rule is found broken.
    #[test]
    fn every_solve_ends_and_nothing_runs_twice(
        shape in vec(vec(any::<usize>(), 1..4), 1..14),
        wanted in vec(any::<usize>(), 1..4),
        weathers in vec(weather(), 1..4),
    ) {
        let index = MemoryIndex::default();
        let fake = Fake::new(&index);
        fake.set("s", "f", "x");
        let runtime = runtime();
        for weather in weathers {
            let mut world = World::default();
            let mut edges = vec![world.source("s")];
            let mut doomed = vec![false];
            for (number, inputs) in shape.iter().enumerate() {
                let chosen = |numbers: &[usize]| numbers.iter().any(|pick| pick % shape.len() == number);
                let places: Vec<usize> = inputs.iter().map(|input| input % edges.len()).collect();
                let inputs: Vec<Edge> = places.iter().map(|&place| edges[place]).collect();
                let metadata = cbs_solver::pb::OpMetadata {
                    ignore_cache: chosen(&weather.refuses),
                    ..Default::default()
                };
                let fails = chosen(&weather.fails);
                let verb = if fails { format!("fail {number}") } else { format!("fresh {number}") };
                doomed.push(fails || places.iter().any(|&place| doomed[place]));
                edges.push(world.exec_with(&verb, &inputs, metadata));
            }
            let targets: Vec<usize> = wanted.iter().map(|number| number % edges.len()).collect();
            let roots: Vec<Edge> = targets.iter().map(|&target| edges[target]).collect();
            let graph = world.graph(&roots);
            let config = cbs_solver::SolveConfig {
                on_failure: cbs_solver::OnFailure::KeepGoing,
                cache: if weather.all { cbs_solver::CacheUse::WriteOnly } else { cbs_solver::CacheUse::ReadWrite },
                ..config()
            };
            fake.runs.lock().unwrap().clear();
            let ctx = ctx(&fake);
            let limited = async { tokio::time::timeout(std::time::Duration::from_secs(20), solve(&ctx, &graph, &config)).await };
            let result = runtime.block_on(limited).expect("the solve ends");
            let counts: Vec<usize> = fake.runs.lock().unwrap().values().copied().collect();
            prop_assert!(counts.iter().all(|&runs| runs <= 1), "{:?}", counts);
            let finished = match result {
                Ok(result) => {
                    prop_assert!(targets.iter().all(|&target| !doomed[target]));
                    result
                }
                Err(cbs_solver::SolveError::Failed { failures, finished }) => {
                    for failure in &failures {
                        prop_assert_eq!(failure.error.kind, cbs_solver::FailureKind::ExitCode(7), "{}", failure);
                    }
                    *finished
                }
                Err(err) => return Err(TestCaseError::fail(err.to_string())),
            };
            let good = targets.iter().filter(|&&target| !doomed[target]).count();
            prop_assert_eq!(finished.targets.len(), good);
            for target in &finished.targets {
                let tree = target.snapshot.as_ref().expect("a snapshot").tree;
                prop_assert!(cbs_solver::Index::is_complete(&index, &tree).expect("index"));
            }
            for lost in weather.lost {
                if let Some(target) = finished.targets.get(lost % shape.len()) {
                    index.forget_bytes(target.snapshot.as_ref().expect("a snapshot").tree);
                }
            }
        }
    }
}

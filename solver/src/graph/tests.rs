use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::load::{Draft, Loader};
use super::*;
use crate::llb::{CUSTOM_NAME, DefinitionBuilder, Edge};
use pb::file_action::Action;

fn source(identifier: &str) -> pb::op::Op {
    pb::op::Op::Source(pb::SourceOp {
        identifier: identifier.into(),
        ..Default::default()
    })
}

fn exec(args: &[&str], outputs: &[i64]) -> pb::op::Op {
    pb::op::Op::Exec(pb::ExecOp {
        meta: Some(pb::Meta {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Default::default()
        }),
        mounts: outputs
            .iter()
            .map(|&output| pb::Mount {
                input: 0,
                dest: "/".into(),
                output,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    })
}

fn merge(count: i64) -> pb::op::Op {
    pb::op::Op::Merge(pb::MergeOp {
        inputs: (0..count).map(|input| pb::MergeInput { input }).collect(),
    })
}

fn op(op: pb::op::Op, inputs: &[Edge]) -> pb::Op {
    pb::Op {
        inputs: inputs.iter().map(|input| input.to_input()).collect(),
        op: Some(op),
        ..Default::default()
    }
}

fn request(definition: pb::Definition) -> Request {
    Request {
        name: "app".into(),
        definition,
    }
}

/// Encodes ops as they stand, with no builder to keep them sensible.
fn raw(ops: &[pb::Op]) -> Request {
    request(pb::Definition {
        def: ops.iter().map(Message::encode_to_vec).collect(),
        ..Default::default()
    })
}

fn terminal(input: &pb::Op, index: i64) -> pb::Op {
    let digest = VertexDigest::of(&input.encode_to_vec()).to_string();
    pb::Op {
        inputs: vec![pb::Input { digest, index }],
        ..Default::default()
    }
}

fn edge_to(input: &pb::Op) -> Edge {
    Edge::first(VertexDigest::of(&input.encode_to_vec()))
}

#[track_caller]
fn refuse(ops: &[pb::Op], message: &str) {
    let err = Graph::build(&[raw(ops)]).expect_err("no graph");
    assert_eq!(err.to_string(), message);
}

#[test]
fn requests_are_merged_by_digest_and_keep_their_places() {
    let mut builder = DefinitionBuilder::default();
    let text = pb::SourceInfo {
        filename: "Dockerfile".into(),
        data: b"FROM base\nRUN make\n".to_vec(),
        ..Default::default()
    };
    let file = builder.add_source_info(text);
    let base = builder.add(&op(source("local://base"), &[]), Default::default());
    let line = |line: i32| {
        let position = pb::Position { line, character: 0 };
        pb::Range {
            start: Some(position),
            end: Some(position),
        }
    };
    builder.add_location(base, file, vec![line(1)]);
    let one = builder.add(&op(exec(&["make"], &[0]), &[Edge::first(base)]), Default::default());
    builder.add_location(one, file, vec![line(2)]);
    let metadata = pb::OpMetadata {
        description: [(CUSTOM_NAME.to_owned(), "check it".to_owned())].into(),
        ignore_cache: true,
        ..Default::default()
    };
    let two = builder.add(&op(exec(&["check"], &[0]), &[Edge::first(one)]), metadata);
    let requests = [one, two, base].map(|root| request(builder.definition(Some(Edge::first(root)))));
    let graph = Graph::build(&requests).expect("graph");
    assert_eq!(graph.len(), 3);
    let names: Vec<_> = graph.order().iter().map(|&id| graph.vertex(id).name.as_str()).collect();
    assert_eq!(names, ["local://base", "make", "check it"]);
    let found = graph.find(&one).expect("make");
    assert_eq!(
        graph.targets()[0].edge,
        Some(EdgeId {
            vertex: found,
            output: 0
        })
    );
    let vertex = graph.vertex(found);
    assert_eq!(vertex.locations.len(), 1, "the same place came three times");
    assert_eq!(vertex.locations[0].ranges, [line(2)]);
    assert_eq!(vertex.locations[0].file.filename, "Dockerfile");
    assert!(!vertex.ignore_cache);
    assert!(graph.vertex(graph.find(&two).expect("check")).ignore_cache);
    assert_eq!(
        graph.dependents(found).collect::<Vec<_>>(),
        [graph.find(&two).expect("check")]
    );
}

#[test]
fn ops_may_come_in_any_order_and_unused_ones_are_left_out() {
    let base = op(source("local://base"), &[]);
    let unused = op(source("local://unused"), &[]);
    let made = op(exec(&["make"], &[0]), &[edge_to(&base)]);
    let end = terminal(&made, 0);
    let graph = Graph::build(&[raw(&[made, unused, base, end])]).expect("graph");
    assert_eq!(graph.len(), 2);
    assert_eq!(graph.vertex(graph.order()[0]).name, "local://base");
}

#[test]
fn no_ops_are_scratch() {
    let graph = Graph::build(&[raw(&[])]).expect("graph");
    assert!(graph.is_empty());
    assert_eq!(graph.targets()[0].edge, None);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let base = op(source("local://base"), &[]);
    let gone = op(source("local://gone"), &[]);
    let digest = edge_to(&gone).vertex;
    let run = |outputs: &[i64]| op(exec(&["make"], outputs), &[edge_to(&base)]);

    let ends_with_work =
        "target `app`: the definition ends with a `source` op, not with the one that points at the result";
    refuse(std::slice::from_ref(&base), ends_with_work);
    let no_terminal = "target `app`: the definition's last op must have no operation and one input, not 0 inputs";
    refuse(&[base.clone(), pb::Op::default()], no_terminal);
    let dangling = format!("target `app`: input 0 of `the result` is `{digest}`, which the definition does not have");
    refuse(&[base.clone(), terminal(&gone, 0)], &dangling);
    let user = op(exec(&["make"], &[0]), &[edge_to(&gone)]);
    let dangling = format!("target `app`: input 0 of `make` is `{digest}`, which the definition does not have");
    refuse(&[user.clone(), terminal(&user, 0)], &dangling);
    let mut garbled = run(&[0]);
    garbled.inputs[0].digest = "sha256:nonsense".into();
    let dangling = "target `app`: input 0 of `make` is `sha256:nonsense`, which the definition does not have";
    refuse(&[base.clone(), garbled.clone(), terminal(&garbled, 0)], dangling);

    let made = run(&[0, -1]);
    let wrong = "target `app`: `the result` wants output 1 of `make`, which has 1";
    refuse(&[base.clone(), made.clone(), terminal(&made, 1)], wrong);
    let wrong = "target `app`: `the result` wants output -1 of `make`, which has 1";
    refuse(&[base.clone(), made.clone(), terminal(&made, -1)], wrong);
    let mut above = op(exec(&["above"], &[0]), &[edge_to(&made)]);
    above.inputs[0].index = 7;
    let wrong = "target `app`: `above` wants output 7 of `make`, which has 1";
    refuse(&[base.clone(), made, above.clone(), terminal(&above, 0)], wrong);
    for outputs in [&[0, 0][..], &[1], &[0, 2], &[-2], &[i64::MAX]] {
        let made = run(outputs);
        let err = Graph::build(&[raw(&[base.clone(), made.clone(), terminal(&made, 0)])]).expect_err("outputs");
        assert!(
            matches!(
                err,
                GraphError::BadIndex {
                    what: "mount output",
                    ..
                }
            ),
            "{outputs:?}: {err}"
        );
    }
}

#[test]
fn ops_that_lack_something_are_refused() {
    let alone = |op: pb::Op| {
        let end = terminal(&op, 0);
        Graph::build(&[raw(&[op, end])]).expect_err("refused").to_string()
    };
    let empty = op(pb::op::Op::Exec(pb::ExecOp::default()), &[]);
    assert_eq!(alone(empty), "target `app`: `` has no process to run");
    assert_eq!(alone(op(exec(&[], &[0]), &[])), "target `app`: `` has no arguments");
    assert_eq!(
        alone(op(exec(&["x"], &[0]), &[])),
        "target `app`: mount input 0 of `x` does not exist (there are 0)"
    );
    assert_eq!(
        alone(op(merge(1), &[])),
        "target `app`: merge input 0 of `merge (scratch)` does not exist (there are 0)"
    );
    assert_eq!(
        alone(op(pb::op::Op::File(pb::FileOp::default()), &[])),
        "target `app`: `` has no actions"
    );
    let copy = |input, secondary_input| pb::FileAction {
        input,
        secondary_input,
        output: 0,
        action: Some(Action::Copy(pb::FileActionCopy {
            src: "a".into(),
            dest: "b".into(),
            ..Default::default()
        })),
    };
    let file = |action| op(pb::op::Op::File(pb::FileOp { actions: vec![action] }), &[]);
    let message = "target `app`: copy source 3 of `copy a b` does not exist (there are 0)";
    assert_eq!(alone(file(copy(-1, 3))), message);
    let message = "target `app`: action input 0 of `copy a b` does not exist (there are 0)";
    assert_eq!(alone(file(copy(0, -1))), message, "an action cannot build upon itself");
}

#[test]
fn what_clients_write_and_means_nothing_is_taken() {
    // A copy out of the empty tree, and a secret whose output nobody set.
    let copy = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(Action::Copy(pb::FileActionCopy::default())),
    };
    let file = pb::op::Op::File(pb::FileOp { actions: vec![copy] });
    assert_eq!(super::check::check(&file, 0).ok(), Some(1));
    let pb::op::Op::Exec(mut exec) = exec(&["x"], &[0]) else {
        panic!("an exec")
    };
    exec.mounts.push(pb::Mount {
        input: -1,
        mount_type: pb::MountType::Secret.into(),
        ..Default::default()
    });
    assert_eq!(super::check::check(&pb::op::Op::Exec(exec), 1).ok(), Some(1));
}

#[test]
fn newer_kinds_of_ops_are_named_as_such() {
    // Field 8 is an op that this program's protobuf does not have.
    let newer = vec![0x42, 0x02, 0x0a, 0x00];
    let digest = VertexDigest::of(&newer);
    let end = pb::Op {
        inputs: vec![Edge::first(digest).to_input()],
        ..Default::default()
    };
    let definition = pb::Definition {
        def: vec![newer, end.encode_to_vec()],
        ..Default::default()
    };
    let err = Graph::build(&[request(definition)]).expect_err("refused");
    assert_eq!(
        err.to_string(),
        format!("target `app`: op {digest} is of a kind that is not supported")
    );
    let definition = pb::Definition {
        def: vec![b"\xff\xff\xff".to_vec()],
        ..Default::default()
    };
    let err = Graph::build(&[request(definition)]).expect_err("refused");
    assert!(matches!(err, GraphError::Undecodable { index: 0, .. }), "{err}");
}

#[test]
fn cycles_are_named() {
    // No op can hold the digest of an op that holds its own, so this takes drafts.
    let mut loader = Loader::default();
    for (number, input) in [(0, 2), (1, 0), (2, 1), (3, 0)] {
        loader.push(Draft {
            digest: VertexDigest::of(&[number]),
            op: exec(&[&format!("step{number}")], &[0]),
            platform: None,
            constraints: Vec::new(),
            inputs: vec![(VertexId(input), 0)],
            metadata: None,
            locations: Vec::new(),
            target: "app".into(),
        });
    }
    let err = loader.finish(Vec::new()).expect_err("cycle").to_string();
    let names: Vec<&str> = err.trim_start_matches("the graph has a cycle: ").split(" → ").collect();
    assert_eq!(names.len(), 4, "{err}");
    assert_eq!(names[0], names[3]);
    assert!(!names.contains(&"step3"), "{err}");
}

#[test]
fn names_do_not_grow_with_chains() {
    let mut builder = DefinitionBuilder::default();
    let mut tip = builder.add(&op(source("local://a"), &[]), Default::default());
    for _ in 0..200 {
        tip = builder.add(&op(merge(1), &[Edge::first(tip)]), Default::default());
    }
    let graph = Graph::build(&[request(builder.definition(Some(Edge::first(tip))))]).expect("graph");
    assert_eq!(graph.vertex(graph.order()[1]).name, "merge (local://a)");
    assert!(
        graph
            .order()
            .iter()
            .all(|&id| graph.vertex(id).name.chars().count() <= 60)
    );
}

proptest! {
    #[test]
    fn garbage_is_refused_without_panic(ops in vec(vec(any::<u8>(), 0..40), 0..6)) {
        let definition = pb::Definition { def: ops, ..Default::default() };
        drop(Graph::build(&[request(definition)]));
    }

    /// Ops that decode, with any numbers and any wiring in them.
    #[test]
    fn nonsense_is_refused_without_panic(
        wiring in vec((0..6_u8, vec((any::<prop::sample::Index>(), -2..3_i64), 0..3), vec(-2..4_i64, 0..4)), 1..8),
        result in -2..3_i64,
    ) {
        let mut ops: Vec<pb::Op> = Vec::new();
        for (kind, inputs, numbers) in wiring {
            let number = |place: usize| numbers.get(place).copied().unwrap_or(0);
            let kind = match kind {
                0 => source("local://x"),
                1 => exec(&["x"], &numbers),
                2 => merge(number(0)),
                3 => pb::op::Op::Diff(pb::DiffOp {
                    lower: Some(pb::LowerDiffInput { input: number(0) }),
                    upper: Some(pb::UpperDiffInput { input: number(1) }),
                }),
                4 => pb::op::Op::Build(pb::BuildOp { builder: number(0), ..Default::default() }),
                _ => pb::op::Op::File(pb::FileOp {
                    actions: numbers.iter().map(|&number| pb::FileAction {
                        input: number,
                        secondary_input: number,
                        output: number,
                        action: Some(Action::Copy(pb::FileActionCopy::default())),
                    }).collect(),
                }),
            };
            let inputs = inputs.into_iter().filter(|_| !ops.is_empty()).map(|(at, index)| {
                pb::Input { index, ..edge_to(at.get(&ops)).to_input() }
            }).collect();
            ops.push(pb::Op { inputs, op: Some(kind), ..Default::default() });
        }
        let end = terminal(ops.last().expect("one"), result);
        ops.push(end);
        if let Ok(graph) = Graph::build(&[raw(&ops)]) {
            for &id in graph.order() {
                let vertex = graph.vertex(id);
                prop_assert!(vertex.inputs.iter().all(|edge| edge.output < graph.vertex(edge.vertex).outputs));
            }
            serde_json::to_string(&crate::Plan::new(&graph)).expect("plan");
        }
    }
}

//! The graph while it is being made. Vertices get their digests only at the end: which paths a context is asked for is
//! known when every stage has been lowered, and the digest of everything above depends on it.

use std::collections::{BTreeMap, BTreeSet};

use cbs_image::platform::Platform;
use cbs_solver::llb::{CUSTOM_NAME, DefinitionBuilder, Edge};
use cbs_solver::pb;

use super::super::source::{LineRange, SourceFile};

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(usize);

/// Nodes, inputs before users.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) op: NodeOp,
    pub(super) metadata: pb::OpMetadata,
    pub(super) lines: Option<LineRange>,
}

#[derive(Debug)]
pub(super) enum NodeOp {
    Source {
        source: pb::SourceOp,
        /// Only images differ by platform.
        platform: Option<Platform>,
    },
    Local(LocalSource),
    File {
        base: Option<NodeId>,
        actions: Vec<FileStep>,
    },
    Exec(Box<ExecNode>),
    /// At least two.
    Merge(Vec<NodeId>),
    /// What another definition makes.
    Input(Box<pb::Definition>),
}

/// A directory of the caller.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalSource {
    pub(super) name: String,
    pub(super) session: Option<String>,
    pub(super) shared_key_hint: String,
    pub(super) exclude: Vec<String>,
    /// What is used of it; with `/` among them, everything.
    pub(super) paths: BTreeSet<String>,
}

/// One action of a file op. Input indices in the action itself are filled in at the end.
#[derive(Debug)]
pub(super) struct FileStep {
    /// What a copy takes from; `None` is the empty tree.
    pub(super) source: Option<NodeId>,
    pub(super) action: pb::file_action::Action,
}

#[derive(Debug)]
pub(super) struct ExecNode {
    pub(super) meta: pb::Meta,
    pub(super) root: Option<NodeId>,
    pub(super) mounts: Vec<MountNode>,
    /// Secrets and sockets, which have no input.
    pub(super) extra_mounts: Vec<pb::Mount>,
    pub(super) secret_env: Vec<pb::SecretEnv>,
    pub(super) devices: Vec<pb::CdiDevice>,
    pub(super) network: pb::NetMode,
    pub(super) security: pb::SecurityMode,
    pub(super) platform: Platform,
}

/// A mount; none of them has an output.
#[derive(Debug)]
pub(super) struct MountNode {
    pub(super) source: Option<NodeId>,
    /// All but the input.
    pub(super) mount: pb::Mount,
}

/// No input, or no output.
pub(super) const NONE: i64 = -1;

/// Metadata that holds a name.
pub(super) fn named(name: impl Into<String>) -> pb::OpMetadata {
    pb::OpMetadata {
        description: BTreeMap::from([(CUSTOM_NAME.to_owned(), name.into())]),
        ..Default::default()
    }
}

pub(super) fn platform_to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

impl Graph {
    pub(super) fn add(&mut self, op: NodeOp, metadata: pb::OpMetadata, lines: Option<LineRange>) -> NodeId {
        self.nodes.push(Node { op, metadata, lines });
        NodeId(self.nodes.len() - 1)
    }

    /// Says what is used of a local source.
    pub(super) fn set_paths(&mut self, node: NodeId, used: &BTreeSet<String>) {
        if let Some(NodeOp::Local(local)) = self.nodes.get_mut(node.0).map(|node| &mut node.op) {
            local.paths.clone_from(used);
        }
    }

    /// Writes the definition of each root.
    pub(super) fn definitions(
        &self,
        roots: &[Option<NodeId>],
        file: &SourceFile,
    ) -> Result<Vec<pb::Definition>, String> {
        let mut builder = DefinitionBuilder::default();
        let source = builder.add_source_info(pb::SourceInfo {
            filename: file.name().to_owned(),
            data: file.data().to_vec(),
            definition: None,
            language: "Dockerfile".to_owned(),
        });
        let mut edges: Vec<Option<Edge>> = vec![None; self.nodes.len()];
        for index in self.reachable(roots) {
            let node = &self.nodes[index];
            let edge = |node: NodeId| edges[node.0];
            let op = match &node.op {
                NodeOp::Input(definition) => {
                    edges[index] = builder.import(definition).map_err(|error| error.to_string())?;
                    continue;
                }
                NodeOp::Source { source, platform } => source_op(source.clone(), platform.as_ref()),
                NodeOp::Local(local) => source_op(local.to_source(), None),
                NodeOp::File { base, actions } => file_op(base.and_then(edge), actions, &edge),
                NodeOp::Exec(exec) => exec_op(exec, &edge),
                NodeOp::Merge(inputs) => {
                    // An input of another definition may turn out empty, and then has no part in a merge.
                    let inputs: Vec<Edge> = inputs.iter().filter_map(|&input| edge(input)).collect();
                    match inputs.as_slice() {
                        [] => continue,
                        &[only] => {
                            edges[index] = Some(only);
                            continue;
                        }
                        inputs => merge_op(inputs),
                    }
                }
            };
            let vertex = builder.add(&op, node.metadata.clone());
            if let Some(lines) = node.lines {
                builder.add_location(vertex, source, ranges(lines));
            }
            edges[index] = Some(Edge::first(vertex));
        }
        Ok(roots
            .iter()
            .map(|root| builder.definition(root.and_then(|root| edges[root.0])))
            .collect())
    }

    /// Positions of all that the roots need, in the order a depth-first walk from the roots leaves them. Equal ops of
    /// different stages become one vertex, and the last one of this order gives it its name, as with BuildKit.
    fn reachable(&self, roots: &[Option<NodeId>]) -> Vec<usize> {
        let mut seen = vec![false; self.nodes.len()];
        let mut order = Vec::new();
        // A chain of stages may be long, so the walk keeps its own stack.
        let mut open: Vec<(usize, Vec<NodeId>)> = Vec::new();
        for root in roots.iter().flatten() {
            if std::mem::replace(&mut seen[root.0], true) {
                continue;
            }
            open.push((root.0, self.nodes[root.0].op.inputs_reversed()));
            while let Some((index, inputs)) = open.last_mut() {
                match inputs.pop() {
                    Some(input) if !std::mem::replace(&mut seen[input.0], true) => {
                        open.push((input.0, self.nodes[input.0].op.inputs_reversed()));
                    }
                    Some(_) => {}
                    None => {
                        order.push(*index);
                        open.pop();
                    }
                }
            }
        }
        order
    }
}

impl NodeOp {
    fn inputs_reversed(&self) -> Vec<NodeId> {
        let mut inputs = Vec::new();
        self.for_each_input(&mut |input| inputs.push(input));
        inputs.reverse();
        inputs
    }

    fn for_each_input(&self, visit: &mut dyn FnMut(NodeId)) {
        match self {
            Self::Source { .. } | Self::Local(_) | Self::Input(_) => {}
            Self::File { base, actions } => {
                base.iter()
                    .chain(actions.iter().filter_map(|step| step.source.as_ref()))
                    .for_each(|&node| visit(node));
            }
            Self::Exec(exec) => {
                let mounts = exec.mounts.iter().filter_map(|mount| mount.source.as_ref());
                exec.root.iter().chain(mounts).for_each(|&node| visit(node));
            }
            Self::Merge(inputs) => inputs.iter().for_each(|&node| visit(node)),
        }
    }
}

impl LocalSource {
    pub(super) fn to_source(&self) -> pb::SourceOp {
        let json = |list: Vec<&str>| serde_json::Value::from(list).to_string();
        let mut attrs = BTreeMap::new();
        let mut set = |name: &str, value: String| attrs.insert(format!("local.{name}"), value);
        if let Some(session) = &self.session {
            set("session", session.clone());
        }
        if !self.exclude.is_empty() {
            set(
                "excludepatterns",
                json(self.exclude.iter().map(String::as_str).collect()),
            );
        }
        if !self.paths.is_empty() && !self.paths.contains("/") {
            set(
                "followpaths",
                json(self.paths.iter().map(|path| path.trim_start_matches('/')).collect()),
            );
        }
        set("sharedkeyhint", self.shared_key_hint.clone());
        pb::SourceOp {
            identifier: format!("local://{}", self.name),
            attrs,
        }
    }
}

fn source_op(source: pb::SourceOp, platform: Option<&Platform>) -> pb::Op {
    pb::Op {
        platform: platform.map(platform_to_pb),
        constraints: Some(pb::WorkerConstraints::default()),
        op: Some(pb::op::Op::Source(source)),
        ..Default::default()
    }
}

fn merge_op(inputs: &[Edge]) -> pb::Op {
    let merge = pb::MergeOp {
        inputs: (0..).zip(inputs).map(|(input, _)| pb::MergeInput { input }).collect(),
    };
    pb::Op {
        inputs: inputs.iter().map(|input| input.to_input()).collect(),
        constraints: Some(pb::WorkerConstraints::default()),
        op: Some(pb::op::Op::Merge(merge)),
        ..Default::default()
    }
}

/// Distinct inputs of one op.
#[derive(Default)]
struct Inputs(Vec<Edge>);

impl Inputs {
    fn index(&mut self, edge: Option<Edge>) -> i64 {
        let Some(edge) = edge else { return NONE };
        let known = self.0.iter().position(|other| *other == edge).unwrap_or_else(|| {
            self.0.push(edge);
            self.0.len() - 1
        });
        i64::try_from(known).unwrap_or(i64::MAX)
    }

    fn to_pb(&self) -> Vec<pb::Input> {
        self.0.iter().map(|edge| edge.to_input()).collect()
    }
}

/// The actions form a chain: each works on what the one before left, and the last one's result is the output.
fn file_op(base: Option<Edge>, steps: &[FileStep], edge: &dyn Fn(NodeId) -> Option<Edge>) -> pb::Op {
    let mut inputs = Inputs::default();
    let base = inputs.index(base);
    let sources: Vec<i64> = steps
        .iter()
        .map(|step| inputs.index(step.source.and_then(edge)))
        .collect();
    let count = i64::try_from(inputs.0.len()).unwrap_or(i64::MAX);
    let last = steps.len().saturating_sub(1);
    let actions = (0..)
        .zip(steps)
        .zip(sources)
        .map(|((at, step), secondary_input)| pb::FileAction {
            input: if at == 0 { base } else { count + at - 1 },
            secondary_input,
            output: if usize::try_from(at) == Ok(last) { 0 } else { NONE },
            action: Some(with_owner_input(step.action.clone(), base)),
        });
    pb::Op {
        op: Some(pb::op::Op::File(pb::FileOp {
            actions: actions.collect(),
        })),
        inputs: inputs.to_pb(),
        constraints: Some(pb::WorkerConstraints::default()),
        ..Default::default()
    }
}

/// Names of owners are looked up in the tree the op started from.
fn with_owner_input(mut action: pb::file_action::Action, base: i64) -> pb::file_action::Action {
    use pb::file_action::Action;
    let owner = match &mut action {
        Action::Copy(copy) => &mut copy.owner,
        Action::Mkdir(mkdir) => &mut mkdir.owner,
        Action::Mkfile(mkfile) => &mut mkfile.owner,
        Action::Symlink(symlink) => &mut symlink.owner,
        Action::Rm(_) => return action,
    };
    if let Some(owner) = owner {
        for part in [&mut owner.user, &mut owner.group].into_iter().flatten() {
            if let Some(pb::user_opt::User::ByName(named)) = &mut part.user {
                named.input = base;
            }
        }
    }
    action
}

fn exec_op(exec: &ExecNode, edge: &dyn Fn(NodeId) -> Option<Edge>) -> pb::Op {
    let mut inputs = Inputs::default();
    let root = pb::Mount {
        dest: "/".to_owned(),
        ..Default::default()
    };
    let mut mounts: Vec<(Option<NodeId>, &pb::Mount)> = vec![(exec.root, &root)];
    mounts.extend(exec.mounts.iter().map(|mount| (mount.source, &mount.mount)));
    mounts.sort_by(|(_, a), (_, b)| a.dest.cmp(&b.dest));
    let mounts = mounts.into_iter().map(|(source, mount)| pb::Mount {
        input: inputs.index(source.and_then(edge)),
        ..mount.clone()
    });
    let mounts: Vec<pb::Mount> = mounts.chain(exec.extra_mounts.iter().cloned()).collect();
    let op = pb::ExecOp {
        meta: Some(exec.meta.clone()),
        mounts,
        network: exec.network.into(),
        security: exec.security.into(),
        secretenv: exec.secret_env.clone(),
        cdi_devices: exec.devices.clone(),
    };
    pb::Op {
        inputs: inputs.to_pb(),
        platform: Some(platform_to_pb(&exec.platform)),
        constraints: Some(pb::WorkerConstraints::default()),
        op: Some(pb::op::Op::Exec(op)),
    }
}

/// One range for each line, as BuildKit writes locations.
pub(super) fn ranges(lines: LineRange) -> Vec<pb::Range> {
    let position = |line: u32| {
        Some(pb::Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        })
    };
    (lines.first..=lines.last)
        .map(|line| pb::Range {
            start: position(line),
            end: position(line),
        })
        .collect()
}

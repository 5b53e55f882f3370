//! A world for solves: definitions in a line each, and an executor over flat trees that counts what it does.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cbs_solver::llb::{DefinitionBuilder, Edge, VertexDigest};
use cbs_solver::{
    BoxFuture, CacheUse, Ctx, EventSender, Executor, FailureKind, Graph, Index, MemoryIndex, Need, OnFailure,
    Parallelism, Request, SolveConfig, SourcePin, Step, StepError, Stream, SystemClock, pb,
};
use cbs_store::{BlobDigest, Directory, Entry, Layer, Metadata, Node, Snapshot, TreeDigest};
use tokio_util::sync::CancellationToken;

/// The files of a flat tree.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Builds definitions.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) builder: DefinitionBuilder,
}

impl World {
    pub(crate) fn source(&mut self, name: &str) -> Edge {
        let source = pb::SourceOp {
            identifier: format!("fake://{name}"),
            ..Default::default()
        };
        self.add(pb::op::Op::Source(source), &[], Default::default())
    }

    /// An exec whose root is the first input; the others are mounted read-only. `verb` says what the fake does.
    pub(crate) fn exec(&mut self, verb: &str, inputs: &[Edge]) -> Edge {
        self.exec_with(verb, inputs, Default::default())
    }

    pub(crate) fn exec_with(&mut self, verb: &str, inputs: &[Edge], metadata: pb::OpMetadata) -> Edge {
        let mounts = (0..inputs.len().max(1)).map(|number| pb::Mount {
            input: if inputs.is_empty() { -1 } else { number as i64 },
            dest: if number == 0 {
                "/".into()
            } else {
                format!("/in{number}")
            },
            output: if number == 0 { 0 } else { -1 },
            readonly: number > 0,
            ..Default::default()
        });
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: verb.split(' ').map(str::to_owned).collect(),
                ..Default::default()
            }),
            mounts: mounts.collect(),
            ..Default::default()
        };
        self.add(pb::op::Op::Exec(exec), inputs, metadata)
    }

    /// Copies one file from a tree into another.
    pub(crate) fn copy(&mut self, base: Edge, from: Edge, file: &str) -> Edge {
        let copy = pb::FileActionCopy {
            src: format!("/{file}"),
            dest: format!("/{file}"),
            ..Default::default()
        };
        let action = pb::FileAction {
            input: 0,
            secondary_input: 1,
            output: 0,
            action: Some(pb::file_action::Action::Copy(copy)),
        };
        let file = pb::FileOp { actions: vec![action] };
        self.add(pb::op::Op::File(file), &[base, from], Default::default())
    }

    pub(crate) fn add(&mut self, op: pb::op::Op, inputs: &[Edge], metadata: pb::OpMetadata) -> Edge {
        let op = pb::Op {
            inputs: inputs.iter().map(|input| input.to_input()).collect(),
            op: Some(op),
            ..Default::default()
        };
        Edge::first(self.builder.add(&op, metadata))
    }

    pub(crate) fn graph(&self, targets: &[Edge]) -> Arc<Graph> {
        let requests: Vec<Request> = targets
            .iter()
            .enumerate()
            .map(|(number, target)| Request {
                name: format!("t{number}"),
                definition: self.builder.definition(Some(*target)),
            })
            .collect();
        Arc::new(Graph::build(&requests).expect("graph"))
    }
}

/// Metadata of an op that refuses its cache.
pub(crate) fn no_cache() -> pb::OpMetadata {
    pb::OpMetadata {
        ignore_cache: true,
        ..Default::default()
    }
}

/// An executor over an index. Execs understand: `const X` (a result that does not depend on inputs), `fail`, `panic`,
/// `hang` (until cancelled), `deaf` (never ends), `sleep MS`, `fresh X` (a new result each time), and any other words (a
/// result that depends on all inputs).
pub(crate) struct Fake {
    pub(crate) index: Arc<dyn Index>,
    /// The same index, when it is in memory.
    pub(crate) memory: Option<MemoryIndex>,
    pub(crate) sources: Mutex<HashMap<String, Files>>,
    /// Runs by vertex, sources too.
    pub(crate) runs: Mutex<HashMap<VertexDigest, usize>>,
    /// Names of the execs and file ops that ran, in order of their starts.
    pub(crate) log: Mutex<Vec<String>>,
    pub(crate) pins: AtomicUsize,
    pub(crate) running: AtomicUsize,
    pub(crate) peak: AtomicUsize,
    pub(crate) dropped: Arc<AtomicUsize>,
    pub(crate) fresh: AtomicUsize,
    /// Pins come with a snapshot, as those of local directories do.
    pub(crate) eager_pins: bool,
}

impl Fake {
    pub(crate) fn new(index: &MemoryIndex) -> Arc<Self> {
        Arc::new(Self::lazy(index))
    }

    pub(crate) fn lazy(index: &MemoryIndex) -> Self {
        Self {
            memory: Some(index.clone()),
            ..Self::over(Arc::new(index.clone()))
        }
    }

    pub(crate) fn over(index: Arc<dyn Index>) -> Self {
        Self {
            index,
            memory: None,
            sources: Mutex::default(),
            runs: Mutex::default(),
            log: Mutex::default(),
            pins: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            dropped: Arc::default(),
            fresh: AtomicUsize::new(0),
            eager_pins: false,
        }
    }

    pub(crate) fn set(&self, source: &str, file: &str, text: &str) {
        let mut sources = self.sources.lock().unwrap();
        sources
            .entry(source.to_owned())
            .or_default()
            .insert(file.to_owned(), text.into());
    }

    /// The execs and file ops that ran since the last call, sorted.
    pub(crate) fn take_log(&self) -> Vec<String> {
        let mut log = std::mem::take(&mut *self.log.lock().unwrap());
        log.sort();
        log
    }

    pub(crate) fn total_runs(&self) -> usize {
        self.runs.lock().unwrap().values().sum()
    }

    fn source_files(&self, step: &Step) -> Result<Files, StepError> {
        let pb::op::Op::Source(source) = &step.vertex.op else {
            return Err(StepError::new(FailureKind::Internal, "no source"));
        };
        let name = source.identifier.trim_start_matches("fake://");
        let sources = self.sources.lock().unwrap();
        let missing = || StepError::new(FailureKind::MissingSource, format!("no source `{name}`"));
        sources.get(name).cloned().ok_or_else(missing)
    }

    fn restore(&self, snapshot: &Snapshot) {
        if let Some(memory) = &self.memory {
            memory.restore(&snapshot.tree);
        }
    }

    fn run_now(&self, step: &Step, inputs: &[Option<Snapshot>]) -> Result<Option<Snapshot>, StepError> {
        *self.runs.lock().unwrap().entry(step.vertex.digest).or_default() += 1;
        let index = self.index.as_ref();
        match &step.vertex.op {
            pb::op::Op::Source(_) => {
                let files = self.source_files(step)?;
                let snapshot = snapshot_of(index, None, &files);
                self.restore(&snapshot);
                return Ok(Some(snapshot));
            }
            _ => self.log.lock().unwrap().push(step.vertex.name.clone()),
        }
        for input in inputs.iter().flatten() {
            assert!(
                index.is_complete(&input.tree).unwrap(),
                "`{}` ran before the bytes of an input were there",
                step.vertex.name
            );
        }
        let base = inputs.first().cloned().flatten();
        let made = match &step.vertex.op {
            pb::op::Op::File(file) => {
                let Some(pb::file_action::Action::Copy(copy)) = &file.actions[0].action else {
                    return Err(StepError::new(FailureKind::Unsupported, "only copies"));
                };
                let name = copy.src.trim_start_matches('/');
                let from = files_of(index, inputs[1].as_ref());
                let bytes = from
                    .get(name)
                    .ok_or_else(|| StepError::new(FailureKind::NotFound, format!("`/{name}` not found")))?;
                Files::from([(name.to_owned(), bytes.clone())])
            }
            pb::op::Op::Exec(exec) => {
                let args = &exec.meta.as_ref().unwrap().args;
                let all: Vec<Files> = inputs.iter().map(|input| files_of(index, input.as_ref())).collect();
                let number = self.fresh.fetch_add(1, Ordering::Relaxed);
                exec_result(args, &all, number)
            }
            _ => return Err(StepError::new(FailureKind::Unsupported, "unknown op")),
        };
        let snapshot = snapshot_of(index, base.as_ref(), &made);
        self.restore(&snapshot);
        Ok(Some(snapshot))
    }
}

/// What an exec adds to its root.
pub(crate) fn exec_result(args: &[String], inputs: &[Files], number: usize) -> Files {
    let text = match args[0].as_str() {
        "const" => "const".to_owned(),
        "fresh" => format!("fresh {number}"),
        _ => BlobDigest::of(format!("{args:?} {inputs:?}").as_bytes()).to_string(),
    };
    Files::from([(args.join("-"), text.into_bytes())])
}

pub(crate) fn files_of(index: &dyn Index, snapshot: Option<&Snapshot>) -> Files {
    let Some(snapshot) = snapshot else {
        return Files::new();
    };
    let directory = index.need_directory(&snapshot.tree).unwrap();
    let read = |entry: &Entry| {
        let Node::File { blob, size, .. } = &entry.node else {
            panic!("only files")
        };
        let mut bytes = vec![0; *size as usize];
        index.blob(blob).unwrap().unwrap().read_at(&mut bytes, 0).unwrap();
        (String::from_utf8(entry.name.clone()).unwrap(), bytes)
    };
    directory.entries.iter().map(read).collect()
}

fn tree_of(index: &dyn Index, root: Option<Metadata>, files: &Files) -> TreeDigest {
    let mut directory = Directory {
        root,
        ..Directory::default()
    };
    for (name, bytes) in files {
        directory.set(Entry {
            name: name.clone().into_bytes(),
            meta: Metadata::new(0o644),
            node: Node::File {
                blob: index.put_bytes(bytes).unwrap(),
                size: bytes.len() as u64,
                link: None,
            },
        });
    }
    index.put_directory(directory).unwrap().digest
}

pub(crate) fn snapshot_of(index: &dyn Index, base: Option<&Snapshot>, made: &Files) -> Snapshot {
    let mut files = files_of(index, base);
    files.extend(made.clone());
    let mut layers = base.map_or_else(Vec::new, |base| base.layers.clone());
    layers.push(Layer {
        diff: tree_of(index, None, made),
        diff_id: None,
    });
    Snapshot {
        tree: tree_of(index, Some(Metadata::new(0o755)), &files),
        layers,
    }
}

struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Executor for Fake {
    fn pin(&self, step: Step) -> BoxFuture<'_, Result<SourcePin, StepError>> {
        Box::pin(async move {
            self.pins.fetch_add(1, Ordering::Relaxed);
            let files = self.source_files(&step)?;
            let snapshot = self.eager_pins.then(|| snapshot_of(self.index.as_ref(), None, &files));
            let text = BlobDigest::of(format!("{files:?}").as_bytes()).to_string();
            Ok(SourcePin {
                key: format!("fake.v1 {text}").into_bytes(),
                text,
                snapshot,
            })
        })
    }

    fn run(
        &self,
        step: Step,
        inputs: Vec<Option<Snapshot>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Snapshot>>, StepError>> {
        Box::pin(async move {
            let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            let counted = Counted(&self.running);
            if let pb::op::Op::Exec(exec) = &step.vertex.op {
                self.peak.fetch_max(now, Ordering::SeqCst);
                let args = exec.meta.as_ref().unwrap().args.clone();
                let bomb = Bomb(self.dropped.clone());
                match args[0].as_str() {
                    "fail" => {
                        step.log.write(Stream::Stderr, b"first line\nlast line\n");
                        let message = format!("process `{}` did not complete: exit code: 7", args.join(" "));
                        return Err(StepError::new(FailureKind::ExitCode(7), message));
                    }
                    "panic" => panic!("boom"),
                    "hang" => {
                        step.cancel.cancelled().await;
                        return Err(StepError::cancelled());
                    }
                    "deaf" => std::future::pending::<()>().await,
                    "sleep" => {
                        let pause = Duration::from_millis(args[1].parse().unwrap());
                        tokio::select! {
                            () = step.cancel.cancelled() => return Err(StepError::cancelled()),
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                    _ => step.log.write(Stream::Stdout, args.join(" ").as_bytes()),
                }
                std::mem::forget(bomb);
            }
            let output = self.run_now(&step, &inputs);
            drop(counted);
            Ok(vec![output?])
        })
    }
}

pub(crate) fn ctx(fake: &Arc<Fake>) -> Ctx {
    Ctx {
        index: fake.index.clone(),
        executor: fake.clone(),
        remotes: Vec::new(),
        events: EventSender::discard(),
        clock: Arc::new(SystemClock),
        lease: None,
        cancel: CancellationToken::new(),
    }
}

pub(crate) fn config() -> SolveConfig {
    SolveConfig {
        parallelism: Parallelism::Fixed(4.try_into().unwrap()),
        on_failure: OnFailure::Stop,
        cache: CacheUse::ReadWrite,
        need: Need::Tree,
        cancel_grace: cbs_solver::CANCEL_GRACE,
    }
}

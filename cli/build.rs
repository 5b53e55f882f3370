//! The one road of all build commands: targets are lowered, solved as one graph, kept under their names, exported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::Context as _;
use cbs_exec::LocalExecutor;
use cbs_solver::llb::VertexDigest;
use cbs_solver::{
    Ctx, Graph, Need, OnFailure, Request, SolveError, SolveResult, StepFailure, TargetResult, recheck, solve,
};
use cbs_store::{Directory, DirectoryStore as _, GcRoot, Snapshot, Store};
use serde_json::{Map, Value};

use crate::artifacts;
use crate::debug_args::DebugArgs;
use crate::export::{Realised, export};
use crate::failed;
use crate::failure;
use crate::gc_policy::Watch;
use crate::inputs::BuildInputs;
use crate::lower::{LoweredTarget, Lowering, fetch_dockerfiles, lower_all, requests};
use crate::metadata::{self, BUILD_REF, BuildRef, BuildWarning};
use crate::output::OutputKind;
use crate::recheck::Report;
use crate::record::{AnnotationRecord, PlatformRecord, Record};
use crate::resolver::Resolver;
use crate::roots::roots_of_result;
use crate::session::{Session, SolveSettings};
use crate::sources::Sources;
use crate::steps::{StepRecord, step_records};
use crate::target::{BuildTarget, Work};

/// What the commands decide about a build besides its targets.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How it is solved.
    pub(crate) solve: SolveSettings,
    /// Whether somebody wants to know the digest of the image, even if it goes nowhere.
    pub(crate) wants_digest: bool,
    /// What is done about steps that fail.
    pub(crate) debug: DebugArgs,
    /// Whether steps run a second time.
    pub(crate) recheck: Recheck,
}

/// Whether steps run a second time, to see whether they give the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recheck {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// A built target.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Its name.
    pub(crate) name: String,
    /// The gc root that keeps it, when it is kept.
    pub(crate) root: Option<String>,
    /// The digests of its image and more, under BuildKit's names.
    pub(crate) metadata: Map<String, Value>,
}

/// What came of a build.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The targets that were built.
    pub(crate) built: Vec<Built>,
    /// What lint found, in the targets that were not asked for, too.
    pub(crate) warnings: Vec<BuildWarning>,
    /// Why others could not even begin.
    pub(crate) broken: Vec<anyhow::Error>,
    /// Why others were not.
    pub(crate) failure: Option<anyhow::Error>,
    /// How many steps ran.
    pub(crate) ran: usize,
    /// Bytes that gc took meanwhile.
    pub(crate) collected: u64,
    /// What running all again gave, when that was asked for.
    pub(crate) rechecked: Option<Report>,
}

/// Targets that are ready to be solved.
pub(crate) struct Prepared {
    /// What they are.
    pub(crate) targets: Vec<BuildTarget>,
    /// What they came to.
    pub(crate) lowered: HashMap<String, Arc<LoweredTarget>>,
    /// Why the others did not, when the build goes on without them.
    pub(crate) broken: Vec<anyhow::Error>,
    /// For the solve.
    pub(crate) ctx: Ctx,
    /// What runs the steps.
    pub(crate) executor: LocalExecutor,
    /// What they read.
    pub(crate) sources: Sources,
}

/// Fetches what must be fetched, and answers questions about images.
pub(crate) fn fetch(
    session: &Session,
    targets: &mut [BuildTarget],
    sources: &Sources,
) -> anyhow::Result<(Ctx, Resolver, LocalExecutor)> {
    let executor = LocalExecutor::new(sources.exec_config(session));
    let ctx = session.context(Arc::new(executor.clone()));
    let resolver = resolver(session, sources, &ctx);
    let fetched = fetch_dockerfiles(targets, &ctx, &session.store);
    let fetched = session.runtime.block_on(fetched);
    session.check_interrupted()?;
    fetched?;
    Ok((ctx, resolver, executor))
}

/// What answers questions about images.
pub(crate) fn resolver(session: &Session, sources: &Sources, ctx: &Ctx) -> Resolver {
    Resolver {
        images: session.images.clone(),
        locals: sources.locals.clone(),
        layouts: sources.layouts.clone(),
        events: ctx.events.clone(),
        pins: sources.pins.clone(),
        ctx: ctx.clone(),
        known: Mutex::default(),
    }
}

/// Fetches and lowers targets.
pub(crate) fn prepare(
    session: &Session,
    mut targets: Vec<BuildTarget>,
    sources: Sources,
    on_failure: OnFailure,
) -> anyhow::Result<Prepared> {
    let (ctx, resolver, executor) = fetch(session, &mut targets, &sources)?;
    let lowered = session.runtime.block_on(async {
        tokio::select! {
            lowered = lower_all(&targets, &resolver, &ctx.events, on_failure) => lowered,
            () = session.cancel.cancelled() => Err(failure::Interrupted { code: 130 }.into()),
        }
    });
    session.check_interrupted()?;
    let Lowering {
        done: lowered,
        mut broken,
    } = lowered?;
    if lowered.is_empty()
        && let Some(error) = broken.pop()
    {
        return Err(error);
    }
    // Nobody else sets them.
    sources
        .sandbox
        .step_resources
        .get_or_init(|| limits(&targets, &lowered));
    Ok(Prepared {
        lowered,
        broken,
        targets,
        ctx,
        executor,
        sources,
    })
}

/// Builds targets, keeps their results under their names, and writes their outputs.
pub(crate) fn build(
    session: &Session,
    targets: Vec<BuildTarget>,
    sources: Sources,
    settings: &Settings,
) -> anyhow::Result<Outcome> {
    let prepared = prepare(session, targets, sources, settings.solve.on_failure)?;
    let (targets, lowered, ctx) = (&prepared.targets, &prepared.lowered, &prepared.ctx);
    let roots = targets.iter().map(|target| target.root.as_str());
    // A build that nobody can find by its name is built all the same.
    crate::live::announce(session.lease.scratch(), roots).unwrap_or_default();
    let of_targets = requests(targets, lowered);
    let all: Vec<Request> = of_targets.values().flatten().cloned().collect();
    let graph = Arc::new(Graph::build(&all)?);
    let watch = Watch::start(&session.store, &session.gc);
    let solved = session
        .runtime
        .block_on(solve(ctx, &graph, &settings.solve.config(need(targets))));
    let mut outcome = Outcome {
        collected: watch.finish(),
        warnings: metadata::warnings(targets, |target| lowered.get(&target.name).cloned()),
        ..Outcome::default()
    };
    session.check_interrupted()?;
    let solved = match solved {
        Ok(solved) => solved,
        Err(SolveError::Failed { failures, finished }) => {
            let failed = FailedSolve {
                graph: &graph,
                failures: &failures,
                finished: &finished,
            };
            let root = failed.remember(session, &prepared, &of_targets, settings)?;
            let error = failure::of_failures(&failures, &all, root, &settings.debug);
            if settings.solve.on_failure == OnFailure::Stop {
                return Err(error);
            }
            // What came to its end in spite of the failure is kept and exported like anything else.
            outcome.failure = Some(error);
            *finished
        }
        Err(error) => return Err(failure::of_solve_for(error, &all)),
    };
    // What is kept under a name outlives a power loss. Before the outputs: those would be waited for, too.
    session.store.sync().context("cannot write the store")?;
    let results: HashMap<usize, &TargetResult> = solved.targets.iter().map(|result| (result.number, result)).collect();
    outcome.ran = solved.stats.ran;
    let mut first = 0;
    for (number, requests) in &of_targets {
        let target = &targets[*number];
        let places = first..first + requests.len();
        first = places.end;
        let Some(result) = lowered.get(&target.name) else {
            continue;
        };
        let reached: Vec<&TargetResult> = places.filter_map(|place| results.get(&place).copied()).collect();
        if reached.len() < requests.len() {
            continue;
        }
        let snapshots = reached.into_iter().map(|result| match &result.snapshot {
            Some(snapshot) => Ok(snapshot.clone()),
            None => scratch(&session.store),
        });
        let snapshots = snapshots.collect::<anyhow::Result<Vec<_>>>()?;
        let last = session.store.gc_root(&target.root)?;
        let earlier = earlier_steps(last.as_ref(), &solved);
        let mut record = record(target, result, requests, (&graph, &solved), &earlier);
        let reference = BuildRef::new()?;
        record.build = Some(reference.id().to_owned());
        record.inputs = Some(inputs_of(requests, &vertices_of(requests), &graph, &prepared.sources)?);
        let label = if of_targets.len() > 1 {
            format!("[{}] ", target.name)
        } else {
            String::new()
        };
        let mut finished = finish(session, target, (&record, last.as_ref()), &snapshots, &label, settings)?;
        finished
            .metadata
            .insert(BUILD_REF.to_owned(), reference.to_string().into());
        outcome.built.push(finished);
    }
    session.store.flush().context("cannot write the store")?;
    if settings.recheck == Recheck::Yes && outcome.failure.is_none() && prepared.broken.is_empty() {
        let config = settings.solve.config(Need::Tree);
        let again = session.runtime.block_on(recheck(ctx, &graph, &config));
        session.check_interrupted()?;
        let report = Report::new(&session.store, again.map_err(failure::of_solve)?)?;
        outcome.rechecked = Some(report);
    }
    outcome.broken = prepared.broken;
    Ok(outcome)
}

/// The steps of a target's last build, for what ran in this one to be compared with.
fn earlier_steps(last: Option<&GcRoot>, solved: &SolveResult) -> Vec<StepRecord> {
    if solved.stats.ran == 0 {
        return Vec::new();
    }
    // A record of another version of the program explains nothing.
    let record = last.and_then(|last| Record::of_root(last).ok());
    record.map(|record| record.steps).unwrap_or_default()
}

/// What a target is built from.
fn inputs_of(
    requests: &[Request],
    own: &HashSet<VertexDigest>,
    graph: &Graph,
    sources: &Sources,
) -> anyhow::Result<BuildInputs> {
    let vertices = graph.order().iter().map(|&id| graph.vertex(id));
    let vertices = vertices.filter(|vertex| own.contains(&vertex.digest));
    BuildInputs::new(requests.iter().map(|request| &request.definition), vertices, sources)
}

/// The vertices of a target.
fn vertices_of(requests: &[Request]) -> HashSet<VertexDigest> {
    let ops = requests.iter().flat_map(|request| &request.definition.def);
    ops.map(|op| VertexDigest::of(op)).collect()
}

/// A solve that did not reach all its targets.
struct FailedSolve<'a> {
    graph: &'a Graph,
    failures: &'a [StepFailure],
    finished: &'a SolveResult,
}

impl FailedSolve<'_> {
    /// Remembers the failures of each target, and takes out of them what was asked for; gives the first target's root.
    fn remember(
        &self,
        session: &Session,
        prepared: &Prepared,
        of_targets: &BTreeMap<usize, Vec<Request>>,
        settings: &Settings,
    ) -> anyhow::Result<Option<String>> {
        let states = prepared.executor.failed_states();
        let mut first = None;
        for (number, requests) in of_targets {
            let target = &prepared.targets[*number];
            let own = vertices_of(requests);
            let failures: Vec<&StepFailure> = self
                .failures
                .iter()
                .filter(|failure| own.contains(&failure.vertex))
                .collect();
            if failures.is_empty() {
                continue;
            }
            let keeps = settings.debug.keep_failed || settings.debug.on_failure.is_some();
            let failure = failed::Failure {
                root: &target.root,
                names: target.names.iter().map(ToString::to_string).collect(),
                failures: &failures,
                steps: step_records(self.graph, self.finished, &own, &[]),
                states: if keeps { &states } else { &[] },
                inputs: inputs_of(requests, &own, self.graph, &prepared.sources)?,
            };
            // The failure is what people must hear of, whatever becomes of its record.
            match failed::remember(&session.store, failure) {
                Ok(()) => first = first.or_else(|| Some(target.root.clone())),
                Err(err) => tell!("warning: the failure of `{}` is not kept: {err:#}", target.name),
            }
        }
        for (path, dest) in &settings.debug.artifact_on_failure {
            if let Err(err) = artifacts::take_out(&session.store, self.graph, &states, path, dest) {
                tell!("warning: --artifact-on-failure `{path}`: {err:#}");
            }
        }
        Ok(first)
    }
}

/// How much of the results must be here.
fn need(targets: &[BuildTarget]) -> Need {
    let mut outputs = targets
        .iter()
        .filter(|target| !target.only_linked)
        .flat_map(|target| &target.outputs);
    if outputs.any(|output| output.kind != OutputKind::CacheOnly) {
        // Also for a folder: what is kept under a name can be exported as anything.
        Need::Layers
    } else {
        Need::Digests
    }
}

/// Limits of the steps of each target. A step that several targets share keeps to those of the first one that has some,
/// and a target that others are built on comes before them.
fn limits(
    targets: &[BuildTarget],
    lowered: &HashMap<String, Arc<LoweredTarget>>,
) -> HashMap<VertexDigest, cbs_exec::launch::Resources> {
    let mut of_steps = HashMap::new();
    for target in targets {
        let (Work::Dockerfile { options, .. }, Some(result)) = (&target.work, lowered.get(&target.name)) else {
            continue;
        };
        if options.resources == Default::default() {
            continue;
        }
        let limits = resources(&options.resources);
        for op in result.platforms.iter().flat_map(|platform| &platform.definition.def) {
            of_steps.entry(VertexDigest::of(op)).or_insert_with(|| limits.clone());
        }
    }
    of_steps
}

fn resources(limits: &cbs_frontends::dockerfile::Resources) -> cbs_exec::launch::Resources {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    cbs_exec::launch::Resources {
        memory: u64::try_from(limits.memory).ok().filter(|&bytes| bytes > 0),
        memory_swap: Some(limits.memory_swap).filter(|&bytes| bytes != 0),
        cpu_shares: Some(limits.cpu_shares).filter(|&shares| shares > 0),
        cpu_period: Some(limits.cpu_period).filter(|&period| period > 0),
        cpu_quota: Some(limits.cpu_quota).filter(|&quota| quota != 0),
        cpuset_cpus: text(&limits.cpuset_cpus),
        cpuset_mems: text(&limits.cpuset_mems),
        pids: Some(limits.pids).filter(|&pids| pids > 0),
        parent: None,
    }
}

/// The image of nothing.
fn scratch(store: &Store) -> anyhow::Result<Snapshot> {
    Ok(Snapshot {
        tree: store.put_directory(Directory::empty_root())?.digest,
        layers: Vec::new(),
    })
}

fn record(
    target: &BuildTarget,
    result: &LoweredTarget,
    requests: &[Request],
    (graph, solved): (&Graph, &SolveResult),
    earlier: &[StepRecord],
) -> Record {
    let platforms = result.platforms.iter().map(|platform| PlatformRecord {
        platform: platform.platform.clone(),
        config: platform.config.clone(),
        base: platform.base.clone(),
    });
    let mut record = Record::new(platforms.collect(), result.epoch);
    record.index = result.index;
    record.names = target.names.iter().map(ToString::to_string).collect();
    record.annotations = target.annotations.iter().map(AnnotationRecord::of).collect();
    record.steps = step_records(graph, solved, &vertices_of(requests), earlier);
    record
}

/// Keeps a result under its name, then exports it: a failed export loses nothing.
fn finish(
    session: &Session,
    target: &BuildTarget,
    (record, last): (&Record, Option<&GcRoot>),
    snapshots: &[Snapshot],
    label: &str,
    settings: &Settings,
) -> anyhow::Result<Built> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let is_kept = target.outputs.iter().any(|output| output.kind != OutputKind::CacheOnly);
    failed::forget(&session.store, &target.root)?;
    if is_kept {
        let result = GcRoot {
            name: target.root.clone(),
            snapshots: snapshots.to_vec(),
            payload: record.encode()?,
            created: since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        };
        let roots = roots_of_result(&session.store, result, &target.names, last, session.gc.keep_results())?;
        session.store.set_roots(&roots)?;
    }
    let realised = Realised {
        record,
        snapshots,
        label,
    };
    let mut metadata = Map::new();
    for output in &target.outputs {
        let wants_digest = settings.wants_digest && metadata.is_empty();
        let said = export(session, realised, output, wants_digest);
        let said = said.with_context(|| format!("target `{}`: cannot export", target.name))?;
        for (key, value) in said {
            metadata.entry(key).or_insert(value);
        }
    }
    Ok(Built {
        name: target.name.clone(),
        root: is_kept.then(|| target.root.clone()),
        metadata,
    })
}

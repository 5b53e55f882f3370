//! `cbs shell`: a process in the surroundings of a step, before it, after it, or as it failed.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cbs_exec::launch::CancelHandle;
use cbs_exec::{FailedState, LeftMount, LocalExecutor, ShellProcess};
use cbs_frontends::bake::{LocalHost, read_session};
use cbs_image::source::Network;
use cbs_solver::llb::Edge;
use cbs_solver::{Need, OnFailure, Request, Vertex, pb, solve};
use cbs_store::Snapshot;
use clap::Args;

use super::log::split_step;
use crate::args::Global;
use crate::build_args::{CommonBuildArgs, ProgressMode};
use crate::failed::Remembered;
use crate::failure::{self, Usage};
use crate::inputs::Steps;
use crate::planned::bake_options;
use crate::session::{Session, SolveSettings};
use crate::sources::Sources;
use crate::terminal;
use crate::tried::Tried;

/// `cbs shell`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs build --keep-failed .; cbs shell .        look at what the failed step left
  cbs shell 'app#RUN make' --before             the state in which `RUN make` starts
  cbs shell app -- ls -l /                      another program than /bin/sh

Changes are thrown away when it ends, but those to cache mounts.")]
pub(crate) struct ShellArgs {
    /// What was built, and which of its steps: a number or a part of its name [default: the failed step, else the last
    /// RUN of the last build]
    #[arg(value_name = "NAME[#STEP]")]
    name: Option<String>,
    /// The state before the step
    #[arg(long, conflicts_with = "after")]
    before: bool,
    /// The state after the step; of a failed one, what it left
    #[arg(long)]
    after: bool,
    /// A secret for the step's mounts: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// An SSH agent socket or keys for the step's mounts
    #[arg(long, value_name = "SSH")]
    ssh: Vec<String>,
    /// What to run instead of /bin/sh
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Which state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
    Failed,
}

/// `cbs shell`.
pub(crate) fn run(global: &Global, args: &ShellArgs) -> anyhow::Result<ExitCode> {
    let mut session = Session::start(global, Some(ProgressMode::Auto), Network::Online)?;
    let mut sources = given(args)?;
    let (name, step) = match &args.name {
        Some(name) => split_step(&session.store, name)?,
        None => (None, None),
    };
    let tried = Tried::last(&session.store, name.as_deref())?;
    let inputs = tried
        .inputs()
        .context("nothing is kept of how it was built; build it again")?;
    inputs.add_to(&mut sources);
    let steps = Steps::of(inputs.definitions()?)?;
    let vertex = choose(&steps, &tried, step.as_deref())?;
    let (moment, kept) = moment(args, &tried, &vertex)?;
    let state = match (moment, kept) {
        (Moment::Failed, Some(state)) => state,
        (Moment::Before, Some(state)) => FailedState {
            mounts: Vec::new(),
            ..state
        },
        _ => solved(&session, &sources, &steps, &vertex, moment)?,
    };
    session.display.finish();
    enter(&session, &sources, &vertex, &state, moment, &args.command)
}

/// Which state is meant, and what is kept of the step if it failed.
fn moment(args: &ShellArgs, tried: &Tried, vertex: &Vertex) -> anyhow::Result<(Moment, Option<FailedState>)> {
    let failed = tried.failures().find(|(_, failed)| failed.name == vertex.name);
    let kept = failed.and_then(|(failure, failed)| failure.state(failed));
    let moment = match (args.before, failed.is_some(), &kept) {
        (true, ..) => Moment::Before,
        (false, true, Some(_)) => Moment::Failed,
        (false, true, None) if args.after => bail!(
            "what `{}` left was not kept; build it again with --keep-failed, or use --before",
            vertex.name
        ),
        (false, true, None) => Moment::Before,
        (false, false, _) => Moment::After,
    };
    Ok((moment, kept))
}

/// Opens a shell in a step of a build that just failed.
pub(crate) fn after_failure(session: &Session, sources: &Sources, failure: &Remembered) -> anyhow::Result<()> {
    let steps = Steps::of(failure.build.inputs.definitions()?)?;
    let kept = failure
        .build
        .failures
        .iter()
        .find_map(|failed| Some((failed, failure.state(failed)?)));
    let Some((failed, state)) = kept else {
        bail!("what failed is no step that a shell could be opened in");
    };
    let wanted = failed.vertex()?;
    let vertex = steps.execs().find(|vertex| vertex.digest == wanted);
    let vertex = vertex.context("the failed step is not in the definition")?;
    enter(session, sources, vertex, &state, Moment::Failed, &[]).map(drop)
}

/// The secrets and agents on the command line.
fn given(args: &ShellArgs) -> anyhow::Result<Sources> {
    let options = bake_options(&CommonBuildArgs::default())?;
    let (secrets, agents) =
        read_session(&args.secret, &args.ssh, &options, &LocalHost).map_err(|error| Usage(error.to_string()))?;
    let mut sources = Sources::default();
    sources.add_secrets(&secrets, &options.environment)?;
    sources.add_ssh(&agents)?;
    Ok(sources)
}

/// The step that is meant.
fn choose(steps: &Steps, tried: &Tried, wanted: Option<&str>) -> anyhow::Result<Arc<Vertex>> {
    let Some(wanted) = wanted else {
        let vertex = match tried.failures().next() {
            Some((_, failed)) => steps.execs().find(|vertex| vertex.name == failed.name),
            None => steps.execs().next_back(),
        };
        return vertex
            .cloned()
            .context("no step runs anything, so there is none to open a shell in");
    };
    let by_number = wanted
        .parse::<usize>()
        .ok()
        .and_then(|number| tried.steps().get(number.checked_sub(1)?));
    let mut found = steps.execs().filter(|vertex| match by_number {
        Some(step) => vertex.name == step.name,
        None => vertex.name.contains(wanted),
    });
    match (found.next(), found.next()) {
        (Some(vertex), None) => Ok(Arc::clone(vertex)),
        (Some(one), Some(other)) => bail!("`{wanted}` could be `{}` or `{}`", one.name, other.name),
        (None, _) => {
            let all: Vec<&str> = steps.execs().map(|vertex| vertex.name.as_str()).collect();
            if all.is_empty() {
                bail!("no step runs anything, so none can be called `{wanted}`");
            }
            bail!(
                "no step that runs something is called `{wanted}`; there are: {}",
                all.join(", ")
            )
        }
    }
}

/// The state of a step, brought about again if the store does not have it.
fn solved(
    session: &Session,
    sources: &Sources,
    steps: &Steps,
    vertex: &Arc<Vertex>,
    moment: Moment,
) -> anyhow::Result<FailedState> {
    let executor = LocalExecutor::new(sources.exec_config(session));
    let ctx = session.context(Arc::new(executor));
    let mut requests: Vec<Request> = steps.inputs_of(vertex)?;
    let count = requests.len();
    let root = root_mount(vertex)?;
    if moment == Moment::After {
        let output = root.1.context("the step leaves no root file system")?;
        requests.push(steps.request(Edge {
            vertex: vertex.digest,
            output,
        })?);
    }
    let graph = Arc::new(cbs_solver::Graph::build(&requests)?);
    let settings = SolveSettings {
        on_failure: OnFailure::Stop,
        ..SolveSettings::plain()
    };
    let solved = session
        .runtime
        .block_on(solve(&ctx, &graph, &settings.config(Need::Tree)));
    session.check_interrupted()?;
    let mut snapshots: Vec<Option<Snapshot>> = solved
        .map_err(failure::of_solve)?
        .targets
        .into_iter()
        .map(|target| target.snapshot)
        .collect();
    let after = snapshots.split_off(count.min(snapshots.len()));
    let mounts = after.into_iter().flatten().map(|snapshot| LeftMount {
        mount: root.0,
        tree: snapshot.tree,
    });
    Ok(FailedState {
        vertex: vertex.digest,
        inputs: snapshots,
        mounts: mounts.collect(),
    })
}

/// The number of the root mount and of its output.
fn root_mount(vertex: &Vertex) -> anyhow::Result<(usize, Option<i64>)> {
    let pb::op::Op::Exec(op) = &vertex.op else {
        bail!("`{}` runs nothing", vertex.name);
    };
    let root = op.mounts.iter().position(|mount| mount.dest == "/");
    let number = root.context("the step has no root file system")?;
    let output = op.mounts[number].output;
    Ok((number, (output >= 0).then_some(output)))
}

fn enter(
    session: &Session,
    sources: &Sources,
    vertex: &Arc<Vertex>,
    state: &FailedState,
    moment: Moment,
    command: &[OsString],
) -> anyhow::Result<ExitCode> {
    let when = match moment {
        Moment::Before => "before",
        Moment::After => "after",
        Moment::Failed => "as it was left by",
    };
    tell!(
        "in the state {when} `{}`; what is changed here is not kept",
        vertex.name
    );
    let executor = LocalExecutor::new(sources.exec_config(session));
    let cancel = CancelHandle::new().context("cannot make a handle to cancel with")?;
    let (token, handle) = (session.cancel.clone(), cancel.clone());
    let watch = session.runtime.spawn(async move {
        token.cancelled().await;
        handle.cancel();
    });
    let args = if command.is_empty() {
        vec![OsString::from("/bin/sh")]
    } else {
        command.to_vec()
    };
    let term = std::env::var_os("TERM").map(|term| {
        let mut entry = OsString::from("TERM=");
        entry.push(term);
        entry
    });
    let ran = terminal::attach(&session.runtime, |stdio| {
        let process = ShellProcess {
            args,
            env: term.into_iter().collect(),
            stdio,
            cancel,
        };
        executor.shell(vertex, state, process)
    });
    watch.abort();
    session.check_interrupted()?;
    let status = ran?.context("cannot open a shell; `-- COMMAND` runs another program than /bin/sh")?;
    Ok(ExitCode::from(status.code()))
}

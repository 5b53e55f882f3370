//! `cbs lock`: writes down what the mutable sources of targets are now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use cbs_image::source::Network;
use cbs_solver::{Graph, Need, OnFailure, Request, forecast};
use clap::Args;
use serde_json::json;

use super::{print, realize};
use crate::args::Global;
use crate::build::prepare;
use crate::build_args::{CommonBuildArgs, ProgressMode, RealizeArgs};
use crate::failure;
use crate::lock::{Lock, place};
use crate::lower::requests;
use crate::session::{Session, SolveSettings};
use crate::sources::mutable_sources;

/// `cbs lock`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs lock docker-bake.hcl#app-release     writes cbs.lock beside the file
  cbs lock --check .                       fails when a source is no longer what the lock says
  cbs realize --locked docker-bake.hcl#app-release")]
pub(crate) struct LockArgs {
    /// FILE#TARGET, FILE, DIR or DIR#TARGET
    #[arg(required = true, value_name = "REF")]
    pub(crate) references: Vec<String>,
    /// Write nothing; fail when the lock is not what the sources are now
    #[arg(long)]
    pub(crate) check: bool,
    /// Platforms to build for
    #[arg(long, value_delimiter = ',', value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Override a target's attribute: TARGET.KEY=VALUE
    #[arg(long, value_name = "OVERRIDE")]
    pub(crate) set: Vec<String>,
    /// Set a variable of the bake file
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// Print what is locked as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// How to show progress
    #[arg(long, value_enum, env = "BUILDKIT_PROGRESS", value_name = "MODE")]
    pub(crate) progress: Option<ProgressMode>,
}

/// `cbs lock`.
pub(crate) fn run(global: &Global, args: &LockArgs) -> anyhow::Result<ExitCode> {
    let mut session = Session::start(global, args.progress, Network::Online)?;
    let (mut text, mut all, mut is_current) = (String::new(), serde_json::Map::new(), true);
    for reference in &args.references {
        let (path, name, pins) = pins_of(global, &session, args, reference)?;
        let shown = path.display();
        let before = Lock::read(&path);
        // A lock that cannot be read is what `lock` without `--check` repairs.
        let before = if args.check {
            before?
        } else {
            before.unwrap_or_default()
        };
        let mut lock = before.clone().unwrap_or_default();
        lock.set(name.clone(), pins.clone());
        // Writing to a string cannot fail.
        for (source, pin) in &pins {
            let old = before.as_ref().and_then(|lock| lock.pins.get(source));
            let _ = match old {
                Some(old) if old == pin => writeln!(text, "{source} {pin}"),
                Some(old) => writeln!(text, "{source} {pin} (was {old})"),
                None => writeln!(text, "{source} {pin} (new)"),
            };
        }
        if Some(&lock) != before.as_ref() {
            is_current = false;
            if !args.check {
                lock.write(&path)?;
            }
        }
        let _ = match pins.len() {
            0 => writeln!(text, "{reference}: no mutable sources ({shown})"),
            1 => writeln!(text, "{reference}: 1 source locked in {shown}"),
            count => writeln!(text, "{reference}: {count} sources locked in {shown}"),
        };
        let _ = all.insert(reference.clone(), json!({ "lock": path, "target": name, "pins": pins }));
    }
    session.display.finish();
    if args.json {
        print(&format!("{:#}\n", serde_json::Value::from(all)))?;
    } else {
        print(&text)?;
    }
    if args.check && !is_current {
        eprintln!("error: the lock is not what the sources are now; write it with `cbs lock`");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the lock of a reference is, its name there, and what its sources are now.
fn pins_of(
    global: &Global,
    session: &Session,
    args: &LockArgs,
    reference: &str,
) -> anyhow::Result<(std::path::PathBuf, String, BTreeMap<String, String>)> {
    let planned = realize::plan(
        global,
        &RealizeArgs {
            references: vec![reference.to_owned()],
            platform: args.platform.clone(),
            set: args.set.clone(),
            var: args.var.clone(),
            common: CommonBuildArgs {
                // What a tag meant last time is not what it is now.
                pull: Some(true),
                ..CommonBuildArgs::default()
            },
            ..RealizeArgs::default()
        },
    )?;
    let pins = planned.sources.pins.clone();
    let asked = planned.targets.iter().filter(|target| !target.only_linked);
    let (path, mut name) = asked
        .clone()
        .find_map(place)
        .with_context(|| format!("`{reference}` is not a file of this machine; a lock lies beside one"))?;
    if asked.count() > 1 {
        // A group: its members are locked under its name.
        let file = name.split('#').next().unwrap_or_default();
        let group = reference.rsplit_once('#').map_or("default", |(_, group)| group);
        name = format!("{file}#{group}");
    }
    let prepared = prepare(session, planned.targets, planned.sources, OnFailure::Stop)?;
    let requests: Vec<Request> = requests(&prepared.targets, &prepared.lowered)
        .into_values()
        .flatten()
        .collect();
    let graph = Arc::new(Graph::build(&mutable_sources(&Graph::build(&requests)?))?);
    let config = SolveSettings::plain().config(Need::Digests);
    let told = session.runtime.block_on(forecast(&prepared.ctx, &graph, &config));
    session.check_interrupted()?;
    told.map_err(failure::of_solve)?;
    Ok((path, name, pins.seen()))
}

//! `cbs plan`: the graph a build would solve.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_image::source::Network;
use cbs_solver::{Graph, OnFailure, Plan, Request, dump_llb, write_definition};

use super::{print, print_bytes, realize};
use crate::args::Global;
use crate::build::prepare;
use crate::build_args::{CommonBuildArgs, PlanArgs, ProgressMode, RealizeArgs};
use crate::failure::Usage;
use crate::lower::requests;
use crate::planned::Planned;
use crate::session::Session;

/// `cbs plan`.
pub(crate) fn run(global: &Global, args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let planned = realize::plan(
        global,
        &RealizeArgs {
            references: args.references.clone(),
            platform: args.platform.clone(),
            common: CommonBuildArgs {
                progress: Some(ProgressMode::Quiet),
                ..CommonBuildArgs::default()
            },
            ..RealizeArgs::default()
        },
    )?;
    let session = Session::start(global, Some(ProgressMode::Quiet), Network::Online)?;
    let requests = requests_of(&session, planned)?;
    if let Some(path) = &args.output {
        let [only] = requests.as_slice() else {
            bail!(Usage(format!(
                "a definition has one result, and this is {}; name one target and one platform",
                requests.len()
            )));
        };
        let mut bytes = Vec::new();
        write_definition(&only.definition, &mut bytes)?;
        std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.print.is_some() {
        return print_definitions(&requests);
    }
    let plan = Plan::new(&Graph::build(&requests)?);
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&plan)?))?;
    } else {
        print(&text(&plan))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the definitions of targets as `buildctl debug dump-llb` would.
pub(crate) fn print_llb(session: &Session, planned: Planned, what: &str) -> anyhow::Result<ExitCode> {
    if what != "llb" {
        bail!(Usage(format!(
            "--print `{what}`: only `llb` can be printed; see --call for the rest"
        )));
    }
    print_definitions(&requests_of(session, planned)?)
}

fn print_definitions(requests: &[Request]) -> anyhow::Result<ExitCode> {
    let mut bytes = Vec::new();
    for request in requests {
        dump_llb(&request.definition, &mut bytes)?;
    }
    print_bytes(&bytes)?;
    Ok(ExitCode::SUCCESS)
}

fn requests_of(session: &Session, planned: Planned) -> anyhow::Result<Vec<Request>> {
    let prepared = prepare(session, planned.targets, planned.sources, OnFailure::Stop)?;
    Ok(requests(&prepared.targets, &prepared.lowered)
        .into_values()
        .flatten()
        .collect())
}

/// One line a vertex, numbered, with the numbers it reads.
fn text(plan: &Plan) -> String {
    let numbers: HashMap<&str, usize> = plan
        .vertices
        .iter()
        .enumerate()
        .map(|(number, vertex)| (vertex.digest.as_str(), number + 1))
        .collect();
    let number = |digest: &str| numbers.get(digest).copied().unwrap_or_default();
    let mut text = String::new();
    for (index, vertex) in plan.vertices.iter().enumerate() {
        let inputs: Vec<String> = vertex
            .inputs
            .iter()
            .map(|input| format!("#{}", number(&input.vertex)))
            .collect();
        text.push_str(&format!("#{} {}", index + 1, vertex.name));
        if !inputs.is_empty() {
            text.push_str(&format!("  <- {}", inputs.join(" ")));
        }
        text.push('\n');
    }
    for target in &plan.targets {
        match &target.result {
            Some(result) => text.push_str(&format!("{} = #{}\n", target.name, number(&result.vertex))),
            None => text.push_str(&format!("{} = scratch\n", target.name)),
        }
    }
    text
}

//! `--call`: what a Dockerfile would warn about, takes and offers, without building it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use cbs_frontends::dockerfile::{LintResults, LintRule, check, outline, targets};
use cbs_solver::OnFailure;
use serde_json::{Map, Value};

use crate::build::fetch;
use crate::commands::print;
use crate::failure::{Interrupted, Usage};
use crate::lenient::{Lenient, Voice};
use crate::lower::{LoweredTarget, input, lower_all, text_of, with_linked};
use crate::planned::Planned;
use crate::resolver::Resolver;
use crate::session::Session;
use crate::target::{BuildTarget, Work};

/// Answers the calls of all targets that were asked for.
pub(crate) fn answer(session: &Session, planned: Planned) -> anyhow::Result<ExitCode> {
    let Planned {
        mut targets, sources, ..
    } = planned;
    let (_, resolver, _) = fetch(session, &mut targets, &sources)?;
    let lowered = linked(session, &targets, &resolver)?;
    let resolver = Lenient::new(resolver, Voice::Warns);
    let is_only = targets.iter().filter(|target| !target.only_linked).count() == 1;
    let (mut status, mut text, mut documents) = (0, String::new(), Map::new());
    for target in targets.iter().filter(|target| !target.only_linked) {
        let (Some(call), Work::Dockerfile { file, options }) = (&target.call, &target.work) else {
            continue;
        };
        let input = input(text_of(file)?);
        let options = &with_linked(target, options, &lowered)?;
        let (said, document) = match call.method.as_str() {
            "lint" => {
                let mut found = session.runtime.block_on(check(&input, options, &resolver))?;
                if resolver.made_up() {
                    // What an image that cannot be asked may define is not called undefined.
                    let undefined = LintRule::UndefinedVar.name();
                    found.warnings.retain(|warning| warning.rule_name != undefined);
                }
                status |= found.status();
                (lint_text(&found, input.name), serde_json::to_value(&found)?)
            }
            "outline" => {
                let found = session.runtime.block_on(outline(&input, options, &resolver))?;
                (found.to_string(), serde_json::to_value(&found)?)
            }
            "targets" => {
                let found = targets_of(&input, options)?;
                (found.to_string(), serde_json::to_value(&found)?)
            }
            other => bail!(Usage(format!(
                "--call={other} is not known; there are build, check, outline and targets"
            ))),
        };
        if !matches!(call.format.as_str(), "" | "text" | "json") {
            bail!(Usage(format!(
                "--call: format `{}` is not known; there are text and json",
                call.format
            )));
        }
        if call.ignore_status {
            status = 0;
        }
        if call.format == "json" {
            documents.insert(target.name.clone(), document);
        } else {
            if !is_only {
                let _ = writeln!(text, "# {}\n", target.name);
            }
            text.push_str(&said);
        }
    }
    session.check_interrupted()?;
    match documents.len() {
        0 => print(&text)?,
        1 if is_only => {
            let only = documents.into_iter().next().map(|(_, document)| document);
            print(&format!("{:#}\n", only.unwrap_or_default()))?;
        }
        _ => print(&format!("{:#}\n", Value::from(documents)))?,
    }
    Ok(ExitCode::from(status))
}

/// The results that the asked targets use, as far as it takes to look at the Dockerfiles built on them.
fn linked(
    session: &Session,
    targets: &[BuildTarget],
    resolver: &Resolver,
) -> anyhow::Result<HashMap<String, Arc<LoweredTarget>>> {
    let by_name: HashMap<&str, &BuildTarget> = targets.iter().map(|target| (target.name.as_str(), target)).collect();
    let mut wanted: Vec<&str> = targets
        .iter()
        .flat_map(|target| target.linked.values())
        .map(String::as_str)
        .collect();
    let mut needed = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        let Some(target) = by_name.get(name) else { continue };
        if needed.insert(name, (*target).clone()).is_none() {
            wanted.extend(target.linked.values().map(String::as_str));
        }
    }
    let needed: Vec<BuildTarget> = needed.into_values().collect();
    session.runtime.block_on(async {
        tokio::select! {
            lowered = lower_all(&needed, resolver, &resolver.events, OnFailure::Stop) => lowered.map(|lowering| lowering.done),
            () = session.cancel.cancelled() => Err(Interrupted { code: 130 }.into()),
        }
    })
}

fn targets_of(
    input: &cbs_frontends::dockerfile::DockerfileInput<'_>,
    options: &cbs_frontends::dockerfile::BuildOptions,
) -> anyhow::Result<cbs_frontends::dockerfile::TargetList> {
    Ok(targets(input, options)?)
}

/// What `docker build --check` prints.
fn lint_text(found: &LintResults, name: &str) -> String {
    let count = found.warnings.len();
    let mut text = match (count, &found.error) {
        (0, None) => "Check complete, no warnings found.\n".to_owned(),
        (0, Some(_)) => String::new(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (_, _) => format!("Check complete, {count} warnings have been found!\n"),
    };
    // Writing to a string cannot fail.
    for warning in &found.warnings {
        let _ = write!(text, "\nWARNING: {}", warning.rule_name);
        if !warning.url.is_empty() {
            let _ = write!(text, " - {}", warning.url);
        }
        let _ = writeln!(text, "\n{}", warning.description);
        let _ = writeln!(text, "{}", warning.detail);
        let line = warning.location.ranges.first().map(|range| range.start.line);
        if let Some(line) = line {
            let _ = writeln!(text, "{name}:{line}");
        }
    }
    if let Some(error) = &found.error {
        let line = error.location.ranges.first().map_or(0, |range| range.start.line);
        let _ = writeln!(text, "\nERROR: {name}:{line}: {}", error.message);
    }
    text
}

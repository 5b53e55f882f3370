//! `cbs doctor`: what works on this machine, and what to install.

mod checks;
mod helpers;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::print;
use crate::args::Global;
use checks::World;

/// `cbs doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It works.
    Works,
    /// Some builds do without.
    Limited,
    /// Builds fail.
    Fails,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::Limited => "limited",
            Self::Fails => "fails",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    name: &'static str,
    state: State,
    detail: String,
    help: Option<String>,
}

impl Finding {
    fn works(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Works,
            detail: detail.into(),
            help: None,
        }
    }

    fn limited(name: &'static str, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Limited,
            detail: detail.into(),
            help: Some(help.into()),
        }
    }

    fn fails(name: &'static str, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            state: State::Fails,
            ..Self::limited(name, detail, help)
        }
    }
}

/// Runs it. The exit code is 1 when something fails that every build needs.
pub(crate) fn run(global: &Global, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let world = World::new(global);
    let mut findings = checks::all(&world);
    findings.extend(helpers::all(&world));
    let fails = findings.iter().any(|finding| finding.state == State::Fails);
    print(&if args.json {
        as_json(&findings, fails)
    } else {
        as_text(&findings)
    })?;
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn as_json(findings: &[Finding], fails: bool) -> String {
    let entries = findings.iter().map(|finding| {
        let mut entry = json!({ "name": finding.name, "state": finding.state.word(), "detail": finding.detail });
        if let Some(help) = &finding.help {
            entry["help"] = help.as_str().into();
        }
        entry
    });
    let checks: Vec<Value> = entries.collect();
    format!("{:#}\n", json!({ "works": !fails, "checks": checks }))
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for finding in findings {
        let _ = writeln!(
            text,
            "{:8} {:12} {}",
            finding.state.word(),
            finding.name,
            finding.detail
        );
        if let Some(help) = &finding.help {
            let _ = writeln!(text, "{:21} help: {help}", "");
        }
    }
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let _ = match (count(State::Fails), count(State::Limited)) {
        (0, 0) => writeln!(text, "\neverything works"),
        (0, limited) => writeln!(text, "\nbuilds work; limited: {limited}"),
        (fails, _) => writeln!(text, "\nbuilds do not work here; failing: {fails}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_whether_builds_work() {
        let works = Finding::works("kernel", "Linux 6.18");
        let limited = Finding::limited("qemu", "none", "install it");
        let fails = Finding::fails("fuse", "no /dev/fuse", "load it");
        assert!(as_text(std::slice::from_ref(&works)).ends_with("\neverything works\n"));
        assert!(as_text(&[works.clone(), limited.clone()]).contains("builds work; limited: 1"));
        let text = as_text(&[works, limited, fails.clone()]);
        assert!(text.contains("fails    fuse         no /dev/fuse\n"), "{text}");
        assert!(text.contains("help: load it") && text.contains("failing: 1"), "{text}");
        assert!(as_json(&[fails], true).contains("\"works\": false"));
    }
}

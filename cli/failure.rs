//! What a failure looks like to a person, and to a shell.

use std::error::Error;
use std::fmt::Write as _;

use cbs_exec::SourceError;
use cbs_frontends::bake::BakeError;
use cbs_image::ImageError;
use cbs_image::registry::RegistryError;
use cbs_solver::llb::VertexDigest;
use cbs_solver::{FailureKind, Location, Request, SolveError, StepFailure};
use cbs_store::StoreError;

use crate::debug_args::DebugArgs;
use crate::missing::Lack;

/// The flags make no sense; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// A signal ended the command.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    /// The exit code that shells expect.
    pub(crate) code: u8,
}

/// A failed build, as it is shown.
#[derive(Debug, thiserror::Error)]
#[error("failed to solve: {reason}")]
pub(crate) struct Failed {
    /// Lines before the message: output of the steps, lines of their files.
    pub(crate) details: String,
    /// What happened.
    reason: String,
    /// What can be done about it.
    help: Option<String>,
    /// What it is remembered under.
    pub(crate) root: Option<String>,
    /// A source that could not be had, if that is why.
    pub(crate) lack: Option<Lack>,
}

/// The exit code for an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return interrupted.code;
    }
    // What stands on the command line, as against what stands in a file.
    let is_flag = matches!(
        error.downcast_ref::<BakeError>(),
        Some(BakeError::Flag { .. } | BakeError::Override { .. })
    );
    if is_flag || error.is::<Usage>() { 2 } else { 1 }
}

/// How much is said about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// A line, as far as it will do.
    Short,
    /// And every cause on a line of its own.
    Full,
}

/// Prints an error to standard error.
pub(crate) fn report(error: &anyhow::Error, verbosity: Verbosity) {
    if let Some(failed) = error.downcast_ref::<Failed>() {
        crate::tell::write(format_args!("{}", failed.details));
    }
    tell!("error: {}", chain(error.as_ref()));
    if verbosity == Verbosity::Full {
        for cause in error.chain().skip(1) {
            tell!("caused by: {cause}");
        }
    }
    let help = match error.downcast_ref::<Failed>() {
        Some(failed) => failed.help.clone(),
        None => help_for(error.as_ref()),
    };
    if let Some(help) = help {
        tell!("help: {help}");
    }
}

/// What a person can do about an error, as far as its causes tell.
fn help_for(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let is_full = cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|err| err.kind() == std::io::ErrorKind::StorageFull);
        // What the database of the store says is not an error of the operating system.
        if is_full || cause.to_string().contains("No space left") {
            let help = "make room on that disk: `cbs gc` frees what the store holds, --store DIR has it elsewhere";
            return Some(help.to_owned());
        }
        if let Some(help) = cause.downcast_ref::<std::io::Error>().and_then(of_system) {
            return Some(help.to_owned());
        }
        if let Some(help) = cause.downcast_ref::<StoreError>().and_then(of_store) {
            return Some(help.to_owned());
        }
        match cause.downcast_ref::<SourceError>() {
            Some(SourceError::NotLocked(_)) => return Some("lock its target again with `cbs lock`".to_owned()),
            Some(SourceError::Git { output, .. }) if wants_credentials(output) => {
                return Some(
                    "give a token with --secret id=GIT_AUTH_TOKEN,env=NAME, or a key with --ssh default=FILE"
                        .to_owned(),
                );
            }
            Some(SourceError::Offline(_)) => return Some("build once without --offline".to_owned()),
            _ => {}
        }
        if let Some(registry) = cause.downcast_ref::<RegistryError>() {
            return registry.help();
        }
        if let Some(ImageError::Registry(registry)) = cause.downcast_ref::<ImageError>() {
            return registry.help();
        }
        next = cause.source();
    }
    None
}

/// What can be done about limits of the machine.
fn of_system(error: &std::io::Error) -> Option<&'static str> {
    let errno = rustix::io::Errno::from_io_error(error)?;
    match errno {
        rustix::io::Errno::MFILE => Some("raise the limit on open files, such as with `ulimit -n 4096`"),
        rustix::io::Errno::NFILE => Some("the machine has too many files open; raise fs.file-max"),
        rustix::io::Errno::ROFS => Some("this needs a place that can be written; --store DIR has the store elsewhere"),
        _ => None,
    }
}

/// What can be done about a store that does not open.
fn of_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::NewerFormat { .. } => {
            Some("use the newer cbs, or another store with --store DIR; nothing was changed")
        }
        StoreError::NotAStore { .. } => Some("name an empty or new folder with --store DIR; nothing was changed"),
        StoreError::Empty { .. } => Some("the first build fills it"),
        _ => None,
    }
}

/// Whether git failed because nobody told it who we are.
fn wants_credentials(output: &str) -> bool {
    [
        "could not read Username",
        "Authentication failed",
        "Permission denied (publickey",
    ]
    .iter()
    .any(|words| output.contains(words))
}

/// An error and its causes on one line; a cause whose text its parent already shows is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Makes a solve's error presentable.
pub(crate) fn of_solve(error: SolveError) -> anyhow::Error {
    of_solve_for(error, &[])
}

/// [`of_solve`] for several requests: those that a failed step belongs to are named.
pub(crate) fn of_solve_for(error: SolveError, requests: &[Request]) -> anyhow::Error {
    match error {
        SolveError::Cancelled => Interrupted { code: 130 }.into(),
        SolveError::Failed { failures, .. } => of_failures(&failures, requests, None, &DebugArgs::default()),
    }
}

/// Makes failed steps presentable. `root` is what they are remembered under.
pub(crate) fn of_failures(
    failures: &[StepFailure],
    requests: &[Request],
    root: Option<String>,
    debug: &DebugArgs,
) -> anyhow::Error {
    let details = failures.iter().map(details).collect();
    let reason = |failure: &StepFailure| {
        let text = chain(&failure.error);
        let has_it = |request: &&Request| {
            let mut ops = request.definition.def.iter();
            ops.any(|op| VertexDigest::of(op) == failure.vertex)
        };
        let names = requests
            .iter()
            .filter(has_it)
            .map(|request| format!("`{}`", request.name));
        let names: Vec<String> = names.collect();
        match (requests.len(), names.as_slice()) {
            (0 | 1, _) | (_, []) => text,
            (_, [only]) => format!("target {only}: {text}"),
            (_, names) => format!("targets {}: {text}", names.join(", ")),
        }
    };
    let reasons: Vec<String> = failures.iter().map(reason).collect();
    let reason = match reasons.as_slice() {
        [] => "no step failed".to_owned(),
        reasons => reasons.join("\nerror: failed to solve: "),
    };
    let help = failures.iter().find_map(|failure| help_for(&failure.error));
    let help = help.or_else(|| look_around(failures, root.as_deref()?, debug));
    Failed {
        details,
        reason,
        help,
        root,
        lack: failures.iter().find_map(|failure| Lack::of(&failure.error)),
    }
    .into()
}

/// How to find out more about a process that failed.
fn look_around(failures: &[StepFailure], root: &str, debug: &DebugArgs) -> Option<String> {
    let is_process = |failure: &&StepFailure| {
        matches!(
            failure.error.kind,
            FailureKind::ExitCode(_) | FailureKind::Signal(_) | FailureKind::OutOfMemory | FailureKind::Timeout
        )
    };
    let failure = failures.iter().find(is_process)?;
    let name = quoted(root);
    let log = if failure.log.is_some() {
        format!("`cbs log {name}` shows all it printed; ")
    } else {
        String::new()
    };
    Some(if debug.keep_failed {
        format!("{log}`cbs shell {name}` opens a shell in what it left")
    } else {
        format!(
            "{log}`cbs shell {name}` opens a shell in the state before it, and after a build with --keep-failed in what \
             it left; --on-failure shell does so at once"
        )
    })
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The last output of a step and the lines that ask for it, as BuildKit prints them.
fn details(failure: &StepFailure) -> String {
    let mut text = String::new();
    if !failure.log_tail.is_empty() {
        text.push_str(&format!("------\n > {}:\n", failure.name));
        for line in &failure.log_tail {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("------\n");
    }
    if let Some(location) = failure.locations.first() {
        excerpt(&mut text, location);
    }
    text
}

fn excerpt(text: &mut String, location: &Location) {
    const AROUND: i32 = 4;
    let ranges: Vec<(i32, i32)> = location
        .ranges
        .iter()
        .filter_map(|range| {
            let first = range.start.as_ref()?.line;
            Some((first, range.end.as_ref().map_or(first, |end| end.line.max(first))))
        })
        .collect();
    let (Some(first), Some(last)) = (
        ranges.iter().map(|range| range.0).min(),
        ranges.iter().map(|range| range.1).max(),
    ) else {
        return;
    };
    let data = String::from_utf8_lossy(&location.file.data);
    let lines: Vec<&str> = data.lines().collect();
    let count = i32::try_from(lines.len()).unwrap_or(i32::MAX);
    let shown = (first - AROUND).max(1)..=last.saturating_add(AROUND).min(count);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}:{first}\n--------------------", location.file.filename);
    for (number, line) in (1..).zip(lines).filter(|(number, _)| shown.contains(number)) {
        let is_marked = ranges.iter().any(|&(first, last)| (first..=last).contains(&number));
        let mark = if is_marked { ">>>" } else { "   " };
        let _ = writeln!(text, "{}", format!("{number:4} | {mark} {line}").trim_end());
    }
    text.push_str("--------------------\n");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cbs_solver::{SourceFile, StepError, pb};

    use super::*;

    fn failure() -> StepFailure {
        let data = b"FROM a\nRUN one\nRUN exit 7\nRUN two\n".to_vec();
        let position = |line| Some(pb::Position { line, character: 0 });
        StepFailure {
            vertex: VertexDigest::of(b"v"),
            name: "[3/4] RUN exit 7".to_owned(),
            locations: vec![Location {
                file: Arc::new(SourceFile {
                    filename: "Dockerfile".to_owned(),
                    language: String::new(),
                    data,
                }),
                ranges: vec![pb::Range {
                    start: position(3),
                    end: position(3),
                }],
            }],
            log_tail: vec!["last words".to_owned()],
            log: None,
            error: StepError::new(
                FailureKind::ExitCode(7),
                "process `/bin/sh -c exit 7` did not complete successfully: exit code: 7",
            ),
        }
    }

    #[test]
    fn a_failed_step_shows_its_lines_and_output() {
        let error = of_solve(SolveError::Failed {
            failures: vec![failure()],
            finished: Box::default(),
        });
        let failed = error.downcast_ref::<Failed>().expect("a failed build");
        assert_eq!(
            failed.details,
            "------\n > [3/4] RUN exit 7:\nlast words\n------\nDockerfile:3\n--------------------\n   \
             1 |     FROM a\n   2 |     RUN one\n   3 | >>> RUN exit 7\n   4 |     RUN two\n--------------------\n"
        );
        assert_eq!(
            failed.to_string(),
            "failed to solve: process `/bin/sh -c exit 7` did not complete successfully: exit code: 7"
        );
        assert_eq!(exit_code(&error), 1);
    }

    #[test]
    fn of_several_targets_the_failed_one_is_named() {
        let request = |name: &str, op: &[u8]| Request {
            name: name.to_owned(),
            definition: pb::Definition {
                def: vec![op.to_vec()],
                ..Default::default()
            },
        };
        let said = |requests: &[Request]| {
            let error = SolveError::Failed {
                failures: vec![failure()],
                finished: Box::default(),
            };
            of_solve_for(error, requests).to_string()
        };
        let (bad, good) = (request("bad", b"v"), request("good", b"w"));
        let several = said(&[good.clone(), bad.clone()]);
        assert!(
            several.starts_with("failed to solve: target `bad`: process"),
            "{several}"
        );
        assert!(
            said(&[bad]).starts_with("failed to solve: process"),
            "one target needs no name"
        );
        let shared = said(&[request("a", b"v"), request("b linux/arm64", b"v"), good]);
        assert!(shared.contains("targets `a`, `b linux/arm64`: process"), "{shared}");
    }

    #[test]
    fn exit_codes_tell_classes_apart() {
        assert_eq!(exit_code(&Usage("no".into()).into()), 2);
        assert_eq!(exit_code(&of_solve(SolveError::Cancelled)), 130);
        assert_eq!(exit_code(&anyhow::anyhow!("no")), 1);
    }
}

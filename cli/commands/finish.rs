//! What `build`, `bake` and `realize` have in common once they know their targets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use cbs_exec::KeepFailed;
use cbs_solver::{CacheUse, OnFailure};
use serde_json::{Value, json};

use super::{print, shell};
use crate::build::{Built, Outcome, Recheck, Settings, build};
use crate::build_args::{CommonBuildArgs, ProgressMode};
use crate::calls;
use crate::debug_args::OnFailureAction;
use crate::failed;
use crate::failure::{self, Failed, Usage, Verbosity, report};
use crate::gc_policy::collect_when_over;
use crate::lock;
use crate::metadata::{document, wants_warnings};
use crate::missing;
use crate::output::Output;
use crate::planned::Planned;
use crate::progress::human_bytes;
use crate::session::{Session, SolveSettings};
use crate::sources::Sources;
use crate::target::BuildTarget;

/// How the digests of results are answered.
#[derive(Clone, Debug)]
pub(crate) enum Answers {
    /// The metadata file has an object for each target.
    PerTarget,
    /// There is one target.
    One {
        /// Gets the image's digest.
        iidfile: Option<PathBuf>,
        /// Whether the digest is printed.
        prints: bool,
    },
}

/// Builds, or does what is asked for instead.
pub(crate) fn finish(
    mut session: Session,
    mut planned: Planned,
    common: &CommonBuildArgs,
    answers: &Answers,
) -> anyhow::Result<ExitCode> {
    if common.locked {
        planned.sources.pins = Arc::new(lock::load(&planned.targets)?);
    }
    if common.offline {
        refuse_uploads(&planned.targets)?;
    }
    planned.sources.device_folders.clone_from(&common.cdi_spec_dir);
    if planned.targets.iter().any(|target| target.call.is_some()) {
        return calls::answer(&session, planned);
    }
    let (iidfile, prints) = match answers {
        Answers::One { iidfile, prints } => (iidfile.as_deref(), *prints),
        Answers::PerTarget => (None, false),
    };
    let settings = Settings {
        solve: SolveSettings {
            jobs: match common.jobs {
                Some(jobs) => jobs.count(),
                None => session.settings.jobs,
            },
            on_failure: if common.keep_going {
                OnFailure::KeepGoing
            } else {
                OnFailure::Stop
            },
            cache: CacheUse::ReadWrite,
        },
        recheck: if common.recheck { Recheck::Yes } else { Recheck::No },
        wants_digest: prints || iidfile.is_some() || common.metadata_file.is_some(),
        debug: common.debug.clone(),
    };
    let sandbox = &mut planned.sources.sandbox;
    sandbox.step_timeout = common.debug.step_timeout;
    if common.debug.needs_state() {
        sandbox.failed_state = KeepFailed::Yes;
    }
    let sources = planned.sources.clone();
    // Only a build that may lack something is looked at again.
    let again = (common.offline || common.locked).then(|| planned.targets.clone());
    let Outcome {
        built,
        warnings,
        mut broken,
        failure,
        ran,
        mut collected,
        rechecked,
    } = match build(&session, planned.targets, planned.sources, &settings) {
        Ok(outcome) => outcome,
        Err(error) => {
            if let Some(targets) = again {
                missing::tell(&mut session, targets, &sources, &error);
            }
            return match common.debug.on_failure {
                Some(OnFailureAction::Shell) => shell_after(session, &sources, common, error),
                None => Err(error),
            };
        }
    };
    // What is said from here on comes after the last line of progress.
    session.display.finish();
    let is_json = session.progress == ProgressMode::Rawjson;
    let is_quiet = is_json || matches!(session.progress, ProgressMode::Quiet | ProgressMode::None);
    for warning in &warnings {
        if is_json {
            tell!("{}", json!({ "warnings": [warning.to_json()] }));
        } else if !is_quiet {
            tell!("warning: {warning}");
        }
    }
    if let Some(path) = &common.metadata_file {
        let wanted = std::env::var("BUILDX_METADATA_WARNINGS").ok();
        let warnings = if wants_warnings(wanted.as_deref()) {
            warnings.as_slice()
        } else {
            &[]
        };
        let is_one = matches!(answers, Answers::One { .. });
        let text = serde_json::to_string_pretty(&document(&built, is_one, warnings))?;
        write(path, &format!("{text}\n"))?;
    }
    let digest = built.first().and_then(image_id);
    if let (Some(path), Some(digest)) = (iidfile, digest) {
        write(path, digest)?;
    }
    match digest {
        Some(digest) if prints => print(&format!("{digest}\n"))?,
        _ if !is_quiet => {
            for root in built.iter().filter_map(|built| built.root.as_ref()) {
                tell!("kept as {root}");
            }
        }
        _ => {}
    }
    let failure = match failure {
        Some(failure) if common.debug.on_failure == Some(OnFailureAction::Shell) => {
            return shell_after(session, &sources, common, failure);
        }
        failure => failure,
    };
    if ran > 0 {
        collected += collect(session);
    }
    if collected > 0 && !is_quiet {
        tell!("gc removed {}", human_bytes(collected));
    }
    // The last one is said by whoever hears of the failure.
    let failure = failure.or_else(|| broken.pop());
    for error in &broken {
        report(error, Verbosity::Short);
    }
    match (failure, rechecked) {
        (Some(failure), _) => Err(failure),
        (None, None) => Ok(ExitCode::SUCCESS),
        (None, Some(report)) => {
            print(&if is_json {
                format!("{}\n", report.json())
            } else {
                report.text()
            })?;
            let is_same = report.different.is_empty();
            Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Collects what is over the rules, now that the build is done: its lease would keep all that it touched.
fn collect(session: Session) -> u64 {
    let (store, gc) = (session.store.clone(), session.gc.clone());
    drop(session);
    collect_when_over(&store, &gc).unwrap_or_else(|err| {
        // What was built is there all the same.
        tell!("warning: cannot collect: {err:#}");
        0
    })
}

/// Without the network nothing can be pushed; that is said before anything is built.
fn refuse_uploads(targets: &[BuildTarget]) -> anyhow::Result<()> {
    let pushes = |output: &Output| matches!(output.attrs.get("push").map(String::as_str), Some("true" | "1"));
    let uploads = |target: &&BuildTarget| target.outputs.iter().any(pushes);
    match targets.iter().find(uploads) {
        Some(target) => Err(Usage(format!(
            "--offline: target `{}` is to be pushed to a registry",
            target.name
        ))
        .into()),
        None => Ok(()),
    }
}

/// Opens a shell in what failed, then ends as the failure does.
fn shell_after(
    mut session: Session,
    sources: &Sources,
    common: &CommonBuildArgs,
    error: anyhow::Error,
) -> anyhow::Result<ExitCode> {
    let Some(root) = error.downcast_ref::<Failed>().and_then(|failed| failed.root.clone()) else {
        return Err(error);
    };
    session.display.finish();
    failure::report(&error, failure::Verbosity::Short);
    let code = ExitCode::from(failure::exit_code(&error));
    let Some(remembered) = failed::find(&session.store, Some(&root))? else {
        return Ok(code);
    };
    let opened = shell::after_failure(&session, sources, &remembered);
    if !common.debug.keep_failed {
        failed::drop_states(&session.store, remembered)?;
    }
    opened?;
    Ok(code)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// What docker calls the image's id: the digest of the config, of several platforms that of the index.
fn image_id(built: &Built) -> Option<&str> {
    let get = |name: &str| built.metadata.get(name).and_then(Value::as_str);
    get("containerimage.config.digest").or_else(|| get("containerimage.digest"))
}

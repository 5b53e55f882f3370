//! What `build`, `bake` and `realize` have in common once they know their targets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use cbs_solver::{CacheUse, OnFailure};
use serde_json::{Map, Value};

use super::print;
use crate::build::{Built, Outcome, Settings, build};
use crate::build_args::{CommonBuildArgs, ProgressMode};
use crate::calls;
use crate::gc_policy::collect_when_over;
use crate::planned::Planned;
use crate::progress::human_bytes;
use crate::session::{Session, SolveSettings};

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
    planned: Planned,
    common: &CommonBuildArgs,
    answers: &Answers,
) -> anyhow::Result<ExitCode> {
    if planned.targets.iter().any(|target| target.call.is_some()) {
        return calls::answer(&session, planned);
    }
    let (iidfile, prints) = match answers {
        Answers::One { iidfile, prints } => (iidfile.as_deref(), *prints),
        Answers::PerTarget => (None, false),
    };
    let settings = Settings {
        solve: SolveSettings {
            jobs: common.jobs.or(session.settings.jobs),
            on_failure: if common.keep_going {
                OnFailure::KeepGoing
            } else {
                OnFailure::Stop
            },
            cache: CacheUse::ReadWrite,
        },
        wants_digest: prints || iidfile.is_some() || common.metadata_file.is_some(),
    };
    let Outcome {
        built,
        failure,
        ran,
        mut collected,
    } = build(&session, planned.targets, planned.sources, &settings)?;
    // What is said from here on comes after the last line of progress.
    session.display.finish();
    let is_quiet = matches!(session.progress, ProgressMode::Quiet | ProgressMode::None);
    for remark in built.iter().flat_map(|built| &built.warnings).filter(|_| !is_quiet) {
        eprintln!("warning: {remark}");
    }
    if let Some(path) = &common.metadata_file {
        let text = serde_json::to_string_pretty(&metadata(&built, answers))?;
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
                eprintln!("kept as {root}");
            }
        }
        _ => {}
    }
    if ran > 0 {
        let (store, gc) = (session.store.clone(), session.gc.clone());
        // Its lease would keep all that this build touched.
        drop(session);
        match collect_when_over(&store, &gc) {
            Ok(bytes) => collected += bytes,
            // What was built is there all the same.
            Err(err) => eprintln!("warning: cannot collect: {err:#}"),
        }
    }
    if collected > 0 && !is_quiet {
        eprintln!("gc removed {}", human_bytes(collected));
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn metadata(built: &[Built], answers: &Answers) -> Value {
    match (answers, built) {
        (Answers::One { .. }, [only]) => only.metadata.clone().into(),
        _ => {
            let entries = built
                .iter()
                .map(|built| (built.name.clone(), Value::from(built.metadata.clone())));
            entries.collect::<Map<_, _>>().into()
        }
    }
}

/// What docker calls the image's id: the digest of the config, of several platforms that of the index.
fn image_id(built: &Built) -> Option<&str> {
    let get = |name: &str| built.metadata.get(name).and_then(Value::as_str);
    get("containerimage.config.digest").or_else(|| get("containerimage.digest"))
}

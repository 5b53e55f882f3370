//! Flags about steps that fail or take too long.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::commands::parse_duration;

/// Flags that `build`, `bake` and `realize` share.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DebugArgs {
    /// End a step that takes longer than this, such as 90s, 5m or 1.5h
    #[arg(long, value_name = "DURATION", value_parser = step_timeout)]
    pub(crate) step_timeout: Option<Duration>,
    /// Keep what a failed step left, for `cbs shell`
    #[arg(long)]
    pub(crate) keep_failed: bool,
    /// What to do when a step fails
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(crate) on_failure: Option<OnFailureAction>,
    /// Copy a file or folder out of the failed step: PATH=DEST
    #[arg(long, value_name = "PATH=DEST", value_parser = artifact)]
    pub(crate) artifact_on_failure: Vec<(String, PathBuf)>,
}

/// What to do when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailureAction {
    /// Open a shell in the failed step
    Shell,
}

impl DebugArgs {
    /// Whether the state of failed steps is asked for by any of them.
    pub(crate) fn needs_state(&self) -> bool {
        self.keep_failed || self.on_failure.is_some() || !self.artifact_on_failure.is_empty()
    }
}

fn step_timeout(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|err| err.to_string())?;
    match duration.is_zero() {
        true => Err("it must be more than nothing".to_owned()),
        false => Ok(duration),
    }
}

fn artifact(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((path, dest)) if !path.is_empty() && !dest.is_empty() => Ok((path.to_owned(), PathBuf::from(dest))),
        _ => Err("it must have the form PATH=DEST".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_some_time() {
        assert_eq!(step_timeout("90"), Ok(Duration::from_secs(90)));
        for wrong in ["0", "0ms", "5 years"] {
            assert!(step_timeout(wrong).is_err(), "{wrong}");
        }
    }
}

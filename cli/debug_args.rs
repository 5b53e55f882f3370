//! Flags about steps that fail or take too long.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

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

/// Reads `90s`, `5m`, `1.5h`, `200ms`, or seconds.
fn step_timeout(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        unit => return Err(format!("unit `{unit}` is none of ms, s, m, h")),
    };
    let count: f64 = digits
        .parse()
        .map_err(|_| "it is no duration such as 90s, 5m or 1.5h".to_owned())?;
    match Duration::try_from_secs_f64(count * unit) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be more than nothing".to_owned()),
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
    fn durations_are_read() {
        assert_eq!(step_timeout("90"), Ok(Duration::from_secs(90)));
        assert_eq!(step_timeout("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(step_timeout("200ms"), Ok(Duration::from_millis(200)));
        for wrong in ["", "0", "-1s", "3 days", "nans", "infs", "1e99h"] {
            assert!(step_timeout(wrong).is_err(), "{wrong}");
        }
    }
}

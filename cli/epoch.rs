//! The time that exported images show.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Seconds since 1970 that nothing exported is later than.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// The time.
    pub(crate) seconds: i64,
    /// Who chose it.
    pub(crate) origin: EpochOrigin,
}

/// Who chose an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EpochOrigin {
    /// `SOURCE_DATE_EPOCH`: as with BuildKit, layers are touched only when asked to.
    Given,
    /// The last commit of the context, or nothing at all: layers follow it, so that the same build always gives the same
    /// image.
    Default,
}

/// What stands for a time when there is none: a second past the beginning, since some tools take zero for absent.
const NO_TIME: i64 = 1;

impl Epoch {
    /// The epoch of a build: the one it was given, else that of its context: of one that is elsewhere, else of the
    /// commit in a folder.
    pub(crate) fn choose(given: Option<i64>, remote: Option<i64>, context: Option<&Path>) -> Self {
        match given {
            Some(seconds) => Self {
                seconds,
                origin: EpochOrigin::Given,
            },
            None => Self {
                seconds: remote.or_else(|| context.and_then(commit_time)).unwrap_or(NO_TIME),
                origin: EpochOrigin::Default,
            },
        }
    }
}

/// When the commit that a folder has checked out was made; `None` outside of repositories.
pub(crate) fn commit_time(folder: &Path) -> Option<i64> {
    let folder = folder.canonicalize().ok()?;
    folder
        .ancestors()
        .find(|ancestor| ancestor.join(".git").symlink_metadata().is_ok())?;
    // The owner of the repository may be another one; only an object is read, and nothing of its configuration is run.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C"])
        .arg(&folder)
        .args(["cat-file", "commit", "HEAD"])
        .env("GIT_NO_LAZY_FETCH", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    committer_time(&String::from_utf8_lossy(&output.stdout))
}

fn committer_time(commit: &str) -> Option<i64> {
    let head = commit.split("\n\n").next()?;
    let line = head.lines().find_map(|line| line.strip_prefix("committer "))?;
    line.rsplit(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_commit() {
        let commit =
            "tree 1\nauthor A <a@b> 5 +0100\ncommitter B C <b@c> 1700000000 +0200\n\ncommitter X <x> 1 +0000\n";
        assert_eq!(committer_time(commit), Some(1_700_000_000));
        assert_eq!(committer_time(""), None);
        let folder = tempfile::tempdir().expect("tempdir");
        assert_eq!(Epoch::choose(None, None, Some(folder.path())).seconds, NO_TIME);
        assert_eq!(Epoch::choose(Some(7), Some(8), None).origin, EpochOrigin::Given);
    }
}

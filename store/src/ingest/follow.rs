//! Which paths of a directory are needed to follow some of its symbolic links.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::IngestError;
use crate::StoreError;
use crate::patterns::{Glob, clean_path};

/// More links than this on one path are taken for a circle.
const MAX_LINKS: usize = 255;

/// The paths (patterns, with wildcards where `paths` have some) that must be taken along so that each of `paths` can
/// be followed within `root`: the links on the way and where they lead. `None` when that is everything. Paths that do
/// not exist stay as they are.
///
/// # Errors
/// [`IngestError::Pattern`], and when a directory cannot be read.
pub fn follow_links<S: AsRef<str>>(root: &Path, paths: &[S]) -> Result<Option<Vec<String>>, IngestError> {
    let mut follower = Follower {
        root,
        needed: BTreeSet::new(),
        seen: BTreeSet::new(),
    };
    for path in paths {
        follower.follow(path.as_ref(), 0)?;
    }
    let mut kept: Vec<String> = Vec::new();
    for path in follower.needed {
        if path == "." {
            return Ok(None);
        }
        // Sorted, so that a directory comes before what is in it.
        let covered = kept.iter().any(|parent| {
            path.strip_prefix(parent.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if !covered {
            kept.push(path);
        }
    }
    Ok(Some(kept))
}

struct Follower<'a> {
    root: &'a Path,
    needed: BTreeSet<String>,
    /// Links that were followed, with what came behind them.
    seen: BTreeSet<(String, String)>,
}

impl Follower<'_> {
    fn follow(&mut self, path: &str, links: usize) -> Result<(), IngestError> {
        let cleaned = clean_path(&format!("/{path}"));
        let mut current = String::new();
        let mut rest = cleaned.trim_start_matches('/');
        if rest.is_empty() {
            self.needed.insert(".".to_owned());
            return Ok(());
        }
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('/').unwrap_or((rest, ""));
            let parent = current.clone();
            if !current.is_empty() {
                current.push('/');
            }
            current.push_str(name);
            rest = behind;
            let targets = self.targets(&parent, name)?;
            if targets.is_empty() {
                continue;
            }
            self.needed.insert(current.clone());
            if links < MAX_LINKS && self.seen.insert((current, rest.to_owned())) {
                for target in targets {
                    self.follow(&format!("{target}/{rest}"), links + 1)?;
                }
            }
            return Ok(());
        }
        self.needed.insert(current);
        Ok(())
    }

    /// Where the links of this name, or those that match it, lead: absolute paths within the root.
    fn targets(&self, parent: &str, name: &str) -> Result<Vec<String>, IngestError> {
        let directory = self.root.join(parent);
        let mut targets = Vec::new();
        let mut read = |name: &std::ffi::OsStr| -> Result<(), IngestError> {
            let path = directory.join(name);
            match std::fs::read_link(&path) {
                Ok(target) => {
                    // A target that is no text cannot be named by a pattern.
                    if let Ok(target) = str::from_utf8(target.as_os_str().as_bytes()) {
                        targets.push(if target.starts_with('/') {
                            clean_path(target)
                        } else {
                            clean_path(&format!("/{parent}/{target}"))
                        });
                    }
                    Ok(())
                }
                Err(err) if is_none(&err) || err.kind() == io::ErrorKind::InvalidInput => Ok(()),
                Err(err) => Err(StoreError::io("read link", &path)(err).into()),
            }
        };
        if !name.contains(['*', '?', '[']) {
            read(name.as_ref())?;
            return Ok(targets);
        }
        let glob = Glob::new(name)?;
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(err) if is_none(&err) => return Ok(Vec::new()),
            Err(err) => return Err(StoreError::io("read directory", &directory)(err).into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read directory", &directory))?;
            if glob.matches(entry.file_name().as_bytes()) {
                names.push(entry.file_name());
            }
        }
        names.sort();
        names.iter().try_for_each(|name| read(name))?;
        Ok(targets)
    }
}

fn is_none(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

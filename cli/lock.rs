//! `cbs.lock`: what the mutable sources of targets were when they were locked. It lies beside the file that was built.
//!
//! ```json
//! { "version": 1,
//!   "pins": { "docker-image://docker.io/library/alpine:3": "sha256:…", "https://…": "sha256:…", "git://host/x#main": "<commit>" },
//!   "targets": { "docker-bake.hcl#app": ["docker-image://docker.io/library/alpine:3", …] } }
//! ```
//! A source has one pin for all targets of the file; a pin that no target uses is dropped when the file is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cbs_exec::Pins;
use serde::{Deserialize, Serialize};

use crate::failure::Usage;
use crate::target::BuildTarget;

/// The name of the file.
const FILE: &str = "cbs.lock";
/// Bumped when old programs would misread new files.
const VERSION: u32 = 1;

/// The contents of a `cbs.lock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    version: u32,
    /// What each source is: a digest or a commit.
    pub(crate) pins: BTreeMap<String, String>,
    /// The sources of each target.
    pub(crate) targets: BTreeMap<String, BTreeSet<String>>,
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            version: VERSION,
            pins: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }
}

impl Lock {
    /// Reads the file; `None` when there is none.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let shown = path.display();
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err).with_context(|| format!("cannot read `{shown}`")),
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = || format!("`{shown}` is no lock file of this program; write it anew with `cbs lock`");
        let Versioned { version } = serde_json::from_slice(&text).with_context(malformed)?;
        if version != VERSION {
            bail!("`{shown}` has version {version}, and this program reads version {VERSION}");
        }
        serde_json::from_slice(&text).map(Some).with_context(malformed)
    }

    /// Replaces what is known of a target.
    pub(crate) fn set(&mut self, target: String, pins: BTreeMap<String, String>) {
        self.targets.insert(target, pins.keys().cloned().collect());
        self.pins.extend(pins);
        let used: BTreeSet<&String> = self.targets.values().flatten().collect();
        self.pins.retain(|source, _| used.contains(source));
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        let staged = path.with_extension(format!("lock.{}", std::process::id()));
        let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, path));
        if written.is_err() {
            // What cannot be written often cannot be removed either; the first error is the one to tell.
            std::fs::remove_file(&staged).unwrap_or_default();
        }
        written.with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// Where the lock of a target is, and what it is called there. `None` when what was built is no file of this machine.
pub(crate) fn place(target: &BuildTarget) -> Option<(PathBuf, String)> {
    let root = target.root.as_str();
    let whole = (root, "");
    let split = root.rsplit_once('#');
    let (path, stage) = std::iter::once(whole)
        .chain(split)
        .find(|(path, _)| Path::new(path).is_absolute() && Path::new(path).exists())?;
    let path = Path::new(path);
    let (folder, name) = if path.is_dir() {
        (path, ".".to_owned())
    } else {
        (path.parent()?, path.file_name()?.to_string_lossy().into_owned())
    };
    let name = if stage.is_empty() {
        name
    } else {
        format!("{name}#{stage}")
    };
    Some((folder.join(FILE), name))
}

/// The pins that targets are held to with `--locked`.
pub(crate) fn load(targets: &[BuildTarget]) -> anyhow::Result<Pins> {
    let mut pins: BTreeMap<String, String> = BTreeMap::new();
    let mut read = BTreeSet::new();
    for target in targets {
        let Some((path, _)) = place(target) else {
            bail!(Usage(format!(
                "--locked: target `{}` is not built from a file of this machine, so nothing can lie beside it",
                target.name
            )));
        };
        if !read.insert(path.clone()) {
            continue;
        }
        let shown = path.display();
        let lock =
            Lock::read(&path)?.with_context(|| format!("--locked: there is no `{shown}`; write it with `cbs lock`"))?;
        for (source, pin) in lock.pins {
            match pins.insert(source.clone(), pin.clone()) {
                Some(other) if other != pin => {
                    bail!("`{source}` is {pin} in `{shown}`, and {other} in another lock file")
                }
                _ => {}
            }
        }
    }
    Ok(Pins::locked(pins))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn pins_stay_while_a_target_uses_them() {
        let mut lock = Lock::default();
        lock.set("f#a".into(), pins(&[("x", "1"), ("y", "1")]));
        lock.set("f#b".into(), pins(&[("y", "2"), ("z", "1")]));
        assert_eq!(lock.pins, pins(&[("x", "1"), ("y", "2"), ("z", "1")]));
        lock.set("f#a".into(), pins(&[]));
        assert_eq!(lock.pins, pins(&[("y", "2"), ("z", "1")]));
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join(FILE);
        assert_eq!(Lock::read(&path).expect("absent"), None);
        lock.write(&path).expect("writes");
        assert_eq!(Lock::read(&path).expect("reads"), Some(lock));
        std::fs::write(&path, r#"{"version":2,"pins":[]}"#).expect("write");
        let message = Lock::read(&path).expect_err("newer").to_string();
        assert!(message.contains("version 2"), "{message}");
    }
}

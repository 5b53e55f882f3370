//! Definitions whose paths are relative to the file they are in, not to the working directory.

use std::collections::HashMap;

use super::model::Target;
use super::paths::{join, parent};
use super::remote::is_remote_url;

/// A context path as seen from the working directory. URLs, other targets and images have no folder.
pub(crate) fn rebase(base: &str, path: &str) -> String {
    let is_special = ["cwd://", "target:", "docker-image:", "oci-layout://"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
        || is_remote_url(path);
    if base.is_empty() || path.is_empty() || path.starts_with('/') || is_special {
        return String::from(path);
    }
    join(base, path)
}

/// The folder of a file, seen from the working directory; empty for what is not in the file system.
pub(crate) fn folder_of(file: &str) -> String {
    if file.is_empty() || file == "-" || is_remote_url(file) {
        String::new()
    } else {
        parent(file)
    }
}

/// Remembers that targets are all defined in one file.
pub(crate) fn set_bases(targets: &mut [Target], file: &str) {
    let base = folder_of(file);
    for target in targets {
        target.bases.file = Some(base.clone());
        if target.context.is_some() {
            target.bases.context = Some(base.clone());
        }
        target.bases.contexts = target
            .contexts
            .keys()
            .map(|name| (name.clone(), base.clone()))
            .collect();
    }
}

/// Rebases the contexts of all targets.
pub(crate) fn rebase_all(targets: &mut [Target]) {
    // A context that was taken over from another target keeps the folder it has there.
    let bases: HashMap<String, Option<String>> = targets
        .iter()
        .map(|target| {
            (
                target.name.clone(),
                target.bases.context.clone().or_else(|| target.bases.file.clone()),
            )
        })
        .collect();
    for target in targets {
        let of = target
            .bases
            .context_of
            .as_ref()
            .and_then(|name| bases.get(name))
            .cloned()
            .flatten();
        if let Some(base) = of {
            target.bases.context = Some(base);
        }
        match &mut target.context {
            Some(context) => {
                if let Some(base) = &target.bases.context {
                    *context = rebase(base, context);
                }
            }
            None => target.bases.use_file = target.bases.file.is_some(),
        }
        for (name, context) in &mut target.contexts {
            if let Some(base) = target.bases.contexts.get(name) {
                *context = rebase(base, context);
            }
        }
    }
}

//! Definitions whose paths are relative to the file they are in, not to the working directory.

use std::collections::HashMap;

use super::model::Target;
use super::paths::join;
use super::remote::is_remote_url;

/// A context path as seen from the working directory. URLs, other targets and images have no folder.
pub(crate) fn rebase(base: &str, path: &str) -> String {
    let is_special = ["cwd://", "target:", "docker-image:", "oci-layout://"].iter().any(|prefix| path.starts_with(prefix))
        || is_remote_url(path);
    if base.is_empty() || path.is_empty() || path.starts_with('/') || is_special {
        return String::from(path);
    }
    join(base, path)
}

/// Rebases the contexts of all targets.
pub(crate) fn rebase_all(targets: &mut [Target]) {
    // A context that was taken over from another target keeps the folder it has there.
    let bases: HashMap<String, Option<String>> = targets
        .iter()
        .map(|target| (target.name.clone(), target.bases.context.clone().or_else(|| target.bases.file.clone())))
        .collect();
    for target in targets {
        let of = target.bases.context_of.as_ref().and_then(|name| bases.get(name)).cloned().flatten();
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

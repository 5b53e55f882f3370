//! The names of settings, for people.

use toml_edit::{Item, Key, Table};

/// A setting people can ask for and change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Its name; `*` stands for any.
    pub(crate) key: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
    /// A file that has it.
    pub(crate) example: &'static str,
}

/// All settings.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "store",
        help: "folder of the store",
        example: "store = \"/var/lib/cbs\"",
    },
    Setting {
        key: "build.jobs",
        help: "how many steps run at once",
        example: "[build]\njobs = 4",
    },
    Setting {
        key: "build.progress",
        help: "auto, tty, plain, rawjson, quiet or none",
        example: "[build]\nprogress = \"plain\"",
    },
    Setting {
        key: "build.platforms",
        help: "platforms of targets that name none",
        example: "[build]\nplatforms = [\"linux/amd64\"]",
    },
    Setting {
        key: "build.lower-mode",
        help: "how trees lie below a step: auto, data-only or plain",
        example: "[build]\nlower-mode = \"plain\"",
    },
    Setting {
        key: "build.emulation",
        help: "steps of other machines: auto, never, or the folder that qemu's emulators are taken from",
        example: "[build]\nemulation = \"never\"",
    },
    Setting {
        key: "registry.*.mirrors",
        help: "hosts to ask before the registry itself",
        example: "[registry.\"docker.io\"]\nmirrors = [\"mirror.example\"]",
    },
    Setting {
        key: "registry.*.http",
        help: "plain http",
        example: "[registry.\"registry.example:5000\"]\nhttp = true",
    },
    Setting {
        key: "registry.*.insecure",
        help: "https with any certificate, else plain http",
        example: "[registry.\"registry.example\"]\ninsecure = true",
    },
    Setting {
        key: "registry.*.ca",
        help: "PEM files of certificate authorities to trust, too",
        example: "[registry.\"registry.example\"]\nca = [\"/etc/ssl/own.pem\"]",
    },
    Setting {
        key: "gc.automatic",
        help: "collect when builds leave the store over a rule's sizes",
        example: "[gc]\nautomatic = false",
    },
    Setting {
        key: "gc.keep-results",
        help: "results of a target that are roots: the last one and those before it",
        example: "[gc]\nkeep-results = 3",
    },
    Setting {
        key: "gc.policy",
        help: "rules of what goes, in order; without any, the built-in ones",
        example: "[[gc.policy]]\nfilters = [\"type==exec.cachemount\"]\nkeep-duration = \"48h\"\nmax-used-space = \"20GB\"",
    },
];

/// A name that is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// It is not written as TOML writes names.
    #[error("`{key}` is no name of a setting: {reason}")]
    Malformed {
        /// What was given.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such setting.
    #[error("there is no setting `{key}`; there are {}", list())]
    Unknown {
        /// What was given.
        key: String,
    },
}

fn list() -> String {
    let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    names.join(", ")
}

/// The parts of a name that a setting has, or that settings are below.
///
/// # Errors
/// [`KeyError`] for a name that is none.
pub(crate) fn known(key: &str) -> Result<Vec<String>, KeyError> {
    let parts = Key::parse(key).map_err(|err| KeyError::Malformed {
        key: key.to_owned(),
        reason: err.to_string().trim().replace('\n', " "),
    })?;
    let parts: Vec<String> = parts.iter().map(|part| part.get().to_owned()).collect();
    let fits = |setting: &Setting| {
        let names: Vec<&str> = setting.key.split('.').collect();
        parts.len() <= names.len() && parts.iter().zip(names).all(|(part, name)| name == "*" || part == name)
    };
    if SETTINGS.iter().any(fits) {
        Ok(parts)
    } else {
        Err(KeyError::Unknown { key: key.to_owned() })
    }
}

/// What a document says about a setting.
pub(crate) fn find<'d>(document: &'d Table, parts: &[String]) -> Option<&'d Item> {
    let (first, rest) = parts.split_first()?;
    let item = document.get(first)?;
    match rest {
        [] => Some(item),
        rest => find(item.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_toml_names() {
        assert_eq!(known("build.jobs").expect("known"), ["build", "jobs"]);
        assert_eq!(
            known("registry.\"docker.io\".mirrors").expect("known"),
            ["registry", "docker.io", "mirrors"]
        );
        assert!(known("build").is_ok());
        assert!(matches!(known("build.job"), Err(KeyError::Unknown { .. })));
        assert!(matches!(
            known("registry.docker.io.mirrors"),
            Err(KeyError::Unknown { .. })
        ));
        assert!(matches!(known("a b"), Err(KeyError::Malformed { .. })));
    }
}

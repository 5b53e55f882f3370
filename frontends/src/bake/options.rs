//! What a caller says about a bake: the flags of `docker buildx bake`, and what it knows of its surroundings.

use std::collections::BTreeMap;

use super::entries::{Attestation, Policy};
use super::error::BakeError;
use crate::dockerfile::go::parse_bool;

/// Everything that decides what a definition comes to, besides the files themselves.
///
/// Nothing is read from the process: the environment, the working directory and the time are given.
#[derive(Clone, Debug, Default)]
pub struct BakeOptions {
    /// `-f`, in order; empty for the files of the default names. `-` is stdin, `cwd://x` a local file of a remote bake.
    pub files: Vec<String>,
    /// The positional words: targets, groups and patterns, before them a remote definition and a remote context.
    pub targets: Vec<String>,
    /// `--set target.key=value`, in order.
    pub overrides: Vec<String>,
    /// `--var name=value`, in order.
    pub variables: Vec<String>,
    /// `--no-cache`, if given.
    pub no_cache: Option<bool>,
    /// `--pull`, if given.
    pub pull: Option<bool>,
    /// Whether `--push` is given.
    pub push: bool,
    /// Whether `--load` is given.
    pub load: bool,
    /// `--call`, if given; `--check` is `check`.
    pub call: Option<String>,
    /// `--provenance`, if given.
    pub provenance: Option<String>,
    /// `--sbom`, if given.
    pub sbom: Option<String>,
    /// `--allow`, in order.
    pub allow: Vec<String>,
    /// `--policy`, in order.
    pub policies: Vec<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The absolute path that relative paths start from.
    pub working_directory: String,
    /// The home directory of the user.
    pub home_directory: String,
    /// Seconds since 1970.
    pub now: i64,
    /// The platform of this machine, such as `linux/amd64`.
    pub local_platform: String,
}

/// What `--call` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `lint`, `outline`, `targets`, …
    pub method: String,
    /// `json`, or empty for text.
    pub format: String,
    /// Whether the exit status tells nothing about the result.
    pub ignore_status: bool,
}

impl Call {
    /// Reads the value of `--call`; `None` for a plain build.
    ///
    /// # Errors
    /// [`BakeError::Flag`] when it is malformed.
    pub fn parse(text: &str) -> Result<Option<Call>, BakeError> {
        if text.is_empty() {
            return Ok(None);
        }
        let fail = |reason: String| BakeError::Flag {
            flag: "--call",
            value: String::from(text),
            reason,
        };
        let mut call = Call {
            method: String::new(),
            format: String::new(),
            ignore_status: false,
        };
        for field in super::csv_line::split_fields(text, ',').map_err(fail)? {
            match field.split_once('=') {
                Some(("format", value)) => call.format = String::from(value),
                Some(("ignorestatus", value)) => {
                    call.ignore_status = parse_bool(value).ok_or_else(|| fail(format!("{value:?} is no bool")))?;
                }
                Some(_) => return Err(fail(format!("{field:?} is unknown"))),
                None if call.method.is_empty() => call.method = field,
                None => return Err(fail(String::from("only one method can be called"))),
            }
        }
        if call.method == "check" {
            call.method = String::from("lint");
        }
        Ok(if call.method == "build" { None } else { Some(call) })
    }
}

/// The positional words, sorted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Positional {
    pub(crate) url: Option<String>,
    pub(crate) command_context: String,
    pub(crate) targets: Vec<String>,
}

impl BakeOptions {
    pub(crate) fn positional(&self) -> Positional {
        let mut words = self.targets.as_slice();
        let mut take_url = || match words.split_first() {
            Some((first, rest)) if super::remote::is_remote_url(first) => {
                words = rest;
                Some(first.clone())
            }
            _ => None,
        };
        let url = take_url();
        let context = url.as_ref().and_then(|_| take_url());
        let targets = if words.is_empty() {
            vec![String::from("default")]
        } else {
            words.to_vec()
        };
        Positional {
            url,
            command_context: context.unwrap_or_else(|| String::from("cwd://")),
            targets,
        }
    }

    /// All overrides: those of `--set`, then the flags that stand for some.
    pub(crate) fn all_overrides(&self) -> Result<AllOverrides, BakeError> {
        let mut settings = self.overrides.clone();
        if self.push {
            settings.push(String::from("*.push=true"));
        }
        if self.load {
            settings.push(String::from("*.load=true"));
        }
        if let Some(call) = Call::parse(self.call.as_deref().unwrap_or(""))? {
            settings.push(format!("*.call={}", call.method));
        }
        if let Some(no_cache) = self.no_cache {
            settings.push(format!("*.no-cache={no_cache}"));
        }
        if let Some(pull) = self.pull {
            settings.push(format!("*.pull={pull}"));
        }
        for (kind, value) in [("sbom", &self.sbom), ("provenance", &self.provenance)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                settings.push(format!("*.attest={}", Attestation::from_flag(kind, value)));
            }
        }
        let mut without_policies = false;
        for text in &self.policies {
            let fail = |reason: String| BakeError::Flag {
                flag: "--policy",
                value: text.clone(),
                reason,
            };
            let policy = Policy::parse(text).map_err(|error| fail(error.to_string()))?;
            if !policy.files.is_empty() || policy.reset {
                return Err(fail(String::from("filename and reset belong in the definition")));
            }
            if policy.disabled {
                if self.policies.len() > 1 || policy.strict.is_some() || policy.log_level.is_some() {
                    return Err(fail(String::from("disabled cannot be combined with anything else")));
                }
                without_policies = true;
            } else {
                settings.push(format!("*.policy+={text}"));
            }
        }
        Ok(AllOverrides {
            settings,
            without_policies,
        })
    }

    /// `--var` as a map; later ones win.
    pub(crate) fn variable_map(&self) -> Result<BTreeMap<String, String>, BakeError> {
        let mut map = BTreeMap::new();
        for text in self.variables.iter().filter(|text| !text.is_empty()) {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    map.insert(String::from(name), String::from(value));
                }
                _ => {
                    let reason = String::from("it must have the form name=value");
                    return Err(BakeError::Flag {
                        flag: "--var",
                        value: text.clone(),
                        reason,
                    });
                }
            }
        }
        Ok(map)
    }

    /// Whether variables and `--set x.args.NAME` see the environment.
    pub(crate) fn sees_environment(&self) -> bool {
        let disabled = self
            .environment
            .get("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")
            .and_then(|text| parse_bool(text));
        disabled != Some(true)
    }

    /// Whether paths in a file are relative to that file.
    pub(crate) fn file_relative_paths(&self) -> Result<bool, BakeError> {
        const NAME: &str = "BUILDX_BAKE_FILE_RELATIVE_PATHS";
        let text = self.environment.get(NAME).map_or("", |text| text.trim());
        if text.is_empty() {
            return Ok(false);
        }
        parse_bool(text).ok_or_else(|| BakeError::Environment {
            name: NAME,
            value: String::from(text),
        })
    }
}

/// [`BakeOptions::all_overrides`].
pub(crate) struct AllOverrides {
    pub(crate) settings: Vec<String>,
    /// Set by `--policy disabled=true`.
    pub(crate) without_policies: bool,
}

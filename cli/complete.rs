//! What a shell offers at the cursor: besides flags and commands, names of targets, variables and results.
//!
//! The script that `cbs completion SHELL` prints has the program called back with [`VARIABLE`] set, so that it offers
//! what this folder's bake file says now. A file that is wrong offers nothing: this is no place for messages.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use cbs_frontends::bake::{BakeOptions, ListFormat, Listed, Listing, LocalHost, NoFetcher, list};
use cbs_store::Access;
use clap::CommandFactory as _;
use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter as _};
use clap_complete::env::{CompleteEnv, Shells};

use crate::args::{Cli, Global};
use crate::build_args::CommonBuildArgs;
use crate::commands::open_store;
use crate::config::{Files, SETTINGS};
use crate::planned::bake_options;

/// Set when a shell asks.
const VARIABLE: &str = "CBS_COMPLETE";

/// Answers a shell and ends the process, if it was one that called.
pub(crate) fn answer_shell() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// The script that makes a shell ask.
pub(crate) fn script(shell: &str) -> anyhow::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let Some(found) = shells.completer(shell) else {
        let names: Vec<&str> = shells.names().collect();
        anyhow::bail!(
            "there is no completion for `{shell}`; there is one for {}",
            names.join(", ")
        );
    };
    let mut text = Vec::new();
    found.write_registration(VARIABLE, "cbs", "cbs", "cbs", &mut text)?;
    Ok(text)
}

/// The words behind the command that a shell completes.
fn words() -> Vec<OsString> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let behind = words.iter().position(|word| word == "--").map_or(1, |at| at + 2);
    words.into_iter().skip(behind).collect()
}

/// The values given for a flag so far.
fn given(long: &str, short: &str) -> Vec<String> {
    let words = words();
    let mut values = Vec::new();
    let mut words = words.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if word == long || word == short {
            values.extend(words.next().map(str::to_owned));
        } else if let Some(value) = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
            values.push(value.to_owned());
        } else if let Some(value) = word.strip_prefix(short).filter(|value| !value.is_empty()) {
            values.push(value.to_owned());
        }
    }
    values
}

/// Names and descriptions out of a definition.
fn listed(what: Listed, options: &BakeOptions) -> Vec<(String, String)> {
    let listing = Listing {
        what,
        format: ListFormat::Json,
    };
    let text = list(options, listing, &LocalHost, &NoFetcher).unwrap_or_default();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.iter()
        .map(|row| (text(row, "name"), text(row, "description")))
        .collect()
}

/// The definition that the words so far name.
fn definition() -> Option<BakeOptions> {
    let files = given("--file", "-f");
    if files.iter().any(|file| file == "-") {
        return None;
    }
    Some(BakeOptions {
        files,
        ..bake_options(&CommonBuildArgs::default()).ok()?
    })
}

fn candidates(
    names: impl IntoIterator<Item = (String, String)>,
    current: &OsStr,
    ending: &str,
) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let fitting = names.into_iter().filter(|(name, _)| name.starts_with(current));
    fitting
        .map(|(name, help)| {
            CompletionCandidate::new(format!("{name}{ending}")).help((!help.is_empty()).then(|| help.into()))
        })
        .collect()
}

/// Targets and groups, for `cbs bake`.
pub(crate) fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(options) = definition() else {
        return Vec::new();
    };
    candidates(listed(Listed::Targets, &options), current, "")
}

/// `TARGET.`, for `--set`.
pub(crate) fn overrides(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(options) = definition() else {
        return Vec::new();
    };
    candidates(listed(Listed::Targets, &options), current, ".")
}

/// `NAME=`, for `--var`.
pub(crate) fn variables(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(options) = definition() else {
        return Vec::new();
    };
    candidates(listed(Listed::Variables, &options), current, "=")
}

/// Files, and `FILE#TARGET` behind the name of a bake file.
pub(crate) fn references(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some((file, _)) = current.to_str().and_then(|text| text.split_once('#')) else {
        return PathCompleter::any().complete(current);
    };
    let Ok(options) = bake_options(&CommonBuildArgs::default()) else {
        return Vec::new();
    };
    let path = Path::new(&options.working_directory).join(file);
    let options = if path.is_dir() {
        BakeOptions {
            working_directory: path.to_string_lossy().into_owned(),
            ..options
        }
    } else {
        BakeOptions {
            files: vec![file.to_owned()],
            ..options
        }
    };
    let names = listed(Listed::Targets, &options).into_iter();
    candidates(names.map(|(name, help)| (format!("{file}#{name}"), help)), current, "")
}

/// What is kept in the store.
pub(crate) fn roots(current: &OsStr) -> Vec<CompletionCandidate> {
    let store = given("--store", "--store").pop().map(Into::into);
    let store = store.or_else(|| std::env::var_os("CBS_STORE").map(Into::into));
    let config = given("--config", "--config").pop().map(std::path::PathBuf::from);
    let settings = Files::of(config.as_deref()).load().map(|(settings, _)| settings);
    let global = Global {
        store,
        config,
        settings: settings.unwrap_or_default(),
        ..Global::default()
    };
    let roots = open_store(&global, Access::ReadOnly).and_then(|store| Ok(store.gc_roots()?));
    let names = roots
        .unwrap_or_default()
        .into_iter()
        .map(|root| (root.name, String::new()));
    candidates(names, current, "")
}

/// Names of settings.
pub(crate) fn settings(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = SETTINGS
        .iter()
        .map(|setting| (setting.key.to_owned(), setting.help.to_owned()));
    candidates(names, current, "")
}

/// What docker's own completion asks its plugins: `__complete cbs bake a`. One candidate a line, then a directive.
pub(crate) fn answer_docker(words: &[OsString]) -> String {
    let mut command = Cli::command();
    command.build();
    let mut args = vec![OsString::from("cbs")];
    args.extend_from_slice(words);
    let at = args.len() - 1;
    let found = clap_complete::engine::complete(&mut command, args, at, std::env::current_dir().ok().as_deref());
    let mut text = String::new();
    for candidate in found.unwrap_or_default() {
        text.push_str(&candidate.get_value().to_string_lossy());
        if let Some(help) = candidate.get_help() {
            let help = help.to_string();
            text.push('\t');
            text.push_str(help.lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    // 4: no file names when nothing fits.
    text.push_str(":4\n");
    text
}

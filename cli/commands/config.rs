//! `cbs config`: looks at the settings and changes them.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use toml_edit::{DocumentMut, Item};

use super::print;
use crate::args::Global;
use crate::complete;
use crate::config::{Change, Files, Layer, SETTINGS, edit, find, known};
use crate::failure::Usage;

/// `cbs config`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what is set, from all files
    Show,
    /// Print one setting; exit code 1 when it is not set
    Get {
        /// Its name, such as build.jobs
        #[arg(add = ArgValueCompleter::new(complete::settings))]
        key: String,
    },
    /// Change one setting
    Set {
        /// Its name, such as build.jobs or 'registry."docker.io".mirrors'
        #[arg(add = ArgValueCompleter::new(complete::settings))]
        key: String,
        /// A value in TOML, such as 4 or '["a", "b"]'; other text stands for itself
        value: String,
        /// For the whole machine, in /etc/cbs/config.toml
        #[arg(long)]
        system: bool,
    },
    /// Leave one setting to its default
    Unset {
        /// Its name
        #[arg(add = ArgValueCompleter::new(complete::settings))]
        key: String,
        /// For the whole machine, in /etc/cbs/config.toml
        #[arg(long)]
        system: bool,
    },
    /// Print the files that settings are read from
    Path,
    /// List what can be set, with an example of each
    Keys,
}

/// Runs it.
pub(crate) fn run(global: &Global, command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let files = Files::of(global.config.as_deref());
    match command {
        ConfigCommand::Show => print(&DocumentMut::from(files.load()?.1).to_string())?,
        ConfigCommand::Get { key } => {
            let parts = known(key).map_err(|err| Usage(err.to_string()))?;
            let (_, document) = files.load()?;
            match find(&document, &parts) {
                Some(Item::Value(value)) => {
                    let bare = value.as_str().map(str::to_owned);
                    let text = bare.unwrap_or_else(|| value.to_string().trim().to_owned());
                    print(&format!("{text}\n"))?;
                }
                Some(Item::Table(table)) => print(&DocumentMut::from(table.clone()).to_string())?,
                Some(item) => print(&format!("{}\n", item.to_string().trim()))?,
                None => return Ok(ExitCode::FAILURE),
            }
        }
        ConfigCommand::Set { key, value, system } => change(&files, key, Change::Set(value), *system)?,
        ConfigCommand::Unset { key, system } => change(&files, key, Change::Unset, *system)?,
        ConfigCommand::Path => {
            for (layer, path) in &files.0 {
                let absent = if path.exists() { "" } else { " (not there)" };
                print(&format!("{:8} {}{absent}\n", layer.name(), path.display()))?;
            }
        }
        ConfigCommand::Keys => {
            for setting in SETTINGS {
                print(&format!("# {}: {}\n{}\n\n", setting.key, setting.help, setting.example))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(files: &Files, key: &str, change: Change<'_>, system: bool) -> anyhow::Result<()> {
    let parts = known(key).map_err(|err| Usage(err.to_string()))?;
    let is_it = |layer: Layer| match layer {
        Layer::System => system,
        Layer::User => !system,
        Layer::Only => true,
    };
    let Some((_, path)) = files.0.iter().find(|(layer, _)| is_it(*layer)) else {
        bail!("neither XDG_CONFIG_HOME nor HOME says where your settings are; use --system or --config FILE")
    };
    edit(path, &parts, change)
}

//! `cbs completion` and `cbs man`: what packagers install beside the program.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{print, print_bytes};
use crate::args::Cli;
use crate::complete::script;

/// `cbs completion`.
pub(crate) fn run(shell: &str) -> anyhow::Result<ExitCode> {
    print_bytes(&script(shell)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `cbs man`.
pub(crate) fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{shown}`"))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    // Pages are named after commands: cbs-store-ls.1.
    command.build();
    let written = write_pages(&command, folder).with_context(|| format!("cannot write to `{shown}`"))?;
    print(&format!("{written} pages in {shown}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: &clap::Command, folder: &Path) -> std::io::Result<usize> {
    let page = clap_mangen::Man::new(command.clone());
    page.generate_to(folder)?;
    let mut count = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        count += write_pages(below, folder)?;
    }
    Ok(count)
}

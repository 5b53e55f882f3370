//! The `cbs` command.

#[macro_use]
mod tell;

mod args;
mod artifacts;
mod build;
mod build_args;
mod calls;
mod commands;
mod complete;
mod config;
mod consent;
mod debug_args;
mod docker_plugin;
mod drawing;
mod epoch;
mod export;
mod failed;
mod failure;
mod fetcher;
mod filters;
mod flag_errors;
mod gc_policy;
mod inputs;
mod legacy_args;
mod lenient;
mod live;
mod lock;
mod lower;
mod metadata;
mod missing;
mod output;
mod output_checks;
mod planned;
mod progress;
mod recheck;
mod record;
mod remote;
mod resolver;
mod roots;
mod session;
mod source_time;
mod sources;
mod standing;
mod steps;
mod target;
mod terminal;
mod tried;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use config::Files;
use docker_plugin::Asked;
use failure::Verbosity;

fn main() -> ExitCode {
    complete::answer_shell();
    let mut cli = match docker_plugin::asked(std::env::args_os()) {
        Asked::Command { words, docker_config } => {
            let mut cli = Cli::parse_from(words);
            cli.global.docker_config = docker_config;
            cli
        }
        Asked::Metadata => return say(&docker_plugin::metadata()),
        Asked::Completion(words) => return say(&complete::answer_docker(&words)),
    };
    // They say where the store is.
    let settings = read_settings(&mut cli);
    standing::take(&mut cli);
    let result = settings.and_then(|()| run(&cli));
    result.unwrap_or_else(|error| {
        failure::report(&error, cli.global.verbosity());
        ExitCode::from(failure::exit_code(&error))
    })
}

fn say(text: &str) -> ExitCode {
    match commands::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            failure::report(&error, Verbosity::Short);
            ExitCode::FAILURE
        }
    }
}

/// Settings apply to everything but the commands that mend them.
fn read_settings(cli: &mut Cli) -> anyhow::Result<()> {
    let read = Files::of(cli.global.config.as_deref()).load();
    match &cli.command {
        Command::Config(_) | Command::Completion { .. } | Command::Man { .. } => {}
        // It tells about files that are wrong, among other things.
        Command::Doctor(_) => cli.global.settings = read.map(|(settings, _)| settings).unwrap_or_default(),
        _ => cli.global.settings = read?.0,
    }
    Ok(())
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Build(args) => commands::build::run(&cli.global, args),
        Command::Bake(args) => commands::bake::run(&cli.global, args),
        Command::Realize(args) => commands::realize::run(&cli.global, args),
        Command::Check(args) => commands::check::run(&cli.global, args),
        Command::Context(command) => commands::context::run(command),
        Command::Lock(args) => commands::lock::run(&cli.global, args),
        Command::Plan(args) => commands::plan::run(&cli.global, args),
        Command::Export(args) => commands::export::run(&cli.global, args),
        Command::Shell(args) => commands::shell::run(&cli.global, args),
        Command::Cache(command) => commands::cache::run(&cli.global, command),
        Command::Log(args) => commands::log::run(&cli.global, args),
        Command::Gc(args) => commands::gc::run(&cli.global, args),
        Command::Du(args) => commands::du::run(&cli.global, args),
        Command::Store(command) => commands::store::run(&cli.global, command),
        Command::Mount(args) => commands::mount::run(&cli.global, args),
        Command::Roots(args) => commands::roots::list(&cli.global, args),
        Command::Pin(args) => commands::roots::pin(&cli.global, args),
        Command::Unpin(args) => commands::roots::unpin(&cli.global, args),
        Command::Why(args) => commands::why::run(&cli.global, args),
        Command::Graph(args) => commands::graph::run(&cli.global, args),
        Command::Config(command) => commands::config::run(&cli.global, command),
        Command::Doctor(args) => commands::doctor::run(&cli.global, args),
        Command::Completion { shell } => commands::completion::run(shell),
        Command::Man { dir } => commands::completion::man(dir),
    }
}

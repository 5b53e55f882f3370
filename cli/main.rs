//! The `cbs` command.

mod args;
mod build;
mod build_args;
mod calls;
mod commands;
mod drawing;
mod epoch;
mod export;
mod failure;
mod fetcher;
mod filters;
mod gc_policy;
mod lower;
mod output;
mod planned;
mod progress;
mod record;
mod remote;
mod resolver;
mod roots;
mod session;
mod sources;
mod steps;
mod target;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Build(_) | Command::Bake(_) | Command::Realize(_)) {
        session::isolate_mounts();
    }
    let result = match &cli.command {
        Command::Build(args) => commands::build::run(&cli.global, args),
        Command::Bake(args) => commands::bake::run(&cli.global, args),
        Command::Realize(args) => commands::realize::run(&cli.global, args),
        Command::Plan(args) => commands::plan::run(&cli.global, args),
        Command::Export(args) => commands::export::run(&cli.global, args),
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
    };
    result.unwrap_or_else(|error| {
        failure::report(&error);
        ExitCode::from(failure::exit_code(&error))
    })
}

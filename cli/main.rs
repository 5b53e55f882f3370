//! The `cbs` command.

mod args;
mod build_args;
mod commands;
#[allow(dead_code, reason = "the build commands come with the executors")]
mod output;
#[allow(dead_code, reason = "the build commands come with the executors")]
mod progress;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Bake(args) => commands::bake::run(&cli.global, args),
        Command::Build(_) | Command::Realize(_) | Command::Plan(_) | Command::Export(_) | Command::Log(_) => {
            Err(anyhow::anyhow!("not yet"))
        }
        Command::Gc(args) => commands::gc::run(&cli.global, args),
        Command::Du(args) => commands::du::run(&cli.global, args),
        Command::Store(command) => commands::store::run(&cli.global, command),
        Command::Mount(args) => commands::mount::run(&cli.global, args),
    };
    match result {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {}", chain(&err));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes on one line; a cause whose text its parent already shows is left out.
fn chain(err: &anyhow::Error) -> String {
    let mut text = err.to_string();
    for cause in err.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

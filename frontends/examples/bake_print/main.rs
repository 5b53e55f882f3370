//! `docker buildx bake --print` and `--list` as a program, for trying out definitions and for the conformance cases.
//!
//! ```text
//! cargo run --example bake_print -- -f docker-bake.hcl --set '*.platform=linux/arm64' app
//! ```

mod arguments;

use std::error::Error;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use cbs_frontends::bake::LocalHost;
use clap::Parser as _;

use crate::arguments::{Arguments, Surroundings, run};

fn main() -> ExitCode {
    match surroundings().and_then(|surroundings| run(Arguments::parse(), surroundings, &LocalHost)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn surroundings() -> Result<Surroundings, Box<dyn Error>> {
    Ok(Surroundings {
        environment: std::env::vars().collect(),
        working_directory: std::env::current_dir()?.to_string_lossy().into_owned(),
        now: i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?,
    })
}

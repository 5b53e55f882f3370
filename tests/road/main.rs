//! The whole road through the real command: build, check with real tools, run, crash, refuse. Enabled by the `road` feature
//! until the build commands are wired up.

mod bad_input;
mod crash;
#[path = "../it/env.rs"]
mod env;
mod lifecycle;
mod road;

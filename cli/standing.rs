//! As whom a command runs: root, or a user who becomes root of a user namespace of his own.

use cbs_exec::rootless::{self, Standing};

use crate::args::{Cli, Command};
use crate::commands::default_store;

/// Moves the command to where it may mount and run containers. Called before any thread starts.
///
/// The process stays the same, so signals, the terminal and the exit code are those of any other program.
pub(crate) fn take(cli: &mut Cli) {
    if rustix::process::geteuid().is_root() {
        if builds(&cli.command) {
            // Without the right to do it no step can be mounted either, and says so; builds without RUN work.
            cbs_fuse::enter_private_namespace().unwrap_or_default();
        }
        return;
    }
    if !meets_scratch(&cli.command) {
        return;
    }
    if cli.global.store.is_none() && cli.global.settings.store.is_none() {
        // In there everybody is root, whose store is another one.
        match default_store() {
            Ok(store) => cli.global.store = Some(store),
            // Opening the store says it again.
            Err(_) => return,
        }
    }
    let login = std::env::var("USER").ok();
    let mut standing = rootless::enter(login.as_deref());
    if !matches!(standing, Standing::Refused { .. })
        && let Err(err) = cbs_fuse::enter_private_namespace()
    {
        let source = std::error::Error::source(&err).map_or_else(|| err.to_string(), ToString::to_string);
        standing = Standing::Refused {
            why: rootless::refusal(&std::io::Error::other(source)),
        };
    }
    cli.global.standing = standing;
}

fn builds(command: &Command) -> bool {
    matches!(
        command,
        Command::Build(_) | Command::Bake(_) | Command::Realize(_) | Command::Shell(_) | Command::Doctor(_)
    )
}

/// Whether a command runs steps or may meet what they left in the store, which can belong to any of the user's ids.
fn meets_scratch(command: &Command) -> bool {
    !matches!(
        command,
        Command::Log(_) | Command::Mount(_) | Command::Config(_) | Command::Completion { .. } | Command::Man { .. }
    )
}

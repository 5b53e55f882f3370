//! Why a container could not be started.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Why a container did not run to its end. Nothing is left behind in any of these cases, except what was made in the
/// upper directory.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The specification contradicts itself or asks for something forbidden.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The program could not be executed; the words are runc's, the exit code is [`ExecError::exit_code`].
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The kernel refused one step of the preparation.
    #[error("cannot {action} `{}`", path.display())]
    Setup {
        /// What was being done, a verb phrase such as "mount".
        action: &'static str,
        /// The container path, host path or value it was done to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The run was cancelled; all processes of the container are gone.
    #[error("the container was cancelled")]
    Cancelled,
}

/// What is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No program was named.
    #[error("no command was given")]
    NoCommand,
    /// A path that must be absolute is not.
    #[error("`{}` is not an absolute path", path.display())]
    NotAbsolute {
        /// The path as given.
        path: PathBuf,
    },
    /// A path climbs above the root.
    #[error("`{}` leads out of the root file system", path.display())]
    Escapes {
        /// The path as given.
        path: PathBuf,
    },
    /// A mount target is `/`, or `/proc` or below it, where a mount would break the sandbox.
    #[error("nothing may be mounted at `{}`", path.display())]
    ForbiddenTarget {
        /// The target as given.
        path: PathBuf,
    },
    /// A device node is not below `/dev`.
    #[error("device `{}` is not below /dev", path.display())]
    DeviceOutsideDev {
        /// The path as given.
        path: PathBuf,
    },
    /// Emulators without a user namespace would be registered for the whole machine.
    #[error("an emulator for one container needs a user namespace of its own")]
    EmulatorWithoutUserNamespace,
    /// A string that the kernel takes NUL-terminated has a NUL inside.
    #[error("{what} `{}` contains a NUL byte", String::from_utf8_lossy(text.as_bytes()))]
    NulByte {
        /// What kind of string, such as "argument".
        what: &'static str,
        /// The string.
        text: OsString,
    },
    /// An overlay without a lower layer.
    #[error("the overlay at `{}` has no lower layer", target.display())]
    NoLower {
        /// Where it was to be mounted.
        target: PathBuf,
    },
}

/// Why the program could not be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// No directory of `PATH` holds an executable of that name.
    #[error("exec: \"{program}\": executable file not found in $PATH")]
    NotInPath {
        /// The name as given.
        program: String,
    },
    /// The file does not exist, or the interpreter it names does not.
    #[error("exec: \"{program}\": stat {program}: no such file or directory")]
    NoSuchFile {
        /// The path as given.
        program: String,
    },
    /// The file exists but the interpreter or loader it names does not.
    #[error("exec {program}: no such file or directory")]
    NoInterpreter {
        /// The path that was found.
        program: String,
    },
    /// The file is there but may not be executed.
    #[error("exec: \"{program}\": permission denied")]
    PermissionDenied {
        /// The path as given.
        program: String,
    },
    /// The file is a directory.
    #[error("exec: \"{program}\": is a directory")]
    IsDirectory {
        /// The path as given.
        program: String,
    },
    /// The kernel does not know the file's format (another machine's binary, or a script without `#!`).
    #[error("exec {program}: exec format error")]
    Format {
        /// The path that was found.
        program: String,
    },
    /// Any other answer of the kernel.
    #[error("exec {program}: {reason}")]
    Other {
        /// The path that was found.
        program: String,
        /// The kernel's words.
        reason: String,
    },
}

impl ExecError {
    /// The code a shell gives: 127 for a program that is not there, 126 for one that cannot be run.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotInPath { .. } | Self::NoSuchFile { .. } | Self::NoInterpreter { .. } => 127,
            Self::PermissionDenied { .. } | Self::IsDirectory { .. } | Self::Format { .. } | Self::Other { .. } => 126,
        }
    }
}

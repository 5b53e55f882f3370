//! What the launcher tells its caller: output while the process runs, and a report when it has ended.

use std::path::PathBuf;
use std::time::Duration;

/// Takes the output of a captured process, in the order in which it was read.
///
/// Called from the thread that called [`Launcher::run`](super::Launcher::run). A slow sink slows the process down, as
/// a slow terminal would.
pub trait OutputSink {
    /// Takes the next bytes of one stream; never empty, cut anywhere.
    fn write(&mut self, stream: OutputStream, bytes: &[u8]);
}

/// The two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Drops all output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl OutputSink for Discard {
    fn write(&mut self, _stream: OutputStream, _bytes: &[u8]) {}
}

/// Gathers the output in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// Everything written to standard output.
    pub stdout: Vec<u8>,
    /// Everything written to standard error.
    pub stderr: Vec<u8>,
}

impl OutputSink for Collect {
    fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        match stream {
            OutputStream::Stdout => self.stdout.extend_from_slice(bytes),
            OutputStream::Stderr => self.stderr.extend_from_slice(bytes),
        }
    }
}

/// How a container ended and what it left.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitReport {
    /// How pid 1 ended.
    pub status: ExitStatus,
    /// Paths that the launcher itself made in the root, outermost first. They are in the upper directory and, unless
    /// the step changed them later, not of the step's making.
    pub created: Vec<CreatedPath>,
    /// The most memory in use at once, in bytes: of the whole cgroup if there is one, else of the largest process
    /// that was waited for. `None` when the kernel's answer is not about the container.
    pub peak_memory: Option<u64>,
    /// User and system time of pid 1 and of the children it waited for.
    pub cpu_time: Duration,
    /// From the start of the preparation to the end of pid 1.
    pub wall_time: Duration,
    /// Limits that were asked for and could not be set, as a person would name them.
    pub unmet_limits: Vec<UnmetLimit>,
}

/// How pid 1 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Exited(u8),
    /// This signal killed it.
    Signaled(i32),
    /// It was killed, or failed, after the kernel had killed a process of the container for going over the memory
    /// limit of its cgroup.
    OutOfMemory {
        /// The code a shell would show for pid 1: its own, or 128 plus the signal.
        code: u8,
    },
}

impl ExitStatus {
    /// The code a shell would show: 128 plus the number for a signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) | Self::OutOfMemory { code } => code,
            Self::Signaled(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX),
        }
    }

    /// Whether pid 1 returned 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

/// Something the launcher made in the root file system because a mount or the working directory needed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedPath {
    /// Path from the root, without a leading slash and without symlinks.
    pub path: PathBuf,
    /// What was made.
    pub kind: CreatedKind,
    /// What it was made for.
    pub purpose: CreatedFor,
}

/// The kinds of thing the launcher makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreatedKind {
    /// A directory, mode 0755; owner root, but the process's user for a working directory.
    Directory,
    /// An empty file, mode 0644, owner root.
    File,
}

/// Why something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreatedFor {
    /// For `/proc`, `/dev` or `/sys`. BuildKit leaves these in the layer.
    System,
    /// For one of [`ContainerSpec::mounts`](super::ContainerSpec::mounts). BuildKit removes these.
    Mount,
    /// The working directory, part of the layer like any other directory.
    WorkDir,
}

/// A limit that could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmetLimit {
    /// Which one, such as `memory`.
    pub limit: &'static str,
    /// Why, such as `no memory controller`.
    pub reason: String,
}

//! The container launcher: runs one process in its own namespaces over a given root, inside this very process.
//!
//! ```text
//! ContainerSpec ─ plan ─► ordered mounts ─ prepare ─► detached mounts + child script ─ clone3 ─► pid 1
//!                (pure)                  (parent)                                       │
//!                               OutputSink ◄── pipes ── supervise ◄── pidfd, cancel ────┘
//! ```
//! Start at [`Launcher::run`]. Nothing here knows LLB, images or the store: the caller says which directories are the
//! overlay's layers and gets told what the launcher itself made in there.
//!
//! What can fail in many ways is done by the parent, with ordinary errors: overlays, memory file systems and bind
//! sources are opened as detached mounts, mount points are resolved and made. The child, which shares its memory with
//! a process of many threads, only walks a prepared list of raw system calls.

mod cancel;
mod caps;
mod cgroup;
mod doorman;
mod error;
mod helper;
mod launcher;
mod overlay;
mod plan;
mod prepare;
pub mod probe;
mod report;
mod resolve;
mod script;
mod seccomp;
mod spec;
mod step;
mod supervise;
mod sys;
pub mod users;

pub use cancel::CancelHandle;
pub use cgroup::SweepDepth;
pub use error::{ExecError, LaunchError, SpecError};
pub use helper::{Helper, HelperNetwork, HelperSpec, in_network};
pub use launcher::Launcher;
pub use report::{
    Collect, CreatedFor, CreatedKind, CreatedPath, Discard, ExitReport, ExitStatus, OutputSink, OutputStream,
    UnmetLimit,
};
pub use spec::{
    Access, ContainerSpec, DeviceKind, DeviceNode, Emulator, FileSource, IdMappings, IdRange, Ids, MountSource,
    MountSpec, Network, OverlayMount, OverlayXattrs, ProcessSpec, Resources, Rlimit, RlimitResource, RootFs, Security,
    Stdio,
};

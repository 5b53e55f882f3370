//! What a caller asks of the launcher: one container, said completely and as plain values.
//!
//! Nothing in here is looked up, expanded or defaulted later: the environment is the whole environment, the user is
//! already numbers (see [`users`](super::users)), and a file such as `/etc/hosts` is an ordinary read-only
//! [`MountSource::File`].

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// One container: a root file system, what is mounted over it, and the process to run in it.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The tree that becomes `/`.
    pub rootfs: RootFs,
    /// Whether the process may write to `/`. Mount points are made before a read-only root is sealed.
    pub rootfs_access: Access,
    /// Mounts over the root, in the order wanted; an outer target is always mounted before an inner one.
    pub mounts: Vec<MountSpec>,
    /// What runs as pid 1.
    pub process: ProcessSpec,
    /// The host name; BuildKit's habit is `buildkitsandbox`.
    pub hostname: OsString,
    /// What the process can reach.
    pub network: Network,
    /// How much of the kernel the process may use.
    pub security: Security,
    /// The user namespace to run in; `None` shares the caller's.
    pub user_namespace: Option<IdMappings>,
    /// Emulators of foreign binaries, registered for this container only. They need a user namespace of its own.
    pub emulators: Vec<Emulator>,
    /// Size limit of `/dev/shm` in bytes; `None` is Docker's 64 MiB.
    pub shm_size: Option<u64>,
    /// Device nodes beside the standard ones, made in `/dev`.
    pub devices: Vec<DeviceNode>,
    /// Limits of the container's cgroup. Without any the container gets a cgroup only if that is free of cost.
    pub resources: Resources,
    /// The process's `oom_score_adj`; `None` inherits the caller's.
    pub oom_score_adj: Option<i16>,
}

/// Whether something may be written through a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only, for root too.
    ReadOnly,
}

/// Where the container's `/` comes from.
#[derive(Clone, Debug)]
pub enum RootFs {
    /// A writable overlay over read-only trees.
    Overlay(OverlayMount),
    /// An existing directory, used as it is: what the process writes stays there.
    Bind(PathBuf),
}

/// An overlayfs over read-only layers; everything written lands in `upper`.
///
/// It is mounted `volatile,index=off,redirect_dir=off,metacopy=off,xino=off`, so `upper` holds nothing but plain
/// entries, whiteouts and opaque directories, and is worth nothing after a crash.
#[derive(Clone, Debug)]
pub struct OverlayMount {
    /// The layers below, topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Data-only layers below those, reached only through redirects in `lower` (Linux 6.5).
    pub data_only: Vec<PathBuf>,
    /// Where changes are written.
    pub upper: PathBuf,
    /// An empty directory on the file system of `upper`. One that an overlay has used once cannot be used again.
    pub work: PathBuf,
    /// In which namespace the overlay keeps its attributes.
    pub xattrs: OverlayXattrs,
}

/// The name space of overlayfs attributes such as `overlay.opaque`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`, which needs `CAP_SYS_ADMIN` in the initial user namespace.
    Trusted,
    /// `user.overlay.*`, the only choice without that.
    User,
}

/// One mount over the root.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// Absolute path in the container. Symlinks on the way are followed inside the container; a missing mount point
    /// is made and reported in [`ExitReport::created`](super::ExitReport::created).
    pub target: PathBuf,
    /// What appears there.
    pub source: MountSource,
    /// Whether it may be written.
    pub access: Access,
}

/// What a mount shows.
#[derive(Clone, Debug)]
pub enum MountSource {
    /// A host file, directory or socket (an ssh agent, a cache directory, a subtree of a FUSE mount). A directory
    /// brings no further mounts below it along.
    Bind(PathBuf),
    /// A writable view of a read-only tree.
    Overlay(OverlayMount),
    /// An empty file system in memory.
    Tmpfs {
        /// Limit in bytes; `None` is the kernel's default, half of the memory.
        size: Option<u64>,
        /// Mode of its root directory; BuildKit's is `0o1777`.
        mode: u32,
    },
    /// A file made from bytes, held in memory only: secrets, `/etc/hosts`, `/etc/resolv.conf`, heredoc scripts.
    File(FileSource),
}

/// A file that the launcher itself provides. Its bytes never reach a disk or a layer.
#[derive(Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The whole content.
    pub bytes: Arc<[u8]>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
}

/// The process that runs as pid 1 of the container.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Program and arguments; the first is looked up in the container by the `PATH` of `env`, unless it has a slash.
    pub args: Vec<OsString>,
    /// The whole environment, each entry `NAME=value`. Nothing is inherited.
    pub env: Vec<OsString>,
    /// Absolute working directory; when it is missing it is made (0755, owned by `user`) and reported.
    pub cwd: PathBuf,
    /// Who it runs as.
    pub user: Ids,
    /// Limits to set; all others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// Where its standard streams lead.
    pub stdio: Stdio,
}

/// User, group and supplementary groups as numbers of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; empty means none.
    pub supplementary: Vec<u32>,
}

/// A resource limit (`--ulimit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Which one.
    pub resource: RlimitResource,
    /// The limit in force; `None` is unlimited.
    pub soft: Option<u64>,
    /// What the process may raise it to; `None` is unlimited.
    pub hard: Option<u64>,
}

/// The resources of [`Rlimit`], by their names in `--ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the RLIMIT_ constant of its name")]
pub enum RlimitResource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// The standard streams of pid 1.
#[derive(Clone, Debug)]
pub enum Stdio {
    /// Stdin is `/dev/null`; stdout and stderr are pipes whose bytes go to the run's
    /// [`OutputSink`](super::OutputSink).
    Captured,
    /// As `Captured`, but stdin is read from this descriptor.
    CapturedWithStdin(Arc<OwnedFd>),
    /// The caller's own descriptors, handed over as they are; the sink gets nothing.
    Fds {
        /// Becomes stdin.
        stdin: Arc<OwnedFd>,
        /// Becomes stdout.
        stdout: Arc<OwnedFd>,
        /// Becomes stderr.
        stderr: Arc<OwnedFd>,
    },
    /// All three streams are this terminal (the replica side of a pty), which becomes the controlling terminal.
    Terminal(Arc<OwnedFd>),
}

/// What network the container has.
#[derive(Clone, Debug)]
pub enum Network {
    /// The caller's.
    Host,
    /// A new network namespace with nothing but a loopback interface, which is up.
    None,
    /// An existing network namespace, given as an open file of it.
    Namespace(Arc<OwnedFd>),
}

/// How much of the kernel the container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Docker's default: its capability set, its system call filter, masked and read-only paths.
    Sandbox,
    /// Every capability the caller has, no filter, nothing masked, writable `/sys` and more devices
    /// (`RUN --security=insecure`).
    Insecure,
}

/// The id maps of a new user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMappings {
    /// Ranges of user ids.
    pub uids: Vec<IdRange>,
    /// Ranges of group ids.
    pub gids: Vec<IdRange>,
}

/// A program that runs binaries of another architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// The line for the kernel's `binfmt_misc/register`. Its interpreter is a path on the host, so the flags must
    /// hold `F`, which opens it at once.
    pub registration: Vec<u8>,
    /// That interpreter.
    pub interpreter: PathBuf,
}

/// A range of ids inside a user namespace and the ids they stand for outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id in the caller's user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path below `/dev`, such as `/dev/fuse`.
    pub path: PathBuf,
    /// The machine's own node, which is shown where none can be made.
    pub source: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The two kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// Limits of the container's cgroup; a missing one is no limit.
///
/// A limit that this machine cannot set (no such controller, no permission) is skipped and named in
/// [`ExitReport::unmet_limits`](super::ExitReport::unmet_limits): a build must not fail because a limit cannot be
/// kept, and must not hide that either.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together, as Docker counts; `-1` is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Relative weight, cgroup v1 numbers (2 to 262144, 1024 is normal).
    pub cpu_shares: Option<u64>,
    /// Length of a quota period in microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of cpu time per period.
    pub cpu_quota: Option<i64>,
    /// Cpus allowed, such as `0-3`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes allowed.
    pub cpuset_mems: Option<String>,
    /// Number of tasks.
    pub pids: Option<u64>,
    /// The group to put the container's group into, as a path below the one in which groups are made. It is made when
    /// missing; what limits it has, whoever made it knows.
    pub parent: Option<PathBuf>,
}

impl Resources {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl MountSpec {
    /// A read-only file made from `bytes`, owned by root with mode 0644, as `/etc/hosts` is.
    #[must_use]
    pub fn root_file(target: impl Into<PathBuf>, bytes: impl Into<Arc<[u8]>>) -> Self {
        let file = FileSource {
            bytes: bytes.into(),
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        Self {
            target: target.into(),
            source: MountSource::File(file),
            access: Access::ReadOnly,
        }
    }
}

/// Leaves the content out, which may be a secret.
impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource")
            .field("len", &self.bytes.len())
            .field("mode", &format_args!("{:#o}", self.mode))
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish()
    }
}

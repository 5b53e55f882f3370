//! The list of things the child does between its birth and its program, as data.
//!
//! The parent writes the list, the child walks it (`sys/child.rs`) and stops at the first failure, whose index and
//! error number are all it has to report: what step that was, and about which path, is known here. So the order of
//! everything that matters for safety can be read, and tested, without being root.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::error::{ExecError, LaunchError};
use super::sys::BpfInstruction;

/// One thing to do. Descriptors are the parent's numbers, which the child has inherited.
pub(super) enum Step {
    /// Default actions for all signals and none blocked; the parent's handlers must not run here.
    ResetSignals,
    /// Wait until the parent has written the id maps, then become root of the new user namespace.
    AwaitIdMaps(RawFd),
    /// Enter the cgroup whose `cgroup.procs` is open here.
    JoinCgroup(RawFd),
    /// Take a cgroup namespace rooted at the cgroup just joined.
    NewCgroupNamespace,
    /// A session and process group of its own.
    NewSession,
    /// A session keyring of its own, where the kernel has keyrings and the quota allows one.
    NewKeyring,
    /// Join the network namespace open here.
    EnterNetwork(RawFd),
    /// Bring `lo` up.
    LoopbackUp,
    /// Cut all mounts off from the host's, so that nothing below propagates there.
    MakePrivate,
    /// Mount a file system that takes its view from the child's namespaces; it stays detached.
    NewFs {
        /// Where to keep it.
        slot: Slot,
        /// What it is.
        fs: NewFs,
    },
    /// Let a file of the host be opened by its path for reading only, whatever becomes of what opened it.
    CoverReadOnly(CString),
    /// Write into a file of a detached mount.
    WriteInto {
        /// The mount.
        slot: Slot,
        /// The file's name in its root.
        file: CString,
        /// What to write, in one call.
        bytes: Vec<u8>,
    },
    /// Put the detached root mount over `/`, make it the root, and drop the old one.
    EnterRoot(RawFd),
    /// Attach a mount.
    Attach {
        /// What.
        mount: MountRef,
        /// Where, a path without symlinks.
        target: CString,
    },
    /// Copy a file or directory of an attached mount into a slot, as a mount of its own.
    Copy {
        /// Where to keep the copy.
        slot: Slot,
        /// What to copy.
        from: CString,
        /// `MOUNT_ATTR_` flags of the copy.
        attributes: u64,
    },
    /// Detach what is mounted at a path.
    Detach(CString),
    /// Cover a path, if it exists: a directory with an empty one, anything else with the null device.
    Mask {
        /// What to hide.
        path: CString,
        /// An empty tree, still detached the first time, attached at some masked directory afterwards.
        empty: Slot,
    },
    /// Make a path read-only, if it exists, with all that is mounted below it.
    Seal(CString),
    /// Make the root mount read-only, but none of the others.
    SealRoot,
    /// Set the host name.
    SetHostname(Vec<u8>),
    /// Set a resource limit.
    SetRlimit {
        /// The `RLIMIT_` number.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Write the `oom_score_adj` of the process.
    SetOomScore(Vec<u8>),
    /// Enter the working directory, without stepping through `/proc/*/fd` to the outside.
    EnterCwd(CString),
    /// Set the mask for new files.
    SetUmask(u32),
    /// Set a standard stream.
    SetStream {
        /// 0, 1 or 2.
        stream: RawFd,
        /// What it becomes.
        source: StreamSource,
    },
    /// Give a standard stream to a user, where that is possible.
    OwnStream {
        /// 0, 1 or 2.
        stream: RawFd,
        /// The user.
        owner: u32,
    },
    /// Make stdin's terminal the controlling one.
    TakeTerminal,
    /// Close every descriptor beyond the standard streams.
    CloseInherited,
    /// Install the system call filter. Needs privilege, as `no_new_privs` stays off, hence before the next ones.
    InstallFilter(Vec<BpfInstruction>),
    /// Take everything that is not in this set from the bounding set.
    LimitBounding(u64),
    /// Become the user; the permitted capabilities are kept for the next step.
    BecomeUser {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups; `None` where they cannot be changed.
        groups: Option<Vec<u32>>,
    },
    /// Set the permitted and effective sets, empty the inheritable and ambient ones.
    SetCapabilities(u64),
    /// Die with the parent; give up at once when it is already gone. After `BecomeUser`, which would undo it.
    DieWithParent,
    /// Execute the program.
    Exec(ExecPlan),
}

/// A place of the child for a mount it has made, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) usize);

/// What a standard stream becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamSource {
    /// The container's null device, which is not the host's.
    Null,
    /// A descriptor.
    Descriptor(RawFd),
}

/// A mount to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MountRef {
    /// Made by the parent.
    Parent(RawFd),
    /// Made by the child.
    Slot(Slot),
}

/// A file system for the child to make.
#[derive(Clone)]
pub(super) struct NewFs {
    /// The kernel's name of it.
    pub(super) name: CString,
    /// Parameters; without a value it is a flag.
    pub(super) options: Vec<(CString, Option<CString>)>,
    /// `MOUNT_ATTR_` flags.
    pub(super) attributes: u64,
}

/// The program, in every place where it may be.
pub(super) struct ExecPlan {
    /// The name as given.
    pub(super) program: CString,
    /// Whether the name has a slash, so that `PATH` is not asked.
    pub(super) lookup: Lookup,
    /// Where to look, in order.
    pub(super) candidates: Vec<Candidate>,
    _args: Vec<CString>,
    /// Environment.
    pub(super) env: CStringArray,
}

/// A place where the program may be.
pub(super) struct Candidate {
    /// Its path.
    pub(super) path: CString,
    /// The path, which the doorman is told, then the arguments, then null.
    pointers: Vec<*const libc::c_char>,
}

impl Candidate {
    /// The arguments as `execve` takes them; valid as long as the plan.
    pub(super) fn args(&self) -> *const *const libc::c_char {
        self.pointers[1..].as_ptr()
    }

    /// The path and the arguments.
    pub(super) fn args_with_path(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

impl ExecPlan {
    /// A program that may be at one of these paths.
    pub(super) fn new(
        program: CString,
        lookup: Lookup,
        paths: Vec<CString>,
        args: Vec<CString>,
        env: Vec<CString>,
    ) -> Self {
        // The pointers lead to the strings' own heap memory, which does not move with them.
        let candidate = |path: CString| {
            let strings = std::iter::once(&path).chain(&args).map(|text| text.as_ptr());
            let pointers = strings.chain([std::ptr::null()]).collect();
            Candidate { path, pointers }
        };
        Self {
            candidates: paths.into_iter().map(candidate).collect(),
            program,
            lookup,
            _args: args,
            env: CStringArray::new(env),
        }
    }
}

/// How the program's file is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// By `PATH`.
    InPath,
    /// It is a path itself.
    AsGiven,
}

/// Strings and the null-terminated array of pointers to them that `execve` takes.
pub(super) struct CStringArray {
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    /// Takes the strings.
    pub(super) fn new(strings: Vec<CString>) -> Self {
        // The pointers lead to the strings' own heap memory, which does not move with the vectors.
        let pointers = strings
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Self {
            _strings: strings,
            pointers,
        }
    }

    /// The array; valid as long as `self`.
    pub(super) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// What became of trying to execute, beside the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ExecOutcome {
    /// No candidate exists.
    Missing = 0,
    /// The candidate is a regular file, so what is missing is its interpreter.
    Exists = 1,
    /// The candidate is a directory.
    Directory = 2,
}

impl Step {
    /// The error for a failure of this step; `detail` is what the child adds for [`Step::Exec`].
    pub(super) fn failure(&self, errno: i32, detail: u32) -> LaunchError {
        if let Self::Exec(plan) = self {
            return plan.failure(errno, detail).into();
        }
        let (action, subject) = self.describe();
        LaunchError::Setup {
            action,
            path: subject,
            source: io::Error::from_raw_os_error(errno),
        }
    }

    /// A verb phrase and what it is done to.
    fn describe(&self) -> (&'static str, PathBuf) {
        let here = || PathBuf::from("container");
        match self {
            Self::ResetSignals => ("reset the signals of", here()),
            Self::AwaitIdMaps(_) => ("become root in the user namespace of", here()),
            Self::JoinCgroup(_) => ("put into its cgroup the", here()),
            Self::NewCgroupNamespace => ("make a cgroup namespace for the", here()),
            Self::NewSession => ("start a session for the", here()),
            Self::NewKeyring => ("make a keyring for the", here()),
            Self::EnterNetwork(_) => ("join the network namespace of the", here()),
            Self::LoopbackUp => ("bring up the interface", "lo".into()),
            Self::MakePrivate => ("cut from the host the mounts of the", here()),
            Self::NewFs { fs, .. } => ("make a file system of type", path(&fs.name)),
            Self::CoverReadOnly(file) => ("make read-only", path(file)),
            Self::WriteInto { file, .. } => ("write to", path(file)),
            Self::EnterRoot(_) => ("change the root directory to", "/".into()),
            Self::Attach { target, .. } => ("mount at", path(target)),
            Self::Copy { from, .. } => ("copy the mount", path(from)),
            Self::Detach(target) => ("unmount", path(target)),
            Self::Mask { path: hidden, .. } => ("mask", path(hidden)),
            Self::Seal(sealed) => ("make read-only", path(sealed)),
            Self::SealRoot => ("make read-only", "/".into()),
            Self::SetHostname(name) => ("set the host name", bytes_path(name)),
            Self::SetRlimit { resource, .. } => ("set resource limit number", resource.to_string().into()),
            Self::SetOomScore(score) => ("set oom_score_adj to", bytes_path(score)),
            Self::EnterCwd(cwd) => ("chdir to", path(cwd)),
            Self::SetUmask(_) => ("set the umask of the", here()),
            Self::SetStream { stream, .. } => ("set up standard stream", stream.to_string().into()),
            Self::OwnStream { stream, .. } => ("change the owner of standard stream", stream.to_string().into()),
            Self::TakeTerminal => ("take the controlling terminal of the", here()),
            Self::CloseInherited => ("close inherited descriptors of the", here()),
            Self::InstallFilter(_) => ("install the system call filter of the", here()),
            Self::LimitBounding(_) => ("limit the capabilities of the", here()),
            Self::BecomeUser { uid, gid, .. } => ("become user", format!("{uid}:{gid}").into()),
            Self::SetCapabilities(_) => ("set the capabilities of the", here()),
            Self::DieWithParent => ("tie to its parent the", here()),
            Self::Exec(plan) => ("execute", path(&plan.program)),
        }
    }
}

impl ExecPlan {
    fn failure(&self, errno: i32, detail: u32) -> ExecError {
        let program = self.program.to_string_lossy().into_owned();
        match (errno, self.lookup) {
            (libc::ENOENT | libc::ENOTDIR, _) if detail == ExecOutcome::Exists as u32 => {
                ExecError::NoInterpreter { program }
            }
            (libc::ENOENT | libc::ENOTDIR, Lookup::InPath) => ExecError::NotInPath { program },
            (libc::ENOENT | libc::ENOTDIR, Lookup::AsGiven) => ExecError::NoSuchFile { program },
            (libc::EACCES, _) if detail == ExecOutcome::Directory as u32 => ExecError::IsDirectory { program },
            (libc::EACCES, _) => ExecError::PermissionDenied { program },
            (libc::ENOEXEC, _) => ExecError::Format { program },
            _ => ExecError::Other {
                program,
                reason: io::Error::from_raw_os_error(errno).to_string(),
            },
        }
    }
}

/// One line per step, for tests and traces.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, subject) = self.describe();
        write!(f, "{action} {}", subject.display())
    }
}

fn path(text: &CStr) -> PathBuf {
    bytes_path(text.to_bytes())
}

fn bytes_path(bytes: &[u8]) -> PathBuf {
    std::ffi::OsString::from_vec(bytes.to_vec()).into()
}

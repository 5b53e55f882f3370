//! Writes the list of steps for the child. The order carries the safety of the sandbox; its reasons stand beside it.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::caps::CapabilitySets;
use super::error::SpecError;
use super::plan::{NODEV, NOEXEC, NOSUID, RDONLY};
use super::prepare::{PreparedMount, Source};
use super::probe::GroupChange;
use super::report::CreatedFor;
use super::spec::{Access, ContainerSpec, Network, ProcessSpec, RlimitResource, Stdio};
use super::step::{ExecPlan, Lookup, MountRef, NewFs, Slot, Step, StreamSource};
use super::sys::BpfInstruction;

/// BuildKit's mask for new files.
const UMASK: u32 = 0o022;

/// Where the private file system lies while things are copied out of it.
const STAGE: &CStr = c"/dev";

/// The descriptors and facts that the steps refer to.
pub(super) struct Inputs<'a> {
    /// The detached root mount.
    pub(super) root: RawFd,
    /// The detached private file system; its entry 0 is an empty directory.
    pub(super) private: RawFd,
    /// The other mounts, in order.
    pub(super) mounts: &'a [PreparedMount],
    /// Paths to mask.
    pub(super) masked: &'a [&'a CStr],
    /// Paths to make read-only.
    pub(super) sealed: &'a [&'a CStr],
    /// The working directory, without symlinks.
    pub(super) cwd: &'a Path,
    /// `cgroup.procs` files of version 1 hierarchies to enter.
    pub(super) cgroups: &'a [RawFd],
    /// Where the child waits for its id maps.
    pub(super) id_maps_ready: Option<RawFd>,
    /// Write ends of the output pipes.
    pub(super) output: Option<[RawFd; 2]>,
    /// Whether the supplementary groups can be set.
    pub(super) groups: GroupChange,
    /// Capabilities to leave.
    pub(super) capabilities: CapabilitySets,
    /// The system call filter.
    pub(super) filter: Option<&'a [BpfInstruction]>,
}

/// The steps, and how many slots they use.
pub(super) struct Script {
    /// In order; the last one executes the program.
    pub(super) steps: Vec<Step>,
    /// How many.
    pub(super) slots: usize,
}

/// Writes the steps.
///
/// # Errors
/// A string with a NUL byte, or no program.
pub(super) fn write(spec: &ContainerSpec, inputs: &Inputs<'_>) -> Result<Script, SpecError> {
    let exec = exec_plan(&spec.process)?;
    let mut script = Script {
        steps: vec![Step::ResetSignals],
        slots: 0,
    };
    script.namespaces(spec, inputs);
    script.mounts(spec, inputs)?;
    script.surroundings(spec, inputs)?;
    script.privileges(spec, inputs);
    script.steps.push(Step::Exec(exec));
    Ok(script)
}

impl Script {
    fn slot(&mut self) -> Slot {
        self.slots += 1;
        Slot(self.slots - 1)
    }

    /// What has to be so before the first mount.
    fn namespaces(&mut self, spec: &ContainerSpec, inputs: &Inputs<'_>) {
        // First: before its maps are written the child is nobody and may do nothing.
        self.steps.extend(inputs.id_maps_ready.map(Step::AwaitIdMaps));
        self.steps
            .extend(inputs.cgroups.iter().map(|&procs| Step::JoinCgroup(procs)));
        // After joining, as the namespace's root is the cgroup of that moment; and before /sys/fs/cgroup is mounted.
        self.steps.push(Step::NewCgroupNamespace);
        self.steps.push(Step::NewSession);
        self.steps.push(Step::NewKeyring);
        match &spec.network {
            Network::Host => {}
            Network::None => self.steps.push(Step::LoopbackUp),
            // Before sysfs is made, which shows the network of its maker.
            Network::Namespace(namespace) => self.steps.push(Step::EnterNetwork(namespace.as_raw_fd())),
        }
        // While the host's /proc is still there to write it through.
        self.steps.extend(
            spec.oom_score_adj
                .map(|score| Step::SetOomScore(score.to_string().into_bytes())),
        );
        self.steps.push(Step::MakePrivate);
    }

    fn mounts(&mut self, spec: &ContainerSpec, inputs: &Inputs<'_>) -> Result<(), SpecError> {
        let empty = self.slot();
        let mut copies = vec![Step::Copy {
            slot: empty,
            from: staged(0)?,
            attributes: RDONLY | NOSUID | NOEXEC | NODEV,
        }];
        let (mut system, mut callers) = (Vec::new(), Vec::new());
        for mount in inputs.mounts {
            let target = c_string("mount target", mount.target.as_os_str())?;
            let attach = if mount.purpose == CreatedFor::System {
                &mut system
            } else {
                &mut callers
            };
            let mount = match &mount.source {
                Source::Detached(fd) => MountRef::Parent(fd.as_raw_fd()),
                // Made while the host's mounts are still there: in a user namespace the kernel allows a new proc or
                // sysfs only to one who sees a complete one already.
                Source::InChild(fs) => {
                    let slot = self.slot();
                    self.steps.push(Step::NewFs { slot, fs: fs.clone() });
                    MountRef::Slot(slot)
                }
                Source::Private { entry, attributes } => {
                    let slot = self.slot();
                    copies.push(Step::Copy {
                        slot,
                        from: staged(*entry)?,
                        attributes: *attributes,
                    });
                    MountRef::Slot(slot)
                }
            };
            attach.push(Step::Attach { mount, target });
        }
        let emulation = self.emulation(spec)?;
        self.steps.push(Step::EnterRoot(inputs.root));
        // Kernels before 6.15 copy only from attached mounts, so the private files get a place for a moment.
        self.steps.push(Step::Attach {
            mount: MountRef::Parent(inputs.private),
            target: STAGE.to_owned(),
        });
        self.steps.extend(copies);
        self.steps.push(Step::Detach(STAGE.to_owned()));
        self.steps.extend(system);
        // Before /proc/sys is sealed, so that it becomes part of what is sealed.
        self.steps.extend(emulation);
        self.steps.extend(inputs.masked.iter().map(|&path| Step::Mask {
            path: path.to_owned(),
            empty,
        }));
        self.steps
            .extend(inputs.sealed.iter().map(|&path| Step::Seal(path.to_owned())));
        // Before the caller's mounts, one of which may cover /dev.
        if matches!(spec.process.stdio, Stdio::Captured) {
            self.steps.push(Step::SetStream {
                stream: 0,
                source: StreamSource::Null,
            });
        }
        self.steps.extend(callers);
        if spec.rootfs_access == Access::ReadOnly {
            self.steps.push(Step::SealRoot);
        }
        Ok(())
    }

    /// Registers emulators of foreign binaries, for this user namespace alone; returns the step that keeps them.
    fn emulation(&mut self, spec: &ContainerSpec) -> Result<Option<Step>, SpecError> {
        if spec.emulators.is_empty() {
            return Ok(None);
        }
        let slot = self.slot();
        let fs = NewFs {
            name: c"binfmt_misc".to_owned(),
            options: Vec::new(),
            attributes: NOSUID | NOEXEC | NODEV,
        };
        self.steps.push(Step::NewFs { slot, fs });
        // Before the root changes: the kernel opens the interpreter now, by its path on the host.
        for emulator in &spec.emulators {
            // Its processes have it as their `/proc/PID/exe`, and root in there is root here as far as files go.
            self.steps
                .push(Step::CoverReadOnly(c_string("path", emulator.interpreter.as_os_str())?));
            let (file, bytes) = (c"register".to_owned(), emulator.registration.clone());
            self.steps.push(Step::WriteInto { slot, file, bytes });
        }
        // The registrations live as long as their file system is mounted.
        let target = c"/proc/sys/fs/binfmt_misc".to_owned();
        Ok(Some(Step::Attach {
            mount: MountRef::Slot(slot),
            target,
        }))
    }

    /// What the process finds around it.
    fn surroundings(&mut self, spec: &ContainerSpec, inputs: &Inputs<'_>) -> Result<(), SpecError> {
        self.steps.push(Step::SetHostname(spec.hostname.as_bytes().to_vec()));
        for limit in &spec.process.rlimits {
            let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
            let (resource, soft, hard) = (rlimit_number(limit.resource), number(limit.soft), number(limit.hard));
            self.steps.push(Step::SetRlimit { resource, soft, hard });
        }
        self.steps.push(Step::SetUmask(UMASK));
        // Still with root's capabilities, as runc does: a user may be put into a directory it could not enter.
        self.steps
            .push(Step::EnterCwd(c_string("working directory", inputs.cwd.as_os_str())?));
        let owner = spec.process.user.uid;
        for (stream, from) in streams(&spec.process.stdio, inputs.output) {
            self.steps.push(Step::SetStream { stream, source: from });
        }
        // So that a user who is not root can open /dev/stdout, as runc has it. What the caller passes in stays as it is.
        match (&spec.process.stdio, owner) {
            (_, 0) | (Stdio::Fds { .. }, _) => {}
            (Stdio::Captured | Stdio::CapturedWithStdin(_), _) => {
                self.steps
                    .extend([1, 2].map(|stream| Step::OwnStream { stream, owner }));
            }
            (Stdio::Terminal(_), _) => self.steps.push(Step::OwnStream { stream: 0, owner }),
        }
        if matches!(spec.process.stdio, Stdio::Terminal(_)) {
            self.steps.push(Step::TakeTerminal);
        }
        // Before the program is looked up, which must not be found through a descriptor that leads to the host.
        self.steps.push(Step::CloseInherited);
        Ok(())
    }

    /// Gives up the launcher's rights, in the one order in which each step still may do what it does.
    fn privileges(&mut self, spec: &ContainerSpec, inputs: &Inputs<'_>) {
        self.steps
            .extend(inputs.filter.map(|filter| Step::InstallFilter(filter.to_vec())));
        self.steps.push(Step::LimitBounding(inputs.capabilities.bounding));
        let user = &spec.process.user;
        let groups = match inputs.groups {
            GroupChange::Allowed => Some(user.supplementary.clone()),
            GroupChange::Denied => None,
        };
        self.steps.push(Step::BecomeUser {
            uid: user.uid,
            gid: user.gid,
            groups,
        });
        self.steps.push(Step::SetCapabilities(inputs.capabilities.permitted));
        self.steps.push(Step::DieWithParent);
    }
}

/// The path of a private entry while its file system is staged.
fn staged(entry: usize) -> Result<CString, SpecError> {
    let path = Path::new(OsStr::from_bytes(STAGE.to_bytes())).join(entry.to_string());
    c_string("path", path.as_os_str())
}

/// Where the standard streams lead, beside the null device.
fn streams(stdio: &Stdio, output: Option<[RawFd; 2]>) -> Vec<(RawFd, StreamSource)> {
    let from = |fd: RawFd| StreamSource::Descriptor(fd);
    let captured = output.map_or(Vec::new(), |[stdout, stderr]| {
        vec![(1, from(stdout)), (2, from(stderr))]
    });
    match stdio {
        Stdio::Captured => captured,
        Stdio::CapturedWithStdin(stdin) => [vec![(0, from(stdin.as_raw_fd()))], captured].concat(),
        Stdio::Fds { stdin, stdout, stderr } => {
            vec![
                (0, from(stdin.as_raw_fd())),
                (1, from(stdout.as_raw_fd())),
                (2, from(stderr.as_raw_fd())),
            ]
        }
        Stdio::Terminal(terminal) => [0, 1, 2].map(|stream| (stream, from(terminal.as_raw_fd()))).into(),
    }
}

pub(super) fn exec_plan(process: &ProcessSpec) -> Result<ExecPlan, SpecError> {
    let program = process.args.first().ok_or(SpecError::NoCommand)?;
    let name = c_string("argument", program)?;
    let (lookup, paths) = if program.as_bytes().contains(&b'/') {
        (Lookup::AsGiven, vec![name.clone()])
    } else {
        (Lookup::InPath, candidates(program, &process.env)?)
    };
    let strings = |what, texts: &[std::ffi::OsString]| -> Result<Vec<CString>, SpecError> {
        texts.iter().map(|text| c_string(what, text)).collect()
    };
    let args = strings("argument", &process.args)?;
    let env = strings("environment variable", &process.env)?;
    Ok(ExecPlan::new(name, lookup, paths, args, env))
}

/// The program in every directory of the environment's `PATH`; relative directories are passed over, as Go does.
fn candidates(program: &OsStr, env: &[std::ffi::OsString]) -> Result<Vec<CString>, SpecError> {
    // Of two entries the program itself would see the first.
    let path = env
        .iter()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or_default();
    let directories = path
        .split(|&byte| byte == b':')
        .filter(|directory| directory.first() == Some(&b'/'));
    directories
        .map(|directory| {
            c_string(
                "argument",
                Path::new(OsStr::from_bytes(directory)).join(program).as_os_str(),
            )
        })
        .collect()
}

fn c_string(what: &'static str, text: &OsStr) -> Result<CString, SpecError> {
    CString::new(text.as_bytes()).map_err(|_nul| SpecError::NulByte {
        what,
        text: text.to_owned(),
    })
}

fn rlimit_number(resource: RlimitResource) -> u32 {
    match resource {
        RlimitResource::As => libc::RLIMIT_AS,
        RlimitResource::Core => libc::RLIMIT_CORE,
        RlimitResource::Cpu => libc::RLIMIT_CPU,
        RlimitResource::Data => libc::RLIMIT_DATA,
        RlimitResource::Fsize => libc::RLIMIT_FSIZE,
        RlimitResource::Locks => libc::RLIMIT_LOCKS,
        RlimitResource::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitResource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitResource::Nice => libc::RLIMIT_NICE,
        RlimitResource::Nofile => libc::RLIMIT_NOFILE,
        RlimitResource::Nproc => libc::RLIMIT_NPROC,
        RlimitResource::Rss => libc::RLIMIT_RSS,
        RlimitResource::Rtprio => libc::RLIMIT_RTPRIO,
        RlimitResource::Rttime => libc::RLIMIT_RTTIME,
        RlimitResource::Sigpending => libc::RLIMIT_SIGPENDING,
        RlimitResource::Stack => libc::RLIMIT_STACK,
    }
}

#[cfg(test)]
mod tests;

//! One run of a container, from its specification to its report.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cancel::CancelHandle;
use super::caps::{self, CapabilitySets};
use super::cgroup::{Cgroup, Cgroups};
use super::doorman;
use super::error::{LaunchError, SpecError};
use super::plan::Plan;
use super::prepare::{self, Prepared};
use super::probe::Facts;
use super::report::{CreatedPath, ExitReport, ExitStatus, OutputSink, UnmetLimit};
use super::script::{self, Inputs};
use super::seccomp;
use super::spec::{ContainerSpec, IdMappings, IdRange, Network, Security, Stdio};
use super::supervise::{Outcome, Output, supervise};
use super::sys::{BpfInstruction, Child, CloneOptions, Ended, Failure, Guard, Memory, Program};

/// Runs containers. One per process is enough; any number of threads may run containers with it at once.
pub struct Launcher {
    facts: Facts,
    cgroups: Cgroups,
    filter: Vec<BpfInstruction>,
    /// Started with the first container.
    guard: Mutex<Option<Arc<Guard>>>,
    /// Made with the first container; all have the same.
    doorman: Mutex<Option<Arc<OwnedFd>>>,
}

impl Launcher {
    /// A launcher for a machine with these facts.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let cgroups = Cgroups::new(facts.cgroup_base());
        Self {
            facts,
            cgroups,
            filter: seccomp::docker_default(),
            guard: Mutex::new(None),
            doorman: Mutex::new(None),
        }
    }

    /// The facts it goes by.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Runs a container to its end. Blocking: call it from a thread that may wait, and that lives as long as the
    /// call; should the thread or the process die, the container dies with it.
    ///
    /// The calling thread must see the paths of the specification: a private mount namespace, for example, must be
    /// its own as well. When this returns, all processes of the container are gone, its mounts are no more, and the
    /// upper directories are free to be read.
    ///
    /// # Errors
    /// [`LaunchError`]; a program that was executed and failed is no error.
    pub fn run(
        &self,
        spec: &ContainerSpec,
        cancel: &CancelHandle,
        sink: &mut dyn OutputSink,
    ) -> Result<ExitReport, LaunchError> {
        let start = Instant::now();
        if is_cancelled(cancel)? {
            return Err(LaunchError::Cancelled);
        }
        let mut unmet_limits = Vec::new();
        let cgroup = self.cgroups.make(&spec.resources, &mut unmet_limits);
        let (mut running, created) = self.start(spec, cgroup)?;
        let outcome = supervise(&mut running.child, cancel, running.output.take(), sink)
            .map_err(|source| own_error("wait for", source))?;
        let ended = match outcome {
            Outcome::Cancelled => return Err(LaunchError::Cancelled),
            Outcome::Ended(ended) => ended,
        };
        running.check_failure()?;
        Ok(report(
            running.cgroup.as_ref(),
            ended,
            start.elapsed(),
            created,
            unmet_limits,
        ))
    }

    /// Makes everything ready and starts the child; what only the child needs is closed again here.
    fn start(&self, spec: &ContainerSpec, cgroup: Option<Cgroup>) -> Result<(Running, Vec<CreatedPath>), LaunchError> {
        if spec.process.args.is_empty() {
            return Err(SpecError::NoCommand.into());
        }
        if !spec.emulators.is_empty() && spec.user_namespace.is_none() {
            return Err(SpecError::EmulatorWithoutUserNamespace.into());
        }
        let plan = Plan::new(spec, &self.facts.surroundings(spec))?;
        let (masked, sealed) = (plan.masked, plan.sealed);
        let prepared = prepare::prepare(spec, plan)?;
        let pipes = Pipes::open(spec).map_err(|source| own_error("make pipes for", source))?;
        let entrances: Vec<RawFd> = cgroup
            .iter()
            .flat_map(Cgroup::entrances)
            .map(AsRawFd::as_raw_fd)
            .collect();
        let inputs = Inputs {
            root: prepared.root.as_raw_fd(),
            private: prepared.private.as_raw_fd(),
            mounts: &prepared.mounts,
            masked,
            sealed,
            cwd: &prepared.cwd,
            cgroups: &entrances,
            id_maps_ready: pipes.id_maps.as_ref().map(|(read, _)| read.as_raw_fd()),
            output: pipes
                .output
                .as_ref()
                .map(|output| [output.0.1.as_raw_fd(), output.1.1.as_raw_fd()]),
            // A namespace of the container's own inherits what its parent may.
            groups: self.facts.groups,
            capabilities: self.capabilities(spec),
            filter: (spec.security == Security::Sandbox).then_some(&self.filter),
        };
        let script = script::write(spec, &inputs)?;
        let doorman = self.doorman()?;
        let program = Program {
            steps: script.steps,
            report: pipes.failure.1.as_raw_fd(),
            parent: pipes.parent.as_raw_fd(),
            doorman: Some(doorman.as_raw_fd()),
            slots: (0..script.slots).map(|_| AtomicI32::new(-1)).collect(),
        };
        let options = CloneOptions {
            namespaces: namespaces(spec),
            cgroup: cgroup.as_ref().and_then(Cgroup::birthplace),
            // The kernel keeps oom_score_adj equal in all processes that share their memory.
            memory: if spec.oom_score_adj.is_some() {
                Memory::Copied
            } else {
                Memory::Shared
            },
        };
        let child = Child::spawn(program, options, &self.guard()?).map_err(|source| own_error("start", source))?;
        if let (Some(mappings), Some((_, ready))) = (&spec.user_namespace, &pipes.id_maps) {
            // On an error the child is killed where it waits.
            write_id_maps(child.pid(), mappings)?;
            rustix::io::write(ready, b"1").map_err(|errno| own_error("start", errno.into()))?;
        }
        let Prepared { created, .. } = prepared;
        let output = pipes.output.map(|((stdout, _), (stderr, _))| Output { stdout, stderr });
        Ok((
            Running {
                child,
                output,
                failure: pipes.failure.0,
                cgroup,
            },
            created,
        ))
    }

    pub(super) fn guard(&self) -> Result<Arc<Guard>, LaunchError> {
        // A panic while it was held can only have left it empty or full.
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guard) = &*guard {
            return Ok(Arc::clone(guard));
        }
        let started = Arc::new(Guard::start().map_err(|source| own_error("start the guard of the", source))?);
        *guard = Some(Arc::clone(&started));
        Ok(started)
    }

    fn doorman(&self) -> Result<Arc<OwnedFd>, LaunchError> {
        let mut doorman = self.doorman.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(doorman) = &*doorman {
            return Ok(Arc::clone(doorman));
        }
        let made = Arc::new(doorman::make().map_err(|source| own_error("make the doorman of the", source))?);
        *doorman = Some(Arc::clone(&made));
        Ok(made)
    }

    fn capabilities(&self, spec: &ContainerSpec) -> CapabilitySets {
        // A new user namespace gives all of them, for what it owns.
        let available = if spec.user_namespace.is_some() {
            u64::MAX
        } else {
            self.facts.capabilities
        };
        caps::sets(spec.security, available)
    }
}

/// A container that has been started. The child comes first, so that it is gone before its cgroup is removed.
struct Running {
    child: Child,
    output: Option<Output>,
    failure: OwnedFd,
    cgroup: Option<Cgroup>,
}

impl Running {
    /// After the end: the error, if the child failed before it became the program.
    fn check_failure(&self) -> Result<(), LaunchError> {
        let mut bytes = [0; Failure::SIZE];
        let length = match rustix::io::read(&self.failure, &mut bytes) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(errno) => return Err(own_error("learn the fate of", errno.into())),
        };
        let Some(failure) = bytes.get(..length).and_then(Failure::decode) else {
            return Ok(());
        };
        match self.child.program().step_of(failure) {
            Some(step) => Err(step.failure(failure.errno, failure.detail)),
            None => Err(own_error("start", io::Error::from_raw_os_error(failure.errno))),
        }
    }
}

/// A pipe of a step's output. An ordinary user has 64 MB for all pipes by default.
const OUTPUT_PIPE: usize = 256 << 10;

/// A pipe: read end, write end.
type Pipe = (OwnedFd, OwnedFd);

/// The descriptors that connect parent and child.
struct Pipes {
    /// Standard output and error.
    output: Option<(Pipe, Pipe)>,
    /// What the child has to say when a step fails.
    failure: Pipe,
    /// What tells the child that its id maps are written.
    id_maps: Option<Pipe>,
    /// This process, for the child to see whether it still lives.
    parent: OwnedFd,
}

impl Pipes {
    fn open(spec: &ContainerSpec) -> io::Result<Self> {
        let captured = match &spec.process.stdio {
            Stdio::Captured | Stdio::CapturedWithStdin(_) => true,
            Stdio::Fds { .. } | Stdio::Terminal(_) => false,
        };
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let id_maps = spec.user_namespace.as_ref().map(|_| pipe()).transpose()?;
        Ok(Self {
            output: if captured {
                Some((output_pipe()?, output_pipe()?))
            } else {
                None
            },
            failure: reading_pipe()?,
            id_maps,
            parent: pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?,
        })
    }
}

/// A pipe whose read end does not block; its write end does, as programs expect of their output.
fn reading_pipe() -> io::Result<Pipe> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
}

/// The same with room for what a step prints while its last output is being kept.
fn output_pipe() -> io::Result<Pipe> {
    let pipe = reading_pipe()?;
    // Users have only so much of it; a smaller pipe is slower, no more.
    let _smaller = rustix::pipe::fcntl_setpipe_size(&pipe.0, OUTPUT_PIPE);
    Ok(pipe)
}

pub(super) fn own_error(action: &'static str, source: io::Error) -> LaunchError {
    LaunchError::Setup {
        action,
        path: "container".into(),
        source,
    }
}

fn is_cancelled(cancel: &CancelHandle) -> Result<bool, LaunchError> {
    let mut polled = [PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = poll(&mut polled, Some(&at_once)).map_err(|errno| own_error("start", errno.into()))?;
    Ok(ready > 0)
}

fn namespaces(spec: &ContainerSpec) -> i32 {
    // The cgroup namespace comes later, when the child is in its cgroup.
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if matches!(spec.network, Network::None) {
        flags |= libc::CLONE_NEWNET;
    }
    if spec.user_namespace.is_some() {
        flags |= libc::CLONE_NEWUSER;
    }
    flags
}

fn write_id_maps(pid: Pid, mappings: &IdMappings) -> Result<(), LaunchError> {
    let lines = |ranges: &[IdRange]| -> String {
        ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
            .collect()
    };
    for (file, ranges) in [("uid_map", &mappings.uids), ("gid_map", &mappings.gids)] {
        let path = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(file);
        fs::write(&path, lines(ranges)).map_err(|source| LaunchError::Setup {
            action: "write id map",
            path,
            source,
        })?;
    }
    Ok(())
}

/// The most memory this process ever had resident, in bytes.
fn own_peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or(u64::MAX, |kilobytes: u64| kilobytes * 1024)
}

fn report(
    cgroup: Option<&Cgroup>,
    ended: Ended,
    wall_time: Duration,
    created: Vec<CreatedPath>,
    unmet_limits: Vec<UnmetLimit>,
) -> ExitReport {
    let status = match ended.status {
        Ok(code) => ExitStatus::Exited(code),
        Err(signal) => ExitStatus::Signaled(signal),
    };
    let out_of_memory = cgroup.is_some_and(Cgroup::has_run_out_of_memory);
    let status = match status {
        failed if out_of_memory && !failed.success() => ExitStatus::OutOfMemory { code: failed.code() },
        other => other,
    };
    // A child that starts in our memory is charged with our size of that moment; what exceeds our largest size up to
    // now is surely its own.
    let own = Some(ended.max_resident).filter(|&most| most > own_peak_memory());
    let peak_memory = cgroup.and_then(Cgroup::peak_memory).or(own);
    ExitReport {
        status,
        created,
        peak_memory,
        cpu_time: ended.cpu_time,
        wall_time,
        unmet_limits,
    }
}

#[cfg(test)]
mod tests;

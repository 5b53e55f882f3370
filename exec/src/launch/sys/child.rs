//! The child: walks its steps and becomes the program, or says which step failed.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use super::super::step::{Candidate, ExecOutcome, ExecPlan, Lookup, MountRef, NewFs, Slot, Step, StreamSource};
use super::calls::{self, CWD, MountAttributes};
use super::raw::Errno;

/// All that the child needs, prepared by the parent and kept in place until the child has ended.
pub(in crate::launch) struct Program {
    /// What to do, in order; the last step is [`Step::Exec`].
    pub(in crate::launch) steps: Vec<Step>,
    /// Where to report a failure.
    pub(in crate::launch) report: RawFd,
    /// A pidfd of the parent.
    pub(in crate::launch) parent: RawFd,
    /// The doorman's file, if it is to stand between.
    pub(in crate::launch) doorman: Option<RawFd>,
    /// Room for the mounts that the child makes; each [`Slot`] is an index of it.
    pub(in crate::launch) slots: Box<[AtomicI32]>,
}

impl Program {
    /// The step that a failure is of.
    pub(in crate::launch) fn step_of(&self, failure: Failure) -> Option<&Step> {
        match failure.step {
            Failure::OF_THE_DOORMAN => self.steps.last(),
            index => self.steps.get(index as usize),
        }
    }
}

/// What the child reports: which step failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::launch) struct Failure {
    /// Index of the step.
    pub(in crate::launch) step: u32,
    /// The error number.
    pub(in crate::launch) errno: i32,
    /// More about a failed exec, an [`ExecOutcome`].
    pub(in crate::launch) detail: u32,
}

impl Failure {
    /// The index that the doorman gives: it knows of the last step only.
    pub(in crate::launch) const OF_THE_DOORMAN: u32 = u32::MAX;
    /// Length of the encoded form.
    pub(in crate::launch) const SIZE: usize = 12;

    fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.step.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.detail.to_ne_bytes());
        bytes
    }

    /// Reads what the child has written; `None` when it has written nothing, as a successful one does.
    pub(in crate::launch) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
        Some(Self {
            step: u32::from_ne_bytes(word(0)?),
            errno: i32::from_ne_bytes(word(4)?),
            detail: u32::from_ne_bytes(word(8)?),
        })
    }
}

/// An error of a step: the number and the detail of [`Failure`].
type StepError = (Errno, u32);

/// The child's own descriptors while it works.
struct State<'a> {
    slots: &'a [AtomicI32],
    /// Whether the empty tree for masks is attached somewhere, so that it can be copied.
    empty_is_attached: bool,
    report: RawFd,
    parent: RawFd,
    doorman: Option<RawFd>,
}

/// Where the child keeps the descriptors that outlive [`Step::CloseInherited`].
pub(super) const KEPT_REPORT: RawFd = 3;
const KEPT_PARENT: RawFd = 4;
const KEPT_DOORMAN: RawFd = 5;
/// The first descriptor nobody needs after that.
const FIRST_UNKEPT: RawFd = 6;

/// How often the doorman is tried while a process that is just being born has its file open for writing, and how long
/// that takes, in nanoseconds.
const BUSY_TRIES: u32 = 2000;
const BUSY_PAUSE: i64 = 1_000_000;

/// Where the child starts.
///
/// # Safety
/// `program` must be the address of a [`Program`] that stays in place and unchanged while the child runs.
pub(super) unsafe extern "C" fn child_main(program: usize) -> ! {
    // SAFETY: the caller's promise.
    let program = unsafe { &*(program as *const Program) };
    let mut state = State {
        slots: &program.slots,
        empty_is_attached: false,
        report: program.report,
        parent: program.parent,
        doorman: program.doorman,
    };
    for (index, step) in program.steps.iter().enumerate() {
        if let Err((errno, detail)) = state.run(step) {
            let failure = Failure {
                step: index as u32,
                errno,
                detail,
            };
            // When even this fails, the parent still sees the exit code.
            let _reported = calls::write(state.report, &failure.encode());
            calls::exit(1);
        }
    }
    calls::exit(1)
}

impl State<'_> {
    fn run(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Exec(plan) => Err(self.execute(plan)),
            _ => self.run_simple(step).map_err(|errno| (errno, 0)),
        }
    }

    fn run_simple(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::ResetSignals => calls::reset_signals(),
            Step::AwaitIdMaps(ready) => {
                if !calls::read_byte(*ready)? {
                    // The parent gave up; it knows why.
                    return Err(libc::ECANCELED);
                }
                calls::setresgid(0)?;
                calls::setresuid(0)?;
            }
            Step::JoinCgroup(procs) => calls::write(*procs, b"0").map(drop)?,
            Step::NewCgroupNamespace => calls::unshare(libc::CLONE_NEWCGROUP)?,
            Step::NewSession => calls::setsid()?,
            Step::NewKeyring => {
                // No keyrings in this kernel, or none left for this user: then there is nothing to be shared either
                // that the system call filter would let through.
                let _keyring = calls::new_keyring();
            }
            Step::EnterNetwork(namespace) => calls::setns(*namespace, libc::CLONE_NEWNET)?,
            Step::LoopbackUp => calls::loopback_up()?,
            Step::MakePrivate => {
                let root = calls::openat2(CWD, c"/", libc::O_PATH, 0)?;
                let private = MountAttributes {
                    propagation: libc::MS_PRIVATE,
                    ..MountAttributes::default()
                };
                calls::mount_setattr(root, libc::AT_RECURSIVE as u32, &private)?;
                calls::close(root);
            }
            Step::NewFs { slot, fs } => self.keep(*slot, new_fs(fs)?),
            Step::CoverReadOnly(path) => cover_read_only(path)?,
            Step::WriteInto { slot, file, bytes } => write_file(self.slot(*slot), file, bytes)?,
            Step::EnterRoot(mount) => enter_root(*mount)?,
            Step::Attach { mount, target } => self.attach(*mount, target)?,
            Step::Copy { slot, from, attributes } => {
                let at = open_plain(from)?;
                let copy = calls::clone_mount(at, 0)?;
                calls::close(at);
                calls::mount_setattr(
                    copy,
                    0,
                    &MountAttributes {
                        set: *attributes,
                        ..MountAttributes::default()
                    },
                )?;
                self.keep(*slot, copy);
            }
            Step::Detach(path) => calls::detach(path)?,
            Step::Mask { path, empty } => self.mask(path, *empty)?,
            Step::Seal(path) => seal(path)?,
            Step::SealRoot => {
                let root = open_plain(c"/")?;
                let read_only = MountAttributes {
                    set: libc::MOUNT_ATTR_RDONLY,
                    ..MountAttributes::default()
                };
                calls::mount_setattr(root, 0, &read_only)?;
                calls::close(root);
            }
            Step::SetHostname(name) => calls::sethostname(name)?,
            Step::SetRlimit { resource, soft, hard } => calls::setrlimit(*resource, *soft, *hard)?,
            Step::SetOomScore(score) => write_file(CWD, c"/proc/self/oom_score_adj", score)?,
            Step::EnterCwd(cwd) => {
                let resolve = libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_IN_ROOT;
                let dir = calls::openat2(CWD, cwd, libc::O_PATH | libc::O_DIRECTORY, resolve)?;
                calls::fchdir(dir)?;
                calls::close(dir);
            }
            Step::SetUmask(mask) => calls::umask(*mask),
            Step::SetStream {
                stream,
                source: StreamSource::Descriptor(from),
            } => calls::dup3(*from, *stream, 0)?,
            Step::SetStream {
                stream,
                source: StreamSource::Null,
            } => {
                let null = calls::openat2(CWD, c"/dev/null", libc::O_RDONLY, libc::RESOLVE_NO_SYMLINKS)?;
                calls::dup3(null, *stream, 0)?;
                calls::close(null);
            }
            Step::OwnStream { stream, owner } => {
                // A user namespace may not reach the stream's owner; the process then has it without owning it.
                let _not_ours = calls::fchown_user(*stream, *owner);
            }
            Step::TakeTerminal => calls::take_terminal(0)?,
            Step::CloseInherited => self.close_inherited()?,
            Step::InstallFilter(program) => calls::seccomp(program)?,
            Step::LimitBounding(keep) => limit_bounding(*keep)?,
            Step::BecomeUser { uid, gid, groups } => {
                calls::prctl(libc::PR_SET_KEEPCAPS, 1)?;
                if let Some(groups) = groups {
                    calls::setgroups(groups)?;
                }
                calls::setresgid(*gid)?;
                calls::setresuid(*uid)?;
            }
            Step::SetCapabilities(set) => calls::capset(*set)?,
            Step::DieWithParent => {
                calls::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
                // A parent that died before this line sends nothing any more; its pidfd tells.
                if calls::has_ended(self.parent)? {
                    return Err(libc::ECANCELED);
                }
            }
            Step::Exec(_) => {}
        }
        Ok(())
    }

    fn keep(&self, slot: Slot, fd: RawFd) {
        if let Some(place) = self.slots.get(slot.0) {
            place.store(fd, Ordering::Relaxed);
        }
    }

    /// The descriptor in a slot; -1, which every call refuses, when there is none.
    fn slot(&self, slot: Slot) -> RawFd {
        self.slots.get(slot.0).map_or(-1, |place| place.load(Ordering::Relaxed))
    }

    /// The descriptor of a mount.
    fn mount(&self, mount: MountRef) -> RawFd {
        match mount {
            MountRef::Parent(fd) => fd,
            MountRef::Slot(slot) => self.slot(slot),
        }
    }

    fn attach(&self, mount: MountRef, target: &CStr) -> Result<(), Errno> {
        let mount = self.mount(mount);
        let at = open_plain(target)?;
        calls::move_mount(mount, at)?;
        calls::close(at);
        calls::close(mount);
        Ok(())
    }

    fn mask(&mut self, path: &CStr, empty: Slot) -> Result<(), Errno> {
        let at = match open_plain(path) {
            Err(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
            other => other?,
        };
        let is_directory = calls::file_mode(path)? & libc::S_IFMT == libc::S_IFDIR;
        if is_directory && !self.empty_is_attached {
            // From now on its descriptor names it as attached here, and can be copied.
            calls::move_mount(self.slot(empty), at)?;
            self.empty_is_attached = true;
        } else if is_directory {
            let cover = calls::clone_mount(self.slot(empty), 0)?;
            calls::move_mount(cover, at)?;
            calls::close(cover);
        } else {
            let null = open_plain(c"/dev/null")?;
            let cover = calls::clone_mount(null, 0)?;
            calls::move_mount(cover, at)?;
            calls::close(cover);
            calls::close(null);
        }
        calls::close(at);
        Ok(())
    }

    /// Moves the kept descriptors to known numbers and closes all others.
    fn close_inherited(&mut self) -> Result<(), Errno> {
        // Above the target numbers first, as each may stand where the other has to go.
        let report = calls::dup_above(self.report, FIRST_UNKEPT)?;
        let parent = calls::dup_above(self.parent, FIRST_UNKEPT)?;
        let doorman = match self.doorman {
            Some(doorman) => Some(calls::dup_above(doorman, FIRST_UNKEPT)?),
            None => None,
        };
        // The doorman reports as well, and closes it then.
        let flags = if doorman.is_some() { 0 } else { libc::O_CLOEXEC };
        calls::dup3(report, KEPT_REPORT, flags)?;
        self.report = KEPT_REPORT;
        calls::dup3(parent, KEPT_PARENT, libc::O_CLOEXEC)?;
        self.parent = KEPT_PARENT;
        match doorman {
            Some(doorman) => {
                calls::dup3(doorman, KEPT_DOORMAN, libc::O_CLOEXEC)?;
                self.doorman = Some(KEPT_DOORMAN);
            }
            None => calls::close(KEPT_DOORMAN),
        }
        calls::close_from(FIRST_UNKEPT)
    }
}

impl State<'_> {
    /// Takes the first candidate that may be executed, as shells do; comes back only when there is none, or it failed.
    fn execute(&self, plan: &ExecPlan) -> StepError {
        let mut refused = false;
        for candidate in &plan.candidates {
            let is_directory = match calls::may_execute(&candidate.path) {
                Ok(()) => is_directory(&candidate.path),
                Err(libc::ENOENT | libc::ENOTDIR) => continue,
                Err(libc::EACCES) if is_directory(&candidate.path) => true,
                Err(libc::EACCES) => {
                    refused = true;
                    continue;
                }
                Err(errno) => return (errno, ExecOutcome::Exists as u32),
            };
            // In PATH a directory of that name is passed over, as every shell does.
            match (is_directory, plan.lookup) {
                (true, Lookup::InPath) => {}
                (true, Lookup::AsGiven) => return (libc::EACCES, ExecOutcome::Directory as u32),
                (false, _) => return (self.become_program(candidate, plan), ExecOutcome::Exists as u32),
            }
        }
        (
            if refused { libc::EACCES } else { libc::ENOENT },
            ExecOutcome::Missing as u32,
        )
    }

    fn become_program(&self, candidate: &Candidate, plan: &ExecPlan) -> Errno {
        let env = plan.env.as_ptr();
        let Some(doorman) = self.doorman else {
            // SAFETY: both arrays end with a null pointer and lead to strings owned by the plan.
            return unsafe { calls::execve(&candidate.path, candidate.args(), env) };
        };
        let mut tries = BUSY_TRIES;
        loop {
            // SAFETY: as above.
            let errno = unsafe { calls::execveat(doorman, candidate.args_with_path(), env) };
            if errno != libc::ETXTBSY || tries == 0 {
                return errno;
            }
            tries -= 1;
            calls::sleep(BUSY_PAUSE);
        }
    }
}

fn is_directory(path: &CStr) -> bool {
    calls::file_mode(path).is_ok_and(|mode| mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Opens a path of the container that must have no symlinks: the parent has resolved them.
fn open_plain(path: &CStr) -> Result<RawFd, Errno> {
    calls::openat2(CWD, path, libc::O_PATH, libc::RESOLVE_NO_SYMLINKS)
}

fn new_fs(fs: &NewFs) -> Result<RawFd, Errno> {
    let context = calls::fsopen(&fs.name)?;
    for (key, value) in &fs.options {
        calls::fsconfig_set(context, key, value.as_deref())?;
    }
    calls::fsconfig_create(context)?;
    let mount = calls::fsmount(context, fs.attributes)?;
    calls::close(context);
    Ok(mount)
}

fn cover_read_only(path: &CStr) -> Result<(), Errno> {
    let at = calls::openat2(CWD, path, libc::O_PATH, 0)?;
    let cover = calls::clone_mount(at, 0)?;
    let read_only = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttributes::default()
    };
    calls::mount_setattr(cover, 0, &read_only)?;
    calls::move_mount(cover, at)?;
    calls::close(at);
    calls::close(cover);
    Ok(())
}

fn write_file(dir: RawFd, file: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    let fd = calls::openat2(dir, file, libc::O_WRONLY, 0)?;
    calls::write(fd, bytes)?;
    calls::close(fd);
    Ok(())
}

fn enter_root(mount: RawFd) -> Result<(), Errno> {
    let old = calls::openat2(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    calls::move_mount(mount, old)?;
    calls::fchdir(mount)?;
    calls::pivot_root_here()?;
    // The old root now lies on top of the new one; only its own directory still leads to it.
    calls::fchdir(old)?;
    calls::detach(c".")?;
    calls::fchdir(mount)?;
    calls::close(old);
    calls::close(mount);
    Ok(())
}

fn seal(path: &CStr) -> Result<(), Errno> {
    let at = match open_plain(path) {
        Err(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
        other => other?,
    };
    let copy = calls::clone_mount(at, libc::AT_RECURSIVE as u32)?;
    let read_only = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttributes::default()
    };
    calls::mount_setattr(copy, libc::AT_RECURSIVE as u32, &read_only)?;
    calls::move_mount(copy, at)?;
    calls::close(at);
    calls::close(copy);
    Ok(())
}

fn limit_bounding(keep: u64) -> Result<(), Errno> {
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        match calls::prctl(libc::PR_CAPBSET_DROP, capability) {
            // This kernel has no more capabilities.
            Err(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

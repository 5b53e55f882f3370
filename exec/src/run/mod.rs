//! Exec ops: one container over the trees of its inputs, and what it left as new trees.
//!
//! ```text
//! input trees ─ FUSE views ─► overlays, binds ─┐
//! cache, tmpfs, secret, ssh ───────────────────┼─► ContainerSpec ─ Launcher ─► exit report
//! passwd, env, limits ─────────────────────────┘                      │
//!                    upper directories ─ ingest ─► tree + layer ◄─────┘
//! ```
//! Blocking. Uppers lie in the lease's scratch and are thrown away afterwards, whatever happened.

mod agent;
mod devices;
mod emulate;
mod failed;
mod ids;
mod mounts;
mod network;
mod process;

pub(crate) use agent::{Agents, socket as ssh_socket};
pub use failed::{FailedState, LeftMount, ShellProcess};
pub(crate) use failed::{Timer, shell};
pub(crate) use network::Networks;
pub use network::{UserNetwork, UserNetworkTool};

use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cbs_fuse::View;
use cbs_solver::{FailureKind, LogSink, Step, StepError, Stream, pb};
use cbs_store::diff::empty_tree;
use cbs_store::edit::subtree;
use cbs_store::ingest::{Ingested, OverlayAttributes, UpperOptions, upperdir};
use cbs_store::{CacheMount, DirectoryStore, KnownIds, Layer, Metadata, Snapshot, Timestamp, TreeDigest};

use crate::error::ingest_error;
use crate::executor::Shared;
use crate::launch::{
    Access, CancelHandle, ContainerSpec, CreatedFor, CreatedPath, ExitReport, ExitStatus, LaunchError, Network,
    OutputSink, OutputStream, OverlayMount, OverlayXattrs, Resources, RootFs, Security,
};

/// An overlay whose changes are an output, or thrown away.
struct Upper {
    /// The folder of upper and work.
    dir: PathBuf,
    /// What it lies over, and the input that was.
    tree: TreeDigest,
    /// The directory of that tree.
    below: PathBuf,
    base: Option<Snapshot>,
    /// Which output it is.
    output: Option<usize>,
    /// Where it is mounted.
    dest: PathBuf,
}

/// Everything that has to live while the container runs.
struct Held<'a> {
    shared: &'a Shared,
    views: Vec<View>,
    caches: Vec<CacheMount>,
    uppers: Vec<Upper>,
    scratch: Vec<PathBuf>,
    doors: Vec<agent::Door>,
    /// Its helper may serve this step alone.
    network: Option<network::StepNetwork>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for dir in self
            .uppers
            .iter()
            .map(|upper| upper.dir.clone())
            .chain(self.scratch.drain(..))
        {
            self.shared.config.lease.discard(dir);
        }
    }
}

/// Runs an exec op.
pub(crate) fn run(
    shared: &Shared,
    step: &Step,
    op: &pb::ExecOp,
    inputs: &[Option<Snapshot>],
    cancel: &CancelHandle,
    timer: &Timer,
) -> Result<Vec<Option<Snapshot>>, StepError> {
    let (held, spec, meta) = prepare(shared, step, op, inputs)?;
    let mut sink = Sink(&step.log);
    let (error, created) = match launch(shared, spec, cancel, &mut sink) {
        Err(LaunchError::Cancelled) => match timer.error(meta) {
            Some(error) => (error, Vec::new()),
            None => return Err(StepError::cancelled()),
        },
        Err(error) => {
            let error = emulate::explain(error, step.vertex.platform.as_ref());
            (launch_error(meta, error), Vec::new())
        }
        Ok(report) => {
            for unmet in &report.unmet_limits {
                step.progress.warn(
                    format!("limit {} was not set: {}", unmet.limit, unmet.reason),
                    Vec::new(),
                    "",
                );
            }
            match check_status(meta, &report) {
                Ok(()) => return collect(&held, op, inputs, &report),
                Err(error) => (error, report.created),
            }
        }
    };
    failed::keep(&held, step, op, inputs, &created);
    Err(error)
}

/// Everything that is ready before the container starts.
fn prepare<'a, 'o>(
    shared: &'a Shared,
    step: &Step,
    op: &'o pb::ExecOp,
    inputs: &[Option<Snapshot>],
) -> Result<(Held<'a>, ContainerSpec, &'o pb::Meta), StepError> {
    let meta = op
        .meta
        .as_ref()
        .ok_or_else(|| crate::error::invalid("an exec op has no process"))?;
    shared.warn_of_limits(step);
    let emulation = emulate::emulation(
        step.vertex.platform.as_ref(),
        &shared.config.sandbox.emulation,
        &shared.owners,
    )?;
    // First, so that it comes up while the rest is prepared.
    let mut network = network::begin(shared, op, meta)?;
    let note = |text: String| step.progress.warn(text, Vec::new(), "");
    network.note_sharing(shared, op, &note);
    let root = op
        .mounts
        .iter()
        .find(|mount| mount.dest == "/")
        .ok_or_else(|| crate::error::invalid("an exec op has no root mount"))?;
    let root_input = input_of(inputs, root.input);
    let root_tree = match root_input {
        Some(snapshot) => snapshot.tree,
        None => empty_tree(&shared.config.store)?,
    };
    let mut held = Held {
        shared,
        views: Vec::new(),
        caches: Vec::new(),
        uppers: Vec::new(),
        scratch: Vec::new(),
        doors: Vec::new(),
        network: None,
    };
    let rootfs = RootFs::Overlay(held.overlay(root_tree, root_input.cloned(), output_of(root), Path::new("/"))?);
    let launcher_network = network.ready(shared, &note)?;
    let mut process = process::build(shared, op, meta, &root_tree, &network)?;
    let mut specs = process.files;
    specs.extend(mounts::build(&mut held, op, inputs, meta, step)?);
    let devices = devices::add(shared, step, &op.cdi_devices, &mut process.process, &mut specs)?;
    ids::check(&shared.owners, &shared.config.standing, &process.process.user, &specs)?;
    let spec = ContainerSpec {
        rootfs,
        rootfs_access: if root.readonly {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        },
        mounts: specs,
        process: process.process,
        hostname: process.hostname.into(),
        network: launcher_network,
        security: security(shared, op)?,
        user_namespace: emulation.user_namespace,
        shm_size: mounts::shm_size(op),
        devices,
        resources: Resources {
            parent: Some(&meta.cgroup_parent)
                .filter(|parent| !parent.is_empty())
                .map(PathBuf::from),
            ..shared.config.sandbox.resources_of(&step.vertex.digest)
        },
        oom_score_adj: None,
        emulators: emulation.emulators,
    };
    held.network = Some(network);
    Ok((held, spec, meta))
}

/// Runs the container. One with a user namespace of its own may not enter a network that this one owns, so its thread does.
fn launch(
    shared: &Shared,
    mut spec: ContainerSpec,
    cancel: &CancelHandle,
    sink: &mut (dyn OutputSink + Send),
) -> Result<ExitReport, LaunchError> {
    let launcher = shared.launcher();
    match (&spec.network, &spec.user_namespace) {
        (Network::Namespace(network), Some(_)) => {
            let network = Arc::clone(network);
            spec.network = Network::Host;
            let ran = crate::launch::in_network(&network, || launcher.run(&spec, cancel, sink));
            ran.unwrap_or_else(|source| {
                Err(LaunchError::Setup {
                    action: "join the network namespace of the",
                    path: "container".into(),
                    source,
                })
            })
        }
        _ => launcher.run(&spec, cancel, sink),
    }
}

/// The number of outputs is fixed by the op; a read-only mount's output is its input.
fn collect(
    held: &Held<'_>,
    op: &pb::ExecOp,
    inputs: &[Option<Snapshot>],
    report: &ExitReport,
) -> Result<Vec<Option<Snapshot>>, StepError> {
    let count = op
        .mounts
        .iter()
        .filter_map(output_of)
        .map(|output| output + 1)
        .max()
        .unwrap_or(0);
    let mut outputs = vec![None; count];
    for mount in &op.mounts {
        if let Some(output) = output_of(mount)
            && mount.readonly
        {
            outputs[output] = input_of(inputs, mount.input).cloned();
        }
    }
    for upper in &held.uppers {
        let Some(output) = upper.output else { continue };
        let left = held.read(upper, &report.created)?;
        let mut layers = upper.base.as_ref().map(|base| base.layers.clone()).unwrap_or_default();
        layers.push(Layer {
            diff: left.layer,
            diff_id: None,
        });
        outputs[output] = Some(Snapshot {
            tree: left.tree,
            layers,
        });
    }
    Ok(outputs)
}

impl Held<'_> {
    /// What an upper and the tree below it make together, without the mount points that were made for the container.
    fn read(&self, upper: &Upper, created: &[CreatedPath]) -> Result<Ingested, StepError> {
        let below = upper.dest.strip_prefix("/").unwrap_or(&upper.dest);
        let stubs: Vec<PathBuf> = created
            .iter()
            .filter(|created| created.purpose == CreatedFor::Mount)
            .filter_map(|created| created.path.strip_prefix(below).ok().map(Path::to_owned))
            .collect();
        let options = UpperOptions {
            stubs: &stubs,
            attributes: match self.shared.xattrs() {
                OverlayXattrs::Trusted => OverlayAttributes::Trusted,
                OverlayXattrs::User => OverlayAttributes::User,
            },
            owners: &self.shared.owners,
            threads: self.shared.threads,
        };
        let store = &self.shared.config.store;
        let lower = subtree(store, &upper.tree, upper.below.as_os_str().as_encoded_bytes());
        let lower = lower.map_err(crate::error::edit_error)?;
        upperdir(store, &upper.dir.join("upper"), &lower, &options).map_err(ingest_error)
    }

    /// An overlay over a tree with a fresh upper.
    fn overlay(
        &mut self,
        tree: TreeDigest,
        base: Option<Snapshot>,
        output: Option<usize>,
        dest: &Path,
    ) -> Result<OverlayMount, StepError> {
        self.overlay_below(tree, Path::new(""), base, output, dest)
    }

    /// The same for a directory of the tree; such an overlay's changes are no output.
    fn overlay_below(
        &mut self,
        tree: TreeDigest,
        below: &Path,
        base: Option<Snapshot>,
        output: Option<usize>,
        dest: &Path,
    ) -> Result<OverlayMount, StepError> {
        let shared = self.shared;
        let view = shared.mount()?.view(tree);
        let dir = shared.config.lease.new_dir("run")?;
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        let root = if below.as_os_str().is_empty() {
            shared.config.store.need_directory(&tree)?.root.clone()
        } else {
            let found = cbs_store::edit::lookup(&shared.config.store, &tree, below.as_os_str().as_encoded_bytes());
            found.map_err(crate::error::edit_error)?.map(|entry| entry.meta)
        };
        // The merged root shows the upper directory's metadata, so it has to be the tree's.
        make_upper(&upper, &root.unwrap_or_else(|| Metadata::new(0o755)), &shared.owners)
            .map_err(|err| system("make", &upper, err))?;
        std::fs::create_dir(&work).map_err(|err| system("make", &work, err))?;
        let overlay = OverlayMount {
            lower: vec![view.lower_dir().join(below)],
            data_only: view.data_dir().map(Path::to_owned).into_iter().collect(),
            upper,
            work,
            xattrs: shared.xattrs(),
        };
        self.views.push(view);
        self.uppers.push(Upper {
            dir,
            tree,
            below: below.to_owned(),
            base,
            output,
            dest: dest.to_owned(),
        });
        Ok(overlay)
    }
}

fn make_upper(path: &Path, meta: &Metadata, owners: &KnownIds) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    let (uid, gid) = owners.shown(meta.uid, meta.gid);
    chown(path, Some(uid), Some(gid))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(meta.mode))?;
    let Timestamp { seconds, nanos } = meta.mtime;
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanos),
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::empty(),
    )?)
}

/// A failure of the operating system on a path.
fn system(action: &str, path: &Path, source: std::io::Error) -> StepError {
    StepError::caused(
        FailureKind::System,
        format!("cannot {action} `{}`", path.display()),
        source,
    )
}

fn input_of(inputs: &[Option<Snapshot>], index: i64) -> Option<&Snapshot> {
    usize::try_from(index)
        .ok()
        .and_then(|index| inputs.get(index))
        .and_then(Option::as_ref)
}

fn output_of(mount: &pb::Mount) -> Option<usize> {
    let keeps = matches!(mount.mount_type(), pb::MountType::Bind);
    usize::try_from(mount.output).ok().filter(|_| keeps)
}

fn security(shared: &Shared, op: &pb::ExecOp) -> Result<Security, StepError> {
    match op.security() {
        pb::SecurityMode::Sandbox => Ok(Security::Sandbox),
        pb::SecurityMode::Insecure if shared.config.sandbox.allow_insecure => Ok(Security::Insecure),
        pb::SecurityMode::Insecure => Err(StepError::new(
            FailureKind::Denied,
            "security.insecure is not allowed; grant it with --allow security.insecure",
        )),
    }
}

fn launch_error(meta: &pb::Meta, error: LaunchError) -> StepError {
    match error {
        LaunchError::Cancelled => StepError::cancelled(),
        LaunchError::Exec(err) => {
            let message = format!(
                "process `{}` did not complete successfully: {err}: exit code: {}",
                meta.args.join(" "),
                err.exit_code()
            );
            StepError::caused(FailureKind::ExitCode(i32::from(err.exit_code())), message, err)
        }
        LaunchError::Spec(err) => StepError::caused(FailureKind::Invalid, err.to_string(), err),
        other => StepError::caused(FailureKind::System, other.to_string(), other),
    }
}

fn check_status(meta: &pb::Meta, report: &ExitReport) -> Result<(), StepError> {
    let code = i32::from(report.status.code());
    let valid = if meta.valid_exit_codes.is_empty() {
        code == 0
    } else {
        meta.valid_exit_codes.contains(&code)
    };
    let (kind, text) = match report.status {
        ExitStatus::Exited(_) if valid => return Ok(()),
        ExitStatus::Exited(_) => (FailureKind::ExitCode(code), format!("exit code: {code}")),
        ExitStatus::Signaled(signal) => (FailureKind::Signal(signal), format!("killed by signal {signal}")),
        ExitStatus::OutOfMemory { .. } => (
            FailureKind::OutOfMemory,
            "killed for lack of memory; give it more or build fewer steps at once".to_owned(),
        ),
    };
    let command = meta.args.join(" ");
    Err(StepError::new(
        kind,
        format!("process \"{command}\" did not complete successfully: {text}"),
    ))
}

/// What the container prints goes to the step's log.
struct Sink<'a>(&'a LogSink);

impl OutputSink for Sink<'_> {
    fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        let stream = match stream {
            OutputStream::Stdout => Stream::Stdout,
            OutputStream::Stderr => Stream::Stderr,
        };
        self.0.write(stream, bytes);
    }
}

/// How many threads read an upper directory.
pub(crate) fn ingest_threads() -> NonZeroUsize {
    std::thread::available_parallelism()
        .unwrap_or(NonZeroUsize::MIN)
        .min(NonZeroUsize::MIN.saturating_add(3))
}

//! What a failed step leaves, its time limit, and other processes in a step's surroundings.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cbs_solver::llb::VertexDigest;
use cbs_solver::{FailureKind, LogSink, Progress, Step, StepError, Vertex, pb};
use cbs_store::{Snapshot, TreeDigest};

use super::mounts::absolute;
use super::{Held, launch, launch_error, prepare};
use crate::config::KeepFailed;
use crate::executor::Shared;
use crate::launch::{CancelHandle, CreatedPath, Discard, ExitStatus, Stdio};

/// What a step saw and what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedState {
    /// Which step.
    pub vertex: VertexDigest,
    /// The inputs of its op; `None` is scratch.
    pub inputs: Vec<Option<Snapshot>>,
    /// The writable mounts at its end; those that are not here are as the inputs say.
    pub mounts: Vec<LeftMount>,
}

/// One writable mount at the end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftMount {
    /// Its number in the op.
    pub mount: usize,
    /// What it looks like.
    pub tree: TreeDigest,
}

/// A process to run in a step's stead.
#[derive(Debug)]
pub struct ShellProcess {
    /// Program and arguments.
    pub args: Vec<OsString>,
    /// Variables beside those of the step, each `NAME=value`; a step's own come first.
    pub env: Vec<OsString>,
    /// Where its streams lead.
    pub stdio: Stdio,
    /// Ends it.
    pub cancel: CancelHandle,
}

/// Keeps the state of a failed step, if that is wanted. Its failure is as true without it.
pub(super) fn keep(
    held: &Held<'_>,
    step: &Step,
    op: &pb::ExecOp,
    inputs: &[Option<Snapshot>],
    created: &[CreatedPath],
) {
    let shared = held.shared;
    if shared.config.sandbox.failed_state == KeepFailed::No {
        return;
    }
    let cwd = op.meta.as_ref().map_or("/", |meta| meta.cwd.as_str());
    let read = || {
        let mut mounts = Vec::new();
        for upper in &held.uppers {
            let is_it = |mount: &pb::Mount| absolute(&mount.dest, cwd) == upper.dest;
            let Some(mount) = op.mounts.iter().position(is_it) else {
                continue;
            };
            let tree = held.read(upper, created)?.tree;
            mounts.push(LeftMount { mount, tree });
        }
        Ok::<_, StepError>(mounts)
    };
    match read() {
        Ok(mounts) => {
            let state = FailedState {
                vertex: step.vertex.digest,
                inputs: inputs.to_vec(),
                mounts,
            };
            shared.failed.lock().unwrap_or_else(PoisonError::into_inner).push(state);
        }
        Err(err) => step.progress.warn(
            "the state of this failed step could not be kept",
            vec![err.to_string()],
            "",
        ),
    }
}

/// How long a step may take, and whether that time is up.
#[derive(Debug)]
pub(crate) struct Timer {
    patience: Option<Duration>,
    expired: AtomicBool,
}

impl Timer {
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self {
            patience,
            expired: AtomicBool::new(false),
        }
    }

    /// The time is up.
    pub(crate) fn expire(&self) {
        self.expired.store(true, Ordering::Release);
    }

    /// Why a step was stopped, if this is why.
    pub(super) fn error(&self, meta: &pb::Meta) -> Option<StepError> {
        let patience = self.patience.filter(|_| self.expired.load(Ordering::Acquire))?;
        let message = format!(
            "process \"{}\" did not complete successfully: it took longer than the {patience:?} of --step-timeout",
            meta.args.join(" ")
        );
        Some(StepError::new(FailureKind::Timeout, message))
    }
}

/// Runs a process in the surroundings of an exec vertex.
pub(crate) fn shell(
    shared: &Shared,
    vertex: &Arc<Vertex>,
    state: &FailedState,
    process: ShellProcess,
) -> Result<ExitStatus, StepError> {
    let pb::op::Op::Exec(op) = &vertex.op else {
        return Err(crate::error::invalid(format!("`{}` runs nothing", vertex.name)));
    };
    let (op, inputs) = left_as_inputs(op, state)?;
    let step = Step {
        vertex: Arc::clone(vertex),
        pin: None,
        cancel: tokio_util::sync::CancellationToken::new(),
        log: LogSink::discard(),
        progress: Progress::discard(),
        lease: Some(Arc::clone(&shared.config.lease)),
    };
    let (held, mut spec, meta) = prepare(shared, &step, &op, &inputs)?;
    spec.process.args = process.args;
    spec.process.env.extend(process.env);
    spec.process.stdio = process.stdio;
    let report = launch(shared, spec, &process.cancel, &mut Discard).map_err(|err| launch_error(meta, err));
    drop(held);
    Ok(report?.status)
}

/// The op over the trees that were left, without what cannot be had again.
fn left_as_inputs(op: &pb::ExecOp, state: &FailedState) -> Result<(pb::ExecOp, Vec<Option<Snapshot>>), StepError> {
    let (mut op, mut inputs) = (op.clone(), state.inputs.clone());
    for left in &state.mounts {
        let mount = op
            .mounts
            .get_mut(left.mount)
            .ok_or_else(|| crate::error::invalid("what is kept of the step is about another one"))?;
        mount.input = i64::try_from(inputs.len()).unwrap_or(-1);
        mount.selector = String::new();
        inputs.push(Some(Snapshot {
            tree: left.tree,
            layers: Vec::new(),
        }));
    }
    for mount in &mut op.mounts {
        if let Some(options) = &mut mount.secret_opt {
            options.optional = true;
        }
        if let Some(options) = &mut mount.ssh_opt {
            options.optional = true;
        }
        if Path::new(&mount.dest) == Path::new("/") {
            // To look around means to try things.
            mount.readonly = false;
        }
    }
    for secret in &mut op.secretenv {
        secret.optional = true;
    }
    Ok((op, inputs))
}

//! [`LocalExecutor`]: the solver's executor on this machine.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cbs_fuse::{LowerMode, Privilege, RunConfig, RunMount};
use cbs_image::source::ResolvedImage;
use cbs_solver::llb::VertexDigest;
use cbs_solver::{BoxFuture, Executor, FailureKind, SourcePin, Step, StepError, Vertex, pb};
use cbs_store::ingest::Scan;
use cbs_store::{KnownIds, Snapshot};

use crate::config::{ExecConfig, SecretSource};
use crate::launch::{CancelHandle, ExitStatus, Launcher, OverlayXattrs, SweepDepth, probe};
use crate::rootless::{self, Standing};
use crate::{blocking, file, ops, run, source};

/// Where the store keeps which lower mode a kernel has.
const MODE_FACTS: &str = "lower-mode.v1";

/// Runs ops in containers of this machine and brings sources into the store.
///
/// The FUSE mount and the launcher are set up when the first step needs them, so that a build in which everything is cached
/// pays for neither. Cloning is cheap; clones are one executor.
#[derive(Clone)]
pub struct LocalExecutor(Arc<Shared>);

/// What all steps share.
pub(crate) struct Shared {
    // Before the configuration, whose lease removes the folder it is mounted in.
    mount: Mutex<Option<Arc<RunMount>>>,
    launcher: OnceLock<Launcher>,
    facts: probe::Facts,
    /// What a killed process had limits for was still dying when this one began.
    sweeps_again: bool,
    http: OnceLock<reqwest::Client>,
    pub(crate) networks: run::Networks,
    pub(crate) agents: run::Agents,
    pub(crate) failed: Mutex<Vec<run::FailedState>>,
    pub(crate) config: ExecConfig,
    pub(crate) threads: NonZeroUsize,
    /// The ids of this user namespace.
    pub(crate) owners: KnownIds,
    /// Whether it was said what a single id means.
    warned: AtomicBool,
    pub(crate) scans: Mutex<HashMap<VertexDigest, Arc<Scan>>>,
    pub(crate) images: Mutex<HashMap<VertexDigest, ResolvedImage>>,
}

impl LocalExecutor {
    /// Takes the services; nothing is mounted or started yet. Cgroups that killed processes left are removed.
    pub fn new(config: ExecConfig) -> Self {
        let facts = probe::Facts::probe();
        let sweeps_again = !facts.sweep_groups(SweepDepth::Own);
        Self(Arc::new(Shared {
            mount: Mutex::new(None),
            launcher: OnceLock::new(),
            facts,
            sweeps_again,
            http: OnceLock::new(),
            networks: run::Networks::default(),
            agents: run::Agents::default(),
            failed: Mutex::default(),
            config,
            threads: run::ingest_threads(),
            owners: rootless::known_ids(),
            warned: AtomicBool::new(false),
            scans: Mutex::default(),
            images: Mutex::default(),
        }))
    }
}

impl LocalExecutor {
    /// What failed steps left so far, if [`KeepFailed`](crate::KeepFailed) says so; the executor's lease keeps it.
    pub fn failed_states(&self) -> Vec<run::FailedState> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs another process in the surroundings of an exec vertex: its mounts, environment, user and network. Secrets and
    /// agents that were not given are left out. Nothing it changes is kept, but in cache mounts. Blocking.
    ///
    /// # Errors
    /// [`StepError`] when it cannot be started.
    pub fn shell(
        &self,
        vertex: &Arc<Vertex>,
        state: &run::FailedState,
        process: run::ShellProcess,
    ) -> Result<ExitStatus, StepError> {
        run::shell(&self.0, vertex, state, process)
    }
}

impl std::fmt::Debug for LocalExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalExecutor").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.sweeps_again {
            // What stays now is the next command's.
            self.facts.sweep_groups(SweepDepth::Own);
        }
    }
}

impl Shared {
    /// The mount that shows trees below containers.
    pub(crate) fn mount(&self) -> Result<Arc<RunMount>, StepError> {
        let mut mount = self.mount.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = &*mount {
            return Ok(Arc::clone(mount));
        }
        let fail = |err: cbs_fuse::FuseError| {
            StepError::caused(
                FailureKind::System,
                format!("cannot show trees to containers: {err}"),
                err,
            )
        };
        if let Standing::Refused { why } = &self.config.standing {
            return Err(StepError::new(
                FailureKind::System,
                format!("RUN needs a user namespace when cbs is not run by root: {why}"),
            ));
        }
        let mode = match self.config.lower_mode {
            Some(mode) => mode,
            None => self.probe_mode().map_err(fail)?,
        };
        let config = RunConfig {
            store: Arc::new(self.config.store.clone()),
            blobs: self.config.store.blobs_dir(),
            mountpoint: self.config.lease.new_dir("fuse")?,
            mode,
            privilege: self.config.privilege,
            threads: cbs_fuse::default_threads(),
            images: None,
            entry_budget: cbs_fuse::DEFAULT_ENTRY_BUDGET,
            owners: self.owners.clone(),
        };
        let made = Arc::new(RunMount::mount(config).map_err(fail)?);
        *mount = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Asks the kernel once, and remembers what it said for as long as it is this kernel.
    fn probe_mode(&self) -> Result<LowerMode, cbs_fuse::FuseError> {
        let store = &self.config.store;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = format!("{release} {:?}", self.config.privilege);
        // A store that cannot say is a store that is asked again.
        match store
            .fact(MODE_FACTS, &kernel)
            .ok()
            .flatten()
            .as_ref()
            .map(|(value, _)| value.as_slice())
        {
            Some(b"data-only") => return Ok(LowerMode::DataOnly),
            Some(b"plain") => return Ok(LowerMode::Plain),
            _ => {}
        }
        let mode = cbs_fuse::probe(self.config.lease.scratch(), self.config.privilege)?;
        let text: &[u8] = match mode {
            LowerMode::DataOnly => b"data-only",
            LowerMode::Plain => b"plain",
        };
        store.put_fact(MODE_FACTS, &kernel, text).unwrap_or_default();
        Ok(mode)
    }

    /// Says once what steps of this user cannot do.
    pub(crate) fn warn_of_limits(&self, step: &Step) {
        let Standing::SingleId { why } = &self.config.standing else {
            return;
        };
        if self.warned.swap(true, Ordering::Relaxed) {
            return;
        }
        let text = format!(
            "rootless with a single id: {why}; files of other owners keep them, but steps cannot change owners or run as \
             another user"
        );
        step.progress.warn(text, Vec::new(), "");
    }

    pub(crate) fn launcher(&self) -> &Launcher {
        self.launcher.get_or_init(|| Launcher::new(self.facts.clone()))
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        self.http.get_or_init(crate::source::http::client)
    }

    /// In which name space overlays keep their attributes.
    pub(crate) fn xattrs(&self) -> OverlayXattrs {
        match self.config.privilege {
            Privilege::Root => OverlayXattrs::Trusted,
            Privilege::UserNamespace => OverlayXattrs::User,
        }
    }

    /// A secret's bytes; `None` for an optional one that was not given.
    pub(crate) fn secret(&self, id: &str, optional: bool) -> Result<Option<Arc<[u8]>>, StepError> {
        match self.config.secrets.get(id) {
            Some(SecretSource::Value(bytes)) => Ok(Some(Arc::clone(bytes))),
            Some(SecretSource::File(path)) => match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(err) => {
                    let message = format!("cannot read secret `{id}` from `{}`", path.display());
                    Err(StepError::caused(FailureKind::MissingSource, message, err))
                }
            },
            None if optional => Ok(None),
            None => Err(StepError::new(
                FailureKind::MissingSource,
                format!("secret {id}: not found; pass it with --secret id={id},src=FILE"),
            )),
        }
    }
}

/// Ends a container when the future that waits for it is dropped.
struct CancelOnDrop(Arc<CancelHandle>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Executor for LocalExecutor {
    fn pin(&self, step: Step) -> BoxFuture<'_, Result<SourcePin, StepError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { source::pin(&shared, &step).await })
    }

    fn run(
        &self,
        step: Step,
        inputs: Vec<Option<Snapshot>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Snapshot>>, StepError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            match &step.vertex.op {
                pb::op::Op::Source(_) => Ok(vec![source::fetch(&shared, &step).await?]),
                pb::op::Op::Exec(_) => run_exec(shared, step, inputs).await,
                pb::op::Op::File(_) | pb::op::Op::Merge(_) | pb::op::Op::Diff(_) => {
                    blocking(move || run_edit(&shared, &step, &inputs)).await
                }
                pb::op::Op::Build(_) => Err(StepError::new(
                    FailureKind::Unsupported,
                    "build ops inside a definition are not supported yet",
                )),
            }
        })
    }
}

async fn run_exec(
    shared: Arc<Shared>,
    step: Step,
    inputs: Vec<Option<Snapshot>>,
) -> Result<Vec<Option<Snapshot>>, StepError> {
    let handle = CancelHandle::new()
        .map_err(|err| StepError::caused(FailureKind::System, "cannot make a handle to cancel with", err))?;
    let guard = CancelOnDrop(Arc::new(handle));
    let (cancel, token) = (Arc::clone(&guard.0), step.cancel.clone());
    let patience = shared.config.sandbox.step_timeout;
    let timer = Arc::new(run::Timer::new(patience));
    let seen = Arc::clone(&timer);
    let running = blocking(move || {
        let pb::op::Op::Exec(op) = &step.vertex.op else {
            return Err(crate::error::invalid("not an exec op"));
        };
        run::run(&shared, &step, op, &inputs, &cancel, &seen)
    });
    let mut running = std::pin::pin!(running);
    let too_long = async {
        match patience {
            Some(patience) => tokio::time::sleep(patience).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = &mut running => return result,
        () = token.cancelled() => guard.0.cancel(),
        () = too_long => {
            timer.expire();
            guard.0.cancel();
        }
    }
    running.await
}

fn run_edit(shared: &Shared, step: &Step, inputs: &[Option<Snapshot>]) -> Result<Vec<Option<Snapshot>>, StepError> {
    let store = &shared.config.store;
    match &step.vertex.op {
        pb::op::Op::File(op) => file::run(store, op, inputs),
        pb::op::Op::Merge(op) => Ok(vec![ops::merge(store, op, inputs)?]),
        pb::op::Op::Diff(op) => Ok(vec![ops::diff(store, op, inputs)?]),
        _ => Err(crate::error::invalid("not an op that edits trees")),
    }
}

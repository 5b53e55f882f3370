//! What a build runs in: the store and a lease on it, the way to images, threads, signals and the progress display.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context as _;
use cbs_exec::rootless::Standing;
use cbs_fuse::LowerMode;
use cbs_image::auth::DockerConfig;
use cbs_image::registry::{Registry, RegistryConfig};
use cbs_image::source::{ImageSource, Network};
use cbs_solver::{
    CANCEL_GRACE, CacheUse, Ctx, Executor, LinuxPressure, Need, OnFailure, Parallelism, SolveConfig, StoreIndex,
    SystemClock,
};
use cbs_store::{Access, Lease, Store};
use tokio_util::sync::CancellationToken;

use crate::args::Global;
use crate::build_args::ProgressMode;
use crate::commands::open_store;
use crate::config::BuildConfig;
use crate::failure::Interrupted;
use crate::gc_policy::GcConfig;
use crate::live::LiveLog;
use crate::progress::Display;

/// Layers of one image fetched at once.
const PARALLEL_LAYERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// The services of a running command. Dropping it ends what still runs, then gives up the lease.
pub(crate) struct Session {
    /// Shows what happens.
    pub(crate) display: Display,
    /// Async work runs here.
    pub(crate) runtime: tokio::runtime::Runtime,
    /// Gives images.
    pub(crate) images: ImageSource,
    /// Whether it may be used.
    pub(crate) network: Network,
    /// Fires at the first signal.
    pub(crate) cancel: CancellationToken,
    /// Keeps what is made from gc.
    pub(crate) lease: Arc<Lease>,
    /// Where everything is.
    pub(crate) store: Store,
    /// What is collected without being asked.
    pub(crate) gc: GcConfig,
    /// How progress is shown.
    pub(crate) progress: ProgressMode,
    /// What was set for builds.
    pub(crate) settings: BuildConfig,
    /// How trees lie below steps, when it is not left to the kernel.
    pub(crate) lower_mode: Option<LowerMode>,
    /// As whom steps run.
    pub(crate) standing: Standing,
    /// The exit code of the signal that came; zero for none.
    signal: Arc<AtomicU8>,
}

/// How many steps run, and what a failure means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SolveSettings {
    /// Steps at once; `None` goes by the machine.
    pub(crate) jobs: Option<NonZeroUsize>,
    /// What the first failure means.
    pub(crate) on_failure: OnFailure,
    /// Whether known results count.
    pub(crate) cache: CacheUse,
}

impl SolveSettings {
    /// For small solves beside the build: bringing in a context or a definition.
    pub(crate) fn plain() -> Self {
        Self {
            jobs: None,
            on_failure: OnFailure::Stop,
            cache: CacheUse::ReadWrite,
        }
    }

    /// The settings with what must be there in the end.
    pub(crate) fn config(&self, need: Need) -> SolveConfig {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let parallelism = match self.jobs {
            Some(jobs) => Parallelism::Fixed(jobs),
            None => Parallelism::Auto {
                cores,
                pressure: Arc::new(LinuxPressure::new("/proc", cores)),
            },
        };
        SolveConfig {
            parallelism,
            on_failure: self.on_failure,
            cache: self.cache,
            need,
            cancel_grace: CANCEL_GRACE,
        }
    }
}

impl Session {
    /// Opens the store and starts threads.
    pub(crate) fn start(global: &Global, progress: Option<ProgressMode>, network: Network) -> anyhow::Result<Self> {
        check_descriptors()?;
        let store = open_store(global, Access::ReadWrite)?;
        let lease = Arc::new(store.lease().context("cannot work in the store")?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start threads")?;
        let (cancel, signal) = (CancellationToken::new(), Arc::new(AtomicU8::new(0)));
        watch_signals(&runtime, cancel.clone(), signal.clone())?;
        let registry = Registry::new(RegistryConfig {
            credentials: Arc::new(credentials(global.docker_config.clone())?),
            hosts: global.settings.registry_hosts(),
            ..RegistryConfig::default()
        });
        cbs_image::registry::install_tls_provider();
        let images = ImageSource::new(store.clone(), registry, network, PARALLEL_LAYERS);
        let settings = global.settings.build.clone();
        let progress = progress.or(settings.progress).unwrap_or_default();
        // A build that cannot be followed is built all the same.
        let live = LiveLog::begin(lease.scratch()).ok();
        Ok(Self {
            display: Display::start(progress, live),
            runtime,
            images,
            network,
            cancel,
            lease,
            gc: global.settings.gc.clone(),
            store,
            progress,
            settings,
            lower_mode: global.lower_mode.map(Into::into),
            standing: global.standing.clone(),
            signal,
        })
    }

    /// What a solve with this executor uses.
    pub(crate) fn context(&self, executor: Arc<dyn Executor>) -> Ctx {
        Ctx {
            index: Arc::new(StoreIndex {
                store: self.store.clone(),
                lease: self.lease.clone(),
            }),
            executor,
            remotes: Vec::new(),
            events: self.display.events(),
            clock: Arc::new(SystemClock),
            lease: Some(self.lease.clone()),
            cancel: self.cancel.clone(),
        }
    }

    /// Whether a signal came, as the error that ends the command.
    pub(crate) fn check_interrupted(&self) -> Result<(), Interrupted> {
        match self.signal.load(Ordering::SeqCst) {
            0 => Ok(()),
            code => Err(Interrupted { code }),
        }
    }
}

/// Refuses a limit on open files below which not even the parts start; they are not all able to say so.
fn check_descriptors() -> anyhow::Result<()> {
    const NEEDED: u64 = 64;
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < NEEDED => {
            let error = std::io::Error::from(rustix::io::Errno::MFILE);
            Err(error).with_context(|| format!("only {limit} files may be open here; {NEEDED} are needed at least"))
        }
        _ => Ok(()),
    }
}

/// The first signal cancels; what runs ends by itself. The second one ends the process at once.
fn watch_signals(
    runtime: &tokio::runtime::Runtime,
    cancel: CancellationToken,
    signal: Arc<AtomicU8>,
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal as listen};
    let entered = runtime.enter();
    let mut interrupt = listen(SignalKind::interrupt()).context("cannot listen to signals")?;
    let mut terminate = listen(SignalKind::terminate()).context("cannot listen to signals")?;
    drop(entered);
    runtime.spawn(async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if cancel.is_cancelled() {
                std::process::exit(code.into());
            }
            signal.store(code, Ordering::SeqCst);
            cancel.cancel();
        }
    });
    Ok(())
}

/// Docker's credentials: those of the folder docker was told, of `$DOCKER_CONFIG` or `~/.docker`, and of
/// `DOCKER_AUTH_CONFIG`.
fn credentials(folder: Option<PathBuf>) -> anyhow::Result<DockerConfig> {
    let folder = folder
        .or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from))
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    let config = match folder {
        Some(folder) => DockerConfig::load(&folder.join("config.json"))?,
        None => DockerConfig::default(),
    };
    Ok(match std::env::var("DOCKER_AUTH_CONFIG") {
        Ok(value) if !value.is_empty() => config.with_environment(&value)?,
        _ => config,
    })
}

//! What an executor is told and given; built once by the command line.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use cbs_fuse::{LowerMode, Privilege};
use cbs_image::source::{ImageSource, Network};
use cbs_solver::llb::VertexDigest;
use cbs_store::{Lease, Store};

use crate::cdi::DeviceSettings;
use crate::rootless::Standing;

/// The services and settings of a [`LocalExecutor`](crate::LocalExecutor).
pub struct ExecConfig {
    /// Where everything is.
    pub store: Store,
    /// Keeps what is made; its scratch holds uppers.
    pub lease: Arc<Lease>,
    /// Pulls images, and opens OCI layouts.
    pub images: ImageSource,
    /// Folders behind `local://NAME`.
    pub locals: BTreeMap<String, PathBuf>,
    /// OCI layouts behind `oci-layout://NAME`, by the op's `oci.store` attribute or name.
    pub layouts: BTreeMap<String, PathBuf>,
    /// Secrets by id. Never stored, logged or keyed.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Ssh agents by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// What mutable sources are held to, and where is noted what they are.
    pub pins: Arc<crate::Pins>,
    /// Whether git and http sources may be asked and fetched.
    pub network: Network,
    /// Settings of the containers.
    pub sandbox: SandboxConfig,
    /// Where devices are described, and which may be used.
    pub devices: DeviceSettings,
    /// Whose root we are.
    pub privilege: Privilege,
    /// As whom containers can be run, for what is said when they cannot.
    pub standing: Standing,
    /// Forces how FUSE trees lie below overlays; `None` asks the kernel.
    pub lower_mode: Option<LowerMode>,
}

/// Where a secret's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, read when a step asks.
    File(PathBuf),
    /// Here.
    Value(Arc<[u8]>),
}

/// What answers to an ssh agent's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// The agent that listens at this socket.
    Agent(PathBuf),
    /// An agent of our own with the keys of these files, started when a step asks.
    Keys(Vec<PathBuf>),
}

/// Never shows a value.
impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// What becomes of the state of failed steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepFailed {
    /// It is thrown away.
    #[default]
    No,
    /// It is stored, to be asked for by [`LocalExecutor::failed_states`](crate::LocalExecutor::failed_states).
    Yes,
}

/// Settings of all containers of a solve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxConfig {
    /// `network.host` was granted.
    pub allow_host_network: bool,
    /// `security.insecure` was granted.
    pub allow_insecure: bool,
    /// How steps of other machines run.
    pub emulation: EmulationChoice,
    /// What gives steps a network of their own; without it they share this machine's.
    pub user_network: Option<crate::run::UserNetwork>,
    /// How long a step may take.
    pub step_timeout: Option<std::time::Duration>,
    /// What becomes of the state of failed steps.
    pub failed_state: KeepFailed,
    /// Limits of each step's cgroup.
    pub resources: crate::launch::Resources,
    /// Limits of single steps instead. They can be given once the definitions are known.
    pub step_resources: StepResources,
}

/// How steps of other machines run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EmulationChoice {
    /// As the host has it registered, else by an emulator found here.
    #[default]
    Auto,
    /// By the emulators in this folder, whatever the host has registered.
    Folder(PathBuf),
    /// Not at all.
    Never,
}

/// Limits by step.
pub type StepResources = Arc<OnceLock<HashMap<VertexDigest, crate::launch::Resources>>>;

impl SandboxConfig {
    /// The limits of a step.
    pub(crate) fn resources_of(&self, vertex: &VertexDigest) -> crate::launch::Resources {
        let own = self.step_resources.get().and_then(|limits| limits.get(vertex));
        own.unwrap_or(&self.resources).clone()
    }
}

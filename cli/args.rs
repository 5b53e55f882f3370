//! The command line: what `cbs` accepts.

use std::path::PathBuf;

use cbs_exec::rootless::Standing;
use clap::{Args, Parser, Subcommand};

use crate::build_args::{BakeArgs, BuildArgs, ExportArgs, LogArgs, PlanArgs, RealizeArgs};
use crate::commands;
use crate::commands::cache::CacheCommand;
use crate::commands::config::ConfigCommand;
use crate::commands::doctor::DoctorArgs;
use crate::commands::shell::ShellArgs;
use crate::config::Config;
use crate::failure::Verbosity;

/// Content build store: a content-addressed store for builds of Dockerfiles and bake files.
#[derive(Debug, Parser)]
#[command(name = "cbs", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  cbs build -t app --output type=oci,dest=app.tar .
  cbs bake --print
  cbs realize docker-bake.hcl#app-release --output type=oci,dest=app.tar
  cbs export docker-bake.hcl#app-release --type docker -o app.tar
  cbs du
  cbs gc --dry-run
  cbs store verify --repair
  cbs mount /mnt/store";

const COMPLETION: &str = "Examples:
  source <(cbs completion bash)                                        in ~/.bashrc
  source <(cbs completion zsh)                                         in ~/.zshrc
  cbs completion fish > ~/.config/fish/completions/cbs.fish";

/// Flags every command takes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Folder of the store [default: /var/lib/cbs for root, $XDG_DATA_HOME/cbs for others]
    #[arg(long, global = true, env = "CBS_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Read settings from this file only [default: /etc/cbs/config.toml, then $XDG_CONFIG_HOME/cbs/config.toml]
    #[arg(long, global = true, env = "CBS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Show the causes of a failure one by one
    #[arg(short = 'D', long, global = true)]
    pub(crate) debug: bool,
    /// What the files of settings say.
    #[arg(skip)]
    pub(crate) settings: Config,
    /// The folder of docker's settings, when docker called and was told one.
    #[arg(skip)]
    pub(crate) docker_config: Option<PathBuf>,
    /// How steps get at large files of the trees below them [default: the best that the kernel can]
    #[arg(long, global = true, env = "CBS_LOWER_MODE", value_name = "MODE", hide = true)]
    pub(crate) lower_mode: Option<LowerModeArg>,
    /// As whom the command runs; no flag says it.
    #[arg(skip)]
    pub(crate) standing: Standing,
}

/// `--lower-mode`, for machines whose kernel is better not asked, and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LowerModeArg {
    /// The kernel reads them from the store by itself (Linux 6.5)
    DataOnly,
    /// Through FUSE, as all kernels can
    Plain,
}

impl From<LowerModeArg> for cbs_fuse::LowerMode {
    fn from(arg: LowerModeArg) -> Self {
        match arg {
            LowerModeArg::DataOnly => Self::DataOnly,
            LowerModeArg::Plain => Self::Plain,
        }
    }
}

impl Global {
    /// How much is said about failures.
    pub(crate) fn verbosity(&self) -> Verbosity {
        if self.debug { Verbosity::Full } else { Verbosity::Short }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Build the targets of a bake file
    Bake(Box<BakeArgs>),
    /// Build what a reference names, and keep it under that name
    Realize(Box<RealizeArgs>),
    /// Say what is questionable in a Dockerfile
    Check(commands::check::CheckArgs),
    /// Look at build contexts
    #[command(subcommand)]
    Context(commands::context::ContextCommand),
    /// Write down what the mutable sources of targets are now
    Lock(commands::lock::LockArgs),
    /// Show the graph a build would solve
    Plan(PlanArgs),
    /// Write what was realised, without building
    Export(ExportArgs),
    /// Show what the steps of a build printed
    Log(LogArgs),
    /// Open a shell in the state before or after a step, or of a failed one
    Shell(Box<ShellArgs>),
    /// List, move and remove cache mounts
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Remove what no root, running build or recent use keeps
    #[command(visible_alias = "prune")]
    Gc(commands::gc::GcArgs),
    /// Show what the store holds and how large it is
    Du(commands::du::DuArgs),
    /// Look at the store and check it
    #[command(subcommand)]
    Store(StoreCommand),
    /// Show the trees of the store as files until interrupted
    Mount(MountArgs),
    /// List what keeps things in the store: results, tags, pins
    Roots(commands::roots::RootsArgs),
    /// Keep a result whatever is built later
    Pin(commands::roots::PinArgs),
    /// Let go of what was pinned, or of a tag
    Unpin(commands::roots::UnpinArgs),
    /// Say why the steps of a build ran
    Why(commands::why::WhyArgs),
    /// Draw the steps of a build
    Graph(commands::graph::GraphArgs),
    /// Look at the settings and change them
    #[command(
        subcommand,
        after_help = "Examples:
  cbs config keys                             what can be set
  cbs config set build.jobs 4
  cbs config set 'registry.\"docker.io\".mirrors' '[\"mirror.example\"]'
  cbs config show"
    )]
    Config(ConfigCommand),
    /// Tell what works on this machine and what to install
    #[command(after_help = "Examples:
  cbs doctor
  cbs doctor --json | jq '.checks[] | select(.state != \"ok\")'")]
    Doctor(DoctorArgs),
    /// Print a script that completes commands, flags and targets in a shell
    #[command(after_help = COMPLETION)]
    Completion {
        /// bash, zsh, fish, elvish or powershell
        #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell"])]
        shell: String,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder; it is created when absent
        dir: PathBuf,
    },
}

/// `cbs store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read everything again and compare it with its digest
    Verify {
        /// Drop what is damaged, so that the next build makes it again
        #[arg(long)]
        repair: bool,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// List what is realised, by name
    Roots {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a name; gc may then take what it kept
    Unroot {
        /// The name
        name: String,
    },
    /// List a folder of a tree, in full with -l
    Ls {
        /// A root's name or tree digest, then the path: NAME[:PATH]
        reference: String,
        /// Show modes, owners, sizes
        #[arg(short)]
        long: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what differs between two trees
    Diff(commands::inspect::DiffArgs),
    /// Say what is known about a path: digests, size, what made it and what keeps it
    PathInfo(commands::inspect::PathInfoArgs),
    /// Print a file of a tree
    Cat {
        /// A root's name or tree digest, then the path: NAME:PATH
        reference: String,
    },
}

/// `cbs mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Where; it is created when absent
    pub(crate) dir: PathBuf,
    /// Wait for the end of standard input, then take off what is left there
    #[arg(long, hide = true)]
    pub(crate) guard: bool,
}

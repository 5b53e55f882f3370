//! The flags of the build commands: those of `docker buildx build` and `bake`, by the same names.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use cbs_image::source::Network;
use cbs_solver::Stream;
use clap::{ArgAction, Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCompleter;

use crate::complete;
use crate::legacy_args::LegacyArgs;

use crate::debug_args::DebugArgs;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// `tty` on a terminal, else `plain`
    #[default]
    Auto,
    /// A live view
    Tty,
    /// One line after the other
    Plain,
    /// One JSON object a line, as BuildKit's
    Rawjson,
    /// Errors only
    Quiet,
    /// Nothing at all
    None,
}

/// How many steps run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// What the machine can take.
    Auto,
    /// So many.
    Count(NonZeroUsize),
}

impl Jobs {
    /// The number; `None` goes by the machine.
    pub(crate) fn count(self) -> Option<NonZeroUsize> {
        match self {
            Self::Auto => None,
            Self::Count(count) => Some(count),
        }
    }
}

impl FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            text => match text.parse() {
                Ok(count) => Ok(Self::Count(count)),
                Err(_) => Err("it is `auto` or a number above zero".to_owned()),
            },
        }
    }
}

/// Flags that `build`, `bake` and `realize` share.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CommonBuildArgs {
    /// How to show progress
    #[arg(long, value_enum, env = "BUILDKIT_PROGRESS", value_name = "MODE")]
    pub(crate) progress: Option<ProgressMode>,
    /// Run every step again; the new results are stored
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) no_cache: Option<bool>,
    /// Ask registries about tags even when an image is known
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) pull: Option<bool>,
    /// Push the result to its registry (short for --output type=registry)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
          action = ArgAction::Set, value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    pub(crate) push: bool,
    /// Load the result into the docker engine (short for --output type=docker)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
          action = ArgAction::Set, value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    pub(crate) load: bool,
    /// Write the result's digests to a file as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Grant an entitlement: network.host, security.insecure, fs.read=PATH, …
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Attest how the image was built; not there yet, only `false` is taken
    #[arg(long, value_name = "VALUE")]
    pub(crate) provenance: Option<String>,
    /// Attach a bill of materials; not there yet, only `false` is taken
    #[arg(long, value_name = "VALUE")]
    pub(crate) sbom: Option<String>,
    /// How many steps run at once; `auto` is the number of cores, and more while the machine is idle [default: auto]
    #[arg(long, value_name = "N|auto")]
    pub(crate) jobs: Option<Jobs>,
    /// Run every step a second time and say which files differ; exit code 1 when any does
    #[arg(long)]
    pub(crate) recheck: bool,
    /// Hold every mutable source to what `cbs.lock` says (see `cbs lock`)
    #[arg(long)]
    pub(crate) locked: bool,
    /// Never touch the network: sources must be in the store, steps have loopback only, and none runs in the host's network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Go on with what does not depend on a failed step
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Folders of CDI specifications [default: /etc/cdi, /var/run/cdi and /etc/buildkit/cdi]
    #[arg(long, env = "CBS_CDI_SPEC_DIRS", value_delimiter = ':', value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) debug: DebugArgs,
    /// Ignored: there is only this builder
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) builder: Option<String>,
}

impl CommonBuildArgs {
    /// Whether images, repositories and downloads may be fetched.
    pub(crate) fn network(&self) -> Network {
        if self.offline {
            Network::Offline
        } else {
            Network::Online
        }
    }
}

/// `cbs realize`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs realize docker-bake.hcl#app-release --output type=oci,dest=app.tar
  cbs realize .                      the bake file or Dockerfile of this folder
  cbs realize graph.pb               an LLB definition as `buildctl debug dump-llb` reads it")]
pub(crate) struct RealizeArgs {
    /// FILE#TARGET, FILE, DIR or DIR#TARGET
    #[arg(required = true, value_name = "REF", add = ArgValueCompleter::new(complete::references))]
    pub(crate) references: Vec<String>,
    /// Where results go: type=oci|docker|tar|local|registry,dest=…
    #[arg(short, long, value_name = "OUTPUT")]
    pub(crate) output: Vec<String>,
    /// Platforms to build for
    #[arg(long, value_delimiter = ',', value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Override a target's attribute: TARGET.KEY=VALUE
    #[arg(long, value_name = "OVERRIDE", add = ArgValueCompleter::new(complete::overrides))]
    pub(crate) set: Vec<String>,
    /// Set a variable of the bake file
    #[arg(long, value_name = "NAME=VALUE", add = ArgValueCompleter::new(complete::variables))]
    pub(crate) var: Vec<String>,
    /// Short for --recheck
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) common: CommonBuildArgs,
}

/// `cbs build`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs build -t app .                                      keep the image in the store
  cbs build -t app --output type=oci,dest=app.tar .       and write it as an OCI archive
  cbs build -t registry.example/app --push --platform linux/amd64,linux/arm64 .
  cbs build --target test --progress plain .
  cbs build --secret id=token,src=token.txt --ssh default https://git.example/app.git#main
  cbs build --check .                                     what lint says, without building")]
pub(crate) struct BuildArgs {
    /// The build context: a folder, a git or http URL, or `-` for a tar stream or Dockerfile on standard input
    #[arg(value_name = "PATH|URL|-", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) context: String,
    /// The Dockerfile [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<String>,
    /// Name and optionally tag the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// An extra context: NAME=PATH|URL|docker-image://REF|oci-layout://DIR
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Where the result goes: type=oci|docker|tar|local|registry,dest=…
    #[arg(short, long, value_name = "OUTPUT")]
    pub(crate) output: Vec<String>,
    /// Platforms to build for
    #[arg(
        long,
        value_delimiter = ',',
        env = "DOCKER_DEFAULT_PLATFORM",
        value_name = "PLATFORM"
    )]
    pub(crate) platform: Vec<String>,
    /// Put a label on the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Put an annotation on the manifest or index
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// A secret for the build: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// An SSH agent socket or keys for the build: default|ID[=SOCKET|KEY[,KEY]]
    #[arg(long, value_name = "SSH")]
    pub(crate) ssh: Vec<String>,
    /// An extra line of /etc/hosts: HOST:IP
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// Size of /dev/shm, such as 64m
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// A limit of RUN steps: NAME=SOFT[:HARD]
    #[arg(long, value_name = "ULIMIT")]
    pub(crate) ulimit: Vec<String>,
    /// Stages to run again
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    pub(crate) no_cache_filter: Vec<String>,
    /// Caches to import; not there yet, a warning says so
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Caches to export; not there yet and refused: the store itself is the cache
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_to: Vec<String>,
    /// Attestations to attach; not there yet and refused
    #[arg(long, value_name = "ATTEST")]
    pub(crate) attest: Vec<String>,
    /// A device of RUN steps, by the Container Device Interface: vendor.com/class=name[,optional]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<String>,
    /// Parent cgroup of RUN steps
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Write the image's digest to a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) iidfile: Option<PathBuf>,
    /// Limits of each step: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems, pids
    #[arg(long, value_name = "NAME=VALUE[,…]")]
    pub(crate) resource: Vec<String>,
    /// Source policies; not evaluated yet and refused
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Vec<String>,
    /// What to do: build, check, outline or targets
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// Short for --call=check
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) legacy: LegacyArgs,
    /// Print the LLB definition instead of building
    #[arg(long, value_name = "WHAT")]
    pub(crate) print: Option<String>,
    /// Print the digest only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) common: CommonBuildArgs,
}

/// `cbs bake`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs bake                                    the group or target `default` of this folder's bake file
  cbs bake app tests --set '*.platform=linux/arm64' --set app.args.VERSION=2
  cbs bake --print release                    what would be built
  cbs bake --list variables                   what can be set with --var or the environment
  cbs bake -f docker-bake.hcl -f ci.hcl --push --metadata-file built.json
  cbs bake https://git.example/app.git#main app")]
pub(crate) struct BakeArgs {
    /// Targets and groups [default: `default`]; a git or http URL first names a remote definition
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    pub(crate) targets: Vec<String>,
    /// Bake files, HCL, JSON or compose YAML; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Vec<String>,
    /// Override a target's attribute: TARGET.KEY[+]=VALUE
    #[arg(long, value_name = "OVERRIDE", add = ArgValueCompleter::new(complete::overrides))]
    pub(crate) set: Vec<String>,
    /// Set a variable of the bake file
    #[arg(long, value_name = "NAME=VALUE", add = ArgValueCompleter::new(complete::variables))]
    pub(crate) var: Vec<String>,
    /// Print the resolved targets as JSON and stop
    #[arg(long, conflicts_with = "list")]
    pub(crate) print: bool,
    /// List targets or variables and stop: targets|variables[,format=json]
    #[arg(long, value_name = "WHAT")]
    pub(crate) list: Option<String>,
    /// Source policies; not evaluated yet and refused
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Vec<String>,
    /// What to do: build, check, outline or targets
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// Short for --call=check
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) common: CommonBuildArgs,
}

/// `cbs plan`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs plan docker-bake.hcl#app
  cbs plan . --print llb
  cbs plan Dockerfile -o app.pb               then: cbs realize app.pb")]
pub(crate) struct PlanArgs {
    /// FILE#TARGET, FILE, DIR or DIR#TARGET
    #[arg(required = true, value_name = "REF", add = ArgValueCompleter::new(complete::references))]
    pub(crate) references: Vec<String>,
    /// Print the graph as JSON
    #[arg(long, conflicts_with = "print")]
    pub(crate) json: bool,
    /// Print `llb`: one JSON object a vertex, in the shape of `buildctl debug dump-llb`
    #[arg(long, value_name = "WHAT", value_parser = ["llb"])]
    pub(crate) print: Option<String>,
    /// Write the definition (one target, one platform) as protobuf
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Platforms to plan for
    #[arg(long, value_delimiter = ',', value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
}

/// `cbs export`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs export docker-bake.hcl#app -o app.tar
  cbs export app:latest --type docker -o - | docker load
  cbs export app:latest --type local -o ./rootfs
  cbs export app:latest --type registry -o registry.example/app:1")]
pub(crate) struct ExportArgs {
    /// The name it was realised under, such as docker-bake.hcl#app-release, or one of its tags
    #[arg(add = ArgValueCompleter::new(complete::roots))]
    pub(crate) name: String,
    /// What to write
    #[arg(long = "type", value_parser = ["oci", "docker", "tar", "local", "registry"], default_value = "oci")]
    pub(crate) kind: String,
    /// Where: a file, a folder for `local`, `-` for standard output, a reference for `registry`; or a whole output such as
    /// dest=app.tar,compression=zstd
    #[arg(short, long, value_name = "DEST")]
    pub(crate) output: String,
}

/// `cbs log`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs log                                     of the last build
  cbs log docker-bake.hcl#app#3               of its third step")]
pub(crate) struct LogArgs {
    /// The name it was realised under [default: the last build]
    #[arg(value_name = "NAME[#STEP]", add = ArgValueCompleter::new(complete::roots))]
    pub(crate) name: Option<String>,
    /// Print what a running build prints, until it ends
    #[arg(long, short, conflicts_with_all = ["json", "timestamps", "stream"])]
    pub(crate) follow: bool,
    /// Put the time and the stream before each line
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) timestamps: bool,
    /// Only what went to this stream
    #[arg(long, value_enum, value_name = "STREAM", conflicts_with = "json")]
    pub(crate) stream: Option<OneStream>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A stream of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OneStream {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

impl OneStream {
    /// As the solver has it.
    pub(crate) fn stream(self) -> Stream {
        match self {
            Self::Stdout => Stream::Stdout,
            Self::Stderr => Stream::Stderr,
        }
    }
}

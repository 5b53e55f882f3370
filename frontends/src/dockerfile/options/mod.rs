//! What the caller decides about a build.

mod attrs;

use std::collections::BTreeMap;
use std::net::IpAddr;

use cbs_image::platform::Platform;
use cbs_solver::pb;

use super::go::parse_bool;
use super::resolver::ResolveMode;

/// The options of one build, as `docker build` and BuildKit's Dockerfile frontend have them.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildOptions {
    /// The stage to build; the last one by default. Case does not matter.
    pub target: Option<String>,
    /// `--build-arg`s. The `BUILDKIT_*` and `SOURCE_DATE_EPOCH` arguments steer the build itself.
    pub build_args: BTreeMap<String, String>,
    /// `--label`s: they win over the file's.
    pub labels: BTreeMap<String, String>,
    /// `--platform`s in order. Empty means the build platform, and that the base image decides what the result says.
    pub platforms: Vec<Platform>,
    /// The platform that steps run on natively.
    pub build_platform: Platform,
    /// Whether the result is an index; by default, when several platforms are asked for.
    pub multi_platform: Option<bool>,
    /// Which steps must run anew.
    pub no_cache: NoCache,
    /// Whether local copies of base images count.
    pub resolve_mode: ResolveMode,
    /// `--add-host`s: names and addresses.
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// The size of `/dev/shm` in bytes; zero for the default.
    pub shm_size: i64,
    /// `--ulimit`s.
    pub ulimits: Vec<pb::Ulimit>,
    /// The network of RUN steps that do not choose one.
    pub network: pb::NetMode,
    /// The cgroup under which steps run.
    pub cgroup_parent: String,
    /// The host name of steps.
    pub hostname: String,
    /// Devices for every RUN, by CDI name.
    pub devices: Vec<pb::CdiDevice>,
    /// Limits for every RUN. They are no part of any vertex; the executor is told by the caller.
    pub resources: Resources,
    /// The main build context.
    pub context: MainContext,
    /// A directory within a remote main context.
    pub context_subdir: Option<String>,
    /// Named contexts by `NAME` or `NAME::PLATFORM`.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Values of the `local.session` attribute by the name of a local context. They keep contexts of equal name in
    /// different directories apart when several builds are solved as one.
    pub local_sessions: BTreeMap<String, String>,
}

/// Where an extra host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// At an address.
    Ip(IpAddr),
    /// On the machine that builds: `host-gateway`. Which address that is, the network of a step decides.
    Gateway,
}

/// `host-gateway`, or the address.
impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Gateway => f.write_str("host-gateway"),
        }
    }
}

impl std::str::FromStr for HostAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host-gateway" => Ok(Self::Gateway),
            text => text.parse().map(Self::Ip),
        }
    }
}

/// Which steps must run anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Off,
    /// All.
    All,
    /// Those of the named stages.
    Stages(Vec<String>),
}

/// Limits on a step's resources; zero or empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: i64,
    /// Memory and swap in bytes, or -1 for no limit.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: u64,
    /// Scheduler period in microseconds.
    pub cpu_period: u64,
    /// Time per period in microseconds.
    pub cpu_quota: i64,
    /// CPUs such as `0-3`.
    pub cpuset_cpus: String,
    /// Memory nodes such as `0,1`.
    pub cpuset_mems: String,
    /// Processes and threads at once.
    pub pids: u64,
}

/// Where COPY and ADD take files from.
#[derive(Clone, Debug, PartialEq)]
pub enum MainContext {
    /// A directory of the caller, `local://NAME`.
    Local {
        /// The name; `context` by habit.
        name: String,
    },
    /// A git repository.
    Git {
        /// Its URL with reference and directory.
        url: String,
    },
    /// A downloaded archive, whose contents are the context.
    HttpArchive {
        /// Its URL.
        url: String,
    },
    /// A downloaded Dockerfile: the context holds it under the name `context`.
    HttpFile {
        /// Its URL.
        url: String,
    },
    /// A result that another definition makes.
    Input {
        /// That definition.
        definition: pb::Definition,
    },
}

impl Default for MainContext {
    fn default() -> Self {
        Self::Local {
            name: "context".to_owned(),
        }
    }
}

/// What stands behind a name in FROM, COPY --from and RUN --mount=from.
#[derive(Clone, Debug, PartialEq)]
pub enum NamedContext {
    /// `docker-image://REF`.
    Image {
        /// The reference.
        reference: String,
    },
    /// `oci-layout://STORE@DIGEST` or `oci-layout://STORE:TAG`.
    OciLayout {
        /// The layout, such as a path.
        store: String,
        /// Which image of it.
        digest: Option<String>,
        /// Which image of it, when no digest is given.
        tag: Option<String>,
    },
    /// `local:NAME`: a directory of the caller.
    Local {
        /// The name in `local://NAME`.
        name: String,
        /// Tells caches of equal contexts of different builds apart.
        shared_key: String,
    },
    /// A git repository or a file to download.
    Url {
        /// Its URL.
        url: String,
    },
    /// A result that another definition makes, such as another bake target's.
    Input {
        /// That definition.
        definition: pb::Definition,
        /// Its image config as JSON, if it is an image.
        config: Option<Vec<u8>>,
    },
}

/// An option that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The value of an option makes no sense.
    #[error("invalid value `{value}` for `{option}`: {reason}")]
    Value {
        /// The option.
        option: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Several platforms, but no index.
    #[error("conflicting config: returning multiple target platforms is not allowed")]
    PlatformsWithoutIndex,
}

impl BuildOptions {
    /// A plain build on a platform.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            build_platform,
            multi_platform: None,
            no_cache: NoCache::Off,
            resolve_mode: ResolveMode::Default,
            extra_hosts: Vec::new(),
            shm_size: 0,
            ulimits: Vec::new(),
            network: pb::NetMode::Unset,
            cgroup_parent: String::new(),
            hostname: String::new(),
            devices: Vec::new(),
            resources: Resources::default(),
            context: MainContext::default(),
            context_subdir: None,
            contexts: BTreeMap::new(),
            local_sessions: BTreeMap::new(),
        }
    }

    /// Whether the result is an index: asked for by option or by `BUILDKIT_MULTI_PLATFORM`, or by several platforms.
    ///
    /// # Errors
    /// [`OptionError`] when an index is refused and needed, or the argument is no boolean.
    pub fn wants_index(&self) -> Result<bool, OptionError> {
        let several = self.platforms.len() > 1;
        let asked = match self
            .build_args
            .get("BUILDKIT_MULTI_PLATFORM")
            .filter(|value| !value.is_empty())
        {
            Some(value) => {
                let given = parse_bool(value);
                Some(given.ok_or_else(|| bad("build-arg:BUILDKIT_MULTI_PLATFORM", value, "not a boolean"))?)
            }
            None => self.multi_platform,
        };
        match asked {
            Some(false) if several => Err(OptionError::PlatformsWithoutIndex),
            Some(asked) => Ok(asked),
            None => Ok(several),
        }
    }

    pub(crate) fn ignores_cache(&self, stage: &str) -> bool {
        match &self.no_cache {
            NoCache::Off => false,
            NoCache::All => true,
            NoCache::Stages(stages) => stages.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

impl NamedContext {
    /// Reads the value of a named context. Directories are `local:NAME`; a `target:` of a bake file is an
    /// [`Input`](Self::Input) that the caller makes.
    ///
    /// # Errors
    /// A reason, when the value has none of the known forms.
    pub fn parse(value: &str, shared_key: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = value.split_once(':') else {
            return Err("a context needs a scheme".to_owned());
        };
        let body = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "docker-image" => Ok(Self::Image {
                reference: body.to_owned(),
            }),
            "oci-layout" => {
                let (store, digest) = match body.rsplit_once('@') {
                    Some((store, digest)) => (store, Some(digest.to_owned())),
                    None => (body, None),
                };
                let (store, tag) = match store.rsplit_once(':') {
                    Some((store, tag)) if !tag.contains('/') => (store, Some(tag.to_owned())),
                    _ => (store, None),
                };
                Ok(Self::OciLayout {
                    store: store.to_owned(),
                    digest,
                    tag,
                })
            }
            "local" => Ok(Self::Local {
                name: rest.to_owned(),
                shared_key: shared_key.to_owned(),
            }),
            "git" | "http" | "https" | "ssh" => Ok(Self::Url { url: value.to_owned() }),
            scheme if scheme.starts_with("git@") => Ok(Self::Url { url: value.to_owned() }),
            "input" | "target" => Err(format!("`{scheme}:` contexts must be given as a definition")),
            _ => Err(format!("unsupported context source {scheme}")),
        }
    }
}

fn bad(option: &str, value: &str, reason: &str) -> OptionError {
    OptionError::Value {
        option: option.to_owned(),
        value: value.to_owned(),
        reason: reason.to_owned(),
    }
}

//! What the caller decides about a build.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cbs_solver::pb;

use super::go::{csv_fields, parse_bool};
use super::resolver::ResolveMode;
use cbs_image::platform::Platform;

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
    pub extra_hosts: Vec<(String, IpAddr)>,
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

    /// Reads the options of BuildKit's frontend protocol (`build-arg:X`, `context:NAME`, `add-hosts`, …). Keys that say
    /// nothing about lowering (cache imports, attestations, the frontend itself) are left alone. `input:` contexts need
    /// a definition and are not for this map.
    ///
    /// # Errors
    /// [`OptionError`] for the first value that cannot be read.
    pub fn from_attrs(attrs: &BTreeMap<String, String>, build_platform: Platform) -> Result<Self, OptionError> {
        let mut options = Self::new(build_platform);
        for (key, value) in attrs {
            if let Some(name) = key.strip_prefix("build-arg:") {
                options.build_args.insert(name.to_owned(), value.clone());
            } else if let Some(name) = key.strip_prefix("label:") {
                options.labels.insert(name.to_owned(), value.clone());
            } else if let Some(name) = key.strip_prefix("local-sessionid:") {
                options.local_sessions.insert(name.to_owned(), value.clone());
            } else if let Some(name) = key.strip_prefix("context:") {
                let shared_key = attrs
                    .get(&format!("sharedkey:localdir:{name}"))
                    .cloned()
                    .unwrap_or_default();
                let context = NamedContext::parse(value, &shared_key).map_err(|reason| bad(key, value, &reason))?;
                options.contexts.insert(name.to_owned(), context);
            } else {
                options.set(key, value).map_err(|reason| bad(key, value, &reason))?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = |minimum: i64| match value.parse::<i64>() {
            Ok(number) if number >= minimum => Ok(number),
            Ok(_) => Err(format!("must be at least {minimum}")),
            Err(_) => Err("not a number".to_owned()),
        };
        let unsigned = || number(1).map(i64::unsigned_abs);
        match key {
            "target" => self.target = Some(value.to_owned()).filter(|target| !target.is_empty()),
            "platform" if !value.is_empty() => {
                let parse = |text: &str| text.parse::<Platform>().map_err(|error| error.to_string());
                self.platforms = value.split(',').map(parse).collect::<Result<_, _>>()?;
            }
            "multi-platform" => self.multi_platform = Some(parse_bool(value).ok_or("not a boolean")?),
            "no-cache" if value.is_empty() => self.no_cache = NoCache::All,
            "no-cache" => self.no_cache = NoCache::Stages(value.split(',').map(str::to_owned).collect()),
            "image-resolve-mode" => {
                self.resolve_mode = match value {
                    "" | "default" => ResolveMode::Default,
                    "pull" => ResolveMode::Pull,
                    "local" => ResolveMode::Local,
                    _ => return Err("must be default, pull or local".to_owned()),
                };
            }
            "add-hosts" => self.extra_hosts = parse_hosts(value)?,
            "shm-size" if !value.is_empty() => self.shm_size = number(i64::MIN)?,
            "ulimit" => self.ulimits = parse_ulimits(value)?,
            "force-network-mode" => {
                self.network = match value {
                    "" | "sandbox" => pb::NetMode::Unset,
                    "none" => pb::NetMode::None,
                    "host" => pb::NetMode::Host,
                    _ => return Err("must be sandbox, none or host".to_owned()),
                };
            }
            "cgroup-parent" => self.cgroup_parent = value.to_owned(),
            "hostname" => self.hostname = value.to_owned(),
            "contextsubdir" => self.context_subdir = Some(value.to_owned()).filter(|dir| !dir.is_empty()),
            "memory" if !value.is_empty() => self.resources.memory = number(1)?,
            "memswap" if !value.is_empty() => match number(-1)? {
                0 => return Err("must be -1 (unlimited) or more than 0".to_owned()),
                swap => self.resources.memory_swap = swap,
            },
            "cpushares" if !value.is_empty() => self.resources.cpu_shares = unsigned()?,
            "cpuperiod" if !value.is_empty() => self.resources.cpu_period = unsigned()?,
            "cpuquota" if !value.is_empty() => self.resources.cpu_quota = number(1)?,
            "cpusetcpus" => self.resources.cpuset_cpus = value.to_owned(),
            "cpusetmems" => self.resources.cpuset_mems = value.to_owned(),
            _ => {}
        }
        Ok(())
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

fn parse_hosts(value: &str) -> Result<Vec<(String, IpAddr)>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |field: String| {
        let (name, address) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid key-value pair {field}"))?;
        let address = address.parse().map_err(|_| format!("failed to parse IP {address}"))?;
        Ok((name.to_lowercase(), address))
    };
    csv_fields(value)
        .ok_or("malformed list")?
        .into_iter()
        .map(parse)
        .collect()
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn parse_ulimits(value: &str) -> Result<Vec<pb::Ulimit>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |field: String| {
        let (name, limits) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid ulimit argument: {field}"))?;
        if !ULIMITS.contains(&name) {
            return Err(format!("invalid ulimit type: {name}"));
        }
        let number = |text: &str| text.parse::<i64>().map_err(|_| format!("not a number: {text}"));
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            ));
        }
        Ok(pb::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        })
    };
    csv_fields(value)
        .ok_or("malformed list")?
        .into_iter()
        .map(parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<BuildOptions, OptionError> {
        let attrs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        BuildOptions::from_attrs(&attrs, Platform::new("linux", "amd64", ""))
    }

    #[test]
    fn attributes() {
        let options = read(&[
            ("build-arg:A", "1"),
            ("label:x", "y"),
            ("platform", "linux/amd64,linux/arm64/v8"),
            ("no-cache", "a,b"),
            ("add-hosts", "Alpha=10.1.2.3,beta=::1"),
            ("ulimit", "nofile=10:20,core=-1"),
            ("context:base", "docker-image://alpine"),
            ("context:lay", "oci-layout:///tmp/x:3/lay@sha256:00"),
            ("context:dir", "local:dir"),
            ("sharedkey:localdir:dir", "key"),
            ("cache-imports", "[]"),
        ])
        .expect("reads");
        assert_eq!(options.platforms[1].to_string(), "linux/arm64");
        assert!(options.ignores_cache("B") && !options.ignores_cache("c"));
        assert_eq!(
            options.extra_hosts[0],
            ("alpha".to_owned(), "10.1.2.3".parse().expect("an address"))
        );
        assert_eq!((options.ulimits[0].soft, options.ulimits[0].hard), (10, 20));
        let layout = NamedContext::OciLayout {
            store: "/tmp/x:3/lay".into(),
            digest: Some("sha256:00".into()),
            tag: None,
        };
        assert_eq!(options.contexts["lay"], layout);
        assert_eq!(
            options.contexts["dir"],
            NamedContext::Local {
                name: "dir".into(),
                shared_key: "key".into()
            }
        );
        assert_eq!(options.wants_index(), Ok(true));
    }

    #[test]
    fn refusals() {
        let cases = [
            ("platform", "not a platform"),
            ("add-hosts", "a"),
            ("add-hosts", "a=x"),
            ("ulimit", "what=1"),
            ("ulimit", "core=3:1"),
            ("force-network-mode", "lan"),
            ("image-resolve-mode", "x"),
            ("context:a", "b"),
            ("context:a", "ftp://b"),
            ("memory", "0"),
            ("memswap", "-2"),
            ("shm-size", "big"),
        ];
        for (key, value) in cases {
            let error = read(&[(key, value)]).expect_err(key).to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
        let several = read(&[("platform", "linux/amd64,linux/arm64"), ("multi-platform", "false")]).expect("reads");
        assert_eq!(several.wants_index(), Err(OptionError::PlatformsWithoutIndex));
    }
}

//! Options as BuildKit's frontend protocol spells them.

use std::collections::BTreeMap;

use cbs_image::platform::Platform;
use cbs_solver::pb;

use super::super::go::{csv_fields, parse_bool};
use super::super::resolver::ResolveMode;
use super::{BuildOptions, HostAddress, NamedContext, NoCache, OptionError, bad};

impl BuildOptions {
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
            "pids" if !value.is_empty() => self.resources.pids = unsigned()?,
            _ => {}
        }
        Ok(())
    }
}

fn parse_hosts(value: &str) -> Result<Vec<(String, HostAddress)>, String> {
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

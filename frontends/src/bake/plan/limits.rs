//! Sizes, limits and platforms of a target.

use cbs_image::platform::Platform;

use super::super::entries;
use crate::dockerfile::Resources;
use crate::dockerfile::go::parse_size;

/// A limit of the processes of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// What is limited, such as `nofile`.
    pub name: String,
    /// The limit that processes start with; -1 for none.
    pub soft: i64,
    /// How far processes can raise it; -1 for none.
    pub hard: i64,
}

impl Ulimit {
    /// Reads `name=soft[:hard]`.
    pub(crate) fn parse(text: &str) -> Result<Ulimit, String> {
        const NAMES: [&str; 15] = [
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
        let (name, limits) = text
            .split_once('=')
            .ok_or_else(|| format!("ulimit {text:?} must have the form name=soft[:hard]"))?;
        if !NAMES.contains(&name) {
            return Err(format!("there is no ulimit {name:?}; there are {}", NAMES.join(", ")));
        }
        let number = |number: &str| {
            number
                .parse::<i64>()
                .map_err(|_| format!("limit {number:?} of ulimit {text:?} must be a whole number"))
        };
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        // -1 means without limit, which is more than any number.
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(format!(
                "the soft limit of ulimit {text:?} must not be above the hard one"
            ));
        }
        Ok(Ulimit {
            name: String::from(name),
            soft,
            hard,
        })
    }
}

/// One limit for each name, the last one given.
pub(super) fn ulimits(texts: &[String]) -> Result<Vec<Ulimit>, String> {
    let mut ulimits = texts
        .iter()
        .map(|text| Ulimit::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    entries::keep_last_by(&mut ulimits, |ulimit| ulimit.name.clone());
    Ok(ulimits)
}

/// A size in bytes; zero when nothing is given.
pub(super) fn size(text: Option<&str>, key: &str) -> Result<i64, String> {
    match text {
        None => Ok(0),
        Some(text) => parse_size(text).ok_or_else(|| format!("{text:?} is no size for {key}; write one such as 64m")),
    }
}

pub(super) fn resources(given: Option<&entries::Resources>) -> Result<Resources, String> {
    let Some(given) = given else {
        return Ok(Resources::default());
    };
    let memory_swap = match given.memory_swap.as_deref().map(str::trim) {
        // There is no limit.
        Some("-1") => -1,
        text => size(text, "memory-swap")?,
    };
    let positive = |value: Option<i64>, key: &str| match u64::try_from(value.unwrap_or(0)) {
        Ok(value) => Ok(value),
        Err(_) => Err(format!("{key} must not be negative")),
    };
    Ok(Resources {
        memory: size(given.memory.as_deref().map(str::trim), "memory")?,
        memory_swap,
        cpu_shares: positive(given.cpu_shares, "cpu-shares")?,
        cpu_period: positive(given.cpu_period, "cpu-period")?,
        cpu_quota: given.cpu_quota.unwrap_or(0),
        cpuset_cpus: given.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: given.cpuset_mems.clone().unwrap_or_default(),
        pids: positive(given.pids, "pids")?,
    })
}

/// All platforms, of which one text can name several; each once.
pub(super) fn platforms(texts: &[String], local: &str) -> Result<Vec<Platform>, String> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(',')) {
        let text = if text.eq_ignore_ascii_case("local") {
            local
        } else {
            text
        };
        let platform = text.trim().parse::<Platform>().map_err(|error| error.to_string())?;
        if !platforms.iter().any(|known| known.is_same(&platform)) {
            platforms.push(platform.normalized());
        }
    }
    Ok(platforms)
}

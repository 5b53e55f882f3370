//! Flags that `docker build` took before BuildKit. Limits still mean something; the rest is taken and said to be without
//! effect.

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value};

use crate::failure::Usage;
use crate::output::csv_fields;

/// The old flags; help does not show them.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LegacyArgs {
    /// Memory limit
    #[arg(short, long, hide = true, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit of memory and swap together
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Relative weight
    #[arg(short, long, hide = true, value_name = "N")]
    cpu_shares: Option<String>,
    /// Period of the CPU quota
    #[arg(long, hide = true, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// CPU quota
    #[arg(long, hide = true, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// CPUs to run on
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Without effect: results are not layers to squash
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    squash: Option<bool>,
    /// Without effect
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compress: Option<bool>,
    /// Without effect: there is one kind of isolation
    #[arg(long, hide = true, value_name = "KIND")]
    isolation: Option<String>,
    /// Without effect
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Without effect: no step leaves a container behind
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    /// Without effect: no step leaves a container behind
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,
}

impl LegacyArgs {
    /// The limits by the names that `--resource` and bake files have for them.
    fn limits(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        all.into_iter()
            .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }

    /// Limits of steps, from `--resource` and from the flags that were there before it.
    pub(crate) fn resources(
        &self,
        given: &[String],
        literal: fn(&str) -> String,
    ) -> anyhow::Result<Map<String, Value>> {
        const NAMES: [&str; 8] = [
            "memory",
            "memory-swap",
            "cpu-shares",
            "cpu-period",
            "cpu-quota",
            "cpuset-cpus",
            "cpuset-mems",
            "pids",
        ];
        let mut limits: Map<String, Value> = self
            .limits()
            .map(|(name, value)| (name.to_owned(), literal(value).into()))
            .collect();
        for text in given {
            // The values of cpuset-* are lists themselves, so what has no name goes on with the one before.
            let mut last: Option<(String, String)> = None;
            for field in csv_fields(text)? {
                match (field.split_once('='), &mut last) {
                    (Some((name, value)), last) => {
                        let name = name.trim().to_owned();
                        if !NAMES.contains(&name.as_str()) {
                            let known = NAMES.join(", ");
                            bail!(Usage(format!(
                                "--resource `{text}`: there is no limit `{name}`; there are {known}"
                            )));
                        }
                        if let Some((name, value)) = last.replace((name, value.to_owned())) {
                            limits.insert(name, literal(&value).into());
                        }
                    }
                    (None, Some((_, value))) => {
                        value.push(',');
                        value.push_str(&field);
                    }
                    (None, None) => bail!(Usage(format!("--resource `{text}`: it must have the form NAME=VALUE"))),
                }
            }
            if let Some((name, value)) = last {
                limits.insert(name, literal(&value).into());
            }
        }
        Ok(limits)
    }

    /// The flag of its own that a complaint about a limit is about.
    pub(crate) fn flag_of(&self, reason: &str) -> Option<&'static str> {
        const FLAGS: [(&str, &str); 7] = [
            ("memory-swap", "--memory-swap"),
            ("memory", "--memory"),
            ("cpu-shares", "--cpu-shares"),
            ("cpu-period", "--cpu-period"),
            ("cpu-quota", "--cpu-quota"),
            ("cpuset-cpus", "--cpuset-cpus"),
            ("cpuset-mems", "--cpuset-mems"),
        ];
        let (name, flag) = FLAGS.into_iter().find(|(name, _)| reason.contains(name))?;
        self.limits().any(|(given, _)| given == name).then_some(flag)
    }

    /// The flags that were given and do nothing.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let all = [
            ("--squash", self.squash.is_some()),
            ("--compress", self.compress.is_some()),
            ("--isolation", self.isolation.is_some()),
            ("--security-opt", !self.security_opt.is_empty()),
            ("--rm", self.rm.is_some()),
            ("--force-rm", self.force_rm.is_some()),
        ];
        all.into_iter()
            .filter(|(_, is_given)| *is_given)
            .map(|(flag, _)| flag)
            .collect()
    }
}

//! Settings of a machine and of a user, in TOML.
//!
//! `/etc/cbs/config.toml` is read first, `$XDG_CONFIG_HOME/cbs/config.toml` laid over it: tables are merged, everything
//! else replaced. `--config FILE` stands for both. Flags and environment variables win over all files. A new section is
//! a new field of [`Config`] and a line in [`keys::SETTINGS`].

mod edit;
mod files;
mod keys;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use cbs_exec::EmulationChoice;
use cbs_fuse::LowerMode;
use cbs_image::platform::Platform;
use cbs_image::registry::{HostConfig, Security};
use serde::{Deserialize, Deserializer};

pub(crate) use edit::{Change, edit};
pub(crate) use files::{Files, Layer};
pub(crate) use keys::{SETTINGS, find, known};

use crate::build_args::ProgressMode;
use crate::gc_policy::GcConfig;

/// Everything that can be set. What is absent is left to the place that uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Config {
    /// Folder of the store.
    pub(crate) store: Option<PathBuf>,
    /// How things are built.
    pub(crate) build: BuildConfig,
    /// What is special about registries, by the domain of references.
    pub(crate) registry: BTreeMap<String, RegistryHost>,
    /// What is collected without being asked.
    pub(crate) gc: GcConfig,
}

/// `[build]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct BuildConfig {
    /// How many steps run at once.
    pub(crate) jobs: Option<NonZeroUsize>,
    /// How progress is shown.
    #[serde(deserialize_with = "progress")]
    pub(crate) progress: Option<ProgressMode>,
    /// Platforms of targets that name none.
    #[serde(deserialize_with = "platforms")]
    pub(crate) platforms: Vec<Platform>,
    /// How trees lie below the overlay of a step.
    pub(crate) lower_mode: LowerModeChoice,
    /// How steps of other machines run.
    #[serde(deserialize_with = "emulation")]
    pub(crate) emulation: EmulationChoice,
}

/// `build.lower-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LowerModeChoice {
    /// Whatever the kernel can do.
    #[default]
    Auto,
    /// File contents come from data-only layers.
    DataOnly,
    /// Everything comes through FUSE.
    Plain,
}

impl LowerModeChoice {
    /// What to force; `None` asks the kernel.
    pub(crate) fn forced(self) -> Option<LowerMode> {
        match self {
            Self::Auto => None,
            Self::DataOnly => Some(LowerMode::DataOnly),
            Self::Plain => Some(LowerMode::Plain),
        }
    }
}

/// `[registry."HOST"]`, with the keys that BuildKit has there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct RegistryHost {
    /// Hosts to ask before the registry itself.
    pub(crate) mirrors: Vec<String>,
    /// Plain http.
    pub(crate) http: bool,
    /// https without looking at the certificate, or plain http where there is none.
    pub(crate) insecure: bool,
    /// PEM files of certificate authorities.
    pub(crate) ca: Vec<PathBuf>,
}

impl Config {
    /// What is special about registries, as the client takes it.
    pub(crate) fn registry_hosts(&self) -> BTreeMap<String, HostConfig> {
        let hosts = self.registry.iter().map(|(name, host)| {
            let config = HostConfig {
                mirrors: host.mirrors.clone(),
                security: match (host.http, host.insecure) {
                    (true, _) => Security::Plain,
                    (false, true) => Security::Insecure,
                    (false, false) => Security::Auto,
                },
                certificate_authorities: host.ca.clone(),
            };
            (name.clone(), config)
        });
        hosts.collect()
    }
}

fn progress<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ProgressMode>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode = <ProgressMode as clap::ValueEnum>::from_str(&text, false);
    mode.map(Some).map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no way to show progress; there are auto, tty, plain, rawjson, quiet and none"
        ))
    })
}

/// `auto`, `never` or a folder.
fn emulation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EmulationChoice, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "auto" => Ok(EmulationChoice::Auto),
        "never" => Ok(EmulationChoice::Never),
        path if path.starts_with('/') => Ok(EmulationChoice::Folder(PathBuf::from(path))),
        other => Err(serde::de::Error::custom(format!(
            "`{other}` is neither `auto`, `never` nor the absolute path of a folder"
        ))),
    }
}

fn platforms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Platform>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| text.parse::<Platform>().map_err(serde::de::Error::custom);
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        files::parse("c.toml", text)
            .map(|(config, _)| config)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn settings_become_types() {
        let config = read(
            "store = '/s'\n[build]\njobs = 3\nprogress = 'plain'\nplatforms = ['linux/arm64']\nlower-mode = 'plain'\n\
             emulation = '/opt/qemu'\n[registry.'docker.io']\nmirrors = ['mirror.example']\n[registry.'a:5000']\ninsecure = true\n",
        )
        .expect("valid");
        assert_eq!(config.store, Some(PathBuf::from("/s")));
        assert_eq!(config.build.jobs.map(NonZeroUsize::get), Some(3));
        assert_eq!(config.build.progress, Some(ProgressMode::Plain));
        assert_eq!(config.build.platforms[0].to_string(), "linux/arm64");
        assert_eq!(config.build.lower_mode.forced(), Some(LowerMode::Plain));
        assert_eq!(
            config.build.emulation,
            EmulationChoice::Folder(PathBuf::from("/opt/qemu"))
        );
        let hosts = config.registry_hosts();
        assert_eq!(hosts["docker.io"].mirrors, ["mirror.example"]);
        assert_eq!(hosts["a:5000"].security, Security::Insecure);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place, want) in [
            ("[build]\njobz = 3\n", "c.toml:2:1:", "`jobz`"),
            ("[build]\njobs = 0\n", "c.toml:2:8:", "nonzero"),
            ("[build]\njobs = 'x'\n", "c.toml:2:8:", "string"),
            ("[build]\nprogress = 'loud'\n", "c.toml:2:12:", "rawjson"),
            ("[build]\nplatforms = ['a/b/c/d/e']\n", "c.toml:2:13:", ""),
            ("[registry.x]\nmirror = []\n", "c.toml:2:1:", "`mirrors`"),
            ("[build]\nemulation = 'qemu'\n", "c.toml:2:13:", "absolute path"),
            ("store = \n", "c.toml:1:9:", ""),
            ("a = 1\na = 2\n", "c.toml:2:1:", "duplicate"),
        ] {
            let message = read(text).expect_err(text);
            assert!(message.starts_with(place), "{text}: {message}");
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn every_setting_has_an_example_that_is_read() {
        for setting in SETTINGS {
            let config = read(setting.example).unwrap_or_else(|err| panic!("{}: {err}", setting.key));
            assert_ne!(config, Config::default(), "{}", setting.key);
        }
    }
}

//! `docker cbs …`: the program as a plugin of docker's client.
//!
//! Docker finds programs called `docker-NAME` in folders of plugins and asks each what it is. Later it calls it with all
//! of its own words: its own flags first, then the plugin's name, then what is meant for the plugin.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::json;

/// The name of the plugin.
const NAME: &str = "cbs";
/// The question what a program is.
const METADATA: &str = "docker-cli-plugin-metadata";
/// Docker's own flags that take a value.
const WITH_VALUE: [&str; 12] = [
    "--config",
    "--context",
    "-c",
    "--host",
    "-H",
    "--log-level",
    "-l",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--cli-plugin-extra-dir",
    "--orchestrator",
];

/// What was asked, once docker's part is taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A command line of this program.
    Command {
        /// Its words, the program's name first.
        words: Vec<OsString>,
        /// The folder of docker's settings, when docker was told one.
        docker_config: Option<PathBuf>,
    },
    /// What the program is.
    Metadata,
    /// What could follow.
    Completion(Vec<OsString>),
}

/// Whether docker is the caller: the program goes by the name of a plugin.
pub(crate) fn is_plugin(program: &OsStr) -> bool {
    Path::new(program).file_stem() == Some(OsStr::new("docker-cbs"))
}

/// Understands the words of a process.
pub(crate) fn asked(words: impl IntoIterator<Item = OsString>) -> Asked {
    let words: Vec<OsString> = words.into_iter().collect();
    let Some((program, rest)) = words.split_first() else {
        return Asked::Command {
            words,
            docker_config: None,
        };
    };
    if rest.first().is_some_and(|word| word == METADATA) {
        return Asked::Metadata;
    }
    if !is_plugin(program) {
        return Asked::Command {
            words,
            docker_config: None,
        };
    }
    if let Some((first, rest)) = rest.split_first()
        && (first == "__complete" || first == "__completeNoDesc")
    {
        let (_, behind) = split(rest);
        return Asked::Completion(behind.to_vec());
    }
    let (docker_config, behind) = split(rest);
    let mut own = vec![OsString::from("docker cbs")];
    own.extend_from_slice(behind);
    Asked::Command {
        words: own,
        docker_config,
    }
}

/// Docker's folder of settings, and the words behind the plugin's name.
fn split(words: &[OsString]) -> (Option<PathBuf>, &[OsString]) {
    let mut config = None;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        let text = word.to_string_lossy();
        if !text.starts_with('-') {
            let is_name = word == NAME;
            return (config, &words[if is_name { at } else { at - 1 }..]);
        }
        if let Some(folder) = text.strip_prefix("--config=") {
            config = Some(PathBuf::from(folder));
        } else if WITH_VALUE.contains(&text.as_ref()) {
            if text == "--config" {
                config = words.get(at).map(PathBuf::from);
            }
            at += 1;
        }
    }
    (config, &[])
}

/// What docker wants to know about a plugin.
pub(crate) fn metadata() -> String {
    let metadata = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "cbs",
        "Version": concat!("v", env!("CARGO_PKG_VERSION")),
        "ShortDescription": "Build over a content-addressed store",
    });
    format!("{metadata}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Asked {
        asked(words.iter().map(OsString::from))
    }

    fn command(words: &[&str], config: Option<&str>) -> Asked {
        Asked::Command {
            words: words.iter().map(OsString::from).collect(),
            docker_config: config.map(PathBuf::from),
        }
    }

    #[test]
    fn dockers_words_are_taken_off() {
        assert_eq!(read(&["cbs", "bake", "cbs"]), command(&["cbs", "bake", "cbs"], None));
        let plugin = "/root/.docker/cli-plugins/docker-cbs";
        assert_eq!(read(&[plugin, "docker-cli-plugin-metadata"]), Asked::Metadata);
        assert_eq!(
            read(&[plugin, "cbs", "bake", "x"]),
            command(&["docker cbs", "bake", "x"], None)
        );
        assert_eq!(
            read(&[
                plugin, "--config", "/c", "-D", "-l", "info", "cbs", "build", "--config", "f", "."
            ]),
            command(&["docker cbs", "build", "--config", "f", "."], Some("/c"))
        );
        assert_eq!(
            read(&[plugin, "--config=/c", "cbs"]),
            command(&["docker cbs"], Some("/c"))
        );
        assert_eq!(
            read(&[plugin, "__complete", "cbs", "bake", ""]),
            Asked::Completion(vec!["bake".into(), "".into()])
        );
    }
}

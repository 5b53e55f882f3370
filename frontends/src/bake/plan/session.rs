//! Secrets and SSH agents: where their content is, and that it is there.

use super::super::entries::{Secret, Ssh};
use super::super::error::BakeError;
use super::super::host::{FileKind, Host};
use super::super::options::BakeOptions;
use super::super::paths::resolve;
use super::super::pem::check_private_key;
use super::super::remote::{RemoteInput, credential_variable, git_host, is_git_over_ssh};
use super::{Context, Surroundings, Target};

/// A secret that steps may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    /// The name by which steps ask for it.
    pub id: String,
    /// Where its content is.
    pub value: SecretValue,
}

/// Where the content of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretValue {
    /// In a file, by absolute path.
    File(String),
    /// In an environment variable; an unset one is an empty secret.
    Environment(String),
}

/// An SSH agent that steps may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshForward {
    /// The name by which steps ask for it.
    pub id: String,
    /// What answers.
    pub source: SshSource,
    /// Whether the definition says nothing, so that it is the agent of the caller.
    pub is_callers: bool,
}

/// What answers for an SSH agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// An agent, by the absolute path of its socket.
    Agent(String),
    /// Private keys without passwords, by absolute path.
    Keys(Vec<String>),
}

/// Reads secrets and agents as the command line gives them, by the rules for those of a target.
///
/// # Errors
/// [`BakeError::Flag`] for the first one that is malformed, or whose content is not there.
pub fn read_session(
    secrets: &[String],
    agents: &[String],
    options: &BakeOptions,
    host: &dyn Host,
) -> Result<(Vec<SecretSource>, Vec<SshForward>), BakeError> {
    let around = Surroundings {
        options,
        host,
        remote: None,
    };
    let secret = |text: &String| {
        let parsed = Secret::parse(text).map_err(|error| error.to_string());
        let read = parsed.and_then(|secret| around.secret(&secret));
        read.map_err(|reason| BakeError::Flag {
            flag: "--secret",
            value: text.clone(),
            reason,
        })
    };
    let forwards = around.forwards(agents.iter().map(|text| Ssh::parse(text)).collect());
    let fail = |reason| BakeError::Flag {
        flag: "--ssh",
        value: agents.join(" "),
        reason,
    };
    Ok((
        secrets.iter().map(secret).collect::<Result<_, _>>()?,
        forwards.map_err(fail)?,
    ))
}

const MAX_SECRET: u64 = 500 << 10;
const MAX_KEY: u64 = 100 << 10;

impl Surroundings<'_> {
    pub(super) fn secrets(&self, target: &Target, context: &Context) -> Result<Vec<SecretSource>, String> {
        let credentials = self.git_credentials(context);
        target
            .secrets
            .iter()
            .chain(&credentials)
            .map(|secret| self.secret(secret))
            .collect()
    }

    fn secret(&self, secret: &Secret) -> Result<SecretSource, String> {
        let id = secret.id.clone();
        if id.is_empty() {
            return Err(String::from("a secret needs an id"));
        }
        let (file, variable) = match (secret.source.as_str(), secret.env.as_str()) {
            ("", "") if self.options.environment.contains_key(&id) => ("", id.as_str()),
            // As a last resort, the id is the name of a file.
            ("", "") => (id.as_str(), ""),
            both => both,
        };
        if !file.is_empty() {
            let path = resolve(&self.options.working_directory, file);
            match self.host.kind(&path) {
                Err(error) => return Err(format!("cannot find the file {file:?} of secret {id:?}: {error}")),
                Ok(FileKind::File(size)) if size > MAX_SECRET => {
                    return Err(format!(
                        "secret {id:?} is too big; at most {} KiB are allowed",
                        MAX_SECRET >> 10
                    ));
                }
                Ok(_) if variable.is_empty() => {
                    return Ok(SecretSource {
                        id,
                        value: SecretValue::File(path),
                    });
                }
                Ok(_) => {}
            }
        }
        Ok(SecretSource {
            value: SecretValue::Environment(String::from(variable)),
            id,
        })
    }

    /// What the caller gave for fetching the definition serves for contexts from the same host, too.
    fn git_credentials(&self, context: &Context) -> Vec<Secret> {
        let (Some(RemoteInput::Git { url }), Context::Url(context)) = (self.remote, context) else {
            return Vec::new();
        };
        let host = match (git_host(url), git_host(context)) {
            (Some(host), Some(other)) if host.eq_ignore_ascii_case(&other) => host,
            _ => return Vec::new(),
        };
        [
            ("GIT_AUTH_TOKEN", "BUILDX_BAKE_GIT_AUTH_TOKEN"),
            ("GIT_AUTH_HEADER", "BUILDX_BAKE_GIT_AUTH_HEADER"),
        ]
        .into_iter()
        .filter_map(|(id, wanted)| {
            let env = credential_variable(self.options.environment.keys(), wanted)?;
            Some(Secret {
                id: format!("{id}.{host}"),
                source: String::new(),
                env,
            })
        })
        .collect()
    }

    pub(super) fn ssh(&self, target: &Target, context: &Context) -> Result<Vec<SshForward>, String> {
        let needs_agent = matches!(context, Context::Url(url) if is_git_over_ssh(url))
            || matches!(self.remote, Some(RemoteInput::Git { url }) if is_git_over_ssh(url));
        let mut entries = target.ssh.clone();
        if entries.is_empty() && needs_agent {
            entries.push(Ssh {
                id: String::from("default"),
                paths: Vec::new(),
            });
        }
        self.forwards(entries)
    }

    fn forwards(&self, entries: Vec<Ssh>) -> Result<Vec<SshForward>, String> {
        let mut forwards: Vec<SshForward> = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = if entry.id.is_empty() {
                String::from("default")
            } else {
                entry.id
            };
            if forwards.iter().any(|forward| forward.id == id) {
                return Err(format!("there are two agents with the id {id:?}"));
            }
            let mut paths = entry.paths;
            let is_callers = paths.is_empty() || paths == [""];
            if is_callers {
                let socket = self
                    .options
                    .environment
                    .get("SSH_AUTH_SOCK")
                    .filter(|socket| !socket.is_empty());
                let Some(socket) = socket else {
                    return Err(format!(
                        "agent {id:?} is the agent of the caller, but SSH_AUTH_SOCK is not set"
                    ));
                };
                paths = vec![socket.clone()];
            }
            let source = self.ssh_source(&paths)?;
            forwards.push(SshForward { id, source, is_callers });
        }
        Ok(forwards)
    }

    fn ssh_source(&self, paths: &[String]) -> Result<SshSource, String> {
        let mut keys = Vec::new();
        let mut agent = None;
        for written in paths {
            if agent.is_some() {
                return Err(String::from("only one agent socket can be given, and no keys with it"));
            }
            let path = resolve(&self.options.working_directory, written);
            match self.host.kind(&path) {
                Err(error) => return Err(format!("cannot find the agent or key {written:?}: {error}")),
                Ok(FileKind::Socket) if keys.is_empty() => agent = Some(path),
                Ok(FileKind::Socket) => return Err(String::from("an agent socket cannot be given together with keys")),
                Ok(FileKind::Directory) => return Err(format!("{written:?} is a directory, no agent or key")),
                Ok(FileKind::File(size)) if size > MAX_KEY => return Err(format!("{written:?} is too big for a key")),
                Ok(_) => {
                    let content = self
                        .host
                        .read(&path)
                        .map_err(|error| format!("cannot read the key {written:?}: {error}"))?;
                    check_private_key(&String::from_utf8_lossy(&content))
                        .map_err(|error| format!("cannot use the key {written:?}: {error}"))?;
                    keys.push(path);
                }
            }
        }
        Ok(agent.map_or(SshSource::Keys(keys), SshSource::Agent))
    }
}

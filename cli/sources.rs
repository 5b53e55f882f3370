//! What builds may read of this machine: folders, layouts, secrets and agents, by the names their definitions use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use cbs_exec::cdi::{DeviceSettings, FOLDERS, Granted};
use cbs_exec::{ExecConfig, Pins, SandboxConfig, SecretSource, SshSource, UserNetwork};
use cbs_frontends::bake;
use cbs_fuse::Privilege;
use cbs_solver::llb::{DefinitionBuilder, Edge};
use cbs_solver::{Graph, Request, pb};

use crate::session::Session;

/// Everything that the builds of one command may read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Folders behind `local://NAME`.
    pub(crate) locals: BTreeMap<String, PathBuf>,
    /// Layouts behind `oci-layout://…`.
    pub(crate) layouts: BTreeMap<String, PathBuf>,
    /// By id.
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// Agents by id.
    pub(crate) ssh: BTreeMap<String, SshSource>,
    /// What mutable sources are held to.
    pub(crate) pins: Arc<Pins>,
    /// What steps are allowed.
    pub(crate) sandbox: SandboxConfig,
    /// Folders of device specifications; none stands for the usual ones.
    pub(crate) device_folders: Vec<PathBuf>,
    /// The devices that steps may use.
    pub(crate) devices: bake::DeviceGrant,
}

impl Sources {
    /// The name of a folder: `habit` unless another folder has it. Names are in no cache key, so what they are does not
    /// matter; that different folders differ does.
    pub(crate) fn local(&mut self, habit: &str, folder: &Path) -> String {
        claim(&mut self.locals, habit, folder)
    }

    /// The name of a layout, likewise.
    pub(crate) fn layout(&mut self, habit: &str, folder: &Path) -> String {
        claim(&mut self.layouts, habit, folder)
    }

    /// Adds the secrets of a build.
    pub(crate) fn add_secrets(
        &mut self,
        secrets: &[bake::SecretSource],
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        for secret in secrets {
            let source = match &secret.value {
                bake::SecretValue::File(path) => SecretSource::File(PathBuf::from(path)),
                bake::SecretValue::Environment(name) => {
                    let value = environment.get(name).map(String::as_bytes).unwrap_or_default();
                    SecretSource::Value(Arc::from(value))
                }
            };
            match self.secrets.insert(secret.id.clone(), source.clone()) {
                Some(other) if other != source => bail!(
                    "two targets mean different things by the secret `{}`; build them one after the other",
                    secret.id
                ),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds the agents of a build.
    pub(crate) fn add_ssh(&mut self, forwards: &[bake::SshForward]) -> anyhow::Result<()> {
        for forward in forwards {
            let source = match &forward.source {
                bake::SshSource::Agent(socket) => SshSource::Agent(PathBuf::from(socket)),
                bake::SshSource::Keys(keys) => SshSource::Keys(keys.iter().map(PathBuf::from).collect()),
            };
            match self.ssh.insert(forward.id.clone(), source.clone()) {
                Some(other) if other != source => bail!(
                    "two targets mean different agents by `{}`; build them one after the other",
                    forward.id
                ),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets steps use devices.
    pub(crate) fn grant_devices(&mut self, more: &bake::DeviceGrant) {
        match (&mut self.devices, more) {
            (bake::DeviceGrant::All, _) => {}
            (own, bake::DeviceGrant::All) => *own = bake::DeviceGrant::All,
            (bake::DeviceGrant::Named(own), bake::DeviceGrant::Named(more)) => own.extend(more.iter().cloned()),
        }
    }

    fn device_settings(&self) -> DeviceSettings {
        DeviceSettings {
            folders: if self.device_folders.is_empty() {
                FOLDERS.map(PathBuf::from).into()
            } else {
                self.device_folders.clone()
            },
            granted: match &self.devices {
                bake::DeviceGrant::All => Granted::All,
                bake::DeviceGrant::Named(names) => Granted::Named(names.clone()),
            },
            parse: bake::yaml_to_json,
        }
    }

    /// What the executor of a session is told.
    pub(crate) fn exec_config(&self, session: &Session) -> ExecConfig {
        let mut sandbox = self.sandbox.clone();
        let path = std::env::var_os("PATH").unwrap_or_default();
        sandbox.emulation = session.settings.emulation.clone();
        sandbox.user_network = UserNetwork::find(std::env::split_paths(&path));
        ExecConfig {
            store: session.store.clone(),
            lease: session.lease.clone(),
            images: session.images.clone(),
            locals: self.locals.clone(),
            layouts: self.layouts.clone(),
            secrets: self.secrets.clone(),
            ssh: self.ssh.clone(),
            pins: self.pins.clone(),
            network: session.network,
            sandbox,
            devices: self.device_settings(),
            privilege: Privilege::detect(),
            standing: session.standing.clone(),
            lower_mode: session.lower_mode.or(session.settings.lower_mode.forced()),
        }
    }
}

/// The downloads, repositories and images of a graph, each as a request of its own.
pub(crate) fn mutable_sources(graph: &Graph) -> Vec<Request> {
    let mut requests = Vec::new();
    for vertex in graph.order().iter().map(|&id| graph.vertex(id)) {
        let pb::op::Op::Source(source) = &vertex.op else {
            continue;
        };
        let scheme = source.identifier.split("://").next().unwrap_or_default();
        if !matches!(scheme, "http" | "https" | "git" | "docker-image") {
            continue;
        }
        let op = pb::Op {
            op: Some(vertex.op.clone()),
            platform: vertex.platform.clone(),
            ..Default::default()
        };
        let mut builder = DefinitionBuilder::default();
        let digest = builder.add(&op, pb::OpMetadata::default());
        requests.push(Request {
            name: source.identifier.clone(),
            definition: builder.definition(Some(Edge::first(digest))),
        });
    }
    requests
}

fn claim(names: &mut BTreeMap<String, PathBuf>, habit: &str, folder: &Path) -> String {
    let candidates = std::iter::once(habit.to_owned()).chain((2_u32..).map(|number| format!("{habit}-{number}")));
    for name in candidates {
        match names.get(&name) {
            Some(taken) if taken != folder => {}
            Some(_) => return name,
            None => {
                names.insert(name.clone(), folder.to_owned());
                return name;
            }
        }
    }
    habit.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_get_names_of_their_own() {
        let mut sources = Sources::default();
        assert_eq!(sources.local("context", Path::new("/a")), "context");
        assert_eq!(sources.local("context", Path::new("/b")), "context-2");
        assert_eq!(sources.local("context", Path::new("/a")), "context");
        assert_eq!(sources.local("context", Path::new("/b")), "context-2");
        assert_eq!(sources.local("src", Path::new("/b")), "src");
    }

    #[test]
    fn one_id_means_one_secret() {
        let environment = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
        let secret = |name: &str| bake::SecretSource {
            id: "token".to_owned(),
            value: bake::SecretValue::Environment(name.to_owned()),
        };
        let mut sources = Sources::default();
        sources
            .add_secrets(&[secret("A"), secret("A")], &environment)
            .expect("the same");
        assert!(sources.add_secrets(&[secret("B")], &environment).is_err());
    }
}

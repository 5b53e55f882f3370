//! The files of the Container Device Interface, as far as builds need them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// One specification.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpecFile {
    pub(super) kind: String,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) devices: Vec<DeviceEntry>,
    pub(super) container_edits: Option<Edits>,
}

/// One of its devices.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceEntry {
    pub(super) name: String,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) container_edits: Option<Edits>,
}

/// What is changed about a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    /// `NAME=value`.
    #[serde(deserialize_with = "list")]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(deserialize_with = "list")]
    pub device_nodes: Vec<Node>,
    /// Parts of this machine's file system.
    #[serde(deserialize_with = "list")]
    pub mounts: Vec<HostMount>,
    /// Programs of this machine that a container runtime would run.
    #[serde(deserialize_with = "list")]
    pub hooks: Vec<Hook>,
    /// Supplementary groups.
    #[serde(rename = "additionalGids", deserialize_with = "list")]
    pub groups: Vec<u32>,
}

/// A device node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// In the container.
    pub path: PathBuf,
    /// On this machine, when it is another.
    pub host_path: Option<PathBuf>,
    /// What it is, when it is not to be asked.
    #[serde(rename = "type")]
    pub kind: Option<DeviceKindName>,
    /// Its number, likewise.
    pub major: Option<u32>,
    /// Its number, likewise.
    pub minor: Option<u32>,
    /// Its mode, likewise.
    pub file_mode: Option<u32>,
    /// Its owner; root when nothing is said.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

/// The kinds of device nodes by their letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DeviceKindName {
    /// A block device.
    #[serde(rename = "b")]
    Block,
    /// A character device.
    #[serde(rename = "c", alias = "u")]
    Character,
    /// A pipe.
    #[serde(rename = "p")]
    Pipe,
}

/// A mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostMount {
    /// What is shown.
    pub host_path: PathBuf,
    /// Where.
    pub container_path: PathBuf,
    /// As for `mount -o`; only `ro` matters.
    #[serde(default, deserialize_with = "list")]
    pub options: Vec<String>,
}

/// A hook, which is not run.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The program.
    pub path: String,
}

impl Edits {
    /// Adds what another one says.
    pub(super) fn add(&mut self, more: &Self) {
        self.env.extend_from_slice(&more.env);
        self.device_nodes.extend_from_slice(&more.device_nodes);
        self.mounts.extend_from_slice(&more.mounts);
        self.hooks.extend_from_slice(&more.hooks);
        self.groups.extend_from_slice(&more.groups);
    }
}

/// A list, for which `null` may stand when it is empty.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

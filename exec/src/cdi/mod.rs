//! Devices by the Container Device Interface: what specifications on this machine say a device needs.
//!
//! ```text
//! /etc/cdi/*.{json,yaml} ─ Catalog::read ─► devices by name ─ Catalog::find ─► Edits of a container
//! ```
//! A specification that cannot be read hides nothing but its own devices; it is named when one is looked for in vain.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use file::{DeviceKindName, Edits, HostMount, Node};

use file::SpecFile;

/// Devices with this annotation may be used without being granted.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// Devices can be asked for by the value of this annotation.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// Where devices are described, and which may be used.
#[derive(Clone, Debug)]
pub struct DeviceSettings {
    /// Folders of specifications; those in later ones win.
    pub folders: Vec<PathBuf>,
    /// What was granted.
    pub granted: Granted,
    /// Reads a YAML document, of which JSON is a kind.
    pub parse: fn(&str) -> Result<serde_json::Value, String>,
}

/// The devices that steps may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// All.
    All,
    /// Those with these names, of these kinds or classes.
    Named(BTreeSet<String>),
}

/// Where specifications are unless something else is said.
pub const FOLDERS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

impl Default for DeviceSettings {
    /// The usual folders, no grants, JSON only.
    fn default() -> Self {
        Self {
            folders: FOLDERS.map(PathBuf::from).into(),
            granted: Granted::Named(BTreeSet::new()),
            parse: |text| serde_json::from_str(text).map_err(|err| err.to_string()),
        }
    }
}

/// A device and what its specification adds.
#[derive(Clone, Debug)]
pub struct Device {
    /// `vendor.com/class=name`.
    pub name: String,
    annotations: BTreeMap<String, String>,
    edits: Edits,
    spec: Arc<Spec>,
}

/// What the devices of one file share.
#[derive(Debug)]
struct Spec {
    path: PathBuf,
    kind: String,
    annotations: BTreeMap<String, String>,
    edits: Edits,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
#[error("there is no device `{name}` in the CDI specifications of {folders}; {known}{broken}")]
pub struct NoSuchDevice {
    name: String,
    folders: String,
    known: String,
    broken: String,
}

/// Every device of this machine.
#[derive(Debug, Default)]
pub struct Catalog {
    devices: BTreeMap<String, Device>,
    folders: Vec<PathBuf>,
    broken: Vec<String>,
}

impl Catalog {
    /// Reads all specifications.
    #[must_use]
    pub fn read(settings: &DeviceSettings) -> Self {
        let mut catalog = Self {
            folders: settings.folders.clone(),
            ..Self::default()
        };
        for folder in &settings.folders {
            let mut found: BTreeMap<String, Vec<Device>> = BTreeMap::new();
            for path in files(folder) {
                match read_file(&path, settings.parse) {
                    Ok(devices) => {
                        for device in devices {
                            found.entry(device.name.clone()).or_default().push(device);
                        }
                    }
                    Err(why) => catalog.broken.push(format!("`{}`: {why}", path.display())),
                }
            }
            for (name, mut devices) in found {
                catalog.devices.remove(&name);
                match (devices.pop(), devices.pop()) {
                    (Some(device), None) => {
                        catalog.devices.insert(name, device);
                    }
                    (Some(one), Some(other)) => catalog.broken.push(format!(
                        "`{name}` is in both `{}` and `{}`",
                        other.spec.path.display(),
                        one.spec.path.display()
                    )),
                    (None, _) => {}
                }
            }
        }
        catalog
    }

    /// The devices a name stands for: `vendor.com/class=name` for one, `vendor.com/class` for the first of a kind,
    /// `vendor.com/class=*` for all of it, or a class for all devices with that annotation.
    ///
    /// # Errors
    /// [`NoSuchDevice`] says which there are.
    pub fn find(&self, name: &str) -> Result<Vec<&Device>, NoSuchDevice> {
        let (kind, which) = name.split_once('=').unwrap_or((name, ""));
        let of_kind = || self.devices.values().filter(|device| device.spec.kind == kind);
        let found: Vec<&Device> = match which {
            "*" => of_kind().collect(),
            "" => of_kind().take(1).collect(),
            _ => self.devices.get(name).into_iter().collect(),
        };
        if !found.is_empty() {
            return Ok(found);
        }
        let found: Vec<&Device> = self
            .devices
            .values()
            .filter(|device| device.annotation(CLASS) == Some(name))
            .collect();
        if found.is_empty() {
            Err(self.missing(name))
        } else {
            Ok(found)
        }
    }

    fn missing(&self, name: &str) -> NoSuchDevice {
        let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        let known = match self.devices.len() {
            0 => "they have none".to_owned(),
            _ => format!("they have {}", list(&mut self.devices.keys().cloned())),
        };
        let broken = match self.broken.len() {
            0 => String::new(),
            _ => format!("; not read were {}", list(&mut self.broken.iter().cloned())),
        };
        NoSuchDevice {
            name: name.to_owned(),
            folders: list(&mut self.folders.iter().map(|folder| format!("`{}`", folder.display()))),
            known,
            broken,
        }
    }
}

impl Device {
    /// Whether it may be used by steps that asked for `wanted`.
    #[must_use]
    pub fn is_allowed(&self, wanted: &str, granted: &Granted) -> bool {
        let names = match granted {
            Granted::All => return true,
            Granted::Named(names) => names,
        };
        let mut own = [
            Some(self.name.as_str()),
            Some(wanted),
            Some(self.spec.kind.as_str()),
            self.annotation(CLASS),
        ]
        .into_iter()
        .flatten();
        own.any(|name| names.contains(name)) || self.annotation(AUTO_ALLOW) == Some("true")
    }

    /// Its own annotation, else its specification's.
    fn annotation(&self, key: &str) -> Option<&str> {
        let own = self.annotations.get(key);
        own.or_else(|| self.spec.annotations.get(key)).map(String::as_str)
    }
}

/// What all these devices need: what their specifications say once, and each device's own part, in this order.
pub fn edits(devices: &[&Device]) -> Edits {
    let mut all = Edits::default();
    let mut seen: Vec<&Path> = Vec::new();
    for device in devices {
        if !seen.contains(&device.spec.path.as_path()) {
            seen.push(&device.spec.path);
            all.add(&device.spec.edits);
        }
        all.add(&device.edits);
    }
    all
}

/// The specifications in a folder by name; one that is not there has none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let is_spec = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml"))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_spec).collect();
    files.sort();
    files
}

fn read_file(path: &Path, parse: fn(&str) -> Result<serde_json::Value, String>) -> Result<Vec<Device>, String> {
    let text = std::fs::read_to_string(path).map_err(|err| err.to_string())?;
    let spec: SpecFile = serde_json::from_value(parse(&text)?).map_err(|err| err.to_string())?;
    let is_kind = spec
        .kind
        .split_once('/')
        .is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
    if !is_kind || spec.kind.contains(['=', '*']) {
        return Err(format!("kind `{}` is not VENDOR/CLASS", spec.kind));
    }
    let shared = Arc::new(Spec {
        path: path.to_owned(),
        kind: spec.kind.clone(),
        annotations: spec.annotations.unwrap_or_default(),
        edits: spec.container_edits.unwrap_or_default(),
    });
    let devices = spec.devices.into_iter().map(|device| Device {
        name: format!("{}={}", spec.kind, device.name),
        annotations: device.annotations.unwrap_or_default(),
        edits: device.container_edits.unwrap_or_default(),
        spec: Arc::clone(&shared),
    });
    Ok(devices.collect())
}

#[cfg(test)]
mod tests;

//! What a bake may do besides building: what is granted, what the builds ask for, and what is missing.
//!
//! Files below the working directory may be read and written; everything else that a definition names has to be
//! granted, because definitions come from elsewhere more often than their callers notice.

use std::collections::BTreeSet;
use std::io;

use super::csv_line::split_fields;
use super::error::BakeError;
use super::host::Host;
use super::paths::{clean, is_within, join, resolve};
use super::plan::{Build, Context, DockerfileSource, SecretValue, SshSource};
use crate::dockerfile::go::parse_bool;

/// What may be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Whether steps may use the network of the host.
    pub network_host: bool,
    /// Whether steps may run with all privileges.
    pub security_insecure: bool,
    /// Whether the agent of the caller may be used.
    pub ssh: bool,
    /// Whether local outputs may delete what is there.
    pub local_delete: bool,
    /// The devices that steps may use.
    pub devices: DeviceGrant,
    /// Folders and files that may be read; `*` for all.
    pub read: Vec<String>,
    /// Folders and files that may be written; `*` for all.
    pub write: Vec<String>,
    /// Image names that may be pushed.
    pub image_push: Vec<String>,
    /// Image names that may be loaded.
    pub image_load: Vec<String>,
}

/// The devices that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceGrant {
    /// All.
    All,
    /// Those with these names.
    Named(BTreeSet<String>),
}

impl Default for DeviceGrant {
    fn default() -> DeviceGrant {
        DeviceGrant::Named(BTreeSet::new())
    }
}

/// Something that a build asks for and that is not granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Privilege {
    /// Whether the check of file system access covers it, which can be switched off.
    pub is_file_access: bool,
    /// What `--allow` needs to be given.
    pub flag: String,
    /// What that means, in words.
    pub description: String,
}

impl Grants {
    /// Reads the values of `--allow`.
    ///
    /// # Errors
    /// [`BakeError::Flag`] for an unknown key.
    pub fn parse(allowed: &[String]) -> Result<Grants, BakeError> {
        let mut grants = Grants::default();
        for text in allowed {
            let fail = |reason: &str| BakeError::Flag {
                flag: "--allow",
                value: text.clone(),
                reason: String::from(reason),
            };
            let (key, value) = text
                .split_once('=')
                .map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
            let path = || String::from(value.unwrap_or_default());
            match key {
                "network.host" if value.is_none() => grants.network_host = true,
                "security.insecure" if value.is_none() => grants.security_insecure = true,
                "ssh" if value.is_none() => grants.ssh = true,
                "buildx.local.delete" if value.is_none() => grants.local_delete = true,
                "device" => grants
                    .devices
                    .add(value.unwrap_or_default())
                    .map_err(|reason| fail(&reason))?,
                "fs.read" => grants.read.push(path()),
                "fs.write" => grants.write.push(path()),
                "fs" => {
                    grants.read.push(path());
                    grants.write.push(path());
                }
                "image.push" => grants.image_push.push(path()),
                "image.load" => grants.image_load.push(path()),
                "image" => {
                    grants.image_push.push(path());
                    grants.image_load.push(path());
                }
                "network.host" | "security.insecure" | "ssh" | "buildx.local.delete" => {
                    return Err(fail("it does not accept a value"));
                }
                _ => {
                    return Err(fail(&format!(
                        "unknown entitlement key {key:?}; there are network.host, security.insecure, device, ssh, fs, \
                         fs.read, fs.write, image, image.push, image.load, buildx.local.delete"
                    )));
                }
            }
        }
        Ok(grants)
    }

    /// Grants what others grant, too.
    pub(crate) fn add(&mut self, more: Grants) {
        self.network_host |= more.network_host;
        self.security_insecure |= more.security_insecure;
        self.ssh |= more.ssh;
        self.local_delete |= more.local_delete;
        match (&mut self.devices, more.devices) {
            (DeviceGrant::All, _) => {}
            (own, DeviceGrant::All) => *own = DeviceGrant::All,
            (DeviceGrant::Named(own), DeviceGrant::Named(more)) => own.extend(more),
        }
        self.read.extend(more.read);
        self.write.extend(more.write);
        self.image_push.extend(more.image_push);
        self.image_load.extend(more.image_load);
    }

    /// What the builds ask for beyond what is granted, in a stable order.
    ///
    /// # Errors
    /// [`BakeError::Io`] when a path cannot be looked at.
    pub(crate) fn missing(
        &self,
        builds: &[Build],
        host: &dyn Host,
        working_directory: &str,
    ) -> Result<Vec<Privilege>, BakeError> {
        let mut wanted = Wanted::default();
        for build in builds {
            self.collect(build, &mut wanted);
        }
        let cwd = existing(host, working_directory)?.0;
        let base = [String::from(working_directory)];
        let read = missing_paths(self.read.iter().chain(&base), &wanted.read, host, working_directory)?;
        let write = missing_paths(self.write.iter().chain(&base), &wanted.write, host, working_directory)?;
        for path in read.union(&write) {
            let (key, words) = match (read.contains(path), write.contains(path)) {
                (true, true) => ("fs", "Read and write access"),
                (true, false) => ("fs.read", "Read access"),
                (false, _) => ("fs.write", "Write access"),
            };
            let shown = relative(path, &cwd);
            wanted.add(true, format!("{key}={shown}"), format!("{words} to path {shown}"));
        }
        Ok(wanted.privileges.into_iter().collect())
    }

    fn collect(&self, build: &Build, wanted: &mut Wanted) {
        for entitlement in &build.entitlements {
            let (key, value) = entitlement.split_once('=').unwrap_or((entitlement, ""));
            match key {
                "network.host" if !self.network_host => wanted.add(
                    false,
                    String::from("network.host"),
                    String::from("Running build containers that can access host network"),
                ),
                "security.insecure" if !self.security_insecure => wanted.add(
                    false,
                    String::from("security.insecure"),
                    String::from("Running privileged containers that can make system changes"),
                ),
                "device" if !self.devices.covers(value) => match device_name(value) {
                    None => wanted.add(false, String::from("device"), String::from("Access to CDI devices")),
                    Some(name) => wanted.add(false, format!("device={name}"), format!("Access to device {name}")),
                },
                _ => {}
            }
        }
        let paths = build
            .contexts
            .values()
            .chain([&build.context])
            .filter_map(|context| match context {
                Context::Local(path) => Some(path.clone()),
                Context::OciLayout(reference) => Some(layout_path(reference)),
                _ => None,
            });
        wanted.read.extend(paths);
        if let DockerfileSource::Local(path) = &build.dockerfile {
            wanted.read.insert(path.clone());
        }
        for output in &build.outputs {
            if !output.destination.is_empty() && output.destination != "-" {
                wanted.write.insert(output.destination.clone());
            }
            if output.kind == "local"
                && output.attributes.get("mode").is_some_and(|mode| mode == "delete")
                && !self.local_delete
            {
                let words = String::from("Deleting stale files from local output destinations");
                wanted.add(false, String::from("buildx.local.delete"), words);
            }
        }
        for (caches, key, paths) in [
            (&build.cache_from, "src", &mut wanted.read),
            (&build.cache_to, "dest", &mut wanted.write),
        ] {
            let local = caches.iter().filter(|cache| cache.kind == "local");
            paths.extend(local.filter_map(|cache| cache.attributes.get(key)).cloned());
        }
        for secret in &build.secrets {
            if let SecretValue::File(path) = &secret.value {
                wanted.read.insert(path.clone());
            }
        }
        for ssh in &build.ssh {
            match &ssh.source {
                _ if ssh.is_callers && !self.ssh => {
                    wanted.add(
                        true,
                        String::from("ssh"),
                        String::from("Forwarding default SSH agent socket"),
                    );
                }
                _ if ssh.is_callers => {}
                SshSource::Agent(path) => {
                    wanted.read.insert(path.clone());
                }
                SshSource::Keys(paths) => wanted.read.extend(paths.iter().cloned()),
            }
        }
    }
}

impl DeviceGrant {
    fn add(&mut self, value: &str) -> Result<(), String> {
        if value.is_empty() {
            *self = DeviceGrant::All;
            return Ok(());
        }
        let fields = split_fields(value, ',')?;
        if let (DeviceGrant::Named(names), Some(name)) = (self, fields.into_iter().next()) {
            names.insert(name);
        }
        Ok(())
    }

    fn covers(&self, value: &str) -> bool {
        match self {
            DeviceGrant::All => true,
            DeviceGrant::Named(names) => device_name(value).is_some_and(|name| names.contains(&name)),
        }
    }
}

/// The name in `name,optional`; `None` when all devices are meant.
fn device_name(value: &str) -> Option<String> {
    split_fields(value, ',')
        .ok()?
        .into_iter()
        .next()
        .filter(|name| !name.is_empty())
}

/// The folder in `folder@digest` and `folder:tag`.
fn layout_path(reference: &str) -> String {
    let path = reference.split_once('@').map_or(reference, |(path, _)| path);
    let name = path.rfind('/').map_or(0, |at| at + 1);
    String::from(path[name..].find(':').map_or(path, |at| &path[..name + at]))
}

/// What builds ask for.
#[derive(Default)]
struct Wanted {
    privileges: BTreeSet<Privilege>,
    read: BTreeSet<String>,
    write: BTreeSet<String>,
}

impl Wanted {
    fn add(&mut self, is_file_access: bool, flag: String, description: String) {
        self.privileges.insert(Privilege {
            is_file_access,
            flag,
            description,
        });
    }
}

fn missing_paths<'g>(
    granted: impl Iterator<Item = &'g String>,
    wanted: &BTreeSet<String>,
    host: &dyn Host,
    working_directory: &str,
) -> Result<BTreeSet<String>, BakeError> {
    let mut folders = Vec::new();
    for path in granted {
        if path == "*" {
            return Ok(BTreeSet::new());
        }
        let (found, rest) = existing(host, &resolve(working_directory, path))?;
        folders.push(join(&found, &rest));
    }
    let mut missing: BTreeSet<String> = BTreeSet::new();
    for path in wanted {
        let (found, rest) = existing(host, &resolve(working_directory, path))?;
        let path = join(&found, &rest);
        // What lies below something that is asked for needs no asking.
        if !folders.iter().any(|folder| is_within(&path, folder))
            && !missing.iter().any(|above| is_within(&path, above))
        {
            missing.retain(|below| !is_within(below, &path));
            missing.insert(path);
        }
    }
    Ok(missing)
}

/// The part of an absolute path that exists, with symbolic links followed, and what does not exist of it. A link to
/// nothing leads to where its target would be.
fn existing(host: &dyn Host, path: &str) -> Result<(String, String), BakeError> {
    const MAX_LINKS: u32 = 255;
    let fail = |source: io::Error| BakeError::Io {
        action: "look at",
        path: String::from(path),
        source,
    };
    let mut found = String::from("/");
    let mut pending: Vec<String> = path.split('/').rev().map(String::from).collect();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                found = super::paths::parent(&found);
                continue;
            }
            _ => {}
        }
        let next = join(&found, &part);
        match host.link_target(&next) {
            Ok(None) => found = next,
            Ok(Some(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(fail(io::Error::other("too many symbolic links")));
                }
                if target.starts_with('/') {
                    found = String::from("/");
                }
                pending.extend(target.split('/').rev().map(String::from));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                pending.push(part);
                pending.reverse();
                return Ok((found, clean(&pending.join("/"))));
            }
            Err(error) => return Err(fail(error)),
        }
    }
    Ok((found, String::new()))
}

/// The path seen from the working directory, unless that is far away.
fn relative(path: &str, cwd: &str) -> String {
    if path == cwd {
        return String::from(".");
    }
    if is_within(path, cwd) {
        return String::from(path[cwd.len()..].trim_start_matches('/'));
    }
    let above = super::paths::parent(cwd);
    if path == above {
        return String::from("..");
    }
    if is_within(path, &above) {
        return format!("../{}", path[above.len()..].trim_start_matches('/'));
    }
    String::from(path)
}

/// Whether access to files is checked, after the variables that switch the check.
pub(crate) fn checks_file_access(
    environment: &std::collections::BTreeMap<String, String>,
    is_remote: bool,
) -> Result<bool, BakeError> {
    let read = |name: &'static str| match environment.get(name) {
        None => Ok(None),
        Some(text) => match parse_bool(text) {
            Some(value) => Ok(Some(value)),
            None => Err(BakeError::Environment {
                name,
                value: text.clone(),
            }),
        },
    };
    if let Some(enabled) = read("BUILDX_BAKE_ENTITLEMENTS_FS")? {
        return Ok(enabled);
    }
    let allowed = if is_remote {
        read("BAKE_ALLOW_REMOTE_FS_ACCESS")?
    } else {
        None
    };
    Ok(allowed != Some(true))
}

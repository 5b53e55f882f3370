//! The devices that a step asks for, as changes of its container.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use cbs_solver::{FailureKind, Step, StepError, pb};

use crate::cdi::{self, Catalog, DeviceKindName, Node};
use crate::executor::Shared;
use crate::launch::{Access, DeviceKind, DeviceNode, MountSource, MountSpec, ProcessSpec};

/// Adds what the devices need to the process and the mounts; gives the nodes.
///
/// # Errors
/// A device that is not there or not allowed, unless it is optional, and one whose node is not on this machine.
pub(super) fn add(
    shared: &Shared,
    step: &Step,
    wanted: &[pb::CdiDevice],
    process: &mut ProcessSpec,
    mounts: &mut Vec<MountSpec>,
) -> Result<Vec<DeviceNode>, StepError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let settings = &shared.config.devices;
    let catalog = Catalog::read(settings);
    let mut devices = Vec::new();
    for pb::CdiDevice { name, optional } in wanted {
        let warn = |text: String| step.progress.warn(text, Vec::new(), "");
        let found = match catalog.find(name) {
            Ok(found) => found,
            Err(err) if *optional => {
                warn(format!("optional device left out: {err}"));
                continue;
            }
            Err(err) => return Err(StepError::caused(FailureKind::NotFound, err.to_string(), err)),
        };
        match found.iter().find(|device| !device.is_allowed(name, &settings.granted)) {
            None => devices.extend(found),
            Some(device) => {
                let device = &device.name;
                let text = format!("device `{device}` is not allowed; grant it with --allow device={device}");
                if !optional {
                    return Err(StepError::new(FailureKind::Denied, text));
                }
                warn(format!("optional device left out: {text}"));
            }
        }
    }
    let edits = cdi::edits(&devices);
    for hook in &edits.hooks {
        step.progress.warn(
            format!(
                "`{}`, which a device wants to have run, is not: builds run no hooks",
                hook.path
            ),
            Vec::new(),
            "",
        );
    }
    for entry in edits.env {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        process
            .env
            .retain(|own| own.as_encoded_bytes().split(|&byte| byte == b'=').next() != Some(name.as_bytes()));
        process.env.push(entry.into());
    }
    process.user.supplementary.extend(&edits.groups);
    mounts.extend(edits.mounts.into_iter().map(|mount| MountSpec {
        target: mount.container_path,
        source: MountSource::Bind(mount.host_path),
        access: if mount.options.iter().any(|option| option == "ro") {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        },
    }));
    edits.device_nodes.iter().map(node).collect()
}

/// What a specification leaves open is asked of the node on this machine.
fn node(wanted: &Node) -> Result<DeviceNode, StepError> {
    let source = wanted.host_path.as_ref().unwrap_or(&wanted.path);
    let found = std::fs::metadata(source).map_err(|err| super::system("find the device node", source, err))?;
    let numbers = found.rdev();
    let kind = match wanted.kind {
        Some(DeviceKindName::Block) => DeviceKind::Block,
        Some(DeviceKindName::Character) => DeviceKind::Character,
        None if found.file_type().is_block_device() => DeviceKind::Block,
        None if found.file_type().is_char_device() => DeviceKind::Character,
        None | Some(DeviceKindName::Pipe) => {
            return Err(crate::error::invalid(format!(
                "a device asks for the node `{}`, which is no device",
                source.display()
            )));
        }
    };
    Ok(DeviceNode {
        path: wanted.path.clone(),
        source: source.clone(),
        kind,
        major: wanted.major.unwrap_or_else(|| rustix::fs::major(numbers)),
        minor: wanted.minor.unwrap_or_else(|| rustix::fs::minor(numbers)),
        mode: wanted.file_mode.unwrap_or(found.mode()) & 0o777,
        uid: wanted.uid.unwrap_or(0),
        gid: wanted.gid.unwrap_or(0),
    })
}

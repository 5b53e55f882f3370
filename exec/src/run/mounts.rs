//! The mounts of an exec op beside its root.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use cbs_image::export::{LocalMode, LocalOptions, Owners, PlatformSplit, RootfsOptions, RootfsTime, write_local};
use cbs_image::platform::Platform;
use cbs_solver::{FailureKind, Step, StepError, pb};
use cbs_store::edit::{LastLink, resolve, subtree};
use cbs_store::{BlobStore, DirectoryStore, Metadata, Node, Sharing, Snapshot, StoreError};

use super::{Held, agent, ids, input_of, output_of, system};
use crate::error::edit_error;
use crate::launch::{Access, FileSource, MountSource, MountSpec};

/// BuildKit's mode of a tmpfs's root.
const TMPFS_MODE: u32 = 0o1777;
/// Where docker puts shared memory; a tmpfs mount of a size there is `--shm-size`.
const SHM: &str = "/dev/shm";

/// The size of `/dev/shm`, when the op says one.
pub(super) fn shm_size(op: &pb::ExecOp) -> Option<u64> {
    let shm = op.mounts.iter().find(|mount| is_shm(mount))?;
    shm.tmpfs_opt
        .as_ref()
        .and_then(|options| u64::try_from(options.size).ok())
        .filter(|size| *size > 0)
}

fn is_shm(mount: &pb::Mount) -> bool {
    mount.mount_type() == pb::MountType::Tmpfs && mount.dest == SHM
}

/// All mounts but the root.
pub(super) fn build(
    held: &mut Held<'_>,
    op: &pb::ExecOp,
    inputs: &[Option<Snapshot>],
    meta: &pb::Meta,
    step: &Step,
) -> Result<Vec<MountSpec>, StepError> {
    let mut specs = Vec::new();
    for mount in op.mounts.iter().filter(|mount| mount.dest != "/" && !is_shm(mount)) {
        let target = absolute(&mount.dest, &meta.cwd);
        let access = if mount.readonly {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let source = match mount.mount_type() {
            pb::MountType::Bind => Some(bind(held, mount, inputs, &target)?),
            pb::MountType::Cache => Some(cache(held, mount, inputs, step)?),
            pb::MountType::Tmpfs => {
                let size = mount
                    .tmpfs_opt
                    .as_ref()
                    .and_then(|options| u64::try_from(options.size).ok());
                Some(MountSource::Tmpfs {
                    size: size.filter(|size| *size > 0),
                    mode: TMPFS_MODE,
                })
            }
            pb::MountType::Secret => secret(held, mount)?,
            pb::MountType::Ssh => ssh(held, mount)?,
        };
        specs.extend(source.map(|source| MountSpec { target, source, access }));
    }
    Ok(specs)
}

pub(super) fn absolute(dest: &str, cwd: &str) -> PathBuf {
    Path::new("/").join(cwd).join(dest)
}

/// Where a selector leads in its tree, and what is there.
fn select(
    held: &Held<'_>,
    snapshot: &Snapshot,
    selector: &str,
) -> Result<(PathBuf, Metadata, Option<Node>), StepError> {
    let store = &held.shared.config.store;
    let found = resolve(store, &snapshot.tree, selector, LastLink::Follow).map_err(edit_error)?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(found.path));
    if path.as_os_str().is_empty() {
        let root = store.need_directory(&snapshot.tree)?.root.clone();
        return Ok((path, root.unwrap_or_else(|| Metadata::new(0o755)), None));
    }
    let entry = found.entry.ok_or_else(|| {
        StepError::new(
            FailureKind::NotFound,
            format!("\"/{}\": not found", selector.trim_start_matches('/')),
        )
    })?;
    let directory = matches!(entry.node, Node::Directory(_));
    Ok((path, entry.meta, (!directory).then_some(entry.node)))
}

fn bind(
    held: &mut Held<'_>,
    mount: &pb::Mount,
    inputs: &[Option<Snapshot>],
    target: &Path,
) -> Result<MountSource, StepError> {
    let Some(snapshot) = input_of(inputs, mount.input).cloned() else {
        let tree = cbs_store::diff::empty_tree(&held.shared.config.store)?;
        let overlay = held.overlay(tree, None, output_of(mount), target)?;
        return Ok(MountSource::Overlay(overlay));
    };
    let (path, meta, file) = select(held, &snapshot, &mount.selector)?;
    match file {
        _ if mount.readonly => {
            let view = held.shared.mount()?.view(snapshot.tree);
            let source = view.path().join(path);
            held.views.push(view);
            Ok(MountSource::Bind(source))
        }
        // Written to and thrown away: a copy serves.
        Some(node) => Ok(MountSource::Bind(file_copy(held, &node, &meta)?)),
        None => {
            let output = output_of(mount);
            Ok(MountSource::Overlay(held.overlay_below(
                snapshot.tree,
                &path,
                Some(snapshot),
                output,
                target,
            )?))
        }
    }
}

fn file_copy(held: &mut Held<'_>, node: &Node, meta: &Metadata) -> Result<PathBuf, StepError> {
    let Node::File { blob, .. } = node else {
        return Err(crate::error::invalid(
            "only files and directories can be mounted for writing",
        ));
    };
    let config = &held.shared.config;
    let dir = config.lease.new_dir("bind")?;
    let path = dir.join("file");
    held.scratch.push(dir);
    let mut reader = config.store.blob(blob)?.ok_or(StoreError::MissingBlob(*blob))?.reader();
    let mut copy = || -> std::io::Result<()> {
        let mut file = std::fs::File::create_new(&path)?;
        std::io::copy(&mut reader, &mut file)?;
        let (uid, gid) = held.shared.owners.shown(meta.uid, meta.gid);
        chown(&path, Some(uid), Some(gid))?;
        file.set_permissions(std::fs::Permissions::from_mode(meta.mode))
    };
    copy().map_err(|err| system("copy", &path, err))?;
    Ok(path)
}

fn cache(
    held: &mut Held<'_>,
    mount: &pb::Mount,
    inputs: &[Option<Snapshot>],
    step: &Step,
) -> Result<MountSource, StepError> {
    let options = mount.cache_opt.clone().unwrap_or_default();
    let id = if options.id.is_empty() {
        &mount.dest
    } else {
        &options.id
    };
    let sharing = match options.sharing() {
        pb::CacheSharingOpt::Shared => Sharing::Shared,
        pb::CacheSharingOpt::Private => Sharing::Private,
        pb::CacheSharingOpt::Locked => Sharing::Locked,
    };
    let store = &held.shared.config.store;
    let cancelled = || step.cancel.is_cancelled();
    let mut cache = store
        .cache_mount(id, sharing, &cancelled)?
        .ok_or_else(StepError::cancelled)?;
    if cache.fresh {
        let meta = match input_of(inputs, mount.input) {
            None => Metadata::new(0o755),
            Some(snapshot) => {
                let (_, meta, file) = select(held, snapshot, &mount.selector)?;
                if file.is_some() {
                    return Err(crate::error::invalid(format!(
                        "cache mount `{id}` cannot begin as a file"
                    )));
                }
                let tree = subtree(store, &snapshot.tree, &mount.selector).map_err(edit_error)?;
                if !store.need_directory(&tree)?.entries.is_empty() {
                    let rootfs = RootfsOptions {
                        roots: vec![(Platform::host(), tree)],
                        platform_split: PlatformSplit::Together,
                        time: RootfsTime::Keep,
                    };
                    let local = LocalOptions {
                        rootfs,
                        mode: LocalMode::Copy,
                        owners: Owners::Image,
                    };
                    write_local(store, &local, &cache.path, &cancelled).map_err(|err| {
                        StepError::caused(FailureKind::System, format!("cannot fill cache mount `{id}`"), err)
                    })?;
                }
                meta
            }
        };
        let path = &cache.path;
        let (shared, owner) = (held.shared, (meta.uid, meta.gid));
        ids::check_owner(
            &shared.owners,
            &shared.config.standing,
            owner,
            &format!("cache mount `{}`", mount.dest),
        )?;
        chown(path, Some(meta.uid), Some(meta.gid))
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(meta.mode)))
            .map_err(|err| system("prepare cache mount", path, err))?;
        cache.seeded()?;
    }
    let path = cache.path.clone();
    held.caches.push(cache);
    Ok(MountSource::Bind(path))
}

fn secret(held: &Held<'_>, mount: &pb::Mount) -> Result<Option<MountSource>, StepError> {
    let options = mount.secret_opt.clone().unwrap_or_default();
    let Some(bytes) = held.shared.secret(&options.id, options.optional)? else {
        return Ok(None);
    };
    let file = FileSource {
        bytes,
        mode: options.mode & 0o7777,
        uid: options.uid,
        gid: options.gid,
    };
    Ok(Some(MountSource::File(file)))
}

fn ssh(held: &mut Held<'_>, mount: &pb::Mount) -> Result<Option<MountSource>, StepError> {
    let options = mount.ssh_opt.clone().unwrap_or_default();
    let id = if options.id.is_empty() { "default" } else { &options.id };
    let Some(socket) = agent::socket(held.shared, id)? else {
        if options.optional {
            return Ok(None);
        }
        return Err(StepError::new(
            FailureKind::MissingSource,
            format!("ssh agent `{id}` was not given; pass it with --ssh {id}"),
        ));
    };
    let owner = agent::Owner {
        uid: options.uid,
        gid: options.gid,
        mode: options.mode & 0o777,
    };
    let shared = held.shared;
    let what = format!("ssh agent `{id}`");
    ids::check_owner(&shared.owners, &shared.config.standing, (owner.uid, owner.gid), &what)?;
    let door = agent::door(shared, &socket, owner)?;
    let path = door.path.clone();
    held.doors.push(door);
    Ok(Some(MountSource::Bind(path)))
}

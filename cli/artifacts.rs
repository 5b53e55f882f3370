//! `--artifact-on-failure`: files taken out of a failed step.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cbs_exec::FailedState;
use cbs_image::export::{LocalMode, LocalOptions, Owners, PlatformSplit, RootfsOptions, RootfsTime, write_local};
use cbs_image::platform::Platform;
use cbs_solver::{Graph, Vertex, pb};
use cbs_store::edit::{LastLink, resolve, subtree};
use cbs_store::{BlobStore as _, Node, Store, TreeDigest};

/// Copies `path` out of the failed steps that have it.
///
/// # Errors
/// When no failed step has it, it lies on a mount that is not kept, or `dest` cannot be written.
pub(crate) fn take_out(
    store: &Store,
    graph: &Graph,
    states: &[FailedState],
    path: &str,
    dest: &Path,
) -> anyhow::Result<()> {
    let mut reason = None;
    for state in states {
        let vertices = graph.order().iter().map(|&id| graph.vertex(id));
        let Some(vertex) = vertices.into_iter().find(|vertex| vertex.digest == state.vertex) else {
            continue;
        };
        match take_out_of(store, vertex, state, path, dest) {
            Ok(()) => return Ok(()),
            Err(err) => reason = reason.or(Some(err)),
        }
    }
    match reason {
        Some(err) => Err(err),
        None => bail!("no step that failed left anything"),
    }
}

fn take_out_of(store: &Store, vertex: &Vertex, state: &FailedState, path: &str, dest: &Path) -> anyhow::Result<()> {
    let pb::op::Op::Exec(op) = &vertex.op else {
        bail!("`{}` runs nothing", vertex.name);
    };
    let cwd = op.meta.as_ref().map_or("/", |meta| meta.cwd.as_str());
    let whole = Path::new("/").join(cwd).join(path);
    // The innermost mount that the path lies on.
    let on = op
        .mounts
        .iter()
        .enumerate()
        .map(|(number, mount)| (number, Path::new("/").join(cwd).join(&mount.dest), mount))
        .filter(|(_, target, _)| whole.starts_with(target))
        .max_by_key(|(_, target, _)| target.components().count());
    let Some((number, target, mount)) = on else {
        bail!("the step has no root file system");
    };
    let Some(left) = state.mounts.iter().find(|left| left.mount == number) else {
        match mount.mount_type() {
            pb::MountType::Cache => bail!("`{path}` is on a cache mount; `cbs cache export` writes what that holds"),
            _ => bail!("`{path}` is on a mount that the step leaves nothing on"),
        }
    };
    let below = whole.strip_prefix(&target).unwrap_or(&whole);
    copy(store, &left.tree, below, dest).with_context(|| format!("`{}`", vertex.name))
}

fn copy(store: &Store, tree: &TreeDigest, path: &Path, dest: &Path) -> anyhow::Result<()> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let found = resolve(store, tree, bytes, LastLink::Follow)?;
    let is_root = found.path.is_empty();
    match found.entry {
        None if !is_root => bail!("`{}` is not there", path.display()),
        Some(entry) if !matches!(entry.node, Node::Directory(_)) => {
            let Node::File { blob, .. } = entry.node else {
                bail!("`{}` is neither a file nor a folder", path.display());
            };
            let dest = match path.file_name() {
                Some(name) if dest.is_dir() || dest.as_os_str().as_encoded_bytes().ends_with(b"/") => dest.join(name),
                _ => dest.to_owned(),
            };
            let what = || format!("cannot write `{}`", dest.display());
            if let Some(folder) = dest.parent() {
                std::fs::create_dir_all(folder).with_context(what)?;
            }
            let blob = store.blob(&blob)?.context("its bytes are not in the store")?;
            let mut file = std::fs::File::create(&dest).with_context(what)?;
            std::io::copy(&mut blob.reader(), &mut file).with_context(what)?;
            file.flush().with_context(what)?;
            let mode = std::fs::Permissions::from_mode(entry.meta.mode & 0o777);
            file.set_permissions(mode).with_context(what)
        }
        _ => {
            let folder: PathBuf = dest.to_owned();
            let options = LocalOptions {
                rootfs: RootfsOptions {
                    roots: vec![(Platform::host(), subtree(store, tree, bytes)?)],
                    platform_split: PlatformSplit::Together,
                    time: RootfsTime::Keep,
                },
                mode: LocalMode::Copy,
                owners: Owners::Caller,
            };
            Ok(write_local(store, &options, &folder, &|| false)?)
        }
    }
}

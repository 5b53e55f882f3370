//! Finding out what this kernel can do, by doing it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use cbs_store::{
    BlobDigest, BlobStore, Directory, DirectoryStore, Entry, KnownIds, MemoryStore, Metadata, Node, TreeDigest,
    blob_path,
};
use rustix::fs::{Mode, OFlags};

use crate::xattrs::REDIRECT_ABOVE;
use crate::{DEFAULT_ENTRY_BUDGET, FuseError, LowerMode, Overlay, Privilege, RunConfig, RunMount};

/// Finds the best [`LowerMode`] that really works here: mounts a throw-away tree, an overlay over it, and reads a large
/// file through both. Takes a few milliseconds; keep the answer for the life of the process.
///
/// `scratch` is an empty directory on the file system where the overlays' upper directories will be; it is left empty.
///
/// # Errors
/// [`FuseError`] when not even the plain mode works: no FUSE, no right to mount, or an upper directory that overlayfs
/// does not accept.
pub fn probe(scratch: &Path, privilege: Privilege) -> Result<LowerMode, FuseError> {
    match try_mode(scratch, privilege, LowerMode::DataOnly) {
        Ok(()) => Ok(LowerMode::DataOnly),
        // Without the device there is no point in another try.
        Err(err @ FuseError::NoDevice { .. }) => Err(err),
        Err(_) => try_mode(scratch, privilege, LowerMode::Plain).map(|()| LowerMode::Plain),
    }
}

fn try_mode(scratch: &Path, privilege: Privilege, mode: LowerMode) -> Result<(), FuseError> {
    let result = try_mode_in(scratch, privilege, mode);
    for name in ["mount", "blobs", "upper", "work"] {
        let path = scratch.join(name);
        // Each may be missing when an earlier step failed; the mount point only goes when nothing is mounted.
        let _ = if name == "mount" {
            fs::remove_dir(&path)
        } else {
            fs::remove_dir_all(&path)
        };
    }
    result
}

fn try_mode_in(scratch: &Path, privilege: Privilege, mode: LowerMode) -> Result<(), FuseError> {
    let fail = |action| FuseError::mount::<io::Error>(action, scratch);
    for name in ["mount", "blobs", "upper", "work"] {
        fs::create_dir(scratch.join(name)).map_err(fail("make a directory in"))?;
    }
    let bytes = vec![b'x'; REDIRECT_ABOVE as usize + 1];
    let blobs = scratch.join("blobs");
    let (store, tree) = sample(&bytes, &blobs)?;
    let run = RunMount::mount(RunConfig {
        store: Arc::new(store),
        blobs,
        mountpoint: scratch.join("mount"),
        mode,
        privilege,
        threads: NonZeroUsize::MIN,
        images: None,
        entry_budget: DEFAULT_ENTRY_BUDGET,
        owners: KnownIds::all(),
    })?;
    let view = run.view(tree);
    let overlay = Overlay {
        lower: &view,
        upper: &scratch.join("upper"),
        work: &scratch.join("work"),
    }
    .mount()?;
    let file = rustix::fs::openat(&overlay, SAMPLE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(FuseError::mount("open a file of a probing overlay in", scratch))?;
    let mut read = Vec::new();
    File::from(file)
        .read_to_end(&mut read)
        .map_err(fail("read a file of a probing overlay in"))?;
    let by_daemon = run.counts().read;
    if read != bytes || (mode == LowerMode::DataOnly && by_daemon != 0) {
        return Err(fail("read the right bytes through a probing overlay in")(
            io::ErrorKind::InvalidData.into(),
        ));
    }
    Ok(())
}

/// The one file of the throw-away tree.
const SAMPLE: &str = "sample";

fn sample(bytes: &[u8], blobs: &Path) -> Result<(MemoryStore, TreeDigest), FuseError> {
    let blob = BlobDigest::of(bytes);
    let path = blobs.join(blob_path(&blob));
    let folder = path.parent().unwrap_or(blobs);
    fs::create_dir(folder)
        .and_then(|()| fs::write(&path, bytes))
        .map_err(FuseError::mount("write a blob in", blobs))?;
    let store = MemoryStore::default();
    store.put_bytes(bytes)?;
    let mut root = Directory::empty_root();
    root.set(Entry {
        name: SAMPLE.into(),
        meta: Metadata::new(0o644),
        node: Node::File {
            blob,
            size: bytes.len() as u64,
            link: None,
        },
    });
    let tree = store.put_directory(root)?.digest;
    Ok((store, tree))
}

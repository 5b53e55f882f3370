//! Bringing files to their places without ever taking a good one away.
//!
//! A name in `blobs/` or `layers/` may be taken: by another process that was faster, or by what a killed process or a
//! power loss left. Its bytes may be on disk already, as its row may say, and those of the newcomer are not: replacing it
//! would put a file that a power loss can empty behind a row that nobody checks. So a sound file stays, and only one
//! that is not what its name says is replaced.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, RenameFlags, mkdirat, renameat, renameat_with, statat};
use rustix::io::Errno;

use super::Inner;
use super::blobs::hash_reader;
use crate::{BlobDigest, Sha256Digest, StoreError, blob_path};

/// What became of a file that was to be moved in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// It is in the store.
    In,
    /// The store had it: it is where it was, and nobody needs it.
    Needless,
}

impl Inner {
    /// Moves a file to where its blob belongs.
    pub(super) fn move_blob(
        &self,
        folder: impl AsFd,
        path: &Path,
        digest: &BlobDigest,
        size: u64,
    ) -> Result<Moved, StoreError> {
        let target = blob_path(digest);
        let (folder, blobs) = (folder.as_fd(), self.blobs_fd.as_fd());
        let fail = |err: Errno| StoreError::io("move blob in", &self.blob_file(digest))(err.into());
        let is_sound = || self.large_is_sound(digest, size);
        match move_file((folder, path), (blobs, &target), is_sound, fail) {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                match mkdirat(blobs, &target[..2], Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(err) => return Err(StoreError::io("create folder", &self.blob_file(digest))(err.into())),
                }
                move_file((folder, path), (blobs, &target), is_sound, fail)
            }
            other => other,
        }
    }

    /// Moves a file to where its OCI blob belongs.
    pub(super) fn move_oci(&self, folder: impl AsFd, path: &Path, digest: &Sha256Digest) -> Result<Moved, StoreError> {
        let target = digest.to_string();
        let fail = |err: Errno| StoreError::io("move layer in", &self.oci_file(digest))(err.into());
        let is_sound = || self.oci_is_sound(digest);
        move_file(
            (folder.as_fd(), path),
            (self.layers_fd.as_fd(), &target),
            is_sound,
            fail,
        )
    }

    fn large_is_sound(&self, digest: &BlobDigest, size: u64) -> Result<bool, StoreError> {
        let Some(file) = self.open_blob_file(digest)? else {
            return Ok(false);
        };
        let path = self.blob_file(digest);
        let found = file.metadata().map_err(StoreError::io("look at blob", &path))?.len();
        // Hashing is for the rare case that everything else looks right.
        Ok(found == size && hash_reader(&file).map_err(StoreError::io("read blob", &path))?.0 == *digest)
    }
}

/// A folder and a name in it.
type At<'a, P> = (BorrowedFd<'a>, P);

fn move_file(
    from: At<'_, &Path>,
    to: At<'_, &str>,
    is_sound: impl Fn() -> Result<bool, StoreError>,
    fail: impl Fn(Errno) -> StoreError,
) -> Result<Moved, StoreError> {
    let is_taken = match renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(Moved::In),
        Err(Errno::EXIST) => true,
        // A file system that cannot: the look costs as much as the call it spares.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW).is_ok(),
        Err(err) => return Err(fail(err)),
    };
    if is_taken && is_sound()? {
        return Ok(Moved::Needless);
    }
    renameat(from.0, from.1, to.0, to.1).map_err(fail)?;
    Ok(Moved::In)
}

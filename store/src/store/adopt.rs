//! Taking files of others into the store without copying them.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, openat, unlinkat};
use rustix::io::Errno;

use super::Store;
use super::blobs::hash_reader;
use super::moved::Moved;
use crate::{BlobDigest, BlobStore, INLINE_LIMIT, StoreError};

impl Store {
    /// Takes a file into the store: a large one by rename, so that `path` is gone afterwards; a small one, one with other
    /// links and one of another file system by copy, so that it stays. Nobody may write to it any more.
    ///
    /// # Errors
    /// [`StoreError`] when it is no regular file or cannot be read or moved; it may then still be at `path`.
    pub fn adopt_file(&self, path: &Path) -> Result<(BlobDigest, u64), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let mut file = open_for_adoption(path)?;
        let stat = file.metadata().map_err(StoreError::io("read", path))?;
        if !stat.is_file() {
            return Err(StoreError::io("adopt", path)(io::ErrorKind::InvalidInput.into()));
        }
        if stat.size() <= INLINE_LIMIT || stat.nlink() != 1 || stat.dev() != inner.device {
            return self.put_reader(&mut file);
        }
        let (digest, size) = hash_reader(&file).map_err(StoreError::io("read", path))?;
        let mut moved = false;
        let result = inner.put_large(digest, size, || {
            make_canonical(&file).map_err(StoreError::io("protect", path))?;
            moved = inner.move_blob(CWD, path, &digest, size)? == Moved::In;
            Ok(())
        });
        match result {
            Ok(()) if moved => {}
            Ok(()) => {
                unlinkat(CWD, path, AtFlags::empty()).map_err(|err| StoreError::io("remove", path)(err.into()))?
            }
            // A bind mount of the same file system.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
                let mut file = File::open(path).map_err(StoreError::io("read", path))?;
                return self.put_reader(&mut file);
            }
            Err(err) => return Err(err),
        }
        Ok((digest, size))
    }
}

impl Store {
    /// Copies an open file in from its start: a large one by sharing its blocks where the file system can.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or written; nothing is kept.
    pub fn copy_file(&self, file: &mut File) -> Result<(BlobDigest, u64), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let fail = || StoreError::io("read", Path::new("file"));
        let stat = file.metadata().map_err(fail())?;
        if stat.size() > INLINE_LIMIT && stat.dev() == inner.device {
            let temp = inner.temp_file()?;
            // Most file systems cannot, and say so in different ways.
            if rustix::fs::ioctl_ficlone(temp.file(), &*file).is_ok() {
                let (digest, size) = hash_reader(temp.file()).map_err(StoreError::io("read", temp.path()))?;
                make_canonical(temp.file()).map_err(StoreError::io("protect", temp.path()))?;
                inner.put_large(digest, size, || {
                    if inner.move_blob(CWD, temp.path(), &digest, size)? == Moved::In {
                        temp.keep();
                    }
                    Ok(())
                })?;
                return Ok((digest, size));
            }
        }
        file.rewind().map_err(fail())?;
        self.put_reader(file)
    }
}

/// Opens a file that may be unreadable to its owner.
fn open_for_adoption(path: &Path) -> Result<File, StoreError> {
    let open = || {
        openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        )
    };
    let fd = match open() {
        Err(Errno::ACCESS) => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400))
                .map_err(StoreError::io("make readable", path))?;
            open()
        }
        other => other,
    };
    fd.map(File::from)
        .map_err(|err| StoreError::io("open", path)(err.into()))
}

/// Makes a file what every large blob is: the store's own, read-only, without attributes.
pub(super) fn make_canonical(file: &File) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let stat = rustix::fs::fstat(file)?;
    if (stat.st_uid, stat.st_gid) != (uid.as_raw(), gid.as_raw()) {
        rustix::fs::fchown(
            file,
            Some(Uid::from_raw(uid.as_raw())),
            Some(Gid::from_raw(gid.as_raw())),
        )?;
    }
    let names = attributes(file)?;
    if !names.is_empty() {
        // Only who may write a file may take attributes away; root may anyway.
        rustix::fs::fchmod(file, Mode::from_raw_mode(0o600))?;
        remove_attributes(file, &names)?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(0o444))?;
    Ok(())
}

/// Names of extended attributes, each ended by a zero byte.
fn attributes(file: &File) -> io::Result<Vec<u8>> {
    let mut names = vec![0_u8; 1 << 10];
    loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names);
            }
            Err(Errno::RANGE) if names.len() < 1 << 20 => names = vec![0; names.len() * 4],
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(err) => return Err(err.into()),
        }
    }
}

fn remove_attributes(file: &File, names: &[u8]) -> io::Result<()> {
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::fremovexattr(file, name) {
            // Some are the kernel's own (security modules) or another namespace's; nobody reads them from a blob.
            Ok(()) | Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

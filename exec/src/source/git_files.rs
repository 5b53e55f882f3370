//! The files of a checkout.

use std::path::Path;

use super::SourceError;

/// Gives everything below a checkout one modification time, seconds since 1970. Links are not followed.
///
/// # Errors
/// [`SourceError::Io`] naming the file.
pub(super) fn set_times(dir: &Path, seconds: i64) -> Result<(), SourceError> {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).map_err(SourceError::io("list", &dir))? {
            let path = entry.map_err(SourceError::io("list", &dir))?.path();
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags)
                .map_err(|err| SourceError::io("set the time of", &path)(err.into()))?;
            if path
                .symlink_metadata()
                .map_err(SourceError::io("look at", &path))?
                .is_dir()
            {
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// Removes what git keeps in a checkout and in its submodules. No repository can hold a file of that name itself.
pub(super) fn remove_git_dirs(checkout: &Path) -> Result<(), SourceError> {
    let mut pending = vec![checkout.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).map_err(SourceError::io("list", &dir))? {
            let entry = entry.map_err(SourceError::io("list", &dir))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(SourceError::io("look at", &path))?;
            match (entry.file_name() == ".git", kind.is_dir()) {
                (true, true) => std::fs::remove_dir_all(&path).map_err(SourceError::io("remove", &path))?,
                (true, false) => std::fs::remove_file(&path).map_err(SourceError::io("remove", &path))?,
                (false, true) => pending.push(path),
                (false, false) => {}
            }
        }
    }
    Ok(())
}

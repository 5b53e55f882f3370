//! Where an archive goes: a stream of the caller's, or a file that appears whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::ImageError;

/// Buffered before a write.
const BUFFER: usize = 256 << 10;

/// Where bytes go.
pub enum Destination<'a> {
    /// To the caller, such as standard output.
    Stream(&'a mut dyn Write),
    /// To a file, which replaces what was there when it is complete.
    File(&'a Path),
}

impl std::fmt::Debug for Destination<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// An open destination.
pub(super) enum Output<'a> {
    Stream(&'a mut dyn Write),
    File(BufWriter<&'a File>),
}

impl Output<'_> {
    /// Copies `size` bytes of a file; the kernel does it when both ends are files, and shares them where it can.
    pub(super) fn copy_file(&mut self, source: File, size: u64) -> io::Result<()> {
        let mut source = source.take(size);
        let copied = match self {
            Self::Stream(stream) => io::copy(&mut source, stream)?,
            Self::File(file) => {
                file.flush()?;
                io::copy(&mut source, file.get_mut())?
            }
        };
        if copied == size {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a stored blob is too short",
        ))
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

/// Runs `write` into the destination. A failure leaves a file as it was.
///
/// # Errors
/// What `write` says, and [`ImageError::Io`] when the file cannot be made or moved into place.
pub(super) fn write_to(
    destination: Destination<'_>,
    write: impl FnOnce(&mut Output<'_>) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let finish = |mut output: Output<'_>| -> Result<(), ImageError> {
        write(&mut output)?;
        output.flush().map_err(ImageError::stream("write the output"))
    };
    match destination {
        Destination::Stream(stream) => finish(Output::Stream(stream)),
        Destination::File(path) => {
            // A pipe or a device is written to, not replaced.
            if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                let file = File::options()
                    .write(true)
                    .open(path)
                    .map_err(ImageError::io("open", path))?;
                return finish(Output::File(BufWriter::with_capacity(BUFFER, &file)));
            }
            let temp = TempFile::beside(path)?;
            finish(Output::File(BufWriter::with_capacity(BUFFER, &temp.file))).map_err(|err| match err {
                // Which disk is full is the first thing to know.
                ImageError::Stream { source, .. } if is_of_disk(&source) => ImageError::io("write", path)(source),
                other => other,
            })?;
            temp.replace(path)
        }
    }
}

fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem
    )
}

/// A file beside its final place; removed when dropped before.
///
/// It is locked for as long as its maker lives. Whoever writes to the same place removes those of makers that were
/// killed, so that they do not pile up.
struct TempFile {
    file: File,
    path: PathBuf,
    is_moved: bool,
}

/// So many may write to one place at once.
const SLOTS: u32 = 16;
/// How temporary names end.
const SUFFIX: &str = ".cbs-tmp";

impl TempFile {
    fn beside(target: &Path) -> Result<Self, ImageError> {
        let name = target.file_name().unwrap_or_default();
        let mut made = None;
        for slot in 0..SLOTS {
            let mut temp_name = std::ffi::OsString::from(".");
            temp_name.push(name);
            temp_name.push(format!(".{slot}{SUFFIX}"));
            let path = target.with_file_name(temp_name);
            remove_dead(&path);
            if made.is_none() {
                made = Self::create(path).map_err(ImageError::io("create", target))?;
            }
        }
        let full = || io::Error::from(io::ErrorKind::AlreadyExists);
        made.ok_or_else(|| ImageError::io("create a temporary file beside", target)(full()))
    }

    /// `None` when somebody else has it.
    fn create(path: PathBuf) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(err) => return Err(err),
        };
        // Between the two calls somebody may have taken it for a dead one.
        let is_ours = file.try_lock().is_ok() && std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) > 0;
        let is_moved = false;
        Ok(is_ours.then_some(Self { file, path, is_moved }))
    }

    fn replace(mut self, target: &Path) -> Result<(), ImageError> {
        // Trading places with an old file is as atomic as a rename over it, and ext4 does not write all the new bytes to
        // disk before it returns. What is removed afterwards is the old file.
        let is_old_file = std::fs::symlink_metadata(target).is_ok_and(|found| found.is_file());
        if is_old_file && renameat_with(CWD, &self.path, CWD, target, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
        std::fs::rename(&self.path, target).map_err(ImageError::io("write", target))?;
        self.is_moved = true;
        Ok(())
    }
}

/// Removes the temporary files of killed makers in a folder where what they were for may never be written again.
pub(super) fn remove_dead_in(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") && name.as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
            remove_dead(&entry.path());
        }
    }
}

/// Removes the temporary file of a maker that was killed. Whatever else is there is left alone.
fn remove_dead(path: &Path) {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path);
    if let Ok(file) = opened
        && file.try_lock().is_ok()
    {
        // One that does not want to go is in nobody's way: there are other names.
        drop(std::fs::remove_file(path));
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.is_moved {
            // Nothing more can be done for a file that does not want to go.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_and_what_a_living_one_writes_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join("out.tar");
        let living = TempFile::beside(&target).expect("make");
        let mut dead = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(folder.path().join(".out.tar.1.cbs-tmp"))
            .expect("make");
        dead.write_all(b"half").expect("write");
        drop(dead);
        write_to(Destination::File(&target), |output| {
            output.write_all(b"whole").map_err(ImageError::stream("write"))
        })
        .expect("write");
        assert_eq!(std::fs::read(&target).expect("read"), b"whole");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).expect("list");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), [".out.tar.0.cbs-tmp", "out.tar"]);
        drop(living);
        assert_eq!(names(), ["out.tar"]);
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join("out.tar");
        std::fs::write(&target, "old").expect("write");
        let full = || ImageError::stream("write")(io::ErrorKind::StorageFull.into());
        let err = write_to(Destination::File(&target), |_| Err(full())).expect_err("it fails");
        assert!(err.to_string().contains("out.tar"), "{err}");
        assert_eq!(std::fs::read(&target).expect("read"), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}

//! Where an archive goes: a stream of the caller's, or a file that appears whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

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
            finish(Output::File(BufWriter::with_capacity(BUFFER, &temp.file)))?;
            temp.replace(path)
        }
    }
}

/// A file beside its final place; removed when dropped before.
struct TempFile {
    file: File,
    path: PathBuf,
    is_moved: bool,
}

impl TempFile {
    fn beside(target: &Path) -> Result<Self, ImageError> {
        let name = target.file_name().unwrap_or_default();
        for attempt in 0..1000_u32 {
            let mut temp_name = std::ffi::OsString::from(".");
            temp_name.push(name);
            temp_name.push(format!(".{}-{attempt}.tmp", std::process::id()));
            let path = target.with_file_name(temp_name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        path,
                        is_moved: false,
                    });
                }
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(ImageError::io("create", target)(err)),
            }
        }
        let full = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(ImageError::io("create a temporary file beside", target)(full))
    }

    fn replace(mut self, target: &Path) -> Result<(), ImageError> {
        std::fs::rename(&self.path, target).map_err(ImageError::io("write", target))?;
        self.is_moved = true;
        Ok(())
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

//! The files and the chance that a bake needs from outside.

use std::collections::BTreeMap;
use std::io;

/// What a path is, symbolic links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file of this size.
    File(u64),
    /// A folder.
    Directory,
    /// A unix socket.
    Socket,
    /// Something else, such as a device.
    Other,
}

/// The machine a bake runs on, as far as the definition is concerned. All paths are absolute.
pub trait Host: Sync {
    /// The whole content of a file.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::NotFound`] when there is no such file, another one when it cannot be read.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// All of stdin. It is asked for at most once.
    ///
    /// # Errors
    /// When stdin cannot be read.
    fn read_stdin(&self) -> io::Result<Vec<u8>>;

    /// What is at a path.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::NotFound`] when nothing is there, another one when it cannot be seen.
    fn kind(&self, path: &str) -> io::Result<FileKind>;

    /// What a symbolic link says; `None` for everything else that is there.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::NotFound`] when nothing is there, another one when it cannot be seen.
    fn link_target(&self, path: &str) -> io::Result<Option<String>>;

    /// Fills a buffer with bytes nobody can guess.
    fn random(&self, buffer: &mut [u8]);
}

/// The real machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalHost;

impl Host for LocalHost {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn read_stdin(&self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut content)?;
        Ok(content)
    }

    fn kind(&self, path: &str) -> io::Result<FileKind> {
        use std::os::unix::fs::FileTypeExt as _;
        let metadata = std::fs::metadata(path)?;
        let file_type = metadata.file_type();
        Ok(if file_type.is_file() {
            FileKind::File(metadata.len())
        } else if file_type.is_dir() {
            FileKind::Directory
        } else if file_type.is_socket() {
            FileKind::Socket
        } else {
            FileKind::Other
        })
    }

    fn link_target(&self, path: &str) -> io::Result<Option<String>> {
        if !std::fs::symlink_metadata(path)?.is_symlink() {
            return Ok(None);
        }
        let target = std::fs::read_link(path)?.into_os_string().into_string();
        target
            .map(Some)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn random(&self, buffer: &mut [u8]) {
        let mut source = std::fs::File::open("/dev/urandom");
        let filled = source
            .as_mut()
            .is_ok_and(|source| io::Read::read_exact(source, buffer).is_ok());
        if !filled {
            // Without the device, the hasher of the standard library is seeded by the system all the same.
            use std::hash::{BuildHasher as _, RandomState};
            for chunk in buffer.chunks_mut(8) {
                let bytes = RandomState::new().hash_one(chunk.len()).to_le_bytes();
                chunk.copy_from_slice(&bytes[..chunk.len()]);
            }
        }
    }
}

/// The real machine, but for what stands on stdin.
#[derive(Clone, Debug, Default)]
pub struct GivenInput(pub Vec<u8>);

impl Host for GivenInput {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        LocalHost.read(path)
    }

    fn read_stdin(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }

    fn kind(&self, path: &str) -> io::Result<FileKind> {
        LocalHost.kind(path)
    }

    fn link_target(&self, path: &str) -> io::Result<Option<String>> {
        LocalHost.link_target(path)
    }

    fn random(&self, buffer: &mut [u8]) {
        LocalHost.random(buffer);
    }
}

/// A machine made of a few files, for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryHost {
    /// Content by absolute path; the folders above exist too.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What stdin holds.
    pub stdin: Vec<u8>,
}

impl MemoryHost {
    /// Adds a file.
    #[must_use]
    pub fn with(mut self, path: &str, content: &str) -> MemoryHost {
        self.files.insert(String::from(path), content.as_bytes().to_vec());
        self
    }
}

impl Host for MemoryHost {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn read_stdin(&self) -> io::Result<Vec<u8>> {
        Ok(self.stdin.clone())
    }

    fn kind(&self, path: &str) -> io::Result<FileKind> {
        if let Some(content) = self.files.get(path) {
            return Ok(FileKind::File(content.len() as u64));
        }
        let folder = if path.ends_with('/') {
            String::from(path)
        } else {
            format!("{path}/")
        };
        if self.files.keys().any(|name| name.starts_with(&folder)) {
            return Ok(FileKind::Directory);
        }
        Err(io::Error::from(io::ErrorKind::NotFound))
    }

    fn link_target(&self, path: &str) -> io::Result<Option<String>> {
        self.kind(path).map(|_| None)
    }

    fn random(&self, buffer: &mut [u8]) {
        for (byte, value) in buffer.iter_mut().zip((0..=255).cycle()) {
            *byte = value;
        }
    }
}

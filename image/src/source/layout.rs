//! OCI layouts to read from: a folder, or a tar of one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cbs_store::Sha256Digest;

use crate::error::ImageError;
use crate::export::{IMAGE_NAME, REF_NAME};
use crate::manifest::{Descriptor, Index, METADATA_MAX};
use crate::reference::Reference;

/// A layout; opening it reads its `index.json`.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    kind: Kind,
    index: Index,
}

#[derive(Debug)]
enum Kind {
    Folder,
    /// Where the members are in the file.
    Tar(Arc<File>, HashMap<String, (u64, u64)>),
}

impl Layout {
    /// Opens a folder or an uncompressed tar.
    ///
    /// # Errors
    /// [`ImageError::NotInLayout`] when it has no `index.json`, [`ImageError::Io`] when it cannot be read.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let found = std::fs::metadata(path).map_err(ImageError::io("open", path))?;
        let kind = if found.is_dir() {
            Kind::Folder
        } else {
            let file = File::open(path).map_err(ImageError::io("open", path))?;
            let members = members(&file).map_err(ImageError::io("read", path))?;
            Kind::Tar(Arc::new(file), members)
        };
        let mut layout = Self {
            path: path.to_owned(),
            kind,
            index: Index::new(crate::manifest::MediaTypes::Oci, Vec::new(), Default::default()),
        };
        let bytes = layout.read_all("index.json")?;
        layout.index = serde_json::from_slice(&bytes).map_err(|source| ImageError::BadDocument {
            what: "index.json",
            source,
        })?;
        Ok(layout)
    }

    /// The image of a name or a tag; without one the only image there is, else `latest`.
    ///
    /// # Errors
    /// [`ImageError::NotInLayout`].
    pub fn find(&self, name: Option<&str>) -> Result<&Descriptor, ImageError> {
        let by = |key: &str, wanted: &str| {
            self.index
                .manifests
                .iter()
                .find(|entry| entry.annotations.get(key).is_some_and(|found| found == wanted))
        };
        let find = |wanted: &str| {
            let normal = wanted
                .parse::<Reference>()
                .map(|name| name.with_default_tag().to_string());
            by(IMAGE_NAME, wanted)
                .or_else(|| by(IMAGE_NAME, normal.as_deref().unwrap_or(wanted)))
                .or_else(|| by(REF_NAME, wanted))
        };
        let found = match (name, self.index.manifests.as_slice()) {
            (Some(name), _) => find(name),
            (None, [only]) => Some(only),
            (None, _) => by(REF_NAME, "latest"),
        };
        found.ok_or_else(|| {
            let named = |entry: &Descriptor| {
                let name = entry.annotations.get(REF_NAME).or(entry.annotations.get(IMAGE_NAME));
                name.map(|name| format!("`{name}`"))
            };
            let names: Vec<String> = self.index.manifests.iter().filter_map(named).collect();
            let known = if names.is_empty() {
                "none that has a name".to_owned()
            } else {
                names.join(", ")
            };
            self.lacks(format!("image named `{}`; it has {known}", name.unwrap_or("latest")))
        })
    }

    /// A manifest, index or config, checked against its digest.
    ///
    /// # Errors
    /// [`ImageError::NotInLayout`], [`ImageError::DigestMismatch`], [`ImageError::TooLarge`], [`ImageError::Io`].
    pub(crate) fn document(&self, digest: &Sha256Digest) -> Result<Vec<u8>, ImageError> {
        let bytes = self.read_all(&blob_path(digest))?;
        let actual = Sha256Digest::of(&bytes);
        if actual != *digest {
            return Err(ImageError::DigestMismatch {
                what: "blob",
                expected: *digest,
                actual,
            });
        }
        Ok(bytes)
    }

    /// A blob's bytes; the caller checks them.
    ///
    /// # Errors
    /// [`ImageError::NotInLayout`], [`ImageError::Io`].
    pub(crate) fn blob(&self, digest: &Sha256Digest) -> Result<Box<dyn Read + Send>, ImageError> {
        self.member(&blob_path(digest))
    }

    fn read_all(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.member(name)?
            .take(METADATA_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(ImageError::io("read", &self.path.join(name)))?;
        if bytes.len() as u64 > METADATA_MAX {
            return Err(ImageError::TooLarge {
                what: name.to_owned(),
                limit: METADATA_MAX,
            });
        }
        Ok(bytes)
    }

    fn member(&self, name: &str) -> Result<Box<dyn Read + Send>, ImageError> {
        match &self.kind {
            Kind::Folder => {
                let path = self.path.join(name);
                match File::open(&path) {
                    Ok(file) => Ok(Box::new(file)),
                    Err(err) if err.kind() == io::ErrorKind::NotFound => Err(self.lacks(name.to_owned())),
                    Err(err) => Err(ImageError::io("open", &path)(err)),
                }
            }
            Kind::Tar(file, members) => {
                let &(offset, size) = members.get(name).ok_or_else(|| self.lacks(name.to_owned()))?;
                Ok(Box::new(Window {
                    file: Arc::clone(file),
                    offset,
                    end: offset.saturating_add(size),
                }))
            }
        }
    }

    fn lacks(&self, what: String) -> ImageError {
        ImageError::NotInLayout {
            path: self.path.clone(),
            what,
        }
    }
}

/// A part of a file, read on its own.
struct Window {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The regular members of a tar by name, with offset and size. A later one of a name wins, as in any tar.
fn members(file: &File) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut members = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let path = entry.path_bytes();
            let name = String::from_utf8_lossy(&path);
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            members.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(members)
}

fn blob_path(digest: &Sha256Digest) -> String {
    format!("blobs/sha256/{digest}")
}

//! OCI and Docker archives, member by member as BuildKit writes them.
//!
//! ```text
//! blobs/  blobs/sha256/  blobs/sha256/<hex>…  index.json  [manifest.json]  oci-layout
//! ```
//! Members are sorted by name; owners and times are zero.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cbs_store::{Sha256Digest, Store};
use serde::Serialize;

use super::{AssembledBlob, AssembledImage, Content};
use crate::error::ImageError;
use crate::hash::HashReader;
use crate::manifest::{Annotations, Descriptor, Index, MediaTypes, to_json};
use crate::reference::Reference;

/// containerd's annotation for the full name of an image in a layout.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// OCI's annotation for its tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The content of `oci-layout`.
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI layout as a tar.
    Oci,
    /// The same with the `manifest.json` that `docker load` reads. One platform only.
    Docker,
}

/// One member of an archive.
pub(super) enum Member<'a> {
    Folder,
    Bytes(Vec<u8>, u32),
    Blob(&'a AssembledBlob),
}

/// Writes an archive of an image.
///
/// # Errors
/// [`ImageError::Options`] for a Docker archive of an index, [`ImageError::BlobGone`] when a layer's bytes are not in the
/// store ([`AssembledImage::missing_layers`]), and what reading and writing say.
pub fn write_archive(
    store: &Store,
    image: &AssembledImage,
    kind: ArchiveKind,
    out: &mut dyn Write,
) -> Result<(), ImageError> {
    let mut members = BTreeMap::new();
    members.insert("blobs/".to_owned(), Member::Folder);
    members.insert("blobs/sha256/".to_owned(), Member::Folder);
    for blob in image.blobs() {
        members.insert(blob_path(&blob.digest), Member::Blob(blob));
    }
    for (digest, bytes) in documents(image)? {
        members.insert(blob_path(&digest), Member::Bytes(bytes.to_vec(), 0o444));
    }
    members.insert("index.json".to_owned(), Member::Bytes(layout_index(image)?, 0o644));
    members.insert("oci-layout".to_owned(), Member::Bytes(LAYOUT.to_vec(), 0o444));
    if kind == ArchiveKind::Docker {
        members.insert(
            "manifest.json".to_owned(),
            Member::Bytes(docker_manifest(image)?, 0o644),
        );
    }
    let mut tar = tar::Builder::new(out);
    let shape = || ImageError::stream("write the archive");
    for (name, member) in &members {
        write_member(store, &mut tar, name, member)?;
    }
    tar.into_inner().map_err(shape())?;
    Ok(())
}

fn write_member(
    store: &Store,
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    member: &Member<'_>,
) -> Result<(), ImageError> {
    let shape = || ImageError::stream("write the archive");
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(shape())?;
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut append = |kind: tar::EntryType, mode: u32, size: u64, source: &mut dyn Read| {
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_cksum();
        tar.append(&header, source).map_err(shape())
    };
    match member {
        Member::Folder => append(tar::EntryType::Directory, 0o755, 0, &mut io::empty()),
        Member::Bytes(bytes, mode) => append(
            tar::EntryType::Regular,
            *mode,
            bytes.len() as u64,
            &mut bytes.as_slice(),
        ),
        Member::Blob(blob) => {
            let mut source = HashReader::new(open(store, blob)?);
            append(tar::EntryType::Regular, 0o444, blob.size, &mut source)?;
            verify(blob, source)
        }
    }
}

/// The bytes of a blob.
pub(super) fn open<'a>(store: &Store, blob: &'a AssembledBlob) -> Result<Box<dyn Read + 'a>, ImageError> {
    match &blob.content {
        Content::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
        Content::Stored(stored) => match store.open_oci_blob(&stored.digest)? {
            // Limited, so that a file that is too long cannot break the archive; the digest tells.
            Some(file) => Ok(Box::new(file.take(blob.size))),
            None => Err(ImageError::BlobGone {
                what: "layer",
                digest: stored.digest,
            }),
        },
    }
}

/// Checks what was read of a blob.
pub(super) fn verify<R: Read>(blob: &AssembledBlob, source: HashReader<R>) -> Result<(), ImageError> {
    let (actual, _) = source.finish().map_err(ImageError::stream("read layer"))?;
    if actual == blob.digest {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        what: "stored layer",
        expected: blob.digest,
        actual,
    })
}

/// Manifests and index by digest.
pub(super) fn documents(image: &AssembledImage) -> Result<Vec<(Sha256Digest, &[u8])>, ImageError> {
    let mut list = Vec::new();
    for manifest in &image.manifests {
        list.push((manifest.descriptor.sha256()?, manifest.bytes.as_slice()));
    }
    if let Some(index) = &image.index {
        list.push((image.descriptor.sha256()?, index.as_slice()));
    }
    Ok(list)
}

pub(super) fn blob_path(digest: &Sha256Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// The descriptors of `index.json`: one for each name, or one without a name.
pub(super) fn named_descriptors(image: &AssembledImage) -> Vec<Descriptor> {
    if image.names.is_empty() {
        return vec![image.descriptor.clone()];
    }
    image
        .names
        .iter()
        .map(|name| {
            let mut descriptor = image.descriptor.clone();
            descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
            descriptor.annotations.insert(REF_NAME.to_owned(), ref_name(name));
            descriptor
        })
        .collect()
}

/// OCI wants the tag alone; a name with a digest stands whole.
fn ref_name(name: &Reference) -> String {
    match (name.tag(), name.digest()) {
        (Some(tag), None) => tag.to_owned(),
        _ => name.to_string(),
    }
}

fn layout_index(image: &AssembledImage) -> Result<Vec<u8>, ImageError> {
    to_json(&Index::new(
        MediaTypes::Oci,
        named_descriptors(image),
        Annotations::new(),
    ))
}

fn docker_manifest(image: &AssembledImage) -> Result<Vec<u8>, ImageError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        // Go writes an absent list as null.
        repo_tags: Option<Vec<String>>,
        layers: Vec<String>,
    }
    let [only] = image.manifests.as_slice() else {
        return Err(ImageError::Options(
            "a docker archive holds one platform; use the oci exporter for several".to_owned(),
        ));
    };
    if image.index.is_some() {
        return Err(ImageError::Options(
            "a docker archive holds no index; use the oci exporter for one".to_owned(),
        ));
    }
    let path = |descriptor: &Descriptor| descriptor.sha256().map(|digest| blob_path(&digest));
    let tags: Vec<_> = image.names.iter().map(Reference::familiar).collect();
    to_json(&[Entry {
        config: path(&only.manifest.config)?,
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: only.manifest.layers.iter().map(path).collect::<Result<_, _>>()?,
    }])
}

//! OCI and Docker archives, member by member as BuildKit writes them.
//!
//! ```text
//! blobs/  blobs/sha256/  blobs/sha256/<hex>…  index.json  [manifest.json]  oci-layout
//! ```
//! Members are sorted by name; owners and times are zero.

use std::collections::BTreeMap;
use std::io::Write as _;

use cbs_store::{Sha256Digest, Store};
use serde::Serialize;

use super::destination::{Destination, Output, write_to};
use super::{AssembledBlob, AssembledImage, Content};
use crate::error::ImageError;
use crate::manifest::{Annotations, Descriptor, Index, MediaTypes, to_json};
use crate::reference::Reference;

/// containerd's annotation for the full name of an image in a layout.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// OCI's annotation for its tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The content of `oci-layout`.
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// What failed, for messages.
const WRITE: &str = "write the archive";

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
    destination: Destination<'_>,
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
    write_to(destination, |out| {
        for (name, member) in &members {
            write_member(store, out, name, member)?;
        }
        // Two empty blocks end a tar.
        out.write_all(&[0; 1024]).map_err(ImageError::stream(WRITE))
    })
}

fn write_member(store: &Store, out: &mut Output<'_>, name: &str, member: &Member<'_>) -> Result<(), ImageError> {
    let (kind, mode, size) = match member {
        Member::Folder => (tar::EntryType::Directory, 0o755, 0),
        Member::Bytes(bytes, mode) => (tar::EntryType::Regular, *mode, bytes.len() as u64),
        Member::Blob(blob) => (tar::EntryType::Regular, 0o444, blob.size),
    };
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(ImageError::stream(WRITE))?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    out.write_all(header.as_bytes()).map_err(ImageError::stream(WRITE))?;
    match member {
        Member::Folder => {}
        Member::Bytes(bytes, _) => out.write_all(bytes).map_err(ImageError::stream(WRITE))?,
        Member::Blob(blob) => copy_blob(store, blob, out)?,
    }
    let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or_default();
    out.write_all(&[0; 512][..padding]).map_err(ImageError::stream(WRITE))
}

/// Writes the bytes of a blob. They were checked when they came into the store, under the name of their digest.
pub(super) fn copy_blob(store: &Store, blob: &AssembledBlob, out: &mut Output<'_>) -> Result<(), ImageError> {
    match &blob.content {
        Content::Bytes(bytes) => out.write_all(bytes).map_err(ImageError::stream(WRITE)),
        Content::Stored(stored) => match store.open_oci_blob(&stored.digest)? {
            Some(file) => out.copy_file(file, blob.size).map_err(ImageError::stream(WRITE)),
            None => Err(ImageError::BlobGone {
                what: "layer",
                digest: stored.digest,
            }),
        },
    }
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

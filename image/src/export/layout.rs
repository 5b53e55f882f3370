//! An OCI layout as a folder (`type=oci,tar=false`). Images of other names stay in it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use cbs_store::Store;

use super::archive::{IMAGE_NAME, LAYOUT, REF_NAME, blob_path, copy_blob, documents, named_descriptors};
use super::destination::{Destination, remove_dead_in, write_to};
use super::{AssembledBlob, AssembledImage};
use crate::error::ImageError;
use crate::manifest::{Annotations, Descriptor, Index, MediaTypes, to_json};

/// Adds an image to a layout, which is made when it is not there. An image of the same name is replaced; without a name
/// the image is `latest`. `index.json` is written last, so that a broken export leaves the layout as it was.
///
/// # Errors
/// [`ImageError::BlobGone`] when a layer's bytes are not in the store, [`ImageError::BadDocument`] when there is an
/// `index.json` that is none, [`ImageError::Io`] when the folder cannot be written.
pub fn write_layout(store: &Store, image: &AssembledImage, folder: &Path) -> Result<(), ImageError> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(ImageError::io("create", &blobs))?;
    remove_dead_in(&blobs);
    for blob in image.blobs() {
        write_blob(store, blob, folder)?;
    }
    for (digest, bytes) in documents(image)? {
        write_bytes(&folder.join(blob_path(&digest)), bytes)?;
    }
    write_bytes(&folder.join("oci-layout"), LAYOUT)?;
    // Two exports into one layout at once must not lose each other's names.
    let lock = File::open(&blobs).map_err(ImageError::io("open", &blobs))?;
    lock.lock().map_err(ImageError::io("lock", &blobs))?;
    let index_path = folder.join("index.json");
    let mut index = match std::fs::read(&index_path) {
        Ok(bytes) if !bytes.is_empty() => serde_json::from_slice(&bytes).map_err(|source| ImageError::BadDocument {
            what: "index.json",
            source,
        })?,
        Ok(_) => Index::new(MediaTypes::Oci, Vec::new(), Annotations::new()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            Index::new(MediaTypes::Oci, Vec::new(), Annotations::new())
        }
        Err(err) => return Err(ImageError::io("read", &index_path)(err)),
    };
    for mut descriptor in named_descriptors(image) {
        if image.names.is_empty() {
            descriptor.annotations.insert(REF_NAME.to_owned(), "latest".to_owned());
        }
        let key = |descriptor: &Descriptor| {
            let get = |name: &str| descriptor.annotations.get(name).cloned();
            (get(IMAGE_NAME), get(REF_NAME))
        };
        let wanted = key(&descriptor);
        index.manifests.retain(|other| key(other) != wanted);
        index.manifests.push(descriptor);
    }
    write_bytes(&index_path, &to_json(&index)?)
}

fn write_blob(store: &Store, blob: &AssembledBlob, folder: &Path) -> Result<(), ImageError> {
    let path = folder.join(blob_path(&blob.digest));
    // Files get there whole and under their digest only: one of the right size is the right one.
    if std::fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == blob.size) {
        return Ok(());
    }
    write_to(Destination::File(&path), |out| copy_blob(store, blob, out))
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    if std::fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    write_to(Destination::File(path), |out| {
        out.write_all(bytes).map_err(ImageError::io("write", path))
    })
}

//! ADD of an archive: whatever reads as a tar, plain or compressed, is unpacked; the rest is a file like any other.

use std::io::{BufRead, BufReader, Read};

use cbs_image::codec::Decoder;
use cbs_solver::StepError;
use cbs_store::edit::{CopyOptions, Edit};
use cbs_store::tar::{Attributes, UnpackOptions, is_archive};
use cbs_store::{BlobDigest, BlobStore, Store, StoreError};

use crate::error::tar_error;

/// Unpacks a blob into the copy's destination; `false` when it is no archive.
pub(super) fn unpack(
    store: &Store,
    edit: &mut Edit<'_>,
    blob: &BlobDigest,
    options: &CopyOptions<'_>,
) -> Result<bool, StepError> {
    // Damaged compressed data is no archive either: then the file is copied as it is.
    let Some(mut probe) = open(store, blob)? else {
        return Ok(false);
    };
    if !is_archive(&mut probe) {
        return Ok(false);
    }
    let Some(mut reader) = open(store, blob)? else {
        return Ok(false);
    };
    let unpack = UnpackOptions {
        owner: options.owner,
        made: options.made,
        attributes: Attributes::Capability,
    };
    cbs_store::tar::unpack(store, edit, options.dest, &mut reader, &unpack).map_err(tar_error)?;
    Ok(true)
}

/// Opens a blob through whatever decompression its first bytes ask for.
fn open(store: &Store, blob: &BlobDigest) -> Result<Option<Box<dyn Read>>, StepError> {
    let found = store.blob(blob)?.ok_or(StoreError::MissingBlob(*blob))?;
    Ok(decompress(Box::new(found.reader())))
}

pub(crate) fn decompress(source: Box<dyn Read>) -> Option<Box<dyn Read>> {
    let mut buffered = BufReader::with_capacity(64 << 10, source);
    let head = buffered.fill_buf().ok()?;
    let head = head[..head.len().min(6)].to_vec();
    if head.starts_with(b"BZh") {
        return Some(Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)));
    }
    if head.starts_with(b"\xfd7zXZ\0") {
        return Some(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(buffered)));
    }
    Decoder::new(buffered)
        .ok()
        .map(|decoder| Box::new(decoder) as Box<dyn Read>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_pass() {
        let mut text = String::new();
        let mut reader = decompress(Box::new(std::io::Cursor::new(b"hello".to_vec()))).expect("a reader");
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }
}

//! What this crate asks of the store's trees: layers from tars and back, and applying them.

use std::io::{Read, Write};

use cbs_store::tar::{self, Attributes, ReadOptions, TarError, Unpacked, Whiteouts, WriteOptions};
use cbs_store::{Store, TreeDigest, diff};

use crate::error::ImageError;

/// Reads a layer's tar into a diff tree. `lower` is what it will be applied to, when that is known.
pub(crate) fn read_layer(
    store: &Store,
    source: &mut dyn Read,
    lower: Option<&TreeDigest>,
) -> Result<Unpacked, TarError> {
    let options = ReadOptions {
        whiteouts: Whiteouts::Oci,
        lower,
        attributes: Attributes::All,
    };
    tar::read(store, source, &options)
}

/// Writes a layer's tar; later times become `clamp`.
pub(crate) fn write_layer(
    store: &Store,
    layer: &TreeDigest,
    out: &mut dyn Write,
    clamp: Option<i64>,
) -> Result<(), ImageError> {
    write(store, layer, out, clamp, Whiteouts::Oci)
}

/// Writes a root's tar.
pub(crate) fn write_root(store: &Store, tree: &TreeDigest, out: &mut dyn Write) -> Result<(), ImageError> {
    write(store, tree, out, None, Whiteouts::Plain)
}

fn write(
    store: &Store,
    tree: &TreeDigest,
    out: &mut dyn Write,
    clamp_mtime: Option<i64>,
    whiteouts: Whiteouts,
) -> Result<(), ImageError> {
    let options = WriteOptions { clamp_mtime, whiteouts };
    match tar::write(store, tree, out, &options) {
        Ok(()) => Ok(()),
        // An error of ours that passed through a writer, such as being cancelled, comes out as itself.
        Err(TarError::Write { path, source }) => match source.downcast::<ImageError>() {
            Ok(own) => Err(own),
            Err(source) => Err(TarError::Write { path, source }.into()),
        },
        Err(err) => Err(err.into()),
    }
}

/// The root that layers make, lowest first.
pub(crate) fn apply(store: &Store, base: Option<&TreeDigest>, layer: &TreeDigest) -> Result<TreeDigest, ImageError> {
    Ok(diff::apply(store, base, layer)?)
}

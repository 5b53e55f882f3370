//! What this crate asks of the store's trees: layers from tars and back, and applying them.

use std::io::{Read, Write};

use cbs_store::tar::{self, Attributes, ReadOptions, TarError, Unpacked, Whiteouts, WriteOptions};
use cbs_store::{Store, TreeDigest, diff};

use crate::error::ImageError;
use crate::layer::LayerOptions;

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

/// Writes a layer's tar with the times that the options ask for.
pub(crate) fn write_layer(
    store: &Store,
    layer: &TreeDigest,
    out: &mut dyn Write,
    options: &LayerOptions,
) -> Result<(), ImageError> {
    let options = WriteOptions {
        clamp_mtime: options.clamp_mtime,
        made_mtime: options.made_mtime,
        whiteouts: Whiteouts::Oci,
    };
    write(store, layer, out, &options)
}

/// Writes a root's tar.
pub(crate) fn write_root(store: &Store, tree: &TreeDigest, out: &mut dyn Write) -> Result<(), ImageError> {
    let options = WriteOptions {
        clamp_mtime: None,
        made_mtime: None,
        whiteouts: Whiteouts::Plain,
    };
    write(store, tree, out, &options)
}

fn write(store: &Store, tree: &TreeDigest, out: &mut dyn Write, options: &WriteOptions) -> Result<(), ImageError> {
    match tar::write(store, tree, out, options) {
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

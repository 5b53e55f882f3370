//! Layers as blobs: compressed once, remembered, and sent back as the very bytes they were pulled as.
//!
//! ```text
//! diff tree ── tar ──► codec (sha256 of both sides) ──► scratch file ──► OCI blob of the store
//! ```

use std::io::{self, BufWriter, Write};

use cbs_store::{Layer, OciBlob, Sha256Digest, Store};

use crate::codec::{Compression, Decoder, Encoder, Pool};
use crate::error::ImageError;
use crate::manifest::{MediaTypes, layer_compression};
use crate::scratch::{Scratch, ScratchFile};
use crate::trees;

/// The variant under which a pulled layer's own blob is remembered.
pub(crate) const PULLED: &str = "pulled";

/// Bumped when the bytes of a codec or of the tar writer change: old stores then compress again.
const fn format(compression: Compression) -> &'static str {
    match compression {
        Compression::None | Compression::Gzip => "2",
        Compression::Zstd => "3",
    }
}

/// Buffered before a write to the scratch file.
const WRITE_BUFFER: usize = 256 << 10;

/// Whether layers that have a blob already are compressed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recompress {
    /// Pulled layers stay as they are.
    Never,
    /// Pulled layers of another compression are converted (`force-compression`). Their diff ids stay.
    WhenDifferent,
}

/// How layers become blobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerOptions {
    /// How they are compressed.
    pub compression: Compression,
    /// The level; `None` for the default.
    pub level: Option<i32>,
    /// What happens to pulled layers.
    pub recompress: Recompress,
    /// Later modification times become this one, in seconds since 1970 (`rewrite-timestamp`). Pulled layers keep theirs.
    pub clamp_mtime: Option<i64>,
    /// What a build made without a time ([`cbs_store::Timestamp::MADE`]) gets this one: the image's own.
    pub made_mtime: Option<i64>,
}

impl Default for LayerOptions {
    /// gzip at its default level, pulled layers as they are, times as they are.
    fn default() -> Self {
        Self {
            compression: Compression::Gzip,
            level: None,
            recompress: Recompress::Never,
            clamp_mtime: None,
            made_mtime: None,
        }
    }
}

impl LayerOptions {
    fn level(&self) -> i32 {
        let level = self.level.unwrap_or(self.compression.default_level());
        self.compression.clamp_level(level)
    }

    /// What the store remembers a blob under: everything its bytes depend on besides the layer.
    fn variant(&self) -> String {
        let mut text = format!("{}:{}-{}", format(self.compression), self.compression, self.level());
        if let Some(seconds) = self.clamp_mtime {
            text.push_str(&format!("@{seconds}"));
        }
        if let Some(seconds) = self.made_mtime {
            text.push_str(&format!("+{seconds}"));
        }
        text
    }
}

/// What making layers needs.
pub(crate) struct LayerContext<'a> {
    pub(crate) store: &'a Store,
    pub(crate) scratch: &'a Scratch,
    pub(crate) pool: &'a Pool,
    /// Asked between pieces of work.
    pub(crate) cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// The blob a layer is exported as. For a pulled layer its bytes may not be here ([`Store::open_oci_blob`] says); for
/// others they are.
///
/// # Errors
/// [`ImageError::BlobGone`] when a pulled layer must be converted and its bytes are not here; else what store and codec
/// say.
pub(crate) fn layer_blob(
    context: &LayerContext<'_>,
    layer: &Layer,
    options: &LayerOptions,
) -> Result<OciBlob, ImageError> {
    if layer.diff_id.is_some()
        && let Some(pulled) = context.store.layer_blob(layer, PULLED)?
    {
        let is_same = layer_compression(&pulled.media_type) == Some(options.compression);
        return if options.recompress == Recompress::Never || is_same {
            Ok(pulled)
        } else {
            convert(context, layer, &pulled, options)
        };
    }
    let variant = options.variant();
    if let Some(blob) = remembered(context.store, layer, &variant)? {
        return Ok(blob);
    }
    let made = encode(context, options, |writer| {
        trees::write_layer(context.store, &layer.diff, writer, options)
    })?;
    // A layer from outside whose blob was forgotten: its tar is rebuilt, and need not be the one it was.
    if let Some(expected) = layer.diff_id
        && expected != made.diff_id
    {
        return Err(ImageError::BlobGone {
            what: "layer",
            digest: expected,
        });
    }
    keep(context, layer, &variant, options, made)
}

fn convert(
    context: &LayerContext<'_>,
    layer: &Layer,
    pulled: &OciBlob,
    options: &LayerOptions,
) -> Result<OciBlob, ImageError> {
    let variant = format!(
        "converted:{}:{}-{}",
        format(options.compression),
        options.compression,
        options.level()
    );
    if let Some(blob) = remembered(context.store, layer, &variant)? {
        return Ok(blob);
    }
    let source = context
        .store
        .open_oci_blob(&pulled.digest)?
        .ok_or(ImageError::BlobGone {
            what: "layer",
            digest: pulled.digest,
        })?;
    let made = encode(context, options, |writer| {
        let mut decoder = Decoder::new(source).map_err(ImageError::stream("decompress layer"))?;
        io::copy(&mut decoder, writer).map_err(ImageError::stream("convert layer"))?;
        Ok(())
    })?;
    if let Some(expected) = layer.diff_id
        && expected != made.diff_id
    {
        return Err(ImageError::DigestMismatch {
            what: "layer",
            expected,
            actual: made.diff_id,
        });
    }
    keep(context, layer, &variant, options, made)
}

/// A blob made before whose bytes are still here.
fn remembered(store: &Store, layer: &Layer, variant: &str) -> Result<Option<OciBlob>, ImageError> {
    let Some(blob) = store.layer_blob(layer, variant)? else {
        return Ok(None);
    };
    Ok(store.open_oci_blob(&blob.digest)?.map(|_| blob))
}

/// A finished blob that is not in the store yet.
struct Made {
    file: ScratchFile,
    diff_id: Sha256Digest,
    digest: Sha256Digest,
    size: u64,
}

/// Runs `write` into codec and scratch file.
fn encode(
    context: &LayerContext<'_>,
    options: &LayerOptions,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<Made, ImageError> {
    let scratch = context.scratch.create()?;
    let (diff_id, digest, size) = {
        let file = BufWriter::with_capacity(WRITE_BUFFER, &scratch.file);
        let mut tar = Cancellable {
            inner: Encoder::new(context.pool, options.compression, options.level(), file),
            cancelled: context.cancelled,
        };
        write(&mut tar)?;
        let encoded = tar.inner.finish().map_err(ImageError::stream("compress layer"))?;
        let file = encoded.inner.into_inner();
        file.map_err(|err| ImageError::io("write", scratch.path())(err.into_error()))?;
        (encoded.input, encoded.digest, encoded.size)
    };
    Ok(Made {
        file: scratch,
        diff_id,
        digest,
        size,
    })
}

fn keep(
    context: &LayerContext<'_>,
    layer: &Layer,
    variant: &str,
    options: &LayerOptions,
    made: Made,
) -> Result<OciBlob, ImageError> {
    made.file.adopt(context.store, &made.digest)?;
    let blob = OciBlob {
        digest: made.digest,
        size: made.size,
        media_type: MediaTypes::Oci.layer(options.compression).to_owned(),
        diff_id: Some(made.diff_id),
    };
    context.store.put_layer_blob(layer, variant, &blob)?;
    Ok(blob)
}

/// Fails when the work is no longer wanted.
struct Cancellable<'a, T> {
    inner: T,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<W: Write> Write for Cancellable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.cancelled)() {
            return Err(ImageError::Cancelled.into());
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

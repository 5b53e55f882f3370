//! One pass over a layer's compressed bytes: checked, spooled and unpacked at once.
//!
//! ```text
//! source ──► [thread: sha256, scratch file] ──► pipe ──► decompress ──► sha256 (diff id) ──► tar ──► diff tree
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use cbs_store::tar::{TarError, Unpacked};
use cbs_store::{Sha256Digest, Store, TreeDigest};
use tokio::sync::mpsc;

use crate::codec::Decoder;
use crate::error::ImageError;
use crate::hash::{HashReader, HashWriter};
use crate::trees;

/// Bytes handed over at once.
const CHUNK: usize = 128 << 10;

/// Chunks under way between the threads.
const DEPTH: usize = 8;

/// A layer that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Its diff tree, the same whatever is below.
    Diff(TreeDigest),
    /// What it means depends on what is below: it has files without their folders, or hard links to files below. The
    /// bytes are the right ones.
    NeedsLower,
}

/// Reads a layer to its end. The diff tree is in the store and the compressed bytes in `spool` only when all digests are
/// the expected ones; otherwise what was stored is left to gc.
///
/// # Errors
/// [`ImageError::DigestMismatch`] when bytes are not the expected ones, else what decompressing, the tar and the store
/// say.
pub(super) fn unpack(
    store: &Store,
    source: &mut (dyn Read + Send),
    spool: &File,
    expected: &Sha256Digest,
    diff_id: &Sha256Digest,
) -> Result<Meaning, ImageError> {
    let (sender, receiver) = sync_channel(DEPTH);
    let (spooled, unpacked) = std::thread::scope(|scope| {
        let spooler = scope.spawn(move || spool_all(source, spool, &sender));
        let unpacked = read_tree(store, Pipe::new(receiver), None);
        let spooled = spooler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (spooled, unpacked)
    });
    // Wrong bytes mostly break the tar as well; that they are wrong is what matters.
    let actual = spooled?;
    if actual != *expected {
        return Err(ImageError::DigestMismatch {
            what: "layer",
            expected: *expected,
            actual,
        });
    }
    let (unpacked, actual) = unpacked?;
    check_diff_id(diff_id, actual)?;
    match unpacked {
        Ok(unpacked) if unpacked.implied.is_empty() => Ok(Meaning::Diff(unpacked.tree)),
        Ok(_) | Err(TarError::BadLink { .. }) => Ok(Meaning::NeedsLower),
        Err(err) => Err(err.into()),
    }
}

/// Reads a layer whose bytes are known to be right, over the root below it.
///
/// # Errors
/// As [`unpack`].
pub(super) fn unpack_over(
    store: &Store,
    source: &mut dyn Read,
    lower: &TreeDigest,
    diff_id: &Sha256Digest,
) -> Result<TreeDigest, ImageError> {
    let (unpacked, actual) = read_tree(store, source, Some(lower))?;
    check_diff_id(diff_id, actual)?;
    Ok(unpacked?.tree)
}

fn check_diff_id(expected: &Sha256Digest, actual: Sha256Digest) -> Result<(), ImageError> {
    if actual == *expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        what: "uncompressed layer",
        expected: *expected,
        actual,
    })
}

/// Copies compressed bytes without unpacking them.
///
/// # Errors
/// [`ImageError::DigestMismatch`], and what reading and writing say.
pub(super) fn copy(source: &mut dyn Read, spool: &File, expected: &Sha256Digest) -> Result<(), ImageError> {
    let mut writer = HashWriter::new(spool);
    io::copy(source, &mut writer).map_err(ImageError::stream("read layer"))?;
    let (_, actual, _) = writer.finish();
    if actual != *expected {
        return Err(ImageError::DigestMismatch {
            what: "layer",
            expected: *expected,
            actual,
        });
    }
    Ok(())
}

fn spool_all(
    source: &mut (dyn Read + Send),
    spool: &File,
    sender: &SyncSender<Vec<u8>>,
) -> Result<Sha256Digest, ImageError> {
    let mut writer = HashWriter::new(spool);
    let mut is_wanted = true;
    loop {
        let mut chunk = vec![0; CHUNK];
        let count = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(ImageError::stream("read layer")(err)),
        };
        chunk.truncate(count);
        writer.write_all(&chunk).map_err(ImageError::stream("keep layer"))?;
        // The reader may stop before the end; the digest is over everything all the same.
        is_wanted = is_wanted && sender.send(chunk).is_ok();
    }
    Ok(writer.finish().1)
}

/// What the tar holds and its digest; the outer error is about the bytes, the inner one about their meaning.
type ReadTree = Result<(Result<Unpacked, TarError>, Sha256Digest), ImageError>;

fn read_tree(store: &Store, compressed: impl Read, lower: Option<&TreeDigest>) -> ReadTree {
    let decoder = Decoder::new(compressed).map_err(ImageError::stream("decompress layer"))?;
    let mut plain = HashReader::new(decoder);
    let unpacked = trees::read_layer(store, &mut plain, lower);
    // Padding behind the end of the archive belongs to the diff id.
    let (diff_id, _) = plain.finish().map_err(ImageError::stream("decompress layer"))?;
    Ok((unpacked, diff_id))
}

/// Reads chunks that another thread sends.
struct Pipe {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
}

impl Pipe {
    fn new(receiver: Receiver<Vec<u8>>) -> Self {
        Self {
            receiver,
            chunk: Vec::new(),
            used: 0,
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.used) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.used);
        buffer[..count].copy_from_slice(&self.chunk[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

/// Reads what an async task sends; the end of the channel is the end.
pub(super) struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    /// Told the number of bytes so far.
    on_read: Box<dyn FnMut(u64) + Send>,
    total: u64,
}

impl ChannelReader {
    pub(super) fn new(receiver: mpsc::Receiver<Bytes>, on_read: Box<dyn FnMut(u64) + Send>) -> Self {
        Self {
            receiver,
            chunk: Bytes::new(),
            on_read,
            total: 0,
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => {
                    self.total += chunk.len() as u64;
                    (self.on_read)(self.total);
                    self.chunk = chunk;
                }
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

//! Compresses one block; what a worker of the [`Pool`](super::Pool) runs.

use std::io;

use flate2::{Compress, Crc, FlushCompress, Status};

use super::Compression;

/// Input bytes of one gzip block. Large enough that the flush between blocks (5 bytes) and the lost lazy match do not
/// show in the ratio, small enough that few blocks per thread keep memory low.
const GZIP_BLOCK: usize = 512 << 10;

/// Input bytes of one zstd frame: twice the window of level 3, where the ratio is within 1 % of one long frame.
const ZSTD_BLOCK: usize = 4 << 20;

/// How far back deflate can refer.
pub(super) const DEFLATE_WINDOW: usize = 32 << 10;

/// How many input bytes a block of this compression has.
pub(super) const fn block_size(compression: Compression) -> usize {
    match compression {
        Compression::Zstd => ZSTD_BLOCK,
        Compression::None | Compression::Gzip => GZIP_BLOCK,
    }
}

/// One block to compress.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) compression: Compression,
    pub(super) level: i32,
    pub(super) input: Vec<u8>,
    /// For gzip: the bytes before the input, at most [`DEFLATE_WINDOW`].
    pub(super) dictionary: Vec<u8>,
    /// For gzip: ends the deflate stream.
    pub(super) is_last: bool,
}

/// A compressed block.
#[derive(Debug)]
pub(super) struct Compressed {
    pub(super) output: Vec<u8>,
    /// For gzip: the checksum of the input.
    pub(super) crc: Crc,
}

/// A worker's zstd compressor, kept because setting one up costs as much as a small block.
#[derive(Default)]
pub(super) struct Workbench {
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
}

impl Workbench {
    /// Compresses a block.
    ///
    /// # Errors
    /// The library's, which for valid settings means no memory.
    pub(super) fn compress(&mut self, block: &Block) -> io::Result<Compressed> {
        let mut crc = Crc::new();
        let output = match block.compression {
            Compression::None => block.input.clone(),
            Compression::Gzip => {
                crc.update(&block.input);
                Self::deflate(block)?
            }
            Compression::Zstd => self.zstd(block)?,
        };
        Ok(Compressed { output, crc })
    }

    fn deflate(block: &Block) -> io::Result<Vec<u8>> {
        // A new one for each block: after a reset, zlib-rs 0.6 can compress the same block otherwise than at first.
        let level = flate2::Compression::new(u32::try_from(block.level).unwrap_or(6).min(9));
        let mut deflate = Compress::new(level, false);
        if !block.dictionary.is_empty() {
            deflate.set_dictionary(&block.dictionary)?;
        }
        let flush = if block.is_last {
            FlushCompress::Finish
        } else {
            FlushCompress::Sync
        };
        // Stored blocks, the worst case, add 5 bytes in 64 KiB.
        let mut output = Vec::with_capacity(block.input.len() + block.input.len() / 1000 + 64);
        loop {
            let consumed = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
            let rest = block.input.get(consumed..).unwrap_or_default();
            let status = deflate.compress_vec(rest, &mut output, flush)?;
            let all_read = deflate.total_in() == block.input.len() as u64;
            // Room left over means that the flush is complete.
            match status {
                Status::StreamEnd => return Ok(output),
                _ if all_read && !block.is_last && output.len() < output.capacity() => return Ok(output),
                _ => output.reserve(64 << 10),
            }
        }
    }

    fn zstd(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let zstd = match &mut self.zstd {
            Some((level, zstd)) if *level == block.level => zstd,
            slot => {
                let mut zstd = zstd::bulk::Compressor::new(block.level)?;
                zstd.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
                &mut slot.insert((block.level, zstd)).1
            }
        };
        zstd.compress(&block.input)
    }
}

//! Compresses one block; what a worker of the [`Pool`](super::Pool) runs.

use std::io;

use super::Compression;

/// Input bytes of one gzip member. libdeflate has no use for more: the ratio grows by less than 0.2 %.
const GZIP_BLOCK: usize = 1 << 20;

/// Input bytes of one zstd frame: twice the window of level 3, where the ratio is within 1 % of one long frame.
const ZSTD_BLOCK: usize = 4 << 20;

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
}

/// Pieces of a block that are tried first.
const SAMPLES: usize = 8;
/// Bytes of one such piece.
const SAMPLE_BYTES: usize = 8 << 10;

/// A worker's compressors, kept because setting one up costs as much as a small block.
#[derive(Default)]
pub(super) struct Workbench {
    gzip: Option<(i32, libdeflater::Compressor)>,
    /// Tries samples.
    fast: Option<libdeflater::Compressor>,
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
}

impl Workbench {
    /// Compresses a block into a stream of its own.
    ///
    /// # Errors
    /// The library's, which for valid settings means no memory.
    pub(super) fn compress(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        match block.compression {
            Compression::None => Ok(block.input.clone()),
            Compression::Gzip => self.gzip(block),
            Compression::Zstd => self.zstd(block),
        }
    }

    fn gzip(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        // What is compressed already (archives, pictures) costs deflate as much as text does and gains nothing.
        let level = if self.is_worth_it(&block.input)? {
            block.level
        } else {
            0
        };
        let gzip = match &mut self.gzip {
            Some((own, gzip)) if *own == level => gzip,
            slot => &mut slot.insert((level, compressor(level)?)).1,
        };
        let mut output = vec![0; gzip.gzip_compress_bound(block.input.len())];
        let length = gzip
            .gzip_compress(&block.input, &mut output)
            .map_err(|err| io::Error::other(format!("gzip: {err:?}")))?;
        output.truncate(length);
        Ok(output)
    }

    /// Whether samples of a block get smaller. Depends on its bytes alone.
    fn is_worth_it(&mut self, input: &[u8]) -> io::Result<bool> {
        if input.len() < 4 * SAMPLES * SAMPLE_BYTES {
            return Ok(true);
        }
        let fast = match &mut self.fast {
            Some(fast) => fast,
            slot => slot.insert(compressor(1)?),
        };
        let samples: Vec<u8> = input
            .chunks(input.len() / SAMPLES)
            .flat_map(|piece| &piece[..piece.len().min(SAMPLE_BYTES)])
            .copied()
            .collect();
        let mut output = vec![0; samples.len() - samples.len() / 64];
        // The output is too small for samples that lose less than a sixty-fourth.
        Ok(fast.deflate_compress(&samples, &mut output).is_ok())
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

fn compressor(level: i32) -> io::Result<libdeflater::Compressor> {
    let level =
        libdeflater::CompressionLvl::new(level).map_err(|_| io::Error::other(format!("gzip has no level {level}")))?;
    Ok(libdeflater::Compressor::new(level))
}

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

/// One block to compress, and then also what became of it. Its memory serves one block after the other, since the kernel
/// takes about as long to give out new memory as a hash takes to go through it.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) compression: Compression,
    pub(super) level: i32,
    pub(super) input: Vec<u8>,
    /// Room for a whole block that does not get smaller.
    output: Vec<u8>,
    /// How much of it was written.
    written: usize,
}

impl Block {
    /// An empty block.
    pub(super) fn new(compression: Compression, level: i32) -> Self {
        Self {
            compression,
            level,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        }
    }

    /// Makes it as good as new, for a stream of the same kind or another.
    pub(super) fn reset(&mut self, compression: Compression, level: i32) {
        self.compression = compression;
        self.level = level;
        self.input.clear();
        self.written = 0;
    }

    /// The compressed bytes.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[..self.written]
    }

    /// Makes room for so many bytes of output. New memory is given out as zeros anyway, so it is written once.
    fn make_room(&mut self, bytes: usize) {
        if self.output.len() < bytes {
            self.output = vec![0; bytes];
        }
    }
}

/// Pieces of a block that are tried first, and bytes of one such piece. A zstd block is larger, and zstd itself goes
/// through what it cannot compress rather fast: more and shorter pieces find more of what it can.
const fn samples(compression: Compression) -> (usize, usize) {
    match compression {
        Compression::Zstd => (32, 4 << 10),
        Compression::None | Compression::Gzip => (8, 8 << 10),
    }
}

/// A level of zstd that does little more than to copy, but for long repetitions.
const ZSTD_COPY: i32 = -100;
/// The level of zstd that tries samples.
const ZSTD_TRY: i32 = 1;

/// A worker's compressors, kept because setting one up costs as much as a small block.
#[derive(Default)]
pub(super) struct Workbench {
    gzip: Option<(i32, libdeflater::Compressor)>,
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
    /// Try samples.
    fast_gzip: Option<libdeflater::Compressor>,
    fast_zstd: Option<zstd::bulk::Compressor<'static>>,
    /// For blocks that are not worth more.
    copy_zstd: Option<zstd::bulk::Compressor<'static>>,
    samples: Vec<u8>,
    tried: Vec<u8>,
}

impl Workbench {
    /// Compresses a block into a stream of its own.
    ///
    /// # Errors
    /// The library's, which for valid settings means no memory.
    pub(super) fn compress(&mut self, block: &mut Block) -> io::Result<()> {
        match block.compression {
            // The encoder has no blocks then.
            Compression::None => Ok(()),
            Compression::Gzip => self.gzip(block),
            Compression::Zstd => self.zstd(block),
        }
    }

    fn gzip(&mut self, block: &mut Block) -> io::Result<()> {
        // What is compressed already (archives, pictures) costs deflate as much as text does and gains nothing.
        let level = if self.is_worth_it(block)? { block.level } else { 0 };
        let gzip = match &mut self.gzip {
            Some((own, gzip)) if *own == level => gzip,
            slot => &mut slot.insert((level, compressor(level)?)).1,
        };
        block.make_room(gzip.gzip_compress_bound(block.input.len()));
        block.written = gzip
            .gzip_compress(&block.input, &mut block.output)
            .map_err(|err| io::Error::other(format!("gzip: {err:?}")))?;
        Ok(())
    }

    /// Whether samples of a block get smaller. Depends on its bytes alone.
    fn is_worth_it(&mut self, block: &Block) -> io::Result<bool> {
        let (count, length) = samples(block.compression);
        let input = &block.input;
        if input.len() < 4 * count * length {
            return Ok(true);
        }
        self.samples.clear();
        for piece in input.chunks(input.len() / count) {
            self.samples.extend_from_slice(&piece[..piece.len().min(length)]);
        }
        // The output is too small for samples that lose less than a sixty-fourth.
        self.tried.resize(self.samples.len() - self.samples.len() / 64, 0);
        if block.compression == Compression::Zstd {
            let fast = match &mut self.fast_zstd {
                Some(fast) => fast,
                slot => slot.insert(zstd_compressor(ZSTD_TRY)?),
            };
            return Ok(fast.compress_to_buffer(&self.samples, &mut self.tried[..]).is_ok());
        }
        let fast = match &mut self.fast_gzip {
            Some(fast) => fast,
            slot => slot.insert(compressor(1)?),
        };
        Ok(fast.deflate_compress(&self.samples, &mut self.tried).is_ok())
    }

    fn zstd(&mut self, block: &mut Block) -> io::Result<()> {
        let zstd = if self.is_worth_it(block)? {
            match &mut self.zstd {
                Some((level, zstd)) if *level == block.level => zstd,
                slot => &mut slot.insert((block.level, zstd_compressor(block.level)?)).1,
            }
        } else {
            match &mut self.copy_zstd {
                Some(zstd) => zstd,
                slot => slot.insert(zstd_compressor(ZSTD_COPY)?),
            }
        };
        block.make_room(zstd::zstd_safe::compress_bound(block.input.len()));
        block.written = zstd.compress_to_buffer(&block.input, &mut block.output[..])?;
        Ok(())
    }
}

fn compressor(level: i32) -> io::Result<libdeflater::Compressor> {
    let level =
        libdeflater::CompressionLvl::new(level).map_err(|_| io::Error::other(format!("gzip has no level {level}")))?;
    Ok(libdeflater::Compressor::new(level))
}

fn zstd_compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(level)?;
    zstd.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
    Ok(zstd)
}

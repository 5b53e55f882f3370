//! A writer that compresses on a [`Pool`].

use std::collections::VecDeque;
use std::io::{self, Write};

use flate2::Crc;

use super::block::{Block, DEFLATE_WINDOW, block_size};
use super::pool::Pending;
use super::{Compression, Pool};

/// gzip's fixed header: deflate, no flags, no time, no extra flags, system unknown. A time or a file name here would
/// make equal layers differ.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it. Call [`Encoder::finish`]; a dropped encoder leaves a truncated stream.
#[derive(Debug)]
pub struct Encoder<'pool, W: Write> {
    pool: &'pool Pool,
    compression: Compression,
    level: i32,
    inner: W,
    buffer: Vec<u8>,
    dictionary: Vec<u8>,
    pending: VecDeque<Pending>,
    crc: Crc,
    blocks: u64,
}

impl<'pool, W: Write> Encoder<'pool, W> {
    /// Starts a stream into `inner`. The level is forced into the format's range.
    ///
    /// # Errors
    /// What writing the header says.
    pub fn new(pool: &'pool Pool, compression: Compression, level: i32, mut inner: W) -> io::Result<Self> {
        if compression == Compression::Gzip {
            inner.write_all(&GZIP_HEADER)?;
        }
        Ok(Self {
            pool,
            compression,
            level: compression.clamp_level(level),
            inner,
            buffer: Vec::new(),
            dictionary: Vec::new(),
            pending: VecDeque::new(),
            crc: Crc::new(),
            blocks: 0,
        })
    }

    /// Ends the stream and gives the inner writer back.
    ///
    /// # Errors
    /// What compressing or writing says.
    pub fn finish(mut self) -> io::Result<W> {
        match self.compression {
            Compression::None => {}
            Compression::Gzip => {
                self.submit(true)?;
                self.drain(0)?;
                self.inner.write_all(&self.crc.sum().to_le_bytes())?;
                self.inner.write_all(&self.crc.amount().to_le_bytes())?;
            }
            Compression::Zstd => {
                // An empty input still needs one frame, or readers take the file for damaged.
                if !self.buffer.is_empty() || self.blocks == 0 {
                    self.submit(true)?;
                }
                self.drain(0)?;
            }
        }
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn submit(&mut self, is_last: bool) -> io::Result<()> {
        let input = std::mem::take(&mut self.buffer);
        let mut next_dictionary = Vec::new();
        if self.compression == Compression::Gzip && !is_last {
            next_dictionary.extend_from_slice(&input[input.len().saturating_sub(DEFLATE_WINDOW)..]);
        }
        let dictionary = std::mem::replace(&mut self.dictionary, next_dictionary);
        self.drain(self.pool.threads() + 1)?;
        self.pending.push_back(self.pool.submit(Block {
            compression: self.compression,
            level: self.level,
            input,
            dictionary,
            is_last,
        })?);
        self.blocks += 1;
        Ok(())
    }

    /// Writes finished blocks until at most `keep` are under way.
    fn drain(&mut self, keep: usize) -> io::Result<()> {
        while self.pending.len() > keep {
            let Some(oldest) = self.pending.pop_front() else { break };
            let block = oldest
                .recv()
                .map_err(|_| io::Error::other("a compression thread failed"))??;
            self.inner.write_all(&block.output)?;
            self.crc.combine(&block.crc);
        }
        Ok(())
    }
}

impl<W: Write> Write for Encoder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.compression == Compression::None {
            return self.inner.write(bytes);
        }
        let size = block_size(self.compression);
        // A full block waits for the next byte, so that the last one can be marked as such.
        if self.buffer.len() == size {
            self.submit(false)?;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(size);
        }
        let count = bytes.len().min(size - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

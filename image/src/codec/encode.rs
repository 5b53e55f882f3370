//! A writer that compresses on a [`Pool`].

use std::collections::VecDeque;
use std::io::{self, Write};

use super::block::{Block, block_size};
use super::pool::Pending;
use super::{Compression, Pool};

/// Compresses what is written to it. Call [`Encoder::finish`]; a dropped encoder leaves a truncated stream.
#[derive(Debug)]
pub struct Encoder<'pool, W: Write> {
    pool: &'pool Pool,
    compression: Compression,
    level: i32,
    inner: W,
    buffer: Vec<u8>,
    pending: VecDeque<Pending>,
    is_empty: bool,
}

impl<'pool, W: Write> Encoder<'pool, W> {
    /// Starts a stream into `inner`. The level is forced into the format's range.
    pub fn new(pool: &'pool Pool, compression: Compression, level: i32, inner: W) -> Self {
        Self {
            pool,
            compression,
            level: compression.clamp_level(level),
            inner,
            buffer: Vec::new(),
            pending: VecDeque::new(),
            is_empty: true,
        }
    }

    /// Ends the stream and gives the inner writer back.
    ///
    /// # Errors
    /// What compressing or writing says.
    pub fn finish(mut self) -> io::Result<W> {
        // An empty input still needs one block, or readers take the file for damaged.
        if self.compression != Compression::None && (self.is_empty || !self.buffer.is_empty()) {
            self.submit()?;
        }
        self.drain(0)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn submit(&mut self) -> io::Result<()> {
        let input = std::mem::take(&mut self.buffer);
        self.drain(self.pool.threads() + 1)?;
        self.pending.push_back(self.pool.submit(Block {
            compression: self.compression,
            level: self.level,
            input,
        })?);
        self.is_empty = false;
        Ok(())
    }

    /// Writes finished blocks until at most `keep` are under way.
    fn drain(&mut self, keep: usize) -> io::Result<()> {
        while self.pending.len() > keep {
            let Some(oldest) = self.pending.pop_front() else { break };
            let block = oldest
                .recv()
                .map_err(|_| io::Error::other("a compression thread failed"))??;
            self.inner.write_all(&block)?;
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
        if self.buffer.capacity() == 0 {
            // A small layer needs no whole block; a large one grows to its first and has the others at once.
            let enough = if self.is_empty {
                bytes.len().clamp(16 << 10, size)
            } else {
                size
            };
            self.buffer.reserve_exact(enough);
        }
        let count = bytes.len().min(size - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == size {
            self.submit()?;
        }
        Ok(count)
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

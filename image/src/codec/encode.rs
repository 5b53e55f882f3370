//! A writer that compresses on a [`Pool`].

use std::collections::VecDeque;
use std::io::{self, Write};

use cbs_store::Sha256Digest;

use super::block::{Block, block_size};
use super::pool::Pending;
use super::{Compression, Pool};
use crate::hash::CountingHasher;

/// Compresses what is written to it, and hashes both sides. Call [`Encoder::finish`]; a dropped encoder leaves a truncated
/// stream.
#[derive(Debug)]
pub struct Encoder<'pool, W: Write> {
    pool: &'pool Pool,
    compression: Compression,
    level: i32,
    inner: W,
    /// What was written to us and is in no block under way.
    block: Block,
    pending: VecDeque<Pending>,
    is_empty: bool,
    input: CountingHasher,
    output: CountingHasher,
}

/// A stream that an [`Encoder`] has finished.
#[derive(Debug)]
pub struct Encoded<W> {
    /// Where the compressed bytes went.
    pub inner: W,
    /// The digest of what was written to the encoder.
    pub input: Sha256Digest,
    /// The digest of the compressed bytes.
    pub digest: Sha256Digest,
    /// How many those are.
    pub size: u64,
}

impl<'pool, W: Write> Encoder<'pool, W> {
    /// Starts a stream into `inner`. The level is forced into the format's range.
    pub fn new(pool: &'pool Pool, compression: Compression, level: i32, inner: W) -> Self {
        let level = compression.clamp_level(level);
        Self {
            pool,
            compression,
            level,
            inner,
            block: Block::new(compression, level),
            pending: VecDeque::new(),
            is_empty: true,
            input: CountingHasher::default(),
            output: CountingHasher::default(),
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// What compressing or writing says.
    pub fn finish(mut self) -> io::Result<Encoded<W>> {
        // An empty input still needs one block, or readers take the file for damaged.
        if self.compression != Compression::None && (self.is_empty || !self.block.input.is_empty()) {
            self.submit()?;
        }
        self.drain(0)?;
        self.inner.flush()?;
        let (input, input_size) = self.input.finish();
        // Nothing changes the bytes of the one, so they are hashed once.
        let (digest, size) = match self.compression {
            Compression::None => (input, input_size),
            _ => self.output.finish(),
        };
        Ok(Encoded {
            inner: self.inner,
            input,
            digest,
            size,
        })
    }

    fn submit(&mut self) -> io::Result<()> {
        self.drain(self.pool.threads() + 1)?;
        // Streams share the memory of the pool: one that has blocks under way waits for those before it takes more.
        while !self.pending.is_empty() && self.pool.is_crowded() {
            self.drain(self.pending.len() - 1)?;
        }
        let next = self.pool.spare_block(self.compression, self.level);
        let block = std::mem::replace(&mut self.block, next);
        self.pending.push_back(self.pool.submit(block)?);
        self.is_empty = false;
        Ok(())
    }

    /// Writes finished blocks until at most `keep` are under way.
    fn drain(&mut self, keep: usize) -> io::Result<()> {
        while self.pending.len() > keep {
            let Some(oldest) = self.pending.pop_front() else { break };
            let block = oldest.wait()?;
            self.input.update(&block.input);
            self.output.update(block.output());
            self.inner.write_all(block.output())?;
            self.pool.give_back(block);
        }
        Ok(())
    }
}

impl<W: Write> Write for Encoder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.compression == Compression::None {
            let count = self.inner.write(bytes)?;
            self.input.update(&bytes[..count]);
            return Ok(count);
        }
        let size = block_size(self.compression);
        let input = &mut self.block.input;
        if input.is_empty() && input.capacity() < size {
            // A small layer needs no whole block; a large one grows to its first and has the others at once.
            let enough = if self.is_empty {
                bytes.len().clamp(16 << 10, size)
            } else {
                size
            };
            input.reserve_exact(enough);
        }
        let count = bytes.len().min(size - input.len());
        input.extend_from_slice(&bytes[..count]);
        if input.len() == size {
            self.submit()?;
        }
        Ok(count)
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Where the parts of an image go: metadata and data each fill segments of the file in turn, so that neither has to
//! know how long the other will be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{BLOCK, INODE, SLOT};

/// Room that a stream takes at a time.
const SEGMENT: u64 = 1 << 20;

/// An image being written. Nothing is in order before [`Output::finish`].
#[derive(Debug)]
pub(super) struct Output<'a> {
    file: &'a File,
    metadata: Stream,
    data: Stream,
    /// Where the next segment starts.
    end: u64,
}

/// A segment being filled.
#[derive(Debug, Default)]
struct Stream {
    start: u64,
    room: u64,
    bytes: Vec<u8>,
}

impl<'a> Output<'a> {
    /// Writes from the second block on.
    pub(super) fn new(file: &'a File) -> Self {
        Self {
            file,
            metadata: Stream::default(),
            data: Stream::default(),
            end: BLOCK,
        }
    }

    /// Finds a place for an inode of `length` bytes with all that follows it, which must not cross a block when it has
    /// inline content. It is [`Output::metadata`]'s turn next.
    pub(super) fn place_inode(&mut self, length: u64, crossing: Crossing) -> io::Result<u64> {
        let mut at = self.metadata.position().next_multiple_of(SLOT);
        let unbroken = match crossing {
            Crossing::Allowed => INODE,
            Crossing::Forbidden => length,
        };
        if at % BLOCK + unbroken > BLOCK {
            at = at.next_multiple_of(BLOCK);
        }
        if at + length > self.metadata.limit() {
            self.flush(Which::Metadata, length)?;
            at = self.metadata.position();
        }
        self.metadata.pad_to(at);
        Ok(at)
    }

    /// Writes the inode that was placed last, or what follows it.
    pub(super) fn metadata(&mut self, bytes: &[u8]) {
        self.metadata.bytes.extend_from_slice(bytes);
    }

    /// Writes content into whole blocks and answers with the first.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let length = (bytes.len() as u64).next_multiple_of(BLOCK);
        if self.data.position() + length > self.data.limit() {
            self.flush(Which::Data, length)?;
        }
        let at = self.data.position();
        self.data.bytes.extend_from_slice(bytes);
        self.data.pad_to(at + length);
        Ok(at / BLOCK)
    }

    /// Changes bytes that were written before.
    pub(super) fn patch(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        for stream in [&mut self.metadata, &mut self.data] {
            if at >= stream.start && at < stream.position() {
                let start = (at - stream.start) as usize;
                stream.bytes[start..start + bytes.len()].copy_from_slice(bytes);
                return Ok(());
            }
        }
        self.file.write_all_at(bytes, at)
    }

    /// Writes what is left and answers with the size of the image in blocks.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.flush(Which::Metadata, 0)?;
        self.flush(Which::Data, 0)?;
        self.file.set_len(self.end)?;
        Ok(self.end / BLOCK)
    }

    /// Writes a stream's segment and starts another that has room for `length`; none for zero.
    fn flush(&mut self, which: Which, length: u64) -> io::Result<()> {
        let stream = match which {
            Which::Metadata => &mut self.metadata,
            Which::Data => &mut self.data,
        };
        self.file.write_all_at(&stream.bytes, stream.start)?;
        if self.end == stream.limit() {
            // It is the last in the file: what it did not use is free again.
            self.end = stream.position().next_multiple_of(BLOCK);
        }
        let room = if length == 0 {
            0
        } else {
            length.next_multiple_of(BLOCK).max(SEGMENT)
        };
        stream.bytes.clear();
        stream.start = self.end;
        stream.room = room;
        self.end += room;
        Ok(())
    }
}

/// Whether an inode and what follows it may lie in two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crossing {
    Allowed,
    Forbidden,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Metadata,
    Data,
}

impl Stream {
    fn position(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn limit(&self) -> u64 {
        self.start + self.room
    }

    fn pad_to(&mut self, position: u64) {
        self.bytes.resize((position - self.start) as usize, 0);
    }
}

//! Reading an archive member by member.
//!
//! USTAR, GNU and PAX headers; long names of both kinds; base-256 numbers; sparse files of all four formats, given out
//! with their holes as zeros. As in Go's `archive/tar`, global PAX headers are left out of account. What an archive
//! makes us hold in memory is bounded: extended headers and sparse maps by [`MAX_EXTENDED`].

use std::io::{self, Read};

use super::TarError;
use super::header::{
    BLOCK, DEVICE_MAJOR, DEVICE_MINOR, GID, GNU_MAGIC, KIND, LINK_NAME, MAGIC, MODE, MORE_ENTRIES, MORE_FLAG, MTIME,
    NAME, PREFIX, SIZE, SPARSE_ENTRIES, SPARSE_MORE, SPARSE_SIZE, UID, USTAR_MAGIC, is_sound, number, text,
};
use super::pax::Extended;
use crate::{Metadata, Timestamp};

/// Most bytes of one extended header, long name or sparse map.
const MAX_EXTENDED: u64 = 1 << 20;

/// An archive being read.
pub struct Archive<R> {
    source: R,
    /// Bytes of the current member that were not read, with padding.
    pending: u64,
    /// The name of the member that came last, for messages.
    after: Vec<u8>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file, its bytes to be read by [`Archive::contents`].
    File,
    /// Another name of an earlier member, whose name this is.
    Link(Vec<u8>),
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
    /// A character device, `(major, minor)`.
    CharDevice(u32, u32),
    /// A block device, `(major, minor)`.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name as it stands there.
    pub name: Vec<u8>,
    /// Permissions, owner, time and extended attributes.
    pub meta: Metadata,
    /// What it is.
    pub kind: MemberKind,
    /// Of a file, the number of its bytes, holes included.
    pub size: u64,
    /// Where its stored bytes go when it has holes.
    sparse: Option<Vec<Segment>>,
}

/// A piece of a sparse file that is no hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    length: u64,
}

impl<R: Read> Archive<R> {
    /// Starts at the first header.
    pub fn new(source: R) -> Self {
        Self {
            source,
            pending: 0,
            after: Vec::new(),
        }
    }

    fn damaged(&self, reason: &'static str) -> TarError {
        TarError::Damaged {
            after: self.after.clone(),
            reason,
        }
    }

    fn failed(&self, source: io::Error) -> TarError {
        TarError::Read {
            after: self.after.clone(),
            source,
        }
    }

    /// Reads the next header; `None` at the end. What was not read of the member before is skipped.
    ///
    /// # Errors
    /// [`TarError::Read`], [`TarError::Damaged`], [`TarError::UnknownKind`].
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut extended = Extended::default();
        loop {
            self.skip_pending()?;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let size = number(&block[SIZE])
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| self.damaged("a size is no number"))?;
            match block[KIND] {
                b'x' => {
                    let records = self.extended_bytes(size)?;
                    extended.add_records(&records).map_err(|reason| self.damaged(reason))?;
                }
                b'g' => self.pending = padded(size),
                b'L' => extended.name = Some(text(&self.extended_bytes(size)?).to_vec()),
                b'K' => extended.link = Some(text(&self.extended_bytes(size)?).to_vec()),
                _ => return self.member(&block, size, extended).map(Some),
            }
        }
    }

    /// The bytes of a file that [`Archive::next_member`] returned last, holes as zeros. An archive that ends early is
    /// an error of reading.
    pub fn contents<'a>(&'a mut self, member: &'a Member) -> impl Read + 'a {
        Contents {
            archive: self,
            segments: member.sparse.as_deref(),
            segment: 0,
            at: 0,
            size: member.size,
        }
    }

    fn member(&mut self, block: &[u8; BLOCK], stored: u64, extended: Extended) -> Result<Member, TarError> {
        let mut name = extended.name.unwrap_or_else(|| {
            let name = text(&block[NAME]);
            let prefix = match &block[MAGIC] {
                magic if magic == USTAR_MAGIC => text(&block[PREFIX]),
                _ => b"",
            };
            match prefix {
                b"" => name.to_vec(),
                prefix => [prefix, b"/", name].concat(),
            }
        });
        if let Some(sparse_name) = extended.sparse.name {
            name = sparse_name;
        }
        self.after.clone_from(&name);
        let stored = extended.size.unwrap_or(stored);
        if i64::try_from(stored).is_err() {
            return Err(self.damaged("a size is no number"));
        }
        let field = |range: std::ops::Range<usize>| number(&block[range]);
        let bad = || self.damaged("a number in a header is none");
        let id = |pax: Option<i64>, header: Option<i64>| {
            pax.or(header)
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.damaged("an owner is no number of 32 bits"))
        };
        let device = || {
            let part = |range| {
                field(range)
                    .and_then(|number| u32::try_from(number).ok())
                    .ok_or_else(bad)
            };
            Ok::<_, TarError>((part(DEVICE_MAJOR)?, part(DEVICE_MINOR)?))
        };
        let link = extended.link.unwrap_or_else(|| text(&block[LINK_NAME]).to_vec());
        let flag = block[KIND];
        let kind = match flag {
            // Before USTAR, only the slash told directories from files.
            0 if name.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::Link(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => device().map(|(major, minor)| MemberKind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| MemberKind::BlockDevice(major, minor))?,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            kind => return Err(TarError::UnknownKind { path: name, kind }),
        };
        let mut xattrs = extended.xattrs;
        xattrs.sort();
        xattrs.dedup_by(|later, earlier| later.0 == earlier.0);
        let meta = Metadata {
            mode: (field(MODE).ok_or_else(bad)? & 0o7777) as u32,
            uid: id(extended.uid, field(UID))?,
            gid: id(extended.gid, field(GID))?,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => Timestamp {
                    seconds: field(MTIME).ok_or_else(bad)?,
                    nanos: 0,
                },
            },
            xattrs,
        };
        let mut member = Member {
            name,
            meta,
            kind,
            size: 0,
            sparse: None,
        };
        if member.kind == MemberKind::File {
            self.pending = padded(stored);
            member.size = stored;
            let sparse = if flag == b'S' && &block[MAGIC] == GNU_MAGIC {
                Some(self.old_sparse(block)?)
            } else if extended.sparse.is_version_1 {
                Some((extended.sparse.size, self.sparse_before_data()?))
            } else if extended.sparse.has_map {
                Some((extended.sparse.size, extended.sparse.numbers))
            } else {
                None
            };
            if let Some((size, numbers)) = sparse {
                member.size = size.ok_or_else(|| self.damaged("a sparse file has no size"))?;
                member.sparse = Some(self.segments(&numbers, member.size)?);
            }
        }
        Ok(member)
    }

    /// The numbers of GNU's old format and the size of the whole.
    fn old_sparse(&mut self, block: &[u8; BLOCK]) -> Result<(Option<u64>, Vec<u64>), TarError> {
        let mut numbers = Vec::new();
        let bad = || TarError::Damaged {
            after: self.after.clone(),
            reason: "a sparse map is damaged",
        };
        let mut add = |entries: &[u8]| {
            for entry in entries.chunks_exact(12) {
                if entry[0] == 0 {
                    break;
                }
                let value = number(entry).and_then(|value| u64::try_from(value).ok());
                numbers.push(value.ok_or_else(bad)?);
            }
            // Offset and length come in pairs.
            numbers.truncate(numbers.len() & !1);
            Ok::<(), TarError>(())
        };
        add(&block[SPARSE_ENTRIES])?;
        let mut more = block[SPARSE_MORE] != 0;
        let mut bytes = 0;
        while more {
            let mut next = [0; BLOCK];
            self.source.read_exact(&mut next).map_err(|err| TarError::Read {
                after: self.after.clone(),
                source: err,
            })?;
            bytes += BLOCK as u64;
            if bytes > MAX_EXTENDED {
                return Err(bad());
            }
            add(&next[MORE_ENTRIES])?;
            more = next[MORE_FLAG] != 0;
        }
        let size = number(&block[SPARSE_SIZE]).and_then(|size| u64::try_from(size).ok());
        Ok((size, numbers))
    }

    /// The numbers of format 1.0: decimal lines before the data, padded to a block.
    fn sparse_before_data(&mut self) -> Result<Vec<u64>, TarError> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut bytes = 0;
        let mut digits = 0;
        let mut value: u64 = 0;
        loop {
            let mut block = [0; BLOCK];
            if self.pending < BLOCK as u64 || bytes >= MAX_EXTENDED {
                return Err(self.damaged("a sparse map is damaged"));
            }
            self.source.read_exact(&mut block).map_err(|err| self.failed(err))?;
            self.pending -= BLOCK as u64;
            bytes += BLOCK as u64;
            for byte in block {
                match byte {
                    b'0'..=b'9' if digits < 19 => {
                        value = value * 10 + u64::from(byte - b'0');
                        digits += 1;
                    }
                    b'\n' if digits > 0 => {
                        numbers.push(value);
                        (value, digits) = (0, 0);
                        // The first line counts the pairs that follow.
                        if numbers.len() as u64 > numbers[0].saturating_mul(2) {
                            numbers.remove(0);
                            return Ok(numbers);
                        }
                    }
                    _ => return Err(self.damaged("a sparse map is damaged")),
                }
            }
        }
    }

    fn segments(&self, numbers: &[u64], size: u64) -> Result<Vec<Segment>, TarError> {
        let mut segments = Vec::with_capacity(numbers.len() / 2);
        let mut end = 0;
        let mut stored: u64 = 0;
        for pair in numbers.chunks(2) {
            let &[offset, length] = pair else {
                return Err(self.damaged("a sparse map has half a pair"));
            };
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
            end = next.ok_or_else(|| self.damaged("a sparse map is out of order"))?;
            stored += length;
            if length > 0 {
                segments.push(Segment { offset, length });
            }
        }
        if padded(stored) > self.pending {
            return Err(self.damaged("a sparse map needs more bytes than there are"));
        }
        Ok(segments)
    }

    /// The next header block; `None` at the end mark or the end of the bytes.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            return match self.block(&mut block)? {
                true if block != [0; BLOCK] => Err(self.damaged("something follows half an end mark")),
                _ => Ok(None),
            };
        }
        if !is_sound(&block) {
            return Err(self.damaged("a header's checksum is wrong"));
        }
        Ok(Some(block))
    }

    /// Reads a block; `false` when there is not a byte more.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut length = 0;
        while length < BLOCK {
            match self.source.read(&mut block[length..]) {
                Ok(0) if length == 0 => return Ok(false),
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => length += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.failed(err)),
            }
        }
        Ok(true)
    }

    fn extended_bytes(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENDED {
            return Err(self.damaged("an extended header is too long"));
        }
        self.pending = padded(size);
        let mut bytes = vec![0; size as usize];
        self.source.read_exact(&mut bytes).map_err(|err| self.failed(err))?;
        self.pending -= size;
        Ok(bytes)
    }

    fn skip_pending(&mut self) -> Result<(), TarError> {
        let pending = std::mem::take(&mut self.pending);
        let skipped =
            io::copy(&mut (&mut self.source).take(pending), &mut io::sink()).map_err(|err| self.failed(err))?;
        if skipped < pending {
            return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

/// A size rounded up to whole blocks.
fn padded(size: u64) -> u64 {
    size.saturating_add(BLOCK as u64 - 1) / BLOCK as u64 * BLOCK as u64
}

/// The bytes of one file.
struct Contents<'a, R> {
    archive: &'a mut Archive<R>,
    /// `None`: no holes.
    segments: Option<&'a [Segment]>,
    segment: usize,
    at: u64,
    size: u64,
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.at;
        let (is_hole, run) = match self.segments {
            None => (false, left),
            Some(segments) => loop {
                match segments.get(self.segment) {
                    Some(segment) if self.at < segment.offset => break (true, segment.offset - self.at),
                    Some(segment) if self.at < segment.offset + segment.length => {
                        break (false, segment.offset + segment.length - self.at);
                    }
                    Some(_) => self.segment += 1,
                    None => break (true, left),
                }
            },
        };
        let length = usize::try_from(run).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..length];
        let count = if is_hole {
            buffer.fill(0);
            length
        } else {
            match self.archive.source.read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    self.archive.pending -= count as u64;
                    count
                }
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

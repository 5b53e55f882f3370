//! The canonical bytes of a directory: a disk format, `FORMAT` changes when it does.

use super::{Directory, DirectoryError, DirectoryRef, Entry, LinkGroup, Metadata, Node, Timestamp, Totals, check_name};
use crate::digest::{BlobDigest, ContentDigest, TreeDigest};

/// Version byte at the start of every encoded directory.
const FORMAT: u8 = 1;

impl Directory {
    /// Encodes canonically; equal directories give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.entries.len() * 96);
        out.push(FORMAT);
        out.push(u8::from(self.opaque) | u8::from(self.root.is_some()) << 1);
        if let Some(meta) = &self.root {
            put_meta(&mut out, meta);
        }
        put_varint(&mut out, self.entries.len() as u64);
        for entry in &self.entries {
            put_bytes(&mut out, &entry.name);
            put_node(&mut out, &entry.node);
            put_meta(&mut out, &entry.meta);
        }
        out
    }

    /// Decodes what [`Directory::encode`] wrote and checks every rule of the format.
    ///
    /// # Errors
    /// [`DirectoryError`] when the bytes are damaged, unsorted or hold a name no directory may hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, DirectoryError> {
        let mut input = Input(bytes);
        if input.byte()? != FORMAT {
            return Err(DirectoryError::Damaged("unknown format version"));
        }
        let flags = input.byte()?;
        if flags > 3 {
            return Err(DirectoryError::Damaged("unknown flags"));
        }
        let root = if flags & 2 == 0 { None } else { Some(input.meta()?) };
        let count = input.varint()?;
        // A damaged count must not reserve memory: no entry is shorter than eight bytes.
        let mut entries: Vec<Entry> = Vec::with_capacity((count as usize).min(bytes.len() / 8));
        for _ in 0..count {
            let name = input.bytes()?.to_vec();
            check_name(&name)?;
            if entries.last().is_some_and(|last| last.name >= name) {
                return Err(DirectoryError::Damaged("names out of order"));
            }
            let node = input.node()?;
            let meta = input.meta()?;
            entries.push(Entry { name, meta, node });
        }
        if !input.0.is_empty() {
            return Err(DirectoryError::Damaged("bytes after the last entry"));
        }
        Ok(Self {
            root,
            opaque: flags & 1 == 1,
            entries,
        })
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_meta(out: &mut Vec<u8>, meta: &Metadata) {
    put_varint(out, u64::from(meta.mode));
    put_varint(out, u64::from(meta.uid));
    put_varint(out, u64::from(meta.gid));
    // Zigzag keeps times before 1970 short.
    put_varint(out, ((meta.mtime.seconds << 1) ^ (meta.mtime.seconds >> 63)) as u64);
    put_varint(out, u64::from(meta.mtime.nanos));
    put_varint(out, meta.xattrs.len() as u64);
    for (name, value) in &meta.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_node(out: &mut Vec<u8>, node: &Node) {
    match node {
        Node::File { blob, size, link } => {
            out.push(if link.is_some() { 1 } else { 0 });
            out.extend_from_slice(blob.as_bytes());
            put_varint(out, *size);
            if let Some(link) = link {
                out.extend_from_slice(&link.id.to_le_bytes());
                put_varint(out, u64::from(link.count));
            }
        }
        Node::Directory(below) => {
            out.push(2);
            out.extend_from_slice(below.digest.as_bytes());
            out.extend_from_slice(below.content.as_bytes());
            put_varint(out, below.totals.entries);
            put_varint(out, below.totals.bytes);
            put_varint(out, below.totals.links);
        }
        Node::Symlink(target) => {
            out.push(3);
            put_bytes(out, target);
        }
        Node::CharDevice(major, minor) | Node::BlockDevice(major, minor) => {
            out.push(if matches!(node, Node::CharDevice(..)) { 4 } else { 5 });
            put_varint(out, u64::from(*major));
            put_varint(out, u64::from(*minor));
        }
        Node::Fifo => out.push(6),
        Node::Whiteout => out.push(7),
    }
}

/// The rest of an encoded directory.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DirectoryError> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(DirectoryError::Damaged("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, DirectoryError> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, DirectoryError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(DirectoryError::Damaged("number not in its shortest form"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DirectoryError::Damaged("number too long"))
    }

    fn small(&mut self) -> Result<u32, DirectoryError> {
        u32::try_from(self.varint()?).map_err(|_| DirectoryError::Damaged("number too large"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], DirectoryError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DirectoryError::Damaged("length too large"))?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DirectoryError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn meta(&mut self) -> Result<Metadata, DirectoryError> {
        let mode = self.small()?;
        let (uid, gid) = (self.small()?, self.small()?);
        let zigzag = self.varint()?;
        let seconds = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let nanos = self.small()?;
        if mode > 0o7777 || nanos >= 1_000_000_000 {
            return Err(DirectoryError::Damaged("metadata out of range"));
        }
        let count = self.varint()?;
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let (name, value) = (self.bytes()?.to_vec(), self.bytes()?.to_vec());
            if xattrs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(DirectoryError::Damaged("attributes out of order"));
            }
            xattrs.push((name, value));
        }
        Ok(Metadata {
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanos },
            xattrs,
        })
    }

    fn node(&mut self) -> Result<Node, DirectoryError> {
        Ok(match self.byte()? {
            kind @ (0 | 1) => {
                let blob = BlobDigest::from_bytes(self.array()?);
                let size = self.varint()?;
                let link = if kind == 0 {
                    None
                } else {
                    Some(LinkGroup {
                        id: u64::from_le_bytes(self.array()?),
                        count: self.small()?,
                    })
                };
                Node::File { blob, size, link }
            }
            2 => Node::Directory(DirectoryRef {
                digest: TreeDigest::from_bytes(self.array()?),
                content: ContentDigest::from_bytes(self.array()?),
                totals: Totals {
                    entries: self.varint()?,
                    bytes: self.varint()?,
                    links: self.varint()?,
                },
            }),
            3 => Node::Symlink(self.bytes()?.to_vec()),
            4 => Node::CharDevice(self.small()?, self.small()?),
            5 => Node::BlockDevice(self.small()?, self.small()?),
            6 => Node::Fifo,
            7 => Node::Whiteout,
            _ => return Err(DirectoryError::Damaged("unknown node kind")),
        })
    }
}

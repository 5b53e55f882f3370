//! A tree as an archive, byte for byte the same for the same tree.
//!
//! Headers are those of Go's `archive/tar` in its PAX format, which is what layers of BuildKit and containerd are:
//! USTAR blocks without user and group names, a PAX header only for what does not fit, whole seconds.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use super::header::{
    BLOCK, DEVICE_MAJOR, DEVICE_MINOR, GID, KIND, LINK_NAME, MAGIC, MODE, MTIME, NAME, SIZE, UID, USTAR_MAGIC, fits,
    put_number, put_text, seal,
};
use super::{OPAQUE, TarError, WHITEOUT, Whiteouts};
use crate::walk::Walk;
use crate::{Blob, ContentStore, Metadata, Node, StoreError, Timestamp, TreeDigest};

/// How a tree is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteOptions {
    /// Later modification times become this, in seconds since 1970.
    pub clamp_mtime: Option<i64>,
    /// [`Timestamp::MADE`] becomes this, in seconds since 1970, whether or not others are clamped.
    pub made_mtime: Option<i64>,
    /// How whiteouts and opaque directories stand in the archive.
    pub whiteouts: Whiteouts,
}

/// Writes a tree or layer: members in walking order, directories before what is in them, the root left out; every
/// name of a link group after the first as a link to it; whiteouts as empty files at the epoch.
///
/// # Errors
/// [`TarError::BadMember`] for an entry that no archive can hold, [`TarError::Store`] for missing bytes,
/// [`TarError::Write`].
pub fn write(
    store: &dyn ContentStore,
    tree: &TreeDigest,
    out: &mut dyn Write,
    options: &WriteOptions,
) -> Result<(), TarError> {
    let mut writer = Writer {
        store,
        out,
        options,
        links: HashMap::new(),
        buffer: vec![0; 64 << 10],
    };
    if store.need_directory(tree)?.opaque {
        writer.opaque(Vec::new())?;
    }
    for walked in Walk::new(store, tree)? {
        let walked = walked?;
        writer.entry(&walked.path, &walked.entry.meta, &walked.entry.node)?;
        if walked.opaque {
            writer.opaque(walked.path)?;
        }
    }
    writer.put(b"", &[0; 2 * BLOCK])?;
    writer.out.flush().map_err(|source| TarError::Write {
        path: Vec::new(),
        source,
    })
}

struct Writer<'w> {
    store: &'w dyn ContentStore,
    out: &'w mut dyn Write,
    options: &'w WriteOptions,
    /// The first name of each link group.
    links: HashMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
}

/// One member's header.
struct Header<'h> {
    name: &'h [u8],
    kind: u8,
    meta: &'h Metadata,
    size: u64,
    link: &'h [u8],
    device: (u32, u32),
}

impl Writer<'_> {
    fn put(&mut self, path: &[u8], bytes: &[u8]) -> Result<(), TarError> {
        self.out.write_all(bytes).map_err(|source| TarError::Write {
            path: path.to_vec(),
            source,
        })
    }

    fn entry(&mut self, path: &[u8], meta: &Metadata, node: &Node) -> Result<(), TarError> {
        let mut header = Header {
            name: path,
            kind: b'0',
            meta,
            size: 0,
            link: b"",
            device: (0, 0),
        };
        let with_slash;
        match node {
            Node::File { blob, size, link } => {
                if let Some(link) = link {
                    if let Some(first) = self.links.get(&link.id).cloned() {
                        header.kind = b'1';
                        header.link = &first;
                        return self.header(&header);
                    }
                    self.links.insert(link.id, path.to_vec());
                }
                header.size = *size;
                let opened = self.store.blob(blob)?.ok_or(StoreError::MissingBlob(*blob))?;
                if opened.size() != *size {
                    return Err(TarError::BadMember {
                        path: path.to_vec(),
                        reason: "its size is not that of its bytes",
                    });
                }
                self.header(&header)?;
                return self.contents(path, opened, *size);
            }
            Node::Directory(_) => {
                header.kind = b'5';
                with_slash = [path, b"/"].concat();
                header.name = &with_slash;
            }
            Node::Symlink(target) => {
                header.kind = b'2';
                header.link = target;
            }
            Node::CharDevice(major, minor) => {
                header.kind = b'3';
                header.device = (*major, *minor);
            }
            Node::BlockDevice(major, minor) => {
                header.kind = b'4';
                header.device = (*major, *minor);
            }
            Node::Fifo => header.kind = b'6',
            Node::Whiteout => return self.whiteout(path),
        }
        self.header(&header)
    }

    fn contents(&mut self, path: &[u8], blob: Blob, size: u64) -> Result<(), TarError> {
        let mut reader = blob.reader();
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match reader.read(&mut self.buffer[..length]) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            }
            .map_err(|source| {
                TarError::Store(StoreError::Io {
                    action: "read blob of",
                    path: std::path::PathBuf::from(crate::edit::show(path)),
                    source,
                })
            })?;
            self.out
                .write_all(&self.buffer[..count])
                .map_err(|source| TarError::Write {
                    path: path.to_vec(),
                    source,
                })?;
            left -= count as u64;
        }
        self.pad(path, size)
    }

    fn pad(&mut self, path: &[u8], size: u64) -> Result<(), TarError> {
        let over = (size % BLOCK as u64) as usize;
        match over {
            0 => Ok(()),
            over => self.put(path, &[0; BLOCK][over..]),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), TarError> {
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&b""[..], path),
        };
        self.mark(path, &[parent, WHITEOUT, name].concat())
    }

    fn opaque(&mut self, mut path: Vec<u8>) -> Result<(), TarError> {
        if !path.is_empty() {
            path.push(b'/');
        }
        let name = [path.as_slice(), OPAQUE].concat();
        self.mark(&path, &name)
    }

    fn mark(&mut self, path: &[u8], name: &[u8]) -> Result<(), TarError> {
        if self.options.whiteouts == Whiteouts::Plain {
            return Err(TarError::BadMember {
                path: path.to_vec(),
                reason: "whiteouts exist in layers only",
            });
        }
        self.header(&Header {
            name,
            kind: b'0',
            meta: &Metadata::new(0),
            size: 0,
            link: b"",
            device: (0, 0),
        })
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), TarError> {
        let seconds = header.meta.mtime.seconds;
        let seconds = match self.options.made_mtime {
            Some(made) if header.meta.mtime == Timestamp::MADE => made,
            _ => self.options.clamp_mtime.map_or(seconds, |clamp| seconds.min(clamp)),
        };
        let size = i64::try_from(header.size).map_err(|_| TarError::BadMember {
            path: header.name.to_vec(),
            reason: "it is too large",
        })?;
        let (uid, gid) = (i64::from(header.meta.uid), i64::from(header.meta.gid));
        let (major, minor) = (i64::from(header.device.0), i64::from(header.device.1));
        if !fits(major, DEVICE_MAJOR.len()) || !fits(minor, DEVICE_MINOR.len()) {
            return Err(TarError::BadMember {
                path: header.name.to_vec(),
                reason: "its device number does not fit",
            });
        }
        let mut records = Vec::new();
        let text_fits = |text: &[u8], length: usize| text.len() <= length && text.is_ascii();
        let mut number = |key: &str, value: i64, length: usize| {
            if !fits(value, length) {
                records.push((key.as_bytes().to_vec(), value.to_string().into_bytes()));
            }
        };
        number("gid", gid, GID.len());
        number("mtime", seconds, MTIME.len());
        number("size", size, SIZE.len());
        number("uid", uid, UID.len());
        if !text_fits(header.link, LINK_NAME.len()) {
            records.push((b"linkpath".to_vec(), header.link.to_vec()));
        }
        if !text_fits(header.name, NAME.len()) {
            records.push((b"path".to_vec(), header.name.to_vec()));
        }
        // A link has the attributes of what it links to.
        if header.kind != b'1' {
            for (name, value) in &header.meta.xattrs {
                if name.contains(&b'=') {
                    return Err(TarError::BadMember {
                        path: header.name.to_vec(),
                        reason: "an attribute's name has a `=` in it",
                    });
                }
                records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
            }
        }
        if !records.is_empty() {
            records.sort();
            self.extended(header.name, &records)?;
        }
        let mut block = [0; BLOCK];
        put_text(&mut block[NAME], header.name);
        put_number(&mut block[MODE], i64::from(header.meta.mode));
        put_number(&mut block[UID], uid);
        put_number(&mut block[GID], gid);
        put_number(&mut block[SIZE], size);
        put_number(&mut block[MTIME], seconds);
        block[KIND] = header.kind;
        put_text(&mut block[LINK_NAME], header.link);
        put_number(&mut block[DEVICE_MAJOR], major);
        put_number(&mut block[DEVICE_MINOR], minor);
        block[MAGIC].copy_from_slice(USTAR_MAGIC);
        seal(&mut block);
        self.put(header.name, &block)
    }

    /// A PAX header for the member that follows.
    fn extended(&mut self, path: &[u8], records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), TarError> {
        let mut bytes = Vec::new();
        for (key, value) in records {
            // The length counts itself.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            bytes.extend_from_slice(format!("{length} ").as_bytes());
            bytes.extend_from_slice(key);
            bytes.push(b'=');
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&b""[..], path),
        };
        let mut title = [parent, b"PaxHeaders.0"].concat();
        if !name.is_empty() {
            title.push(b'/');
            title.extend_from_slice(name);
        }
        title.retain(u8::is_ascii);
        title.truncate(NAME.len());
        while title.last() == Some(&b'/') {
            title.pop();
        }
        let mut block = [0; BLOCK];
        put_text(&mut block[NAME], &title);
        for field in [MODE, UID, GID, MTIME] {
            put_number(&mut block[field], 0);
        }
        put_number(&mut block[SIZE], bytes.len() as i64);
        block[KIND] = b'x';
        block[MAGIC].copy_from_slice(USTAR_MAGIC);
        seal(&mut block);
        self.put(path, &block)?;
        self.put(path, &bytes)?;
        self.pad(path, bytes.len() as u64)
    }
}

//! What this crate asks of the store's trees: layers from tars and back, and applying them.

use std::io::{Read, Write};

use cbs_store::{Store, TreeDigest, diff};

use crate::error::ImageError;

/// Reads a layer's tar into a diff tree.
pub(crate) fn read_layer(store: &Store, source: &mut dyn Read) -> Result<TreeDigest, ImageError> {
    Ok(tar::read(store, source, &tar::ReadOptions::layer())?)
}

/// Writes a layer's tar; later times become `clamp`.
pub(crate) fn write_layer(
    store: &Store,
    layer: &TreeDigest,
    out: &mut dyn Write,
    clamp: Option<i64>,
) -> Result<(), ImageError> {
    let options = tar::WriteOptions { clamp_mtime: clamp };
    Ok(tar::write(store, layer, out, &options)?)
}

/// Writes a root's tar.
pub(crate) fn write_root(store: &Store, tree: &TreeDigest, out: &mut dyn Write) -> Result<(), ImageError> {
    Ok(tar::write(store, tree, out, &tar::WriteOptions::layer())?)
}

/// The root that layers make, lowest first.
pub(crate) fn apply(store: &Store, base: Option<&TreeDigest>, layer: &TreeDigest) -> Result<TreeDigest, ImageError> {
    Ok(diff::apply(store, base, layer)?)
}

/// A plain reader and writer until the store has its own; no hard links, owners or attributes yet.
mod tar {
    use cbs_store::*;
    pub(crate) struct ReadOptions;
    impl ReadOptions {
        pub(crate) fn layer() -> Self {
            Self
        }
    }
    pub(crate) struct WriteOptions {
        pub(crate) clamp_mtime: Option<i64>,
    }
    impl WriteOptions {
        pub(crate) fn layer() -> Self {
            Self { clamp_mtime: None }
        }
    }
    pub(crate) fn read(
        store: &cbs_store::Store,
        r: &mut dyn std::io::Read,
        _: &ReadOptions,
    ) -> Result<cbs_store::TreeDigest, cbs_store::StoreError> {
        let mut a = ::tar::Archive::new(r);
        let e = |e| StoreError::io("tar", std::path::Path::new("x"))(e);
        let mut edit = edit::Edit::scratch(store);
        for en in a.entries().map_err(e)? {
            let mut en = en.map_err(e)?;
            let path = en.path_bytes().into_owned();
            let path: Vec<u8> = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
            let mut meta = Metadata::new(en.header().mode().map_err(e)? & 0o7777);
            meta.mtime.seconds = en.header().mtime().map_err(e)? as i64;
            let at = path.iter().rposition(|b| *b == b'/').map_or(0, |p| p + 1);
            let (mut path, mut node) = (
                path.clone(),
                match en.header().entry_type() {
                    ::tar::EntryType::Directory => Node::Directory(store.put_directory(Directory::default())?),
                    ::tar::EntryType::Symlink => Node::Symlink(en.link_name_bytes().unwrap_or_default().into_owned()),
                    ::tar::EntryType::Fifo => Node::Fifo,
                    _ => {
                        let (blob, size) = store.put_reader(&mut en)?;
                        Node::File { blob, size, link: None }
                    }
                },
            );
            if path[at..].starts_with(b".wh.") {
                path = [&path[..at], &path[at + 4..]].concat();
                node = Node::Whiteout;
                meta = Metadata::new(0);
            }
            edit.put(
                &path,
                &Entry {
                    name: vec![],
                    meta,
                    node,
                },
            )
            .map_err(|err| e(std::io::Error::other(err)))?;
        }
        let t = edit.commit().map_err(|err| e(std::io::Error::other(err)))?;
        let mut d = Directory::clone(&*store.need_directory(&t)?);
        d.root = None;
        Ok(store.put_directory(d)?.digest)
    }
    pub(crate) fn write(
        s: &cbs_store::Store,
        t: &cbs_store::TreeDigest,
        w: &mut dyn std::io::Write,
        o: &WriteOptions,
    ) -> Result<(), cbs_store::StoreError> {
        let mut b = ::tar::Builder::new(w);
        let e = |e| StoreError::io("tar", std::path::Path::new("x"))(e);
        fn go<W: std::io::Write>(
            s: &Store,
            t: &TreeDigest,
            b: &mut ::tar::Builder<W>,
            at: &str,
            o: &WriteOptions,
        ) -> std::io::Result<()> {
            for en in &s.need_directory(t).map_err(std::io::Error::other)?.entries {
                let name = String::from_utf8_lossy(&en.name).into_owned();
                let mut h = ::tar::Header::new_gnu();
                h.set_mode(en.meta.mode);
                h.set_uid(0);
                h.set_gid(0);
                h.set_size(0);
                let m = en.meta.mtime.seconds;
                h.set_mtime(o.clamp_mtime.map_or(m, |c| c.min(m)) as u64);
                let p = format!("{at}{name}");
                match &en.node {
                    Node::Directory(d) => {
                        h.set_entry_type(::tar::EntryType::Directory);
                        b.append_data(&mut h, format!("{p}/"), std::io::empty())?;
                        go(s, &d.digest, b, &format!("{p}/"), o)?;
                    }
                    Node::Symlink(l) => {
                        h.set_entry_type(::tar::EntryType::Symlink);
                        b.append_link(&mut h, p, String::from_utf8_lossy(l).into_owned())?;
                    }
                    Node::Whiteout => {
                        b.append_data(&mut h, format!("{at}.wh.{name}"), std::io::empty())?;
                    }
                    Node::Fifo => {
                        h.set_entry_type(::tar::EntryType::Fifo);
                        b.append_data(&mut h, p, std::io::empty())?;
                    }
                    Node::File { blob, size, .. } => {
                        h.set_size(*size);
                        b.append_data(
                            &mut h,
                            p,
                            s.blob(blob)
                                .map_err(std::io::Error::other)?
                                .ok_or(std::io::ErrorKind::NotFound)?
                                .reader(),
                        )?;
                    }
                    _ => {}
                }
            }
            Ok(())
        }
        go(s, t, &mut b, "", o).map_err(e)?;
        b.into_inner().map_err(e)?;
        Ok(())
    }
}

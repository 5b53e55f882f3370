//! Extended attributes between a tree and overlayfs.
//!
//! Overlayfs keeps its own notes about a layer in attributes of one name space (`trusted.overlay.` as root,
//! `user.overlay.` with `userxattr`). On the layer we serve, these notes are ours to make. What a *tree* stores under
//! such a name is content (somebody's nested overlay), and overlayfs has a spelling for that: `overlay.` once more
//! behind the prefix, which it takes away on the way up. So nothing stored in a tree can make overlayfs treat a file as
//! opaque, redirected or hollow.

use std::borrow::Cow;

use cbs_store::{Metadata, Node, blob_path};

use crate::server::Bytes;

/// Files above this size are read by the kernel from their blob files, on a data-only view; the bytes of those up to it
/// come through FUSE, though some are blob files as well. Saying where a file is takes two requests whenever it is
/// first looked at, sending it takes one or two when it is first read.
pub(crate) const REDIRECT_ABOVE: u64 = 64 << 10;

/// Behind the prefix, it marks an attribute as content.
const ESCAPE: &[u8] = b"overlay.";

/// In which name space an overlay above a mount keeps its notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`: overlays mounted by root of the machine.
    Trusted,
    /// `user.overlay.*`: overlays mounted with `userxattr`, the only kind in a user namespace.
    User,
}

impl OverlayXattrs {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }
}

/// How a mount presents attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presentation {
    /// As they are: people look at it.
    Plain,
    /// Below an overlay: the tree's own are escaped.
    Layer(OverlayXattrs),
    /// Below an overlay that has the blobs as a data-only layer: moreover, large files say where their bytes are.
    DataLayer(OverlayXattrs),
}

impl Presentation {
    fn overlay(self) -> Option<OverlayXattrs> {
        match self {
            Self::Plain => None,
            Self::Layer(xattrs) | Self::DataLayer(xattrs) => Some(xattrs),
        }
    }

    /// The value of an attribute of an entry (`node` is `None` for the root of a tree).
    pub(crate) fn get(self, meta: Option<&Metadata>, node: Option<&Node>, name: &[u8]) -> Option<Bytes> {
        if let Some(note) = self.note(node, name) {
            return Some(Bytes::Owned(note));
        }
        // Most entries have none, and overlayfs asks about every one.
        let meta = meta.filter(|meta| !meta.xattrs.is_empty())?;
        let stored = self.stored_name(name)?;
        let index = meta.xattrs.binary_search_by(|(known, _)| known.cmp(&stored)).ok()?;
        Some(Bytes::Owned(meta.xattrs[index].1.clone()))
    }

    /// The names of an entry's attributes, each ended by NUL. Our own notes are not among them.
    pub(crate) fn list(self, meta: Option<&Metadata>) -> Vec<u8> {
        let mut names = Vec::new();
        for (name, _) in meta.map_or(&[][..], |meta| &meta.xattrs) {
            names.extend_from_slice(&self.shown_name(name));
            names.push(0);
        }
        names
    }

    /// The name under which a stored attribute is shown.
    pub(crate) fn shown_name<'a>(self, name: &'a [u8]) -> Cow<'a, [u8]> {
        let prefix = self.overlay().map(OverlayXattrs::prefix);
        match prefix.and_then(|prefix| Some((prefix, name.strip_prefix(prefix)?))) {
            Some((prefix, rest)) => [prefix, ESCAPE, rest].concat().into(),
            None => name.into(),
        }
    }

    /// Whether asking for this attribute of a large file means that its bytes are about to be used.
    pub(crate) fn leads_to_data(self, node: Option<&Node>, name: &[u8]) -> bool {
        name.ends_with(b"overlay.redirect") && self.note(node, name).is_some()
    }

    /// What we tell overlayfs about a large file: its bytes are elsewhere (`metacopy`, whose value may be empty), and
    /// where (`redirect`, a path from the root of the data-only layer).
    fn note(self, node: Option<&Node>, name: &[u8]) -> Option<Vec<u8>> {
        let (Self::DataLayer(_), Some(Node::File { blob, size, .. })) = (self, node) else {
            return None;
        };
        if *size <= REDIRECT_ABOVE {
            return None;
        }
        // Both name spaces: someone in a user namespace may put an overlay of his own over root's mount.
        let note = [OverlayXattrs::Trusted, OverlayXattrs::User]
            .into_iter()
            .find_map(|xattrs| name.strip_prefix(xattrs.prefix()))?;
        match note {
            b"metacopy" => Some(Vec::new()),
            b"redirect" => Some(format!("/{}", blob_path(blob)).into_bytes()),
            _ => None,
        }
    }

    /// The name under which a tree stores what is asked for as `name`; `None` when no tree can have it.
    fn stored_name(self, name: &[u8]) -> Option<Vec<u8>> {
        let Some((rest, xattrs)) = self
            .overlay()
            .and_then(|xattrs| name.strip_prefix(xattrs.prefix()).zip(Some(xattrs)))
        else {
            return Some(name.to_vec());
        };
        let rest = rest.strip_prefix(ESCAPE)?;
        Some([xattrs.prefix(), rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cbs_store::BlobDigest;

    fn meta(names: &[&str]) -> Metadata {
        let mut meta = Metadata::new(0o644);
        meta.xattrs = names
            .iter()
            .map(|name| (name.as_bytes().to_vec(), name.as_bytes().to_vec()))
            .collect();
        meta.xattrs.sort();
        meta
    }

    fn file(size: u64) -> Node {
        Node::File {
            blob: BlobDigest::of(b"x"),
            size,
            link: None,
        }
    }

    fn get(presentation: Presentation, meta: &Metadata, node: &Node, name: &str) -> Option<Vec<u8>> {
        let value = presentation.get(Some(meta), Some(node), name.as_bytes());
        value.map(|value| value.as_ref().to_vec())
    }

    #[test]
    fn trees_cannot_speak_to_overlayfs() {
        let stored = meta(&["trusted.overlay.opaque", "user.overlay.opaque", "user.plain"]);
        for (presentation, mine, other) in [
            (
                Presentation::Layer(OverlayXattrs::Trusted),
                "trusted.overlay.",
                "user.overlay.",
            ),
            (
                Presentation::DataLayer(OverlayXattrs::User),
                "user.overlay.",
                "trusted.overlay.",
            ),
        ] {
            let ask = |name: &str| get(presentation, &stored, &file(1), name);
            assert_eq!(ask(&format!("{mine}opaque")), None);
            assert_eq!(
                ask(&format!("{mine}overlay.opaque")),
                Some(format!("{mine}opaque").into_bytes())
            );
            assert_eq!(
                ask(&format!("{other}opaque")),
                Some(format!("{other}opaque").into_bytes())
            );
            assert!(ask("user.plain").is_some());
            let names = String::from_utf8(presentation.list(Some(&stored))).expect("ascii");
            let mut names: Vec<_> = names.split_terminator('\0').collect();
            names.sort_unstable();
            let mut want = [
                format!("{mine}overlay.opaque"),
                format!("{other}opaque"),
                "user.plain".to_owned(),
            ];
            want.sort_unstable();
            assert_eq!(names, want);
        }
    }

    #[test]
    fn only_large_files_of_a_data_layer_point_at_blobs() {
        let none = meta(&[]);
        let large = file(REDIRECT_ABOVE + 1);
        for prefix in ["trusted.", "user."] {
            let metacopy = format!("{prefix}overlay.metacopy");
            let redirect = format!("{prefix}overlay.redirect");
            let data = Presentation::DataLayer(OverlayXattrs::Trusted);
            assert_eq!(get(data, &none, &large, &metacopy), Some(Vec::new()));
            let path = format!("/{}", blob_path(&BlobDigest::of(b"x"))).into_bytes();
            assert_eq!(get(data, &none, &large, &redirect), Some(path));
            for (presentation, node) in [
                (data, file(REDIRECT_ABOVE)),
                (data, Node::Fifo),
                (Presentation::Layer(OverlayXattrs::Trusted), large.clone()),
                (Presentation::Plain, large.clone()),
            ] {
                assert_eq!(
                    get(presentation, &none, &node, &metacopy),
                    None,
                    "{presentation:?} {node:?}"
                );
            }
        }
    }
}

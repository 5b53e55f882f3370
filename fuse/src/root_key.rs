//! The names at the root of a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use cbs_store::TreeDigest;

/// What a name at the root of a mount stands for. Each has nodes of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RootKey {
    /// `<64 hex>`: a tree.
    Tree(TreeDigest),
    /// `<64 hex>.<number>`: the same tree as one observer sees it, with caches of its own.
    Observed(TreeDigest, u64),
    /// A symbolic link to a tree, on a browsing mount.
    Link(Vec<u8>, TreeDigest),
}

impl RootKey {
    /// Understands the name of a tree or of an observed tree.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        match text.split_once('.') {
            None => text.parse().ok().map(Self::Tree),
            Some((digest, number)) => {
                let key = Self::Observed(digest.parse().ok()?, number.parse().ok()?);
                // Only one spelling may lead to a node: not `+7` or `07`.
                (key.name() == name).then_some(key)
            }
        }
    }

    /// The name.
    pub(crate) fn name(&self) -> Vec<u8> {
        match self {
            Self::Tree(tree) => tree.to_string().into_bytes(),
            Self::Observed(tree, number) => format!("{tree}.{number}").into_bytes(),
            Self::Link(name, _) => name.clone(),
        }
    }

    /// The name as a path component.
    pub(crate) fn file_name(&self) -> OsString {
        OsString::from_vec(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        let tree = TreeDigest::from_bytes([0xab; 32]);
        for key in [
            RootKey::Tree(tree),
            RootKey::Observed(tree, 0),
            RootKey::Observed(tree, 17),
        ] {
            assert_eq!(RootKey::parse(&key.name()), Some(key));
        }
        for bad in [
            "",
            ".",
            "zz",
            &format!("{tree}."),
            &format!("{tree}.07"),
            &format!("{tree}.+7"),
            &format!("{tree}.x"),
        ] {
            assert_eq!(RootKey::parse(bad.as_bytes()), None, "parsing {bad:?}");
        }
        assert_eq!(RootKey::parse(b"\xff"), None);
    }
}

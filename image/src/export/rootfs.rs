//! Flattened roots: what `tar` and `local` exports are made of.

use cbs_store::{
    BlobStore, ContentStore, Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node, Store, Timestamp,
    TreeDigest, edit,
};

use super::destination::{Destination, write_to};
use crate::error::ImageError;
use crate::platform::Platform;
use crate::trees;

/// What happens to modification times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootfsTime {
    /// They stay.
    Keep,
    /// All become this one, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    Set(i64),
}

/// Roots to export together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsOptions {
    /// Roots by platform, in the order they were asked for.
    pub roots: Vec<(Platform, TreeDigest)>,
    /// Whether each goes into a folder of its own such as `linux_amd64`. BuildKit's default is: when several platforms
    /// were asked for.
    pub platform_split: PlatformSplit,
    /// Times.
    pub time: RootfsTime,
}

/// Where the roots of several platforms go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformSplit {
    /// A folder each.
    Folders,
    /// All into one; files in two of them are an error.
    Together,
}

/// Writes the roots as one tar.
///
/// # Errors
/// [`ImageError::Options`] when roots that go together have a file in common, else what store and stream say.
pub fn write_rootfs_tar(
    store: &Store,
    options: &RootfsOptions,
    destination: Destination<'_>,
) -> Result<(), ImageError> {
    let tree = combine(store, options)?;
    write_to(destination, |out| trees::write_root(store, &tree, out))
}

/// One tree of all roots with the times that are asked for.
pub(super) fn combine(store: &Store, options: &RootfsOptions) -> Result<TreeDigest, ImageError> {
    let combined = match (options.platform_split, options.roots.as_slice()) {
        (_, []) => return Err(ImageError::Options("there is nothing to export".to_owned())),
        (PlatformSplit::Together, [(_, only)]) => *only,
        (PlatformSplit::Folders, roots) => folders(store, roots)?,
        (PlatformSplit::Together, [(first, base), others @ ..]) => {
            let mut root = Directory::clone(&*store.need_directory(base)?);
            let mut name = first;
            for (other, tree) in others {
                let upper = store.need_directory(tree)?;
                let names = (name.to_string(), other.to_string());
                root = merge(store, &root, &upper, "", &names)?;
                name = other;
            }
            store.put_directory(root)?.digest
        }
    };
    match options.time {
        RootfsTime::Keep => Ok(combined),
        RootfsTime::Set(seconds) => retime(store, &combined, Timestamp { seconds, nanos: 0 }),
    }
}

fn folders(store: &Store, roots: &[(Platform, TreeDigest)]) -> Result<TreeDigest, ImageError> {
    let mut directory = Directory::empty_root();
    for (platform, tree) in roots {
        let (_, below) = edit::embedded(store, tree)?;
        let name = platform.folder().into_bytes();
        if directory.get(&name).is_some() {
            return Err(ImageError::Options(format!("{platform} is exported twice")));
        }
        directory.set(Entry {
            name,
            meta: Metadata::new(0o755),
            node: Node::Directory(below),
        });
    }
    Ok(store.put_directory(directory)?.digest)
}

fn merge(
    store: &Store,
    lower: &Directory,
    upper: &Directory,
    path: &str,
    names: &(String, String),
) -> Result<Directory, ImageError> {
    let mut merged = lower.clone();
    for entry in &upper.entries {
        let below = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
        let entry = match (merged.get(&entry.name).map(|found| &found.node), &entry.node) {
            (Some(Node::Directory(one)), Node::Directory(other)) => {
                let (one, other) = (store.need_directory(&one.digest)?, store.need_directory(&other.digest)?);
                let both = merge(store, &one, &other, &below, names)?;
                Entry {
                    node: Node::Directory(store.put_directory(both)?),
                    ..entry.clone()
                }
            }
            (Some(one), other) if !matches!(one, Node::Directory(_)) && !matches!(other, Node::Directory(_)) => {
                return Err(ImageError::Options(format!(
                    "cannot overwrite {below} from {} with {} when split option is disabled",
                    names.0, names.1
                )));
            }
            _ => entry.clone(),
        };
        merged.set(entry);
    }
    Ok(merged)
}

fn retime(store: &Store, tree: &TreeDigest, time: Timestamp) -> Result<TreeDigest, ImageError> {
    Ok(retime_directory(store, tree, time)?.digest)
}

fn retime_directory(store: &dyn ContentStore, tree: &TreeDigest, time: Timestamp) -> Result<DirectoryRef, ImageError> {
    let mut directory = Directory::clone(&*store.need_directory(tree)?);
    if let Some(root) = &mut directory.root {
        root.mtime = time;
    }
    for entry in &mut directory.entries {
        entry.meta.mtime = time;
        if let Node::Directory(below) = &mut entry.node {
            *below = retime_directory(store, &below.digest, time)?;
        }
    }
    Ok(store.put_directory(directory)?)
}

/// The bytes of a file in a tree.
pub(super) fn open_file(store: &Store, node: &Node) -> Result<Option<cbs_store::Blob>, ImageError> {
    match node {
        Node::File { blob, .. } => Ok(Some(
            store.blob(blob)?.ok_or(cbs_store::StoreError::MissingBlob(*blob))?,
        )),
        _ => Ok(None),
    }
}

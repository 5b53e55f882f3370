//! What an op sees of its inputs, as digests: lookups in Merkle trees, no file is read.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use cbs_store::edit::{EditError, Selection, select_digest};
use cbs_store::{CacheKey, ContentDigest, KeyHasher, Layer, Snapshot, StoreError, TreeDigest};

use super::describe::{Form, Resolve, Seen, describe};
use super::parts::KeyParts;
use crate::graph::Vertex;
use crate::index::Index;
use crate::llb::pb;

/// The outputs of a vertex and what is known about them.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    /// One per output; `None` is the empty tree.
    pub(crate) snapshots: Arc<[Option<Snapshot>]>,
    /// The encoded key parts of the realisation they came from, whose notes have their digests; empty without one.
    pub(crate) key_parts: Arc<[u8]>,
}

impl Outputs {
    pub(crate) fn new(snapshots: Vec<Option<Snapshot>>, key_parts: Vec<u8>) -> Self {
        Self {
            snapshots: snapshots.into(),
            key_parts: key_parts.into(),
        }
    }

    pub(crate) fn get(&self, output: usize) -> Option<&Snapshot> {
        self.snapshots.get(output).and_then(Option::as_ref)
    }
}

/// Why a content key cannot be told.
#[derive(Debug)]
pub(crate) enum ViewError {
    /// Directories of this input are not here; they are once the input is made again.
    NeedsInput(usize),
    /// The store failed.
    Store(StoreError),
}

/// Digests of views, remembered for the length of a solve: platforms and stages ask the same things.
#[derive(Debug, Default)]
pub(crate) struct Views {
    trees: Memo<TreeDigest, [u8; 32]>,
    layers: Memo<TreeDigest, ContentDigest>,
    paths: Memo<(TreeDigest, String), [u8; 32]>,
    copies: Memo<(TreeDigest, pb::FileActionCopy), [u8; 32]>,
}

#[derive(Debug)]
struct Memo<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone, V: Copy> Memo<K, V> {
    /// Two threads may compute the same value; that is cheaper than one waiting for the other.
    fn get(&self, key: &K, compute: impl FnOnce() -> Result<V, StoreError>) -> Result<V, StoreError> {
        if let Some(&known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(known);
        }
        let value = compute()?;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), value);
        Ok(value)
    }
}

/// The note that names the tree of an input, before the input's number.
pub(super) const INPUT_NOTE: &str = "tree of input ";

/// The notes that say what is seen of an input, before the input's number: so that a person is not shown what a step
/// never looked at.
pub(super) const SEEN_NOTE: &str = "seen path of input ";
/// The same for what a copy takes of it, and leaves.
pub(super) const INCLUDE_NOTE: &str = "included of input ";
pub(super) const EXCLUDE_NOTE: &str = "excluded of input ";

fn note_seen(parts: &mut KeyParts, number: usize, seen: &Seen<'_>) {
    let path = match seen {
        Seen::Base | Seen::Tree | Seen::Definition => "/",
        Seen::Path(path) => path,
        Seen::Copy(copy) => {
            for pattern in &copy.include_patterns {
                parts.note_text(format!("{INCLUDE_NOTE}{number}"), pattern);
            }
            for pattern in &copy.exclude_patterns {
                parts.note_text(format!("{EXCLUDE_NOTE}{number}"), pattern);
            }
            &copy.src
        }
    };
    parts.note_text(format!("{SEEN_NOTE}{number}"), path);
}

/// The digest of the empty tree as a view.
const SCRATCH: &str = "cbs.solver.scratch.v1";
/// Stands for a path that leads nowhere; the step itself will say so.
const NOWHERE: &str = "cbs.solver.nowhere.v1";

fn constant(domain: &'static str) -> [u8; 32] {
    KeyHasher::new(domain).finish()
}

impl Views {
    /// All that a process with this root can see, times aside: the content and the root's own metadata.
    pub(crate) fn tree(&self, index: &dyn Index, tree: &TreeDigest) -> Result<[u8; 32], StoreError> {
        self.trees.get(tree, || {
            let directory = index.need_directory(tree)?;
            let mut hasher = KeyHasher::new("cbs.solver.tree.v1");
            hasher.field(directory.content_digest().as_bytes());
            if let Some(meta) = &directory.root {
                let numbers = [meta.mode, meta.uid, meta.gid, meta.xattrs.len() as u32];
                for number in numbers {
                    hasher.number(u64::from(number));
                }
                for (name, value) in &meta.xattrs {
                    hasher.field(name).field(value);
                }
            }
            Ok(hasher.finish())
        })
    }

    /// The layers that a result built upon this snapshot will have below its own: those that must leave as they came
    /// by their very bytes, others by their content.
    pub(crate) fn layers(&self, index: &dyn Index, layers: &[Layer]) -> Result<[u8; 32], StoreError> {
        let mut hasher = KeyHasher::new("cbs.solver.layers.v1");
        for layer in layers {
            match &layer.diff_id {
                Some(diff_id) => hasher.number(1).field(diff_id.as_bytes()),
                None => {
                    let content = self
                        .layers
                        .get(&layer.diff, || Ok(index.need_directory(&layer.diff)?.content_digest()))?;
                    hasher.number(0).field(content.as_bytes())
                }
            };
        }
        Ok(hasher.finish())
    }

    fn path(&self, index: &dyn Index, tree: &TreeDigest, path: &str) -> Result<[u8; 32], StoreError> {
        self.paths.get(&(*tree, path.to_owned()), || {
            let selection = Selection {
                src: path,
                follow_symlink: true,
                ..Selection::default()
            };
            select(index, tree, &selection)
        })
    }

    fn copy(&self, index: &dyn Index, tree: &TreeDigest, copy: &pb::FileActionCopy) -> Result<[u8; 32], StoreError> {
        self.copies.get(&(*tree, copy.clone()), || {
            let selection = Selection {
                src: &copy.src,
                follow_symlink: copy.follow_symlink,
                dir_copy_contents: copy.dir_copy_contents,
                allow_wildcard: copy.allow_wildcard,
                allow_empty_wildcard: copy.allow_empty_wildcard,
                include: &copy.include_patterns,
                exclude: &copy.exclude_patterns,
                required_paths: &copy.required_paths,
            };
            select(index, tree, &selection)
        })
    }
}

fn select(index: &dyn Index, tree: &TreeDigest, selection: &Selection<'_>) -> Result<[u8; 32], StoreError> {
    match select_digest(&Directories(index), tree, selection) {
        Ok(digest) => Ok(digest),
        Err(EditError::Store(err)) => Err(err),
        Err(_) => Ok(constant(NOWHERE)),
    }
}

/// An index as nothing but directories, for functions that ask for that trait object.
struct Directories<'a>(&'a dyn Index);

impl cbs_store::DirectoryStore for Directories<'_> {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<cbs_store::Directory>>, StoreError> {
        self.0.directory(digest)
    }

    fn put_directory(&self, directory: cbs_store::Directory) -> Result<cbs_store::DirectoryRef, StoreError> {
        self.0.put_directory(directory)
    }
}

/// An input of the vertex whose content key is made.
#[derive(Clone, Debug)]
pub(crate) struct ContentInput {
    /// The outputs of the input vertex.
    pub(crate) outputs: Outputs,
    /// Which of them.
    pub(crate) output: usize,
    /// The input vertex's definition key.
    pub(crate) definition_key: CacheKey,
}

/// Makes the content key of a vertex and gives its parts. Blocking.
pub(crate) fn content_key(
    index: &dyn Index,
    views: &Views,
    vertex: &Vertex,
    inputs: &[ContentInput],
) -> Result<(CacheKey, KeyParts), ViewError> {
    let mut resolve = ContentResolve { index, views, inputs };
    let parts = describe(vertex, Form::Content, &mut resolve)?;
    Ok((parts.key("cbs.content-key.v1"), parts))
}

struct ContentResolve<'a> {
    index: &'a dyn Index,
    views: &'a Views,
    inputs: &'a [ContentInput],
}

impl Resolve for ContentResolve<'_> {
    type Error = ViewError;

    fn resolve(&mut self, parts: &mut KeyParts, input: Option<usize>, seen: &Seen<'_>) -> Result<[u8; 32], ViewError> {
        let Some((number, input)) = input.and_then(|number| Some((number, self.inputs.get(number)?))) else {
            return Ok(constant(SCRATCH));
        };
        if *seen == Seen::Definition {
            return Ok(edge_key(&input.definition_key, input.output));
        }
        let Some(snapshot) = input.outputs.get(input.output) else {
            return Ok(constant(SCRATCH));
        };
        let tree = &snapshot.tree;
        parts.note(format!("{INPUT_NOTE}{number}"), *tree.as_bytes());
        note_seen(parts, number, seen);
        let missing = |err| match err {
            StoreError::MissingDirectory(_) => ViewError::NeedsInput(number),
            other => ViewError::Store(other),
        };
        // Directories may be gone with the bytes; the notes made when they were here still tell whole-tree digests.
        let noted = |name: String, err: StoreError| match err {
            StoreError::MissingDirectory(_) => KeyParts::decode(&input.outputs.key_parts)
                .ok()
                .and_then(|parts| parts.note_digest(&name))
                .ok_or(ViewError::NeedsInput(number)),
            other => Err(ViewError::Store(other)),
        };
        let whole = |views: &Views| {
            views
                .tree(self.index, tree)
                .or_else(|err| noted(tree_note(input.output), err))
        };
        match seen {
            Seen::Tree | Seen::Definition => whole(self.views),
            Seen::Base => {
                let layers = self
                    .views
                    .layers(self.index, &snapshot.layers)
                    .or_else(|err| noted(layers_note(input.output), err))?;
                let mut hasher = KeyHasher::new("cbs.solver.base.v1");
                hasher.field(&whole(self.views)?).field(&layers);
                Ok(hasher.finish())
            }
            Seen::Path(path) => self.views.path(self.index, tree, path).map_err(missing),
            Seen::Copy(copy) => self.views.copy(self.index, tree, copy).map_err(missing),
        }
    }
}

/// Adds what [`content_key`] of dependents will ask about these outputs, for when their directories are gone.
pub(crate) fn note_outputs(
    index: &dyn Index,
    views: &Views,
    parts: &mut KeyParts,
    outputs: &[Option<Snapshot>],
) -> Result<(), StoreError> {
    for (number, snapshot) in outputs.iter().enumerate() {
        let Some(snapshot) = snapshot else { continue };
        parts.note(tree_note(number), views.tree(index, &snapshot.tree)?);
        parts.note(layers_note(number), views.layers(index, &snapshot.layers)?);
    }
    Ok(())
}

fn tree_note(output: usize) -> String {
    format!("content of output {output}")
}

fn layers_note(output: usize) -> String {
    format!("layers of output {output}")
}

/// One output of a vertex by its definition.
pub(super) fn edge_key(definition_key: &CacheKey, output: usize) -> [u8; 32] {
    let mut hasher = KeyHasher::new("cbs.solver.edge.v1");
    hasher.field(definition_key.as_bytes()).number(output as u64);
    hasher.finish()
}

impl From<StoreError> for ViewError {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

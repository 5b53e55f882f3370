//! What is known of the layers of an image from earlier pulls, and how they become a root.
//!
//! A layer mostly means the same whatever is below it, and is then found by its diff id. One that has files without
//! their folders takes those from what is below: it is found by its chain id only (the hash over its own diff id and all
//! below, as OCI defines it).

use std::collections::HashMap;

use cbs_store::{Layer, OciBlob, Sha256Digest, Snapshot, Store, TreeDigest, diff};

use super::unpack::{Meaning, unpack_over};
use crate::error::ImageError;
use crate::layer::PULLED;
use crate::trees;

/// Chain id → root and diff tree.
const CHAINS: &str = "image.chain";

/// Diff id → nothing: layers that depend on what is below.
const DEPENDENT: &str = "image.dependent";

/// The layers of an image, lowest first.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
}

/// One layer.
#[derive(Clone, Debug)]
pub(super) struct Link {
    chain_id: String,
    diff_id: Sha256Digest,
    /// The root up to here, when it is here.
    root: Option<TreeDigest>,
    /// The layer's diff tree, when it is here.
    pub(super) diff: Option<TreeDigest>,
}

impl Chain {
    /// Looks up what is known.
    pub(super) fn known(store: &Store, diff_ids: Vec<Sha256Digest>) -> Result<Self, ImageError> {
        let mut links: Vec<Link> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let chain_id = match links.last() {
                None => diff_id.oci(),
                Some(below) => Sha256Digest::of(format!("{} {}", below.chain_id, diff_id.oci()).as_bytes()).oci(),
            };
            let (mut root, mut diff) = match read_chain(store, &chain_id)? {
                Some((root, diff)) => (Some(root), Some(diff)),
                None => (None, None),
            };
            for known in [&mut root, &mut diff] {
                if let Some(tree) = known
                    && !store.is_complete(tree)?
                {
                    *known = None;
                }
            }
            if diff.is_none() && store.fact(DEPENDENT, &diff_id.to_string())?.is_none() {
                diff = store.layer_by_diff_id(&diff_id)?.map(|layer| layer.diff);
            }
            links.push(Link {
                chain_id,
                diff_id,
                root,
                diff,
            });
        }
        Ok(Self { links })
    }

    /// Makes the root and records the layers. `pulled` has what was not known before, by diff id.
    pub(super) fn apply(
        self,
        store: &Store,
        blobs: &[OciBlob],
        pulled: &HashMap<Sha256Digest, Meaning>,
    ) -> Result<Snapshot, ImageError> {
        let mut tree: Option<TreeDigest> = None;
        let mut layers = Vec::with_capacity(self.links.len());
        for (link, blob) in self.links.into_iter().zip(blobs) {
            let diff = match (link.diff, pulled.get(&link.diff_id)) {
                (Some(diff), _) | (None, Some(&Meaning::Diff(diff))) => diff,
                (None, Some(Meaning::NeedsLower)) => {
                    let lower = match tree {
                        Some(tree) => tree,
                        None => diff::empty_tree(store)?,
                    };
                    let mut bytes = store.open_oci_blob(&blob.digest)?.ok_or(gone(blob))?;
                    store.put_fact(DEPENDENT, &link.diff_id.to_string(), b"")?;
                    unpack_over(store, &mut bytes, &lower, &link.diff_id)?
                }
                (None, None) => return Err(gone(blob)),
            };
            let layer = Layer {
                diff,
                diff_id: Some(link.diff_id),
            };
            if store.layer_blob(&layer, PULLED)?.as_ref() != Some(blob) {
                store.put_layer_blob(&layer, PULLED, blob)?;
            }
            let root = match link.root {
                Some(root) => root,
                None => {
                    let root = trees::apply(store, tree.as_ref(), &diff)?;
                    let mut value = root.as_bytes().to_vec();
                    value.extend_from_slice(diff.as_bytes());
                    store.put_fact(CHAINS, &link.chain_id, &value)?;
                    root
                }
            };
            tree = Some(root);
            layers.push(layer);
        }
        let tree = match tree {
            Some(tree) => tree,
            None => diff::empty_tree(store)?,
        };
        Ok(Snapshot { tree, layers })
    }
}

fn gone(blob: &OciBlob) -> ImageError {
    ImageError::BlobGone {
        what: "layer",
        digest: blob.digest,
    }
}

fn read_chain(store: &Store, chain_id: &str) -> Result<Option<(TreeDigest, TreeDigest)>, ImageError> {
    let Some((value, _)) = store.fact(CHAINS, chain_id)? else {
        return Ok(None);
    };
    let halves = value.split_at_checked(32).and_then(|(root, diff)| {
        let root = <[u8; 32]>::try_from(root).ok()?;
        let diff = <[u8; 32]>::try_from(diff).ok()?;
        Some((TreeDigest::from_bytes(root), TreeDigest::from_bytes(diff)))
    });
    Ok(halves)
}

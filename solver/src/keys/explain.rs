//! Why something ran, from what the store remembers of it and of the run before it.

use cbs_store::{CacheKey, StoreError, TreeDigest};

use super::EARLIER_NOTE;
use super::content::INPUT_NOTE;
use super::parts::{Difference, KeyParts, PartValue, differences};
use crate::index::Index;

/// A run compared with the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The step's name.
    pub name: String,
    /// When it ran, seconds since 1970.
    pub created: i64,
    /// The key of the run it is compared with; `None` when nothing like it ran before.
    pub earlier: Option<CacheKey>,
    /// What differs between the keys.
    pub differences: Vec<Difference>,
    /// Inputs whose trees differ, to be compared file by file.
    pub trees: Vec<ChangedTree>,
}

/// The tree of an input, then and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedTree {
    /// Which input of the op.
    pub input: usize,
    /// What it was, if it was there.
    pub before: Option<TreeDigest>,
    /// What it is.
    pub after: TreeDigest,
}

/// Explains the run that is remembered under a key; `None` when none is. Blocking.
///
/// # Errors
/// [`StoreError`] when the store cannot be asked.
pub fn explain(index: &dyn Index, key: &CacheKey) -> Result<Option<Explanation>, StoreError> {
    let Some(run) = index.realisation(key)? else {
        return Ok(None);
    };
    let mut explanation = Explanation {
        name: run.name,
        created: run.created,
        earlier: None,
        differences: Vec::new(),
        trees: Vec::new(),
    };
    // Parts written by another version of the program cannot be compared; that the step ran is still known.
    let Ok(after) = KeyParts::decode(&run.key_parts) else {
        return Ok(Some(explanation));
    };
    let Some(earlier) = after.note_digest(EARLIER_NOTE).map(CacheKey::from_bytes) else {
        return Ok(Some(explanation));
    };
    explanation.earlier = Some(earlier);
    if let Some(Ok(before)) = index.realisation(&earlier)?.map(|run| KeyParts::decode(&run.key_parts)) {
        explanation.differences = differences(&before, &after);
        let (before, after) = (trees(&before), trees(&after));
        for (input, tree) in after {
            let then = before.iter().find(|(other, _)| *other == input).map(|(_, tree)| *tree);
            if then != Some(tree) {
                explanation.trees.push(ChangedTree {
                    input,
                    before: then,
                    after: tree,
                });
            }
        }
    }
    Ok(Some(explanation))
}

fn trees(parts: &KeyParts) -> Vec<(usize, TreeDigest)> {
    let tree = |note: &super::Part| match note.value {
        PartValue::Digest(digest) => {
            let input = note.name.strip_prefix(INPUT_NOTE)?.parse().ok()?;
            Some((input, TreeDigest::from_bytes(digest)))
        }
        _ => None,
    };
    parts.notes().iter().filter_map(tree).collect()
}

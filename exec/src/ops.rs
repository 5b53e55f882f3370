//! Merge and diff ops: layers stacked and taken apart, no bytes moved.

use cbs_solver::{StepError, pb};
use cbs_store::diff::{self, apply, empty_tree};
use cbs_store::{Layer, Snapshot, Store};

fn pick(inputs: &[Option<Snapshot>], index: i64) -> Option<&Snapshot> {
    usize::try_from(index)
        .ok()
        .and_then(|index| inputs.get(index))
        .and_then(Option::as_ref)
}

/// Lays the layers of each input over those of the inputs before it, removals included, as BuildKit does.
pub(crate) fn merge(
    store: &Store,
    op: &pb::MergeOp,
    inputs: &[Option<Snapshot>],
) -> Result<Option<Snapshot>, StepError> {
    let mut merged: Option<Snapshot> = None;
    for input in op.inputs.iter().filter_map(|input| pick(inputs, input.input)) {
        let Some(lower) = merged else {
            merged = Some(input.clone());
            continue;
        };
        let mut tree = lower.tree;
        for layer in &input.layers {
            tree = apply(store, Some(&tree), &layer.diff)?;
        }
        let mut layers = lower.layers;
        layers.extend(input.layers.iter().copied());
        merged = Some(Snapshot { tree, layers });
    }
    Ok(merged)
}

/// What `upper` has beyond `lower`: its own layers where it was built upon it, else one layer of differences.
pub(crate) fn diff(store: &Store, op: &pb::DiffOp, inputs: &[Option<Snapshot>]) -> Result<Option<Snapshot>, StepError> {
    let lower = op.lower.and_then(|lower| pick(inputs, lower.input));
    let upper = op.upper.and_then(|upper| pick(inputs, upper.input));
    let (lower, upper) = match (lower, upper) {
        (None, upper) => return Ok(upper.cloned()),
        (Some(lower), None) => (lower, None),
        (Some(lower), Some(upper)) if lower.tree == upper.tree && lower.layers == upper.layers => return Ok(None),
        (Some(lower), Some(upper)) => (lower, Some(upper)),
    };
    let scratch = empty_tree(store)?;
    let layers = match upper {
        Some(upper) if upper.layers.starts_with(&lower.layers) => upper.layers[lower.layers.len()..].to_vec(),
        _ => {
            let upper = upper.map_or(scratch, |upper| upper.tree);
            vec![Layer {
                diff: diff::diff(store, Some(&lower.tree), &upper)?,
                diff_id: None,
            }]
        }
    };
    let mut tree = scratch;
    for layer in &layers {
        tree = apply(store, Some(&tree), &layer.diff)?;
    }
    Ok(Some(Snapshot { tree, layers }))
}

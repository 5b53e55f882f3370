//! What is remembered of a build that failed: its steps' logs, and on request what the failed steps left.
//!
//! It is a gc root of its own beside the result's, `failed:NAME`: the first snapshot is a folder of logs, the others are
//! the trees that failed steps saw and left. The next failure replaces it, a success removes it.

use std::collections::HashMap;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use cbs_exec::FailedState;
use cbs_solver::StepFailure;
use cbs_solver::llb::VertexDigest;
use cbs_store::{BlobDigest, Directory, DirectoryStore as _, Entry, GcRoot, Metadata, Node, Snapshot, Store};
use serde::{Deserialize, Serialize};

use crate::failure::chain;
use crate::inputs::BuildInputs;
use crate::record::absolute;
use crate::roots::FAILED;
use crate::steps::StepRecord;

/// Bumped when old programs would misread new records.
const VERSION: u32 = 1;

/// The payload of the root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FailedBuild {
    version: u32,
    /// The names of the image it would have become.
    pub(crate) names: Vec<String>,
    /// All its steps, inputs before their users.
    pub(crate) steps: Vec<StepRecord>,
    /// What failed, in the order it did.
    pub(crate) failures: Vec<FailedStep>,
    /// What was built.
    pub(crate) inputs: BuildInputs,
}

/// One failed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedStep {
    /// What it is called.
    pub(crate) name: String,
    /// Its vertex in the definition.
    pub(crate) vertex: String,
    /// What happened.
    pub(crate) error: String,
    /// The blob with its log.
    pub(crate) log: Option<String>,
    /// What it left, if that was kept.
    pub(crate) state: Option<KeptState>,
}

/// The trees of a failed step, as numbers of the root's snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptState {
    /// Each input of the op; `None` is scratch.
    pub(crate) inputs: Vec<Option<usize>>,
    /// Each writable mount by its number in the op, and what it looked like in the end.
    pub(crate) mounts: Vec<(usize, usize)>,
}

/// A remembered failure.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    /// Its root.
    pub(crate) root: GcRoot,
    /// What the root says.
    pub(crate) build: FailedBuild,
}

/// What a target's failure is made of.
pub(crate) struct Failure<'a> {
    /// The gc root of the result.
    pub(crate) root: &'a str,
    /// The names of the image.
    pub(crate) names: Vec<String>,
    /// What failed.
    pub(crate) failures: &'a [&'a StepFailure],
    /// All its steps.
    pub(crate) steps: Vec<StepRecord>,
    /// What was kept of the failed steps.
    pub(crate) states: &'a [FailedState],
    /// What was built.
    pub(crate) inputs: BuildInputs,
}

/// Remembers a failure.
///
/// # Errors
/// When the store cannot be written.
pub(crate) fn remember(store: &Store, failure: Failure<'_>) -> anyhow::Result<()> {
    let mut logs = Directory::empty_root();
    let mut snapshots = vec![None];
    let mut number_of: HashMap<Snapshot, usize> = HashMap::new();
    let mut place = |snapshot: &Snapshot, snapshots: &mut Vec<Option<Snapshot>>| {
        *number_of.entry(snapshot.clone()).or_insert_with(|| {
            snapshots.push(Some(snapshot.clone()));
            snapshots.len() - 1
        })
    };
    let mut failures = Vec::new();
    for (number, failed) in failure.failures.iter().enumerate() {
        if let Some((blob, size)) = failed.log {
            logs.set(Entry {
                name: format!("{number}").into_bytes(),
                meta: Metadata::new(0o444),
                node: Node::File { blob, size, link: None },
            });
        }
        let state = failure.states.iter().find(|state| state.vertex == failed.vertex);
        let state = state.map(|state| KeptState {
            inputs: state
                .inputs
                .iter()
                .map(|input| input.as_ref().map(|snapshot| place(snapshot, &mut snapshots)))
                .collect(),
            mounts: state
                .mounts
                .iter()
                .map(|left| {
                    let tree = Snapshot {
                        tree: left.tree,
                        layers: Vec::new(),
                    };
                    (left.mount, place(&tree, &mut snapshots))
                })
                .collect(),
        });
        failures.push(FailedStep {
            name: failed.name.clone(),
            vertex: failed.vertex.to_string(),
            error: chain(&failed.error),
            log: failed.log.map(|(blob, _)| blob.to_string()),
            state,
        });
    }
    snapshots[0] = Some(Snapshot {
        tree: store.put_directory(logs)?.digest,
        layers: Vec::new(),
    });
    let build = FailedBuild {
        version: VERSION,
        names: failure.names,
        steps: failure.steps,
        failures,
        inputs: failure.inputs,
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    store.set_root(&GcRoot {
        name: format!("{FAILED}{}", failure.root),
        snapshots: snapshots.into_iter().flatten().collect(),
        payload: serde_json::to_vec(&build)?,
        created: since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
    })?;
    Ok(())
}

/// Forgets the failure of what is built now.
///
/// # Errors
/// When the store cannot be asked or written.
pub(crate) fn forget(store: &Store, root: &str) -> anyhow::Result<()> {
    let name = format!("{FAILED}{root}");
    if store.gc_root(&name)?.is_some() {
        store.remove_root(&name)?;
    }
    Ok(())
}

/// Lets go of what failed steps left; their logs stay.
///
/// # Errors
/// When the store cannot be asked or written.
pub(crate) fn drop_states(store: &Store, mut failure: Remembered) -> anyhow::Result<()> {
    for failed in &mut failure.build.failures {
        failed.state = None;
    }
    failure.root.snapshots.truncate(1);
    failure.root.payload = serde_json::to_vec(&failure.build)?;
    Ok(store.set_root(&failure.root)?)
}

/// The failure a name means: as [`find`](crate::record::find) reads names. Without a name, the last one.
///
/// # Errors
/// When the store cannot be asked, the name is ambiguous, or the record is damaged.
pub(crate) fn find(store: &Store, name: Option<&str>) -> anyhow::Result<Option<Remembered>> {
    let roots: Vec<GcRoot> = store
        .gc_roots()?
        .into_iter()
        .filter(|root| root.name.starts_with(FAILED))
        .collect();
    let Some(name) = name else {
        return roots
            .into_iter()
            .max_by_key(|root| root.created)
            .map(decode)
            .transpose();
    };
    let bare = |root: &GcRoot| root.name[FAILED.len()..].to_owned();
    let absolute = absolute(name);
    let is_exact = |root: &&GcRoot| bare(root) == name || Some(bare(root)) == absolute;
    if let Some(root) = roots.iter().find(is_exact) {
        return decode(root.clone()).map(Some);
    }
    let by_end = |root: &&GcRoot| {
        bare(root)
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with(['/', '#']))
    };
    let mut ends = roots.iter().filter(by_end);
    match (ends.next(), ends.next()) {
        (Some(root), None) => return decode(root.clone()).map(Some),
        (Some(one), Some(other)) => bail!("`{name}` could be `{}` or `{}`", bare(one), bare(other)),
        (None, _) => {}
    }
    let Ok(reference) = name.parse::<cbs_image::reference::Reference>() else {
        return Ok(None);
    };
    let wanted = reference.with_default_tag().to_string();
    let tagged = roots.into_iter().filter_map(|root| decode(root).ok());
    let tagged = tagged.filter(|found| found.build.names.contains(&wanted));
    Ok(tagged.max_by_key(|found| found.root.created))
}

fn decode(root: GcRoot) -> anyhow::Result<Remembered> {
    let build: FailedBuild =
        serde_json::from_slice(&root.payload).with_context(|| format!("root `{}` is damaged", root.name))?;
    if build.version != VERSION {
        bail!(
            "root `{}` was written by another version of cbs; build it again",
            root.name
        );
    }
    Ok(Remembered { root, build })
}

impl FailedStep {
    /// Its log's blob.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(crate) fn log(&self) -> anyhow::Result<Option<BlobDigest>> {
        let digest = self.log.as_ref().map(|text| text.parse()).transpose();
        digest.context("the record of a failed build is damaged")
    }

    /// Its vertex.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(crate) fn vertex(&self) -> anyhow::Result<VertexDigest> {
        self.vertex
            .parse()
            .ok()
            .context("the record of a failed build is damaged")
    }
}

impl Remembered {
    /// The state that was kept of a step.
    pub(crate) fn state(&self, step: &FailedStep) -> Option<FailedState> {
        let kept = step.state.as_ref()?;
        let snapshot = |number: usize| self.root.snapshots.get(number).cloned();
        Some(FailedState {
            vertex: step.vertex().ok()?,
            inputs: kept.inputs.iter().map(|number| number.and_then(snapshot)).collect(),
            mounts: kept
                .mounts
                .iter()
                .filter_map(|&(mount, number)| {
                    Some(cbs_exec::LeftMount {
                        mount,
                        tree: snapshot(number)?.tree,
                    })
                })
                .collect(),
        })
    }
}

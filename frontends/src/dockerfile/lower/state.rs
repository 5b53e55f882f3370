//! What is known about a stage while it is lowered.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use cbs_image::config::{HistoryEntry, ImageConfig, format_timestamp};
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_store::Sha256Digest;

use super::super::ast::{Head, Instruction};
use super::super::options::NamedContext;
use super::super::source::LineRange;
use super::env::Env;
use super::graph::NodeId;

/// The image a result is built on.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseImage {
    /// Its reference in canonical form, pinned where the digest is known; `None` when it is another definition's result.
    pub reference: Option<Reference>,
    /// The digest of the manifest or index that the reference names.
    pub digest: Option<Sha256Digest>,
    /// Its config as it was found. The layers below the result are those of `rootfs`.
    pub config: ImageConfig,
}

/// A stage of one conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StageId(pub(super) usize);

/// A stage of the file, or an image or context that a COPY or RUN takes from (an *external* stage).
#[derive(Debug, Default)]
pub(super) struct StageState<'a> {
    pub(super) id: StageId,
    /// Where it is declared: its FROM, or the instruction that names it.
    pub(super) head: Head,
    /// The name given with AS, in lower case; empty without.
    pub(super) alias: String,
    /// The name in step names; empty for the only stage.
    pub(super) label: String,
    /// From the comment above.
    pub(super) description: String,
    /// What FROM says, expanded.
    pub(super) base_name: String,
    pub(super) base: Option<StageId>,
    /// The named context that stands in for the stage itself, and the key it was found by.
    pub(super) replaced_by: Option<(String, &'a NamedContext)>,
    pub(super) platform: Option<Platform>,
    pub(super) commands: Vec<Command<'a>>,
    pub(super) needs: BTreeSet<StageId>,
    pub(super) kind: StageKind,
    pub(super) resolved: bool,
    pub(super) dispatched: bool,
    pub(super) triggers_added: bool,

    pub(super) image: ImageConfig,
    pub(super) base_image: Option<BaseImage>,
    /// The tree so far; `None` is the empty one.
    pub(super) root: Option<NodeId>,
    pub(super) env: Env,
    pub(super) dir: String,
    /// ARGs declared so far, in order, parents' included.
    pub(super) build_args: Vec<(String, Option<String>)>,
    pub(super) ignore_cache: bool,
    /// The number of the step being lowered, and how many there are.
    pub(super) step: usize,
    pub(super) steps: usize,
    /// Whether the instruction being lowered is a trigger of the base image.
    pub(super) in_trigger: bool,
    pub(super) workdir_set: bool,
    pub(super) cmd: Option<LineRange>,
    pub(super) entrypoint: Option<LineRange>,
    pub(super) healthcheck: Option<LineRange>,
    pub(super) outline: OutlineCapture,
    pub(super) scan_context: bool,
    pub(super) scan_stage: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StageKind {
    #[default]
    Declared,
    External,
}

/// An instruction of a stage, with the stages it takes from: one for COPY --from, one for each mount of a RUN.
#[derive(Clone, Debug)]
pub(super) struct Command<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    pub(super) sources: Vec<Option<StageId>>,
    pub(super) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    /// ONBUILD of the base.
    Trigger,
}

/// What `--call outline` tells about a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct OutlineCapture {
    pub(super) args: BTreeMap<String, ArgInfo>,
    pub(super) used: BTreeSet<String>,
    pub(super) secrets: BTreeMap<String, NeedInfo>,
    pub(super) ssh: BTreeMap<String, NeedInfo>,
}

/// An ARG as it turned out.
#[derive(Clone, Debug, Default)]
pub(super) struct ArgInfo {
    pub(super) value: String,
    pub(super) description: String,
    /// Global ARGs its default mentions.
    pub(super) uses: BTreeSet<String>,
    pub(super) lines: LineRange,
}

/// A secret or an ssh agent that some step wants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NeedInfo {
    pub(super) required: bool,
    pub(super) lines: LineRange,
}

/// Whether a history entry has a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Yes,
    No,
}

impl StageState<'_> {
    /// Adds a history entry.
    pub(super) fn commit(&mut self, text: String, layer: Layer, epoch: Option<i64>) {
        self.image.history.push(HistoryEntry {
            created: epoch.and_then(format_timestamp),
            created_by: text,
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer: layer == Layer::No,
            ..HistoryEntry::default()
        });
    }

    /// The platform, which every stage has once its base is resolved.
    pub(super) fn platform_or<'p>(&'p self, fallback: &'p Platform) -> &'p Platform {
        self.platform.as_ref().unwrap_or(fallback)
    }

    /// The name a message calls the stage.
    pub(super) fn display_name(&self) -> &str {
        if self.label.is_empty() {
            &self.base_name
        } else {
            &self.label
        }
    }

    pub(super) fn declares(&self, arg: &str) -> bool {
        self.build_args.iter().any(|(name, _)| name == arg)
    }
}

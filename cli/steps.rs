//! What a record says about the steps of a build: enough for logs, for `cbs why` and for the graph.

use std::collections::{HashMap, HashSet};

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Decided, Decision, Graph, OpKind, Reason, SolveResult};
use serde::{Deserialize, Serialize};

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    /// What it is called.
    pub(crate) name: String,
    /// What its result, and with it its log, is remembered under.
    pub(crate) key: Option<String>,
    /// Whether it ran.
    pub(crate) ran: bool,
    /// What kind of work it is; empty in records of older programs, as is all that follows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) kind: String,
    /// For which platform, when that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// The steps it reads, in the order its op counts them, by their place in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inputs: Vec<usize>,
    /// How it came to its result.
    #[serde(default)]
    pub(crate) how: How,
    /// How long it ran in this build, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) micros: u64,
    /// The step of an earlier build that it is to be compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) earlier: Option<EarlierStep>,
}

/// Whether somebody who says `wanted` means the step of that name at `place`: by its number, counted from one, or by a part of
/// its name. Who says nothing means all.
pub(crate) fn is_meant(wanted: Option<&str>, place: usize, name: &str) -> bool {
    match wanted {
        None => true,
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(number) => number == place + 1,
            Err(_) => name.contains(wanted),
        },
    }
}

/// A step of an earlier build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EarlierStep {
    /// What it was called.
    pub(crate) name: String,
    /// What its result is remembered under.
    pub(crate) key: String,
}

/// How a step came to its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum How {
    /// Nobody knows any more.
    #[default]
    Unknown,
    /// A source that was here.
    Pinned,
    /// It was known by its definition.
    Definition,
    /// It was known by the content of its inputs.
    Content,
    /// Another cache had it.
    Remote,
    /// Somebody else did it at the same time.
    Shared,
    /// Nobody needed it: what needs it was known.
    Unneeded,
    /// It ran: nothing like it ran before.
    FirstTime,
    /// It ran: something changed.
    Changed,
    /// It ran: it was told not to use what is known.
    Refused,
    /// It ran: its result was known and its bytes were gone.
    BytesMissing,
    /// It did not come to a result.
    Failed,
}

impl How {
    /// What it is called in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Pinned => "pinned",
            Self::Definition => "definition",
            Self::Content => "content",
            Self::Remote => "remote",
            Self::Shared => "shared",
            Self::Unneeded => "unneeded",
            Self::FirstTime => "first-time",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::BytesMissing => "bytes-missing",
            Self::Failed => "failed",
        }
    }

    fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Pinned => Self::Pinned,
            Decision::DefinitionHit => Self::Definition,
            Decision::ContentHit => Self::Content,
            Decision::RemoteHit(_) => Self::Remote,
            Decision::Shared => Self::Shared,
            Decision::Unneeded => Self::Unneeded,
            Decision::Ran(Reason::FirstTime) => Self::FirstTime,
            Decision::Ran(Reason::Changed { .. }) => Self::Changed,
            Decision::Ran(Reason::CacheRefused) => Self::Refused,
            Decision::Ran(Reason::BytesMissing) => Self::BytesMissing,
            Decision::Failed | Decision::Abandoned => Self::Failed,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a kind of work is called.
pub(crate) fn kind_name(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Exec => "exec",
        OpKind::Source => "source",
        OpKind::File => "file",
        OpKind::Build => "build",
        OpKind::Merge => "merge",
        OpKind::Diff => "diff",
    }
}

/// The steps of one target, inputs before their users. `earlier` has those of the target's last build.
pub(crate) fn step_records(
    graph: &Graph,
    solved: &SolveResult,
    own: &HashSet<VertexDigest>,
    earlier: &[StepRecord],
) -> Vec<StepRecord> {
    let own: Vec<&Decided> = solved
        .decisions
        .iter()
        .filter(|decided| own.contains(&decided.vertex))
        .collect();
    let places: HashMap<VertexDigest, usize> = own
        .iter()
        .enumerate()
        .map(|(place, decided)| (decided.vertex, place))
        .collect();
    let earlier = Earlier::new(earlier);
    let record = |decided: &&Decided| {
        let mut step = StepRecord {
            name: decided.name.clone(),
            key: decided.key.map(|key| key.to_string()),
            ran: matches!(decided.decision, Decision::Ran(_)),
            how: How::of(&decided.decision),
            micros: u64::try_from(decided.duration.as_micros()).unwrap_or(u64::MAX),
            ..StepRecord::default()
        };
        if let Some(id) = graph.find(&decided.vertex) {
            let vertex = graph.vertex(id);
            step.kind = kind_name(vertex.kind()).to_owned();
            step.platform = vertex.platform_text();
            step.inputs = vertex
                .inputs
                .iter()
                .filter_map(|edge| places.get(&graph.vertex(edge.vertex).digest).copied())
                .collect();
        }
        step.earlier = earlier.find(&step);
        step
    };
    own.iter().map(record).collect()
}

/// The steps of the last build, by what steps of the next one are likely to be called.
struct Earlier<'e> {
    by_name: HashMap<(String, Option<&'e str>), &'e StepRecord>,
    by_place: HashMap<(String, Option<&'e str>), &'e StepRecord>,
}

impl<'e> Earlier<'e> {
    fn new(steps: &'e [StepRecord]) -> Self {
        let mut found = Self {
            by_name: HashMap::new(),
            by_place: HashMap::new(),
        };
        for step in steps {
            let platform = step.platform.as_deref();
            found.by_name.entry((text_of(&step.name), platform)).or_insert(step);
            if let Some(place) = place_of(&step.name) {
                found.by_place.entry((place, platform)).or_insert(step);
            }
        }
        found
    }

    /// The step of the same text, or else of the same place; nothing when its key is the same.
    fn find(&self, step: &StepRecord) -> Option<EarlierStep> {
        let platform = step.platform.as_deref();
        let by_name = self.by_name.get(&(text_of(&step.name), platform));
        let found = by_name.or_else(|| self.by_place.get(&(place_of(&step.name)?, platform)));
        let found = found.filter(|found| found.key != step.key)?;
        Some(EarlierStep {
            name: found.name.clone(),
            key: found.key.clone()?,
        })
    }
}

/// The number in front of a name and what is left of it: `[build 2/5] RUN make` is place `build 2` and `RUN make`.
fn split(name: &str) -> (Option<&str>, &str) {
    let inside = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match inside {
        Some((inside, text)) => match inside.rsplit_once('/') {
            Some((place, _)) if place.ends_with(|c: char| c.is_ascii_digit()) => (Some(place), text.trim_start()),
            _ => (None, name),
        },
        None => (None, name),
    }
}

/// What a step does, without its number; of an image without its digest.
fn text_of(name: &str) -> String {
    let (place, text) = split(name);
    let stage = place
        .and_then(|place| place.rsplit_once(' '))
        .map_or("", |(stage, _)| stage);
    let text = match text.rsplit_once("@sha256:") {
        Some((text, _)) if text.starts_with("FROM ") => text,
        _ => text,
    };
    format!("{stage}\n{text}")
}

fn place_of(name: &str) -> Option<String> {
    split(name).0.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, key: &str) -> StepRecord {
        StepRecord {
            name: name.to_owned(),
            key: Some(key.to_owned()),
            ..StepRecord::default()
        }
    }

    #[test]
    fn steps_are_matched_by_text_and_else_by_place() {
        let before = [
            step("[1/3] FROM docker.io/library/a:1@sha256:00", "a"),
            step("[2/3] RUN one", "b"),
            step("[3/3] RUN two", "c"),
            step("[internal] load build context", "d"),
        ];
        let earlier = Earlier::new(&before);
        let found = |name: &str, key: &str| earlier.find(&step(name, key)).map(|found| found.key);
        let cases = [
            ("[1/4] FROM docker.io/library/a:1@sha256:11", Some("a")),
            ("[2/4] RUN new", Some("b")),
            ("[3/4] RUN one", Some("b")),
            ("[4/4] RUN two", Some("c")),
            ("[internal] load build context", Some("d")),
            ("[other 2/4] RUN one", None),
            ("[other 2/4] RUN new", None),
        ];
        for (name, want) in cases {
            assert_eq!(found(name, "x").as_deref(), want, "{name}");
        }
        assert_eq!(found("[2/3] RUN one", "b"), None, "nothing changed");
    }

    #[test]
    fn records_of_older_programs_are_read() {
        let old: StepRecord = serde_json::from_str(r#"{"name":"a","key":null,"ran":true}"#).expect("reads");
        assert_eq!((old.how, old.inputs.len()), (How::Unknown, 0));
    }
}

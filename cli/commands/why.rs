//! `cbs why`: what made the steps of a build run.

use std::process::ExitCode;

use anyhow::bail;
use cbs_solver::{Difference, Explanation, PartValue, explain_against};
use cbs_store::compare::Times;
use cbs_store::{Access, CacheKey, Store, StoreError};
use clap::Args;
use serde_json::{Value, json};

use super::trees::{Changes, change_json, change_text, changes};
use super::{open_store, print};
use crate::args::Global;
use crate::record::{Record, find_step, newest};
use crate::steps::{How, StepRecord, is_meant};

/// Files shown of one input.
const FILES: usize = 20;
/// Characters of a value shown.
const VALUE: usize = 300;

/// `cbs why`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs why docker-bake.hcl#app      what made its steps run, and which files, arguments or bases changed
  cbs why example/app:1#4          the same for one step, also when it is known by now
  cbs why                          the last build")]
pub(crate) struct WhyArgs {
    /// What was realised, and which of its steps: a number as `cbs log` prints it, or a part of its name [default: the
    /// last build]
    #[arg(value_name = "REF[#STEP]")]
    reference: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// `cbs why`.
pub(crate) fn run(global: &Global, args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadOnly)?;
    let (root, record, wanted) = match &args.reference {
        Some(name) => find_step(&store, name)?,
        None => {
            let (root, record) = newest(&store)?;
            (root, record, None)
        }
    };
    let steps = record.steps.iter().enumerate().filter(|(place, step)| match &wanted {
        None => step.ran || has_changed_source(step),
        Some(_) => is_meant(wanted.as_deref(), *place, &step.name),
    });
    let reasons: Vec<Reason<'_>> = steps
        .map(|(place, _)| Reason::find(&store, &record, place))
        .collect::<Result<_, _>>()?;
    if let (Some(wanted), true) = (&wanted, reasons.is_empty()) {
        bail!("no step of `{}` is called `{wanted}`; `cbs log` lists them", root.name);
    }
    if args.json {
        let steps: Vec<Value> = reasons.iter().map(Reason::json).collect();
        print(&format!("{}\n", json!({ "name": root.name, "steps": steps })))?;
    } else if reasons.is_empty() {
        print("nothing ran: the result of every step was known; `cbs why REF#STEP` tells why one ran when it did\n")?;
    } else {
        print(&reasons.iter().map(Reason::text).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn has_changed_source(step: &StepRecord) -> bool {
    step.kind == "source" && step.earlier.is_some() && step.name.contains("FROM ")
}

/// Why one step ran.
struct Reason<'r> {
    /// Counted from zero.
    place: usize,
    step: &'r StepRecord,
    /// What the run itself says; `None` when it is forgotten.
    explanation: Option<Explanation>,
    /// When the run it is compared with ran.
    earlier: Option<i64>,
    inputs: Vec<ChangedInput<'r>>,
}

/// An input whose files are not what they were.
struct ChangedInput<'r> {
    /// Which step gives it, counted from zero.
    step: Option<(usize, &'r StepRecord)>,
    /// `None` when one of the trees is not here any more.
    changes: Option<Changes>,
}

impl<'r> Reason<'r> {
    fn find(store: &Store, record: &'r Record, place: usize) -> Result<Self, StoreError> {
        let step = &record.steps[place];
        let mut reason = Self {
            place,
            step,
            explanation: None,
            earlier: None,
            inputs: Vec::new(),
        };
        let Some(key) = step.key.as_ref().and_then(|key| key.parse::<CacheKey>().ok()) else {
            return Ok(reason);
        };
        let earlier = step.earlier.as_ref().and_then(|earlier| earlier.key.parse().ok());
        let Some(explanation) = explain_against(&|key| store.realisation(key), &key, earlier.as_ref())? else {
            return Ok(reason);
        };
        if let Some(earlier) = &explanation.earlier {
            reason.earlier = store.realisation(earlier)?.map(|run| run.created);
        }
        for tree in &explanation.trees {
            let Some(before) = &tree.before else { continue };
            let wanted = |path: &[u8]| tree.seen.covers(path);
            let found = match changes(store, (before, &tree.after), Times::Ignore, FILES, &wanted) {
                Ok(found) if found.is_empty() => continue,
                Ok(found) => Some(found),
                Err(StoreError::MissingDirectory(_)) => None,
                Err(err) => return Err(err),
            };
            let input = step.inputs.get(tree.input).copied();
            reason.inputs.push(ChangedInput {
                step: input.and_then(|input| Some((input, record.steps.get(input)?))),
                changes: found,
            });
        }
        reason.explanation = Some(explanation);
        Ok(reason)
    }

    fn differences(&self) -> &[Difference] {
        self.explanation.as_ref().map_or(&[], |found| &found.differences)
    }

    /// The texts of the step then and now, when somebody wrote something else.
    fn names(&self) -> Option<(&str, &str)> {
        let earlier = self.step.earlier.as_ref()?;
        (earlier.name != self.step.name).then_some((earlier.name.as_str(), self.step.name.as_str()))
    }

    /// One line: the first thing that is not as it was.
    fn first(&self) -> String {
        match self.step.how {
            How::Refused => return "it was told not to use what is known (--no-cache)".to_owned(),
            How::BytesMissing => return "its result is known, and the bytes were no longer here".to_owned(),
            How::Failed => return "it did not come to a result".to_owned(),
            _ => {}
        }
        if self.step.kind == "source" {
            return match self.names().and_then(|(before, after)| changed_image(before, after)) {
                Some(text) => text,
                None if self.step.earlier.is_some() => "what it names is not what it was".to_owned(),
                None => "it was not here yet".to_owned(),
            };
        }
        if let Some(first) = self.differences().first() {
            return difference_text(first, self.base());
        }
        if self.step.how == How::Changed {
            return "something changed since an earlier run that is no longer remembered".to_owned();
        }
        match (&self.explanation, self.step.ran) {
            (None, _) => "it is no longer known when it ran and why".to_owned(),
            (Some(_), true) => "nothing like it ran before, as far as this store remembers".to_owned(),
            (Some(_), false) => "it was known; when it ran, nothing like it had run before".to_owned(),
        }
    }

    /// The step whose result this one is built on, when that is what changed.
    fn base(&self) -> Option<(usize, &StepRecord)> {
        self.inputs.first().and_then(|input| input.step)
    }

    fn text(&self) -> String {
        let took = match self.step.micros {
            0 => String::new(),
            micros => format!(" for {:.2}s", micros as f64 / 1e6),
        };
        let state = if self.step.ran { "ran" } else { "known" };
        let mut text = format!("#{} {}: {state}{took}\n", self.place + 1, self.step.name);
        text.push_str(&format!("  {}\n", self.first()));
        for difference in self.differences().iter().skip(1) {
            text.push_str(&format!("  {}\n", difference_text(difference, self.base())));
        }
        if let (Some((before, after)), false) = (self.names(), self.step.kind == "source") {
            text.push_str(&format!("  instruction: `{before}` became `{after}`\n"));
        }
        for input in &self.inputs {
            text.push_str(&input.text());
        }
        text
    }

    fn json(&self) -> Value {
        let difference = |difference: &Difference| {
            let value = |value: &Option<PartValue>| value.as_ref().map(ToString::to_string);
            json!({
                "part": difference.name, "kind": kind_of(&difference.name),
                "before": value(&difference.before), "after": value(&difference.after),
            })
        };
        let earlier = self.explanation.as_ref().and_then(|found| found.earlier);
        json!({
            "step": self.place + 1, "name": self.step.name, "kind": self.step.kind, "ran": self.step.ran,
            "how": self.step.how.name(), "seconds": self.step.micros as f64 / 1e6, "first": self.first(),
            "created": self.explanation.as_ref().map(|found| found.created),
            "earlier": earlier.map(|key| json!({
                "key": key.to_string(), "created": self.earlier,
                "name": self.step.earlier.as_ref().map(|earlier| &earlier.name),
            })),
            "earlierName": self.step.earlier.as_ref().map(|earlier| &earlier.name),
            "differences": self.differences().iter().map(difference).collect::<Vec<_>>(),
            "inputs": self.inputs.iter().map(ChangedInput::json).collect::<Vec<_>>(),
        })
    }
}

impl ChangedInput<'_> {
    fn text(&self) -> String {
        let of = match self.step {
            Some((place, step)) => format!("of #{} {}", place + 1, step.name),
            None => "of an input".to_owned(),
        };
        let Some(changes) = &self.changes else {
            return format!("  files {of} changed; what they were is no longer in the store\n");
        };
        let mut text = format!("  files {of}:\n");
        for change in &changes.shown {
            text.push_str(&format!("    {}\n", change_text(change, Times::Ignore)));
        }
        if changes.more > 0 {
            text.push_str(&format!("    and {} more\n", changes.more));
        }
        text
    }

    fn json(&self) -> Value {
        let files = self.changes.as_ref().map(|changes| {
            let files = changes.shown.iter().map(|change| change_json(change, Times::Ignore));
            files.collect::<Vec<_>>()
        });
        json!({
            "step": self.step.map(|(place, _)| place + 1), "name": self.step.map(|(_, step)| &step.name),
            "files": files, "more": self.changes.as_ref().map(|changes| changes.more),
        })
    }
}

/// What a person changes to change a part.
fn kind_of(part: &str) -> &'static str {
    let first = part.split(" of action").next().unwrap_or(part);
    match first {
        "base" | "content of mount /" | "lower input" | "builder" => "base",
        "platform" | "platform version" | "platform feature" => "platform",
        "copied content" | "upper input" => "files",
        "copy" | "destination" | "mkfile" | "mkdir" | "rm" | "symlink" | "data" | "mode" | "flags" | "include"
        | "exclude" | "owner" | "group" | "link text" | "working directory" | "user" => "instruction",
        _ if first.starts_with("environment ") => "variable",
        _ if first.starts_with("argument ") => "instruction",
        _ if first.starts_with("content of ") || first.starts_with("merged input") || first.starts_with("/etc/") => {
            "files"
        }
        _ => "setting",
    }
}

fn difference_text(difference: &Difference, base: Option<(usize, &StepRecord)>) -> String {
    let name = difference.name.as_str();
    let value = |value: &Option<PartValue>| match value {
        Some(value) => format!("`{}`", shorten(&value.to_string())),
        None => "nothing".to_owned(),
    };
    let change = || match (&difference.before, &difference.after) {
        (Some(_), None) => format!("{} is gone", value(&difference.before)),
        (None, _) => format!("{} is new", value(&difference.after)),
        _ => format!("{} became {}", value(&difference.before), value(&difference.after)),
    };
    match kind_of(name) {
        "variable" => {
            let variable = name.strip_prefix("environment ").unwrap_or(name);
            format!("variable {variable} (ARG or ENV): {}", change())
        }
        "instruction" if name.starts_with("argument ") => format!("command: {}", change()),
        "base" => {
            let changed = base.and_then(|(_, step)| {
                let earlier = step.earlier.as_ref()?;
                changed_image(&earlier.name, &step.name)
            });
            match (changed, base) {
                (Some(text), _) => text,
                (None, Some((place, step))) => {
                    format!(
                        "what it is built on changed: the result of #{} {}",
                        place + 1,
                        step.name
                    )
                }
                (None, None) => "what it is built on changed".to_owned(),
            }
        }
        "files" => format!("{name} changed"),
        _ => format!("{name}: {}", change()),
    }
}

/// `base image docker.io/library/a:1: sha256:… became sha256:…`, of the names of two steps.
fn changed_image(before: &str, after: &str) -> Option<String> {
    let image = |name: &str| {
        let (_, image) = name.split_once("FROM ")?;
        let image = image.split(' ').next().unwrap_or(image);
        Some(match image.split_once('@') {
            Some((image, digest)) => (image.to_owned(), digest.to_owned()),
            None => (image.to_owned(), String::new()),
        })
    };
    let (before, after) = (image(before)?, image(after)?);
    if before == after {
        return None;
    }
    if before.0 == after.0 {
        return Some(format!("base image {}: {} became {}", after.0, before.1, after.1));
    }
    let whole = |(image, digest): (String, String)| match digest.as_str() {
        "" => image,
        digest => format!("{image}@{digest}"),
    };
    Some(format!("base image: {} became {}", whole(before), whole(after)))
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= VALUE {
        return text.to_owned();
    }
    let start: String = text.chars().take(VALUE).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_kind() {
        for (part, want) in [
            ("argument 2", "instruction"),
            ("environment VERSION", "variable"),
            ("content of mount /", "base"),
            ("content of mount /src", "files"),
            ("base of action 1", "base"),
            ("copied content of action 0", "files"),
            ("network mode", "setting"),
        ] {
            assert_eq!(kind_of(part), want, "{part}");
        }
    }

    #[test]
    fn base_images_are_named_with_both_digests() {
        let text = changed_image("[1/2] FROM a/b:1@sha256:00", "[1/2] FROM a/b:1@sha256:11");
        assert_eq!(text.as_deref(), Some("base image a/b:1: sha256:00 became sha256:11"));
        let text = changed_image("[1/2] FROM a/b:1@sha256:00", "[1/2] FROM a/b:2");
        assert_eq!(text.as_deref(), Some("base image: a/b:1@sha256:00 became a/b:2"));
        assert_eq!(changed_image("[1/2] FROM a", "[1/2] FROM a"), None);
        assert_eq!(changed_image("RUN x", "RUN y"), None);
    }
}

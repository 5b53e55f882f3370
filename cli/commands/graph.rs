//! `cbs graph`: the steps of a build as DOT, SVG or JSON.

use std::process::ExitCode;

use cbs_store::{Access, CacheKey, Store};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{open_store, print};
use crate::args::Global;
use crate::drawing::{Mark, Shape, draw};
use crate::record::{Record, find, newest};
use crate::steps::{How, StepRecord};

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Graphviz
    #[default]
    Dot,
    /// A drawing
    Svg,
    /// One object with vertices and edges
    Json,
}

/// `cbs graph`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs graph docker-bake.hcl#app --format svg > app.svg
  cbs graph example/app:1 | dot -Tpng > app.png")]
pub(crate) struct GraphArgs {
    /// What was realised [default: the last build]
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// What to write
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// `cbs graph`.
pub(crate) fn run(global: &Global, args: &GraphArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadOnly)?;
    let (root, record) = match &args.reference {
        Some(name) => find(&store, name)?,
        None => newest(&store)?,
    };
    let shapes = shapes(&store, &record);
    let format = if args.json { Format::Json } else { args.format };
    print(&match format {
        Format::Dot => dot(&root.name, &shapes),
        Format::Svg => draw(&root.name, &shapes),
        Format::Json => format!("{}\n", as_json(&root.name, &record, &shapes)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The steps as things to draw.
fn shapes(store: &Store, record: &Record) -> Vec<Shape> {
    record.steps.iter().map(|step| shape(store, step)).collect()
}

fn shape(store: &Store, step: &StepRecord) -> Shape {
    let key = step.key.as_ref().and_then(|key| key.parse::<CacheKey>().ok());
    // What it took once is nice to know and no more: a damaged row is for `cbs store verify`.
    let remembered = || Some(store.realisation(&key?).ok()??.duration.as_secs_f64());
    let seconds = match step.micros {
        0 => remembered().unwrap_or_default(),
        micros => micros as f64 / 1e6,
    };
    let mark = match step.how {
        _ if step.ran => Mark::Ran,
        How::Unneeded => Mark::Unneeded,
        How::Failed => Mark::Failed,
        _ => Mark::Cached,
    };
    let remark = match mark {
        Mark::Ran => format!("ran {seconds:.2}s"),
        Mark::Cached if seconds > 0.0 => format!("cached, took {seconds:.2}s"),
        Mark::Cached => "cached".to_owned(),
        Mark::Unneeded => "cached, not looked at".to_owned(),
        Mark::Failed => "failed".to_owned(),
    };
    let platform = step.platform.as_deref().map(|platform| format!(" · {platform}"));
    Shape {
        text: step.name.clone(),
        remark: remark + &platform.unwrap_or_default(),
        mark,
        is_source: step.kind == "source",
        seconds,
        inputs: step.inputs.clone(),
    }
}

/// A string as DOT quotes it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

fn dot(name: &str, shapes: &[Shape]) -> String {
    let mut text = format!("digraph {} {{\n", quoted(name));
    text.push_str(
        "  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=10];\n",
    );
    for (place, shape) in shapes.iter().enumerate() {
        let label = format!("{}\n{}", shape.text, shape.remark);
        text.push_str(&format!(
            "  s{} [label={}, fillcolor=\"{}\"{}];\n",
            place + 1,
            quoted(&label),
            shape.mark.colour(),
            if shape.is_source { ", shape=ellipse" } else { "" },
        ));
    }
    for (from, to) in edges(shapes) {
        text.push_str(&format!("  s{} -> s{};\n", from + 1, to + 1));
    }
    text.push_str("}\n");
    text
}

/// Who gives something to whom, each pair once.
fn edges(shapes: &[Shape]) -> Vec<(usize, usize)> {
    let mut edges: Vec<(usize, usize)> = shapes
        .iter()
        .enumerate()
        .flat_map(|(to, shape)| shape.inputs.iter().map(move |from| (*from, to)))
        .collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn as_json(name: &str, record: &Record, shapes: &[Shape]) -> Value {
    let vertex = |(place, (step, shape)): (usize, (&StepRecord, &Shape))| {
        json!({
            "id": place + 1, "name": step.name, "kind": step.kind, "platform": step.platform, "key": step.key,
            "how": step.how.name(), "ran": step.ran, "cached": matches!(shape.mark, Mark::Cached | Mark::Unneeded),
            "seconds": step.micros as f64 / 1e6, "took": shape.seconds,
        })
    };
    let edges: Vec<Value> = edges(shapes)
        .into_iter()
        .map(|(from, to)| json!({ "from": from + 1, "to": to + 1 }))
        .collect();
    let vertices = record.steps.iter().zip(shapes).enumerate().map(vertex);
    json!({ "name": name, "vertices": vertices.collect::<Vec<_>>(), "edges": edges })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_quotes_what_people_write() {
        assert_eq!(quoted("RUN echo \"a\\b\"\nx"), "\"RUN echo \\\"a\\\\b\\\"\\nx\"");
    }
}

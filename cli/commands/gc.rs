//! `cbs gc`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use cbs_store::{Access, DryRun, GcReport, KeptBecause, Store};
use clap::Args;
use serde_json::{Value, json};

use super::{open_store, parse_duration, print};
use crate::args::Global;
use crate::failure::Usage;
use crate::gc_policy::{GcRule, Space, idle};
use crate::progress::human_bytes;

/// `cbs gc`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  cbs gc                                   what no root and no running build keeps, but for cache mounts
  cbs gc --max-used-space 20GB             the least recently used, until the store has that size
  cbs gc --filter type==exec.cachemount --keep-duration 48h
  cbs gc --policy --dry-run                what the rules of the settings would take, and why each thing stays")]
pub(crate) struct GcArgs {
    /// Say what would go and why the rest stays
    #[arg(long)]
    dry_run: bool,
    /// Remove everything that no root and no running build needs
    #[arg(short, long)]
    all: bool,
    /// Remove only what all of these choose: id, description, type, mutable, until, …; such as type==exec.cachemount
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Keep what was used within this time, such as 48h or 7d
    #[arg(long, value_name = "DURATION")]
    keep_duration: Option<String>,
    /// Remove until the store is no larger than this, such as 20GB or 10% of the disk
    #[arg(long, value_name = "BYTES")]
    max_used_space: Option<String>,
    /// Never go below this size
    #[arg(long, value_name = "BYTES", alias = "keep-storage")]
    reserved_space: Option<String>,
    /// Remove until the disk has this much free
    #[arg(long, value_name = "BYTES")]
    min_free_space: Option<String>,
    /// Remove by the rules of the settings, or the built-in ones
    #[arg(long, conflicts_with_all = [
        "all", "filter", "keep_duration", "max_used_space", "reserved_space", "min_free_space",
    ])]
    policy: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Ignored: nothing is asked before removing
    #[arg(short, long, hide = true)]
    force: bool,
    /// Ignored: the report always names each thing
    #[arg(long, hide = true)]
    verbose: bool,
}

impl GcArgs {
    /// The rule that the flags make.
    fn rule(&self) -> anyhow::Result<GcRule> {
        let wrong = |flag: &str, err: anyhow::Error| Usage(format!("--{flag} {err:#}"));
        let space = |flag: &str, text: &Option<String>| {
            let space = text.as_deref().map(Space::parse).transpose();
            space.map_err(|err| wrong(flag, err))
        };
        // As docker has it, a time may be a filter.
        let (times, filters): (Vec<&String>, Vec<&String>) = self
            .filter
            .iter()
            .partition(|text| text.starts_with("until=") && !text.contains(','));
        let keep = self.keep_duration.as_deref().map(parse_duration).transpose();
        let mut keep = keep.map_err(|err| wrong("keep-duration", err))?;
        for text in times {
            let time = parse_duration(text.trim_start_matches("until="));
            let time = time.map_err(|err| wrong("filter until:", err))?;
            keep = Some(keep.map_or(time, |keep| keep.max(time)));
        }
        let filters: Vec<String> = filters.into_iter().cloned().collect();
        crate::filters::Filter::all_of(&filters).map_err(|err| Usage(err.to_string()))?;
        Ok(GcRule {
            all: self.all,
            filters: if filters.is_empty() {
                Vec::new()
            } else {
                vec![filters.join(",")]
            },
            keep_duration: keep,
            max_used_space: space("max-used-space", &self.max_used_space)?,
            reserved_space: space("reserved-space", &self.reserved_space)?,
            min_free_space: space("min-free-space", &self.min_free_space)?,
        })
    }
}

/// `cbs gc`.
pub(crate) fn run(global: &Global, args: &GcArgs) -> anyhow::Result<ExitCode> {
    let rules = if args.policy {
        global.settings.gc.rules()
    } else {
        vec![args.rule()?]
    };
    let store = open_store(global, Access::ReadWrite)?;
    // What is left of killed builds goes as well, in the store and out of it.
    use cbs_exec::launch::SweepDepth;
    let facts = cbs_exec::launch::probe::Facts::probe();
    let is_swept = facts.sweep_groups(SweepDepth::Parents);
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let mut documents = Vec::new();
    for rule in &rules {
        let report = collect(&store, rule, dry_run)?;
        if args.json {
            documents.push(as_json(&report));
        } else {
            let title = if args.policy {
                format!("rule: {}\n", describe(rule))
            } else {
                String::new()
            };
            print(&(title + &as_text(&report, rule, dry_run)))?;
        }
    }
    if args.json {
        let value = match documents.len() {
            1 if !args.policy => documents.remove(0),
            _ => Value::from(documents),
        };
        print(&format!("{value}\n"))?;
    }
    if !is_swept {
        // What was dying when this began.
        facts.sweep_groups(SweepDepth::Parents);
    }
    Ok(ExitCode::SUCCESS)
}

/// With a time or filter but no size, everything that is older or chosen goes, and so do cache mounts.
fn collect(store: &Store, rule: &GcRule, dry_run: DryRun) -> anyhow::Result<GcReport> {
    let asks_for_mounts = rule.filters.iter().any(|filter| filter.contains("exec.cachemount"));
    let rule = GcRule {
        all: rule.all || asks_for_mounts,
        ..rule.clone()
    };
    if rule.filters.iter().any(String::is_empty) {
        bail!(Usage("a filter is empty".to_owned()));
    }
    rule.collect(store, dry_run)
}

/// A rule in words.
fn describe(rule: &GcRule) -> String {
    let mut parts = Vec::new();
    if !rule.filters.is_empty() {
        parts.push(format!("only {}", rule.filters.join(" or ")));
    }
    if let Some(time) = rule.keep_duration {
        parts.push(format!("not used for {}", time_text(time)));
    }
    let spaces = [
        ("more than", rule.max_used_space),
        ("never below", rule.reserved_space),
        ("to keep free", rule.min_free_space),
    ];
    for (what, space) in spaces {
        match space {
            Some(Space::Bytes(bytes)) => parts.push(format!("{what} {}", human_bytes(bytes))),
            Some(Space::Percent(percent)) => parts.push(format!("{what} {percent}%")),
            None => {}
        }
    }
    if rule.all {
        parts.push("all".to_owned());
    }
    if parts.is_empty() {
        parts.push("what nothing keeps".to_owned());
    }
    parts.join(", ")
}

fn time_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn as_text(report: &GcReport, rule: &GcRule, dry_run: DryRun) -> String {
    let mut text = String::new();
    let goes = if dry_run == DryRun::Yes {
        "would remove"
    } else {
        "removed"
    };
    for removed in &report.removed {
        let used = removed
            .used
            .map(|used| format!("; last used {} ago", time_text(idle(used))));
        text.push_str(&format!(
            "{goes} {} ({}): {}{}\n",
            removed.item,
            human_bytes(removed.bytes),
            why_it_goes(rule),
            used.unwrap_or_default(),
        ));
    }
    if dry_run == DryRun::Yes {
        for kept in &report.kept {
            text.push_str(&format!(
                "keeps {} ({}): {}\n",
                kept.item,
                human_bytes(kept.bytes),
                because(&kept.because, rule),
            ));
        }
    }
    text.push_str(&format!(
        "{goes} {} of {}\n",
        human_bytes(report.freed),
        human_bytes(report.used_before)
    ));
    text
}

fn why_it_goes(rule: &GcRule) -> &'static str {
    if rule.max_used_space.is_some() || rule.min_free_space.is_some() || rule.reserved_space.is_some() {
        "no root keeps it, and it is the least recently used beyond the size"
    } else {
        "no root keeps it"
    }
}

fn because(because: &KeptBecause, rule: &GcRule) -> String {
    match (because, rule.keep_duration) {
        (KeptBecause::Recent, Some(time)) => format!("used within the last {}", time_text(time)),
        _ => because.to_string(),
    }
}

fn as_json(report: &GcReport) -> Value {
    let removed: Vec<_> = report
        .removed
        .iter()
        .map(|gone| json!({ "item": gone.item.to_string(), "bytes": gone.bytes, "lastUsed": gone.used }))
        .collect();
    let kept = report
        .kept
        .iter()
        .map(|kept| json!({ "item": kept.item.to_string(), "bytes": kept.bytes, "because": kept.because.to_string() }));
    json!({
        "removed": removed, "kept": kept.collect::<Vec<_>>(), "freed": report.freed,
        "usedBefore": report.used_before, "usedAfter": report.used_after,
    })
}

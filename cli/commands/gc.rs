//! `cbs gc`.

use std::process::ExitCode;

use cbs_store::{Access, DryRun, GcPolicy, GcReport};
use serde_json::json;

use super::{open_store, parse_bytes, parse_duration, print};
use crate::args::{GcArgs, Global};
use crate::progress::human_bytes;

pub(crate) fn run(global: &Global, args: &GcArgs) -> anyhow::Result<ExitCode> {
    let bytes = |text: &Option<String>| text.as_deref().map(parse_bytes).transpose();
    let policy = GcPolicy {
        keep_duration: args
            .keep_duration
            .as_deref()
            .map(parse_duration)
            .transpose()?
            .unwrap_or_default(),
        max_used: bytes(&args.max_used_space)?,
        reserved: bytes(&args.reserved_space)?,
        min_free: bytes(&args.min_free_space)?,
        all: args.all,
    };
    let store = open_store(global, Access::ReadWrite)?;
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let report = store.gc(&policy, dry_run)?;
    print(&if args.json {
        as_json(&report)
    } else {
        as_text(&report, dry_run)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(report: &GcReport, dry_run: DryRun) -> String {
    let mut text = String::new();
    let goes = if dry_run == DryRun::Yes {
        "would remove"
    } else {
        "removed"
    };
    for removed in &report.removed {
        text.push_str(&format!("{goes} {} ({})\n", removed.item, human_bytes(removed.bytes)));
    }
    if dry_run == DryRun::Yes {
        for kept in &report.kept {
            text.push_str(&format!(
                "keeps {} ({}): {}\n",
                kept.item,
                human_bytes(kept.bytes),
                kept.because
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

fn as_json(report: &GcReport) -> String {
    let removed: Vec<_> = report
        .removed
        .iter()
        .map(|gone| json!({ "item": gone.item.to_string(), "bytes": gone.bytes }))
        .collect();
    let kept = report
        .kept
        .iter()
        .map(|kept| json!({ "item": kept.item.to_string(), "bytes": kept.bytes, "because": kept.because.to_string() }));
    let value = json!({
        "removed": removed, "kept": kept.collect::<Vec<_>>(), "freed": report.freed,
        "usedBefore": report.used_before, "usedAfter": report.used_after,
    });
    format!("{value}\n")
}

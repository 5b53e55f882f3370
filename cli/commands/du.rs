//! `cbs du`.

use std::process::ExitCode;

use cbs_store::{Access, Amount, ItemUse, Usage};
use serde_json::{Value, json};

use super::{open_store, print};
use crate::args::{DuArgs, Global};
use crate::progress::human_bytes;

pub(crate) fn run(global: &Global, args: &DuArgs) -> anyhow::Result<ExitCode> {
    let usage = open_store(global, Access::ReadOnly)?.usage()?;
    print(&if args.json {
        format!("{}\n", as_json(&usage))
    } else {
        as_text(&usage, args.verbose)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(usage: &Usage, verbose: bool) -> String {
    let disk = &usage.disk;
    let mut text = String::new();
    let mut row = |name: &str, count: Option<u64>, bytes: u64| {
        let count = count.map(|count| count.to_string()).unwrap_or_default();
        text.push_str(&format!("{name:<24} {count:>10} {:>12}\n", human_bytes(bytes)));
    };
    row("large blobs", Some(disk.large.count), disk.large.bytes);
    row("packs of small blobs", Some(disk.packs.count), disk.packs.bytes);
    row("compressed layers", Some(disk.layers.count), disk.layers.bytes);
    row("cache mounts", Some(disk.caches.count), disk.caches.bytes);
    row("index", None, disk.database);
    row("scratch", None, disk.work);
    row("reserve", None, disk.reserve);
    row("total", None, disk.total());
    let mut section = |title: &str, items: &[ItemUse]| {
        if !items.is_empty() {
            text.push_str(&format!("\n{:<48} {:>12} {:>12}\n", title, "size", "exclusive"));
        }
        for item in items {
            let state = if item.incomplete { "  (content gone)" } else { "" };
            text.push_str(&format!(
                "{:<48} {:>12} {:>12}{state}\n",
                item.name,
                human_bytes(item.bytes),
                human_bytes(item.exclusive)
            ));
        }
    };
    section("ROOT", &usage.roots);
    if verbose {
        section("REALISATION", &usage.realisations);
    }
    if !usage.caches.is_empty() {
        text.push_str(&format!("\n{:<48} {:>12}\n", "CACHE MOUNT", "size"));
    }
    for cache in &usage.caches {
        text.push_str(&format!("{:<48} {:>12}\n", cache.id, human_bytes(cache.bytes)));
    }
    text
}

fn as_json(usage: &Usage) -> Value {
    let amount = |amount: &Amount| json!({ "count": amount.count, "bytes": amount.bytes });
    let items = |items: &[ItemUse]| -> Vec<Value> {
        let item = |item: &ItemUse| {
            json!({
                "name": item.name, "key": item.key.map(|key| key.to_string()), "bytes": item.bytes,
                "exclusive": item.exclusive, "lastUsed": item.used, "incomplete": item.incomplete,
            })
        };
        items.iter().map(item).collect()
    };
    let caches: Vec<Value> = usage
        .caches
        .iter()
        .map(|cache| json!({ "id": cache.id, "slot": cache.slot, "bytes": cache.bytes, "lastUsed": cache.used }))
        .collect();
    let disk = &usage.disk;
    json!({
        "disk": {
            "largeBlobs": amount(&disk.large), "smallBlobs": amount(&disk.small), "packs": amount(&disk.packs),
            "layers": amount(&disk.layers), "caches": amount(&disk.caches), "directories": amount(&disk.directories),
            "index": disk.database, "scratch": disk.work, "reserve": disk.reserve, "total": disk.total(),
        },
        "roots": items(&usage.roots), "realisations": items(&usage.realisations), "caches": caches,
        "unreferenced": amount(&usage.unreferenced),
    })
}

//! `cbs du`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use cbs_store::{Access, Amount, ItemUse, Realisation, Store, Usage};
use clap::Args;
use serde_json::{Value, json};

use super::roots::ago;
use super::{open_store, print};
use crate::args::Global;
use crate::failure;
use crate::filters::{Fields, Filter};
use crate::gc_policy::{idle, run_type};
use crate::progress::human_bytes;

/// `cbs du`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DuArgs {
    /// Print everything as one JSON object
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Show every record, as `docker buildx du --verbose` does
    #[arg(short, long)]
    verbose: bool,
    /// Show records that all of these choose: type==regular, description~=RUN, shared, until=48h, …
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `json`: one object a record, in the shape of `docker buildx du --format json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `cbs du`.
pub(crate) fn run(global: &Global, args: &DuArgs) -> anyhow::Result<ExitCode> {
    if let Some(format) = args
        .format
        .as_deref()
        .filter(|format| !matches!(*format, "json" | "pretty"))
    {
        bail!(failure::Usage(format!(
            "--format `{format}`: there are json and pretty"
        )));
    }
    let filter = Filter::all_of(&args.filter).map_err(|err| failure::Usage(err.to_string()))?;
    let store = open_store(global, Access::ReadOnly)?;
    let usage = store.usage()?;
    if args.json {
        print(&format!("{}\n", as_json(&usage)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_json = args.format.as_deref() == Some("json");
    if !is_json && !args.verbose && filter.is_empty() {
        print(&summary(&usage))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut records = records(&store, &usage)?;
    records.retain(|record| filter.matches(record));
    let text: String = if is_json {
        records.iter().map(|record| format!("{}\n", record.json())).collect()
    } else if args.verbose {
        records.iter().map(Record::verbose).collect::<String>() + &totals(&records)
    } else {
        table(&records) + &totals(&records)
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Something that gc can take.
struct Record {
    id: String,
    description: String,
    kind: &'static str,
    is_mutable: bool,
    bytes: u64,
    /// Bytes that nothing else refers to.
    exclusive: u64,
    rooted: bool,
    used: i64,
    /// Seconds since 1970.
    created: Option<i64>,
    incomplete: bool,
}

fn records(store: &Store, usage: &Usage) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for item in &usage.realisations {
        let run: Option<Realisation> = match &item.key {
            Some(key) => store.realisation(key)?,
            None => None,
        };
        records.push(Record {
            id: item.key.map(|key| key.to_string()).unwrap_or_default(),
            description: item.name.clone(),
            kind: run.as_ref().map_or("regular", run_type),
            is_mutable: false,
            bytes: item.bytes,
            exclusive: item.exclusive,
            rooted: item.rooted,
            used: item.used,
            created: run.map(|run| run.created),
            incomplete: item.incomplete,
        });
    }
    for cache in &usage.caches {
        records.push(Record {
            id: format!("{}:{}", cache.id, cache.slot),
            description: format!("cache mount {}", cache.id),
            kind: "exec.cachemount",
            is_mutable: true,
            bytes: cache.bytes,
            exclusive: cache.bytes,
            rooted: false,
            used: cache.used,
            created: None,
            incomplete: false,
        });
    }
    if usage.unreferenced.bytes > 0 {
        records.push(Record {
            id: "unreferenced".to_owned(),
            description: "trees and blobs that nothing names, such as contexts of earlier builds".to_owned(),
            kind: "source.local",
            is_mutable: false,
            bytes: usage.unreferenced.bytes,
            exclusive: usage.unreferenced.bytes,
            rooted: false,
            used: 0,
            created: None,
            incomplete: false,
        });
    }
    Ok(records)
}

impl Fields for Record {
    fn field(&self, key: &str) -> Option<String> {
        let is_shared = self.exclusive < self.bytes;
        Some(match key {
            "id" => self.id.clone(),
            "description" => self.description.clone(),
            "type" => self.kind.to_owned(),
            "mutable" => self.is_mutable.to_string(),
            "immutable" => (!self.is_mutable).to_string(),
            "shared" => is_shared.to_string(),
            "private" => (!is_shared).to_string(),
            "inuse" | "rooted" => self.rooted.to_string(),
            _ => return None,
        })
    }

    fn idle(&self) -> Duration {
        idle(self.used)
    }
}

impl Record {
    fn last_used(&self) -> Option<String> {
        (self.used > 0).then(|| ago(self.used / 1_000))
    }

    fn json(&self) -> Value {
        json!({
            "ID": self.id, "Description": self.description, "Type": self.kind, "Mutable": self.is_mutable,
            "Reclaimable": !self.rooted, "Shared": self.exclusive < self.bytes, "Size": self.bytes,
            "Exclusive": self.exclusive, "CreatedAt": self.created,
            "LastUsedAt": (self.used > 0).then_some(self.used / 1_000), "Incomplete": self.incomplete,
        })
    }

    fn verbose(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| text.push_str(&format!("{:<16}{value}\n", format!("{name}:")));
        row("ID", self.id.clone());
        if let Some(created) = self.created {
            row("Created at", ago(created));
        }
        row("Mutable", self.is_mutable.to_string());
        row("Reclaimable", (!self.rooted).to_string());
        row("Shared", (self.exclusive < self.bytes).to_string());
        row("Size", human_bytes(self.bytes));
        row("Exclusive", human_bytes(self.exclusive));
        row("Description", self.description.clone());
        if let Some(used) = self.last_used() {
            row("Last used", used);
        }
        row("Type", self.kind.to_owned());
        if self.incomplete {
            row("Content", "gone".to_owned());
        }
        text + "\n"
    }
}

fn table(records: &[Record]) -> String {
    let mut text = format!(
        "{:<14}{:<12} {:>12}  {:<16}DESCRIPTION\n",
        "ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"
    );
    for record in records {
        let id: String = record.id.chars().take(12).collect();
        text.push_str(&format!(
            "{id:<14}{:<12} {:>12}  {:<16}{}\n",
            !record.rooted,
            human_bytes(record.bytes),
            record.last_used().unwrap_or_default(),
            record.description,
        ));
    }
    text
}

/// Exclusive bytes are counted, so that a total is no more than there is.
fn totals(records: &[Record]) -> String {
    let sum = |wanted: &dyn Fn(&Record) -> bool| {
        let bytes = records
            .iter()
            .filter(|record| wanted(record))
            .map(|record| record.exclusive);
        human_bytes(bytes.sum())
    };
    format!(
        "Reclaimable: {:>12}\nTotal:       {:>12}\n",
        sum(&|record| !record.rooted),
        sum(&|_| true)
    )
}

fn summary(usage: &Usage) -> String {
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
    row(
        "folders and locks",
        None,
        usage.measured.bytes.saturating_sub(disk.total()),
    );
    row("total", None, usage.measured.bytes);
    row("blocks on disk", None, usage.measured.allocated);
    if !usage.roots.is_empty() {
        text.push_str(&format!("\n{:<48} {:>12} {:>12}\n", "ROOT", "size", "exclusive"));
    }
    for item in &usage.roots {
        let state = if item.incomplete { "  (content gone)" } else { "" };
        text.push_str(&format!(
            "{:<48} {:>12} {:>12}{state}\n",
            item.name,
            human_bytes(item.bytes),
            human_bytes(item.exclusive)
        ));
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
                "exclusive": item.exclusive, "shared": item.bytes - item.exclusive, "lastUsed": item.used,
                "incomplete": item.incomplete, "rooted": item.rooted,
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
            "index": disk.database, "scratch": disk.work, "reserve": disk.reserve,
            "folders": usage.measured.bytes.saturating_sub(disk.total()), "total": usage.measured.bytes,
            "allocated": usage.measured.allocated,
        },
        "roots": items(&usage.roots), "realisations": items(&usage.realisations), "caches": caches,
        "unreferenced": amount(&usage.unreferenced),
    })
}

//! `cbs store …`: looking at trees and checking them.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_store::edit::lookup;
use cbs_store::{Access, BlobStore, DirectoryStore, Entry, Node, Problem, Repair, Store, VerifyReport};
use serde_json::{Value, json};

use super::trees::{entry_json, kind_and_size};
use super::{find_tree, inspect, open_store, print};
use crate::args::{Global, StoreCommand};
use crate::progress::human_bytes;

pub(crate) fn run(global: &Global, command: &StoreCommand) -> anyhow::Result<ExitCode> {
    match command {
        StoreCommand::Verify { repair, json } => verify(global, *repair, *json),
        StoreCommand::Roots { json } => roots(&open_store(global, Access::ReadOnly)?, *json),
        StoreCommand::Diff(args) => inspect::diff(&open_store(global, Access::ReadOnly)?, args),
        StoreCommand::PathInfo(args) => inspect::path_info(&open_store(global, Access::ReadOnly)?, args),
        StoreCommand::Unroot { name } => {
            if !open_store(global, Access::ReadWrite)?.remove_root(name)? {
                bail!("there is no root `{name}`; `cbs roots` lists them");
            }
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Ls { reference, long, json } => {
            list(&open_store(global, Access::ReadOnly)?, reference, *long, *json)
        }
        StoreCommand::Cat { reference } => cat(&open_store(global, Access::ReadOnly)?, reference),
    }
}

/// Exit code 1 when something is wrong and was not mended.
fn verify(global: &Global, repair: bool, json: bool) -> anyhow::Result<ExitCode> {
    let (access, repair) = if repair {
        (Access::ReadWrite, Repair::Yes)
    } else {
        (Access::ReadOnly, Repair::No)
    };
    let report = open_store(global, access)?.verify(repair)?;
    print(&if json {
        verify_json(&report)
    } else {
        verify_text(&report)
    })?;
    // A root that lost something is no damage that could be mended here: the next build of it is what mends it.
    let damaged = report
        .problems
        .iter()
        .filter(|problem| !matches!(problem, Problem::IncompleteRoot(_)));
    let clean = report.repaired >= damaged.count() as u64;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify_text(report: &VerifyReport) -> String {
    let mut text: String = report.problems.iter().map(|problem| format!("{problem}\n")).collect();
    text.push_str(&format!(
        "{} blobs ({}), {} directories, {} layers, {} realisations: {}\n",
        report.blobs,
        human_bytes(report.blob_bytes),
        report.directories,
        report.oci_blobs,
        report.realisations,
        match (report.problems.len(), report.repaired) {
            (0, _) => "all as named".to_owned(),
            (found, 0) => format!("{found} problems; `cbs store verify --repair` drops what is damaged"),
            (found, mended) =>
                format!("{found} problems, {mended} mended; what was dropped is built again when needed"),
        }
    ));
    text
}

fn verify_json(report: &VerifyReport) -> String {
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let value = json!({
        "blobs": report.blobs, "blobBytes": report.blob_bytes, "directories": report.directories,
        "layers": report.oci_blobs, "realisations": report.realisations, "problems": problems,
        "repaired": report.repaired,
    });
    format!("{value}\n")
}

fn roots(store: &Store, as_json: bool) -> anyhow::Result<ExitCode> {
    let roots = store.gc_roots()?;
    let text = if as_json {
        let one = |root: &cbs_store::GcRoot| {
            let trees: Vec<String> = root
                .snapshots
                .iter()
                .map(|snapshot| snapshot.tree.to_string())
                .collect();
            json!({ "name": root.name, "trees": trees, "created": root.created })
        };
        format!("{}\n", Value::from(roots.iter().map(one).collect::<Vec<_>>()))
    } else {
        let one = |root: &cbs_store::GcRoot| {
            let tree = root.snapshots.first().map(|snapshot| snapshot.tree.to_string());
            format!("{}  {}\n", tree.unwrap_or_else(|| "-".repeat(64)), root.name)
        };
        roots.iter().map(one).collect()
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn find_entry(store: &Store, reference: &str) -> anyhow::Result<Entry> {
    let (tree, path) = find_tree(store, reference)?;
    lookup(store, &tree, &path)?.with_context(|| format!("`{path}` is not in `{reference}`"))
}

fn list(store: &Store, reference: &str, long: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let entry = find_entry(store, reference)?;
    let entries = match &entry.node {
        Node::Directory(below) => store.need_directory(&below.digest)?.entries.clone(),
        _ => vec![entry],
    };
    let mut text = String::new();
    if as_json {
        text = format!("{}\n", Value::from(entries.iter().map(entry_json).collect::<Vec<_>>()));
    } else {
        for entry in &entries {
            if long {
                let meta = &entry.meta;
                let (kind, size) = kind_and_size(&entry.node);
                let (mode, uid, gid) = (meta.mode, meta.uid, meta.gid);
                text.push_str(&format!("{kind:<9} {mode:04o} {uid:>6} {gid:>6} {size:>12} "));
            }
            text.push_str(&String::from_utf8_lossy(&entry.name));
            if let (true, Node::Symlink(target)) = (long, &entry.node) {
                text.push_str(&format!(" -> {}", String::from_utf8_lossy(target)));
            }
            text.push('\n');
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn cat(store: &Store, reference: &str) -> anyhow::Result<ExitCode> {
    let entry = find_entry(store, reference)?;
    let Node::File { blob, .. } = entry.node else {
        bail!("`{reference}` is not a file")
    };
    let mut reader = store
        .blob(&blob)?
        .with_context(|| format!("blob {blob} is not in the store"))?
        .reader();
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader
            .read(&mut buffer)
            .with_context(|| format!("cannot read blob {blob}"))?;
        if count == 0 {
            break;
        }
        match out.write_all(&buffer[..count]) {
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => break,
            other => other.context("cannot write to standard output")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

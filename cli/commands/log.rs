//! `cbs log`: what the steps of a build printed, whenever they ran.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use cbs_solver::LogReader;
use cbs_store::{Access, BlobStore as _, CacheKey, Store};
use serde_json::{Value, json};

use super::{open_store, print, print_bytes};
use crate::args::Global;
use crate::build_args::LogArgs;
use crate::record::{find_step, newest};
use crate::steps::StepRecord;

/// `cbs log`.
pub(crate) fn run(global: &Global, args: &LogArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadOnly)?;
    let (record, wanted) = match &args.name {
        Some(name) => {
            let (_, record, wanted) = find_step(&store, name)?;
            (record, wanted)
        }
        None => (newest(&store)?.1, None),
    };
    let steps = record
        .steps
        .iter()
        .enumerate()
        .filter(|(number, step)| step.is_called(*number, wanted.as_deref()));
    let mut documents = Vec::new();
    let mut found = 0;
    for (number, step) in steps {
        found += 1;
        let log = log(&store, step)?;
        if args.json {
            let text = log.as_deref().map(String::from_utf8_lossy);
            documents.push(json!({ "step": number + 1, "name": step.name, "ran": step.ran, "log": text }));
        } else if let Some(log) = log {
            let mut out = format!("#{} {}\n", number + 1, step.name).into_bytes();
            out.write_all(&log)?;
            if !log.ends_with(b"\n") {
                out.push(b'\n');
            }
            print_bytes(&out)?;
        }
    }
    if let (0, Some(wanted)) = (found, wanted) {
        bail!("no step is called `{wanted}`");
    }
    if args.json {
        print(&format!("{}\n", Value::from(documents)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a step printed when it ran; `None` when it printed nothing or that is forgotten.
fn log(store: &Store, step: &StepRecord) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(key) = &step.key else { return Ok(None) };
    let key: CacheKey = key.parse()?;
    let Some(blob) = store.realisation(&key)?.and_then(|realisation| realisation.log) else {
        return Ok(None);
    };
    let Some(blob) = store.blob(&blob)? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    for record in LogReader::new(blob.reader())? {
        text.extend_from_slice(&record?.bytes);
    }
    Ok(Some(text))
}

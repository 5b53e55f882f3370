//! `cbs log`: what the steps of a build printed, whenever they ran, also those that failed, or as they run.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_solver::{LogReader, LogRecord, Stream};
use cbs_store::{Access, BlobDigest, BlobStore as _, CacheKey, Store};
use serde_json::json;

use super::open_store;
use crate::args::Global;
use crate::build_args::LogArgs;
use crate::failed::{self, Remembered};
use crate::live::{Follower, News};
use crate::progress::rfc3339;
use crate::record::{self, Record};
use crate::steps::{StepRecord, is_meant};
use crate::tried::Tried;

/// A step and where its log is.
struct Step {
    name: String,
    ran: bool,
    error: Option<String>,
    log: Option<BlobDigest>,
}

/// `cbs log`.
pub(crate) fn run(global: &Global, args: &LogArgs) -> anyhow::Result<ExitCode> {
    let store = open_store(global, Access::ReadOnly)?;
    if args.follow
        && let Some((follower, wanted)) = running(&store, args.name.as_deref())
    {
        return follow(follower, wanted.as_deref());
    }
    let (name, wanted) = match &args.name {
        Some(name) => split_step(&store, name)?,
        None => (None, None),
    };
    let steps = steps(&store, name.as_deref())?;
    let mut found = 0;
    let mut out = Out::new();
    let meant = |(place, step): &(usize, &Step)| is_meant(wanted.as_deref(), *place, &step.name);
    for (number, step) in steps.iter().enumerate().filter(meant) {
        found += 1;
        if args.json {
            out.json(&store, number + 1, step, found == 1)?;
        } else {
            out.text(&store, number + 1, step, args)?;
        }
    }
    if args.json {
        out.write(if found == 0 { b"[]\n" } else { b"]\n" })?;
    }
    if let (0, Some(wanted)) = (found, wanted) {
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        bail!("no step is called `{wanted}`; there are: {}", names.join(", "));
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The running build that is meant, and which of its steps.
fn running(store: &Store, text: Option<&str>) -> Option<(Follower, Option<String>)> {
    let Some(text) = text else {
        return Some((Follower::find(&store.work_dir(), |_| true)?, None));
    };
    let splits = text
        .rmatch_indices('#')
        .map(|(at, _)| (&text[..at], Some(&text[at + 1..])));
    std::iter::once((text, None)).chain(splits).find_map(|(name, step)| {
        let absolute = record::absolute(name);
        let is_meant = |root: &str| {
            name.is_empty()
                || root == name
                || Some(root) == absolute.as_deref()
                || root.strip_suffix(name).is_some_and(|rest| rest.ends_with(['/', '#']))
        };
        Some((Follower::find(&store.work_dir(), is_meant)?, step.map(str::to_owned)))
    })
}

/// `NAME`, `NAME#STEP` or `#STEP`: a name that was built, and which of its steps.
pub(crate) fn split_step(store: &Store, text: &str) -> anyhow::Result<(Option<String>, Option<String>)> {
    let is_known = |name: &str| -> anyhow::Result<bool> {
        Ok(record::find(store, name).is_ok() || failed::find(store, Some(name))?.is_some())
    };
    if is_known(text)? {
        return Ok((Some(text.to_owned()), None));
    }
    // A step's name may hold a `#` as a name may: the longest name that is known counts.
    for (at, _) in text.rmatch_indices('#') {
        let (name, step) = (&text[..at], &text[at + 1..]);
        if name.is_empty() {
            return Ok((None, Some(step.to_owned())));
        }
        if is_known(name)? {
            return Ok((Some(name.to_owned()), Some(step.to_owned())));
        }
    }
    Ok((Some(text.to_owned()), None))
}

/// The steps of the last build of a name, or of all, whether it failed or not.
fn steps(store: &Store, name: Option<&str>) -> anyhow::Result<Vec<Step>> {
    match Tried::last(store, name)? {
        Tried::Failed(failure) => of_failure(store, &failure),
        Tried::Built(built) => of_record(store, &built.1),
    }
}

fn of_record(store: &Store, record: &Record) -> anyhow::Result<Vec<Step>> {
    let step = |step: &StepRecord| {
        Ok(Step {
            name: step.name.clone(),
            ran: step.ran,
            error: None,
            log: log_of(store, step)?,
        })
    };
    record.steps.iter().map(step).collect()
}

fn of_failure(store: &Store, failure: &Remembered) -> anyhow::Result<Vec<Step>> {
    let step = |step: &StepRecord| {
        let failed = failure.build.failures.iter().find(|failed| failed.name == step.name);
        Ok(Step {
            name: step.name.clone(),
            ran: step.ran || failed.is_some(),
            error: failed.map(|failed| failed.error.clone()),
            log: match failed {
                Some(failed) => failed.log()?,
                None => log_of(store, step)?,
            },
        })
    };
    failure.build.steps.iter().map(step).collect()
}

/// The log of a step that ended well; `None` when it printed nothing or that is forgotten.
fn log_of(store: &Store, step: &StepRecord) -> anyhow::Result<Option<BlobDigest>> {
    let Some(key) = &step.key else { return Ok(None) };
    let key: CacheKey = key.parse()?;
    Ok(store.realisation(&key)?.and_then(|realisation| realisation.log))
}

/// Standard output, where a closed pipe ends the program quietly.
struct Out(std::io::BufWriter<std::io::StdoutLock<'static>>);

impl Out {
    fn new() -> Self {
        Self(std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock()))
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Self::check(self.0.write_all(bytes))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        Self::check(self.0.flush())
    }

    fn check(result: std::io::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => other.context("cannot write to standard output"),
        }
    }

    /// One step as text; nothing for one that printed nothing and did not fail.
    fn text(&mut self, store: &Store, number: usize, step: &Step, args: &LogArgs) -> anyhow::Result<()> {
        if step.log.is_none() && step.error.is_none() {
            return Ok(());
        }
        self.write(format!("#{number} {}\n", step.name).as_bytes())?;
        let mut stamps = HashMap::new();
        let mut last = b'\n';
        each_record(store, step, |record| {
            if args.stream.is_some_and(|wanted| wanted.stream() != record.stream) {
                return Ok(());
            }
            last = record.bytes.last().copied().unwrap_or(last);
            if args.timestamps {
                let open = stamps.entry(record.stream.number()).or_insert(true);
                self.stamped(&record, open)
            } else {
                self.write(&record.bytes)
            }
        })?;
        if last != b'\n' {
            self.write(b"\n")?;
        }
        if let Some(error) = &step.error {
            self.write(format!("#{number} ERROR: {error}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Output with the time before each line. `at_start`: whether the stream stands at the start of a line.
    fn stamped(&mut self, record: &LogRecord, at_start: &mut bool) -> anyhow::Result<()> {
        let stamp = format!("{} {} ", rfc3339(record.time), name_of(record.stream));
        for line in record.bytes.split_inclusive(|&byte| byte == b'\n') {
            if *at_start {
                self.write(stamp.as_bytes())?;
            }
            self.write(line)?;
            *at_start = line.ends_with(b"\n");
        }
        Ok(())
    }

    /// One step as an element of an array, record by record, so that its length does not matter.
    fn json(&mut self, store: &Store, number: usize, step: &Step, is_first: bool) -> anyhow::Result<()> {
        let head = json!({ "step": number, "name": step.name, "ran": step.ran, "error": step.error });
        let mut head = head.to_string();
        head.pop();
        self.write(if is_first { b"[" } else { b",\n" })?;
        self.write(format!("{head},\"log\":").as_bytes())?;
        if step.log.is_none() {
            return self.write(b"null}");
        }
        self.write(b"\"")?;
        let mut records = Vec::new();
        each_record(store, step, |record| {
            let text = serde_json::to_string(&String::from_utf8_lossy(&record.bytes))?;
            // Without its own quotes: each record is a piece of one string.
            self.write(&text.as_bytes()[1..text.len() - 1])?;
            if records.len() < 1 << 16 {
                records.push(json!({
                    "time": rfc3339(record.time), "stream": name_of(record.stream), "bytes": record.bytes.len(),
                }));
            }
            Ok(())
        })?;
        self.write(format!("\",\"records\":{}}}", serde_json::Value::from(records)).as_bytes())
    }
}

/// Reads a log record by record.
fn each_record(
    store: &Store,
    step: &Step,
    mut take: impl FnMut(LogRecord) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(digest) = &step.log else { return Ok(()) };
    let Some(blob) = store.blob(digest)? else {
        return Ok(());
    };
    let what = || format!("the log of `{}`", step.name);
    for record in LogReader::new(blob.reader()).with_context(what)? {
        take(record.with_context(what)?)?;
    }
    Ok(())
}

/// Prints what a running build prints, until it ends; the exit code tells whether a step failed.
fn follow(mut follower: Follower, wanted: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    let mut names: HashMap<_, (usize, String)> = HashMap::new();
    let mut last = None;
    let mut code = ExitCode::SUCCESS;
    while let Some(news) = follower.next()? {
        let is_wanted = |number: usize, name: &str| is_meant(wanted, number - 1, name);
        match news {
            News::Named(vertex, name) => {
                let number = names.len() + 1;
                names.entry(vertex).or_insert((number, name));
            }
            News::Printed(vertex, _, bytes) => {
                let Some((number, name)) = names.get(&vertex).filter(|(number, name)| is_wanted(*number, name)) else {
                    continue;
                };
                if last.replace(vertex) != Some(vertex) {
                    out.write(format!("#{number} {name}\n").as_bytes())?;
                }
                out.write(&bytes)?;
            }
            News::Ended(vertex, Some(why)) => {
                code = ExitCode::from(1);
                if let Some((number, _)) = names.get(&vertex).filter(|(number, name)| is_wanted(*number, name)) {
                    out.write(format!("#{number} ERROR: {why}\n").as_bytes())?;
                }
            }
            News::Ended(..) => {}
            News::Missed => out.write(b"(output left out here; `cbs log` has all of it when the step ends)\n")?,
        }
        out.flush()?;
    }
    Ok(code)
}

fn name_of(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

//! `cbs context`: what a build may read of a folder, and which rule says so.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_solver::patterns::{Below, ParentMatch, PatternList, parse_ignore_file};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::print;

/// `cbs context`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the files of a folder that builds get to see
    #[command(after_help = "Examples:
  cbs context ls
  cbs context ls --explain -f docker/app.Dockerfile .
  cbs context ls --json | jq '.entries[] | select(.sent | not)'

COPY and ADD then transfer those of the files only that they name.")]
    Ls(LsArgs),
}

/// `cbs context ls`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LsArgs {
    /// The build context
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
    /// The Dockerfile, whose own ignore file counts first [default: DIR/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Show what is left out, too, and which line of which ignore file decided
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print as JSON, with the rules
    #[arg(long)]
    pub(crate) json: bool,
}

/// A line of an ignore file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Rule {
    file: String,
    line: usize,
    pattern: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    sent: bool,
    /// What decided; nothing where no rule has an opinion.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Answer {
    #[serde(rename = "ignoreFile", skip_serializing_if = "Option::is_none")]
    ignore_file: Option<String>,
    files: usize,
    bytes: u64,
    entries: Vec<Entry>,
}

/// `cbs context`.
pub(crate) fn run(command: &ContextCommand) -> anyhow::Result<ExitCode> {
    let ContextCommand::Ls(args) = command;
    let shown = args.context.display();
    let found = std::fs::metadata(&args.context).with_context(|| format!("context `{shown}`"))?;
    if !found.is_dir() {
        bail!("context `{shown}` is no folder");
    }
    let mut listing = Listing::new(args)?;
    listing.folder(&args.context, "", None)?;
    let answer = listing.answer();
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?;
    } else {
        print(&text(&answer, args.explain))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Listing {
    ignore_file: Option<String>,
    /// One for each pattern of the list.
    rules: Vec<Rule>,
    list: PatternList,
    entries: Vec<Entry>,
}

impl Listing {
    fn new(args: &LsArgs) -> anyhow::Result<Self> {
        let file = args.file.clone().unwrap_or_else(|| args.context.join("Dockerfile"));
        let mut beside = file.into_os_string();
        beside.push(".dockerignore");
        for path in [PathBuf::from(beside), args.context.join(".dockerignore")] {
            let data = match std::fs::read(&path) {
                Ok(data) => data,
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                Err(err) => return Err(err).with_context(|| format!("cannot read `{}`", path.display())),
            };
            let name = path.strip_prefix(".").unwrap_or(&path).display().to_string();
            let rules = rules(&data, &name);
            let list = PatternList::new(rules.iter().map(|rule| rule.pattern.as_str()));
            return Ok(Self {
                list: list.with_context(|| format!("cannot read `{name}`"))?,
                ignore_file: Some(name),
                rules,
                entries: Vec::new(),
            });
        }
        Ok(Self {
            ignore_file: None,
            rules: Vec::new(),
            list: PatternList::default(),
            entries: Vec::new(),
        })
    }

    /// Lists a folder in the order of names. A folder that is left out whole is one entry.
    fn folder(&mut self, folder: &Path, prefix: &str, parent: Option<&ParentMatch>) -> anyhow::Result<()> {
        let shown = folder.display();
        let mut children = std::fs::read_dir(folder)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .with_context(|| format!("cannot list `{shown}`"))?;
        children.sort_by_key(std::fs::DirEntry::file_name);
        for child in children {
            let name = child.file_name();
            let path = format!("{prefix}{}", name.to_string_lossy());
            let bytes = [prefix.as_bytes(), name.as_bytes()].concat();
            let found = child
                .metadata()
                .with_context(|| format!("cannot look at `{}`", child.path().display()))?;
            let (is_ignored, here) = self.list.matches_below(&bytes, parent);
            let rule = self
                .list
                .deciding(&bytes)
                .and_then(|index| self.rules.get(index))
                .cloned();
            let kind = found.file_type();
            self.entries.push(Entry {
                path: if kind.is_dir() {
                    format!("{path}/")
                } else {
                    path.clone()
                },
                kind: match kind {
                    kind if kind.is_dir() => "directory",
                    kind if kind.is_file() => "file",
                    kind if kind.is_symlink() => "symlink",
                    _ => "special",
                },
                size: kind.is_file().then_some(found.len()),
                sent: !is_ignored,
                rule,
            });
            if kind.is_dir() && (!is_ignored || self.list.below(&bytes, Some(&here)) != Below::Matched) {
                self.folder(&child.path(), &format!("{path}/"), Some(&here))?;
            }
        }
        Ok(())
    }

    fn answer(mut self) -> Answer {
        // A folder that is left out is sent all the same when something in it is.
        let sent: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| entry.sent)
            .map(|entry| entry.path.clone())
            .collect();
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| entry.kind == "directory" && !entry.sent)
        {
            entry.sent = sent.iter().any(|path| path.starts_with(&entry.path));
        }
        let files = || {
            self.entries
                .iter()
                .filter(|entry| entry.sent && entry.kind != "directory")
        };
        Answer {
            files: files().count(),
            bytes: files().filter_map(|entry| entry.size).sum(),
            ignore_file: self.ignore_file,
            entries: self.entries,
        }
    }
}

/// The patterns of an ignore file with their lines.
fn rules(data: &[u8], name: &str) -> Vec<Rule> {
    let lines = data.split(|&byte| byte == b'\n').enumerate();
    lines
        .flat_map(|(number, line)| {
            parse_ignore_file(line)
                .into_iter()
                .map(move |pattern| (number + 1, pattern))
        })
        .map(|(line, pattern)| Rule {
            file: name.to_owned(),
            line,
            pattern,
        })
        .collect()
}

fn text(answer: &Answer, explains: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for entry in answer.entries.iter().filter(|entry| explains || entry.sent) {
        if !explains {
            let _ = writeln!(text, "{}", entry.path);
            continue;
        }
        let mark = if entry.sent { '+' } else { '-' };
        let _ = match &entry.rule {
            Some(rule) => writeln!(
                text,
                "{mark} {}  {}:{}: {}",
                entry.path, rule.file, rule.line, rule.pattern
            ),
            None => writeln!(text, "{mark} {}", entry.path),
        };
    }
    if explains {
        let from = answer.ignore_file.as_deref().unwrap_or("no ignore file");
        let _ = writeln!(text, "{} files, {} bytes ({from})", answer.files, answer.bytes);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_know_their_lines() {
        let rules = rules(b"\xef\xbb\xbf# comment\n*.log\r\n\n!/keep.log\n", ".dockerignore");
        let short: Vec<(usize, &str)> = rules.iter().map(|rule| (rule.line, rule.pattern.as_str())).collect();
        assert_eq!(short, [(2, "*.log"), (4, "!keep.log")]);
    }
}

//! Answers to `--call`: what a Dockerfile would warn about, takes, and offers. The JSON is that of BuildKit's
//! `frontend.lint`, `frontend.outline` and `frontend.targets` (version 1.0.0), the text what `docker build` prints.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::lint::LintWarning;
use super::lower::OutlineData;
use super::source::{Diagnostic, LineRange, SourceFile};

/// The answer to `--check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LintResults {
    /// Broken rules, in the order they were found.
    pub warnings: Vec<LintEntry>,
    /// The Dockerfile.
    pub sources: Vec<SourceEntry>,
    /// Why the file does not build, if it does not.
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    pub error: Option<BuildError>,
}

/// A broken rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LintEntry {
    /// The rule's name.
    #[serde(rename = "ruleName")]
    pub rule_name: String,
    /// What the rule asks for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The page about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// What is wrong here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Where.
    pub location: Location,
}

/// Why a file does not build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BuildError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// A file that locations point into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceEntry {
    /// Its name.
    pub filename: String,
    /// Its bytes, in base64.
    pub data: String,
    /// `Dockerfile`.
    pub language: String,
}

/// Lines of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Which source; always the first.
    #[serde(rename = "sourceIndex", skip_serializing_if = "is_zero")]
    pub source_index: u32,
    /// One range for each line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

/// A range of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Where it starts.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

/// A place in a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The line, counted from one.
    pub line: u32,
}

/// The answer to `--call outline`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The target's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The comment above it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The arguments it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// The secrets it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineNeed>,
    /// The ssh agents it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineNeed>,
    /// The Dockerfile, in base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// An argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment above it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its value in this build.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where it is declared.
    pub location: Location,
}

/// A secret or an ssh agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutlineNeed {
    /// Its id.
    pub name: String,
    /// Whether the build fails without.
    #[serde(skip_serializing_if = "is_false")]
    pub required: bool,
    /// Where it is used.
    pub location: Location,
}

/// The answer to `--call targets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TargetList {
    /// All stages, in the order of the file.
    pub targets: Vec<TargetEntry>,
    /// The Dockerfile, in base64.
    pub sources: Vec<String>,
}

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TargetEntry {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it is built when no target is asked for.
    #[serde(skip_serializing_if = "is_false")]
    pub default: bool,
    /// The comment above it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What its FROM says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// What its FROM says about the platform.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Where it starts.
    pub location: Location,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl Location {
    pub(super) fn of(lines: LineRange) -> Self {
        let range = |line| Range {
            start: Position { line },
            end: Position { line },
        };
        Self {
            source_index: 0,
            ranges: (lines.first..=lines.last).map(range).collect(),
        }
    }
}

impl LintResults {
    pub(super) fn new(file: &SourceFile, warnings: &[LintWarning], errors: &[Diagnostic]) -> Self {
        let entry = |warning: &LintWarning| LintEntry {
            rule_name: warning.rule.name().to_owned(),
            description: warning.rule.description().to_owned(),
            url: warning.rule.url(),
            detail: warning.detail.clone(),
            location: Location::of(warning.lines),
        };
        let source = SourceEntry {
            filename: file.name().to_owned(),
            data: base64(file.data()),
            language: "Dockerfile".to_owned(),
        };
        let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
        let place = errors.iter().find_map(|error| error.place);
        let location = place.map(|place| {
            Location::of(LineRange {
                first: place.first_line,
                last: place.last_line,
            })
        });
        let error = BuildError {
            message: messages.join("; "),
            location: location.unwrap_or_default(),
        };
        Self {
            warnings: warnings.iter().map(entry).collect(),
            sources: vec![source],
            error: (!errors.is_empty()).then_some(error),
        }
    }

    /// The exit status of a check: 1 when there is anything to say.
    pub fn status(&self) -> u8 {
        u8::from(!self.warnings.is_empty() || self.error.is_some())
    }
}

impl Outline {
    pub(super) fn new(file: &SourceFile, data: OutlineData) -> Self {
        let need = |need: super::lower::OutlineNeed| OutlineNeed {
            name: need.name,
            required: need.required,
            location: Location::of(need.lines),
        };
        let arg = |arg: super::lower::OutlineArg| OutlineArg {
            name: arg.name,
            description: arg.description,
            value: arg.value,
            location: Location::of(arg.lines),
        };
        Self {
            name: data.name,
            description: data.description,
            args: data.args.into_iter().map(arg).collect(),
            secrets: data.secrets.into_iter().map(need).collect(),
            ssh: data.ssh.into_iter().map(need).collect(),
            sources: vec![base64(file.data())],
        }
    }
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![vec!["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:", &self.description]);
            }
            writeln!(f, "{}", table(&rows, 1))?;
        }
        if !self.args.is_empty() {
            let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
            rows.extend(
                self.args
                    .iter()
                    .map(|arg| vec![arg.name.as_str(), &arg.value, &arg.description]),
            );
            writeln!(f, "{}", table(&rows, 3))?;
        }
        for (title, needs) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if needs.is_empty() {
                continue;
            }
            let mut rows = vec![vec![title, "REQUIRED"]];
            rows.extend(
                needs
                    .iter()
                    .map(|need| vec![need.name.as_str(), if need.required { "true" } else { "" }]),
            );
            writeln!(f, "{}", table(&rows, 3))?;
        }
        Ok(())
    }
}

impl fmt::Display for TargetList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |target: &TargetEntry| match (target.default, target.name.as_str()) {
            (true, "") => "(default)".to_owned(),
            (true, name) => format!("{name} (default)"),
            (false, name) => name.to_owned(),
        };
        let names: Vec<String> = self.targets.iter().map(name).collect();
        let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
        rows.extend(
            names
                .iter()
                .zip(&self.targets)
                .map(|(name, target)| vec![name.as_str(), &target.description]),
        );
        f.write_str(&table(&rows, 1))
    }
}

/// Columns as wide as their widest cell and the padding; the last one ends where it ends.
fn table(rows: &[Vec<&str>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 == columns {
                0
            } else {
                width(column).unwrap_or(0) + padding
            };
            // Writing to a string does not fail.
            let _ok = write!(text, "{cell:<width$}");
        }
        text.push('\n');
    }
    text
}

/// Bytes in base64, as Go's JSON writes them.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = group >> (18 - 6 * digit) & 63;
                text.push(char::from(DIGITS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_digits() {
        for (bytes, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}

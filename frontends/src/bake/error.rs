//! Why a bake has no result.

use std::fmt::{self, Write as _};
use std::io;

use super::source::SourceLocation;

/// One complaint about a definition, and the place it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// The place, if it is known.
    pub location: Option<SourceLocation>,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = &self.location else {
            return f.write_str(&self.message);
        };
        write!(f, "{}:{}:{}: {}", at.file, at.line, at.column, self.message)?;
        // A line that is too long to read is cut around the place.
        let (text, column) = excerpt(&at.text, at.column);
        let number = at.line.to_string();
        let margin = " ".repeat(number.len());
        let width = at.width.min(text.chars().count().saturating_sub(column - 1).max(1));
        let indent: String = text
            .chars()
            .take(column - 1)
            .map(|char| if char == '\t' { '\t' } else { ' ' })
            .collect();
        write!(
            f,
            "\n{margin} |\n{number} | {text}\n{margin} | {indent}{}",
            "^".repeat(width)
        )
    }
}

/// At most 160 characters of a line, and the column in what is left.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 160;
    if line.chars().count() <= WIDTH {
        return (String::from(line), column.max(1));
    }
    let start = column.saturating_sub(WIDTH / 2);
    (
        line.chars().skip(start).take(WIDTH).collect(),
        column.saturating_sub(start).max(1),
    )
}

/// Why a bake has no result.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// There is no definition to bake from.
    #[error("no bake definition was found; looked for {}", looked_for.join(", "))]
    NoDefinition {
        /// The names of files that would have been taken.
        looked_for: Vec<String>,
    },
    /// A definition, or something it names, cannot be read.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A remote definition cannot be fetched or used.
    #[error("cannot use the remote definition `{url}`: {reason}")]
    Remote {
        /// Where it is.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The text of a definition is wrong. All complaints are here.
    #[error("{}", listed(.0))]
    Source(Vec<SourceError>),
    /// A Compose file is wrong.
    #[error("compose file `{file}`: {reason}")]
    Compose {
        /// The file.
        file: String,
        /// What is wrong in it.
        reason: String,
    },
    /// A target or group that is asked for is not defined.
    #[error("failed to find target {name:?}{hint}")]
    UnknownTarget {
        /// The name.
        name: String,
        /// The target or group that names it; none for the command line.
        needed_by: Option<String>,
        /// Where it is named, and names that exist.
        hint: String,
    },
    /// No target matches a pattern.
    #[error("could not find any target matching {pattern:?}{hint}")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Names that exist.
        hint: String,
    },
    /// A `--set` cannot be applied.
    #[error("invalid override {setting:?}: {reason}")]
    Override {
        /// What was set.
        setting: String,
        /// Why it cannot be.
        reason: String,
    },
    /// A flag has a value that makes no sense.
    #[error("invalid value {value:?} for {flag}: {reason}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable has a value that makes no sense.
    #[error("environment variable {name} must be a bool, not {value:?}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// An attribute of a target has a value that makes no sense.
    #[error("target {target:?}, {attribute}: {reason}")]
    Target {
        /// The target.
        target: String,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// An error, and the place of the definition that it is about.
    #[error("{}", SourceError { location: Some((**location).clone()), message: error.to_string() })]
    Placed {
        /// Where.
        location: Box<SourceLocation>,
        /// What.
        error: Box<BakeError>,
    },
    /// The stack for evaluating could not be had.
    #[error("cannot start evaluating: {0}")]
    Stack(io::Error),
}

fn listed(errors: &[SourceError]) -> String {
    const SHOWN: usize = 10;
    let mut text = String::new();
    for (index, error) in errors.iter().take(SHOWN).enumerate() {
        let _ = write!(text, "{}{error}", if index > 0 { "\n" } else { "" });
    }
    if errors.len() > SHOWN {
        let _ = write!(text, "\nand {} more", errors.len() - SHOWN);
    }
    text
}

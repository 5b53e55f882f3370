//! Path patterns as Go and Docker read them: `filepath.Match` globs, and ordered lists of them with `**` and `!`.
//!
//! Two matchers, because the two differ:
//!
//! - [`Glob`] is Go's `filepath.Match`: `*` and `?` stay within a path element, `[a-z]` and `[^a-z]`, `\` escapes.
//!   COPY sources and `rm` use it.
//! - [`PatternList`] is the list of a `.dockerignore`, `COPY --exclude` or `local.excludepatterns`: a path matches
//!   when it or a parent of it matches a pattern, the last pattern with an opinion wins, `**` crosses elements and
//!   `!` takes back.
//!
//! Paths are bytes (names in a tree need not be UTF-8), relative, use `/` and are clean ([`clean_path`]).

mod filter;
mod glob;
mod list;

pub use filter::{FilterState, PathFilter, Verdict};
pub use glob::{Glob, has_glob_characters};
pub use list::{Below, ParentMatch, PatternList, parse_ignore_file};

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A bracket or an escape is not closed, or a range is empty.
    #[error("syntax error in pattern `{pattern}`")]
    Syntax {
        /// The pattern as given.
        pattern: String,
    },
    /// A `!` with nothing after it.
    #[error("illegal exclusion pattern `!`")]
    LoneExclusion,
}

/// The shortest equal path, by text alone, as Go's `path.Clean`: no empty and `.` elements, `..` taken back, no
/// trailing slash; the empty path is `.`.
pub fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => match elements.last() {
                Some(&last) if last != ".." => {
                    elements.pop();
                }
                _ if rooted => {}
                _ => elements.push(".."),
            },
            name => elements.push(name),
        }
    }
    let joined = elements.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;

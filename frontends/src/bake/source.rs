//! The texts a definition was read from, and the places in them that messages point at.

use std::sync::Arc;

/// A stretch of one source file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(file: u32, start: usize, end: usize) -> Span {
        let clip = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span {
            file,
            start: clip(start),
            end: clip(end.max(start)),
        }
    }

    /// From the start of this one to the end of the other.
    pub(crate) fn to(self, other: Span) -> Span {
        Span {
            end: other.end.max(self.start),
            ..self
        }
    }
}

/// One complaint about a definition.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostic {
    pub(crate) message: String,
    pub(crate) span: Option<Span>,
    /// Set when `try` and `can` must not hide it.
    pub(crate) fatal: bool,
}

impl Diagnostic {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            message: message.into(),
            span: Some(span),
            fatal: false,
        }
    }

    pub(crate) fn fatal(span: Option<Span>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            message: message.into(),
            span,
            fatal: true,
        }
    }
}

/// All the complaints that one step had; never empty.
pub(crate) type Diagnostics = Vec<Diagnostic>;

/// A place in a source file that a person can look up, with the line itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// The file as it was named.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant, at least 1.
    pub width: usize,
    /// The text of the line.
    pub text: String,
}

/// The source files of one load, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<(String, Arc<str>)>,
}

impl Sources {
    pub(crate) fn add(&mut self, name: &str, text: Arc<str>) -> u32 {
        self.files.push((String::from(name), text));
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn name(&self, file: u32) -> &str {
        self.files.get(file as usize).map_or("", |(name, _)| name)
    }

    pub(crate) fn locate(&self, span: Span) -> Option<SourceLocation> {
        let (name, text) = self.files.get(span.file as usize)?;
        let mut start = (span.start as usize).min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let mut end = (span.end as usize).clamp(start, line_end);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Some(SourceLocation {
            file: name.clone(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            text: String::from(text[line_start..line_end].trim_end_matches('\r')),
        })
    }
}

//! Places in a source file, and complaints that point at them.

use std::fmt;
use std::sync::Arc;

/// A range of bytes of the source file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

/// A value and where it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Joins a value and its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// Physical lines, counted from one, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LineRange {
    /// The first line.
    pub first: u32,
    /// The last line.
    pub last: u32,
}

/// A file that was read, with an index of its lines.
#[derive(Clone, Debug)]
pub struct SourceFile {
    name: Arc<str>,
    data: Arc<[u8]>,
    line_starts: Arc<[u32]>,
}

impl SourceFile {
    /// Takes a file. Offsets beyond 4 GiB would not fit a [`Span`]; nothing behind them gets a place.
    pub fn new(name: &str, data: &[u8]) -> Self {
        let newlines = data.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| to_u32(at + 1)))
            .collect();
        Self {
            name: name.into(),
            data: data.into(),
            line_starts,
        }
    }

    /// The name that messages give.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the file.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Line and column (in characters) of an offset, both counted from one.
    pub fn position(&self, offset: u32) -> (u32, u32) {
        let line = self.line_starts.partition_point(|&start| start <= offset).max(1);
        let start = self.line_starts[line - 1];
        let end = to_usize(offset).min(self.data.len());
        let column = String::from_utf8_lossy(&self.data[to_usize(start).min(end)..end])
            .chars()
            .count();
        (to_u32(line), to_u32(column + 1))
    }

    /// A line without its end, or nothing when the file is shorter.
    pub fn line(&self, number: u32) -> Option<String> {
        let index = to_usize(number).checked_sub(1)?;
        // What follows the last line end is a line only if something is there.
        let start = self
            .line_starts
            .get(index)
            .map(|&start| to_usize(start))
            .filter(|&start| start < self.data.len())?;
        let end = self
            .line_starts
            .get(index + 1)
            .map_or(self.data.len(), |&next| to_usize(next) - 1);
        let text = String::from_utf8_lossy(self.data.get(start..end)?);
        Some(text.trim_end_matches('\r').to_owned())
    }

    /// Makes a complaint printable.
    pub(crate) fn diagnostic(&self, complaint: &Complaint) -> Diagnostic {
        let place = match (complaint.span, complaint.lines) {
            (Some(span), lines) => {
                let (line, column) = self.position(span.start);
                let lines = lines.unwrap_or(LineRange {
                    first: line,
                    last: line,
                });
                let width = self.caret_width(span, line);
                Some(Place {
                    line,
                    column,
                    width,
                    first_line: lines.first.min(line),
                    last_line: lines.last.max(line),
                })
            }
            (None, Some(LineRange { first, last })) => Some(Place {
                line: first,
                column: 1,
                width: 0,
                first_line: first,
                last_line: last,
            }),
            (None, None) => None,
        };
        let excerpt = place.as_ref().map(|place| self.excerpt(place)).unwrap_or_default();
        Diagnostic {
            message: complaint.message.clone(),
            help: complaint.help.clone(),
            file: self.name.to_string(),
            place,
            excerpt,
        }
    }

    fn caret_width(&self, span: Span, line: u32) -> u32 {
        let end = self
            .line_starts
            .get(to_usize(line))
            .map_or(to_u32(self.data.len()), |&next| next - 1)
            .min(span.end);
        let start = to_usize(span.start).min(to_usize(end));
        let text = String::from_utf8_lossy(&self.data[start..to_usize(end)]);
        to_u32(text.trim_end().chars().count()).max(1)
    }

    /// The lines of an instruction with their surroundings, the instruction marked. Of a long one, the start and what
    /// is around the place.
    fn excerpt(&self, place: &Place) -> String {
        const AROUND: u32 = 2;
        const LONGEST: u32 = 8;
        let mut text = String::from("--------------------\n");
        let mut skipped = false;
        for number in place.first_line.saturating_sub(AROUND).max(1)..=place.last_line.saturating_add(AROUND) {
            let far = number > place.first_line + AROUND && number.abs_diff(place.line) > LONGEST;
            if far {
                if !skipped {
                    text.push_str("     | ...\n");
                }
                skipped = true;
                continue;
            }
            skipped = false;
            let Some(line) = self.line(number) else { break };
            let marked = (place.first_line..=place.last_line).contains(&number);
            let mark = if marked { ">>>" } else { "   " };
            text.push_str(format!("{number:4} | {mark} {line}").trim_end());
            text.push('\n');
            if number == place.line && place.width > 0 {
                let shown = line.chars().take(to_usize(place.column).saturating_sub(1));
                let indent: String = shown.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let carets = "^".repeat(to_usize(place.width));
                text.push_str(&format!("     |     {indent}{carets}\n"));
            }
        }
        text.push_str("--------------------");
        text
    }
}

/// Where a complaint points, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
    /// How many characters of the line are at fault; zero for whole lines.
    pub width: u32,
    /// The first line of the instruction.
    pub first_line: u32,
    /// The last line of the instruction.
    pub last_line: u32,
}

/// One complaint about a file, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// What could be done about it.
    pub help: Option<String>,
    /// The file's name.
    pub file: String,
    /// Where in the file, unless the whole of it is at fault.
    pub place: Option<Place>,
    /// The lines at fault and around, marked; empty without a place.
    pub excerpt: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(
                f,
                "{}:{}:{}: {}\n{}",
                self.file, place.line, place.column, self.message, self.excerpt
            )?,
            None => write!(f, "{}: {}", self.file, self.message)?,
        }
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that keeps a Dockerfile from being built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", join(.diagnostics))]
pub struct DockerfileError {
    /// At least one complaint, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

fn join(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(Diagnostic::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A complaint before it is bound to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) span: Option<Span>,
    pub(crate) lines: Option<LineRange>,
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            span: None,
            lines: None,
        }
    }

    /// Points at a part of the file, unless a more exact place is known already.
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    /// Names the lines of the instruction at fault, unless they are known already.
    pub(crate) fn on(mut self, lines: LineRange) -> Self {
        self.lines.get_or_insert(lines);
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.get_or_insert_with(|| help.into());
        self
    }
}

/// Bytes of a source file that do not fit are beyond any place we can name.
pub(crate) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

pub(crate) fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_shows_its_line_and_a_caret() {
        let file = SourceFile::new("Dockerfile", b"FROM scratch\nLABEL a=b\nRUNN \xc3\xa9cho x\nCMD x\n");
        let complaint = Complaint::new("unknown instruction: RUNN")
            .at(Span { start: 23, end: 27 })
            .help("try RUN");
        insta::assert_snapshot!(file.diagnostic(&complaint), @r"
        Dockerfile:3:1: unknown instruction: RUNN
        --------------------
           1 |     FROM scratch
           2 |     LABEL a=b
           3 | >>> RUNN écho x
             |     ^^^^
           4 |     CMD x
        --------------------
        help: try RUN
        ");
    }

    #[test]
    fn a_long_instruction_shows_its_start() {
        let text: String = (1..40).map(|n| format!("word{n} \\\n")).collect();
        let file = SourceFile::new("Dockerfile", format!("FROM a\nRUN {text}x\n").as_bytes());
        let at = u32::try_from(text.find("word30").expect("there")).expect("small") + 11;
        let complaint = Complaint::new("no")
            .at(Span { start: at, end: at + 6 })
            .on(LineRange { first: 2, last: 41 });
        let shown = file.diagnostic(&complaint).to_string();
        assert!(shown.starts_with("Dockerfile:31:1: no\n"), "{shown}");
        assert!(
            shown.contains("   2 | >>> RUN word1 \\\n") && shown.contains("     | ...\n"),
            "{shown}"
        );
        assert!(shown.contains("  31 | >>> word30 \\\n     |     ^^^^^^\n"), "{shown}");
    }

    #[test]
    fn positions_count_characters() {
        let file = SourceFile::new("f", "aé\r\nb".as_bytes());
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(3), (1, 3));
        assert_eq!(file.position(5), (2, 1));
        assert_eq!(file.position(99), (2, 2));
        assert_eq!(file.line(1).as_deref(), Some("aé"));
        assert_eq!(file.line(3), None);
    }
}

//! Text to instructions.
//!
//! ```text
//! bytes ── Lines ──► physical lines ── join ──► Line (one instruction, comments gone) ── instruction ──► Instruction
//!                                                 └─ heredocs read from the physical lines that follow
//! ```
//! A line that cannot be read leaves a complaint, and parsing goes on behind it: all complaints of a file are found in
//! one pass.

mod files;
mod flags;
mod heredoc;
mod instruction;
mod json;
mod line;
pub(crate) mod mount;
mod process;
mod words;

pub(crate) use heredoc::parse_word as heredoc_word;

use super::ast::{Body, Dockerfile, Head, Instruction, Stage, Word};
use super::source::{Complaint, LineRange, SourceFile, Span, Spanned, to_u32};
use line::{LONGEST_LINE, Line, Lines, Physical};

/// Reads a Dockerfile. What was understood is returned beside all complaints.
pub(crate) fn parse(file: &SourceFile) -> (Dockerfile, Vec<Complaint>) {
    if file.data().is_empty() {
        return (
            Dockerfile::default(),
            vec![Complaint::new("the Dockerfile cannot be empty")],
        );
    }
    let mut parser = Parser::new(file.data());
    parser.run();
    let Parser {
        instructions,
        mut complaints,
        check,
        empty_continuations,
        escape,
        lines,
        ..
    } = parser;
    if instructions.is_empty() && complaints.is_empty() {
        let end = LineRange {
            first: lines.count.max(1),
            last: lines.count.max(1),
        };
        complaints.push(Complaint::new("file with no instructions").on(end));
    }
    let mut dockerfile = Dockerfile {
        escape,
        check,
        empty_continuations,
        ..Dockerfile::default()
    };
    for instruction in instructions {
        let Instruction { head, body } = instruction;
        match (body, dockerfile.stages.last_mut()) {
            (Body::From(from), _) => dockerfile.stages.push(Stage {
                head,
                from,
                commands: Vec::new(),
            }),
            (body, Some(stage)) => stage.commands.push(Instruction { head, body }),
            (body @ Body::Arg(_), None) => dockerfile.global_args.push(Instruction { head, body }),
            (_, None) => complaints.push(
                Complaint::new("no build stage in current context")
                    .at(head.span)
                    .on(head.lines)
                    .help("only ARG may stand before the first FROM"),
            ),
        }
    }
    complaints.sort_by_key(|complaint| complaint.lines.map_or(0, |lines| lines.first));
    (dockerfile, complaints)
}

/// Reads a trigger that a base image stored with ONBUILD. Complaints and the instruction point at `place`, the FROM
/// that brought it in.
pub(crate) fn parse_trigger(text: &str, place: &Head) -> Result<Instruction, Complaint> {
    let located = |complaint: Complaint| {
        let message = format!("ONBUILD trigger {text:?} of the base image: {}", complaint.message);
        Complaint {
            message,
            span: None,
            lines: None,
            ..complaint
        }
        .at(place.span)
        .on(place.lines)
    };
    let mut parser = Parser::new(text.as_bytes());
    parser.run();
    if let Some(complaint) = parser.complaints.into_iter().next() {
        return Err(located(complaint));
    }
    let mut instructions = parser.instructions.into_iter();
    let (Some(mut instruction), None) = (instructions.next(), instructions.next()) else {
        return Err(located(Complaint::new("onbuild trigger should be a single expression")));
    };
    if matches!(instruction.body, Body::From(_)) {
        return Err(located(Complaint::new("FROM is not a command")));
    }
    instruction.head.lines = place.lines;
    instruction.head.span = place.span;
    Ok(instruction)
}

/// A syntax directive, wherever it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The frontend image it names.
    pub image: String,
    /// The whole value, of which the image is the first word.
    pub command_line: String,
    /// The line it stands on, counted from one.
    pub line: u32,
}

/// Looks for a syntax directive: `# syntax=`, `// syntax=`, or a top-level `"syntax"` of a JSON file. A byte order mark
/// and a `#!` line in front do not count.
pub fn detect_syntax(data: &[u8]) -> Option<Syntax> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let (data, skipped) = match data.strip_prefix(b"#!") {
        Some(_) => (data.splitn(2, |&byte| byte == b'\n').nth(1).unwrap_or_default(), 1),
        None => (data, 0),
    };
    let syntax = |value: &str, line: u32| Syntax {
        image: value.split(' ').next().unwrap_or_default().to_owned(),
        command_line: value.to_owned(),
        line: line + skipped,
    };
    for comment in ["#", "//"] {
        let mut directives = Directives::default();
        for (number, line) in data.split(|&byte| byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            match directives.read(&line, comment) {
                Ok(Some((name, value))) if name == "syntax" => return Some(syntax(&value.value, to_u32(number + 1))),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
    let json: serde_json::Value = serde_json::from_slice(data).ok()?;
    let value = json.get("syntax")?.as_str()?;
    Some(Syntax {
        image: value.to_owned(),
        ..syntax(value, 1)
    })
}

/// The state of the directives at the top of a file.
#[derive(Clone, Debug, Default)]
struct Directives {
    seen: Vec<String>,
    done: bool,
}

impl Directives {
    /// Reads a line; the first one that is no directive ends them. The span of the value is within the line.
    fn read(&mut self, line: &str, comment: &str) -> Result<Option<(String, Word)>, Complaint> {
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = split_directive(line, comment) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(Complaint::new(format!("only one {name} parser directive can be used")));
        }
        self.seen.push(name.clone());
        Ok(Some((name, value)))
    }
}

fn split_directive(line: &str, comment: &str) -> Option<(String, Word)> {
    let body = line.strip_prefix(comment)?.trim_start();
    let name_length = body.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(body.len());
    let (name, rest) = body.split_at(name_length);
    let value = rest.trim_start().strip_prefix('=')?.trim();
    let name = name.to_ascii_lowercase();
    if value.is_empty() || !matches!(name.as_str(), "syntax" | "escape" | "check") {
        return None;
    }
    let start = to_u32(line.len() - body.len() + body.rfind(value)?);
    let span = Span {
        start,
        end: start + to_u32(value.len()),
    };
    Some((name, Spanned::new(value.to_owned(), span)))
}

/// The value of a `check` directive within the comments above an instruction.
pub(crate) fn check_in_comment(comment: &str) -> Option<String> {
    let (name, value) = split_directive(comment, "")?;
    (name == "check").then(|| value.value.split(' ').next().unwrap_or_default().to_owned())
}

struct Parser<'a> {
    data: &'a [u8],
    lines: Lines<'a>,
    escape: char,
    directives: Directives,
    comments: Vec<String>,
    instructions: Vec<Instruction>,
    complaints: Vec<Complaint>,
    check: Option<Word>,
    empty_continuations: Vec<u32>,
}

impl<'a> Parser<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            lines: Lines::new(data),
            escape: '\\',
            directives: Directives::default(),
            comments: Vec::new(),
            instructions: Vec::new(),
            complaints: Vec::new(),
            check: None,
            empty_continuations: Vec::new(),
        }
    }

    fn run(&mut self) {
        while let Some(physical) = self.next_line() {
            let first = self.lines.count;
            if let Some(line) = self.join(physical) {
                self.instruction(&line, first);
            }
        }
    }

    /// The next physical line. One that is too long ends the file, as it does for BuildKit.
    fn next_line(&mut self) -> Option<Physical<'a>> {
        let mut line = self.lines.next()?;
        if line.content().len() > LONGEST_LINE {
            let number = LineRange {
                first: self.lines.count,
                last: self.lines.count,
            };
            let message = format!("dockerfile line greater than max allowed size of {LONGEST_LINE}");
            self.complaints.push(Complaint::new(message).on(number));
            self.lines = Lines::new(&[]);
            self.lines.count = number.last;
            return None;
        }
        if let (0, Some(rest)) = (line.offset, line.bytes.strip_prefix(b"\xef\xbb\xbf")) {
            line = Physical { bytes: rest, offset: 3 };
        }
        Some(line)
    }

    /// Joins a line with those that continue it. `None` for comments and blank lines.
    fn join(&mut self, physical: Physical<'_>) -> Option<Line> {
        let content = String::from_utf8_lossy(physical.content());
        let text = content.trim_start();
        if text.starts_with('#') {
            self.comment(&content, text, physical.offset + content.len() - text.len());
            return None;
        }
        self.directives.done = true;
        let mut joined = Line::default();
        let (piece, mut continues) = self.split_continuation(text);
        joined.push(piece, physical.offset + content.len() - text.len());
        if !continues && joined.text.is_empty() {
            return None;
        }
        let mut has_empty = false;
        while continues {
            let Some(physical) = self.next_line() else { break };
            let content = String::from_utf8_lossy(physical.content());
            match content.trim_start().chars().next() {
                Some('#') => {}
                None => has_empty = true,
                Some(_) => {
                    let (piece, more) = self.split_continuation(&content);
                    joined.push(piece, physical.offset);
                    continues = more;
                }
            }
        }
        if has_empty {
            self.empty_continuations.push(self.lines.count);
        }
        Some(joined)
    }

    fn comment(&mut self, content: &str, text: &str, offset: usize) {
        match self.directives.read(text, "#") {
            Ok(Some((name, value))) => {
                let place = Span {
                    start: to_u32(offset) + value.span.start,
                    end: to_u32(offset) + value.span.end,
                };
                let here = LineRange {
                    first: self.lines.count,
                    last: self.lines.count,
                };
                match (name.as_str(), value.value.as_str()) {
                    ("escape", "\\") => self.escape = '\\',
                    ("escape", "`") => self.escape = '`',
                    ("escape", other) => {
                        let message = format!("invalid escape token '{other}' does not match ` or \\");
                        self.complaints.push(Complaint::new(message).at(place).on(here));
                    }
                    ("check", _) => self.check = Some(Spanned::new(value.value, place)),
                    _ => {}
                }
            }
            Ok(None) => {
                // BuildKit drops the first byte only, so an indented comment keeps its `#`; nobody sees it but the
                // descriptions of `--call`, which then do not match.
                let comment = content.get(1..).unwrap_or_default().trim();
                if comment.is_empty() {
                    self.comments.clear();
                } else {
                    self.comments.push(comment.to_owned());
                }
            }
            Err(complaint) => {
                let here = LineRange {
                    first: self.lines.count,
                    last: self.lines.count,
                };
                let span = Span {
                    start: to_u32(offset),
                    end: to_u32(offset + text.len()),
                };
                self.complaints.push(complaint.at(span).on(here));
            }
        }
    }

    /// Takes the continuation off a line. Two escapes at the end are none.
    fn split_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let Some(piece) = text.trim_end_matches([' ', '\t']).strip_suffix(self.escape) else {
            return (text, false);
        };
        if piece.ends_with(self.escape) {
            (text, false)
        } else {
            (piece, true)
        }
    }

    fn instruction(&mut self, line: &Line, first: u32) {
        let statement = instruction::Statement::split(line, self.escape);
        let mut heredocs = Vec::new();
        let mut failed = None;
        if statement.takes_heredocs() && line.text.contains("<<") {
            match heredoc::openings(&line.text) {
                Ok(openings) => {
                    for opening in openings {
                        let (document, found) = self.heredoc(opening);
                        if !found {
                            let message = format!("unterminated heredoc: `{}` is missing", document.name);
                            failed = Some(Complaint::new(message));
                        }
                        heredocs.push(document);
                    }
                }
                Err(message) => failed = Some(Complaint::new(message)),
            }
        }
        let lines = LineRange {
            first,
            last: self.lines.count,
        };
        let head = Head {
            keyword: statement.keyword(),
            code: line.text.trim().to_owned(),
            span: line.all().trim().span(),
            lines,
            comments: std::mem::take(&mut self.comments),
        };
        let body = match failed {
            Some(complaint) => Err(complaint),
            None => statement.parse(&head, heredocs, self.escape),
        };
        match body {
            Ok(body) => self.instructions.push(Instruction { head, body }),
            Err(complaint) => self.complaints.push(complaint.at(head.span).on(lines)),
        }
    }

    /// Reads a heredoc from the lines that follow; says whether its end was found.
    fn heredoc(&mut self, mut document: super::ast::Heredoc) -> (super::ast::Heredoc, bool) {
        let start = self.lines.offset();
        let mut end = start;
        while let Some(line) = self.next_line() {
            let mut content = line.content();
            if document.chomp {
                let tabs = content.iter().take_while(|&&byte| byte == b'\t').count();
                content = &content[tabs..];
            }
            if content == document.name.as_bytes() {
                document.content = self.data[start..end].to_vec();
                return (document, true);
            }
            end = line.offset + line.bytes.len();
        }
        (document, false)
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod print;
#[cfg(test)]
mod tests;

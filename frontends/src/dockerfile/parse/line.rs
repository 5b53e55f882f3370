//! Logical lines: continuations joined, comments dropped, and every byte still knowing where it came from.

#[cfg(test)]
use super::super::source::to_usize;
use super::super::source::{Span, to_u32};

/// The text of one instruction, and where its pieces are in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Where each piece starts, in the text and in the file.
    pieces: Vec<(u32, u32)>,
}

/// A part of a [`Line`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    line: &'a Line,
    start: usize,
    end: usize,
}

impl Line {
    pub(super) fn push(&mut self, text: &str, offset: usize) {
        if !text.is_empty() {
            self.pieces.push((to_u32(self.text.len()), to_u32(offset)));
            self.text.push_str(text);
        }
    }

    /// A line for a text that is no part of the file.
    #[cfg(test)]
    pub(super) fn detached(text: &str) -> Self {
        let mut line = Self::default();
        line.push(text, 0);
        line
    }

    pub(super) fn all(&self) -> Part<'_> {
        Part {
            line: self,
            start: 0,
            end: self.text.len(),
        }
    }

    fn offset(&self, at: usize) -> u32 {
        let at = to_u32(at);
        let piece = self.pieces.partition_point(|&(start, _)| start <= at).saturating_sub(1);
        self.pieces
            .get(piece)
            .map_or(0, |&(start, offset)| offset + (at - start))
    }

    fn span(&self, start: usize, end: usize) -> Span {
        // The end is that of the last byte, which may be in another piece than the byte behind it.
        let last = self.offset(end.saturating_sub(1).max(start));
        Span {
            start: self.offset(start),
            end: if end > start { last + 1 } else { last },
        }
    }
}

impl<'a> Part<'a> {
    pub(super) fn text(&self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    pub(super) fn span(&self) -> Span {
        self.line.span(self.start, self.end)
    }

    /// A part of this part, by offsets within it.
    pub(super) fn part(&self, start: usize, end: usize) -> Part<'a> {
        Part {
            line: self.line,
            start: self.start + start,
            end: self.start + end,
        }
    }

    /// The part from an offset on.
    pub(super) fn from(&self, start: usize) -> Part<'a> {
        self.part(start, self.end - self.start)
    }

    pub(super) fn trim(&self) -> Part<'a> {
        self.trim_start().trim_end()
    }

    pub(super) fn trim_start(&self) -> Part<'a> {
        let text = self.text();
        self.from(text.len() - text.trim_start().len())
    }

    pub(super) fn trim_end(&self) -> Part<'a> {
        self.part(0, self.text().trim_end().len())
    }
}

/// One physical line of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical<'a> {
    /// The bytes, line end included.
    pub(super) bytes: &'a [u8],
    pub(super) offset: usize,
}

/// The longest line BuildKit takes.
pub(super) const LONGEST_LINE: usize = 65_535;

/// Goes through the physical lines of a file.
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    data: &'a [u8],
    offset: usize,
    /// How many lines were given out: also the number of the last one.
    pub(super) count: u32,
}

impl<'a> Lines<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            offset: 0,
            count: 0,
        }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Physical<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.data[self.offset..];
        if rest.is_empty() {
            return None;
        }
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(rest.len(), |newline| newline + 1);
        let line = Physical {
            bytes: &rest[..length],
            offset: self.offset,
        };
        self.offset += length;
        self.count += 1;
        Some(line)
    }
}

impl Physical<'_> {
    /// The bytes without the line end.
    pub(super) fn content(&self) -> &[u8] {
        let ends = self
            .bytes
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'\n' || byte == b'\r')
            .count();
        &self.bytes[..self.bytes.len() - ends]
    }
}

/// The bytes of a span.
#[cfg(test)]
pub(super) fn slice(data: &[u8], span: Span) -> &[u8] {
    data.get(to_usize(span.start)..to_usize(span.end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_know_their_place() {
        let data = b"ab  \\\n  cd";
        let mut line = Line::default();
        line.push("ab  ", 0);
        line.push("  cd", 6);
        let all = line.all();
        assert_eq!(all.text(), "ab    cd");
        assert_eq!(slice(data, all.from(4).trim().span()), b"cd");
        assert_eq!(slice(data, all.part(0, 2).span()), b"ab");
        assert_eq!(all.part(4, 4).span(), Span { start: 6, end: 6 });
    }
}

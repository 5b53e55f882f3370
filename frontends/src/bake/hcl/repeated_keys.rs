//! Parsing that lets an object constructor repeat a key, as HCL does (the last one wins).
//!
//! hcl-edit refuses `{ a = 1, a = 2 }`. It says where the repeat is, so the repeat gets a unique mark appended and
//! the text is parsed again; the tree is then read with the marks taken out and the positions moved back.

use hcl_edit::parser::Error;

/// A letter of no living language, so that it can follow any identifier and is not there already.
const MARK: char = '\u{a7fa}';
/// Each repeat costs one more parse.
const MAX_REPEATS: usize = 64;

/// A text with marks, and the way back to the original.
pub(crate) struct Marked {
    pub(crate) text: String,
    /// Where marks begin in the marked text, in ascending order, and how many bytes each takes.
    inserted: Vec<(usize, usize)>,
}

impl Marked {
    /// The position in the original text.
    pub(crate) fn original(&self, at: usize) -> usize {
        let before = self.inserted.iter().filter(|(start, _)| *start < at);
        at - before.map(|(start, length)| (*length).min(at - start)).sum::<usize>()
    }

    /// A key as it was written.
    pub(crate) fn strip<'t>(&self, key: &'t str) -> &'t str {
        if self.inserted.is_empty() {
            key
        } else {
            key.trim_end_matches(MARK)
        }
    }
}

/// Parses with `parse`, marking repeated keys until nothing else stands in the way.
pub(crate) fn parse_marked<T>(text: &str, parse: impl Fn(&str) -> Result<T, Error>) -> (Marked, Result<T, Error>) {
    let mut marked = Marked {
        text: String::from(text),
        inserted: Vec::new(),
    };
    loop {
        let error = match parse(&marked.text) {
            Ok(parsed) => return (marked, Ok(parsed)),
            Err(error) => error,
        };
        let repeated = error.message().contains("redefined object key");
        let count = marked.inserted.len() + 1;
        let end = key_end(&marked.text, error.location().offset());
        match end {
            Some(end) if repeated && count <= MAX_REPEATS => {
                let mark: String = std::iter::repeat_n(MARK, count).collect();
                marked.text.insert_str(end, &mark);
                for (start, _) in &mut marked.inserted {
                    if *start >= end {
                        *start += mark.len();
                    }
                }
                marked.inserted.push((end, mark.len()));
                marked.inserted.sort_unstable();
            }
            _ => return (marked, Err(error)),
        }
    }
}

/// Where a mark belongs: behind a name, or before the closing quote of a plain string.
fn key_end(text: &str, start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut escaped = false;
        for (at, char) in quoted.char_indices() {
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Some(start + 1 + at),
                '$' | '%' if quoted[at + 1..].starts_with('{') => return None,
                _ => {}
            }
        }
        return None;
    }
    let length = rest
        .find(|char: char| !(char == '_' || char == '-' || char.is_alphanumeric()))
        .unwrap_or(rest.len());
    let is_name = rest
        .chars()
        .next()
        .is_some_and(|first| first == '_' || first.is_alphabetic());
    (is_name && length > 0).then_some(start + length)
}

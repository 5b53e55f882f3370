//! Patterns of RE2 in the syntax of the engine at hand, which agrees with it except for what is handled here.

use regex::escape;

/// Counted repetitions go no further.
const MAX_REPEAT: u32 = 1000;

/// Rewrites a pattern.
///
/// # Errors
/// Says what RE2 refuses, though the engine would take it.
pub(super) fn translate(pattern: &str) -> Result<String, &'static str> {
    let mut translation = Translation {
        result: String::with_capacity(pattern.len() + 16),
        rest: pattern,
        class_depth: 0,
    };
    let mut was_repetition = false;
    while let Some(char) = translation.rest.chars().next() {
        let repetition = translation.repetition(char)?;
        if let Some(length) = repetition {
            if was_repetition {
                return Err("invalid nested repetition operator");
            }
            let lazy = usize::from(translation.rest[length..].starts_with('?'));
            translation.keep(length + lazy);
        } else {
            translation.one(char)?;
        }
        was_repetition = repetition.is_some();
    }
    Ok(translation.result)
}

struct Translation<'p> {
    result: String,
    rest: &'p str,
    /// How many brackets are open: 1 in a class, 2 in a named class inside it.
    class_depth: usize,
}

impl Translation<'_> {
    /// Takes the next bytes over as they are.
    fn keep(&mut self, length: usize) {
        self.result.push_str(&self.rest[..length]);
        self.rest = &self.rest[length..];
    }

    fn replace(&mut self, length: usize, with: &str) {
        self.result.push_str(with);
        self.rest = &self.rest[length..];
    }

    /// The length of a repetition operator, without the mark of a lazy one.
    fn repetition(&self, char: char) -> Result<Option<usize>, &'static str> {
        if self.class_depth > 0 {
            return Ok(None);
        }
        match char {
            '*' | '+' | '?' => Ok(Some(1)),
            '{' => match counted(self.rest) {
                Some((_, counts)) if counts.iter().any(|count| *count > MAX_REPEAT) => Err("invalid repeat count"),
                counted => Ok(counted.map(|(length, _)| length)),
            },
            _ => Ok(None),
        }
    }

    fn one(&mut self, char: char) -> Result<(), &'static str> {
        match char {
            '\\' => return self.escape(),
            '[' if self.class_depth == 0 => {
                self.class_depth = 1;
                // A bracket right at the start of a class does not close it.
                for head in ["[^]", "[]"] {
                    if self.rest.starts_with(head) {
                        self.result.push_str(&head[..head.len() - 1]);
                        self.replace(head.len(), "\\]");
                        return Ok(());
                    }
                }
            }
            // A bracket inside a class means itself, unless it opens a named class.
            '[' if self.rest.starts_with("[:") => self.class_depth = 2,
            '[' => self.result.push('\\'),
            ']' => self.class_depth = self.class_depth.saturating_sub(1),
            '&' | '~' | '-' if self.class_depth > 0 && self.rest[1..].starts_with(char) => self.result.push('\\'),
            // No repetition, so it means itself.
            '{' if self.class_depth == 0 => self.result.push('\\'),
            '(' if self.class_depth == 0 => self.check_flags()?,
            _ => {}
        }
        self.keep(char.len_utf8());
        Ok(())
    }

    fn check_flags(&self) -> Result<(), &'static str> {
        let Some(flags) = self.rest.strip_prefix("(?") else {
            return Ok(());
        };
        let end = flags.find([')', ':', '<']).unwrap_or(flags.len());
        let is_name = flags[end..].starts_with('<');
        let known = |char: char| matches!(char, 'i' | 'm' | 's' | 'U' | '-');
        if is_name || flags[..end].chars().all(known) {
            Ok(())
        } else {
            Err("invalid or unsupported Perl syntax")
        }
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        let Some(letter) = self.rest[1..].chars().next() else {
            return Err("trailing backslash at end of expression");
        };
        let class = match letter {
            // These know only ASCII.
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => "[\\t\\n\\x0C\\r ]",
            'S' => "[^\\t\\n\\x0C\\r ]",
            'b' if self.class_depth == 0 => "(?-u:\\b)",
            'Q' => {
                let quoted = &self.rest[2..];
                let end = quoted.find("\\E").unwrap_or(quoted.len());
                self.result.push_str(&escape(&quoted[..end]));
                self.rest = quoted.get(end + 2..).unwrap_or("");
                return Ok(());
            }
            '0'..='7' => return self.octal(),
            'p' | 'P' | 'x' if self.rest[2..].starts_with('{') => {
                self.keep(self.rest.find('}').map_or(self.rest.len(), |end| end + 1));
                return Ok(());
            }
            'A' | 'B' | 'a' | 'f' | 'n' | 'p' | 'P' | 'r' | 't' | 'v' | 'x' | 'z' => {
                self.keep(2);
                return Ok(());
            }
            letter if letter.is_ascii_punctuation() || letter.is_ascii_whitespace() || letter.is_ascii_control() => {
                let code = format!("\\x{{{:x}}}", u32::from(letter));
                self.replace(2, &code);
                return Ok(());
            }
            _ => return Err("invalid escape sequence"),
        };
        self.replace(2, class);
        Ok(())
    }

    /// One to three digits, the first of which is zero unless there are more.
    fn octal(&mut self) -> Result<(), &'static str> {
        let digits = &self.rest[1..];
        let length = digits
            .bytes()
            .take(3)
            .take_while(|byte| (b'0'..=b'7').contains(byte))
            .count();
        if length < 2 && !digits.starts_with('0') {
            return Err("references to groups are not supported");
        }
        let code = u32::from_str_radix(&digits[..length], 8).unwrap_or(0);
        self.replace(1 + length, &format!("\\x{{{code:x}}}"));
        Ok(())
    }
}

/// The length of `{n}`, `{n,}` or `{n,m}`, and its counts; `None` when it is something else.
fn counted(text: &str) -> Option<(usize, Vec<u32>)> {
    let end = text.find('}')?;
    let inner = &text[1..end];
    let (least, most) = inner
        .split_once(',')
        .map_or((inner, None), |(least, most)| (least, Some(most)));
    let mut counts = vec![count(least)?];
    if let Some(most) = most.filter(|most| !most.is_empty()) {
        counts.push(count(most)?);
    }
    Some((end + 1, counts))
}

fn count(text: &str) -> Option<u32> {
    let is_count = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_count || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}

//! Go's `filepath.Match`, compiled once per pattern.

use super::PatternError;

/// A compiled `filepath.Match` pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// A step of a pattern. `Star` is resolved by backtracking to the last star only, so matching is
/// O(pattern × text) and no pattern takes exponential time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Exactly this character.
    Char(char),
    /// One character other than `/`.
    AnyChar,
    /// Any run of characters other than `/`.
    Star,
    /// Any run of characters, or nothing: a `**` that ends the pattern.
    Rest,
    /// Nothing, or any run of characters that ends in `/`: a `**` with something behind it.
    Directories,
    /// One character in (or, negated, not in) one of the ranges.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Whether `**` is special, or just two stars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoubleStar {
    Special,
    Plain,
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`PatternError::Syntax`] for an open bracket, an escape at the end, or an empty class. Go notices these only
    /// when matching gets that far; here they are always errors.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        Ok(Self {
            tokens: compile(pattern, DoubleStar::Plain)?,
        })
    }

    /// Whether the whole of `path` matches. A byte that is no UTF-8 counts as one character, as in Go.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        matches(&self.tokens, path.as_ref())
    }
}

/// Whether a text holds a character that is special in a [`Glob`]: `*`, `?`, `[` or `\`.
pub fn has_glob_characters(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

pub(super) fn compile(pattern: &str, double_star: DoubleStar) -> Result<Vec<Token>, PatternError> {
    let syntax = || PatternError::Syntax {
        pattern: pattern.to_owned(),
    };
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if double_star == DoubleStar::Special && chars.next_if_eq(&'*').is_some() => {
                // `**/x` also matches `x`, so the slash belongs to the wildcard.
                chars.next_if_eq(&'/');
                if chars.peek().is_none() {
                    Token::Rest
                } else {
                    Token::Directories
                }
            }
            '*' if tokens.last() == Some(&Token::Star) => continue,
            '*' => Token::Star,
            '?' => Token::AnyChar,
            '\\' => Token::Char(chars.next().ok_or_else(syntax)?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
                        break;
                    }
                    let low = class_char(&mut chars).ok_or_else(syntax)?;
                    let high = match chars.next_if_eq(&'-') {
                        Some(_) => class_char(&mut chars).ok_or_else(syntax)?,
                        None => low,
                    };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            other => Token::Char(other),
        });
    }
    Ok(tokens)
}

/// A character of a class; `-` and `]` must be escaped there.
fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        other => Some(other),
    }
}

/// The character that bytes start with and its length; a byte that is no UTF-8 is U+FFFD of length one, as in Go.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let &first = bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next()?;
    Some(
        chunk
            .valid()
            .chars()
            .next()
            .map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())),
    )
}

/// Matches with backtracking to the innermost star; the wildcards that cross `/` recurse, and a pattern has few.
pub(super) fn matches(tokens: &[Token], path: &[u8]) -> bool {
    let (mut token, mut rest) = (0, path);
    // After a `Star`: its position, and the text behind what it takes so far.
    let mut star: Option<(usize, &[u8])> = None;
    loop {
        let step = match tokens.get(token) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Token::Rest) => return true,
            Some(Token::Directories) => {
                // Shortest first; every later start is behind a slash.
                let behind = &tokens[token + 1..];
                let mut from = Some(rest);
                while let Some(text) = from {
                    if matches(behind, text) {
                        return true;
                    }
                    from = text
                        .iter()
                        .position(|&byte| byte == b'/')
                        .map(|slash| &text[slash + 1..]);
                }
                None
            }
            Some(Token::Star) => {
                star = Some((token, rest));
                Some(rest)
            }
            Some(single) => first_char(rest)
                .filter(|&(c, _)| single.accepts(c))
                .map(|(_, length)| &rest[length..]),
        };
        match (step, star) {
            (Some(next), _) => {
                rest = next;
                token += 1;
            }
            (None, Some((star_token, reach))) => match first_char(reach) {
                Some((c, length)) if c != '/' => {
                    rest = &reach[length..];
                    star = Some((star_token, rest));
                    token = star_token + 1;
                }
                _ => return false,
            },
            (None, None) => return false,
        }
    }
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Token::Char(wanted) => *wanted == c,
            Token::AnyChar => c != '/',
            Token::Class { negated, ranges } => ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated,
            Token::Star | Token::Rest | Token::Directories => false,
        }
    }
}

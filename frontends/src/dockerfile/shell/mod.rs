//! Variable expansion and word splitting: the small shell language of Dockerfiles.
//!
//! `$x`, `${x}` and the modifiers `:- - :+ + :? ? # ## % %% / //`, single and double quotes, and an escape character.
//! Positional and special parameters are names like any other, that nobody sets.

mod pattern;

use std::collections::BTreeSet;

use super::go::quote;
use pattern::Pattern;

/// Where expansion finds values.
pub(crate) trait Variables {
    /// The value of a variable; `None` when it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
pub(crate) struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// What becomes of quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They group and vanish.
    Remove,
    /// They group and stay.
    Keep,
    /// They are characters like any other.
    Ignore,
}

/// What becomes of escape characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// They protect the next character and vanish.
    Remove,
    /// They protect the next character and stay.
    Keep,
}

/// What becomes of a variable that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unset {
    /// Nothing is put in its place.
    Empty,
    /// The reference stays as written.
    Keep,
}

/// How text is expanded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shell {
    pub(crate) escape: char,
    pub(crate) quotes: Quotes,
    pub(crate) escapes: Escapes,
    pub(crate) unset: Unset,
}

/// An expanded text, and the variables it mentioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expansion {
    pub(crate) text: String,
    /// The text split at unquoted blanks.
    pub(crate) words: Vec<String>,
    /// Mentioned and set.
    pub(crate) matched: BTreeSet<String>,
    /// Mentioned and not set.
    pub(crate) unmatched: BTreeSet<String>,
}

/// A text that breaks the language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", quote(.text))]
pub(crate) struct ShellError {
    pub(crate) text: String,
    pub(crate) reason: String,
}

/// Substitutions within substitutions; deeper ones would exhaust the stack.
const DEEPEST: u32 = 100;

impl Shell {
    /// Usual expansion: quotes and escapes vanish, unset variables are empty.
    pub(crate) fn new(escape: char) -> Self {
        Self {
            escape,
            quotes: Quotes::Remove,
            escapes: Escapes::Remove,
            unset: Unset::Empty,
        }
    }

    /// Expands a text.
    pub(crate) fn expand(&self, text: &str, variables: &dyn Variables) -> Result<Expansion, ShellError> {
        // Most words are plain, and plain words are themselves.
        let special = |c: char| matches!(c, '$' | '\'' | '"' | '<') || c == self.escape || c.is_whitespace();
        if !text.contains(special) {
            let words = if text.is_empty() {
                Vec::new()
            } else {
                vec![text.to_owned()]
            };
            return Ok(Expansion {
                text: text.to_owned(),
                words,
                ..Expansion::default()
            });
        }
        let mut run = Run {
            shell: self,
            variables,
            rest: text,
            escapes: self.escapes,
            depth: 0,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        let mut words = Words::default();
        match run.until(None, &mut words) {
            Ok(text) => Ok(Expansion {
                text,
                words: words.finish(),
                matched: run.matched,
                unmatched: run.unmatched,
            }),
            Err(reason) => Err(ShellError {
                text: text.to_owned(),
                reason,
            }),
        }
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    inside: bool,
}

impl Words {
    /// A character that splits words when it is a blank.
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push_raw(c);
        } else if self.inside && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.inside = false;
        }
    }

    fn push_raw(&mut self, c: char) {
        self.current.push(c);
        self.inside = true;
    }

    fn push_raw_str(&mut self, text: &str) {
        self.current.push_str(text);
        self.inside = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

/// One pass over a text.
struct Run<'a> {
    shell: &'a Shell,
    variables: &'a dyn Variables,
    rest: &'a str,
    escapes: Escapes,
    depth: u32,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    /// Expands up to the stop character, which is consumed, or to the end when there is none.
    fn until(&mut self, stop: Option<char>, words: &mut Words) -> Result<String, String> {
        let mut result = String::new();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok(result);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(c));
                    result.push_str(&value);
                }
                '\'' | '"' if self.shell.quotes != Quotes::Ignore => {
                    let value = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    words.push_raw_str(&value);
                    result.push_str(&value);
                }
                '<' => {
                    let value = self.possible_heredoc();
                    words.push_raw_str(&value);
                    result.push_str(&value);
                }
                _ => {
                    self.next();
                    let mut plain = c;
                    if c == self.shell.escape {
                        if self.escapes == Escapes::Keep {
                            words.push_raw(c);
                            result.push(c);
                        }
                        // An escape at the end protects nothing.
                        let Some(escaped) = self.next() else { break };
                        plain = escaped;
                        words.push_raw(plain);
                    } else {
                        words.push(plain);
                    }
                    result.push(plain);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(result),
        }
    }

    /// As [`until`](Self::until) inside a substitution.
    fn nested(&mut self, stop: char, escapes: Escapes, missing: &str) -> Result<String, String> {
        if self.depth == DEEPEST {
            return Err("substitutions are nested too deeply".to_owned());
        }
        self.depth += 1;
        let outside = std::mem::replace(&mut self.escapes, escapes);
        let result = self.until(Some(stop), &mut Words::default());
        self.escapes = outside;
        self.depth -= 1;
        result.map_err(|reason| {
            if self.rest.is_empty() {
                missing.to_owned()
            } else {
                reason
            }
        })
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let body = &self.rest[1..];
        let Some(end) = body.find('\'') else {
            self.rest = "";
            return Err("unexpected end of statement while looking for matching single-quote".to_owned());
        };
        let whole = &self.rest[..end + 2];
        self.rest = &body[end + 1..];
        Ok(match self.shell.quotes {
            Quotes::Keep => whole.to_owned(),
            Quotes::Remove | Quotes::Ignore => body[..end].to_owned(),
        })
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let keep = self.shell.quotes == Quotes::Keep;
        self.next();
        if keep {
            result.push('"');
        }
        loop {
            match self.peek() {
                None => return Err("unexpected end of statement while looking for matching double-quote".to_owned()),
                Some('"') => {
                    self.next();
                    if keep {
                        result.push('"');
                    }
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(mut c) => {
                    self.next();
                    if c == self.shell.escape {
                        if self.escapes == Escapes::Keep {
                            result.push(c);
                        }
                        match self.peek() {
                            None => continue,
                            // Only these can be escaped here; any other escape stays in the text.
                            Some(next) if next == '"' || next == '$' || next == self.shell.escape => {
                                self.next();
                                c = next;
                            }
                            Some(_) => {}
                        }
                    }
                    result.push(c);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.shell.unset == Unset::Keep => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err("syntax error: missing '}'".to_owned()),
            Some('}') => Ok(match self.value(&name) {
                None if self.shell.unset == Unset::Keep => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                Some(modifier @ ('-' | '+' | '?')) => self.default_or_alternative(&name, ":", modifier),
                Some(other) => Err(format!("unsupported modifier (:{other}) in substitution")),
                None => Err("syntax error: missing '}'".to_owned()),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.default_or_alternative(&name, "", modifier),
            Some(modifier @ ('#' | '%')) => self.trim(&name, modifier),
            Some('/') => self.replace(&name),
            Some(other) => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    fn default_or_alternative(&mut self, name: &str, colon: &str, modifier: char) -> Result<String, String> {
        let word = self.nested('}', Escapes::Remove, "syntax error: missing '}'")?;
        let value = self.value(name);
        if value.is_none() && self.shell.unset == Unset::Keep {
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let is_set = value.is_some();
        // With the colon, an empty value counts as none.
        let usable = value.filter(|value| colon.is_empty() || !value.is_empty());
        match (modifier, usable) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('?', None) if !word.is_empty() => Err(format!("{name}: {word}")),
            ('?', None) if is_set => Err(format!("{name}: is not allowed to be empty")),
            ('?', None) => Err(format!("{name}: is not allowed to be unset")),
            _ => Ok(String::new()),
        }
    }

    fn trim(&mut self, name: &str, modifier: char) -> Result<String, String> {
        let word = self.nested('}', Escapes::Keep, "syntax error: missing '}'")?;
        let Some(value) = self.value(name) else {
            return Ok(match self.shell.unset {
                Unset::Keep => format!("${{{name}{modifier}{word}}}"),
                Unset::Empty => String::new(),
            });
        };
        let (longest, text) = match word.strip_prefix(modifier) {
            Some(text) => (true, text),
            None => (false, word.as_str()),
        };
        let pattern = Pattern::parse(text)?;
        Ok(match (modifier, longest) {
            ('#', false) => value[pattern.shortest_prefix(&value).unwrap_or(0)..].to_owned(),
            ('#', true) => value[pattern.longest_prefix(&value).unwrap_or(0)..].to_owned(),
            (_, false) => value[..pattern.shortest_suffix(&value).unwrap_or(value.len())].to_owned(),
            (_, true) => value[..pattern.longest_suffix(&value).unwrap_or(value.len())].to_owned(),
        })
    }

    fn replace(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let from = self.nested('/', Escapes::Keep, "syntax error: missing '/' in ${}")?;
        let to = self.nested('}', Escapes::Keep, "syntax error: missing '}'")?;
        let Some(value) = self.value(name) else {
            return Ok(match self.shell.unset {
                // The second slash of `//` is lost here in BuildKit too; only step names show it.
                Unset::Keep => format!("${{{name}/{from}/{to}}}"),
                Unset::Empty => String::new(),
            });
        };
        let pattern = Pattern::parse(&from)?;
        Ok(if all {
            pattern.replace_all(&value, &to)
        } else {
            pattern.replace_first(&value, &to)
        })
    }

    /// Digits, one special parameter, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let is_digit = |c: char| c.is_numeric();
        let length = match self.peek() {
            Some(c) if is_digit(c) => self.rest.find(|c| !is_digit(c)).unwrap_or(self.rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => self
                .rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(self.rest.len()),
        };
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        name.to_owned()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).map(str::to_owned);
        let seen = if value.is_some() {
            &mut self.matched
        } else {
            &mut self.unmatched
        };
        seen.insert(name.to_owned());
        value
    }

    /// `<<` keeps the blanks behind it, so that `<< EOF` is one word.
    fn possible_heredoc(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let word = self.rest.trim_start_matches([' ', '\t', '\r']);
        let blanks = &self.rest[..self.rest.len() - word.len()];
        self.rest = word;
        format!("<<{blanks}")
    }
}

#[cfg(test)]
mod tests;

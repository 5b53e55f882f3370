//! Regular expressions, with the meaning they have in RE2.

use std::rc::Rc;

use regex::{Captures, Regex, RegexBuilder};

use super::{CallError, CallResult, Environment, Function, function, text};
use crate::bake::value::{Members, Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("regex", [("pattern", String), ("string", String)], |_, args| {
        let pattern = Pattern::new(text(&args[0]))?;
        match pattern.regex.captures(text(&args[1])) {
            Some(captures) => Ok(pattern.result(&captures)),
            None => Err(CallError::Argument(
                0,
                String::from("the pattern does not match any part of the string"),
            )),
        }
    }),
    function!(
        "regex_replace",
        [("str", String), ("pattern", String), ("replace", String)],
        regex_replace
    ),
    function!("regexall", [("pattern", String), ("string", String)], regexall),
];

/// What a compiled pattern may take.
const SIZE_LIMIT: usize = 4 << 20;

fn compile(pattern: &str, position: usize) -> Result<Regex, CallError> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| {
            // The engine draws the pattern, which is a translation; only its reason helps.
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or("").trim_start_matches("error: ");
            CallError::Argument(position, format!("invalid regular expression {pattern:?}: {reason}"))
        })
}

/// The classes `\d`, `\w`, `\s` and word boundaries know only ASCII in RE2, and `\Q…\E` quotes.
fn translate(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = 0_usize;
    'chars: while let Some(char) = rest.chars().next() {
        if char != '\\' {
            match char {
                '[' if in_class == 0 => {
                    in_class = 1;
                    // A bracket right at the start of a class does not close it.
                    for head in ["[^]", "[]"] {
                        if let Some(tail) = rest.strip_prefix(head) {
                            result.push_str(&head[..head.len() - 1]);
                            result.push_str("\\]");
                            rest = tail;
                            continue 'chars;
                        }
                    }
                }
                // A bracket inside a class means itself, unless it opens a named class.
                '[' if rest.starts_with("[:") => in_class = 2,
                '[' => result.push('\\'),
                ']' => in_class = in_class.saturating_sub(1),
                '&' | '~' | '-' if in_class > 0 && rest[1..].starts_with(char) => result.push('\\'),
                _ => {}
            }
            result.push(char);
            rest = &rest[char.len_utf8()..];
            continue;
        }
        let letter = rest[1..].chars().next();
        let replacement = match letter {
            Some('d') => "0-9",
            Some('D') => "^0-9",
            Some('w') => "0-9A-Za-z_",
            Some('W') => "^0-9A-Za-z_",
            Some('s') => "\\t\\n\\x0C\\r ",
            Some('S') => "^\\t\\n\\x0C\\r ",
            Some('b') if in_class == 0 => {
                result.push_str("(?-u:\\b)");
                rest = &rest[2..];
                continue;
            }
            Some('Q') => {
                let quoted = &rest[2..];
                let end = quoted.find("\\E").unwrap_or(quoted.len());
                result.push_str(&regex::escape(&quoted[..end]));
                rest = quoted.get(end + 2..).unwrap_or("");
                continue;
            }
            Some('z') => "",
            _ => {
                result.push('\\');
                if let Some(letter) = letter {
                    result.push(letter);
                }
                rest = &rest[1 + letter.map_or(0, char::len_utf8)..];
                continue;
            }
        };
        match letter {
            Some('z') => result.push_str("\\z"),
            _ => result.push_str(&format!("[{replacement}]")),
        }
        rest = &rest[2..];
    }
    result
}

/// A pattern, and what its groups make of a match.
struct Pattern {
    regex: Regex,
    names: Vec<Option<Rc<str>>>,
}

impl Pattern {
    fn new(source: &str) -> Result<Pattern, CallError> {
        let regex = compile(source, 0)?;
        let names: Vec<Option<Rc<str>>> = regex.capture_names().skip(1).map(|name| name.map(Rc::from)).collect();
        let named = names.iter().flatten().count();
        if named > 0 && named < names.len() {
            return Err(CallError::Argument(
                0,
                String::from("named and unnamed groups cannot be mixed in a pattern"),
            ));
        }
        Ok(Pattern { regex, names })
    }

    /// The type of [`Pattern::result`].
    fn result_type(&self) -> Type {
        if self.names.is_empty() {
            Type::String
        } else if self.names[0].is_none() {
            Type::tuple(self.names.iter().map(|_| Type::String))
        } else {
            Type::object(
                self.names
                    .iter()
                    .flatten()
                    .map(|name| (name.clone(), Type::String))
                    .collect(),
            )
        }
    }

    /// The match as a string; with groups, those as a tuple or, if they are named, as an object.
    fn result(&self, captures: &Captures<'_>) -> Value {
        let group = |index: usize| match captures.get(index) {
            Some(found) => Value::from(found.as_str()),
            None => Value::Null(Type::String),
        };
        if self.names.is_empty() {
            return group(0);
        }
        if self.names[0].is_none() {
            return Value::tuple((1..=self.names.len()).map(group).collect());
        }
        let members: Members = self
            .names
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((name.clone()?, group(at + 1))))
            .collect();
        Value::object(members)
    }
}

fn regexall(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let pattern = Pattern::new(text(&args[0]))?;
    let mut values = Vec::new();
    for captures in pattern.regex.captures_iter(text(&args[1])) {
        environment.charge_elements(1 + pattern.names.len())?;
        values.push(pattern.result(&captures));
    }
    Ok(Value::list(pattern.result_type(), values))
}

fn regex_replace(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let regex = compile(text(&args[1]), 1)?;
    let source = text(&args[0]);
    let mut result = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(source) {
        let Some(whole) = captures.get(0) else { continue };
        let before = result.len();
        result.push_str(&source[end..whole.start()]);
        captures.expand(text(&args[2]), &mut result);
        environment.charge(result.len() - before)?;
        end = whole.end();
    }
    result.push_str(&source[end..]);
    Ok(Value::string(&result))
}

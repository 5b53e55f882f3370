//! `$NAME` and `${NAME:-default}` in the strings of Compose files.

use super::yaml::Yaml;

/// Why a text cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InterpolationError {
    #[error("{text:?} is no valid template; write $$ for a dollar sign")]
    Malformed { text: String },
    #[error("required variable {name} is missing a value{}", reason_of(.reason))]
    Required { name: String, reason: String },
    #[error("variables are nested too deeply")]
    TooDeep,
    #[error("the result is larger than {} MiB", MAX_TEXT >> 20)]
    TooLarge,
}

fn reason_of(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

const MAX_NESTING: usize = 100;
/// A few nested defaults can name the same long variable again and again.
const MAX_TEXT: usize = 16 << 20;

/// Where values come from.
pub(crate) type Lookup<'l> = &'l dyn Fn(&str) -> Option<String>;

/// Fills in all variables. Unset ones are empty.
pub(crate) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<String, InterpolationError> {
    fill(text, lookup, 0)
}

/// Fills in all strings of a tree, but not its keys.
///
/// # Errors
/// The path of the first text that cannot be filled in, and why.
pub(super) fn substitute_tree(value: &mut Yaml, path: &str, lookup: Lookup<'_>) -> Result<(), String> {
    let below = |key: &str| {
        if path.is_empty() {
            String::from(key)
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Yaml::Text(text) if text.contains('$') => {
            *text = substitute(text, lookup).map_err(|error| format!("{path}: {error}"))?;
        }
        Yaml::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                substitute_tree(item, &format!("{path}[{index}]"), lookup)?;
            }
        }
        Yaml::Map(entries) => {
            for (key, entry) in entries {
                substitute_tree(entry, &below(key), lookup)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn fill(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, InterpolationError> {
    if depth > MAX_NESTING {
        return Err(InterpolationError::TooDeep);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.as_bytes().first() {
            Some(b'$') => {
                filled.push('$');
                rest = &rest[1..];
            }
            Some(b'{') => {
                let malformed = || InterpolationError::Malformed {
                    text: String::from(text),
                };
                let end = closing_brace(rest).ok_or_else(malformed)?;
                let expression = braced(&rest[1..end], lookup, depth)?;
                filled.push_str(&expression.ok_or_else(malformed)?);
                rest = &rest[end + 1..];
            }
            Some(byte) if is_name_start(*byte) => {
                let end = name_end(rest);
                filled.push_str(&lookup(&rest[..end]).unwrap_or_default());
                rest = &rest[end..];
            }
            // A dollar sign before anything else is just that.
            _ => filled.push('$'),
        }
        if filled.len() > MAX_TEXT {
            return Err(InterpolationError::TooLarge);
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name_start(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic()
}

fn name_end(text: &str) -> usize {
    text.bytes()
        .position(|byte| byte != b'_' && !byte.is_ascii_alphanumeric())
        .unwrap_or(text.len())
}

/// The brace that closes the one at the start, with those in between in pairs.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// What is between braces: a name, perhaps an operator, and a text for when it applies. `None` if it is malformed.
fn braced(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<Option<String>, InterpolationError> {
    if !text.bytes().next().is_some_and(is_name_start) {
        return Ok(None);
    }
    let (name, rest) = text.split_at(name_end(text));
    let value = lookup(name);
    if rest.is_empty() {
        return Ok(Some(value.unwrap_or_default()));
    }
    let (empty_counts, rest) = match rest.strip_prefix(':') {
        Some(rest) => (false, rest),
        None => (true, rest),
    };
    let is_given = value.as_ref().is_some_and(|value| empty_counts || !value.is_empty());
    let Some(operator) = rest.chars().next() else {
        return Ok(None);
    };
    let word = &rest[operator.len_utf8()..];
    match operator {
        '-' if is_given => Ok(value),
        '-' => fill(word, lookup, depth + 1).map(Some),
        '+' if is_given => fill(word, lookup, depth + 1).map(Some),
        '+' => Ok(Some(value.unwrap_or_default())),
        '?' if is_given => Ok(value),
        '?' => Err(InterpolationError::Required {
            name: String::from(name),
            reason: fill(word, lookup, depth + 1)?,
        }),
        _ => Ok(None),
    }
}

//! Files of environment variables.

use std::collections::BTreeMap;

use super::interpolate::substitute;

/// Reads a file into the variables, which later lines can refer to. What the lookup knows wins in references.
///
/// # Errors
/// What is wrong, with the line.
pub(super) fn parse_into(
    text: &str,
    variables: &mut BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        if rest.starts_with('#') {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        let start = rest;
        let fail = |message: String| format!("line {}: {message}", line(start));
        let statement = match rest.strip_prefix("export") {
            Some(after) if after.starts_with(is_blank) => after.trim_start_matches(is_blank),
            _ => rest,
        };
        let end = statement.find(['=', ':', '\n']).unwrap_or(statement.len());
        let name = statement[..end].trim_end();
        let is_name_char = |char: char| char.is_alphanumeric() || matches!(char, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() {
            return Err(fail(String::from("a name is missing in front of the value")));
        }
        if let Some(odd) = name.chars().find(|char| !is_name_char(*char)) {
            return Err(fail(format!("unexpected character {odd:?} in the name {name:?}")));
        }
        if !statement[end..].starts_with(['=', ':']) {
            // A name alone takes over what is around.
            if let Some(value) = lookup(name) {
                variables.insert(String::from(name), value);
            }
            rest = &statement[end..];
            continue;
        }
        let value = statement[end + 1..].trim_start_matches(is_blank);
        let (value, after) = read_value(value, variables, lookup).map_err(fail)?;
        variables.insert(String::from(name), value);
        rest = after;
    }
}

fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

fn read_value<'t>(
    text: &'t str,
    variables: &BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, &'t str), String> {
    let expand = |text: &str| {
        let known = |name: &str| lookup(name).or_else(|| variables.get(name).cloned());
        substitute(text, &known).map_err(|error| error.to_string())
    };
    let quote = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        _ => {
            let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
            let value = line.split_once(" #").map_or(line, |(value, _)| value);
            return Ok((expand(value.trim_end())?, rest));
        }
    };
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some((_, next)) if next == quote => value.push(quote),
                // A second backslash stays, so that the escapes of double quotes are seen below.
                Some((_, next)) => value.extend(['\\', next]),
                None => break,
            },
            char if char == quote => {
                let value = if quote == '"' {
                    expand(&unescape(&value))?
                } else {
                    value
                };
                return Ok((value, &text[at + 1..]));
            }
            char => value.push(char),
        }
    }
    Err(format!(
        "the quoted value {} has no end",
        text.lines().next().unwrap_or_default()
    ))
}

/// The escapes that shells know; a dollar sign stays escaped for what comes next.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\\' {
            plain.push(char);
            continue;
        }
        match chars.next() {
            Some('$') => plain.push_str("$$"),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('a') => plain.push('\u{7}'),
            Some('b') => plain.push('\u{8}'),
            Some('f') => plain.push('\u{c}'),
            Some('v') => plain.push('\u{b}'),
            Some(next @ ('\\' | '"')) => plain.push(next),
            Some('0') => {
                let mut code = 0;
                let mut digits = 0;
                while let Some(digit) = chars.peek().and_then(|char| char.to_digit(8)).filter(|_| digits < 3) {
                    code = code * 8 + digit;
                    digits += 1;
                    chars.next();
                }
                plain.push(char::from_u32(code).unwrap_or('\0'));
            }
            Some(next) => plain.extend(['\\', next]),
            None => plain.push('\\'),
        }
    }
    plain
}

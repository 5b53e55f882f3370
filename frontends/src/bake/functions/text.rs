//! Functions of text. A character is what a person sees as one: a grapheme cluster.

use unicode_segmentation::UnicodeSegmentation;

use super::{CallError, CallResult, Environment, Function, function, integer, text};
use crate::bake::value::{Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("chomp", [("str", String)], |_, args| Ok(Value::from(
        text(&args[0]).trim_end_matches(['\r', '\n'])
    ))),
    function!("indent", [("spaces", Number), ("str", String)], indent),
    function!("join", [("separator", String)], ("lists", StringList), join),
    function!("lower", [("str", String)], |_, args| Ok(Value::string(&map_chars(
        text(&args[0]),
        lower
    )))),
    function!(
        "replace",
        [("str", String), ("substr", String), ("replace", String)],
        replace
    ),
    function!("reverse", [("str", String)], |_, args| {
        Ok(Value::string(&text(&args[0]).graphemes(true).rev().collect::<String>()))
    }),
    function!("sort", [("list", StringList)], sort),
    function!("split", [("separator", String), ("str", String)], split),
    function!("strlen", [("str", String)], |_, args| Ok(Value::size(
        text(&args[0]).graphemes(true).count()
    ))),
    function!(
        "substr",
        [("str", String), ("offset", Number), ("length", Number)],
        substr
    ),
    function!("title", [("str", String)], |_, args| Ok(Value::string(&title(text(
        &args[0]
    ))))),
    function!("trim", [("str", String), ("cutset", String)], |_, args| {
        let cutset = text(&args[1]);
        Ok(Value::from(text(&args[0]).trim_matches(|char| cutset.contains(char))))
    }),
    function!("trimprefix", [("str", String), ("prefix", String)], |_, args| {
        let source = text(&args[0]);
        Ok(Value::from(source.strip_prefix(text(&args[1])).unwrap_or(source)))
    }),
    function!("trimspace", [("str", String)], |_, args| Ok(Value::from(
        text(&args[0]).trim()
    ))),
    function!("trimsuffix", [("str", String), ("suffix", String)], |_, args| {
        let source = text(&args[0]);
        Ok(Value::from(source.strip_suffix(text(&args[1])).unwrap_or(source)))
    }),
    function!("upper", [("str", String)], |_, args| Ok(Value::string(&map_chars(
        text(&args[0]),
        upper
    )))),
];

fn map_chars(source: &str, map: fn(char) -> char) -> String {
    source.chars().map(map).collect()
}

/// One character stays one character: `ß` has no single upper case and is left alone.
fn upper(char: char) -> char {
    let mut mapped = char.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(single), None) => single,
        _ => match char {
            // Greek letters with an iota below have a title case form that counts as their upper case.
            '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
                char::from_u32(u32::from(char) + 8).unwrap_or(char)
            }
            '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => char::from_u32(u32::from(char) + 9).unwrap_or(char),
            _ => char,
        },
    }
}

fn lower(char: char) -> char {
    char.to_lowercase().next().unwrap_or(char)
}

/// Digraphs have a form of their own for the start of a word.
fn title_case(char: char) -> char {
    match char {
        'Ǆ' | 'ǅ' | 'ǆ' => 'ǅ',
        'Ǉ' | 'ǈ' | 'ǉ' => 'ǈ',
        'Ǌ' | 'ǋ' | 'ǌ' => 'ǋ',
        'Ǳ' | 'ǲ' | 'ǳ' => 'ǲ',
        other => upper(other),
    }
}

fn title(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut starts_word = true;
    for char in source.chars() {
        result.push(if starts_word { title_case(char) } else { char });
        starts_word = if char.is_ascii() {
            !(char.is_ascii_alphanumeric() || char == '_')
        } else {
            !char.is_alphanumeric() && char.is_whitespace()
        };
    }
    result
}

fn indent(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let Ok(spaces) = usize::try_from(integer(args, 0)?) else {
        return Err(CallError::Argument(
            0,
            String::from("the number of spaces must not be negative"),
        ));
    };
    let source = text(&args[1]);
    environment.charge(source.matches('\n').count().saturating_mul(spaces))?;
    if !source.contains('\n') {
        return Ok(args[1].clone());
    }
    Ok(Value::string(
        &source.replace('\n', &format!("\n{}", " ".repeat(spaces))),
    ))
}

fn join(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let separator = text(&args[0]);
    if args.len() < 2 {
        return Err(CallError::from("at least one list is required"));
    }
    let mut items = Vec::new();
    for (position, list) in args.iter().enumerate().skip(1) {
        for (index, item) in list.as_sequence().unwrap_or_default().iter().enumerate() {
            match item.as_str() {
                Some(item) => items.push(item),
                None => {
                    return Err(CallError::Argument(
                        position,
                        format!("element {index} is null and cannot be joined"),
                    ));
                }
            }
        }
    }
    environment.charge(items.iter().map(|item| item.len() + separator.len()).sum())?;
    Ok(Value::string(&items.join(separator)))
}

fn replace(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let (source, part, new) = (text(&args[0]), text(&args[1]), text(&args[2]));
    environment.charge(source.len() + source.matches(part).count().saturating_mul(new.len()))?;
    Ok(Value::string(&source.replace(part, new)))
}

fn sort(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let mut items: Vec<&str> = Vec::new();
    for (index, item) in args[0].as_sequence().unwrap_or_default().iter().enumerate() {
        match item.as_str() {
            Some(item) => items.push(item),
            None => {
                return Err(CallError::Argument(
                    0,
                    format!("element {index} is null and cannot be sorted"),
                ));
            }
        }
    }
    items.sort_unstable();
    Ok(Value::strings(items))
}

fn split(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let (separator, source) = (text(&args[0]), text(&args[1]));
    let parts: Vec<Value> = if separator.is_empty() {
        source
            .chars()
            .map(|char| Value::string(char.encode_utf8(&mut [0; 4])))
            .collect()
    } else {
        source.split(separator).map(Value::string).collect()
    };
    environment.charge_elements(parts.len())?;
    Ok(Value::list(Type::String, parts))
}

fn substr(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let (source, mut offset, length) = (text(&args[0]), integer(args, 1)?, integer(args, 2)?);
    if offset < 0 {
        offset += source.graphemes(true).count() as i64;
    } else if length == 0 {
        return Ok(Value::string(""));
    }
    let rest = source.graphemes(true).skip(usize::try_from(offset).unwrap_or(0));
    // A length of zero counts only with an offset from the start, otherwise it takes the rest.
    let length = if length > 0 {
        usize::try_from(length).unwrap_or(usize::MAX)
    } else {
        usize::MAX
    };
    Ok(Value::string(&rest.take(length).collect::<String>()))
}

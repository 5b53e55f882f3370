//! `format` and `formatlist`: text with `%` verbs.

use unicode_segmentation::UnicodeSegmentation;

use super::{CallError, CallResult, Environment, Function, function, text};
use crate::bake::value::{Number, Type, Value, convert, to_json};

pub(super) const FUNCTIONS: &[Function] = &[
    function!(
        "format",
        [("format", String)],
        ("args", AnyOrNull),
        |environment, args| { Ok(Value::string(&format(environment, text(&args[0]), &args[1..])?)) }
    ),
    function!("formatlist", [("format", String)], ("args", AnyOrNull), format_list),
];

/// One verb: `%`, flags, width, precision, argument index, letter.
#[derive(Debug, Default)]
struct Verb {
    /// As written, for messages.
    raw: String,
    at: usize,
    argument: usize,
    letter: char,
    zero: bool,
    sharp: bool,
    plus: bool,
    minus: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats the elements of lists side by side; everything else is repeated.
fn format_list(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let pattern = text(&args[0]);
    let args = &args[1..];
    let mut length: Option<(usize, usize)> = None;
    for (position, arg) in args.iter().enumerate() {
        let Some(elements) = arg.as_sequence() else { continue };
        match length {
            Some((first, expected)) if expected != elements.len() => {
                let message = format!(
                    "argument {} has {} elements, argument {} has {expected}",
                    position + 1,
                    elements.len(),
                    first + 1
                );
                return Err(CallError::Argument(position + 1, message));
            }
            Some(_) => {}
            None => length = Some((position, elements.len())),
        }
    }
    let rows = length.map_or(1, |(_, count)| count);
    let mut texts = Vec::with_capacity(rows);
    for row in 0..rows {
        let row_args: Vec<Value> = args
            .iter()
            .map(|arg| {
                arg.as_sequence()
                    .map_or_else(|| arg.clone(), |elements| elements[row].clone())
            })
            .collect();
        let text = format(environment, pattern, &row_args).map_err(|error| format!("in row {row}: {error}"))?;
        texts.push(Value::string(&text));
    }
    Ok(Value::list(Type::String, texts))
}

pub(super) fn format(environment: &Environment<'_>, pattern: &str, args: &[Value]) -> Result<String, CallError> {
    let mut result = String::new();
    let mut next = 1;
    let mut highest = 0;
    let mut at = 0;
    while let Some(start) = pattern[at..].find('%').map(|found| at + found) {
        result.push_str(&pattern[at..start]);
        if pattern[start + 1..].starts_with('%') {
            result.push('%');
            at = start + 2;
            continue;
        }
        let (verb, end) = read_verb(pattern, start, next)?;
        highest = highest.max(verb.argument);
        next = verb.argument + 1;
        let Some(arg) = verb.argument.checked_sub(1).and_then(|index| args.get(index)) else {
            return Err(CallError::Whole(format!(
                "not enough arguments for {:?} at {}: argument {} is asked for, {} given",
                verb.raw,
                verb.at,
                verb.argument,
                args.len()
            )));
        };
        environment.charge(verb.width.unwrap_or(0).saturating_add(verb.precision.unwrap_or(0)))?;
        let piece = write(&verb, arg).map_err(|reason| {
            CallError::Whole(format!("unsupported value for {:?} at {}: {reason}", verb.raw, verb.at))
        })?;
        environment.charge(piece.len())?;
        result.push_str(&piece);
        at = end;
    }
    result.push_str(&pattern[at..]);
    if highest < args.len() {
        return Err(CallError::Argument(
            highest + 1,
            format!("too many arguments, the format uses only {highest}"),
        ));
    }
    Ok(result)
}

fn read_verb(pattern: &str, start: usize, next: usize) -> Result<(Verb, usize), CallError> {
    let bytes = pattern.as_bytes();
    let mut verb = Verb {
        at: start,
        argument: next,
        ..Verb::default()
    };
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'0') => verb.zero = true,
            Some(b'#') => verb.sharp = true,
            Some(b'-') => verb.minus = true,
            Some(b'+') => verb.plus = true,
            Some(b' ') => verb.space = true,
            _ => break,
        }
        at += 1;
    }
    let number = |at: &mut usize| -> Option<usize> {
        let from = *at;
        while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
            *at += 1;
        }
        if *at == from {
            None
        } else {
            Some(pattern[from..*at].parse().unwrap_or(usize::MAX))
        }
    };
    verb.width = number(&mut at);
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        verb.precision = Some(number(&mut at).unwrap_or(0));
    }
    if bytes.get(at) == Some(&b'[') {
        let mut inner = at + 1;
        if let Some(index) = number(&mut inner)
            && index > 0
            && bytes.get(inner) == Some(&b']')
        {
            verb.argument = index;
            at = inner + 1;
        }
    }
    match pattern[at..].chars().next() {
        Some(letter) if letter.is_ascii_alphabetic() => {
            verb.letter = letter;
            verb.raw = String::from(&pattern[start..=at]);
            Ok((verb, at + 1))
        }
        Some(other) => Err(CallError::Whole(format!(
            "unrecognized format character {other:?} at {at}"
        ))),
        None => Err(CallError::Whole(format!("the format ends inside the verb at {start}"))),
    }
}

fn write(verb: &Verb, arg: &Value) -> Result<String, String> {
    if verb.letter != 'v' && arg.is_null() {
        return Err(String::from("null cannot be formatted"));
    }
    match verb.letter {
        'v' => {
            let plain = match arg {
                Value::String(text) if !verb.sharp => String::from(&**text),
                Value::Number(number) if !verb.sharp => number.to_general(None, 'e'),
                other => to_json(other).map_err(|error| error.to_string())?,
            };
            Ok(pad(verb, plain))
        }
        't' => match convert(arg, &Type::Bool) {
            Ok(Value::Bool(true)) => Ok(String::from("true")),
            Ok(_) => Ok(String::from("false")),
            Err(error) => Err(error.to_string()),
        },
        'b' | 'd' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'g' | 'G' => {
            let converted = convert(arg, &Type::Number).map_err(|error| error.to_string())?;
            let number = converted.as_number().ok_or("a number is required")?;
            if matches!(verb.letter, 'b' | 'd' | 'o' | 'x' | 'X') {
                write_integer(verb, number)
            } else {
                Ok(write_float(verb, number))
            }
        }
        's' | 'q' => {
            let converted = convert(arg, &Type::String).map_err(|error| error.to_string())?;
            let mut string = String::from(converted.as_str().unwrap_or(""));
            if let Some(precision) = verb.precision
                && precision > 0
            {
                string = string.graphemes(true).take(precision).collect();
            }
            if verb.letter == 'q' {
                string = to_json(&Value::string(&string)).map_err(|error| error.to_string())?;
            }
            Ok(pad(verb, string))
        }
        other => Err(format!("there is no verb {other:?}")),
    }
}

fn pad(verb: &Verb, text: String) -> String {
    let Some(width) = verb.width else { return text };
    let missing = width.saturating_sub(text.graphemes(true).count());
    if missing == 0 {
        return text;
    }
    let fill = if verb.zero { "0" } else { " " }.repeat(missing);
    if verb.minus { text + &fill } else { fill + &text }
}

fn sign(verb: &Verb, negative: bool) -> &'static str {
    match (negative, verb.plus, verb.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    }
}

fn write_integer(verb: &Verb, number: &Number) -> Result<String, String> {
    let magnitude = number.to_integer().ok_or("a whole number is required")?;
    let (radix, prefix) = match verb.letter {
        'b' => (2, "0b"),
        'o' => (8, "0"),
        'x' => (16, "0x"),
        'X' => (16, "0X"),
        _ => (10, ""),
    };
    let mut digits = magnitude.to_str_radix(radix);
    if verb.letter == 'X' {
        digits = digits.to_uppercase();
    }
    let sign = sign(verb, number.is_negative());
    let prefix = if verb.sharp { prefix } else { "" };
    if verb.precision == Some(0) && digits == "0" {
        return Ok(String::new());
    }
    let mut zeros = verb.precision.unwrap_or(0).saturating_sub(digits.len());
    let length = sign.len() + prefix.len() + zeros + digits.len();
    let missing = verb.width.unwrap_or(0).saturating_sub(length);
    let (mut left, mut right) = (0, 0);
    if verb.minus {
        right = missing;
    } else if verb.zero && verb.precision.is_none() {
        zeros += missing;
    } else {
        left = missing;
    }
    Ok(format!(
        "{}{sign}{prefix}{}{digits}{}",
        " ".repeat(left),
        "0".repeat(zeros),
        " ".repeat(right)
    ))
}

fn write_float(verb: &Verb, number: &Number) -> String {
    let places = verb.precision.unwrap_or(6);
    let plain = match verb.letter {
        'e' | 'E' => number.to_scientific(places, verb.letter),
        'g' => number.to_general(verb.precision, 'e'),
        'G' => number.to_general(verb.precision, 'E'),
        _ => number.to_fixed(places),
    };
    let (sign, body) = if let Some(body) = plain.strip_prefix('-') {
        ("-", body)
    } else if let Some(body) = plain.strip_prefix('+') {
        (if verb.space { " " } else { "+" }, body)
    } else {
        (sign(verb, false), plain.as_str())
    };
    let missing = verb.width.unwrap_or(0).saturating_sub(sign.len() + body.len());
    if verb.zero && !verb.minus && !number.is_infinite() {
        format!("{sign}{}{body}", "0".repeat(missing))
    } else if verb.minus {
        format!("{sign}{body}{}", " ".repeat(missing))
    } else {
        format!("{}{sign}{body}", " ".repeat(missing))
    }
}

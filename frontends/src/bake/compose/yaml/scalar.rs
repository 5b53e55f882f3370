//! What a scalar means: YAML 1.2 with the numbers of YAML 1.1, which is what tools for Compose agree on.

use saphyr_parser::{ScalarStyle, Tag};

use super::Yaml;

pub(super) fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Yaml, String> {
    let core = tag
        .filter(|tag| tag.is_yaml_core_schema())
        .map(|tag| tag.suffix.as_str());
    let value = match core {
        Some("str" | "binary") => return Ok(Yaml::Text(String::from(text))),
        Some("null") => return Ok(Yaml::Null),
        Some(_) => plain(text),
        // The tag `!` alone means a string.
        None if tag.is_some_and(|tag| tag.suffix.is_empty()) => return Ok(Yaml::Text(String::from(text))),
        None if style == ScalarStyle::Plain => return Ok(plain(text)),
        None => return Ok(Yaml::Text(String::from(text))),
    };
    match (core, value) {
        (Some("int"), value @ Yaml::Integer(_)) | (Some("bool"), value @ Yaml::Bool(_)) => Ok(value),
        (Some("float"), Yaml::Integer(value)) => Ok(Yaml::Float(value as f64)),
        (Some("float"), value @ Yaml::Float(_)) => Ok(value),
        (Some(wanted @ ("int" | "bool" | "float")), _) => Err(format!("{text:?} is no {wanted}")),
        (_, _) => Ok(Yaml::Text(String::from(text))),
    }
}

fn plain(text: &str) -> Yaml {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
        "true" | "True" | "TRUE" => return Yaml::Bool(true),
        "false" | "False" | "FALSE" => return Yaml::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Yaml::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Yaml::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Yaml::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return Yaml::Text(String::from(text));
    }
    let digits = text.replace('_', "");
    if let Some(integer) = integer(&digits) {
        return Yaml::Integer(integer);
    }
    match digits.parse::<f64>() {
        Ok(number) if is_decimal(&digits) => Yaml::Float(number),
        _ => Yaml::Text(String::from(text)),
    }
}

/// A whole number of at most 64 bits, in any of the usual bases.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (base, digits) = match prefix.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(prefix) if prefix.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|first: char| first.is_digit(base)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, base).ok()?;
    let value = if negative {
        -i128::from(magnitude)
    } else {
        i128::from(magnitude)
    };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// Digits with at most one point among them, and perhaps an exponent.
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = (is_number(whole) || whole.is_empty()) && (is_number(part) || part.is_empty()) && mantissa != ".";
    has_digits && !mantissa.is_empty() && exponent.is_none_or(is_number)
}

/// The shortest text that reads back as the number; huge and tiny ones with an exponent.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return String::from("NaN");
    }
    if value.is_infinite() {
        return String::from(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value}"),
    }
}

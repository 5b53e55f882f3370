//! Functions of time.

use super::timestamp::{MONTHS, Timestamp, WEEKDAYS, parse_duration};
use super::{CallError, CallResult, Environment, Function, function, text};
use crate::bake::value::{Members, Number, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("formatdate", [("format", String), ("time", String)], |_, args| {
        let at = parse(args, 1)?;
        Ok(Value::string(&format_date(text(&args[0]), at)?))
    }),
    function!("formattimestamp", [("format", String), ("time", Any)], format_timestamp),
    function!("timeadd", [("timestamp", String), ("duration", String)], |_, args| {
        let at = parse(args, 0)?;
        let duration = parse_duration(text(&args[1])).map_err(|message| CallError::Argument(1, message))?;
        match at.add(duration) {
            Some(moved) => Ok(Value::string(&moved.to_text())),
            None => Err(CallError::from("the result is out of range")),
        }
    }),
    function!("timestamp", [], |environment, _| Ok(Value::string(
        &Timestamp::from_unix(environment.now).to_text()
    ))),
    function!("unixtimestampparse", [("unix_timestamp", Number)], unix_timestamp_parse),
];

fn parse(args: &[Value], index: usize) -> Result<Timestamp, CallError> {
    Timestamp::parse(text(&args[index])).map_err(|message| CallError::Argument(index, message))
}

fn from_number(number: &Number, index: usize) -> Result<Timestamp, CallError> {
    // Years beyond what four digits hold print, but not far beyond.
    match number.to_i64().filter(|seconds| seconds.abs() < 1 << 60) {
        Some(seconds) => Ok(Timestamp::from_unix(seconds)),
        None => Err(CallError::Argument(
            index,
            String::from("a unix timestamp must be a whole number"),
        )),
    }
}

fn format_timestamp(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let at = match &args[1] {
        Value::String(_) => parse(args, 1)?,
        Value::Number(number) => from_number(number, 1)?,
        _ => {
            let message = "an RFC 3339 timestamp or the number of a unix timestamp is required";
            return Err(CallError::Argument(1, String::from(message)));
        }
    };
    match text(&args[0]) {
        "X" => Ok(Value::string(&at.seconds.to_string())),
        format => Ok(Value::string(&format_date(format, at)?)),
    }
}

fn unix_timestamp_parse(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let at = from_number(args[0].as_number().unwrap_or(&Number::zero()), 0)?;
    let calendar = at.calendar();
    let (iso_year, iso_week) = at.iso_week();
    let month = calendar.month as i64;
    let members: Members = [
        ("year", Value::integer(calendar.year)),
        ("year_day", Value::integer(calendar.year_day)),
        ("day", Value::integer(calendar.day)),
        ("month", Value::integer(month)),
        ("month_name", Value::from(MONTHS[calendar.month - 1])),
        ("weekday", Value::integer(calendar.weekday as i64)),
        ("weekday_name", Value::from(WEEKDAYS[calendar.weekday])),
        ("hour", Value::integer(calendar.hour)),
        ("minute", Value::integer(calendar.minute)),
        ("second", Value::integer(calendar.second)),
        ("rfc3339", Value::string(&at.to_text())),
        ("iso_year", Value::integer(iso_year)),
        ("iso_week", Value::integer(iso_week)),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect();
    Ok(Value::object(members))
}

/// Letters are verbs, text in single quotes is copied, everything else too.
fn format_date(format: &str, at: Timestamp) -> Result<String, CallError> {
    let mut result = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = literal(&rest[1..], &mut result)?;
        } else if first.is_ascii_alphabetic() {
            let length = rest.find(|char| char != first).unwrap_or(rest.len());
            result.push_str(&verb(&rest[..length], at)?);
            rest = &rest[length..];
        } else {
            let length = rest
                .find(|char: char| char == '\'' || char.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            result.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    Ok(result)
}

/// Copies up to the closing quote; a doubled quote stands for one. Gives back what follows.
fn literal<'f>(inside: &'f str, result: &mut String) -> Result<&'f str, CallError> {
    if let Some(rest) = inside.strip_prefix('\'') {
        result.push('\'');
        return Ok(rest);
    }
    let mut rest = inside;
    loop {
        let Some(end) = rest.find('\'') else {
            return Err(CallError::Argument(
                0,
                String::from("the quoted text in the format is not closed"),
            ));
        };
        result.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                result.push('\'');
                rest = more;
            }
            None => return Ok(rest),
        }
    }
}

fn verb(verb: &str, at: Timestamp) -> Result<String, CallError> {
    let calendar = at.calendar();
    let month = MONTHS[calendar.month - 1];
    let weekday = WEEKDAYS[calendar.weekday];
    let half_day = |before: &str, after: &str| String::from(if calendar.hour < 12 { before } else { after });
    let twelve = if calendar.hour % 12 == 0 {
        12
    } else {
        calendar.hour % 12
    };
    Ok(match verb {
        "YY" => format!("{:02}", calendar.year % 100),
        "YYYY" => format!("{:04}", calendar.year),
        "M" => calendar.month.to_string(),
        "MM" => format!("{:02}", calendar.month),
        "MMM" => String::from(&month[..3]),
        "MMMM" => String::from(month),
        "D" => calendar.day.to_string(),
        "DD" => format!("{:02}", calendar.day),
        "EEE" => String::from(&weekday[..3]),
        "EEEE" => String::from(weekday),
        "h" => calendar.hour.to_string(),
        "hh" => format!("{:02}", calendar.hour),
        "H" => twelve.to_string(),
        "HH" => format!("{twelve:02}"),
        "AA" => half_day("AM", "PM"),
        "aa" => half_day("am", "pm"),
        "m" => calendar.minute.to_string(),
        "mm" => format!("{:02}", calendar.minute),
        "s" => calendar.second.to_string(),
        "ss" => format!("{:02}", calendar.second),
        "Z" if at.offset == 0 => String::from("Z"),
        "Z" | "ZZZZZ" => at.offset_text(":"),
        "ZZZ" if at.offset == 0 => String::from("UTC"),
        "ZZZ" | "ZZZZ" => at.offset_text(""),
        _ => {
            let message = format!(
                "there is no date verb {verb:?}; there are YY YYYY M MM MMM MMMM D DD EEE EEEE h hh H HH AA aa m mm s ss \
                 Z ZZZ ZZZZ ZZZZZ, and other text goes in single quotes"
            );
            return Err(CallError::Argument(0, message));
        }
    })
}

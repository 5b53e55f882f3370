//! `csvdecode`: a table with a header line.

use std::rc::Rc;

use super::{CallError, CallResult, Environment, Function, function, text};
use crate::bake::value::{Members, Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[function!("csvdecode", [("str", String)], csvdecode)];

fn csvdecode(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let source = text(&args[0]);
    environment.charge(source.len() * 4)?;
    let mut records = read(source)
        .map_err(|message| CallError::Argument(0, message))?
        .into_iter();
    let Some((_, header)) = records.next() else {
        return Err(CallError::Argument(0, String::from("the header line is missing")));
    };
    let names: Vec<Rc<str>> = header.iter().map(|name| crate::bake::value::normalize(name)).collect();
    let of: std::collections::BTreeMap<Rc<str>, Type> = names.iter().map(|name| (name.clone(), Type::String)).collect();
    if of.len() < names.len() {
        return Err(CallError::Argument(0, String::from("two columns have the same name")));
    }
    let mut rows = Vec::new();
    for (line, fields) in records {
        if fields.len() != names.len() {
            let message = format!(
                "line {line} has {} fields, the header has {}",
                fields.len(),
                names.len()
            );
            return Err(CallError::Argument(0, message));
        }
        let members: Members = names
            .iter()
            .cloned()
            .zip(fields.iter().map(|field| Value::string(field)))
            .collect();
        rows.push(Value::object(members));
    }
    Ok(Value::list(Type::object(of), rows))
}

/// Splits into records, each with the number of its first line. Empty lines are skipped.
fn read(source: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut records = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix('\n').or_else(|| rest.strip_prefix("\r\n")) {
            rest = next;
            line += 1;
            continue;
        }
        let first_line = line;
        let mut fields = Vec::new();
        loop {
            let (field, next) = if let Some(quoted) = rest.strip_prefix('"') {
                quoted_field(quoted, line)?
            } else {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                let field = &rest[..end];
                let field = if rest[end..].starts_with('\n') {
                    field.strip_suffix('\r').unwrap_or(field)
                } else {
                    field
                };
                if field.contains('"') {
                    return Err(format!("line {line}: a quote must enclose the whole field"));
                }
                (String::from(field), &rest[end..])
            };
            line += field.matches('\n').count();
            fields.push(field);
            if let Some(next) = next.strip_prefix(',') {
                rest = next;
                continue;
            }
            line += usize::from(!next.is_empty());
            rest = next
                .strip_prefix("\r\n")
                .or_else(|| next.strip_prefix('\n'))
                .unwrap_or("");
            break;
        }
        records.push((first_line, fields));
    }
    Ok(records)
}

/// Reads behind an opening quote, up to behind the closing one.
fn quoted_field(quoted: &str, line: usize) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let Some(end) = rest.find('"') else {
            return Err(format!("line {line}: a quoted field is not closed"));
        };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        if let Some(more) = rest.strip_prefix('"') {
            field.push('"');
            rest = more;
        } else if rest.is_empty() || rest.starts_with([',', '\n']) || rest.starts_with("\r\n") {
            return Ok((field.replace("\r\n", "\n"), rest));
        } else {
            return Err(format!("line {line}: a quote inside a quoted field must be doubled"));
        }
    }
}

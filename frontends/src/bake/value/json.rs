//! Values as JSON text, and JSON text as values, with or without a type to read it by.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::{Members, Number, Type, Value, convert, make_set};
use crate::bake::hcl::json_text::{JsonNode, JsonSyntaxError, JsonValue, parse};

/// Why a value has no JSON text, or a text no value of the wanted type.
#[derive(Clone, Debug)]
pub(crate) enum JsonError {
    Syntax(JsonSyntaxError),
    /// What was wanted, at which place inside the document.
    Mismatch(String),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Syntax(error) => write!(f, "{error}"),
            JsonError::Mismatch(message) => f.write_str(message),
        }
    }
}

impl From<JsonSyntaxError> for JsonError {
    fn from(error: JsonSyntaxError) -> JsonError {
        JsonError::Syntax(error)
    }
}

/// Compact JSON, members sorted by key, `<`, `>` and `&` escaped.
pub(crate) fn to_json(value: &Value) -> Result<String, JsonError> {
    let mut text = String::new();
    write(value, &mut text)?;
    Ok(text)
}

/// Values can share their parts, so that the text of a small one is beyond all bounds.
const MAX_TEXT: usize = 64 << 20;

fn write(value: &Value, text: &mut String) -> Result<(), JsonError> {
    if text.len() > MAX_TEXT {
        let message = format!("the JSON text would be longer than {} MiB", MAX_TEXT >> 20);
        return Err(JsonError::Mismatch(message));
    }
    match value {
        Value::Null(_) => text.push_str("null"),
        Value::String(string) => write_string(string, text),
        Value::Number(number) => {
            if number.is_infinite() {
                return Err(JsonError::Mismatch(String::from("infinity cannot be written as JSON")));
            }
            text.push_str(&number.to_text());
        }
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::List(_, values) | Value::Set(_, values) | Value::Tuple(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(value, text)?;
            }
            text.push(']');
        }
        Value::Map(_, members) | Value::Object(members) => {
            text.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(name, text);
                text.push(':');
                write(value, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for char in string.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(char))),
            control if control < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text.push('"');
}

/// Reads a document into the types it suggests: objects, tuples, strings, numbers, bools and nulls.
pub(crate) fn implied_from_json(text: &str) -> Result<Value, JsonError> {
    implied(&parse(text)?)
}

fn implied(node: &JsonNode) -> Result<Value, JsonError> {
    Ok(match &node.value {
        JsonValue::Null => Value::null(),
        JsonValue::Bool(value) => Value::Bool(*value),
        JsonValue::Number(literal) => Value::number(read_number(literal)?),
        JsonValue::String(string) => Value::string(string),
        JsonValue::Array(items) => {
            let values: Result<Vec<Value>, JsonError> = items.iter().map(implied).collect();
            Value::tuple(values?)
        }
        JsonValue::Object(properties) => {
            let mut members = Members::new();
            for property in properties {
                let value = implied(&property.value)?;
                if let Some(earlier) = members.insert(Rc::from(&*property.name), value.clone())
                    && earlier.type_of() != value.type_of()
                {
                    return Err(JsonError::Mismatch(format!(
                        "property {:?} occurs twice",
                        property.name
                    )));
                }
            }
            Value::object(members)
        }
    })
}

fn read_number(literal: &str) -> Result<Number, JsonError> {
    match Number::parse(literal) {
        Some(Ok(number)) => Ok(number),
        Some(Err(error)) => Err(JsonError::Mismatch(error.to_string())),
        None => Err(JsonError::Mismatch(String::from("a number is required"))),
    }
}

/// Reads a document as a value of a type; attributes it leaves out become null.
pub(crate) fn from_json(text: &str, wanted: &Type) -> Result<Value, JsonError> {
    typed(&parse(text)?, wanted, "")
}

fn typed(node: &JsonNode, wanted: &Type, path: &str) -> Result<Value, JsonError> {
    let fail = |what: &str| {
        let at = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        Err(JsonError::Mismatch(format!("{at}{what}")))
    };
    if matches!(node.value, JsonValue::Null) {
        return Ok(Value::Null(wanted.without_optional()));
    }
    match (wanted, &node.value) {
        (Type::Dynamic, _) => fail("type any cannot be given as JSON; declare the type"),
        (Type::Bool, JsonValue::Bool(value)) => Ok(Value::Bool(*value)),
        (Type::Number, JsonValue::Number(literal)) => Ok(Value::number(read_number(literal)?)),
        (Type::String, JsonValue::String(string)) => Ok(Value::string(string)),
        (Type::String, JsonValue::Number(literal)) => Ok(Value::string(literal)),
        (Type::String, JsonValue::Bool(value)) => Ok(Value::from(if *value { "true" } else { "false" })),
        (Type::Bool | Type::Number, JsonValue::String(string)) => match convert(&Value::string(string), wanted) {
            Ok(value) => Ok(value),
            Err(error) => fail(&error.to_string()),
        },
        (Type::List(element) | Type::Set(element), JsonValue::Array(items)) => {
            let mut values = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                values.push(typed(item, element, &format!("{path}[{index}]"))?);
            }
            let element = element.without_optional();
            Ok(if matches!(wanted, Type::Set(_)) {
                make_set(element, values)
            } else {
                Value::list(element, values)
            })
        }
        (Type::Map(element), JsonValue::Object(properties)) => {
            let mut members = Members::new();
            for property in properties {
                let value = typed(&property.value, element, &format!("{path}[{:?}]", property.name))?;
                members.insert(Rc::from(&*property.name), value);
            }
            Ok(Value::Map(element.without_optional(), Rc::new(members)))
        }
        (Type::Tuple(elements), JsonValue::Array(items)) => {
            if items.len() != elements.len() {
                return fail(&format!("{} elements required, not {}", elements.len(), items.len()));
            }
            let mut values = Vec::with_capacity(items.len());
            for (index, (item, of)) in items.iter().zip(elements.iter()).enumerate() {
                values.push(typed(item, of, &format!("{path}[{index}]"))?);
            }
            Ok(Value::tuple(values))
        }
        (Type::Object(object), JsonValue::Object(properties)) => {
            let mut members: BTreeMap<Rc<str>, Value> = BTreeMap::new();
            for property in properties {
                let Some((name, of)) = object.attributes.get_key_value(&*property.name) else {
                    return fail(&format!("there is no attribute {:?} in this type", property.name));
                };
                members.insert(name.clone(), typed(&property.value, of, &format!("{path}.{name}"))?);
            }
            for (name, of) in &object.attributes {
                members
                    .entry(name.clone())
                    .or_insert_with(|| Value::Null(of.without_optional()));
            }
            Ok(Value::object(members))
        }
        _ => fail(&format!("{} required", wanted.constraint_name())),
    }
}

//! Reaching into values: attributes by name, elements by index or key.

use std::rc::Rc;

use super::scope::similar;
use crate::bake::value::{Type, Value, convert};

/// `value.name`.
///
/// # Errors
/// A message when the value has no such attribute.
pub(crate) fn attribute(value: &Value, name: &str) -> Result<Value, String> {
    match value {
        Value::Null(_) => Err(format!("null has no attributes, so there is no {name:?} in it")),
        Value::Object(members) => members.get(name).cloned().ok_or_else(|| {
            let names = members.keys().map(|key| &**key);
            format!("the object has no attribute {name:?}{}", hint(name, names))
        }),
        Value::Map(_, members) => members.get(name).cloned().ok_or_else(|| {
            let names = members.keys().map(|key| &**key);
            format!("the map has no element with the key {name:?}{}", hint(name, names))
        }),
        Value::List(Type::Object(_), _) | Value::Set(Type::Object(_), _) => Err(format!(
            "a list has no attribute {name:?}; choose an element, or take the attribute of all with [*].{name}"
        )),
        other => Err(format!(
            "a {} has no attributes, so there is no {name:?} in it",
            other.type_of()
        )),
    }
}

/// The name that was probably meant, and the names that exist.
pub(crate) fn hint<'n>(name: &str, names: impl Iterator<Item = &'n str> + Clone) -> String {
    let near = similar(name, names.clone()).map(|near| format!(", did you mean {near:?}?"));
    let all: Vec<&str> = names.collect();
    near.unwrap_or_default() + &existing(&all)
}

fn existing(all: &[&str]) -> String {
    match all.len() {
        0 => String::new(),
        1..=12 => format!(" (there are: {})", all.join(", ")),
        count => format!(" (there are: {} and {} more)", all[..12].join(", "), count - 12),
    }
}

/// `value[key]`.
///
/// # Errors
/// A message when the key identifies nothing in the value.
pub(crate) fn index(value: &Value, key: &Value) -> Result<Value, String> {
    if value.is_null() {
        return Err(String::from("null cannot be indexed"));
    }
    if key.is_null() {
        return Err(String::from("null cannot be an index"));
    }
    match value {
        Value::List(_, values) | Value::Tuple(values) => {
            let number = match convert(key, &Type::Number) {
                Ok(Value::Number(number)) => number,
                Ok(_) => return Err(String::from("the index must be a number")),
                Err(error) => return Err(format!("invalid index: {error}")),
            };
            if !number.is_integer() {
                return Err(String::from("invalid index: a whole number is required"));
            }
            if number.is_negative() {
                return Err(String::from("invalid index: it must not be negative"));
            }
            let position = number.to_i64().and_then(|at| usize::try_from(at).ok());
            position.and_then(|at| values.get(at)).cloned().ok_or_else(|| {
                format!(
                    "invalid index: {} is beyond the end, there are {} elements",
                    number.to_text(),
                    values.len()
                )
            })
        }
        Value::Map(_, members) | Value::Object(members) => {
            let name: Rc<str> = match convert(key, &Type::String) {
                Ok(Value::String(name)) => name,
                Ok(_) => return Err(String::from("the key must be a string")),
                Err(error) => return Err(format!("invalid key: {error}")),
            };
            members.get(&name).cloned().ok_or_else(|| {
                let names = members.keys().map(|key| &**key);
                format!(
                    "invalid index: there is no element with the key {name:?}{}",
                    hint(&name, names)
                )
            })
        }
        Value::Set(..) => Err(String::from("the elements of a set have no index")),
        other => Err(format!("a {} cannot be indexed", other.type_of())),
    }
}

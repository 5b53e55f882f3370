//! Converting a value to a wanted type.

use std::fmt;
use std::rc::Rc;

use super::types::{element_type, unify};
use super::{Members, Number, Type, Value, convertible, make_set};

/// Why a value cannot be converted, and where inside it.
#[derive(Clone, Debug)]
pub(crate) struct ConvertError {
    path: String,
    message: String,
}

impl ConvertError {
    fn new(message: impl Into<String>) -> ConvertError {
        ConvertError {
            path: String::new(),
            message: message.into(),
        }
    }

    fn inside(mut self, step: &str) -> ConvertError {
        self.path.insert_str(0, step);
        self
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Converts a value, also where that depends on the value (such as a string that holds a number).
pub(crate) fn convert(value: &Value, wanted: &Type) -> Result<Value, ConvertError> {
    if value.is_of(wanted) || *wanted == Type::Dynamic {
        return Ok(value.clone());
    }
    if let (Value::String(_) | Value::Number(_) | Value::Bool(_), Type::String | Type::Number | Type::Bool) =
        (value, wanted)
    {
        return convert_primitive(value, wanted);
    }
    let from = value.type_of();
    if from == wanted.without_optional() {
        return Ok(value.clone());
    }
    if !convertible(&from, wanted) {
        return Err(ConvertError::new(mismatch(&from, wanted)));
    }
    apply(value, &from, wanted)
}

fn convert_primitive(value: &Value, wanted: &Type) -> Result<Value, ConvertError> {
    match (value, wanted) {
        (Value::Number(number), Type::String) => Ok(Value::String(Rc::from(number.to_text()))),
        (Value::Bool(value), Type::String) => Ok(Value::String(Rc::from(if *value { "true" } else { "false" }))),
        (Value::String(text), Type::Number) => match Number::parse(text) {
            Some(Ok(number)) => Ok(Value::number(number)),
            Some(Err(error)) => Err(ConvertError::new(error.to_string())),
            None => Err(ConvertError::new(format!("a number is required, and {text:?} is none"))),
        },
        (Value::String(text), Type::Bool) => match &**text {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(ConvertError::new(format!(
                "a bool is required (true or false), and {text:?} is none"
            ))),
        },
        (Value::String(_), Type::String) | (Value::Number(_), Type::Number) | (Value::Bool(_), Type::Bool) => {
            Ok(value.clone())
        }
        _ => Err(ConvertError::new(mismatch(&value.type_of(), wanted))),
    }
}

/// The conversion itself; the types have been found convertible.
fn apply(value: &Value, from: &Type, wanted: &Type) -> Result<Value, ConvertError> {
    match (value, wanted) {
        (_, Type::Dynamic) => Ok(value.clone()),
        (Value::Null(_), _) => Ok(Value::Null(replace_dynamic(from, &wanted.without_optional()))),
        (Value::Object(members), Type::Object(object)) => {
            let mut converted = Members::new();
            for (name, of) in &object.attributes {
                let member = match members.get(name) {
                    Some(member) => convert(member, of).map_err(|error| error.inside(&format!(".{name}")))?,
                    None => Value::Null(of.without_optional()),
                };
                converted.insert(name.clone(), member);
            }
            Ok(Value::object(converted))
        }
        (Value::Map(_, members), Type::Object(object)) => {
            let mut converted = Members::new();
            for (name, of) in &object.attributes {
                let member = match members.get(name) {
                    Some(member) => convert(member, of).map_err(|error| error.inside(&format!("[{name:?}]")))?,
                    None if object.optional.contains(name) => Value::Null(of.without_optional()),
                    None => {
                        return Err(ConvertError::new(format!(
                            "the map has no element for attribute {name:?}"
                        )));
                    }
                };
                converted.insert(name.clone(), member);
            }
            Ok(Value::object(converted))
        }
        (Value::Tuple(values), Type::Tuple(elements)) => {
            let converted: Result<Rc<[Value]>, ConvertError> = values
                .iter()
                .zip(elements.iter())
                .enumerate()
                .map(|(index, (value, of))| convert(value, of).map_err(|error| error.inside(&format!("[{index}]"))))
                .collect();
            Ok(Value::Tuple(converted?))
        }
        (Value::List(_, values) | Value::Set(_, values) | Value::Tuple(values), Type::List(to) | Type::Set(to)) => {
            let common = match from {
                Type::Tuple(elements) => element_type(elements.iter(), to),
                _ => Some(if **to == Type::Dynamic {
                    element_of(from)
                } else {
                    (**to).clone()
                }),
            }
            .ok_or_else(|| ConvertError::new(mismatch(from, wanted)))?;
            let mut converted = Vec::with_capacity(values.len());
            for (index, value) in values.iter().enumerate() {
                converted.push(convert(value, &common).map_err(|error| error.inside(&format!("[{index}]")))?);
            }
            let element = settle(&mut converted, common)?;
            Ok(match wanted {
                Type::Set(_) => make_set(element, converted),
                _ => Value::list(element, converted),
            })
        }
        (Value::Map(_, members) | Value::Object(members), Type::Map(to)) => {
            let common = match from {
                Type::Object(object) => element_type(object.attributes.values(), to),
                _ => Some(if **to == Type::Dynamic {
                    element_of(from)
                } else {
                    (**to).clone()
                }),
            }
            .ok_or_else(|| ConvertError::new(mismatch(from, wanted)))?;
            let mut converted = Vec::with_capacity(members.len());
            for (name, member) in members.iter() {
                converted.push(convert(member, &common).map_err(|error| error.inside(&format!("[{name:?}]")))?);
            }
            let element = settle(&mut converted, common)?;
            let members = members.keys().cloned().zip(converted).collect();
            Ok(Value::Map(element, Rc::new(members)))
        }
        _ => convert_primitive(value, wanted),
    }
}

fn element_of(of: &Type) -> Type {
    of.element().cloned().unwrap_or(Type::Dynamic)
}

/// Elements converted to a type with open parts can still differ in them; brings them to one type.
fn settle(values: &mut [Value], wanted: Type) -> Result<Type, ConvertError> {
    let wanted = wanted.without_optional();
    if values.iter().all(|value| value.is_of(&wanted)) {
        return Ok(wanted);
    }
    let types: Vec<Type> = values.iter().map(Value::type_of).collect();
    let common = unify(&types)
        .ok_or_else(|| ConvertError::new("all elements must have one type, and these have none in common"))?;
    for value in values {
        *value = convert(value, &common)?;
    }
    Ok(common)
}

/// Fills the open parts of a type from what the value has there.
fn replace_dynamic(from: &Type, wanted: &Type) -> Type {
    match (from, wanted) {
        (Type::Dynamic, wanted) => wanted.clone(),
        (from, Type::Dynamic) => from.clone(),
        (Type::List(from) | Type::Set(from), Type::List(to)) => Type::list(replace_dynamic(from, to)),
        (Type::List(from) | Type::Set(from), Type::Set(to)) => Type::set(replace_dynamic(from, to)),
        (Type::Map(from), Type::Map(to)) => Type::map(replace_dynamic(from, to)),
        _ => wanted.clone(),
    }
}

/// Says what was wanted and what came instead.
pub(crate) fn mismatch(got: &Type, wanted: &Type) -> String {
    match (got, wanted) {
        (Type::Object(got), Type::Object(wanted)) => {
            let missing: Vec<String> = wanted
                .attributes
                .keys()
                .filter(|name| !got.attributes.contains_key(*name) && !wanted.optional.contains(*name))
                .map(|name| format!("{name:?}"))
                .collect();
            if !missing.is_empty() {
                return format!("the object lacks attribute {}", missing.join(", "));
            }
            for (name, wanted) in &wanted.attributes {
                if let Some(got) = got.attributes.get(name)
                    && got != wanted
                    && !convertible(got, wanted)
                {
                    return format!("attribute {name:?}: {}", mismatch(got, wanted));
                }
            }
            String::from("the object has other attributes than the ones required")
        }
        (Type::Tuple(elements), Type::List(to) | Type::Set(to)) => {
            if **to == Type::Dynamic {
                return String::from("all elements must have one type, and these have none in common");
            }
            let bad = elements
                .iter()
                .enumerate()
                .find(|(_, of)| !(*of == &**to || convertible(of, to)));
            match bad {
                Some((index, of)) => format!("element {index}: {}", mismatch(of, to)),
                None => required(got, wanted),
            }
        }
        (Type::Object(object), Type::Map(to)) => {
            if **to == Type::Dynamic {
                return String::from("all elements must have one type, and these have none in common");
            }
            let bad = object
                .attributes
                .iter()
                .find(|(_, of)| !(*of == &**to || convertible(of, to)));
            match bad {
                Some((name, of)) => format!("element {name:?}: {}", mismatch(of, to)),
                None => required(got, wanted),
            }
        }
        (Type::List(from) | Type::Set(from), Type::List(to) | Type::Set(to)) | (Type::Map(from), Type::Map(to)) => {
            format!("the elements do not fit: {}", mismatch(from, to))
        }
        _ => required(got, wanted),
    }
}

fn required(got: &Type, wanted: &Type) -> String {
    format!("{} required, not {}", wanted.constraint_name(), got.constraint_name())
}

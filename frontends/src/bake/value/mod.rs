//! Values as HCL has them: typed, with typed nulls, ordered maps and sets, and exact conversions between types.
//!
//! ```text
//! expression ── evaluate ──► Value ── convert ──► Value of a wanted type ── decode ──► target attribute
//! ```
//! Cloning is cheap. There is no unknown value: in a bake file everything is known once it is evaluated.

mod convert;
mod digits;
mod json;
mod number;
mod ops;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::rc::Rc;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

pub(crate) use convert::{convert, mismatch};
pub(crate) use json::{from_json, implied_from_json, to_json};
pub(crate) use number::{Number, NumberError};
pub(crate) use ops::{equals, make_set, set_key, set_order};
pub(crate) use types::{ObjectType, Type, convertible, unify};

/// The members of a map or the attributes of an object, in the order in which they are visited.
pub(crate) type Members = BTreeMap<Rc<str>, Value>;

/// A value of some type.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, of a type that may be [`Type::Dynamic`].
    Null(Type),
    String(Rc<str>),
    Number(Rc<Number>),
    Bool(bool),
    /// Elements of one type, which is given so that an empty list has one too.
    List(Type, Rc<[Value]>),
    /// Like a list, sorted by [`set_order`] and without repeats.
    Set(Type, Rc<[Value]>),
    Map(Type, Rc<Members>),
    Tuple(Rc<[Value]>),
    Object(Rc<Members>),
}

impl Value {
    /// A string, in the normal form (NFC) that all strings of the language have.
    pub(crate) fn string(text: &str) -> Value {
        Value::String(normalize(text))
    }

    pub(crate) fn number(number: Number) -> Value {
        Value::Number(Rc::new(number))
    }

    pub(crate) fn integer(value: i64) -> Value {
        Value::number(Number::from_i64(value))
    }

    pub(crate) fn size(value: usize) -> Value {
        Value::number(Number::from_usize(value))
    }

    pub(crate) fn null() -> Value {
        Value::Null(Type::Dynamic)
    }

    pub(crate) fn list(element: Type, values: Vec<Value>) -> Value {
        Value::List(element, values.into())
    }

    /// A list of strings.
    pub(crate) fn strings<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
        Value::List(Type::String, texts.into_iter().map(Value::string).collect())
    }

    pub(crate) fn tuple(values: Vec<Value>) -> Value {
        Value::Tuple(values.into())
    }

    pub(crate) fn object(members: Members) -> Value {
        Value::Object(Rc::new(members))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Value::Null(_))
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<&Number> {
        match self {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The elements of a list, set or tuple.
    pub(crate) fn as_sequence(&self) -> Option<&[Value]> {
        match self {
            Value::List(_, values) | Value::Set(_, values) | Value::Tuple(values) => Some(values),
            _ => None,
        }
    }

    /// The members of a map or object.
    pub(crate) fn as_members(&self) -> Option<&Members> {
        match self {
            Value::Map(_, members) | Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Keys and values in order, or `None` when there is nothing to go through.
    pub(crate) fn entries(&self) -> Option<Vec<(Value, Value)>> {
        match self {
            Value::List(_, values) | Value::Tuple(values) => Some(
                values
                    .iter()
                    .enumerate()
                    .map(|(index, value)| (Value::size(index), value.clone()))
                    .collect(),
            ),
            // An element of a set has no key but itself.
            Value::Set(_, values) => Some(values.iter().map(|value| (value.clone(), value.clone())).collect()),
            Value::Map(_, members) | Value::Object(members) => Some(
                members
                    .iter()
                    .map(|(key, value)| (Value::String(key.clone()), value.clone()))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// How many elements or members there are.
    pub(crate) fn len(&self) -> Option<usize> {
        self.as_sequence()
            .map(<[Value]>::len)
            .or_else(|| self.as_members().map(BTreeMap::len))
    }

    pub(crate) fn type_of(&self) -> Type {
        match self {
            Value::Null(of) => of.clone(),
            Value::String(_) => Type::String,
            Value::Number(_) => Type::Number,
            Value::Bool(_) => Type::Bool,
            Value::List(element, _) => Type::list(element.clone()),
            Value::Set(element, _) => Type::set(element.clone()),
            Value::Map(element, _) => Type::map(element.clone()),
            Value::Tuple(values) => Type::tuple(values.iter().map(Value::type_of)),
            Value::Object(members) => Type::object(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), value.type_of()))
                    .collect(),
            ),
        }
    }

    /// Whether the value has exactly this type; unlike comparing [`Value::type_of`] it builds nothing.
    pub(crate) fn is_of(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Value::Null(of), wanted) => of == wanted,
            (Value::String(_), Type::String) | (Value::Number(_), Type::Number) | (Value::Bool(_), Type::Bool) => true,
            (Value::List(element, _), Type::List(wanted))
            | (Value::Set(element, _), Type::Set(wanted))
            | (Value::Map(element, _), Type::Map(wanted)) => element == &**wanted,
            (Value::Tuple(values), Type::Tuple(wanted)) => {
                values.len() == wanted.len() && values.iter().zip(wanted.iter()).all(|(value, of)| value.is_of(of))
            }
            (Value::Object(members), Type::Object(object)) => {
                object.optional.is_empty()
                    && members.len() == object.attributes.len()
                    && members
                        .iter()
                        .zip(&object.attributes)
                        .all(|((name, value), (wanted, of))| name == wanted && value.is_of(of))
            }
            _ => false,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::string(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

/// The normal form of a text.
pub(crate) fn normalize(text: &str) -> Rc<str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Rc::from(text)
    } else {
        Rc::from(text.nfc().collect::<String>())
    }
}

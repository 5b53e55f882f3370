//! Equality, and the order in which a set keeps its elements.

use std::cmp::Ordering;
use std::rc::Rc;

use super::{Type, Value};

/// Whether two values are the same: of one type and equal. Nulls of any type are equal.
pub(crate) fn equals(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null(_), Value::Null(_)) => true,
        (Value::Null(_), _) | (_, Value::Null(_)) => false,
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => left == right,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::List(left_of, left), Value::List(right_of, right))
        | (Value::Set(left_of, left), Value::Set(right_of, right)) => left_of == right_of && same_elements(left, right),
        (Value::Tuple(left), Value::Tuple(right)) => same_elements(left, right),
        (Value::Map(left_of, left), Value::Map(right_of, right)) => {
            left_of == right_of
                && left.len() == right.len()
                && left
                    .iter()
                    .zip(right.iter())
                    .all(|((a, left), (b, right))| a == b && equals(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right.iter())
                    .all(|((a, left), (b, right))| a == b && equals(left, right))
        }
        _ => false,
    }
}

fn same_elements(left: &[Value], right: &[Value]) -> bool {
    // The same piece of memory need not be looked through.
    if std::ptr::eq(left, right) {
        return true;
    }
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equals(left, right))
}

/// Sorts the elements and drops repeats.
pub(crate) fn make_set(element: Type, mut values: Vec<Value>) -> Value {
    values.sort_by(set_order);
    values.dedup_by(|left, right| equals(left, right));
    Value::Set(element, Rc::from(values))
}

/// Strings by their bytes, numbers by size, false before true, nulls last; everything else by a text made of it.
pub(crate) fn set_order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null(_), Value::Null(_)) => Ordering::Equal,
        (Value::Null(_), _) => Ordering::Greater,
        (_, Value::Null(_)) => Ordering::Less,
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Number(left), Value::Number(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        _ => set_key(left).cmp(&set_key(right)),
    }
}

/// A text that equal values of one type share; different values can share it only where numbers agree in ten digits.
pub(crate) fn set_key(value: &Value) -> String {
    let mut key = String::new();
    write_key(value, &mut key);
    key
}

fn write_key(value: &Value, key: &mut String) {
    match value {
        Value::Null(_) => key.push('~'),
        Value::String(text) => key.push_str(&format!("{text:?}")),
        Value::Number(number) => key.push_str(&number.to_general(Some(10), 'e')),
        Value::Bool(true) => key.push('T'),
        Value::Bool(false) => key.push('F'),
        Value::List(_, values) | Value::Set(_, values) => {
            key.push('[');
            for value in values.iter() {
                write_key(value, key);
                key.push(';');
            }
            key.push(']');
        }
        Value::Tuple(values) => {
            key.push('<');
            for value in values.iter() {
                write_key(value, key);
                key.push(';');
            }
            key.push('>');
        }
        Value::Object(members) => {
            key.push('<');
            for value in members.values() {
                write_key(value, key);
                key.push(';');
            }
            key.push('>');
        }
        Value::Map(_, members) => {
            key.push('{');
            for (name, value) in members.iter() {
                key.push_str(&format!("{name:?}:"));
                write_key(value, key);
                key.push(';');
            }
            key.push('}');
        }
    }
}

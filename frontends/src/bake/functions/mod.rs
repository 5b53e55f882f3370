//! The functions of the language, one table per field.
//!
//! A function gets its arguments converted to the types of its parameters, none of them null unless the parameter
//! says so. `try`, `can` and `convert` are not here: they want expressions, so the evaluator has them.

mod bcrypt_hash;
mod cidr;
mod collection;
mod csv;
mod datetime;
mod encoding;
mod format;
mod general;
mod hashing;
mod math;
mod merging;
mod path;
mod pattern;
mod re2;
mod rsa;
mod semver;
mod set;
#[cfg(test)]
mod tests;
mod text;
mod timestamp;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use crate::bake::value::{Number, Type, Value};

/// What functions take from outside of the language, and the memory they may use.
pub(crate) struct Environment<'h> {
    /// Seconds since 1970, the answer of `timestamp`.
    pub(crate) now: i64,
    pub(crate) home: &'h str,
    /// Fills a buffer with random bytes.
    pub(crate) random: &'h dyn Fn(&mut [u8]),
    /// Bytes that evaluation may still produce.
    budget: Cell<u64>,
}

/// All text and elements that one evaluation makes may take this much; a bake file needs a thousandth.
const MEMORY: u64 = 256 << 20;

impl<'h> Environment<'h> {
    pub(crate) fn new(now: i64, home: &'h str, random: &'h dyn Fn(&mut [u8])) -> Environment<'h> {
        Environment {
            now,
            home,
            random,
            budget: Cell::new(MEMORY),
        }
    }

    /// Takes bytes from what is left, before they are made.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), CallError> {
        match self.budget.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(CallError::Whole(format!(
                "evaluation would need more than {} MiB",
                MEMORY >> 20
            ))),
        }
    }

    /// Like [`Environment::charge`], for so many elements of a collection.
    pub(crate) fn charge_elements(&self, count: usize) -> Result<(), CallError> {
        self.charge(count.saturating_mul(size_of::<Value>()))
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    Whole(String),
    /// It is the fault of the argument with this index.
    Argument(usize, String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Whole(message) | CallError::Argument(_, message) => f.write_str(message),
        }
    }
}

impl From<String> for CallError {
    fn from(message: String) -> CallError {
        CallError::Whole(message)
    }
}

impl From<&str> for CallError {
    fn from(message: &str) -> CallError {
        CallError::Whole(String::from(message))
    }
}

pub(crate) type CallResult = Result<Value, CallError>;

/// What a parameter accepts; everything else is converted to it or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    Any,
    /// Anything, also null.
    AnyOrNull,
    String,
    Number,
    Bool,
    StringList,
    /// A list whose elements have some one type.
    List,
    /// A set whose elements have some one type.
    Set,
    Bytes,
}

impl Accepts {
    pub(crate) fn wanted(self) -> Type {
        match self {
            Accepts::Any | Accepts::AnyOrNull => Type::Dynamic,
            Accepts::String => Type::String,
            Accepts::Number => Type::Number,
            Accepts::Bool => Type::Bool,
            Accepts::StringList => Type::list(Type::String),
            Accepts::List => Type::list(Type::Dynamic),
            Accepts::Set => Type::set(Type::Dynamic),
            Accepts::Bytes => Type::Bytes,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) accepts: Accepts,
}

/// One function of the table.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) parameters: &'static [Parameter],
    /// Any number of further arguments.
    pub(crate) variadic: Option<Parameter>,
    pub(crate) run: fn(&Environment<'_>, &[Value]) -> CallResult,
}

const fn parameter(name: &'static str, accepts: Accepts) -> Parameter {
    Parameter { name, accepts }
}

/// A function with a fixed count of arguments.
macro_rules! function {
    ($name:literal, [$(($parameter:literal, $accepts:ident)),* $(,)?], $run:expr) => {
        $crate::bake::functions::Function {
            name: $name,
            parameters: &[$($crate::bake::functions::parameter($parameter, $crate::bake::functions::Accepts::$accepts)),*],
            variadic: None,
            run: $run,
        }
    };
    ($name:literal, [$(($parameter:literal, $accepts:ident)),* $(,)?], ($rest:literal, $rest_accepts:ident), $run:expr) => {
        $crate::bake::functions::Function {
            name: $name,
            parameters: &[$($crate::bake::functions::parameter($parameter, $crate::bake::functions::Accepts::$accepts)),*],
            variadic: Some($crate::bake::functions::parameter($rest, $crate::bake::functions::Accepts::$rest_accepts)),
            run: $run,
        }
    };
}
pub(crate) use function;

/// The functions that take expressions rather than values.
pub(crate) const EXPRESSION_FUNCTIONS: [&str; 3] = ["can", "convert", "try"];

const TABLES: [&[Function]; 13] = [
    cidr::FUNCTIONS,
    collection::FUNCTIONS,
    csv::FUNCTIONS,
    datetime::FUNCTIONS,
    encoding::FUNCTIONS,
    format::FUNCTIONS,
    general::FUNCTIONS,
    hashing::FUNCTIONS,
    math::FUNCTIONS,
    merging::FUNCTIONS,
    path::FUNCTIONS,
    pattern::FUNCTIONS,
    set::FUNCTIONS,
];

/// All functions by name.
pub(crate) fn table() -> HashMap<&'static str, &'static Function> {
    TABLES
        .into_iter()
        .chain([text::FUNCTIONS])
        .flatten()
        .map(|function| (function.name, function))
        .collect()
}

/// The text of a string argument.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn number(value: &Value) -> Number {
    value.as_number().cloned().unwrap_or_else(Number::zero)
}

/// A number argument that must be whole.
fn integer(arguments: &[Value], index: usize) -> Result<i64, CallError> {
    match arguments.get(index).and_then(Value::as_number).and_then(Number::to_i64) {
        Some(value) => Ok(value),
        None => Err(CallError::Argument(
            index,
            format!("a whole number is required, between {} and {}", i64::MIN, i64::MAX),
        )),
    }
}

fn float(arguments: &[Value], index: usize) -> Result<f64, CallError> {
    let value = arguments
        .get(index)
        .and_then(Value::as_number)
        .map_or(0.0, Number::to_f64);
    if value.is_infinite()
        && !arguments
            .get(index)
            .and_then(Value::as_number)
            .is_some_and(Number::is_infinite)
    {
        return Err(CallError::Argument(
            index,
            String::from("the number is too large for a 64 bit float"),
        ));
    }
    Ok(value)
}

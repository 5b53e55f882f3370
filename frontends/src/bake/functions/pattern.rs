//! Regular expressions, with the meaning they have in RE2.

use std::rc::Rc;

use regex::{Captures, Regex, RegexBuilder};

use super::re2::translate;
use super::{CallError, CallResult, Environment, Function, function, text};
use crate::bake::value::{Members, Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("regex", [("pattern", String), ("string", String)], |_, args| {
        let pattern = Pattern::new(text(&args[0]))?;
        match pattern.regex.captures(text(&args[1])) {
            Some(captures) => Ok(pattern.result(&captures)),
            None => Err(CallError::Argument(
                0,
                String::from("the pattern does not match any part of the string"),
            )),
        }
    }),
    function!(
        "regex_replace",
        [("str", String), ("pattern", String), ("replace", String)],
        regex_replace
    ),
    function!("regexall", [("pattern", String), ("string", String)], regexall),
];

/// What a compiled pattern may take.
const SIZE_LIMIT: usize = 4 << 20;

fn compile(pattern: &str, position: usize) -> Result<Regex, CallError> {
    let fail =
        |reason: &str| CallError::Argument(position, format!("invalid regular expression {pattern:?}: {reason}"));
    RegexBuilder::new(&translate(pattern).map_err(fail)?)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| {
            // The engine draws the pattern, which is a translation; only its reason helps.
            let reason = error.to_string();
            fail(reason.lines().last().unwrap_or("").trim_start_matches("error: "))
        })
}

/// A pattern, and what its groups make of a match.
struct Pattern {
    regex: Regex,
    names: Vec<Option<Rc<str>>>,
}

impl Pattern {
    fn new(source: &str) -> Result<Pattern, CallError> {
        let regex = compile(source, 0)?;
        let names: Vec<Option<Rc<str>>> = regex.capture_names().skip(1).map(|name| name.map(Rc::from)).collect();
        let named = names.iter().flatten().count();
        if named > 0 && named < names.len() {
            return Err(CallError::Argument(
                0,
                String::from("named and unnamed groups cannot be mixed in a pattern"),
            ));
        }
        Ok(Pattern { regex, names })
    }

    /// The type of [`Pattern::result`].
    fn result_type(&self) -> Type {
        if self.names.is_empty() {
            Type::String
        } else if self.names[0].is_none() {
            Type::tuple(self.names.iter().map(|_| Type::String))
        } else {
            Type::object(
                self.names
                    .iter()
                    .flatten()
                    .map(|name| (name.clone(), Type::String))
                    .collect(),
            )
        }
    }

    /// The match as a string; with groups, those as a tuple or, if they are named, as an object.
    fn result(&self, captures: &Captures<'_>) -> Value {
        let group = |index: usize| match captures.get(index) {
            Some(found) => Value::from(found.as_str()),
            None => Value::Null(Type::String),
        };
        if self.names.is_empty() {
            return group(0);
        }
        if self.names[0].is_none() {
            return Value::tuple((1..=self.names.len()).map(group).collect());
        }
        let members: Members = self
            .names
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((name.clone()?, group(at + 1))))
            .collect();
        Value::object(members)
    }
}

fn regexall(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let pattern = Pattern::new(text(&args[0]))?;
    let mut values = Vec::new();
    for captures in pattern.regex.captures_iter(text(&args[1])) {
        environment.charge_elements(1 + pattern.names.len())?;
        values.push(pattern.result(&captures));
    }
    Ok(Value::list(pattern.result_type(), values))
}

fn regex_replace(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let regex = compile(text(&args[1]), 1)?;
    let source = text(&args[0]);
    let mut result = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(source) {
        let Some(whole) = captures.get(0) else { continue };
        let before = result.len();
        result.push_str(&source[end..whole.start()]);
        captures.expand(text(&args[2]), &mut result);
        environment.charge(result.len() - before)?;
        end = whole.end();
    }
    result.push_str(&source[end..]);
    Ok(Value::string(&result))
}

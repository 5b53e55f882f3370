//! Joining collections: `merge` and `concat`.

use std::rc::Rc;

use super::{CallError, CallResult, Environment, Function, function};
use crate::bake::value::{Members, Type, Value, convert, unify};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("concat", [], ("seqs", Any), concat),
    function!("merge", [], ("maps", AnyOrNull), merge),
];

fn concat(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    if args.is_empty() {
        return Err(CallError::from("at least one argument is required"));
    }
    let mut count = 0;
    for (position, arg) in args.iter().enumerate() {
        match arg {
            Value::List(_, elements) | Value::Tuple(elements) => count += elements.len(),
            other => {
                return Err(CallError::Argument(
                    position,
                    format!("a list or tuple is required, not a {}", other.type_of()),
                ));
            }
        }
    }
    environment.charge_elements(count)?;
    let types: Vec<Type> = args.iter().map(Value::type_of).collect();
    let common = if types.iter().all(|of| matches!(of, Type::List(_))) {
        unify(&types)
    } else {
        None
    };
    let mut all = Vec::with_capacity(count);
    for (position, arg) in args.iter().enumerate() {
        let converted = match &common {
            Some(common) => convert(arg, common).map_err(|error| CallError::Argument(position, error.to_string()))?,
            None => arg.clone(),
        };
        all.extend_from_slice(converted.as_sequence().unwrap_or_default());
    }
    Ok(match common.as_ref().and_then(Type::element) {
        Some(element) => Value::list(element.clone(), all),
        None => Value::tuple(all),
    })
}

/// Maps of one type make a map; anything else an object. Later members win.
fn merge(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let mut members = Members::new();
    let types: Vec<Type> = args.iter().map(Value::type_of).collect();
    for (position, (arg, of)) in args.iter().zip(&types).enumerate() {
        match (arg, of) {
            (Value::Map(_, more) | Value::Object(more), _) => {
                environment.charge_elements(more.len())?;
                members.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            (_, Type::Map(_) | Type::Object(_) | Type::Dynamic) => {}
            (_, other) => {
                return Err(CallError::Argument(
                    position,
                    format!("a map or object is required, not a {other}"),
                ));
            }
        }
    }
    match types.first() {
        Some(Type::Map(element)) if types.iter().all(|of| *of == types[0]) => {
            Ok(Value::Map((**element).clone(), Rc::new(members)))
        }
        _ => Ok(Value::object(members)),
    }
}

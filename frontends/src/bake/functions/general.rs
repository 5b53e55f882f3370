//! Equality and the choice of the first value that is there.

use super::{CallError, CallResult, Environment, Function, function};
use crate::bake::value::{Type, Value, convert, equals, unify};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("byteslen", [("buf", Bytes)], |_, _| Err(CallError::from(
        "bytes are required"
    ))),
    function!(
        "bytesslice",
        [("buf", Bytes), ("offset", Number), ("length", Number)],
        |_, _| { Err(CallError::from("bytes are required")) }
    ),
    function!("coalesce", [], ("vals", AnyOrNull), coalesce),
    function!("coalescelist", [], ("vals", AnyOrNull), coalesce_list),
    function!("equal", [("a", AnyOrNull), ("b", AnyOrNull)], |_, args| Ok(
        Value::Bool(equals(&args[0], &args[1]))
    )),
    function!("notequal", [("a", AnyOrNull), ("b", AnyOrNull)], |_, args| {
        Ok(Value::Bool(!equals(&args[0], &args[1])))
    }),
];

fn coalesce(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let types: Vec<Type> = args.iter().map(Value::type_of).collect();
    let Some(common) = unify(&types) else {
        return Err(CallError::from("all arguments must have one type"));
    };
    match args.iter().find(|value| !value.is_null()) {
        Some(value) => convert(value, &common).map_err(|error| CallError::Whole(error.to_string())),
        None => Err(CallError::from("all arguments are null")),
    }
}

fn coalesce_list(_: &Environment<'_>, args: &[Value]) -> CallResult {
    if args.is_empty() {
        return Err(CallError::from("at least one argument is required"));
    }
    for (position, value) in args.iter().enumerate() {
        if !matches!(value.type_of(), Type::List(_) | Type::Tuple(_)) {
            return Err(CallError::Argument(
                position,
                String::from("a list or tuple is required"),
            ));
        }
    }
    match args.iter().find(|value| value.len().is_some_and(|count| count > 0)) {
        Some(value) => Ok(value.clone()),
        None => Err(CallError::from("all lists are empty")),
    }
}

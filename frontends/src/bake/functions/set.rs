//! Functions of sets. Lists and tuples are taken as sets too.

use super::{CallError, CallResult, Environment, Function, function};
use crate::bake::value::{Type, Value, convert, equals, make_set, unify};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("sethaselement", [("set", Set), ("elem", Any)], |_, args| {
        Ok(Value::Bool(has(args[0].as_sequence().unwrap_or_default(), &args[1])))
    }),
    function!(
        "setintersection",
        [("first_set", Set)],
        ("other_sets", Set),
        |_, args| {
            combine(args, |left, right| {
                left.into_iter().filter(|value| has(right, value)).collect()
            })
        }
    ),
    function!("setproduct", [], ("sets", Any), product),
    function!("setsubtract", [("a", Set), ("b", Set)], |_, args| {
        combine(args, |left, right| {
            left.into_iter().filter(|value| !has(right, value)).collect()
        })
    }),
    function!(
        "setsymmetricdifference",
        [("first_set", Set)],
        ("other_sets", Set),
        |_, args| {
            combine(args, |left, right| {
                let only_right: Vec<Value> = right.iter().filter(|value| !has(&left, value)).cloned().collect();
                let mut kept: Vec<Value> = left.into_iter().filter(|value| !has(right, value)).collect();
                kept.extend(only_right);
                kept
            })
        }
    ),
    function!("setunion", [("first_set", Set)], ("other_sets", Set), |_, args| {
        combine(args, |mut left, right| {
            left.extend_from_slice(right);
            left
        })
    }),
];

fn has(elements: &[Value], wanted: &Value) -> bool {
    // Primitive elements are in order.
    if matches!(wanted, Value::String(_) | Value::Number(_)) {
        return elements
            .binary_search_by(|element| crate::bake::value::set_order(element, wanted))
            .is_ok();
    }
    elements.iter().any(|element| equals(element, wanted))
}

fn combine(args: &[Value], operation: fn(Vec<Value>, &[Value]) -> Vec<Value>) -> CallResult {
    let elements: Vec<Type> = args
        .iter()
        .filter_map(|arg| match arg {
            // An empty set of nothing in particular fits everything.
            Value::Set(Type::Dynamic, values) if values.is_empty() => None,
            Value::Set(element, _) => Some(element.clone()),
            _ => None,
        })
        .collect();
    let common = if elements.is_empty() {
        Some(Type::Dynamic)
    } else {
        unify(&elements)
    };
    let Some(common) = common else {
        return Err(CallError::from("the sets must have elements of one type"));
    };
    let wanted = Type::set(common.clone());
    let mut result: Option<Vec<Value>> = None;
    for (position, arg) in args.iter().enumerate() {
        let converted = convert(arg, &wanted).map_err(|error| CallError::Argument(position, error.to_string()))?;
        let values = converted.as_sequence().unwrap_or_default();
        result = Some(match result {
            None => values.to_vec(),
            Some(left) => {
                let combined = make_set(common.clone(), operation(left, values));
                combined.as_sequence().unwrap_or_default().to_vec()
            }
        });
    }
    Ok(make_set(common, result.unwrap_or_default()))
}

/// All combinations of one element of each; in order when all arguments are lists.
fn product(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    if args.len() < 2 {
        return Err(CallError::from("at least two arguments are required"));
    }
    let mut elements = Vec::with_capacity(args.len());
    let mut ordered = true;
    for (position, arg) in args.iter().enumerate() {
        elements.push(match arg {
            Value::Set(element, _) => {
                ordered = false;
                element.clone()
            }
            Value::List(element, _) => element.clone(),
            Value::Tuple(values) if values.is_empty() => Type::Dynamic,
            Value::Tuple(values) => {
                let types: Vec<Type> = values.iter().map(Value::type_of).collect();
                unify(&types)
                    .ok_or_else(|| CallError::Argument(position, String::from("all elements must have one type")))?
            }
            _ => return Err(CallError::Argument(position, String::from("a set or list is required"))),
        });
    }
    let total = args.iter().filter_map(Value::len).fold(1, usize::saturating_mul);
    environment.charge_elements(total.saturating_mul(args.len() + 1))?;
    let mut columns: Vec<Vec<Value>> = Vec::with_capacity(args.len());
    for (position, (arg, element)) in args.iter().zip(&elements).enumerate() {
        let values: Result<Vec<Value>, _> = arg
            .as_sequence()
            .unwrap_or_default()
            .iter()
            .map(|value| convert(value, element))
            .collect();
        columns.push(values.map_err(|error| CallError::Argument(position, error.to_string()))?);
    }
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for column in &columns {
        rows = rows
            .iter()
            .flat_map(|row| {
                column.iter().map(move |value| {
                    let mut longer = row.clone();
                    longer.push(value.clone());
                    longer
                })
            })
            .collect();
    }
    let of = Type::tuple(elements);
    let rows: Vec<Value> = rows.into_iter().map(Value::tuple).collect();
    Ok(if ordered {
        Value::list(of, rows)
    } else {
        make_set(of, rows)
    })
}

//! Functions of lists, tuples, maps and objects.

use std::collections::HashMap;
use std::rc::Rc;

use super::{CallError, CallResult, Environment, Function, function, integer, number, text};
use crate::bake::value::{Members, Number, Type, Value, convert, equals, set_key};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("chunklist", [("list", List), ("size", Number)], chunklist),
    function!("compact", [("list", StringList)], |_, args| {
        let elements = args[0].as_sequence().unwrap_or_default();
        Ok(Value::strings(
            elements
                .iter()
                .filter_map(Value::as_str)
                .filter(|item| !item.is_empty()),
        ))
    }),
    function!(
        "contains",
        [("list", Any), ("value", Any)],
        |_, args| match args[0].as_sequence() {
            Some(elements) => Ok(Value::Bool(elements.iter().any(|element| equals(element, &args[1])))),
            None => Err(CallError::Argument(0, String::from("a list, tuple or set is required"))),
        }
    ),
    function!("distinct", [("list", List)], distinct),
    function!("element", [("list", Any), ("index", Number)], element),
    function!("flatten", [("list", Any)], flatten),
    function!("hasindex", [("collection", Any), ("key", Any)], |_, args| {
        Ok(Value::Bool(find(&args[0], &args[1])?.is_some()))
    }),
    function!("index", [("collection", Any), ("key", Any)], index),
    function!("indexof", [("list", Any), ("value", Any)], indexof),
    function!("keys", [("inputMap", Any)], keys),
    function!("length", [("collection", Any)], |_, args| match &args[0] {
        Value::Object(_) => Err(CallError::Argument(
            0,
            String::from("a list, tuple, set or map is required, not an object")
        )),
        value => match value.len() {
            Some(count) => Ok(Value::size(count)),
            None => Err(CallError::Argument(
                0,
                String::from("a list, tuple, set or map is required")
            )),
        },
    }),
    function!("lookup", [("inputMap", Any), ("key", String), ("default", Any)], lookup),
    function!("range", [], ("params", Number), range),
    function!("reverselist", [("list", Any)], reverselist),
    function!(
        "slice",
        [("list", Any), ("start_index", Number), ("end_index", Number)],
        slice
    ),
    function!("values", [("mapping", Any)], values),
    function!("zipmap", [("keys", StringList), ("values", Any)], zipmap),
];

/// `range` makes no more numbers than this.
const MAX_RANGE: usize = 1024;

fn element_type(list: &Value) -> Type {
    list.type_of().element().cloned().unwrap_or(Type::Dynamic)
}

fn chunklist(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let Ok(size) = usize::try_from(integer(args, 1)?) else {
        return Err(CallError::Argument(1, String::from("the size must not be negative")));
    };
    let elements = args[0].as_sequence().unwrap_or_default();
    let of = element_type(&args[0]);
    let chunks: Vec<Value> = if size == 0 && !elements.is_empty() {
        vec![args[0].clone()]
    } else {
        elements
            .chunks(size.max(1))
            .map(|chunk| Value::list(of.clone(), chunk.to_vec()))
            .collect()
    };
    Ok(Value::list(Type::list(of), chunks))
}

fn distinct(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let mut seen: HashMap<String, Vec<Value>> = HashMap::new();
    let mut kept = Vec::new();
    for value in args[0].as_sequence().unwrap_or_default() {
        // The key can be the same for different values, never the other way round.
        let alike = seen.entry(set_key(value)).or_default();
        if !alike.iter().any(|earlier| equals(earlier, value)) {
            alike.push(value.clone());
            kept.push(value.clone());
        }
    }
    Ok(Value::list(element_type(&args[0]), kept))
}

fn element(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let elements = match &args[0] {
        Value::List(_, elements) | Value::Tuple(elements) => elements,
        other => {
            return Err(CallError::Argument(
                0,
                format!("a list or tuple is required, not a {}", other.type_of()),
            ));
        }
    };
    let index = integer(args, 1)?;
    if elements.is_empty() {
        return Err(CallError::from("the list is empty"));
    }
    let position = index.rem_euclid(elements.len() as i64);
    Ok(elements[usize::try_from(position).unwrap_or(0)].clone())
}

fn flatten(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    let mut flat = Vec::new();
    match args[0].as_sequence() {
        Some(elements) => flatten_into(environment, elements, &mut flat)?,
        None => return Err(CallError::Argument(0, String::from("a list, tuple or set is required"))),
    }
    Ok(Value::tuple(flat))
}

fn flatten_into(environment: &Environment<'_>, elements: &[Value], flat: &mut Vec<Value>) -> Result<(), CallError> {
    environment.charge_elements(elements.len())?;
    for element in elements {
        match element.as_sequence() {
            Some(inner) => flatten_into(environment, inner, flat)?,
            None => flat.push(element.clone()),
        }
    }
    Ok(())
}

/// The element a key identifies; keys are not converted.
fn find(collection: &Value, key: &Value) -> Result<Option<Value>, CallError> {
    match (collection, key) {
        (Value::List(_, elements) | Value::Tuple(elements), Value::Number(key)) => Ok(key
            .to_i64()
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| elements.get(at))
            .cloned()),
        (Value::Map(_, members), Value::String(key)) => Ok(members.get(key).cloned()),
        (Value::List(..) | Value::Tuple(_) | Value::Map(..), _) => Ok(None),
        _ => Err(CallError::Argument(0, String::from("a list, tuple or map is required"))),
    }
}

fn index(_: &Environment<'_>, args: &[Value]) -> CallResult {
    match (&args[0], &args[1]) {
        (Value::List(..) | Value::Tuple(_), key) if key.as_number().is_none() => Err(CallError::Argument(
            1,
            String::from("the key of a list must be a number"),
        )),
        (Value::Map(..), key) if key.as_str().is_none() => Err(CallError::Argument(
            1,
            String::from("the key of a map must be a string"),
        )),
        (collection, key) => find(collection, key)?
            .ok_or_else(|| CallError::Argument(1, String::from("invalid index, there is no such element"))),
    }
}

fn indexof(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let elements = match &args[0] {
        Value::List(_, elements) | Value::Tuple(elements) => elements,
        _ => return Err(CallError::Argument(0, String::from("a list or tuple is required"))),
    };
    match elements.iter().position(|element| equals(element, &args[1])) {
        Some(position) => Ok(Value::size(position)),
        None if elements.is_empty() => Err(CallError::from("the list is empty")),
        None => Err(CallError::from("item not found")),
    }
}

fn keys(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let names = |members: &Members| {
        members
            .keys()
            .map(|name| Value::String(name.clone()))
            .collect::<Vec<Value>>()
    };
    match &args[0] {
        Value::Map(_, members) => Ok(Value::list(Type::String, names(members))),
        Value::Object(members) => Ok(Value::tuple(names(members))),
        _ => Err(CallError::Argument(0, String::from("a map or object is required"))),
    }
}

fn values(_: &Environment<'_>, args: &[Value]) -> CallResult {
    match &args[0] {
        Value::Map(of, members) => Ok(Value::list(of.clone(), members.values().cloned().collect())),
        Value::Object(members) => Ok(Value::tuple(members.values().cloned().collect())),
        _ => Err(CallError::Argument(0, String::from("a map or object is required"))),
    }
}

fn lookup(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let key = text(&args[1]);
    match &args[0] {
        Value::Object(members) => Ok(members.get(key).unwrap_or(&args[2]).clone()),
        Value::Map(of, members) => {
            let default = convert(&args[2], of).map_err(|_| {
                CallError::Argument(
                    2,
                    String::from("the default must have the type of the elements of the map"),
                )
            })?;
            Ok(members.get(key).cloned().unwrap_or(default))
        }
        _ => Err(CallError::Argument(0, String::from("a map or object is required"))),
    }
}

fn range(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let zero = Number::zero;
    let step_towards = |start: &Number, end: &Number| Number::from_i64(if end < start { -1 } else { 1 });
    let (start, end, step) = match args {
        [end] => (zero(), number(end), step_towards(&zero(), &number(end))),
        [start, end] => (number(start), number(end), step_towards(&number(start), &number(end))),
        [start, end, step] => (number(start), number(end), number(step)),
        _ => return Err(CallError::from("one, two or three arguments are required")),
    };
    if step.is_zero() {
        return Err(CallError::Argument(2, String::from("the step must not be zero")));
    }
    let down = step.is_negative();
    if (down && end > start) || (!down && end < start) {
        let message = "the end must lie in the direction of the step";
        return Err(CallError::Argument(1, String::from(message)));
    }
    let mut numbers = Vec::new();
    let mut current = start;
    while if down { current > end } else { current < end } {
        if numbers.len() >= MAX_RANGE {
            let message = format!("more than {MAX_RANGE} numbers; bring start and end closer or take a larger step");
            return Err(CallError::Whole(message));
        }
        numbers.push(Value::number(current.clone()));
        current = current
            .add(&step)
            .map_err(|error| CallError::Whole(error.to_string()))?;
    }
    Ok(Value::list(Type::Number, numbers))
}

fn reverselist(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let Some(elements) = args[0].as_sequence() else {
        return Err(CallError::Argument(
            0,
            format!("a list or tuple is required, not a {}", args[0].type_of()),
        ));
    };
    let reversed: Vec<Value> = elements.iter().rev().cloned().collect();
    Ok(match &args[0] {
        Value::Tuple(_) => Value::tuple(reversed),
        other => Value::list(element_type(other), reversed),
    })
}

fn slice(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let elements = match &args[0] {
        Value::List(_, elements) | Value::Tuple(elements) => elements,
        Value::Set(..) => {
            return Err(CallError::Argument(
                0,
                String::from("a set has no order to slice; convert it to a list first"),
            ));
        }
        _ => return Err(CallError::Argument(0, String::from("a list or tuple is required"))),
    };
    let mut bounds = [0_usize; 2];
    for (position, what) in [(1, "start"), (2, "end")] {
        match usize::try_from(integer(args, position)?) {
            Err(_) => {
                return Err(CallError::Argument(
                    position,
                    format!("the {what} index must not be negative"),
                ));
            }
            Ok(at) if at > elements.len() => {
                let message = format!(
                    "the {what} index must not be greater than the length of the list, {}",
                    elements.len()
                );
                return Err(CallError::Argument(position, message));
            }
            Ok(at) => bounds[position - 1] = at,
        }
    }
    let [start, end] = bounds;
    if start > end {
        return Err(CallError::Argument(
            1,
            String::from("the start index must not be greater than the end index"),
        ));
    }
    let part = elements[start..end].to_vec();
    Ok(match &args[0] {
        Value::Tuple(_) => Value::tuple(part),
        other => Value::list(element_type(other), part),
    })
}

fn zipmap(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let names = args[0].as_sequence().unwrap_or_default();
    let elements = match &args[1] {
        Value::List(_, elements) | Value::Tuple(elements) => elements,
        _ => return Err(CallError::Argument(1, String::from("a list or tuple is required"))),
    };
    if names.len() != elements.len() {
        return Err(CallError::Whole(format!(
            "there are {} keys and {} values",
            names.len(),
            elements.len()
        )));
    }
    let mut members = Members::new();
    for (position, (name, element)) in names.iter().zip(elements.iter()).enumerate() {
        let Value::String(name) = name else {
            return Err(CallError::Argument(0, format!("key {position} is null")));
        };
        members.insert(name.clone(), element.clone());
    }
    Ok(match &args[1] {
        Value::Tuple(_) => Value::object(members),
        other => Value::Map(element_type(other), Rc::new(members)),
    })
}

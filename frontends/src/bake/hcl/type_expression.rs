//! Types as they are written: `string`, `list(number)`, `object({ name = string, port = optional(number) })`.

use std::rc::Rc;

use super::ast::{Expression, Key, Kind};
use super::native::parse_expression;
use crate::bake::source::{Diagnostic, Diagnostics};
use crate::bake::value::{ObjectType, Type};

/// Reads a type constraint.
///
/// # Errors
/// Says what in the expression is no type.
pub(crate) fn type_of(expression: &Expression) -> Result<Type, Diagnostics> {
    let complain = |message: String| Err(vec![Diagnostic::new(expression.span, message)]);
    if let Kind::Json(text, _) = &expression.kind {
        let span = expression.span;
        return match parse_expression(span.file, span.start as usize, text) {
            Some(inner) => type_of(&inner),
            None => complain(format!("{text:?} is not a type")),
        };
    }
    if let Some(keyword) = expression.keyword() {
        return match &*keyword {
            "string" => Ok(Type::String),
            "number" => Ok(Type::Number),
            "bool" => Ok(Type::Bool),
            "any" => Ok(Type::Dynamic),
            "list" | "set" | "map" => complain(format!("type {keyword} needs its element type: {keyword}(string)")),
            "object" => complain(String::from(
                "type object needs its attributes: object({ name = string })",
            )),
            "tuple" => complain(String::from("type tuple needs its elements: tuple([string, number])")),
            _ => complain(format!(
                "{keyword:?} is not a type; there are string, number, bool, any, list, set, map, object and tuple"
            )),
        };
    }
    let Kind::Call(call) = &expression.kind else {
        return complain(String::from(
            "not a type: write a bare keyword such as string, or a constructor such as list(string)",
        ));
    };
    let name = &*call.name;
    if matches!(name, "string" | "number" | "bool" | "any") {
        return complain(format!("type {name} takes no arguments"));
    }
    if !matches!(name, "list" | "set" | "map" | "object" | "tuple") {
        return complain(format!(
            "{name:?} is not a type constructor; there are list, set, map, object and tuple"
        ));
    }
    let [argument] = &call.arguments[..] else {
        return complain(format!("type {name} takes one argument, not {}", call.arguments.len()));
    };
    match name {
        "list" => Ok(Type::list(type_of(argument)?)),
        "set" => Ok(Type::set(type_of(argument)?)),
        "map" => Ok(Type::map(type_of(argument)?)),
        "tuple" => {
            let Kind::Tuple(elements) = &argument.kind else {
                return complain(String::from(
                    "type tuple takes a list of types: tuple([string, number])",
                ));
            };
            let types: Result<Rc<[Type]>, Diagnostics> = elements.iter().map(type_of).collect();
            Ok(Type::Tuple(types?))
        }
        _ => object(argument),
    }
}

fn object(argument: &Expression) -> Result<Type, Diagnostics> {
    let complain = |message: String| Err(vec![Diagnostic::new(argument.span, message)]);
    let Kind::Object(items) = &argument.kind else {
        return complain(String::from(
            "type object takes its attributes: object({ name = string })",
        ));
    };
    let mut object = ObjectType::default();
    for (key, value) in items {
        let name = match key {
            Key::Name(name) => Some(name.clone()),
            Key::Expression(expression) => expression.keyword(),
        };
        let Some(name) = name else {
            return complain(String::from("the attributes of an object type must be bare names"));
        };
        let mut of = value;
        if let Kind::Call(call) = &value.kind
            && &*call.name == "optional"
        {
            let [inner] = &call.arguments[..] else {
                return complain(String::from("optional takes one argument, the type of the attribute"));
            };
            object.optional.insert(name.clone());
            of = inner;
        }
        if object.attributes.insert(name.clone(), type_of(of)?).is_some() {
            return complain(format!("attribute {name:?} occurs twice in the object type"));
        }
    }
    Ok(Type::Object(Rc::new(object)))
}

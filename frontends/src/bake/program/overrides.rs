//! Values that come as text, from the command line or the environment, read as the type of their variable.

use std::rc::Rc;

use crate::bake::csv_line::split_fields;
use crate::bake::entries::parse_bool;
use crate::bake::value::{Members, Number, Type, Value, make_set};

/// Reads a text as a string, number or bool.
///
/// # Errors
/// Says that it is none.
pub(super) fn primitive(text: &str, wanted: &Type) -> Result<Value, String> {
    match wanted {
        Type::String => Ok(Value::string(text)),
        Type::Bool => parse_bool(text)
            .map(Value::Bool)
            .ok_or_else(|| format!("{text:?} is no bool; write true or false")),
        Type::Number => text
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .and_then(Number::from_f64)
            .map(Value::number)
            .ok_or_else(|| format!("{text:?} is no number")),
        other => Err(format!("type {other} cannot be given as plain text")),
    }
}

/// Whether a type can be given as comma-separated values.
pub(super) fn takes_csv(wanted: &Type) -> bool {
    matches!(wanted, Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_))
}

/// Reads `a,b,c` as a list, set or tuple, and `k:v,k:v` as a map.
///
/// # Errors
/// Says which field does not fit.
pub(super) fn csv(text: &str, wanted: &Type) -> Result<Value, String> {
    let fields =
        split_fields(text, ',').map_err(|reason| format!("{text:?} are no comma-separated values: {reason}"))?;
    if let Some(element) = wanted.element()
        && !element.is_primitive()
    {
        return Err(format!(
            "type {wanted} cannot be given as comma-separated values, only as JSON"
        ));
    }
    match wanted {
        Type::List(element) => {
            let values: Result<Vec<Value>, String> = fields.iter().map(|field| primitive(field, element)).collect();
            Ok(Value::list((**element).clone(), values?))
        }
        Type::Set(element) => {
            let values: Result<Vec<Value>, String> = fields.iter().map(|field| primitive(field, element)).collect();
            Ok(make_set((**element).clone(), values?))
        }
        Type::Tuple(elements) => {
            if elements.len() != fields.len() {
                return Err(format!(
                    "{} elements are required, {} given",
                    elements.len(),
                    fields.len()
                ));
            }
            let values: Result<Vec<Value>, String> = fields
                .iter()
                .zip(elements.iter())
                .map(|(field, of)| primitive(field, of))
                .collect();
            Ok(Value::tuple(values?))
        }
        Type::Map(element) => {
            let mut members = Members::new();
            for field in &fields {
                let pair = split_fields(field, ':').map_err(|reason| format!("{field:?} is no key:value: {reason}"))?;
                let [key, value] = &pair[..] else {
                    return Err(format!("{field:?} must have the form key:value"));
                };
                members.insert(crate::bake::value::normalize(key), primitive(value, element)?);
            }
            Ok(Value::Map((**element).clone(), Rc::new(members)))
        }
        other => Err(format!("type {other} cannot be given as comma-separated values")),
    }
}

//! Arithmetic, comparison and logic.

use super::ast::{BinaryOperator, Expression, UnaryOperator};
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::{Number, NumberError, Type, Value, convert, equals};

/// One side of an operator: its value, or what went wrong with it, and where it stands.
pub(super) struct Operand<'e> {
    pub(super) value: Result<Value, Diagnostics>,
    pub(super) expression: &'e Expression,
}

impl Operand<'_> {
    /// The value as the type the operator wants.
    fn converted(self, wanted: &Type) -> Result<Value, Diagnostics> {
        let span = self.expression.span;
        convert(&self.value?, wanted)
            .map_err(|error| vec![Diagnostic::new(span, format!("unsuitable operand: {error}"))])
    }
}

pub(super) fn unary(operator: UnaryOperator, operand: Operand<'_>) -> Result<Value, Diagnostics> {
    let span = operand.expression.span;
    match operator {
        UnaryOperator::Negate => {
            let number = number_of(&operand.converted(&Type::Number)?, span)?;
            Ok(Value::number(number.negate()))
        }
        UnaryOperator::Not => match operand.converted(&Type::Bool)? {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            _ => Err(vec![Diagnostic::new(span, "null cannot be negated")]),
        },
    }
}

pub(super) fn binary(
    operator: BinaryOperator,
    left: Operand<'_>,
    right: Operand<'_>,
    span: Span,
) -> Result<Value, Diagnostics> {
    use BinaryOperator as Op;
    match operator {
        Op::And | Op::Or => logical(operator, left, right, span),
        Op::Equal | Op::NotEqual => {
            let (left, right) = both(left.value, right.value)?;
            Ok(Value::Bool(equals(&left, &right) == (operator == Op::Equal)))
        }
        _ => {
            let (left_span, right_span) = (left.expression.span, right.expression.span);
            let (left, right) = both(left.converted(&Type::Number), right.converted(&Type::Number))?;
            let (left, right) = both(number_of(&left, left_span), number_of(&right, right_span))?;
            numeric(operator, &left, &right).map_err(|error| {
                vec![Diagnostic::new(
                    span,
                    format!("operator {}: {error}", operator.symbol()),
                )]
            })
        }
    }
}

fn both<T>(left: Result<T, Diagnostics>, right: Result<T, Diagnostics>) -> Result<(T, T), Diagnostics> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(mut left), Err(right)) => {
            left.extend(right);
            Err(left)
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

fn number_of(value: &Value, span: Span) -> Result<Number, Diagnostics> {
    value
        .as_number()
        .cloned()
        .ok_or_else(|| vec![Diagnostic::new(span, "null cannot be calculated with")])
}

fn numeric(operator: BinaryOperator, left: &Number, right: &Number) -> Result<Value, NumberError> {
    use BinaryOperator as Op;
    Ok(match operator {
        Op::Greater => Value::Bool(left > right),
        Op::GreaterOrEqual => Value::Bool(left >= right),
        Op::Less => Value::Bool(left < right),
        Op::LessOrEqual => Value::Bool(left <= right),
        Op::Subtract => Value::number(left.subtract(right)?),
        Op::Multiply => Value::number(left.multiply(right)?),
        Op::Divide => Value::number(left.divide(right)?),
        Op::Modulo => Value::number(left.modulo(right)?),
        _ => Value::number(left.add(right)?),
    })
}

/// Either side can decide alone, and then hides what went wrong with the other.
fn logical(operator: BinaryOperator, left: Operand<'_>, right: Operand<'_>, span: Span) -> Result<Value, Diagnostics> {
    let decides = operator == BinaryOperator::Or;
    let has_fatal = |side: &Result<Value, Diagnostics>| {
        side.as_ref()
            .is_err_and(|diagnostics| diagnostics.iter().any(|diagnostic| diagnostic.fatal))
    };
    // A value of the wrong type is an error even where the other side decides.
    let mistyped = |operand: &Operand<'_>| {
        operand
            .value
            .as_ref()
            .is_ok_and(|value| convert(value, &Type::Bool).is_err())
    };
    if mistyped(&left) || mistyped(&right) {
        both(left.converted(&Type::Bool), right.converted(&Type::Bool))?;
        return Err(vec![Diagnostic::new(span, "unsuitable operand")]);
    }
    let left = left.converted(&Type::Bool);
    let right = right.converted(&Type::Bool);
    if has_fatal(&left) || has_fatal(&right) {
        both(left, right)?;
        return Err(vec![Diagnostic::new(span, "unsuitable operand")]);
    }
    let decided = |side: &Result<Value, Diagnostics>| match side {
        Ok(Value::Bool(value)) => *value == decides,
        // Null is not true, which is enough for `&&`.
        Ok(_) => !decides,
        Err(_) => false,
    };
    if decided(&left) || decided(&right) {
        return Ok(Value::Bool(decides));
    }
    match both(left, right)? {
        (Value::Bool(_), Value::Bool(_)) => Ok(Value::Bool(!decides)),
        _ => Err(vec![Diagnostic::new(span, "null is neither true nor false")]),
    }
}

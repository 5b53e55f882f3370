//! Arithmetic, comparison and logic under function names.

use num_bigint::BigUint;
use num_traits::Zero;

use super::{CallError, CallResult, Environment, Function, float, function, integer, number, text};
use crate::bake::value::{Number, NumberError, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("absolute", [("num", Number)], |_, args| Ok(Value::number(
        number(&args[0]).absolute()
    ))),
    function!("add", [("a", Number), ("b", Number)], |_, args| arithmetic(
        args,
        Number::add
    )),
    function!("ceil", [("num", Number)], |_, args| Ok(Value::number(
        number(&args[0]).ceil()
    ))),
    function!("divide", [("a", Number), ("b", Number)], |_, args| arithmetic(
        args,
        Number::divide
    )),
    function!("floor", [("num", Number)], |_, args| Ok(Value::number(
        number(&args[0]).floor()
    ))),
    function!("greaterthan", [("a", Number), ("b", Number)], |_, args| compare(
        args,
        |a, b| a > b
    )),
    function!("greaterthanorequalto", [("a", Number), ("b", Number)], |_, args| {
        compare(args, |a, b| a >= b)
    }),
    function!("int", [("num", Number)], |_, args| Ok(Value::number(
        number(&args[0]).truncate()
    ))),
    function!("lessthan", [("a", Number), ("b", Number)], |_, args| compare(
        args,
        |a, b| a < b
    )),
    function!("lessthanorequalto", [("a", Number), ("b", Number)], |_, args| compare(
        args,
        |a, b| a <= b
    )),
    function!("log", [("num", Number), ("base", Number)], |_, args| {
        from_float(float(args, 0)?.ln() / float(args, 1)?.ln())
    }),
    function!("max", [], ("numbers", Number), |_, args| extreme(
        args,
        |candidate, best| candidate > best
    )),
    function!("min", [], ("numbers", Number), |_, args| extreme(
        args,
        |candidate, best| candidate < best
    )),
    function!("modulo", [("a", Number), ("b", Number)], |_, args| arithmetic(
        args,
        Number::modulo
    )),
    function!("multiply", [("a", Number), ("b", Number)], |_, args| arithmetic(
        args,
        Number::multiply
    )),
    function!("negate", [("num", Number)], |_, args| Ok(Value::number(
        number(&args[0]).negate()
    ))),
    function!("parseint", [("number", Any), ("base", Number)], parseint),
    function!("pow", [("num", Number), ("power", Number)], |_, args| {
        from_float(float(args, 0)?.powf(float(args, 1)?))
    }),
    function!("signum", [("num", Number)], |_, args| Ok(Value::integer(
        integer(args, 0)?.signum()
    ))),
    function!("subtract", [("a", Number), ("b", Number)], |_, args| arithmetic(
        args,
        Number::subtract
    )),
    function!("and", [("a", Bool), ("b", Bool)], |_, args| Ok(Value::Bool(
        truth(&args[0]) && truth(&args[1])
    ))),
    function!("not", [("val", Bool)], |_, args| Ok(Value::Bool(!truth(&args[0])))),
    function!("or", [("a", Bool), ("b", Bool)], |_, args| Ok(Value::Bool(
        truth(&args[0]) || truth(&args[1])
    ))),
];

fn truth(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

fn arithmetic(args: &[Value], operation: fn(&Number, &Number) -> Result<Number, NumberError>) -> CallResult {
    match operation(&number(&args[0]), &number(&args[1])) {
        Ok(result) => Ok(Value::number(result)),
        Err(error) => Err(CallError::Whole(error.to_string())),
    }
}

fn compare(args: &[Value], holds: fn(&Number, &Number) -> bool) -> CallResult {
    Ok(Value::Bool(holds(&number(&args[0]), &number(&args[1]))))
}

fn from_float(value: f64) -> CallResult {
    Number::from_f64(value)
        .map(Value::number)
        .ok_or_else(|| CallError::from("the result is not a number"))
}

fn extreme(args: &[Value], better: fn(&Number, &Number) -> bool) -> CallResult {
    let mut numbers = args.iter().map(number);
    let Some(mut best) = numbers.next() else {
        return Err(CallError::from("at least one number is required"));
    };
    for candidate in numbers {
        if better(&candidate, &best) {
            best = candidate;
        }
    }
    Ok(Value::number(best))
}

fn parseint(_: &Environment<'_>, args: &[Value]) -> CallResult {
    if args[0].as_str().is_none() {
        return Err(CallError::Argument(
            0,
            format!("a string is required, not a {}", args[0].type_of()),
        ));
    }
    let base = integer(args, 1)?;
    if !(2..=62).contains(&base) {
        return Err(CallError::Argument(
            1,
            String::from("the base must be a whole number between 2 and 62"),
        ));
    }
    let source = text(&args[0]);
    let refuse = || CallError::Argument(0, format!("{source:?} is no whole number in base {base}"));
    let digits = source.strip_prefix(['+', '-']).unwrap_or(source);
    if digits.is_empty() {
        return Err(refuse());
    }
    if digits.len() > 20_000 {
        return Err(CallError::Argument(0, String::from("the number is out of range")));
    }
    let mut value = BigUint::zero();
    for byte in digits.bytes() {
        let digit = match byte {
            b'0'..=b'9' => i64::from(byte - b'0'),
            b'a'..=b'z' => i64::from(byte - b'a') + 10,
            // Up to base 36 both cases mean the same.
            b'A'..=b'Z' if base <= 36 => i64::from(byte - b'A') + 10,
            b'A'..=b'Z' => i64::from(byte - b'A') + 36,
            _ => return Err(refuse()),
        };
        if digit >= base {
            return Err(refuse());
        }
        value = value * base.unsigned_abs() + digit.unsigned_abs();
    }
    let negative = source.starts_with('-') && !value.is_zero();
    Ok(Value::number(Number::from_integer(negative, value)))
}

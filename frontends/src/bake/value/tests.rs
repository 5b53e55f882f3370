//! Numbers, conversions and JSON on their own.

use super::*;

fn number(text: &str) -> Number {
    Number::parse(text).expect("a number").expect("in range")
}

#[test]
fn numbers_keep_512_bits() {
    let sum = number("0.1").add(&number("0.2")).expect("a sum");
    assert_eq!(sum.to_text(), "0.3");
    let third = number("1").divide(&number("3")).expect("a quotient").to_text();
    assert_eq!(third.len(), 157, "{third}");
    assert!(third.starts_with("0.3333") && third.ends_with("335"), "{third}");
    let square = number("12345678901234567890")
        .multiply(&number("12345678901234567890"))
        .expect("a product");
    assert_eq!(square.to_text(), "152415787532388367501905199875019052100");
}

#[test]
fn division_by_zero_is_infinite_and_zero_by_zero_nothing() {
    let (one, zero) = (number("1"), number("0"));
    assert_eq!(one.divide(&zero).expect("infinity").to_text(), "+Inf");
    assert_eq!(one.negate().divide(&zero).expect("infinity").to_text(), "-Inf");
    assert!(zero.divide(&zero).is_err());
    assert_eq!(number("10").modulo(&zero).expect("the number").to_text(), "10");
}

#[test]
fn texts_are_numbers_or_not() {
    let cases = [
        ("12", Some("12")),
        ("-0.50", Some("-0.5")),
        ("1e3", Some("1000")),
        (".5", Some("0.5")),
        ("5.", Some("5")),
        ("+1", Some("1")),
        ("Inf", Some("+Inf")),
        ("", None),
        (" 1", None),
        ("1_0", None),
        ("0x10", None),
        ("1e", None),
        ("nan", None),
    ];
    for (text, want) in cases {
        let got = Number::parse(text).and_then(Result::ok).map(|number| number.to_text());
        assert_eq!(got.as_deref(), want, "{text:?}");
    }
    assert!(matches!(
        Number::parse("1e999999999"),
        Some(Err(NumberError::OutOfRange))
    ));
}

#[test]
fn a_float_survives_the_way_there_and_back() {
    for value in [0.1, -2.5, 1e300, 5e-324, 2.0_f64.powi(60), f64::MAX, f64::MIN_POSITIVE] {
        let there = Number::from_f64(value).expect("no NaN");
        assert_eq!(there.to_f64().to_bits(), value.to_bits(), "{value:e}");
    }
    assert!(Number::from_f64(f64::NAN).is_none());
}

#[test]
fn values_are_converted_or_refused() {
    let text = Value::from("1");
    let tuple = Value::tuple(vec![Value::integer(1), Value::from("a")]);
    let cases = [
        (&text, Type::Number, Some("1")),
        (&text, Type::Bool, Some("true")),
        (&text, Type::list(Type::String), None),
        (&tuple, Type::list(Type::String), Some(r#"["1","a"]"#)),
        (&tuple, Type::set(Type::String), Some(r#"["1","a"]"#)),
        (&tuple, Type::list(Type::Number), None),
        (&tuple, Type::list(Type::Dynamic), Some(r#"["1","a"]"#)),
        (&tuple, Type::map(Type::String), None),
    ];
    for (value, wanted, want) in cases {
        let got = convert(value, &wanted).ok().and_then(|value| to_json(&value).ok());
        assert_eq!(got.as_deref(), want, "{value:?} as {wanted}");
    }
}

#[test]
fn json_is_read_by_type() {
    let object = |optional: bool| {
        let mut object = ObjectType::default();
        object.attributes.insert("a".into(), Type::list(Type::String));
        if optional {
            object.optional.insert("a".into());
        }
        Type::Object(Rc::new(object))
    };
    let cases = [
        (
            "[1, true, \"x\"]",
            Type::list(Type::String),
            Some(r#"["1","true","x"]"#),
        ),
        ("[\"1\"]", Type::list(Type::Number), Some("[1]")),
        ("{\"a\": [\"x\"]}", object(false), Some(r#"{"a":["x"]}"#)),
        ("{}", object(false), Some(r#"{"a":null}"#)),
        ("{}", object(true), Some(r#"{"a":null}"#)),
        ("{\"b\": 1}", object(false), None),
        ("[1, 2", Type::list(Type::Number), None),
        ("1", Type::Dynamic, None),
    ];
    for (text, wanted, want) in cases {
        let got = from_json(text, &wanted).ok().and_then(|value| to_json(&value).ok());
        assert_eq!(got.as_deref(), want, "{text} as {wanted}");
    }
}

#[test]
fn shared_parts_do_not_make_endless_work() {
    let mut value = Value::from("x");
    for _ in 0..60 {
        value = Value::tuple(vec![value.clone(), value]);
    }
    assert!(equals(&value, &value.clone()));
    assert!(to_json(&value).is_err());
}

#[test]
fn strings_are_normalized() {
    assert!(equals(&Value::string("e\u{301}"), &Value::string("\u{e9}")));
}

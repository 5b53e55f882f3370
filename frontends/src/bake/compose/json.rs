//! YAML for readers of JSON.

use serde_json::Value;

use super::yaml::{Yaml, parse};

/// Reads a text of one YAML document as what it means in JSON, anchors and merge keys resolved.
///
/// # Errors
/// What is wrong, with the line; more than one document is wrong, too.
pub fn yaml_to_json(text: &str) -> Result<Value, String> {
    let mut documents = parse(text)?;
    match (documents.pop(), documents.is_empty()) {
        (None, _) => Ok(Value::Null),
        (Some(document), true) => json(document.root),
        (Some(_), false) => Err("there is more than one document".to_owned()),
    }
}

fn json(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::Integer(value) => serde_json::Number::from_i128(value)
            .ok_or_else(|| format!("the number {value} is too large"))?
            .into(),
        // Infinities have no form in JSON.
        Yaml::Float(value) => serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number),
        Yaml::Text(text) => text.into(),
        Yaml::List(items) => items.into_iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Yaml::Map(entries) => {
            let entries = entries.into_iter().map(|(key, value)| Ok((key, json(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_reads_as_json() {
        let text = "a: &x [1, -2.5, true, ~, 'no']\nb: {c: *x}\nmode: 0o666\n";
        let want = serde_json::json!({
            "a": [1, -2.5, true, null, "no"], "b": {"c": [1, -2.5, true, null, "no"]}, "mode": 438
        });
        assert_eq!(yaml_to_json(text), Ok(want.clone()));
        assert_eq!(yaml_to_json(&want.to_string()), Ok(want));
        assert_eq!(yaml_to_json(""), Ok(Value::Null));
        assert!(yaml_to_json("a: 1\n---\nb: 2\n").is_err());
        assert!(yaml_to_json("a: [").is_err());
    }
}

//! The JSON form of instructions: an array of strings.

use super::super::ast::Word;
use super::super::source::Spanned;
use super::line::Part;

/// What a text is that could be in JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JsonForm {
    /// An array of strings.
    Strings(Vec<Word>),
    /// An array with something else in it.
    NotStrings,
    /// Not a JSON array: shell form.
    NoJson,
}

/// Reads a text that may be in JSON form. Malformed JSON is no error: it is shell form.
pub(super) fn parse_json(part: Part<'_>) -> JsonForm {
    let part = part.trim();
    let text = part.text();
    if !text.starts_with('[') {
        return JsonForm::NoJson;
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_) => JsonForm::NoJson,
        Ok(values) if !values.iter().all(serde_json::Value::is_string) => JsonForm::NotStrings,
        Ok(values) => {
            let places = string_places(text);
            let place = |index: usize| places.get(index).map_or((0, text.len()), |&place| place);
            let words = values.into_iter().enumerate().map(|(index, value)| {
                let (start, end) = place(index);
                let text = value.as_str().unwrap_or_default().to_owned();
                Spanned::new(text, part.part(start, end).span())
            });
            JsonForm::Strings(words.collect())
        }
    }
}

/// Where the strings of a well-formed array of strings are, quotes included.
fn string_places(text: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut open = None;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (byte, open) {
            (b'"', None) => open = Some(at),
            (b'"', Some(start)) => {
                places.push((start, at + 1));
                open = None;
            }
            (b'\\', Some(_)) => {
                bytes.next();
            }
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::super::line::Line;
    use super::*;

    #[test]
    fn forms() {
        let form = |text: &str| parse_json(Line::detached(text).all());
        let JsonForm::Strings(words) = form(r#" ["a", "b \"c\"", "\u00e9"] "#) else {
            panic!("strings")
        };
        assert_eq!(
            words.iter().map(|word| word.value.as_str()).collect::<Vec<_>>(),
            ["a", "b \"c\"", "é"]
        );
        assert_eq!((words[1].span.start, words[1].span.end), (7, 16));
        assert_eq!(form("[]"), JsonForm::Strings(Vec::new()));
        assert_eq!(form("[\"a\", 1]"), JsonForm::NotStrings);
        assert_eq!(form("[[\"a\"]]"), JsonForm::NotStrings);
        for shell in ["", "a", "['a']", "[\"a\"", "[\"a\"] x", "[\"a\",]", "{\"a\": 1}"] {
            assert_eq!(form(shell), JsonForm::NoJson, "{shell:?}");
        }
    }
}

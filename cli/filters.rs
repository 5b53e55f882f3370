//! Filters as `docker buildx du` and `prune` and BuildKit's settings have them.
//!
//! ```text
//! type==regular            description~=^RUN            shared            until=48h            id!=abc
//! ```
//! Terms joined with commas must all hold. A bare name is a flag that must be set.

use std::time::Duration;

use anyhow::bail;
use regex::Regex;

use crate::commands::parse_duration;

/// What filters can ask about.
const KEYS: [&str; 11] = [
    "id",
    "parents",
    "description",
    "type",
    "inuse",
    "mutable",
    "immutable",
    "shared",
    "private",
    "rooted",
    "until",
];

/// One condition.
#[derive(Clone, Debug)]
struct Term {
    key: String,
    check: Check,
}

#[derive(Clone, Debug)]
enum Check {
    /// Set, or equal to `true`.
    Set,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    /// Not used for this long.
    Until(Duration),
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    terms: Vec<Term>,
}

/// What a filter is asked about.
pub(crate) trait Fields {
    /// The value of a field; flags are `true` or `false`.
    fn field(&self, key: &str) -> Option<String>;
    /// How long it was not used.
    fn idle(&self) -> Duration;
}

impl Filter {
    /// Reads terms joined with commas.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut filter = Self::default();
        for term in split(text) {
            filter.terms.push(parse_term(term.trim())?);
        }
        Ok(filter)
    }

    /// All terms of several filters: what repeated flags mean.
    pub(crate) fn all_of(texts: &[String]) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for text in texts {
            all.terms.extend(Self::parse(text)?.terms);
        }
        Ok(all)
    }

    /// Whether it asks for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether something is what it asks for.
    pub(crate) fn matches(&self, fields: &dyn Fields) -> bool {
        self.terms.iter().all(|term| {
            let value = || fields.field(&term.key).unwrap_or_default();
            match &term.check {
                Check::Set => value() == "true",
                Check::Equal(wanted) => value() == *wanted,
                Check::NotEqual(wanted) => value() != *wanted,
                Check::Matches(pattern) => pattern.is_match(&value()),
                Check::Until(time) => fields.idle() >= *time,
            }
        })
    }
}

/// Splits at commas that no quotes enclose.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (place, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn parse_term(text: &str) -> anyhow::Result<Term> {
    let found = text.char_indices().find(|(_, c)| matches!(c, '=' | '!' | '~'));
    let Some((place, _)) = found else {
        return term(text, text, Check::Set);
    };
    let (key, rest) = text.split_at(place);
    let operators = [("==", 0), ("!=", 1), ("~=", 2), ("=", 0)];
    let Some((operator, kind)) = operators.into_iter().find(|(operator, _)| rest.starts_with(operator)) else {
        bail!("filter `{text}`: after `{key}` comes `==`, `!=` or `~=`");
    };
    let value = rest[operator.len()..].trim().trim_matches('"');
    let check = match (key, kind) {
        ("until", 0) => Check::Until(parse_duration(value)?),
        ("until", _) => bail!("filter `{text}`: `until` takes `=` and a time such as 48h"),
        (_, 0) => Check::Equal(value.to_owned()),
        (_, 1) => Check::NotEqual(value.to_owned()),
        _ => match Regex::new(value) {
            Ok(pattern) => Check::Matches(pattern),
            Err(err) => bail!("filter `{text}`: `{value}` is no regular expression: {err}"),
        },
    };
    term(text, key, check)
}

fn term(text: &str, key: &str, check: Check) -> anyhow::Result<Term> {
    let key = key.trim().to_ascii_lowercase();
    if !KEYS.contains(&key.as_str()) {
        bail!("filter `{text}`: nothing has `{key}`; there are {}", KEYS.join(", "));
    }
    if key == "until" && !matches!(check, Check::Until(_)) {
        bail!("filter `{text}`: `until` takes `=` and a time such as 48h");
    }
    Ok(Term { key, check })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing;

    impl Fields for Thing {
        fn field(&self, key: &str) -> Option<String> {
            let value = match key {
                "type" => "regular",
                "description" => "[2/3] RUN make, test",
                "mutable" => "false",
                "shared" => "true",
                _ => return None,
            };
            Some(value.to_owned())
        }

        fn idle(&self) -> Duration {
            Duration::from_secs(3_600)
        }
    }

    #[test]
    fn terms_are_read_as_the_reference_tools_read_them() {
        let cases = [
            ("type==regular", true),
            ("type=regular", true),
            ("type!=regular", false),
            ("type==regular,mutable", false),
            ("type==regular,shared", true),
            ("mutable=false", true),
            ("description~=^\\[2/.*make", true),
            ("description==\"[2/3] RUN make, test\"", true),
            ("until=30m", true),
            ("until=2h", false),
            ("id!=x", true),
        ];
        for (text, want) in cases {
            assert_eq!(Filter::parse(text).expect(text).matches(&Thing), want, "{text}");
        }
        for text in [
            "colour==red",
            "type~",
            "type!regular",
            "until",
            "until~=x",
            "until=soon",
            "description~=[",
        ] {
            let err = Filter::parse(text).expect_err(text).to_string();
            assert!(
                err.contains(text.split('=').next_back().unwrap_or(text)),
                "{text}: {err}"
            );
        }
        assert!(Filter::all_of(&[]).expect("empty").is_empty());
    }
}

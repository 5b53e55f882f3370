//! What a registry wants before it talks: the `WWW-Authenticate` header.

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// None is needed.
    Open,
    /// User and password with each request.
    Basic,
    /// A token from elsewhere.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Reads the values of all such headers; Bearer is preferred. No known scheme gives `None`.
    pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            for (scheme, parameters) in split(header) {
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if scheme.eq_ignore_ascii_case("bearer") {
                    let get = |key: &str| {
                        parameters
                            .iter()
                            .find(|(name, _)| name.eq_ignore_ascii_case(key))
                            .map(|(_, value)| value.clone())
                    };
                    if let Some(realm) = get("realm") {
                        return Some(Self::Bearer {
                            realm,
                            service: get("service"),
                        });
                    }
                }
            }
        }
        basic
    }
}

type Parameters = Vec<(String, String)>;

/// Splits `Basic realm="x", Bearer realm="y",service="z"` into schemes and their parameters.
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut list: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let word_end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let word = &rest[..word_end];
        rest = &rest[word_end..];
        if let Some(value) = rest.strip_prefix('=') {
            let (value, tail) = value_of(value);
            rest = tail;
            if let Some((_, parameters)) = list.last_mut() {
                parameters.push((word.to_owned(), value));
            }
        } else if !word.is_empty() {
            list.push((word.to_owned(), Vec::new()));
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    list
}

/// A quoted string with its escapes, or a bare word; and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
            })
        };
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (&["Basic realm=\"x\""], Some(Challenge::Basic)),
            (
                &["Bearer realm=\"https://a/token\",service=\"s, t\",scope=\"repository:a:pull\""],
                bearer("https://a/token", Some("s, t")),
            ),
            (&["bearer realm=https://a/t"], bearer("https://a/t", None)),
            (&["Basic realm=\"b\", Bearer realm=\"r\\\"q\""], bearer("r\"q", None)),
            (&["Basic realm=\"b\"", "Bearer realm=\"r\""], bearer("r", None)),
            (&["Negotiate"], None),
            (&["Bearer scope=\"x\""], None),
            (&[], None),
        ];
        for (headers, want) in cases {
            assert_eq!(Challenge::parse(headers.iter().copied()), *want, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(header in "\\PC{0,60}") {
            Challenge::parse(std::iter::once(header.as_str()));
        }
    }
}

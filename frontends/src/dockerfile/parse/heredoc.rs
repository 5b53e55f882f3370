//! Heredoc words: `<<EOF`, `3<<-"EOF"`.

use super::super::ast::Heredoc;
use super::super::shell::{Escapes, NoVariables, Quotes, Shell, Unset};

/// How heredoc words are split off: the escape is a backslash whatever the file says.
const SPLIT: Shell = Shell {
    escape: '\\',
    quotes: Quotes::Keep,
    escapes: Escapes::Keep,
    unset: Unset::Keep,
};

/// The heredocs an instruction opens, in order. A line that the shell language cannot read opens none.
pub(super) fn openings(line: &str) -> Result<Vec<Heredoc>, String> {
    let words = SPLIT
        .expand(line, &NoVariables)
        .map(|expansion| expansion.words)
        .unwrap_or_default();
    let mut openings = Vec::new();
    for word in &words {
        openings.extend(opening(word)?);
    }
    Ok(openings)
}

/// Reads a word that may open a heredoc, as `opening`, for a caller to whom a malformed one is none.
pub(crate) fn parse_word(word: &str) -> Option<Heredoc> {
    opening(word).ok().flatten()
}

/// `N<<-NAME`, where any quote around a part of the name turns expansion off.
fn opening(word: &str) -> Result<Option<Heredoc>, String> {
    let after_digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = after_digits.strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let bare = Shell {
        quotes: Quotes::Remove,
        escapes: Escapes::Remove,
        ..SPLIT
    };
    let raw = Shell {
        quotes: Quotes::Keep,
        ..bare
    };
    let error = |error: super::super::shell::ShellError| error.to_string();
    let names = bare.expand(rest, &NoVariables).map_err(error)?.words;
    let raw_names = raw.expand(rest, &NoVariables).map_err(error)?.words;
    let ([name], [raw_name]) = (names.as_slice(), raw_names.as_slice()) else {
        return Ok(None);
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(name) == quotes(raw_name);
    Ok(Some(Heredoc {
        name: name.clone(),
        expand,
        chomp,
        content: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let cases = [
            ("<<EOF", Some(("EOF", true, false))),
            ("3<<-EOF", Some(("EOF", true, true))),
            ("<<'EOF'", Some(("EOF", false, false))),
            ("<<\"E\"OF", Some(("EOF", false, false))),
            ("<<  X", Some(("X", true, false))),
            ("<<'one two'", Some(("one two", false, false))),
            ("<<eo\\'f", Some(("eo'f", true, false))),
            ("<<'e'o\\'f", Some(("eo'f", false, false))),
            ("<<$EOF", Some(("$EOF", true, false))),
            ("<<EOF sh > x", None),
            ("<<", None),
            ("<<<x", None),
            ("a<<X", None),
            ("<X", None),
        ];
        for (word, want) in cases {
            let got = opening(word).expect(word);
            let got = got.as_ref().map(|doc| (doc.name.as_str(), doc.expand, doc.chomp));
            assert_eq!(got, want, "reading {word:?}");
        }
        let names = |line: &str| {
            openings(line)
                .expect(line)
                .into_iter()
                .map(|doc| doc.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("RUN cat <<A <<B > f"), ["A", "B"]);
        assert_eq!(names("RUN echo '<<A' \\<<B"), Vec::<String>::new());
        assert_eq!(names("RUN echo \"open <<A"), Vec::<String>::new());
    }
}

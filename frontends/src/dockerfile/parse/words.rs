//! The ways instructions split their text: flags, blanks, quoted words, JSON.

use super::super::ast::Word;
use super::super::source::Spanned;
use super::line::Part;

/// The blanks that separate words and flags. Other Unicode blanks are part of words here, as in BuildKit.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// Splits an instruction into its name, its flags and the rest.
pub(super) fn split_command<'a>(line: Part<'a>, escape: char) -> (Part<'a>, Vec<Word>, Part<'a>) {
    let line = line.trim();
    let text = line.text();
    let Some(end) = text.find(is_blank) else {
        return (line, Vec::new(), line.from(text.len()));
    };
    let rest = line.from(text.len() - text[end..].trim_start_matches(is_blank).len());
    let (flags, rest) = split_flags(rest, escape);
    (line.part(0, end), flags, rest.trim())
}

/// Takes `--flag` words off the front. Quotes and escapes in them vanish; `--` alone ends them.
fn split_flags<'a>(line: Part<'a>, escape: char) -> (Vec<Word>, Part<'a>) {
    let text = line.text();
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches(is_blank).len();
        if !text[at..].starts_with("--") {
            return (flags, line.from(at));
        }
        let (word, end) = flag_word(&text[at..], escape);
        if word == "--" {
            return (flags, line.from(at + end));
        }
        flags.push(Spanned::new(word, line.part(at, at + end).span()));
        at += end;
    }
}

/// One flag and its length in the text.
fn flag_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if is_blank(c) => return (word, at),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // An escape at the end protects nothing and vanishes.
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, text.len())
}

/// Splits at blanks, and knows no quotes.
pub(super) fn split_blanks(line: Part<'_>) -> Vec<Word> {
    let text = line.text();
    let mut words = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = text[start..].find(is_blank).map_or(text.len(), |blank| start + blank);
        words.push(Spanned::new(text[start..end].to_owned(), line.part(start, end).span()));
        start = text.len() - text[end..].trim_start_matches(is_blank).len();
    }
    words
}

/// Splits at blanks outside quotes. Quotes and escapes stay in the words, for expansion to remove.
pub(super) fn split_quoted(line: Part<'_>, escape: char) -> Vec<Word> {
    let text = line.text();
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if at == text.len() {
            return words;
        }
        let (word, length) = quoted_word(&text[at..], escape);
        // A lone escape at the end leaves nothing.
        if !word.is_empty() {
            words.push(Spanned::new(word, line.part(at, at + length).span()));
        }
        at += length;
    }
}

fn quoted_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, at),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            Some('\'') => {}
            _ if c == escape => {
                // An escape at the end vanishes; any other stays, with what it protects.
                let Some((_, escaped)) = chars.next() else { break };
                word.push(c);
                word.push(escaped);
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    (word, text.len())
}

/// Splits once, at the first blanks: the first word and the text behind the blanks.
pub(super) fn split_once(line: Part<'_>) -> Option<(Part<'_>, Part<'_>)> {
    let text = line.text();
    let end = text.find(is_blank)?;
    let rest = text.len() - text[end..].trim_start_matches(is_blank).len();
    Some((line.part(0, end), line.from(rest)))
}

#[cfg(test)]
mod tests {
    use super::super::line::Line;
    use super::*;

    fn texts(words: &[Word]) -> Vec<&str> {
        words.iter().map(|word| word.value.as_str()).collect()
    }

    #[test]
    fn flags_come_first() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("COPY --from=a --chown='x y' a b", &["--from=a", "--chown=x y"], "a b"),
            ("RUN -- --x y", &[], "--x y"),
            ("RUN --mount=a\\ b c", &["--mount=a b"], "c"),
            ("RUN --a", &["--a"], ""),
            ("RUN -x", &[], "-x"),
            ("RUN", &[], ""),
            ("COPY --exclude=ü* a b", &["--exclude=ü*"], "a b"),
            ("RUN --a --", &["--a"], ""),
        ];
        for (text, flags, rest) in cases {
            let line = Line::detached(text);
            let (_, got, got_rest) = split_command(line.all(), '\\');
            assert_eq!(
                (texts(&got), got_rest.text()),
                (flags.to_vec(), *rest),
                "splitting {text:?}"
            );
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        let line = Line::detached(r#"a="b c" 'd  e'=\ f g\"#);
        let words = split_quoted(line.all(), '\\');
        assert_eq!(texts(&words), [r#"a="b c""#, r"'d  e'=\ f", "g"]);
        let line = Line::detached("a\tb  c");
        assert_eq!(texts(&split_blanks(line.all())), ["a", "b", "c"]);
    }
}

//! How Go reads and prints small things. The texts end up in image history and messages, so they must agree with
//! BuildKit's to the byte.

/// `%q` of a list of strings: `["a" "b c"]`.
pub(crate) fn quote_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%v` of a list of strings: `[a b c]`.
pub(crate) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `%q` of a string.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_print(c) => quoted.push(c),
            c if u32::from(c) < 0x80 => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether Go's `unicode.IsPrint` holds: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Rust's escapes leave the same characters alone; a leading letter keeps it from escaping lone marks.
    let mut pair = String::from("x");
    pair.push(c);
    pair.escape_debug().count() == 2
}

/// A duration in nanoseconds as `time.Duration` prints it: `1m0s`, `1.5s`, `100ms`, `0s`.
pub(crate) fn duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let digits = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            (value / unit).to_string()
        } else {
            format!("{}.{digits}", value / unit)
        }
    };
    match total {
        0..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total, 1_000_000)),
        _ => {
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000);
            let minutes = total / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A duration as `time.ParseDuration` reads it, in nanoseconds. `None` when it is none, or too long for 64 bits.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: u128 = 0;
    loop {
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, tail) = rest.split_at(whole_end);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len())),
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse::<u64>().ok()?.into()
        };
        let digits = &fraction[..fraction.len().min(18)];
        let part: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        total += whole * scale + part * scale / 10_u128.pow(digits.len() as u32);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    let total = i64::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

/// `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A size in bytes with an optional binary unit, as `go-units` reads it: `64m`, `1.5GiB`, `10 kb`.
pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, suffix) = (
        text[..=end].strip_suffix(' ').unwrap_or(&text[..=end]),
        &text[end + 1..],
    );
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.trim_end_matches("ib").trim_end_matches('b') {
        "" if suffix.is_empty() || suffix == "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let well_formed = matches!(suffix.len(), 0 | 1) || suffix[1..] == *"b" || suffix[1..] == *"ib";
    // The cast saturates, as a size beyond 8 EiB may.
    well_formed.then(|| (number * 1024_f64.powi(power)) as i64)
}

/// The fields of one line of CSV, as Go's reader takes them. `None` when a quote is out of place, or nothing is there.
pub(crate) fn csv_fields(line: &str) -> Option<Vec<String>> {
    let line = line
        .strip_suffix('\n')
        .map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return None;
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(mut quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let (part, tail) = quoted.split_once('"')?;
                field.push_str(part);
                if let Some(tail) = tail.strip_prefix('"') {
                    field.push('"');
                    quoted = tail;
                } else {
                    fields.push(field);
                    match tail.strip_prefix(',') {
                        Some(tail) => rest = tail,
                        None if tail.is_empty() => return Some(fields),
                        None => return None,
                    }
                    break;
                }
            }
        } else {
            let (field, tail) = match rest.split_once(',') {
                Some((field, tail)) => (field, Some(tail)),
                None => (rest, None),
            };
            if field.contains('"') {
                return None;
            }
            fields.push(field.to_owned());
            match tail {
                Some(tail) => rest = tail,
                None => return Some(fields),
            }
        }
    }
}

/// What a message says behind a word that is none of some: the one that is meant, else all there are.
pub(crate) fn meant(word: &str, options: &[&str]) -> String {
    match suggest(word, options.iter().copied(), Case::Sensitive) {
        Some(option) => format!(" (did you mean {option}?)"),
        None if options.is_empty() => " (there are none)".to_owned(),
        None => format!(" (there are {})", options.join(", ")),
    }
}

/// The option nearest to a misspelt word, when one is near enough to be meant (less than three edits).
pub(crate) fn suggest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> Option<String> {
    let fold = |text: &str| match case {
        Case::Sensitive => text.to_owned(),
        Case::Insensitive => text.to_lowercase(),
    };
    let wanted = fold(word);
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let option = fold(option);
        if option == wanted {
            return None;
        }
        let distance = edit_distance(&wanted, &option);
        if distance < best.as_ref().map_or(3, |(best, _)| *best) {
            best = Some((distance, option));
        }
    }
    let (_, found) = best?;
    Some(match case {
        Case::Insensitive if word == word.to_lowercase() => found.to_lowercase(),
        Case::Insensitive if word == word.to_uppercase() => found.to_uppercase(),
        _ => found,
    })
}

/// Whether letters of different case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}

/// Levenshtein's distance; words that differ much in length are far apart without looking.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(
            quote("a\"b\\c\n\u{1}\u{7f}é\u{301}\u{a0}\u{feff}"),
            "\"a\\\"b\\\\c\\n\\x01\\x7fé\u{301}\\u00a0\\ufeff\""
        );
        assert_eq!(quote_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
        assert_eq!(quote_list(&[]), "[]");
    }

    #[test]
    fn durations() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (3_000_000_000, "3s"),
            (60_000_000_000, "1m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (-1_000_000, "-1ms"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(duration(nanoseconds), text);
            assert_eq!(parse_duration(text), Some(nanoseconds), "{text}");
        }
        assert_eq!(parse_duration("1.25h"), Some(4_500_000_000_000));
        assert_eq!(parse_duration(".5s"), Some(500_000_000));
        for bad in ["", "5", "s", "1x", "1s ", "9999999999h", "-"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("10", Some(10)),
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("10 kb", Some(10 << 10)),
            ("3b", Some(3)),
            ("", None),
            ("m", None),
            ("5x", None),
            ("5mm", None),
            ("-5", None),
            ("5bb", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_size(text), want, "{text:?}");
        }
    }

    #[test]
    fn csv() {
        let fields = |line| csv_fields(line).map(|fields| fields.join("|"));
        assert_eq!(fields("a=1,b").as_deref(), Some("a=1|b"));
        assert_eq!(fields("\"a,b\",c\"").as_deref(), None);
        assert_eq!(fields("\"a,\"\"b\",c").as_deref(), Some("a,\"b|c"));
        assert_eq!(fields("a,").as_deref(), Some("a|"));
        assert_eq!(fields(""), None);
        assert_eq!(fields("\"open"), None);
    }

    #[test]
    fn suggestions() {
        assert_eq!(
            suggest("RUNN", ["RUN", "COPY"], Case::Insensitive).as_deref(),
            Some("RUN")
        );
        assert_eq!(
            suggest("cpoy", ["RUN", "COPY"], Case::Insensitive).as_deref(),
            Some("copy")
        );
        assert_eq!(suggest("run", ["RUN"], Case::Insensitive), None);
        assert_eq!(
            suggest("chwon", ["chown", "chmod"], Case::Sensitive).as_deref(),
            Some("chown")
        );
        assert_eq!(suggest("nothing", ["chown"], Case::Sensitive), None);
    }
}

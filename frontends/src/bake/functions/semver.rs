//! `semvercmp`: whether a version satisfies a constraint such as `>= 1.2, < 2 || ^3.1`.

use std::cmp::Ordering;

use super::{CallError, CallResult, Environment, text};
use crate::bake::value::Value;

pub(super) fn semvercmp(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let (version, constraint) = (text(&args[0]), text(&args[1]));
    let version =
        Version::parse(version).ok_or_else(|| CallError::Argument(0, format!("{version:?} is no semantic version")))?;
    let alternatives = parse_constraint(constraint)
        .ok_or_else(|| CallError::Argument(1, format!("{constraint:?} is no version constraint")))?;
    let satisfied = alternatives.iter().any(|all| {
        // A pre-release is considered only where the constraint names one.
        let with_pre_releases = all.iter().any(|single| !single.version.pre_release.is_empty());
        all.iter()
            .all(|single| (version.pre_release.is_empty() || with_pre_releases) && single.allows(&version))
    });
    Ok(Value::Bool(satisfied))
}

#[derive(Clone, Debug, Default)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    pre_release: String,
}

impl Version {
    /// Missing parts count as zero.
    fn parse(source: &str) -> Option<Version> {
        let written = Written::parse(source.strip_prefix('v').unwrap_or(source))?;
        let number = |part: Option<&str>| match part {
            None => Some(0),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
        };
        let valid = |identifier: &str| {
            let numeric = identifier.bytes().all(|byte| byte.is_ascii_digit());
            !(numeric && identifier.len() > 1 && identifier.starts_with('0'))
        };
        if !written.pre_release.is_empty() && !written.pre_release.split('.').all(valid) {
            return None;
        }
        Some(Version {
            major: number(Some(written.major))?,
            minor: number(written.minor)?,
            patch: number(written.patch)?,
            pre_release: String::from(written.pre_release),
        })
    }

    fn numbers(&self) -> (u64, u64, u64) {
        (self.major, self.minor, self.patch)
    }

    fn compare(&self, other: &Version) -> Ordering {
        self.numbers().cmp(&other.numbers()).then_with(|| {
            match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => compare_pre_releases(&self.pre_release, &other.pre_release),
            }
        })
    }
}

fn compare_pre_releases(left: &str, right: &str) -> Ordering {
    let mut left = left.split('.');
    let mut right = right.split('.');
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The parts of a version as they are written; a part can be a wildcard.
#[derive(Debug)]
struct Written<'s> {
    major: &'s str,
    minor: Option<&'s str>,
    patch: Option<&'s str>,
    pre_release: &'s str,
}

impl<'s> Written<'s> {
    fn parse(source: &'s str) -> Option<Written<'s>> {
        let (source, build) = source
            .split_once('+')
            .map_or((source, None), |(head, tail)| (head, Some(tail)));
        let (numbers, pre_release) = source
            .split_once('-')
            .map_or((source, None), |(head, tail)| (head, Some(tail)));
        let identifiers = |text: &str| {
            text.split('.')
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        };
        if !build.is_none_or(identifiers) || !pre_release.is_none_or(identifiers) {
            return None;
        }
        let parts: Vec<&str> = numbers.split('.').collect();
        let part_is_fine = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'x' | b'X' | b'*'))
        };
        if parts.len() > 3 || !parts.iter().all(part_is_fine) {
            return None;
        }
        Some(Written {
            major: parts[0],
            minor: parts.get(1).copied(),
            patch: parts.get(2).copied(),
            pre_release: pre_release.unwrap_or(""),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// One comparison; the parts that are missing or wildcards are open.
#[derive(Clone, Debug)]
struct Comparison {
    operator: Operator,
    version: Version,
    any_major: bool,
    any_minor: bool,
    any_patch: bool,
}

impl Comparison {
    fn is_open(&self) -> bool {
        self.any_major || self.any_minor || self.any_patch
    }

    fn allows(&self, version: &Version) -> bool {
        let wanted = &self.version;
        let order = version.compare(wanted);
        match self.operator {
            Operator::Equal if self.is_open() => self.tilde(version),
            Operator::Equal => order == Ordering::Equal,
            Operator::NotEqual if self.is_open() => {
                if version.major != wanted.major {
                    return true;
                }
                if self.any_minor {
                    return false;
                }
                if version.minor != wanted.minor {
                    return true;
                }
                if self.any_patch {
                    return (!version.pre_release.is_empty() || !wanted.pre_release.is_empty())
                        && version.pre_release != wanted.pre_release;
                }
                order != Ordering::Equal
            }
            Operator::NotEqual => order != Ordering::Equal,
            Operator::Greater if self.any_minor => version.major > wanted.major,
            Operator::Greater if self.any_patch => (version.major, version.minor) > (wanted.major, wanted.minor),
            Operator::Greater => order == Ordering::Greater,
            Operator::Less => order == Ordering::Less,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::LessOrEqual if self.is_open() => {
                version.major < wanted.major
                    || version.major == wanted.major && (self.any_minor || version.minor <= wanted.minor)
            }
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::Tilde => self.tilde(version),
            Operator::Caret => self.caret(version),
        }
    }

    fn tilde(&self, version: &Version) -> bool {
        let wanted = &self.version;
        if version.compare(wanted) == Ordering::Less {
            return false;
        }
        if wanted.numbers() == (0, 0, 0) && !self.any_minor && !self.any_patch {
            return true;
        }
        version.major == wanted.major && (self.any_minor || version.minor == wanted.minor)
    }

    fn caret(&self, version: &Version) -> bool {
        let wanted = &self.version;
        if version.compare(wanted) == Ordering::Less {
            return false;
        }
        if wanted.major > 0 || self.any_minor {
            return version.major == wanted.major;
        }
        if version.major > 0 {
            return false;
        }
        if wanted.minor > 0 || self.any_patch {
            return version.minor == wanted.minor;
        }
        version.minor == 0 && version.patch == wanted.patch
    }
}

/// Alternatives of comparisons that must all hold.
fn parse_constraint(source: &str) -> Option<Vec<Vec<Comparison>>> {
    rewrite_ranges(source).split("||").map(parse_all).collect()
}

/// `1.2 - 2.3` is another way to write `>= 1.2, <= 2.3`.
fn rewrite_ranges(source: &str) -> String {
    let words: Vec<&str> = source.split_whitespace().collect();
    let mut result = String::new();
    let mut at = 0;
    while at < words.len() {
        let is_version =
            |word: &str| Written::parse(word.trim_end_matches(',').strip_prefix('v').unwrap_or(word)).is_some();
        if at + 2 < words.len() && words[at + 1] == "-" && is_version(words[at]) && is_version(words[at + 2]) {
            result.push_str(&format!(" >= {}, <= {} ", words[at], words[at + 2]));
            at += 3;
        } else {
            result.push_str(&format!(" {} ", words[at]));
            at += 1;
        }
    }
    result
}

fn parse_all(source: &str) -> Option<Vec<Comparison>> {
    let mut rest = source.trim();
    let mut all = Vec::new();
    loop {
        let (comparison, next) = parse_one(rest)?;
        all.push(comparison);
        let after_blanks = next.trim_start();
        if after_blanks.is_empty() {
            return Some(all);
        }
        match after_blanks.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if after_blanks.len() < next.len() => rest = after_blanks,
            None => return None,
        }
    }
}

fn parse_one(source: &str) -> Option<(Comparison, &str)> {
    const OPERATORS: [(&str, Operator); 11] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::GreaterOrEqual),
        ("=>", Operator::GreaterOrEqual),
        ("<=", Operator::LessOrEqual),
        ("=<", Operator::LessOrEqual),
        ("~>", Operator::Tilde),
        ("=", Operator::Equal),
        (">", Operator::Greater),
        ("<", Operator::Less),
        ("~", Operator::Tilde),
        ("^", Operator::Caret),
    ];
    let found = OPERATORS.iter().find(|(symbol, _)| source.starts_with(symbol));
    let (operator, rest) = match found {
        Some((symbol, operator)) => (*operator, source[symbol.len()..].trim_start()),
        None => (Operator::Equal, source),
    };
    let end = rest
        .find(|char: char| char.is_whitespace() || char == ',')
        .unwrap_or(rest.len());
    let (word, rest) = rest.split_at(end);
    let written = Written::parse(word.strip_prefix('v').unwrap_or(word))?;
    let wild = |part: Option<&str>| part.is_none_or(|part| matches!(part, "x" | "X" | "*"));
    let any_major = wild(Some(written.major));
    let any_minor = !any_major && wild(written.minor);
    let any_patch = !any_major && !any_minor && wild(written.patch);
    let part = |open: bool, part: Option<&str>| match part {
        Some(digits) if !open => digits.parse().ok(),
        _ => Some(0),
    };
    let version = Version {
        major: part(any_major, Some(written.major))?,
        minor: part(any_major || any_minor, written.minor)?,
        patch: part(any_major || any_minor || any_patch, written.patch)?,
        pre_release: String::from(written.pre_release),
    };
    Some((
        Comparison {
            operator,
            version,
            any_major,
            any_minor,
            any_patch,
        },
        rest,
    ))
}

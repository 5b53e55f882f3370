//! Slash-separated paths as text, without looking at a file system.

/// The shortest equal path: no repeated slashes, no `.`, and `..` taken back where that is possible.
pub(crate) fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::from(".");
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => String::from("."),
        (false, false) => joined,
    }
}

/// Both parts joined and cleaned; an empty part is left out.
pub(crate) fn join(base: &str, path: &str) -> String {
    match (base.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(path),
        (false, true) => clean(base),
        (false, false) => clean(&format!("{base}/{path}")),
    }
}

/// The path seen from the base, unless it is absolute.
pub(crate) fn resolve(base: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path)
    } else {
        join(base, path)
    }
}

/// The last element; `.` for an empty path, `/` for one of slashes.
pub(crate) fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rfind('/').map_or(trimmed, |at| &trimmed[at + 1..])
}

/// Everything but the last element, cleaned.
pub(crate) fn parent(path: &str) -> String {
    match path.rfind('/') {
        Some(at) => clean(&path[..=at]),
        None => String::from("."),
    }
}

/// Whether a path is the other one or lies below it; both are clean.
pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    folder == "/" || path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a name matches a shell pattern of `*`, `?`, `[…]` and `\`; `None` for a malformed pattern.
pub(crate) fn glob_match(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    matches(&pattern, &name)
}

fn matches(pattern: &[char], name: &[char]) -> Option<bool> {
    let (mut at, mut position) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, position));
                at += 1;
                continue;
            }
            None if position == name.len() => return Some(true),
            None => None,
            Some(_) => single(&pattern[at..], name.get(position).copied())?,
        };
        match (step, &mut retry) {
            (Some(length), _) => {
                at += length;
                position += 1;
            }
            (None, Some((resume, start))) if *start < name.len() && name[*start] != '/' => {
                *start += 1;
                position = *start;
                at = *resume;
            }
            (None, _) => return Some(false),
        }
    }
}

/// How much of the pattern one character takes; `Some(None)` when it does not fit, `None` when it is malformed.
fn single(pattern: &[char], char: Option<char>) -> Option<Option<usize>> {
    match pattern[0] {
        '?' => Some(char.filter(|char| *char != '/').map(|_| 1)),
        '\\' => {
            let literal = pattern.get(1)?;
            Some((char == Some(*literal)).then_some(2))
        }
        '[' => {
            let mut at = 1;
            let negated = pattern.get(at) == Some(&'^');
            at += usize::from(negated);
            let mut found = false;
            let mut first = true;
            loop {
                match pattern.get(at)? {
                    ']' if !first => break,
                    _ => {}
                }
                first = false;
                let bound = |at: &mut usize| -> Option<char> {
                    let char = *pattern.get(*at)?;
                    *at += 1;
                    match char {
                        '-' | ']' => None,
                        '\\' => {
                            *at += 1;
                            pattern.get(*at - 1).copied()
                        }
                        char => Some(char),
                    }
                };
                let low = bound(&mut at)?;
                let high = if pattern.get(at) == Some(&'-') {
                    at += 1;
                    bound(&mut at)?
                } else {
                    low
                };
                found |= char.is_some_and(|char| low <= char && char <= high);
            }
            Some((char.is_some() && found != negated).then_some(at + 1))
        }
        literal => Some((char == Some(literal)).then_some(1)),
    }
}

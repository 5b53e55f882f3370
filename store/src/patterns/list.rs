//! Ordered pattern lists, as `.dockerignore` holds them.

use super::glob::{DoubleStar, Token, compile, matches};
use super::{Glob, PatternError, clean_path};

/// An ordered list of patterns, the last of which that has an opinion on a path wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternList {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// Cleaned, without the `!`.
    text: String,
    /// Whether it takes back what earlier patterns matched.
    exclusion: bool,
    matcher: Matcher,
    /// Path element by path element up to the first that holds `**`, for pruning.
    elements: Vec<Element>,
}

/// What one path element must be for a pattern to match something below it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    Glob(Glob),
    /// A piece that cannot be judged alone (a class or an escape that spans a slash).
    Unknown,
    /// `**`: from here on anything may match.
    Anything,
}

/// What can be said of all paths below a directory without looking at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// All of them match.
    Matched,
    /// None of them matches.
    Unmatched,
    /// They must be asked one by one.
    Mixed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    /// The pattern has no wildcard.
    Exact(String),
    /// A plain text and then `**`: any path that starts so.
    Prefix(String),
    /// `**` and then a plain text: any path that ends so; with a leading slash in the text also the text itself.
    Suffix(String),
    Tokens(Vec<Token>),
}

/// Which patterns of a list a directory (or a parent of it) matched; makes matching its children cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatch(Vec<bool>);

impl PatternList {
    /// Compiles a list. Blanks around a pattern do not count, empty patterns are dropped, the rest is cleaned.
    ///
    /// # Errors
    /// [`PatternError`] for the first pattern that cannot be read.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut list = Self::default();
        for pattern in patterns {
            let trimmed = pattern.as_ref().trim();
            if trimmed.is_empty() {
                continue;
            }
            // The text is cleaned with its `!`, as Docker does: `!/a` stays `!/a` and so matches nothing.
            let cleaned = clean_path(trimmed);
            let (exclusion, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclusion),
                Some(rest) => (true, rest.to_owned()),
                None => (false, cleaned),
            };
            Glob::new(&text)?;
            let matcher = Matcher::new(&text)?;
            let elements = text.split('/').map(Element::new).collect();
            list.patterns.push(Pattern {
                text,
                exclusion,
                matcher,
                elements,
            });
        }
        Ok(list)
    }

    /// Whether the list holds no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern takes back (`!`): only then can something below a matched directory be unmatched.
    pub fn has_exclusions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exclusion)
    }

    /// The cleaned patterns in order, `!` in front of those that take back.
    pub fn patterns(&self) -> impl Iterator<Item = String> + '_ {
        self.patterns.iter().map(|p| {
            if p.exclusion {
                format!("!{}", p.text)
            } else {
                p.text.clone()
            }
        })
    }

    /// Whether the path, or a parent of it, matches and is not taken back.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.exclusion == matched && pattern.matches_or_parent(path) {
                matched = !pattern.exclusion;
            }
        }
        matched
    }

    /// Which pattern decided what [`matches`](Self::matches) answers, counted from zero among the patterns that are not
    /// empty; `None` when no pattern has an opinion on the path.
    pub fn deciding(&self, path: impl AsRef<[u8]>) -> Option<usize> {
        let path = path.as_ref();
        let (mut matched, mut decided) = (false, None);
        for (index, pattern) in self.patterns.iter().enumerate() {
            if pattern.exclusion == matched && pattern.matches_or_parent(path) {
                matched = !pattern.exclusion;
                decided = Some(index);
            }
        }
        decided
    }

    /// Like [`matches`](Self::matches) for a walk: `parent` is what this returned for the directory that holds `path`
    /// (`None` for names at the top), and the second result serves the children of `path`.
    pub fn matches_below(&self, path: impl AsRef<[u8]>, parent: Option<&ParentMatch>) -> (bool, ParentMatch) {
        let path = path.as_ref();
        let mut matched = false;
        let mut here = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.is_some_and(|parent| parent.0.get(index).copied().unwrap_or(false));
            if !hit {
                if pattern.exclusion != matched {
                    continue;
                }
                hit = match parent {
                    Some(_) => pattern.matcher.matches(path),
                    None => pattern.matches_or_parent(path),
                };
            }
            here[index] = hit;
            if hit {
                matched = !pattern.exclusion;
            }
        }
        (matched, ParentMatch(here))
    }

    /// Whether a path below the directory `path` could be taken back by a `!` pattern, so that a matched directory
    /// must still be walked. Errs on the side of `true`.
    pub fn may_reinclude_below(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        self.patterns
            .iter()
            .any(|pattern| pattern.exclusion && pattern.may_match_below(path))
    }

    /// Whether a path below the directory `path` could match, so that a walk for matches must enter it. Errs on the
    /// side of `true`.
    pub fn may_match_below(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        self.patterns
            .iter()
            .any(|pattern| !pattern.exclusion && pattern.may_match_below(path))
    }

    /// What holds for everything below the directory `path`, for which [`matches_below`](Self::matches_below)
    /// returned `here`; the top of a walk is the empty path and `None`. Errs on the side of [`Below::Mixed`].
    pub fn below(&self, path: impl AsRef<[u8]>, here: Option<&ParentMatch>) -> Below {
        let path = path.as_ref();
        // Which verdicts are possible after the patterns so far.
        let (mut yes, mut no) = (false, true);
        for (index, pattern) in self.patterns.iter().enumerate() {
            if here.is_some_and(|here| here.0.get(index).copied().unwrap_or(false)) {
                (yes, no) = (!pattern.exclusion, pattern.exclusion);
            } else if pattern.may_match_strictly_below(path) {
                yes |= !pattern.exclusion;
                no |= pattern.exclusion;
            }
        }
        match (yes, no) {
            (true, true) => Below::Mixed,
            (true, false) => Below::Matched,
            (false, _) => Below::Unmatched,
        }
    }
}

impl Pattern {
    fn matches_or_parent(&self, path: &[u8]) -> bool {
        self.matcher.matches(path)
            || (0..path.len()).any(|slash| path[slash] == b'/' && self.matcher.matches(&path[..slash]))
    }

    fn may_match_below(&self, path: &[u8]) -> bool {
        self.matches_or_parent(path) || self.may_match_strictly_below(path)
    }

    /// Compares element by element until the pattern has a `**` or one side ends.
    fn may_match_strictly_below(&self, path: &[u8]) -> bool {
        let mut elements = self.elements.iter();
        if !path.is_empty() {
            for name in path.split(|&byte| byte == b'/') {
                match elements.next() {
                    Some(Element::Anything) => return true,
                    Some(Element::Glob(glob)) if !glob.matches(name) => return false,
                    Some(_) => {}
                    None => return false,
                }
            }
        }
        elements.next().is_some()
    }
}

impl Element {
    fn new(text: &str) -> Self {
        if text.contains("**") {
            Self::Anything
        } else {
            Glob::new(text).map_or(Self::Unknown, Self::Glob)
        }
    }
}

impl Matcher {
    fn new(text: &str) -> Result<Self, PatternError> {
        let plain = |part: &str| !super::has_glob_characters(part) && !part.contains(']');
        // Docker asks for the two simple shapes by text, and so a prefix needs no `/` before its stars: `a**`.
        if plain(text) {
            return Ok(Self::Exact(text.to_owned()));
        }
        if let Some(prefix) = text.strip_suffix("**").filter(|prefix| plain(prefix)) {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        if let Some(suffix) = text.strip_prefix("**").filter(|suffix| plain(suffix)) {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        Ok(Self::Tokens(compile(text, DoubleStar::Special)?))
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text.as_bytes(),
            Self::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes())
                    || suffix.strip_prefix('/').is_some_and(|name| path == name.as_bytes())
            }
            Self::Tokens(tokens) => matches(tokens, path),
        }
    }
}

/// Reads a `.dockerignore`: one pattern a line, `#` at the very start of a line makes a comment, blanks around a
/// pattern and a byte order mark at the start do not count, patterns are cleaned and lose one leading `/`.
pub fn parse_ignore_file(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut patterns = Vec::new();
    for line in text.split('\n') {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            patterns.push(mark.to_owned());
            continue;
        }
        let cleaned = clean_path(pattern);
        let relative = cleaned
            .strip_prefix('/')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&cleaned);
        patterns.push(format!("{mark}{relative}"));
    }
    patterns
}

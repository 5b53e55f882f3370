//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*`, `?`, and `\` before either or itself; no brackets.

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Star,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.peek() {
                    // `}` and `/` are escaped for the substitution's sake, not the pattern's.
                    Some('}' | '/') => continue,
                    Some(&escaped @ ('*' | '?' | '\\')) => {
                        chars.next();
                        Token::Char(escaped)
                    }
                    other => {
                        let shown = other.map(char::to_string).unwrap_or_default();
                        return Err(format!(
                            "invalid pattern ({text}) in substitution: invalid escape '\\{shown}'"
                        ));
                    }
                },
                other => Token::Char(other),
            });
        }
        Ok(Self { tokens })
    }

    /// Where the shortest match from the start ends.
    pub(super) fn shortest_prefix(&self, text: &str) -> Option<usize> {
        self.ends(text).next()
    }

    /// Where the longest match from the start ends.
    pub(super) fn longest_prefix(&self, text: &str) -> Option<usize> {
        self.ends(text).last()
    }

    /// Where the shortest match up to the end starts.
    pub(super) fn shortest_suffix(&self, text: &str) -> Option<usize> {
        self.starts(text).next()
    }

    /// Where the longest match up to the end starts.
    pub(super) fn longest_suffix(&self, text: &str) -> Option<usize> {
        self.starts(text).last()
    }

    /// Replaces the first, longest match.
    pub(super) fn replace_first(&self, text: &str, with: &str) -> String {
        match self.find(text, 0) {
            Some((start, end)) => format!("{}{with}{}", &text[..start], &text[end..]),
            None => text.to_owned(),
        }
    }

    /// Replaces every match; an empty match right behind another one does not count.
    pub(super) fn replace_all(&self, text: &str, with: &str) -> String {
        let mut result = String::new();
        let mut copied = 0;
        let mut from = 0;
        let mut last_end = None;
        while let Some((start, end)) = self.find(text, from) {
            if start != end || last_end != Some(start) {
                result.push_str(&text[copied..start]);
                result.push_str(with);
                copied = end;
                last_end = Some(end);
            }
            // Behind an empty match the search goes on one character further.
            from = match text[end..].chars().next() {
                Some(c) if start == end => end + c.len_utf8(),
                None => break,
                Some(_) => end,
            };
        }
        result.push_str(&text[copied..]);
        result
    }

    fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let starts = text[from..].char_indices().map(|(at, _)| from + at).chain([text.len()]);
        starts.into_iter().find_map(|start| {
            self.longest_prefix(&text[start..])
                .map(|length| (start, start + length))
        })
    }

    /// Ends of all matches from the start of the text, nearest first.
    fn ends<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let mut states = States::new(&self.tokens);
        let behind = text.char_indices().map(|(at, c)| (at + c.len_utf8(), Some(c)));
        std::iter::once((0, None))
            .chain(behind)
            .map_while(move |(at, c)| Some((at, states.step(c)?)))
            .filter_map(ending)
    }

    /// Starts of all matches up to the end of the text, nearest to the end first.
    fn starts<'a>(&self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let reversed: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let mut states = States::new(&reversed);
        let before = text.char_indices().rev().map(|(at, c)| (at, Some(c)));
        std::iter::once((text.len(), None))
            .chain(before)
            .map_while(move |(at, c)| Some((at, states.step(c)?)))
            .filter_map(ending)
    }
}

fn ending((at, can_end): (usize, bool)) -> Option<usize> {
    can_end.then_some(at)
}

/// The set of positions a match could be at; a step costs the pattern's length, whatever the stars.
struct States {
    tokens: Vec<Token>,
    active: Vec<bool>,
}

impl States {
    fn new(tokens: &[Token]) -> Self {
        let mut active = vec![false; tokens.len() + 1];
        active[0] = true;
        Self {
            tokens: tokens.to_vec(),
            active,
        }
    }

    /// Consumes a character (none at the start) and says whether the pattern could end here, or nothing when it can
    /// neither end nor go on.
    fn step(&mut self, c: Option<char>) -> Option<bool> {
        if let Some(c) = c {
            let mut next = vec![false; self.active.len()];
            for (at, token) in self.tokens.iter().enumerate().filter(|&(at, _)| self.active[at]) {
                match token {
                    Token::Char(wanted) if *wanted == c => next[at + 1] = true,
                    Token::Any if c != '\n' => next[at + 1] = true,
                    Token::Star if c != '\n' => next[at] = true,
                    _ => {}
                }
            }
            self.active = next;
        }
        for (at, token) in self.tokens.iter().enumerate() {
            if self.active[at] && *token == Token::Star {
                self.active[at + 1] = true;
            }
        }
        self.active.contains(&true).then(|| self.active.last() == Some(&true))
    }
}

//! Include and exclude lists together, asked on the way down a tree.

use super::{Below, ParentMatch, PatternError, PatternList};

/// Which paths of a tree count: those that an include pattern matches (all, without any) and no exclude pattern does.
/// Directories on the way to what counts are kept too, but do not count themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathFilter {
    include: Option<PatternList>,
    exclude: Option<PatternList>,
}

/// What the lists said about a directory; the default is for the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterState {
    include: Option<ParentMatch>,
    exclude: Option<ParentMatch>,
}

/// What the lists say about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path itself counts.
    pub selected: bool,
    /// What counts below it, were it a directory.
    pub below: Below,
    /// For asking about its children.
    pub state: FilterState,
}

impl PathFilter {
    /// Compiles the lists; an empty include list includes everything.
    ///
    /// # Errors
    /// [`PatternError`] for the first pattern that cannot be read.
    pub fn new<S: AsRef<str>, T: AsRef<str>>(include: &[S], exclude: &[T]) -> Result<Self, PatternError> {
        Ok(Self {
            include: match include {
                [] => None,
                some => Some(PatternList::new(some)?),
            },
            exclude: match exclude {
                [] => None,
                some => Some(PatternList::new(some)?),
            },
        })
    }

    /// What counts at the top: [`Below::Matched`] when the lists say nothing.
    pub fn top(&self) -> Below {
        self.below(b"", &FilterState::default())
    }

    /// Judges a path; `parent` is the state of the directory that holds it.
    pub fn judge(&self, path: &[u8], parent: &FilterState) -> Verdict {
        let mut state = FilterState::default();
        let mut selected = true;
        if let Some(list) = &self.include {
            let (matched, here) = list.matches_below(path, parent.include.as_ref());
            selected = matched;
            state.include = Some(here);
        }
        let mut excluded = false;
        if let Some(list) = &self.exclude {
            let (matched, here) = list.matches_below(path, parent.exclude.as_ref());
            excluded = matched;
            state.exclude = Some(here);
        }
        Verdict {
            selected: selected && !excluded,
            below: self.below(path, &state),
            state,
        }
    }

    fn below(&self, path: &[u8], state: &FilterState) -> Below {
        let included = self
            .include
            .as_ref()
            .map_or(Below::Matched, |list| list.below(path, state.include.as_ref()));
        let excluded = self
            .exclude
            .as_ref()
            .map_or(Below::Unmatched, |list| list.below(path, state.exclude.as_ref()));
        match (included, excluded) {
            (Below::Matched, Below::Unmatched) => Below::Matched,
            (Below::Unmatched, _) | (_, Below::Matched) => Below::Unmatched,
            _ => Below::Mixed,
        }
    }
}

//! The names an expression sees: those bound around it, innermost first, then the globals.

use std::rc::Rc;

use crate::bake::value::Value;

/// Names bound by a `for`, a function call or a matrix, and the element a splat is at.
#[derive(Debug, Default)]
pub(crate) struct Scope<'p> {
    names: Vec<(Rc<str>, Value)>,
    splat_item: Option<Value>,
    parent: Option<&'p Scope<'p>>,
}

impl<'p> Scope<'p> {
    /// Sees the globals only.
    pub(crate) fn root() -> Scope<'static> {
        Scope::default()
    }

    /// Sees these names and the globals.
    pub(crate) fn with(names: Vec<(Rc<str>, Value)>) -> Scope<'static> {
        Scope {
            names,
            splat_item: None,
            parent: None,
        }
    }

    /// Sees these names before those of this scope.
    pub(crate) fn child(&'p self, names: Vec<(Rc<str>, Value)>) -> Scope<'p> {
        Scope {
            names,
            splat_item: None,
            parent: Some(self),
        }
    }

    pub(crate) fn child_splat(&'p self, item: Value) -> Scope<'p> {
        Scope {
            names: Vec::new(),
            splat_item: Some(item),
            parent: Some(self),
        }
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            if let Some((_, value)) = current.names.iter().rev().find(|(bound, _)| &**bound == name) {
                return Some(value.clone());
            }
            scope = current.parent;
        }
        None
    }

    pub(crate) fn splat_item(&self) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            if let Some(item) = &current.splat_item {
                return Some(item.clone());
            }
            scope = current.parent;
        }
        None
    }

    /// All bound names, for messages.
    pub(crate) fn names(&self) -> Vec<Rc<str>> {
        let mut names = Vec::new();
        let mut scope = Some(self);
        while let Some(current) = scope {
            names.extend(current.names.iter().map(|(name, _)| name.clone()));
            scope = current.parent;
        }
        names
    }
}

/// The candidate that is at most two edits away from a name, if there is one.
pub(crate) fn similar<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let wanted: Vec<char> = name.chars().collect();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= 8)
        .map(|candidate| (distance(&wanted, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= 2 && *edits < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

fn distance(left: &[char], right: &str) -> usize {
    let mut previous: Vec<usize> = (0..=left.len()).collect();
    for (row, char) in right.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in left.iter().enumerate() {
            let replaced = previous[column] + usize::from(*other != char);
            current.push(replaced.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[left.len()]
}

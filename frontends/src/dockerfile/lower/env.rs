//! The environment of a stage: ARG and ENV share it, and the later one wins.

use std::collections::HashMap;

use super::super::shell::Variables;

/// Variables in the order in which they were last set.
#[derive(Clone, Debug, Default)]
pub(super) struct Env {
    /// `None` where a variable was, before it was set again or removed.
    entries: Vec<Option<(String, String)>>,
    index: HashMap<String, usize>,
}

impl Env {
    /// Sets a variable, which makes it the last one.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.index.insert(name.to_owned(), self.entries.len());
        self.entries.push(Some((name.to_owned(), value.to_owned())));
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(at) = self.index.remove(name) {
            self.entries[at] = None;
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.iter().flatten().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` of each.
    pub(super) fn to_vec(&self) -> Vec<String> {
        self.entries
            .iter()
            .flatten()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.entries[*self.index.get(name)?].as_ref()?;
        Some(value)
    }
}

/// Splits `NAME=value`; without `=` the value is empty.
pub(super) fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_set_is_last() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        assert_eq!(env.to_vec(), ["B=2", "A=3"]);
        env.remove("B");
        assert_eq!((env.get("A"), env.get("B")), (Some("3"), None));
        assert_eq!(split_pair("X"), ("X", ""));
    }
}

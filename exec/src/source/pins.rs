//! What mutable sources are held to, and what they turned out to be.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::SourceError;

/// The pins of one command. A source is named as definitions name it (`docker-image://docker.io/library/alpine:3`,
/// `https://…`, `git://host/path#main`), its content by a digest or commit. Sources that name their content themselves
/// need no pin.
#[derive(Debug, Default)]
pub struct Pins {
    held: BTreeMap<String, String>,
    others: Others,
    seen: Mutex<BTreeMap<String, String>>,
}

/// What becomes of sources without a pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Others {
    /// They are what they are today.
    #[default]
    Free,
    /// They are errors.
    Refused,
}

impl Pins {
    /// Holds every mutable source to one of these; a source without a pin is an error.
    pub fn locked(pins: BTreeMap<String, String>) -> Self {
        Self {
            held: pins,
            others: Others::Refused,
            seen: Mutex::default(),
        }
    }

    /// Holds sources to these, and leaves others free.
    pub fn preferring(pins: BTreeMap<String, String>) -> Self {
        Self {
            others: Others::Free,
            ..Self::locked(pins)
        }
    }

    /// What a source is held to; `None` when it is free.
    ///
    /// # Errors
    /// [`SourceError::NotLocked`] when all sources are held, and this one has no pin.
    pub fn held(&self, source: &str) -> Result<Option<String>, SourceError> {
        match (self.held.get(source), self.others) {
            (Some(pin), _) => Ok(Some(pin.clone())),
            (None, Others::Free) => Ok(None),
            (None, Others::Refused) => Err(SourceError::NotLocked(source.to_owned())),
        }
    }

    /// What a source is held to, or turned out to be.
    pub fn known(&self, source: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.held.get(source).or_else(|| seen.get(source)).cloned()
    }

    /// Remembers what a source turned out to be.
    pub fn note(&self, source: &str, content: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(source.to_owned(), content);
    }

    /// All that was remembered.
    pub fn seen(&self) -> BTreeMap<String, String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_sources_are_noted_and_held_ones_must_be_known() {
        let free = Pins::default();
        assert_eq!(free.held("https://example.invalid/x").expect("free"), None);
        free.note("https://example.invalid/x", "sha256:1".to_owned());
        let locked = Pins::locked(free.seen());
        let held = locked.held("https://example.invalid/x").expect("held");
        assert_eq!(held.as_deref(), Some("sha256:1"));
        let message = locked
            .held("https://example.invalid/y")
            .expect_err("unknown")
            .to_string();
        assert!(message.contains("https://example.invalid/y"), "{message}");
        let preferring = Pins::preferring(free.seen());
        assert_eq!(
            preferring.known("https://example.invalid/x").as_deref(),
            Some("sha256:1")
        );
        assert_eq!(preferring.held("https://example.invalid/y").expect("free"), None);
    }
}

//! What mutable sources are held to, and what they turned out to be.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::SourceError;

/// The pins of one command. A source is named as definitions name it (`docker-image://docker.io/library/alpine:3`,
/// `https://…`, `git://host/path#main`), its content by a digest or commit. Sources that name their content themselves
/// need no pin.
#[derive(Debug, Default)]
pub struct Pins {
    /// `None`: sources are what they are today.
    held: Option<BTreeMap<String, String>>,
    seen: Mutex<BTreeMap<String, String>>,
}

impl Pins {
    /// Holds every mutable source to one of these; a source without a pin is an error.
    pub fn locked(pins: BTreeMap<String, String>) -> Self {
        Self {
            held: Some(pins),
            seen: Mutex::default(),
        }
    }

    /// What a source is held to; `None` when it is free.
    ///
    /// # Errors
    /// [`SourceError::NotLocked`] when all sources are held, and this one has no pin.
    pub fn held(&self, source: &str) -> Result<Option<String>, SourceError> {
        let Some(held) = &self.held else { return Ok(None) };
        let pin = held
            .get(source)
            .ok_or_else(|| SourceError::NotLocked(source.to_owned()))?;
        Ok(Some(pin.clone()))
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
    }
}

//! The parts of a cache key, in the very encoding that is hashed, so that two keys can be compared part by part.
//!
//! ```text
//! encoding = version byte, parts, notes;   parts = varint count { bytes name, value }*
//! key      = BLAKE3(domain, parts)         notes explain and are not hashed
//! ```

use std::collections::HashMap;
use std::fmt;

use cbs_store::{CacheKey, KeyHasher, hex};

/// Version byte of the encoding; old realisations keep their bytes, so older versions stay readable or are refused.
const FORMAT: u8 = 1;

/// Longer values stand in a key by their digest.
const INLINE: usize = 4096;

/// What one part of a key holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum PartValue {
    /// Text, such as an argument; not necessarily UTF-8.
    Text(Vec<u8>),
    /// A number or flag.
    Number(u64),
    /// The digest of something large or far away.
    Digest([u8; 32]),
}

impl fmt::Display for PartValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", String::from_utf8_lossy(text)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Digest(digest) => f.write_str(&hex(digest)),
        }
    }
}

impl fmt::Debug for PartValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{:?}", String::from_utf8_lossy(text)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Digest(digest) => f.write_str(&hex(&digest[..6])),
        }
    }
}

/// A named part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// What it is: `argument 2`, `environment PATH`, `content of input 1`.
    pub name: String,
    /// Its value.
    pub value: PartValue,
}

/// All parts of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyParts {
    parts: Vec<Part>,
    notes: Vec<Part>,
}

/// Bytes that are no [`KeyParts`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// Written by another version of the program.
    #[error("key parts have format {0}, this program reads {FORMAT}")]
    Version(u8),
    /// Damaged.
    #[error("damaged key parts: {0}")]
    Damaged(&'static str),
}

impl KeyParts {
    /// What the key is made of.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What explains the key without being in it, such as the digest of an input's whole tree.
    pub fn notes(&self) -> &[Part] {
        &self.notes
    }

    /// The value of a note.
    pub fn note_digest(&self, name: &str) -> Option<[u8; 32]> {
        self.notes
            .iter()
            .find(|note| note.name == name)
            .and_then(|note| match note.value {
                PartValue::Digest(digest) => Some(digest),
                _ => None,
            })
    }

    pub(crate) fn text(&mut self, name: impl Into<String>, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let value = if text.len() <= INLINE {
            PartValue::Text(text.to_vec())
        } else {
            let mut hasher = KeyHasher::new("cbs.solver.text.v1");
            PartValue::Digest(hasher.field(text).finish())
        };
        self.push(name.into(), value);
    }

    /// Adds a text unless it is empty, the usual "not given" of protobuf.
    pub(crate) fn text_if(&mut self, name: impl Into<String>, text: impl AsRef<[u8]>) {
        if !text.as_ref().is_empty() {
            self.text(name, text);
        }
    }

    pub(crate) fn number(&mut self, name: impl Into<String>, number: u64) {
        self.push(name.into(), PartValue::Number(number));
    }

    /// Adds a number unless it is zero.
    pub(crate) fn number_if(&mut self, name: impl Into<String>, number: u64) {
        if number != 0 {
            self.number(name, number);
        }
    }

    pub(crate) fn digest(&mut self, name: impl Into<String>, digest: [u8; 32]) {
        self.push(name.into(), PartValue::Digest(digest));
    }

    /// Adds a note; one that is there already is not added again.
    pub(crate) fn note(&mut self, name: impl Into<String>, digest: [u8; 32]) {
        self.add_note(name.into(), PartValue::Digest(digest));
    }

    /// Adds a note that is text.
    pub(crate) fn note_text(&mut self, name: impl Into<String>, text: impl AsRef<[u8]>) {
        self.add_note(name.into(), PartValue::Text(text.as_ref().to_vec()));
    }

    fn add_note(&mut self, name: String, value: PartValue) {
        let note = Part { name, value };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn push(&mut self, name: String, value: PartValue) {
        self.parts.push(Part { name, value });
    }

    /// The key these parts make in a domain, a versioned constant such as `cbs.content-key.v1`.
    pub(crate) fn key(&self, domain: &'static str) -> CacheKey {
        let mut encoded = Vec::new();
        put_parts(&mut encoded, &self.parts);
        let mut hasher = KeyHasher::new(domain);
        CacheKey::from_bytes(hasher.field(&encoded).finish())
    }

    /// Encodes parts and notes; [`KeyParts::decode`] is the inverse.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = vec![FORMAT];
        put_parts(&mut encoded, &self.parts);
        put_parts(&mut encoded, &self.notes);
        encoded
    }

    /// Decodes what [`KeyParts::encode`] wrote.
    ///
    /// # Errors
    /// [`PartsError`] when the bytes are damaged or of another version.
    pub fn decode(encoded: &[u8]) -> Result<Self, PartsError> {
        let (&version, rest) = encoded.split_first().ok_or(PartsError::Damaged("they are empty"))?;
        if version != FORMAT {
            return Err(PartsError::Version(version));
        }
        let mut input = Input(rest);
        let (parts, notes) = (input.parts()?, input.parts()?);
        if !input.0.is_empty() {
            return Err(PartsError::Damaged("bytes after the end"));
        }
        Ok(Self { parts, notes })
    }
}

/// A part that two keys do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub name: String,
    /// Its value in the earlier key, if it has it.
    pub before: Option<PartValue>,
    /// Its value in the later key, if it has it.
    pub after: Option<PartValue>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{}: `{before}` became `{after}`", self.name),
            (None, Some(after)) => write!(f, "{}: `{after}` is new", self.name),
            (Some(before), None) => write!(f, "{}: `{before}` is gone", self.name),
            (None, None) => f.write_str(&self.name),
        }
    }
}

/// Compares two keys part by part, in the order of the later one and then what only the earlier one has.
pub fn differences(before: &KeyParts, after: &KeyParts) -> Vec<Difference> {
    let mut earlier: HashMap<&str, std::collections::VecDeque<&PartValue>> = HashMap::new();
    for part in &before.parts {
        earlier.entry(&part.name).or_default().push_back(&part.value);
    }
    let mut found = Vec::new();
    for part in &after.parts {
        let old = earlier
            .get_mut(part.name.as_str())
            .and_then(std::collections::VecDeque::pop_front);
        if old != Some(&part.value) {
            found.push(Difference {
                name: part.name.clone(),
                before: old.cloned(),
                after: Some(part.value.clone()),
            });
        }
    }
    for part in &before.parts {
        let left = earlier
            .get_mut(part.name.as_str())
            .and_then(std::collections::VecDeque::pop_front);
        if let Some(value) = left {
            found.push(Difference {
                name: part.name.clone(),
                before: Some(value.clone()),
                after: None,
            });
        }
    }
    found
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_parts(out: &mut Vec<u8>, parts: &[Part]) {
    put_varint(out, parts.len() as u64);
    for part in parts {
        put_bytes(out, part.name.as_bytes());
        match &part.value {
            PartValue::Text(text) => {
                out.push(0);
                put_bytes(out, text);
            }
            PartValue::Number(number) => {
                out.push(1);
                put_varint(out, *number);
            }
            PartValue::Digest(digest) => {
                out.push(2);
                out.extend_from_slice(digest);
            }
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PartsError> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(PartsError::Damaged("they end early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, PartsError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(PartsError::Damaged("a number is too long"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], PartsError> {
        let length = usize::try_from(self.varint()?).map_err(|_| PartsError::Damaged("a length is too large"))?;
        self.take(length)
    }

    fn parts(&mut self) -> Result<Vec<Part>, PartsError> {
        let mut parts = Vec::new();
        for _ in 0..self.varint()? {
            let name =
                String::from_utf8(self.bytes()?.to_vec()).map_err(|_| PartsError::Damaged("a name is no text"))?;
            let value = match self.take(1)?[0] {
                0 => PartValue::Text(self.bytes()?.to_vec()),
                1 => PartValue::Number(self.varint()?),
                2 => PartValue::Digest(self.take(32)?.try_into().map_err(|_| PartsError::Damaged("a digest"))?),
                _ => return Err(PartsError::Damaged("a value is of unknown kind")),
            };
            parts.push(Part { name, value });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Part> {
        let value = prop_oneof![
            vec(any::<u8>(), 0..8).prop_map(PartValue::Text),
            any::<u64>().prop_map(PartValue::Number),
            any::<[u8; 32]>().prop_map(PartValue::Digest),
        ];
        ("[ab]{0,2}", value).prop_map(|(name, value)| Part { name, value })
    }

    fn parts() -> impl Strategy<Value = KeyParts> {
        (vec(part(), 0..6), vec(part(), 0..3)).prop_map(|(parts, notes)| KeyParts { parts, notes })
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(parts in parts()) {
            prop_assert_eq!(KeyParts::decode(&parts.encode()), Ok(parts));
        }

        #[test]
        fn decode_never_panics(bytes in vec(any::<u8>(), 0..64)) {
            drop(KeyParts::decode(&bytes));
        }

        #[test]
        fn keys_differ_exactly_when_parts_do(one in parts(), other in parts()) {
            let key = |parts: &KeyParts| parts.key("cbs.test.v1");
            prop_assert_eq!(key(&one) == key(&other), one.parts == other.parts);
            prop_assert!(differences(&one, &one).is_empty());
            if !differences(&one, &other).is_empty() {
                prop_assert_ne!(key(&one), key(&other));
            }
        }
    }

    #[test]
    fn differences_name_the_part() {
        let make = |texts: &[(&str, &str)]| {
            let mut parts = KeyParts::default();
            for (name, text) in texts {
                parts.text(*name, text);
            }
            parts
        };
        let before = make(&[("argument 0", "make"), ("environment A", "1"), ("environment B", "2")]);
        let after = make(&[("argument 0", "make"), ("environment A", "3"), ("user", "app")]);
        let texts: Vec<String> = differences(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "environment A: `1` became `3`",
                "user: `app` is new",
                "environment B: `2` is gone"
            ]
        );
    }
}

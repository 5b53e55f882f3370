//! Encoding of the records that the index keeps as bytes: realisations and gc roots.
//!
//! A version byte, then fields in order: numbers as eight little-endian bytes, byte strings with their length first, lists
//! with their length first, options as a list of none or one.

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub(super) &'static str);

#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(super) fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for each in items {
            item(self, each);
        }
    }

    pub(super) fn option<T>(&mut self, value: Option<&T>, item: impl FnMut(&mut Self, &T)) {
        self.list(value.map_or(&[], std::slice::from_ref), item);
    }

    pub(super) fn raw(&mut self, bytes: &[u8; 32]) {
        self.0.extend_from_slice(bytes);
    }
}

#[derive(Debug)]
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], version: u8) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&found, rest)) if found == version => Ok(Self(rest)),
            _ => Err(RecordError("unknown record version")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(RecordError("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn raw(&mut self) -> Result<[u8; 32], RecordError> {
        let mut array = [0; 32];
        array.copy_from_slice(self.take(32)?);
        Ok(array)
    }

    pub(super) fn number(&mut self) -> Result<u64, RecordError> {
        let mut array = [0; 8];
        array.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(array))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = usize::try_from(self.number()?).map_err(|_| RecordError("length too large"))?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, RecordError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| RecordError("text that is no UTF-8"))
    }

    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Vec<T>, RecordError> {
        let count = self.number()?;
        // No item is shorter than a number, so a damaged count reserves nothing.
        if count > self.0.len() as u64 / 8 {
            return Err(RecordError("list too long"));
        }
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn option<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        let mut items = self.list(item)?;
        match items.len() {
            0 | 1 => Ok(items.pop()),
            _ => Err(RecordError("option with two values")),
        }
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecordError("bytes after the last field"))
        }
    }
}

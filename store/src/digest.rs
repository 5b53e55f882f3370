//! Identifiers of content: BLAKE3 digests, one type for each kind of thing so that none can stand in for another.

use std::fmt;
use std::str::FromStr;

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest of 64 lower-case hex digits")]
pub struct ParseDigestError(pub String);

/// Encodes bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Decodes 64 lower-case hex digits.
///
/// # Errors
/// [`ParseDigestError`] when the length or a digit is wrong.
pub fn unhex32(text: &str) -> Result<[u8; 32], ParseDigestError> {
    let fail = || ParseDigestError(text.to_owned());
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(fail());
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(fail()),
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(bytes)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the 32 bytes of a digest computed elsewhere.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The raw digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &hex(&self.0[..6]))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                unhex32(text).map(Self)
            }
        }
    };
}

id_type! {
    /// BLAKE3-256 of a file's bytes.
    BlobDigest
}
id_type! {
    /// BLAKE3-256 of an encoded [`Directory`](crate::Directory): everything below it, times included.
    TreeDigest
}
id_type! {
    /// BLAKE3-256 of a directory without modification times and link groups (BuildKit's content checksum rule):
    /// what cache keys are made of.
    ContentDigest
}
id_type! {
    /// What finds an old result: the hash of an operation and of all it can see.
    CacheKey
}
id_type! {
    /// SHA-256 of bytes as OCI names them; written `sha256:<hex>` in manifests, bare hex here.
    Sha256Digest
}

impl BlobDigest {
    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl Sha256Digest {
    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The OCI spelling, `sha256:<hex>`.
    pub fn oci(&self) -> String {
        format!("sha256:{self}")
    }

    /// Parses the OCI spelling.
    ///
    /// # Errors
    /// [`ParseDigestError`] when it is not `sha256:` and 64 lower-case hex digits.
    pub fn parse_oci(text: &str) -> Result<Self, ParseDigestError> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(|| ParseDigestError(text.to_owned()))?;
        unhex32(hex).map(Self)
    }
}

/// Builds keys and digests field by field, lengths first, so that no two field lists encode alike.
pub struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// Starts a hash in its own domain; `domain` is a versioned constant such as `cbs.dir.v1`.
    pub fn new(domain: &'static str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    /// Adds one field, its length first.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    /// Ends the hash.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_and_parse_are_inverse() {
        let digest = BlobDigest::of(b"hello");
        assert_eq!(digest.to_string().parse::<BlobDigest>(), Ok(digest));
        for bad in ["", "zz", &"g".repeat(64), &"A".repeat(64), &"a".repeat(63)] {
            assert!(bad.parse::<BlobDigest>().is_err(), "parsing {bad:?}");
        }
        let sha = Sha256Digest::of(b"");
        assert_eq!(Sha256Digest::parse_oci(&sha.oci()), Ok(sha));
    }

    #[test]
    fn field_boundaries_count() {
        let key = |fields: &[&[u8]]| {
            let mut hasher = KeyHasher::new("cbs.test.v1");
            for field in fields {
                hasher.field(field);
            }
            hasher.finish()
        };
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}

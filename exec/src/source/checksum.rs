//! What a download must hash to, by any of the algorithms that image references know.

use std::fmt;
use std::io;
use std::str::FromStr;

use cbs_store::{Blob, Sha256Digest};
use sha2::{Sha384, Sha512};

/// How much of a blob is hashed at once.
const PIECE: usize = 128 << 10;

/// A digest with its algorithm, `sha256:…`, `sha384:…` or `sha512:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// The one that every download has.
    Sha256(Sha256Digest),
    /// Its hexadecimal digits.
    Sha384(String),
    /// Its hexadecimal digits.
    Sha512(String),
}

impl Checksum {
    /// The same kind of checksum of some bytes, of which the sha256 is known.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub(crate) fn of(&self, sha256: &str, blob: &Blob) -> io::Result<String> {
        match self {
            Self::Sha256(_) => Ok(format!("sha256:{sha256}")),
            Self::Sha384(_) => Ok(format!("sha384:{}", hex::<Sha384>(blob)?)),
            Self::Sha512(_) => Ok(format!("sha512:{}", hex::<Sha512>(blob)?)),
        }
    }
}

fn hex<H: sha2::Digest>(blob: &Blob) -> io::Result<String> {
    let (mut hash, mut buffer, mut offset) = (H::new(), vec![0; PIECE], 0);
    loop {
        let count = blob.read_at(&mut buffer, offset)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => f.write_str(&digest.oci()),
            Self::Sha384(hex) => write!(f, "sha384:{hex}"),
            Self::Sha512(hex) => write!(f, "sha512:{hex}"),
        }
    }
}

/// The text names no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a checksum is sha256:, sha384: or sha512: and its hexadecimal digits")]
pub(crate) struct NoChecksum;

impl FromStr for Checksum {
    type Err = NoChecksum;

    fn from_str(text: &str) -> Result<Self, NoChecksum> {
        let (algorithm, hex) = text.split_once(':').ok_or(NoChecksum)?;
        let is_hex =
            |length: usize| hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match algorithm {
            "sha256" => Sha256Digest::parse_oci(text).map(Self::Sha256).map_err(|_| NoChecksum),
            "sha384" if is_hex(96) => Ok(Self::Sha384(hex.to_owned())),
            "sha512" if is_hex(128) => Ok(Self::Sha512(hex.to_owned())),
            _ => Err(NoChecksum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums_of_abc() {
        let blob = Blob::Small(std::sync::Arc::from(&b"abc"[..]));
        let sha384 = "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                      8086072ba1e7cc2358baeca134c825a7";
        let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for text in [sha384, sha512] {
            let sum: Checksum = text.parse().expect("a checksum");
            assert_eq!(sum.to_string(), text);
            assert_eq!(sum.of("", &blob).expect("read"), text);
        }
        for wrong in [
            "",
            "sha256",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha512:00",
            &sha384.to_uppercase(),
        ] {
            assert_eq!(wrong.parse::<Checksum>(), Err(NoChecksum), "{wrong}");
        }
    }
}

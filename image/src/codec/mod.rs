//! Layer compression: bytes that depend on the input and the settings only, on any number of threads.
//!
//! ```text
//! tar bytes ──► Encoder: cut into blocks ──► Pool: one job per block ──► in order ──► inner writer
//! ```
//! Each block is a gzip member or a zstd frame of its own, which both formats allow to follow one another (as estargz
//! does). Where a block ends depends on the input alone. Memory is bounded: an encoder waits for its oldest block once
//! [`Pool::threads`] plus two are under way, or twice that of all encoders of the pool; the memory of finished blocks is
//! used again. Input and output of a finished block are hashed together. gzip is libdeflate's: at equal ratio 1.6 times as fast as zlib-rs and five
//! times as fast as gzip. A damaged or truncated stream is an error at the latest at the end of its block.

mod block;
mod decode;
mod encode;
mod pool;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use decode::Decoder;
pub use encode::{Encoded, Encoder};
pub use pool::Pool;

/// How a layer's tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// A word that names no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported compression `{0}`: use `uncompressed`, `gzip` or `zstd`")]
pub struct ParseCompressionError(pub String);

impl Compression {
    /// The level used when none is asked for. For gzip that is libdeflate's 4, which gives what zlib's 6 gives.
    pub const fn default_level(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Gzip => 4,
            Self::Zstd => 3,
        }
    }

    /// A level forced into the range the format has: 0 to 9 for gzip (negative means the default), 1 to 22 for zstd.
    pub fn clamp_level(self, level: i32) -> i32 {
        match self {
            Self::None => 0,
            Self::Gzip if level < 0 => self.default_level(),
            Self::Gzip => level.min(9),
            Self::Zstd if level <= 0 => self.default_level(),
            Self::Zstd => level.min(22),
        }
    }

    /// Recognises a stream by its first bytes; what is not known counts as uncompressed.
    pub fn detect(head: &[u8]) -> Self {
        if head.starts_with(&[0x1f, 0x8b, 8]) {
            Self::Gzip
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(head) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// zstd:chunked layers may start with a skippable frame, `0x184D2A50` to `0x184D2A5F` little-endian.
fn is_skippable_frame(head: &[u8]) -> bool {
    head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18]
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "uncompressed" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ParseCompressionError(text.to_owned())),
        }
    }
}

//! Chance that a seed repeats, as far as the machine does.

use std::time::Duration;

/// A stream of numbers (xorshift).
pub(crate) struct Chance(u64);

impl Chance {
    /// Differs with both.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let start = name
            .bytes()
            .fold(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(start | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end.max(1)
    }

    /// An instant within a time.
    pub(crate) fn instant(&mut self, within: Duration) -> Duration {
        Duration::from_micros(self.below(within.as_micros() as u64))
    }
}

//! SHA-256 of two streams at once.
//!
//! The instructions for it wait for each other within one stream, so a processor that has nothing else to do finishes two
//! streams in the time of one. A layer has two: its tar and its blob.

use cbs_store::Sha256Digest;
use sha2::block_api::compress256;

use super::sys;

/// Bytes that the hash takes in at once.
const BLOCK: usize = 64;
/// The state before the first block (FIPS 180-4, 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Hashes and counts the bytes of two streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairHasher {
    first: Stream,
    second: Stream,
}

#[derive(Clone, Debug)]
struct Stream {
    state: [u32; 8],
    /// The start of a block.
    rest: [u8; BLOCK],
    size: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            state: START,
            rest: [0; BLOCK],
            size: 0,
        }
    }
}

impl PairHasher {
    /// Takes the next bytes of each stream; fastest when both are long.
    pub(crate) fn update(&mut self, first: &[u8], second: &[u8]) {
        let (first, second) = (self.first.blocks_of(first), self.second.blocks_of(second));
        let both = first.len().min(second.len());
        let (first_both, first_more) = first.split_at(both);
        let (second_both, second_more) = second.split_at(both);
        sys::compress_two(
            (&mut self.first.state, first_both),
            (&mut self.second.state, second_both),
        );
        compress256(&mut self.first.state, first_more);
        compress256(&mut self.second.state, second_more);
    }

    /// The digests and the numbers of bytes.
    pub(crate) fn finish(self) -> [(Sha256Digest, u64); 2] {
        [self.first.finish(), self.second.finish()]
    }
}

impl Stream {
    /// Takes bytes in but for the whole blocks among them, which it returns.
    fn blocks_of<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [[u8; BLOCK]] {
        let held = self.held();
        self.size += bytes.len() as u64;
        if held > 0 {
            let taken = bytes.len().min(BLOCK - held);
            self.rest[held..held + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if held + taken < BLOCK {
                return &[];
            }
            compress256(&mut self.state, &[self.rest]);
        }
        let (blocks, rest) = bytes.as_chunks();
        self.rest[..rest.len()].copy_from_slice(rest);
        blocks
    }

    /// How many bytes of `rest` are not hashed yet.
    fn held(&self) -> usize {
        (self.size % BLOCK as u64) as usize
    }

    fn finish(mut self) -> (Sha256Digest, u64) {
        // A set bit, zeros, and the number of bits at the end of a block.
        let held = self.held();
        self.rest[held] = 0x80;
        self.rest[held + 1..].fill(0);
        let length_at = BLOCK - 8;
        if held >= length_at {
            compress256(&mut self.state, &[self.rest]);
            self.rest.fill(0);
        }
        self.rest[length_at..].copy_from_slice(&self.size.wrapping_mul(8).to_be_bytes());
        compress256(&mut self.state, &[self.rest]);
        let mut digest = [0; 32];
        for (place, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *place = word.to_be_bytes();
        }
        (Sha256Digest::from_bytes(digest), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes from a fixed generator.
    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut state = u32::from(seed) + 1;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn every_length_around_the_edges_of_blocks() {
        for length in 0..200 {
            let (first, second) = (noise(length, 1), noise(199 - length, 2));
            let mut pair = PairHasher::default();
            pair.update(&first, &second);
            let want = [
                (Sha256Digest::of(&first), first.len() as u64),
                (Sha256Digest::of(&second), second.len() as u64),
            ];
            assert_eq!(pair.finish(), want, "{length}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            pieces in proptest::collection::vec((0..2_000_usize, 0..2_000_usize, any::<u8>()), 0..8),
        ) {
            let mut pair = PairHasher::default();
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for (one, two, seed) in pieces {
                let (one, two) = (noise(one, seed), noise(two, seed.wrapping_add(100)));
                pair.update(&one, &two);
                first.extend(one);
                second.extend(two);
            }
            let [(one, one_size), (two, two_size)] = pair.finish();
            prop_assert_eq!((one, one_size), (Sha256Digest::of(&first), first.len() as u64));
            prop_assert_eq!((two, two_size), (Sha256Digest::of(&second), second.len() as u64));
        }
    }
}

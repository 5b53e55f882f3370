//! The one thing here that needs the processor's own instructions.

#![expect(
    unsafe_code,
    reason = "intrinsics read memory by pointer and need a processor that has them"
)]

use sha2::block_api::compress256;

/// A hash's state and the blocks to add to it.
type Work<'w> = (&'w mut [u32; 8], &'w [[u8; 64]]);

/// Adds equally many blocks to the states of two hashes.
pub(super) fn compress_two(first: Work<'_>, second: Work<'_>) {
    debug_assert_eq!(first.1.len(), second.1.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1") {
        // SAFETY: the processor has what the function needs.
        unsafe { x86::compress_two([first, second]) };
        return;
    }
    compress256(first.0, first.1);
    compress256(second.0, second.1);
}

/// Every step is done for both before the next one begins, so that neither waits for itself.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
        _mm_storeu_si128,
    };

    use super::Work;

    /// The round constants (FIPS 180-4, 4.2.2), four to a vector.
    const ROUNDS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) fn compress_two(work: [Work<'_>; 2]) {
        let [(first, first_blocks), (second, second_blocks)] = work;
        // The instructions want the words a, b, e, f in one vector and c, d, g, h in the other.
        let mut lanes = [load_state(first), load_state(second)];
        for blocks in first_blocks.iter().zip(second_blocks) {
            let before = lanes;
            let mut words = [load_block(blocks.0), load_block(blocks.1)];
            for (round, constants) in ROUNDS.iter().enumerate() {
                let constants = load(constants);
                if round >= 4 {
                    for words in &mut words {
                        extend(words, round % 4);
                    }
                }
                let sums = words.map(|words| _mm_add_epi32(words[round % 4], constants));
                for (lane, sum) in lanes.iter_mut().zip(sums) {
                    lane.1 = _mm_sha256rnds2_epu32(lane.1, lane.0, sum);
                }
                for (lane, sum) in lanes.iter_mut().zip(sums) {
                    lane.0 = _mm_sha256rnds2_epu32(lane.0, lane.1, _mm_shuffle_epi32(sum, 0x0e));
                }
            }
            for (lane, before) in lanes.iter_mut().zip(before) {
                *lane = (_mm_add_epi32(lane.0, before.0), _mm_add_epi32(lane.1, before.1));
            }
        }
        store_state(first, lanes[0]);
        store_state(second, lanes[1]);
    }

    /// Four more words of the message in place of the oldest.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn extend(words: &mut [__m128i; 4], at: usize) {
        let [oldest, second, third, newest] = [0, 1, 2, 3].map(|step| words[(at + step) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, second), _mm_alignr_epi8(newest, third, 4));
        words[at] = _mm_sha256msg2_epu32(sum, newest);
    }

    #[inline]
    #[target_feature(enable = "ssse3,sse4.1")]
    fn load_state(state: &[u32; 8]) -> (__m128i, __m128i) {
        let [low, high] = [[0, 1, 2, 3], [4, 5, 6, 7]].map(|places| load(&places.map(|place: usize| state[place])));
        let (low, high) = (_mm_shuffle_epi32(low, 0xb1), _mm_shuffle_epi32(high, 0x1b));
        (_mm_alignr_epi8(low, high, 8), _mm_blend_epi16(high, low, 0xf0))
    }

    #[inline]
    #[target_feature(enable = "ssse3,sse4.1")]
    fn store_state(state: &mut [u32; 8], lane: (__m128i, __m128i)) {
        let (low, high) = (_mm_shuffle_epi32(lane.0, 0x1b), _mm_shuffle_epi32(lane.1, 0xb1));
        let halves = [_mm_blend_epi16(low, high, 0xf0), _mm_alignr_epi8(high, low, 8)];
        for (place, half) in state.as_chunks_mut::<4>().0.iter_mut().zip(halves) {
            // SAFETY: the place has the sixteen bytes that are written, and the instruction asks for no alignment.
            unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), half) };
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(words: &[u32; 4]) -> __m128i {
        // SAFETY: there are the sixteen bytes that are read, and the instruction asks for no alignment.
        unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
    }

    /// The sixteen words of a block, which are big-endian.
    #[inline]
    #[target_feature(enable = "ssse3")]
    fn load_block(block: &[u8; 64]) -> [__m128i; 4] {
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (quarters, _) = block.as_chunks::<16>();
        [0, 1, 2, 3].map(|index: usize| {
            // SAFETY: a quarter has the sixteen bytes that are read, and the instruction asks for no alignment.
            let words = unsafe { _mm_loadu_si128(quarters[index].as_ptr().cast()) };
            _mm_shuffle_epi8(words, order)
        })
    }
}

use std::io::{Read, Write};
use std::num::NonZeroUsize;

use cbs_store::Sha256Digest;
use proptest::prelude::*;

use super::*;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).expect("not zero")).expect("threads")
}

fn encode(pool: &Pool, compression: Compression, level: i32, input: &[u8], step: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(pool, compression, level, Vec::new());
    for piece in input.chunks(step.max(1)) {
        encoder.write_all(piece).expect("write");
    }
    let encoded = encoder.finish().expect("finish");
    let bytes = encoded.inner;
    assert_eq!(encoded.input, Sha256Digest::of(input));
    assert_eq!(
        (encoded.digest, encoded.size),
        (Sha256Digest::of(&bytes), bytes.len() as u64)
    );
    bytes
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    Decoder::new(bytes)
        .expect("head")
        .read_to_end(&mut output)
        .expect("decode");
    output
}

/// Text-like bytes that compress, from a fixed generator.
fn sample(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state % 400;
        bytes.extend_from_slice(format!("word{word} ").as_bytes());
        if state.is_multiple_of(17) {
            bytes.extend_from_slice(&state.to_le_bytes());
        }
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that do not compress, from a fixed generator.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn same_bytes_on_any_number_of_threads(
        length in 0..3_000_000_usize,
        seed in any::<u64>(),
        step in 1..1_000_000_usize,
        level in 1..4_i32,
        zstd in any::<bool>(),
    ) {
        let compression = if zstd { Compression::Zstd } else { Compression::Gzip };
        let input = sample(length, seed);
        let one = encode(&pool(1), compression, level, &input, length);
        let three = encode(&pool(3), compression, level, &input, step);
        prop_assert_eq!(Sha256Digest::of(&one), Sha256Digest::of(&three));
        prop_assert_eq!(Sha256Digest::of(&decode(&one)), Sha256Digest::of(&input));
    }

    #[test]
    fn decoding_noise_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3_u8) {
        match kind {
            0 => bytes.splice(0..0, [0x1f, 0x8b, 8, 0]).for_each(drop),
            1 => bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]).for_each(drop),
            _ => {}
        }
        if let Ok(mut decoder) = Decoder::new(&bytes[..]) {
            drop(std::io::copy(&mut decoder.by_ref().take(1 << 20), &mut std::io::sink()));
        }
    }
}

#[test]
fn block_edges_and_empty_inputs() {
    let pool = pool(2);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let size = block::block_size(compression);
        for length in [0, 1, size - 1, size, size + 1, 2 * size] {
            let input = sample(length, 7);
            let bytes = encode(&pool, compression, compression.default_level(), &input, 65_536);
            assert!(decode(&bytes) == input, "{compression} of {length}");
            assert_eq!(
                Compression::detect(&bytes),
                if length == 0 && bytes.is_empty() {
                    Compression::None
                } else {
                    compression
                }
            );
        }
    }
}

#[test]
fn incompressible_blocks_fit() {
    let noise = noise(1_500_000);
    for level in [0, 1, 6, 9] {
        assert!(
            decode(&encode(&pool(2), Compression::Gzip, level, &noise, 4096)) == noise,
            "level {level}"
        );
    }
}

/// The digests are what registries and remote caches know layers by: when this fails, every layer changes its name, and
/// the variant names in `layer.rs` must change with it.
#[test]
fn blocks_that_gain_nothing_are_stored_and_others_compressed() {
    let noise = noise(2 << 20);
    let text = sample(2 << 20, 7);
    let pool = pool(2);
    let of_noise = encode(&pool, Compression::Gzip, 4, &noise, 1 << 16);
    // A stored block of 64 KiB has five bytes of its own.
    assert!(of_noise.len() < noise.len() + 400, "{}", of_noise.len());
    let both = encode(
        &pool,
        Compression::Gzip,
        4,
        &[noise.clone(), text.clone()].concat(),
        1 << 16,
    );
    assert!(both.len() < of_noise.len() + text.len() / 2);
    assert_eq!(decode(&both), [noise, text].concat());
}

#[test]
fn zstd_passes_by_what_gains_nothing_and_finds_text_in_it() {
    let noise = noise(12 << 20);
    let pool = pool(2);
    let of_noise = encode(&pool, Compression::Zstd, 3, &noise, 1 << 16);
    assert!(of_noise.len() < noise.len() + 2000, "{}", of_noise.len());
    assert!(decode(&of_noise) == noise);
    let mut mixed = noise;
    let text = sample(400 << 10, 7);
    mixed[(5 << 20) + 12_345..][..text.len()].copy_from_slice(&text);
    let of_mixed = encode(&pool, Compression::Zstd, 3, &mixed, 1 << 16);
    assert!(of_mixed.len() < of_noise.len() - text.len() / 3, "{}", of_mixed.len());
    assert!(decode(&of_mixed) == mixed);
}

#[test]
fn streams_of_several_kinds_share_the_memory_of_a_pool() {
    let pool = pool(2);
    let inputs: Vec<Vec<u8>> = (0..6)
        .map(|index| sample(9_000_000 - index * 1_400_000, index as u64))
        .collect();
    std::thread::scope(|scope| {
        for (index, input) in inputs.iter().enumerate() {
            let pool = &pool;
            scope.spawn(move || {
                let compression = if index % 2 == 0 {
                    Compression::Zstd
                } else {
                    Compression::Gzip
                };
                assert!(
                    decode(&encode(pool, compression, 1, input, 100_000)) == *input,
                    "{index}"
                );
            });
        }
    });
    assert!(!pool.is_crowded());
}

#[test]
fn bytes_are_pinned() {
    let input = sample(4_500_000, 42);
    let digest = |compression: Compression| {
        Sha256Digest::of(&encode(
            &pool(2),
            compression,
            compression.default_level(),
            &input,
            4096,
        ))
        .to_string()
    };
    assert_eq!(
        [
            Sha256Digest::of(&input).to_string(),
            digest(Compression::Gzip),
            digest(Compression::Zstd)
        ],
        [
            "2829d2073adbeef2091d3e424932810a966f3c42eddf7a4f3438d632edda4240",
            "db32b214c0b693fec6cbd34e299f84c529a39c5eaf2b92c09140738c2d710560",
            "a2aadcedc3ec7ab904e01ef5673f3ebe17c29a843c043fba5d3894da436bb952",
        ]
    );
}

#[test]
fn words_and_levels() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        assert_eq!(compression.to_string().parse(), Ok(compression));
    }
    assert!("brotli".parse::<Compression>().is_err());
    assert_eq!(Compression::Gzip.clamp_level(-1), 4);
    assert_eq!(Compression::Gzip.clamp_level(42), 9);
    assert_eq!(Compression::Zstd.clamp_level(99), 22);
}

//! Bake files: `cargo +nightly fuzz run bake_compose fuzz/corpus/bake_compose tests/conformance/bake/cases`.
#![no_main]

mod bake;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bake::check("compose.yaml", data));

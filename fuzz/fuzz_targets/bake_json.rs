//! Bake files: `cargo +nightly fuzz run bake_json fuzz/corpus/bake_json tests/conformance/bake/cases`.
#![no_main]

mod bake;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bake::check("docker-bake.json", data));

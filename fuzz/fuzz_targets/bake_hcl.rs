//! Bake files: `cargo +nightly fuzz run bake_hcl fuzz/corpus/bake_hcl tests/conformance/bake/cases`.
#![no_main]

mod bake;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bake::check("docker-bake.hcl", data));

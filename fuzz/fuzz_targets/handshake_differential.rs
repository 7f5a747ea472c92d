//! See `src/handshake_differential.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::handshake_differential::run(input));

//! See `src/cipher_rotation.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::cipher_rotation::run(input));

//! See `src/credentials.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::credentials::run(input));

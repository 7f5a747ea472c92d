//! See `src/signer_stream.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::signer_stream::run(input));

//! See `src/handshake_responder.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::handshake_responder::run(input));

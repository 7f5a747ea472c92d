//! See `src/handshake_initiator.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::handshake_initiator::run(input));

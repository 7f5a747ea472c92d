//! See `src/session_ops.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::session_ops::run(input));

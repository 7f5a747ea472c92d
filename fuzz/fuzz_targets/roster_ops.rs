//! See `src/roster_ops.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::roster_ops::run(input));

//! See `src/book.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::book::run(input));

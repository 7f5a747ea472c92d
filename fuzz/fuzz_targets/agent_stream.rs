//! See `src/agent_stream.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::agent_stream::run(input));

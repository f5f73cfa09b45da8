//! Any bytes as an event from a relay: every reader returns. `src/nip90/hostile_input.rs` does the same by chance.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coinop::nip90::fuzz_event(bytes));

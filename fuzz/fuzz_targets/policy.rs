//! See `conduitfw_tests::fuzzing::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conduitfw_tests::fuzzing::policy(bytes));

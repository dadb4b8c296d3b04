//! See `conduitfw_tests::fuzzing::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conduitfw_tests::fuzzing::stream(bytes));

//! The verdict on single frames and on conversations, given by the program in the kernel itself:
//! the object is loaded, a policy stands in its maps, and frames go through `BPF_PROG_TEST_RUN`.
//!
//! Frames given to the program that way come in on the loopback interface, so every zone of these
//! policies is there. Nothing is attached or pinned.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, helpers included, ends where it fails"
)]

#[macro_use]
mod bench;
mod flows;
mod outcome;
mod packets;
mod requests;
mod rings;
mod talk;

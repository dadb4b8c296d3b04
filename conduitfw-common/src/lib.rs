//! The decision of conduitfw, the same code in the kernel and in user space.
//!
//! Nothing here allocates, knows a clock, indexes a slice or is unsafe.
#![no_std]
#![forbid(unsafe_code)]

pub mod event;
pub mod table;
mod verdict;

pub use verdict::{REASON_SLOTS, Reason, Verdict};

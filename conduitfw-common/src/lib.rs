//! The decision of conduitfw, the same code in the kernel and in user space.
//!
//! A frame goes down one street, in this order: [`packet`] (parse), [`classify`], [`flow`]
//! (track), [`inspect`] and [`replies`], [`modbus`] (decide). [`judge`] is the whole street on one page; what a
//! frame seldom needs stands in [`admit`] and [`settle`]. The world around it, BPF maps or
//! ordinary memory, is behind [`platform::Platform`].
//!
//! Nothing here allocates, knows a clock, indexes a slice or is unsafe.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
#![allow(
    clippy::inline_always,
    reason = "the kernel's verifier follows pointers only through code that is in one function"
)]

pub mod admit;
pub mod adopt;
pub mod bytes;
pub mod classify;
pub mod edit;
pub mod event;
pub mod flow;
pub mod forward;
pub mod icmp_error;
pub mod inspect;
pub mod judge;
pub mod judgement;
pub mod modbus;
mod neighbour;
pub mod packet;
pub mod platform;
pub mod rate;
mod refused;
pub mod replies;
pub mod reset;
pub mod settle;
pub mod table;
mod verdict;
pub mod wire;

pub use verdict::{REASON_SLOTS, Reason, Verdict};

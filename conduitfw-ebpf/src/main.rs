//! The data plane of conduitfw: maps and glue around `conduitfw-common`, which decides.
//!
//! One XDP program on every interface of the policy. Its stages are functions that the verifier
//! judges one by one (BTF global functions), so that what one of them may cost does not multiply
//! with the others; they cross on the per-processor workspace.
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "compare-and-exchange has no other name on this target"
)]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(
    clippy::inline_always,
    clippy::trivially_copy_pass_by_ref,
    reason = "the verifier follows pointers only through code that is in one function"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "lengths of a frame and the numbers of helpers fit in 32 bits"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the attribute `xdp` makes the entry points, and wants them so"
)]

mod atomic;
mod forward;
mod frame;
mod history;
mod kernel;
mod maps;
mod report;
mod stages;
mod trace;
mod verifier;

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::xdp,
    programs::XdpContext,
};
use conduitfw_common::{judge::judge, table::ACTIVE_SLOT};

use crate::{frame::Frame, kernel::Kernel};

/// Judges every frame that comes in.
#[xdp]
pub fn conduitfw(context: XdpContext) -> u32 {
    let frame = Frame::new(context.as_ptr().cast());
    let (Some((kernel, packet)), Some(active)) = (Kernel::new(frame), maps::active()) else {
        return xdp_action::XDP_DROP;
    };
    let word = maps::word_of(active);
    let judged = judge(&mut kernel.knowing(active), packet, word & ACTIVE_SLOT);
    report::report(frame, judged, active, word)
}

/// Tells the controller how fast the kernel's tick counter runs. Never attached.
#[xdp]
pub fn clock(_context: XdpContext) -> u32 {
    if let Some(clock) = maps::clock() {
        // SAFETY: the helper has no arguments and no conditions.
        let jiffies = unsafe { bpf_jiffies64() };
        // SAFETY: the helper has no arguments and no conditions.
        let nanoseconds = unsafe { bpf_ktime_get_ns() };
        *clock = [jiffies, nanoseconds];
    }
    xdp_action::XDP_ABORTED
}

/// Never reached: the verifier refuses a program that could loop without end.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

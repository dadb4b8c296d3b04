//! The data plane.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Placeholder until the pipeline stands.
#[xdp]
pub fn conduitfw(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Never reached: the verifier refuses a program with a reachable loop without end.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

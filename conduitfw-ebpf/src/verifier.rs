//! Tricks that only please the verifier, each with its message.

use core::arch::asm;

/// Hides from LLVM where a number comes from.
///
/// Of `end of the byte > end of the frame` LLVM makes `byte >= end of the frame`, from which the
/// verifier learns nothing: "invalid access to packet, off=0 size=1, R3(id=23,off=0,r=0)"
/// (Linux 6.1 to 6.18).
#[inline(always)]
pub(crate) fn hidden(number: usize) -> usize {
    let mut number = number;
    // SAFETY: moves a register to itself. (With no instruction at all the line table would name one
    // place twice: "Invalid line_info".)
    unsafe {
        asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack));
    };
    number
}

/// Hides from LLVM that a reference is one that it knows: what stands behind it is then read where it is
/// needed, and not kept in registers from where it was written (Linux 6.18: 20 instructions a frame for
/// words that only IPv6 has).
#[inline(always)]
pub(crate) fn hidden_reference<T>(reference: &T) -> &T {
    let address = hidden(core::ptr::from_ref(reference) as usize);
    // SAFETY: it is the same address, and the borrow goes on.
    unsafe { &*(address as *const T) }
}

/// Bounds a number in a way that LLVM does not take out.
///
/// LLVM drops a mask that it can prove idle and the verifier cannot. Without it each round of a
/// loop has another range, and is judged anew: "BPF program is too large" (Linux 6.1 to 6.18).
#[inline(always)]
pub(crate) fn masked(number: u32, mask: u32) -> u32 {
    let mut number = u64::from(number);
    // SAFETY: one instruction on two registers that hold the arguments.
    unsafe {
        asm!("{0} &= {1}", inout(reg) number, in(reg) u64::from(mask), options(pure, nomem, nostack));
    };
    number as u32
}

/// As [`masked`], for an address: LLVM clears the upper half of what goes in and comes out of that, with
/// two instructions each.
#[inline(always)]
pub(crate) fn masked_offset<const MASK: u32>(number: u32) -> usize {
    let masked: usize;
    // SAFETY: two instructions on registers. What the upper half of the first holds does not matter.
    unsafe {
        asm!(
            "{0} = {1}",
            "{0} &= {mask}",
            lateout(reg) masked,
            in(reg) number,
            mask = const MASK,
            options(pure, nomem, nostack)
        );
    };
    masked
}

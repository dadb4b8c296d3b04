//! Compare and exchange, and locks that wait a bounded time.
//!
//! `core::sync::atomic` has no compare-and-exchange on this target; the intrinsic has.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg},
    sync::atomic::{Ordering, compiler_fence},
};

/// Looks at a lock in one [`wait`].
const LOOKS: u32 = 64;
/// Waits before a lock is given up: half a millisecond in all. A holder needs a few hundred nanoseconds
/// for most frames and tens of microseconds for the slowest, or as long as an interrupt takes.
pub(crate) const WAITS: u32 = 2048;

/// A number that one instruction can compare and exchange.
pub(crate) trait Word: Copy + PartialEq {}
impl Word for u32 {}
impl Word for u64 {}

/// Replaces `*pointer` by `new` if it is still `old`; what it was.
#[inline(always)]
fn exchange<T: Word>(pointer: *mut T, old: T, new: T) -> T {
    // SAFETY: every caller passes an aligned word inside a map value that a lookup gave.
    let (found, _) = unsafe {
        atomic_cxchg::<T, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(pointer, old, new)
    };
    found
}

/// Replaces `*pointer` by `new` if it is still `old`.
#[inline(always)]
pub(crate) fn replace<T: Word>(pointer: *mut T, old: T, new: T) -> bool {
    exchange(pointer, old, new) == old
}

/// Takes the lock in `*pointer` if it is free. What stands there is looked at first: the exchange waits for
/// all stores before it, and only then asks for the line; a look has the line come in the meantime (of
/// denied frames over 64 flows it saves one or two in a hundred). With a branch on it LLVM makes eight more
/// instructions elsewhere.
#[inline(always)]
pub(crate) fn try_lock(pointer: *mut u32) -> bool {
    // SAFETY: as for `exchange`.
    let seen = unsafe { pointer.read_volatile() };
    seen | exchange(pointer, seen, 1) == 0
}

/// Waits a little for the lock in `*pointer`; `false` when somebody else kept it.
#[inline(always)]
pub(crate) fn wait(pointer: *mut u32) -> bool {
    for _ in 0..LOOKS {
        // A look leaves the line to its holder; an exchange would take it away.
        // SAFETY: as for `exchange`.
        let is_free = unsafe { pointer.read_volatile() } == 0;
        if is_free && replace(pointer, 0, 1) {
            return true;
        }
        // There is no instruction to pause with; this takes some nanoseconds on every machine.
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { bpf_get_prandom_u32() };
    }
    false
}

/// Gives the lock back.
#[inline(always)]
pub(crate) fn unlock(pointer: *mut u32) {
    publish(pointer, 0);
}

/// Writes a number that says that what was written before is there to be read; the caller alone writes it.
/// On x86 a plain store does: it becomes visible after all stores before it (Intel SDM volume 3, §10.2.2),
/// and costs 5 ns less. Elsewhere an exchange, which orders on every machine.
#[inline(always)]
pub(crate) fn publish(pointer: *mut u32, number: u32) {
    if cfg!(bpf_target_arch = "x86_64") {
        compiler_fence(Ordering::Release);
        // SAFETY: as for `exchange`; the number is the caller's.
        unsafe { pointer.write_volatile(number) };
    } else {
        // SAFETY: as for `exchange`.
        unsafe { atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(pointer, number) };
    }
}

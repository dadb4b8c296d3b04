//! Compare and exchange, and locks that wait a bounded time.
//!
//! `core::sync::atomic` has no compare-and-exchange on this target; the intrinsic has.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

/// Looks at a lock before giving up: a holder needs a few hundred nanoseconds.
const TRIES: u32 = 512;

/// A number that one instruction can compare and exchange.
pub(crate) trait Word: Copy + PartialEq {}
impl Word for u32 {}
impl Word for u64 {}

/// Replaces `*pointer` by `new` if it is still `old`.
#[inline(always)]
pub(crate) fn replace<T: Word>(pointer: *mut T, old: T, new: T) -> bool {
    // SAFETY: every caller passes an aligned word inside a map value that a lookup gave.
    let (found, _) = unsafe {
        atomic_cxchg::<T, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(pointer, old, new)
    };
    found == old
}

/// Takes the lock in `*pointer` if it is free.
#[inline(always)]
pub(crate) fn try_lock(pointer: *mut u32) -> bool {
    replace(pointer, 0, 1)
}

/// Waits for the lock in `*pointer`; `false` when somebody else kept it.
#[inline(always)]
pub(crate) fn wait(pointer: *mut u32) -> bool {
    for _ in 0..TRIES {
        if replace(pointer, 0, 1) {
            return true;
        }
    }
    false
}

/// Gives the lock back.
#[inline(always)]
pub(crate) fn unlock(pointer: *mut u32) {
    replace(pointer, 1, 0);
}

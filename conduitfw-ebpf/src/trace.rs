//! The program as a measuring instrument: loaded with `TRACING` set, never attached and only run on
//! given frames, it judges them at given times and says what it saw. In a program that is in force
//! `TRACING` is 0 and fixed, and the verifier takes these branches out.

use conduitfw_common::{
    event::{EventOperation, TRACED_OPERATIONS, TracedOperation},
    judgement::Judgement,
};

use crate::{maps, verifier::masked};

/// Set to 1 by user space before the program is loaded.
#[unsafe(no_mangle)]
static TRACING: u32 = 0;

#[inline(always)]
pub(crate) fn is_on() -> bool {
    // SAFETY: reads a constant of this program; volatile, for user space may have changed it before
    // loading.
    unsafe { core::ptr::read_volatile(&raw const TRACING) != 0 }
}

#[inline(always)]
pub(crate) fn now_ticks() -> u64 {
    maps::trace().map_or(0, |trace| trace.now_ticks)
}

#[inline(always)]
pub(crate) fn judged(operation: &EventOperation, reason: u8) {
    let Some(trace) = maps::trace() else {
        return;
    };
    let at = masked(trace.count, TRACED_OPERATIONS as u32 - 1) as usize;
    trace.count += 1;
    let row = trace.operations.as_mut_ptr().wrapping_add(at);
    // SAFETY: the index was masked to the number of rows.
    unsafe {
        row.write(TracedOperation {
            operation: operation.told(),
            reason: u32::from(reason),
        });
    };
}

#[inline(always)]
pub(crate) fn decided(judgement: Judgement) {
    if is_on()
        && let Some(trace) = maps::trace()
    {
        trace.judgement = judgement.to_bits();
    }
}

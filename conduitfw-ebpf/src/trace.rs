//! The program as a measuring instrument: loaded with `TRACING` set, never attached and only run on
//! given frames, it judges them at given times and says what it saw. In a program that is in force
//! `TRACING` is 0 and fixed, and the verifier takes these branches out.

use conduitfw_common::{
    event::{EventOperation, TRACED_OPERATIONS, TracedOperation},
    judgement::Judgement,
};

use crate::{maps, verifier::masked};

pub(crate) use crate::maps::is_tracing as is_on;

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
    if let Some(row) = trace.operations.get_mut(at) {
        *row = TracedOperation {
            operation: operation.told(),
            reason: u32::from(reason),
        };
    }
}

#[inline(always)]
pub(crate) fn decided(judgement: Judgement) {
    if is_on()
        && let Some(trace) = maps::trace()
    {
        trace.judgement = judgement.to_bits();
    }
}

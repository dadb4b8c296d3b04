//! What a request writes, coil by coil, against the limits of the rules.

use crate::bytes::ByteSource;
use crate::platform::Platform;
use crate::verdict::Reason;

use super::function::FunctionCode;
use super::number_of;
use super::written::{Checked, MAX_WRITTEN, note, written};

/// Bytes of coils that one request writes at most.
const MAX_COIL_BYTES: u32 = 256;
/// What stands for "on" in function 5 (V1.1b3 §6.5); 0 is "off".
const COIL_ON: u16 = 0xff00;

/// Holds the coils that the whole request at `at` writes against the limits of their intervals: 0,
/// or the number of the reason.
#[inline(always)]
pub fn check_coils<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> u32 {
    number_of(coils(p, source, at))
}

#[inline(always)]
fn coils<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> Result<(), Reason> {
    let written = written(source, at)?;
    p.workspace().written = written;
    let mut interval = p.seen().interval;
    let mut coil = written.first;
    for _ in 0..MAX_WRITTEN {
        if coil > written.last {
            break;
        }
        let bits = p.check_coil_run(coil, interval);
        if let Some(reason) = Reason::from_number(Checked::from_bits(bits).reason) {
            return Err(reason);
        }
        coil = Checked::from_bits(bits).interval;
        interval = interval.wrapping_add(1);
    }
    if coil <= written.last {
        return Err(Reason::RegisterNotAllowed);
    }
    Ok(())
}

/// Holds the coils from `coil` to the end of its interval against their limits. Answers a word whose
/// lowest byte is the number of the reason, or 0, and whose upper half is the next coil.
#[inline(always)]
pub fn check_coil_run<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    coil: u32,
    interval: u32,
) -> u64 {
    let written = p.seen().written;
    let Some(row) = p.interval(p.seen().slot, interval) else {
        return Checked::denied(Reason::RegisterNotAllowed).to_bits();
    };
    let run_last = written.last.min(u32::from(row.last));
    let next = Checked {
        reason: 0,
        width: 1,
        is_guarded: false,
        interval: run_last.wrapping_add(1),
    };
    if row.limits == 0 {
        return next.to_bits();
    }
    let may_be_off = p.check_value(u32::from(row.limits), coil, 0) == 0;
    let may_be_on = p.check_value(u32::from(row.limits), coil, 1) == 0;
    let denied = Checked::denied(Reason::ValueNotAllowed).to_bits();
    if FunctionCode(p.seen().operation.function) == FunctionCode::WRITE_SINGLE_COIL {
        let Ok(value) = source.u16(written.values_at) else {
            return denied;
        };
        if (value == 0 && may_be_off) || (value == COIL_ON && may_be_on) {
            return next.to_bits();
        }
        note(p, coil, u32::from(value));
        return denied;
    }
    if may_be_off && may_be_on {
        return next.to_bits();
    }
    let first_bit = coil.wrapping_sub(written.first);
    let count = run_last.wrapping_sub(coil).wrapping_add(1);
    let first_count = first_bit << 16 | (count & 0xffff);
    let value = u32::from(may_be_on);
    if may_be_off != may_be_on && p.are_coils(written.values_at, first_count, value) {
        return next.to_bits();
    }
    note(p, coil, value ^ 1);
    denied
}

/// Whether coils all have a value. Their bits begin at `at`; the upper half of `first_count` is the
/// number of the first coil, the lower how many.
#[inline(always)]
pub fn are_coils<B: ByteSource>(source: &B, at: u32, first_count: u32, value: u32) -> bool {
    let (first, count) = (first_count >> 16, first_count & 0xffff);
    if count == 0 {
        return true;
    }
    let last = first.wrapping_add(count).wrapping_sub(1);
    let (first_byte, last_byte) = (first >> 3, last >> 3);
    let wanted = if value == 0 { 0 } else { 0xff };
    let first_mask = 0xff_u32 << (first & 7) & 0xff;
    let last_mask = 0xff_u32 >> 7_u32.wrapping_sub(last & 7);
    let bits_differ = |byte: u32, mask: u32| match source.u8(at.wrapping_add(byte)) {
        Ok(bits) => (u32::from(bits) ^ wanted) & mask,
        Err(_) => mask,
    };
    if first_byte == last_byte {
        return bits_differ(first_byte, first_mask & last_mask) == 0;
    }
    if bits_differ(first_byte, first_mask) | bits_differ(last_byte, last_mask) != 0 {
        return false;
    }
    for byte in 1..MAX_COIL_BYTES {
        let here = first_byte.wrapping_add(byte);
        if here >= last_byte {
            break;
        }
        if bits_differ(here, 0xff) != 0 {
            return false;
        }
    }
    true
}

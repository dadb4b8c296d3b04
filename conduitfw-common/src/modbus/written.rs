//! What a request writes, register by register, against the limits of the rules.

use crate::bytes::ByteSource;
use crate::event::field;
use crate::platform::{Platform, Written};
use crate::table::{Interval, Limits, limit};
use crate::verdict::Reason;

use super::function::FunctionCode;
use super::last::{is_too_far, pend};
use super::{FUNCTION_AT, number, number_of};

/// Registers that one request writes at most, and intervals that the coils of one may lie in: a
/// byte counts the bytes of the registers.
pub const MAX_WRITTEN: u32 = 128;
/// Values are found by at most this many halvings: `2^17 > MAX_VALUE_RANGES`.
const VALUE_SEARCH_STEPS: u32 = 17;
/// Of [`Written::and_mask`]: there is a mask.
const IS_MASK: u32 = 1 << 16;

/// What the whole request at `at` writes.
#[inline(always)]
pub(super) fn written<B: ByteSource>(source: &B, at: u32) -> Result<Written, Reason> {
    let function = source.u8(at.wrapping_add(FUNCTION_AT))?;
    let first = u32::from(source.u16(at.wrapping_add(8))?);
    let mut written = Written {
        first,
        last: first,
        values_at: at.wrapping_add(10),
        and_mask: 0,
    };
    let mut count = 1;
    match FunctionCode(function) {
        FunctionCode::WRITE_MULTIPLE_REGISTERS | FunctionCode::WRITE_MULTIPLE_COILS => {
            written.values_at = at.wrapping_add(13);
            count = source.u16(at.wrapping_add(10))?;
        }
        FunctionCode::MASK_WRITE_REGISTER => {
            written.and_mask = IS_MASK | u32::from(source.u16(at.wrapping_add(10))?);
            written.values_at = at.wrapping_add(12);
        }
        FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => {
            written.first = u32::from(source.u16(at.wrapping_add(12))?);
            count = source.u16(at.wrapping_add(14))?;
            written.values_at = at.wrapping_add(17);
        }
        _ => {}
    }
    if count == 0 {
        count = 1;
    }
    written.last = written.first.wrapping_add(u32::from(count).wrapping_sub(1));
    Ok(written)
}

/// Holds each register that the whole request at `at` writes against the limits of its interval: 0,
/// or the number of the reason.
#[inline(always)]
pub fn check_registers<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> u32 {
    number_of(registers(p, source, at))
}

#[inline(always)]
fn registers<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> Result<(), Reason> {
    let written = written(source, at)?;
    p.workspace().written = written;
    let mut interval = p.seen().interval;
    let mut register = written.first;
    let mut is_guarded = false;
    for _ in 0..MAX_WRITTEN {
        if register > written.last {
            break;
        }
        let checked = Checked::from_bits(p.check_register(register, interval));
        if let Some(reason) = Reason::from_number(checked.reason) {
            return Err(reason);
        }
        interval = checked.interval;
        register = register.wrapping_add(u32::from(checked.width));
        is_guarded |= checked.is_guarded;
    }
    if register <= written.last {
        return Err(Reason::RegisterNotAllowed);
    }
    if is_guarded {
        p.workspace().is_guarded = 1;
        return pend(p, at);
    }
    Ok(())
}

/// What [`check_register`] found out, as a word.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    /// Number of the reason, 0 for none.
    pub(super) reason: u8,
    /// Registers of the number that was looked at.
    pub(super) width: u8,
    /// Whether its last value counts.
    pub(super) is_guarded: bool,
    /// The interval that it lies in.
    pub(super) interval: u32,
}

impl Checked {
    #[inline(always)]
    pub(super) const fn denied(reason: Reason) -> Self {
        Self {
            reason: reason.number(),
            width: 1,
            is_guarded: false,
            interval: 0,
        }
    }

    #[inline(always)]
    pub(super) const fn to_bits(self) -> u64 {
        let [i3, i2, i1, i0] = self.interval.to_be_bytes();
        let guarded = if self.is_guarded { 1 } else { 0 };
        u64::from_be_bytes([i3, i2, i1, i0, 0, guarded, self.width, self.reason])
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u64) -> Self {
        let [i3, i2, i1, i0, _, guarded, width, reason] = bits.to_be_bytes();
        Self {
            reason,
            width,
            is_guarded: guarded != 0,
            interval: u32::from_be_bytes([i3, i2, i1, i0]),
        }
    }
}

/// The interval of a register that is at most one interval beyond `index`: there is no gap, for the
/// first interval reaches as far as the last register.
#[inline(always)]
pub(super) fn interval_of<P: Platform>(
    p: &P,
    register: u32,
    index: u32,
) -> Option<(u32, Interval)> {
    let slot = p.seen().slot;
    let interval = p.interval(slot, index)?;
    if register <= u32::from(interval.last) {
        return Some((index, interval));
    }
    let index = index.wrapping_add(1);
    Some((index, p.interval(slot, index)?))
}

/// Holds the number that begins at one register against its limits. Its interval is `interval` or
/// the one behind it.
#[inline(always)]
pub fn check_register<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    register: u32,
    interval: u32,
) -> u64 {
    let written = p.seen().written;
    let Some((index, interval)) = interval_of(p, register, interval) else {
        return Checked::denied(Reason::RegisterNotAllowed).to_bits();
    };
    let mut checked = Checked {
        reason: 0,
        width: 1,
        is_guarded: false,
        interval: index,
    };
    if interval.limits == 0 {
        return checked.to_bits();
    }
    let Some(limits) = p.limits(p.seen().slot, interval.limits) else {
        return Checked::denied(Reason::RegisterNotAllowed).to_bits();
    };
    if limits.flags & limit::WRITTEN == limit::VALUES && limits.count == 1 {
        let last = written.last.min(u32::from(interval.last));
        if let Some(run) = check_run(p, source, register, last, &limits) {
            checked.width = run;
            return checked.to_bits();
        }
    }
    let Ok(raw) = read(source, &written, register, Form::of(&limits)) else {
        return Checked::denied(Reason::TruncatedFrame).to_bits();
    };
    let is_half = number::width(limits.number) == 2
        && (register.wrapping_sub(u32::from(interval.first)) & 1 != 0
            || register >= written.last
            || register >= u32::from(interval.last));
    let reason = match masked(raw, written.and_mask, &limits) {
        Some(raw) if !is_half => judge_value(p, &limits, register, raw),
        _ => u32::from(Reason::ValueNotAllowed.number()),
    };
    if reason != 0 {
        note(p, register, raw);
    }
    let [_, _, _, reason] = reason.to_be_bytes();
    checked.reason = reason;
    checked.width = width(limits.number);
    checked.is_guarded = limits.flags & limit::STEP != 0;
    checked.to_bits()
}

/// How many registers from `register` to `last` lie in the one range that is allowed: the usual case,
/// without a look at the tables for each. `None` when it is not that case after all, or the first
/// does not lie in it.
#[inline(always)]
fn check_run<P: Platform, B: ByteSource>(
    p: &P,
    source: &B,
    register: u32,
    last: u32,
    limits: &Limits,
) -> Option<u8> {
    let written = p.seen().written;
    if number::width(limits.number) != 1 || written.and_mask != 0 {
        return None;
    }
    let range = p.value_range(p.seen().slot, limits.first)?;
    let values_at = written
        .values_at
        .wrapping_add(register.wrapping_sub(written.first) << 1);
    let mut run = 0_u8;
    for number in 0..MAX_WRITTEN {
        if register.wrapping_add(number) > last {
            break;
        }
        let raw = source.u16(values_at.wrapping_add(number << 1)).ok()?;
        let key = number::key(limits.number, u32::from(raw))?;
        if key < range.first || key > range.last {
            break;
        }
        run = run.wrapping_add(1);
    }
    if run == 0 { None } else { Some(run) }
}

/// What is held against the limits: the value, or the bits that a mask write touches. Where values
/// are limited, the mask must leave nothing of the old one; and a mask that leaves nothing touches
/// every bit.
#[inline(always)]
fn masked(raw: u32, and_mask: u32, limits: &Limits) -> Option<u32> {
    if and_mask & IS_MASK == 0 {
        return Some(raw);
    }
    let touched = !and_mask & 0xffff;
    if limits.flags & limit::BITS != 0 && touched & !u32::from(limits.bits) != 0 {
        return None;
    }
    if limits.flags & (limit::VALUES | limit::STEP) == 0 {
        return Some(touched);
    }
    if touched == 0xffff { Some(raw) } else { None }
}

/// How a number stands in registers.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// One of [`crate::table::number`].
    pub(super) number: u8,
    /// 1: low word first.
    pub(super) low_word_first: u8,
}

impl Form {
    #[inline(always)]
    pub(super) const fn of(limits: &Limits) -> Self {
        Self {
            number: limits.number,
            low_word_first: limits.low_word_first,
        }
    }
}

#[inline(always)]
pub(super) fn read<B: ByteSource>(
    source: &B,
    written: &Written,
    register: u32,
    form: Form,
) -> Result<u32, Reason> {
    let offset = register.wrapping_sub(written.first) << 1;
    let at = written.values_at.wrapping_add(offset);
    if number::width(form.number) == 1 {
        return Ok(u32::from(source.u16(at)?));
    }
    let raw = source.u32(at)?;
    Ok(if form.low_word_first == 0 {
        raw
    } else {
        raw.rotate_left(16)
    })
}

/// For the event, the register and the value that are refused.
#[inline(always)]
pub(super) fn note<P: Platform>(p: &mut P, register: u32, raw: u32) {
    let seen = &mut p.workspace().operation;
    let [_, _, r1, r0] = register.to_be_bytes();
    seen.address = u16::from_be_bytes([r1, r0]);
    seen.value = raw;
    seen.fields |= field::ADDRESS | field::VALUE;
}

/// Holds one written number against a row of limits: 0, or the number of the reason. `raw` is as
/// for [`number::key`].
#[inline(always)]
pub fn check_value<P: Platform>(p: &mut P, row: u32, register: u32, raw: u32) -> u32 {
    let [_, _, r1, r0] = row.to_be_bytes();
    let slot = p.seen().slot;
    let Some(limits) = p.limits(slot, u16::from_be_bytes([r1, r0])) else {
        return u32::from(Reason::ValueNotAllowed.number());
    };
    judge_value(p, &limits, register, raw)
}

#[inline(always)]
fn judge_value<P: Platform>(p: &mut P, limits: &Limits, register: u32, raw: u32) -> u32 {
    let slot = p.seen().slot;
    if limits.flags & limit::BITS != 0 && raw & !u32::from(limits.bits) != 0 {
        return u32::from(Reason::ValueNotAllowed.number());
    }
    if limits.flags & limit::VALUES != 0 && !is_among(p, slot, limits, raw) {
        return u32::from(Reason::ValueNotAllowed.number());
    }
    if limits.flags & limit::STEP != 0 && is_too_far(p, limits, register, raw) {
        return u32::from(Reason::StepTooLarge.number());
    }
    0
}

#[inline(always)]
fn is_among<P: Platform>(p: &P, slot: u32, limits: &Limits, raw: u32) -> bool {
    let Some(key) = number::key(limits.number, raw) else {
        return false;
    };
    let mut low = limits.first;
    let mut length = limits.count;
    for _ in 0..VALUE_SEARCH_STEPS {
        if length <= 1 {
            break;
        }
        let half = length >> 1;
        let middle = low.wrapping_add(half);
        let Some(range) = p.value_range(slot, middle) else {
            return false;
        };
        if range.first <= key {
            low = middle;
            length = length.wrapping_sub(half);
        } else {
            length = half;
        }
    }
    match p.value_range(slot, low) {
        Some(range) => length == 1 && range.first <= key && key <= range.last,
        None => false,
    }
}

#[inline(always)]
pub(super) const fn width(number: u8) -> u8 {
    if number::width(number) == 2 { 2 } else { 1 }
}

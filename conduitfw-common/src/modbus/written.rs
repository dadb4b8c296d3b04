//! What a request writes, register by register, against the limits of the rules.

use crate::bytes::ByteSource;
use crate::event::field;
use crate::platform::{FlowTable, PendingWrite, Platform, Workspace, Written};
use crate::table::{Interval, Limits, RegisterKey, limit};
use crate::verdict::Reason;

use super::function::FunctionCode;
use super::{FUNCTION_AT, number, number_of};

/// Registers that one request writes at most, and intervals that the coils of one may lie in: a
/// byte counts the bytes of the registers.
pub const MAX_WRITTEN: u32 = 128;
/// Bytes of coils that one request writes at most.
const MAX_COIL_BYTES: u32 = 256;
/// Values are found by at most this many halvings: `2^17 > MAX_VALUE_RANGES`.
const VALUE_SEARCH_STEPS: u32 = 17;
/// What stands for "on" in function 5 (V1.1b3 §6.5); 0 is "off".
const COIL_ON: u16 = 0xff00;
/// Of [`Written::and_mask`]: there is a mask.
const IS_MASK: u32 = 1 << 16;

/// What the whole request at `at` writes.
#[inline(always)]
fn written<B: ByteSource>(source: &B, at: u32) -> Result<Written, Reason> {
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
struct Checked {
    /// Number of the reason, 0 for none.
    reason: u8,
    /// Registers of the number that was looked at.
    width: u8,
    /// Whether its last value counts.
    is_guarded: bool,
    /// The interval that it lies in.
    interval: u32,
}

impl Checked {
    #[inline(always)]
    const fn denied(reason: Reason) -> Self {
        Self {
            reason: reason.number(),
            width: 1,
            is_guarded: false,
            interval: 0,
        }
    }

    #[inline(always)]
    const fn to_bits(self) -> u64 {
        let [i3, i2, i1, i0] = self.interval.to_be_bytes();
        let guarded = if self.is_guarded { 1 } else { 0 };
        u64::from_be_bytes([i3, i2, i1, i0, 0, guarded, self.width, self.reason])
    }

    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
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
fn interval_of<P: Platform>(p: &P, register: u32, index: u32) -> Option<(u32, Interval)> {
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
    let Ok(raw) = read(source, &written, register, &limits) else {
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
    checked.width = width(&limits);
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

#[inline(always)]
fn read<B: ByteSource>(
    source: &B,
    written: &Written,
    register: u32,
    limits: &Limits,
) -> Result<u32, Reason> {
    let offset = register.wrapping_sub(written.first) << 1;
    let at = written.values_at.wrapping_add(offset);
    if number::width(limits.number) == 1 {
        return Ok(u32::from(source.u16(at)?));
    }
    let raw = source.u32(at)?;
    Ok(if limits.low_word_first == 0 {
        raw
    } else {
        raw.rotate_left(16)
    })
}

/// For the event, the register and the value that are refused.
#[inline(always)]
fn note<P: Platform>(p: &mut P, register: u32, raw: u32) {
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

/// Whether a value is too far from the last ones, where there are any.
#[inline(always)]
fn is_too_far<P: Platform>(p: &P, limits: &Limits, register: u32, raw: u32) -> bool {
    let Some(key) = register_key(p, register) else {
        return true;
    };
    let Some(last) = p.last_value(&key) else {
        return false;
    };
    if last.number != limits.number || last.low_word_first != limits.low_word_first {
        return false;
    }
    let fixed = |raw| number::fixed(limits.number, raw, limits.scale);
    let new = fixed(raw);
    number::distance(fixed(last.passed), new) > limits.step
        || (last.is_confirmed != 0 && number::distance(fixed(last.confirmed), new) > limits.step)
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

/// The register of the responder of the flow at hand.
#[inline(always)]
fn register_key<P: Platform>(p: &P, register: u32) -> Option<RegisterKey> {
    let [_, _, r1, r0] = register.to_be_bytes();
    let unit = p.seen().operation.unit;
    let entry = p.flow_seen(FlowTable::Flows, p.seen().place)?;
    Some(RegisterKey {
        responder: entry.responder,
        port: entry.responder_port,
        register: u16::from_be_bytes([r1, r0]),
        unit: u32::from(unit),
    })
}

/// Notes a write under `max_step`: its values count once the whole segment is allowed. Two such
/// writes of one register in one segment are not told apart.
#[inline(always)]
fn pend<P: Platform>(p: &mut P, sequence: u32) -> Result<(), Reason> {
    let Workspace {
        written,
        interval,
        operation,
        ..
    } = *p.seen();
    let unit = u32::from(operation.unit);
    let [_, _, f1, f0] = written.first.to_be_bytes();
    let [_, _, l1, l0] = written.last.to_be_bytes();
    let new = PendingWrite {
        sequence,
        interval,
        first: u16::from_be_bytes([f1, f0]),
        last: u16::from_be_bytes([l1, l0]),
        unit,
    };
    let workspace = p.workspace();
    let count = workspace.pending_writes;
    for (write, number) in workspace.writes.iter().zip(0_u32..) {
        if number < count
            && write.unit == unit
            && write.first <= new.last
            && new.first <= write.last
        {
            return Err(Reason::StepTooLarge);
        }
    }
    for (write, number) in workspace.writes.iter_mut().zip(0_u32..) {
        if number == count {
            *write = new;
            workspace.pending_writes = count.wrapping_add(1);
            return Ok(());
        }
    }
    Err(Reason::StepTooLarge)
}

/// Remembers the values of a pending write, whose segment was allowed, as passed.
#[inline(always)]
pub fn keep<P: Platform, B: ByteSource>(p: &mut P, source: &B, write: u32) {
    let mut pending = PendingWrite::default();
    for (row, number) in p.seen().writes.iter().zip(0_u32..) {
        if number == write {
            pending = *row;
        }
    }
    let Ok(written) = written(source, pending.sequence) else {
        return;
    };
    let workspace = p.workspace();
    let [_, _, _, unit] = pending.unit.to_be_bytes();
    workspace.operation.unit = unit;
    workspace.written = written;
    let mut interval = pending.interval;
    let mut register = written.first;
    for _ in 0..MAX_WRITTEN {
        if register > written.last {
            break;
        }
        let kept = Checked::from_bits(p.keep_register(register, interval));
        interval = kept.interval;
        register = register.wrapping_add(u32::from(kept.width));
    }
}

/// Remembers the values of the request at `at`, which the responder has answered, as confirmed. The
/// unit is that of the reply in the workspace.
#[inline(always)]
pub fn confirm<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) {
    let Ok(written) = written(source, at) else {
        return;
    };
    p.workspace().written = written;
    let mut register = written.first;
    for _ in 0..MAX_WRITTEN {
        if register > written.last {
            break;
        }
        let kept = Checked::from_bits(p.keep_register(register, CONFIRMED));
        register = register.wrapping_add(u32::from(kept.width));
    }
}

/// In place of an interval: [`keep_register`] is to confirm what it kept before.
const CONFIRMED: u32 = u32::MAX;

/// Remembers the number that begins at one register, if its last value counts; answers as
/// [`check_register`] does.
#[inline(always)]
pub fn keep_register<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    register: u32,
    interval: u32,
) -> u64 {
    let written = p.seen().written;
    let mut kept = Checked {
        reason: 0,
        width: 1,
        is_guarded: false,
        interval,
    };
    let Some(key) = register_key(p, register) else {
        return kept.to_bits();
    };
    let known = p.last_value(&key);
    if interval == CONFIRMED && known.is_none() {
        return kept.to_bits();
    }
    let mut last = known.unwrap_or_default();
    let mut limits = Limits {
        number: last.number,
        low_word_first: last.low_word_first,
        ..Limits::default()
    };
    if interval != CONFIRMED {
        let Some((index, interval)) = interval_of(p, register, interval) else {
            return kept.to_bits();
        };
        kept.interval = index;
        limits = p.limits(p.seen().slot, interval.limits).unwrap_or_default();
        if interval.limits == 0 || limits.flags & limit::STEP == 0 {
            kept.width = width(&limits);
            return kept.to_bits();
        }
    }
    kept.width = width(&limits);
    let Ok(raw) = read(source, &written, register, &limits) else {
        return kept.to_bits();
    };
    if interval == CONFIRMED {
        last.confirmed = raw;
        last.is_confirmed = 1;
    } else {
        if last.number != limits.number || last.low_word_first != limits.low_word_first {
            last.is_confirmed = 0;
        }
        last.passed = raw;
        last.number = limits.number;
        last.low_word_first = limits.low_word_first;
    }
    p.set_last_value(&key, &last);
    kept.to_bits()
}

#[inline(always)]
const fn width(limits: &Limits) -> u8 {
    if number::width(limits.number) == 2 {
        2
    } else {
        1
    }
}

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

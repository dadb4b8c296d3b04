//! One request. It is judged as soon as the bytes that decide are there, and again when it is
//! whole; it passes as a whole only when the length in the MBAP header, the length that the
//! function implies and the bytes agree.

use crate::bytes::ByteSource;
use crate::event::{EventOperation, field};
use crate::platform::Platform;
use crate::rate;
use crate::table::{Interval, Limits, Operation, limit, operation};
use crate::verdict::Reason;

use super::function::{self, Body, FunctionCode};
use super::{
    Judged, LENGTH_COUNTS_FROM, Rest, check_header, interval_of_cell, number_of, outstanding,
};

/// Judges the ADU that begins at `at` in `source`, of which `bytes` bytes are there. What it asks
/// for is left in the workspace.
#[inline(always)]
pub fn judge_adu<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32, bytes: u32) -> Judged {
    let workspace = p.workspace();
    workspace.operation.fields = 0;
    workspace.is_guarded = 0;
    if bytes < 8 {
        return match begin(source, at, bytes) {
            Ok(()) => Judged::allowed(0),
            Err(reason) => Judged::denied(reason, 0),
        };
    }
    if let Err(reason) = read_header(p, source, at) {
        return Judged::denied(reason, 0);
    }
    let adu_bytes = u32::from(p.seen().operation.length).wrapping_add(LENGTH_COUNTS_FROM);
    let judged = match judge(p, source, at, bytes) {
        Ok(_) if bytes < adu_bytes => return Judged::allowed(0),
        Ok(rest) => return Judged::allowed(adu_bytes).but(rest),
        Err(reason) => Judged::denied(reason, adu_bytes),
    };
    describe(p, source, at, bytes);
    judged
}

/// An ADU of which less than unit and function are there: what can be checked is.
#[inline(always)]
fn begin<B: ByteSource>(source: &B, at: u32, bytes: u32) -> Result<(), Reason> {
    if bytes >= 4 && source.u16(at.wrapping_add(2))? != 0 {
        return Err(Reason::ModbusProtocolId);
    }
    if bytes >= 6 {
        check_header(0, source.u16(at.wrapping_add(4))?)?;
    }
    Ok(())
}

#[inline(always)]
fn read_header<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> Result<(), Reason> {
    let [t1, t0, p1, p0, l1, l0, unit, code] = source.u64(at)?.to_be_bytes();
    let seen = &mut p.workspace().operation;
    seen.transaction_id = u16::from_be_bytes([t1, t0]);
    seen.protocol_id = u16::from_be_bytes([p1, p0]);
    seen.length = u16::from_be_bytes([l1, l0]);
    seen.unit = unit;
    seen.function = code;
    seen.fields = field::HEADER | field::FUNCTION;
    check_header(seen.protocol_id, seen.length)
}

/// For the event, what the denied ADU asks for, as far as it is there.
#[inline(always)]
fn describe<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32, bytes: u32) {
    let seen = &mut p.workspace().operation;
    let code = FunctionCode(seen.function);
    if seen.fields & field::ADDRESS != 0 || bytes < 12 || !code.has_address() {
        return;
    }
    if let Ok(operands) = source.u32(at.wrapping_add(8)) {
        note_address(seen, operands);
    }
}

#[inline(always)]
fn note_address(seen: &mut EventOperation, operands: u32) {
    let [a1, a0, q1, q0] = operands.to_be_bytes();
    let code = FunctionCode(seen.function);
    seen.address = u16::from_be_bytes([a1, a0]);
    seen.fields |= field::ADDRESS;
    if code.has_quantity() {
        seen.quantity = u16::from_be_bytes([q1, q0]);
        seen.fields |= field::QUANTITY;
    } else {
        seen.quantity = 1;
    }
}

/// Holds the ADU against the rules, but for what it writes.
#[inline(always)]
fn judge<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    at: u32,
    bytes: u32,
) -> Result<Rest, Reason> {
    let (slot, rule_set) = (p.seen().slot, p.seen().rule_set);
    let (unit, code) = (p.seen().operation.unit, p.seen().operation.function);
    let length = u32::from(p.seen().operation.length);
    let row = p.operation_row(slot, rule_set, unit);
    if row == 0 {
        return Err(Reason::UnitNotAllowed);
    }
    let Some(cell) = p.operation(slot, row, code) else {
        return Err(Reason::FunctionNotAllowed);
    };
    if cell.kind == operation::DENIED {
        return Err(Reason::FunctionNotAllowed);
    }
    let function = FunctionCode(code);
    let adu_bytes = length.wrapping_add(LENGTH_COUNTS_FROM);
    let there = bytes.min(adu_bytes);
    let workspace = p.workspace();
    workspace.rule = cell.rule;
    workspace.limits = 0;
    // The bytes that decide, before the whole is there.
    let found = read_operand(&mut workspace.operation, source, at, there, length)?;
    if found == NOT_THERE {
        return if bytes >= adu_bytes {
            // Whole, and yet without what the function must have.
            Err(Reason::ModbusLengthMismatch)
        } else {
            Ok(Rest::Nothing)
        };
    }
    if cell.kind != operation::RANGES {
        return Ok(Rest::Nothing);
    }
    if function.has_files() {
        return Ok(Rest::Files);
    }
    let read_last = if function.has_address() {
        last_of(p.seen().operation.address, p.seen().operation.quantity)
    } else {
        found
    };
    let (mut at_interval, mut interval) = find(p, &cell, found, read_last)?;
    let mut last = read_last;
    if function == FunctionCode::READ_WRITE_MULTIPLE_REGISTERS {
        if there < 16 {
            return Ok(Rest::Nothing);
        }
        let [a1, a0, q1, q0] = source.u32(at.wrapping_add(12))?.to_be_bytes();
        let (first, quantity) = (u16::from_be_bytes([a1, a0]), u16::from_be_bytes([q1, q0]));
        last = last_of(first, quantity);
        match find(p, &cell, u32::from(first), last) {
            Ok((_, written)) if !share_a_rate(p, slot, &interval, &written) => {
                return Err(function.operand_reason());
            }
            Ok(written) => (at_interval, interval) = written,
            Err(reason) => {
                let seen = &mut p.workspace().operation;
                seen.address = first;
                seen.quantity = quantity;
                return Err(reason);
            }
        }
    }
    let workspace = p.workspace();
    workspace.interval = at_interval;
    workspace.rule = interval.rule;
    workspace.limits = interval.limits;
    let flags = match limits_of(p, slot, interval.limits) {
        Some(limits) => {
            if limits.flags & limit::LENGTH != 0 && length > u32::from(limits.max_length) {
                return Err(Reason::ModbusLength);
            }
            limits.flags
        }
        None => 0,
    };
    if function.writes() && (flags & limit::WRITTEN != 0 || last > u32::from(interval.last)) {
        return Ok(if function.has_coils() {
            Rest::Coils
        } else {
            Rest::Registers
        });
    }
    Ok(Rest::Nothing)
}

/// Whether one operation may lie in both of two intervals: they are of one rule, or no rate is
/// counted for either. An operation is on the account of one rule.
#[inline(always)]
fn share_a_rate<P: Platform>(p: &P, slot: u32, one: &Interval, other: &Interval) -> bool {
    one.rule == other.rule || !(is_rated(p, slot, one.limits) || is_rated(p, slot, other.limits))
}

#[inline(always)]
fn is_rated<P: Platform>(p: &P, slot: u32, row: u16) -> bool {
    match limits_of(p, slot, row) {
        Some(limits) => limits.flags & limit::RATE != 0,
        None => false,
    }
}

/// The last of `quantity` registers or coils from `first` on; never before the first.
#[inline(always)]
pub(super) fn last_of(first: u16, quantity: u16) -> u32 {
    let quantity = u32::from(quantity);
    let behind = if quantity == 0 {
        0
    } else {
        quantity.wrapping_sub(1)
    };
    u32::from(first).wrapping_add(behind)
}

/// Finds the interval of the first operand, which must reach as far as the last, and its index.
#[inline(always)]
fn find<P: Platform>(
    p: &mut P,
    cell: &Operation,
    operand: u32,
    last: u32,
) -> Result<(u32, Interval), Reason> {
    let denied = FunctionCode(p.seen().operation.function).operand_reason();
    let found = interval_of_cell(p, p.seen().slot, cell, operand);
    if found == 0 {
        return Err(denied);
    }
    let index = found.wrapping_sub(1);
    match p.interval(p.seen().slot, index) {
        Some(interval)
            if operand >= u32::from(interval.first)
                && last <= u32::from(interval.reach)
                && operand <= u32::from(interval.last) =>
        {
            Ok((index, interval))
        }
        _ => Err(denied),
    }
}

#[inline(always)]
pub(super) fn limits_of<P: Platform>(p: &P, slot: u32, row: u16) -> Option<Limits> {
    if row == 0 { None } else { p.limits(slot, row) }
}

/// A whole ADU that the rules allow: may one more be outstanding, and does it come too early? Then
/// it is counted.
#[inline(always)]
pub(super) fn accept<P: Platform>(p: &mut P, sequence: u32, adu_bytes: u32) -> Result<(), Reason> {
    let slot = p.seen().slot;
    let (rule, row) = (p.seen().rule, p.seen().limits);
    if let Some(limits) = limits_of(p, slot, row)
        && limits.flags & limit::RATE != 0
        && !rate::take_of_rule(p, rule, limits.rate_interval, limits.rate_burst)
    {
        return Err(Reason::RateExceeded);
    }
    outstanding::add(p, sequence, adu_bytes)?;
    p.count_rule(rule, 1);
    p.judged(0);
    Ok(())
}

/// [`accept`] as a stage: 0, or the number of the reason.
#[inline(always)]
pub fn accept_adu<P: Platform>(p: &mut P, sequence: u32, adu_bytes: u32) -> u32 {
    number_of(accept(p, sequence, adu_bytes))
}

/// What [`read_operand`] answers when the bytes are not there yet.
const NOT_THERE: u32 = u32::MAX;

/// Holds the length against the function, and reads what a rule may ask for: the sub-function, the
/// MEI type, or the address (0 where there is none).
#[inline(always)]
fn read_operand<B: ByteSource>(
    seen: &mut EventOperation,
    source: &B,
    at: u32,
    bytes: u32,
    length: u32,
) -> Result<u32, Reason> {
    let code = FunctionCode(seen.function);
    let data_at = at.wrapping_add(8);
    let mismatch = Err(Reason::ModbusLengthMismatch);
    match code.request_body() {
        Body::Fixed { length: wanted } if length != u32::from(wanted) => return mismatch,
        Body::Counted {
            count_at,
            before_count,
        } => {
            let count_at = u32::from(count_at);
            if length < u32::from(before_count) {
                return mismatch;
            }
            if bytes > count_at {
                let count = source.u8(at.wrapping_add(count_at))?;
                if length != u32::from(before_count).wrapping_add(u32::from(count)) {
                    return mismatch;
                }
            }
        }
        Body::Diagnostics => return read_diagnostics(seen, source, at, bytes, length),
        Body::Encapsulated => {
            if length < 3 {
                return mismatch;
            }
            if bytes < 9 {
                return Ok(NOT_THERE);
            }
            seen.sub_function = u16::from(source.u8(data_at)?);
            seen.fields |= field::SUB_FUNCTION;
            if seen.sub_function == function::MEI_READ_DEVICE_IDENTIFICATION && length != 5 {
                return mismatch;
            }
            return Ok(u32::from(seen.sub_function));
        }
        Body::Fixed { .. } | Body::Any => {}
    }
    if code == FunctionCode::READ_FIFO_QUEUE {
        if bytes < 10 {
            return Ok(NOT_THERE);
        }
        seen.address = source.u16(data_at)?;
        seen.quantity = 1;
        seen.fields |= field::ADDRESS;
        return Ok(u32::from(seen.address));
    }
    if code.has_address() {
        if bytes < 12 {
            return Ok(NOT_THERE);
        }
        note_address(seen, source.u32(data_at)?);
        check_quantity(source, at, bytes, code, seen.quantity)?;
        return Ok(u32::from(seen.address));
    }
    Ok(0)
}

/// V1.1b3 §6.8: a sub-function and at least two bytes, in pairs.
#[inline(always)]
fn read_diagnostics<B: ByteSource>(
    seen: &mut EventOperation,
    source: &B,
    at: u32,
    bytes: u32,
    length: u32,
) -> Result<u32, Reason> {
    if length < 6 || length & 1 != 0 {
        return Err(Reason::ModbusLengthMismatch);
    }
    if bytes < 10 {
        return Ok(NOT_THERE);
    }
    seen.sub_function = source.u16(at.wrapping_add(8))?;
    seen.fields |= field::SUB_FUNCTION;
    // Only an echo has data of any length (§6.8.1).
    if seen.sub_function != 0 && length != 6 {
        return Err(Reason::ModbusLengthMismatch);
    }
    Ok(u32::from(seen.sub_function))
}

/// A multiple write's byte count must be what its quantity implies (V1.1b3 §6.11, §6.12, §6.17).
#[inline(always)]
fn check_quantity<B: ByteSource>(
    source: &B,
    at: u32,
    bytes: u32,
    code: FunctionCode,
    quantity: u16,
) -> Result<(), Reason> {
    let (count, count_at) = match code {
        FunctionCode::WRITE_MULTIPLE_COILS => (u32::from(quantity).wrapping_add(7) >> 3, 12),
        FunctionCode::WRITE_MULTIPLE_REGISTERS => (u32::from(quantity) << 1, 12),
        FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => {
            if bytes < 16 {
                return Ok(());
            }
            (u32::from(source.u16(at.wrapping_add(14))?) << 1, 16)
        }
        _ => return Ok(()),
    };
    if bytes <= count_at {
        return Ok(());
    }
    if u32::from(source.u8(at.wrapping_add(count_at))?) == count {
        Ok(())
    } else {
        Err(Reason::ModbusLengthMismatch)
    }
}

//! Records of files: functions 20 and 21 (V1.1b3 §6.14, §6.15).

use crate::bytes::ByteSource;
use crate::event::field;
use crate::platform::Platform;
use crate::table::limit;
use crate::verdict::Reason;

use super::function::FunctionCode;
use super::request::limits_of;
use super::{Judged, interval_of_cell, number_of};

/// Sub-requests of seven bytes that fit in one request.
pub const MAX_SUB_REQUESTS: u32 = 35;
/// Bytes of a sub-request without the records that it carries.
const SUB_REQUEST_BYTES: u32 = 7;
/// Where the sub-requests begin.
const SUB_REQUESTS_AT: u32 = 9;
/// The only reference type there is.
const REFERENCE_TYPE: u8 = 6;

/// Holds every sub-request of the whole request at `at` against the rules: 0, or the number of the
/// reason.
#[inline(always)]
pub fn check<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> u32 {
    number_of(sub_requests(p, source, at))
}

#[inline(always)]
fn sub_requests<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) -> Result<(), Reason> {
    let bytes = u32::from(source.u8(at.wrapping_add(SUB_REQUESTS_AT - 1))?);
    let first = at.wrapping_add(SUB_REQUESTS_AT);
    let mut offset = 0_u32;
    for number in 0..MAX_SUB_REQUESTS {
        if offset >= bytes {
            break;
        }
        let here = first.wrapping_add(offset);
        let judged = Judged::from_bits(p.check_file(here, u32::from(number == 0)));
        if let Some(reason) = Reason::from_number(judged.reason_number()) {
            return Err(reason);
        }
        offset = offset.wrapping_add(judged.bytes());
    }
    if offset == bytes {
        Ok(())
    } else {
        Err(Reason::ModbusLengthMismatch)
    }
}

/// Holds the sub-request at `at` against the rules; answers its bytes. One request is on the account
/// of one rule, that of its first sub-request.
#[inline(always)]
pub fn check_file<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    at: u32,
    is_first: bool,
) -> Judged {
    match sub_request(p, source, at, is_first) {
        Ok(bytes) => Judged::allowed(bytes),
        Err(reason) => Judged::denied(reason, 0),
    }
}

#[inline(always)]
fn sub_request<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    at: u32,
    is_first: bool,
) -> Result<u32, Reason> {
    let slot = p.seen().slot;
    let (unit, code) = (p.seen().operation.unit, p.seen().operation.function);
    let row = p.operation_row(slot, p.seen().rule_set, unit);
    let Some(cell) = p.operation(slot, row, code) else {
        return Err(Reason::FunctionNotAllowed);
    };
    let reference = source.u8(at)?;
    let file = source.u16(at.wrapping_add(1))?;
    let record = source.u16(at.wrapping_add(3))?;
    let length = source.u16(at.wrapping_add(5))?;
    let mut bytes = SUB_REQUEST_BYTES;
    if FunctionCode(code) == FunctionCode::WRITE_FILE_RECORD {
        // More would not fit in an ADU.
        if length > 0x7f {
            return Err(Reason::ModbusLengthMismatch);
        }
        bytes = bytes.wrapping_add(u32::from(length) << 1);
    }
    let seen = &mut p.workspace().operation;
    seen.address = file;
    seen.sub_function = record;
    seen.quantity = length;
    seen.fields |= field::ADDRESS | field::QUANTITY | field::SUB_FUNCTION;
    if reference != REFERENCE_TYPE {
        return Err(Reason::RegisterNotAllowed);
    }
    let found = interval_of_cell(p, p.seen().slot, &cell, u32::from(file));
    let interval = match p.interval(slot, found.wrapping_sub(1)) {
        Some(interval) if found != 0 && interval.first <= file && file <= interval.last => interval,
        _ => return Err(Reason::RegisterNotAllowed),
    };
    let limits = limits_of(p, slot, interval.limits).unwrap_or_default();
    if limits.flags & limit::RECORDS != 0 {
        let end = u32::from(record).wrapping_add(u32::from(length));
        if record < limits.first_record || end > u32::from(limits.last_record).wrapping_add(1) {
            return Err(Reason::RegisterNotAllowed);
        }
    }
    let other_rule = interval.rule != p.seen().rule;
    if is_first {
        let workspace = p.workspace();
        workspace.rule = interval.rule;
        workspace.limits = interval.limits;
    } else if other_rule && limits.flags & limit::RATE != 0 {
        return Err(Reason::RegisterNotAllowed);
    }
    Ok(bytes)
}

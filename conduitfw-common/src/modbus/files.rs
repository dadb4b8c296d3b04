//! Records of files: functions 20 and 21 (V1.1b3 §6.14, §6.15).

use crate::bytes::ByteSource;
use crate::event::field;
use crate::platform::Platform;
use crate::table::limit;
use crate::verdict::Reason;

use super::function::FunctionCode;
use super::number_of;
use super::request::limits_of;

/// Sub-requests of seven bytes that fit in one request.
pub const MAX_SUB_REQUESTS: u32 = 35;
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
    let (slot, rule_set) = (p.seen().slot, p.seen().rule_set);
    let (unit, code) = (p.seen().operation.unit, p.seen().operation.function);
    let row = p.operation_row(slot, rule_set, unit);
    let Some(cell) = p.operation(slot, row, code) else {
        return Err(Reason::FunctionNotAllowed);
    };
    let carries_records = FunctionCode(code) == FunctionCode::WRITE_FILE_RECORD;
    let end = u32::from(source.u8(at.wrapping_add(8))?).wrapping_add(9);
    let mut offset = 9_u32;
    for number in 0..MAX_SUB_REQUESTS {
        if offset >= end {
            break;
        }
        let here = at.wrapping_add(source.within(offset, 0x1ff));
        let reference = source.u8(here)?;
        let file = source.u16(here.wrapping_add(1))?;
        let record = source.u16(here.wrapping_add(3))?;
        let length = source.u16(here.wrapping_add(5))?;
        offset = offset.wrapping_add(7);
        if carries_records {
            offset = offset.wrapping_add(u32::from(length) << 1);
        }
        if offset > end {
            return Err(Reason::ModbusLengthMismatch);
        }
        let seen = &mut p.workspace().operation;
        seen.address = file;
        seen.sub_function = record;
        seen.quantity = length;
        seen.fields |= field::ADDRESS | field::QUANTITY | field::SUB_FUNCTION;
        if reference != REFERENCE_TYPE {
            return Err(Reason::RegisterNotAllowed);
        }
        let found = p.find_interval(cell.first, cell.count, u32::from(file));
        if found == 0 {
            return Err(Reason::RegisterNotAllowed);
        }
        let Some(interval) = p.interval(slot, found.wrapping_sub(1)) else {
            return Err(Reason::RegisterNotAllowed);
        };
        let limits = limits_of(p, slot, interval.limits).unwrap_or_default();
        if limits.flags & limit::RECORDS != 0 {
            let last = u32::from(record).wrapping_add(u32::from(length));
            if record < limits.first_record || last > u32::from(limits.last_record).wrapping_add(1)
            {
                return Err(Reason::RegisterNotAllowed);
            }
        }
        // One request is on the account of one rule.
        if number == 0 {
            let workspace = p.workspace();
            workspace.rule = interval.rule;
            workspace.limits = interval.limits;
        } else if interval.rule != p.seen().rule && limits.flags & limit::RATE != 0 {
            return Err(Reason::RegisterNotAllowed);
        }
    }
    if offset == end {
        Ok(())
    } else {
        Err(Reason::ModbusLengthMismatch)
    }
}

//! inspect and decide: Modbus/TCP.
//!
//! MODBUS Messaging on TCP/IP Implementation Guide V1.0b §3.1 (MBAP header) and MODBUS Application
//! Protocol Specification V1.1b3 (PDU). An ADU is judged as soon as the bytes that decide are
//! there, and again when it is whole; it passes as a whole only when the length in the MBAP header,
//! the length that the function implies and the bytes agree.

pub mod function;
pub mod number;

use crate::bytes::ByteSource;
use crate::event::{EventOperation, field};
use crate::platform::Platform;
use crate::table::{INTERVAL_SEARCH_STEPS, operation};
use crate::verdict::Reason;
use function::{Body, FunctionCode};

/// Bytes of an MBAP header up to and with the length field, which the length does not count.
pub const LENGTH_COUNTS_FROM: u32 = 6;
/// Lowest value of the length field: unit id and function code.
pub const MINIMUM_LENGTH: u16 = 2;
/// Highest value of the length field: unit id and a PDU of 253 bytes.
pub const MAXIMUM_LENGTH: u16 = 254;
/// The longest ADU: 6 + 254 bytes.
pub const MAXIMUM_ADU_BYTES: u32 = 260;

const REASON_SHIFT: u32 = 32;

/// What [`judge_adu`] found, small enough to cross a stage.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged(u64);

impl Judged {
    /// The bytes could not be read.
    pub const UNREADABLE: Self = Self::denied(Reason::TruncatedFrame);

    /// The ADU is allowed and this many bytes long; 0 when more bytes must come first.
    #[inline(always)]
    const fn allowed(bytes: u32) -> Self {
        Self(from_u32(bytes))
    }

    /// The ADU is denied.
    #[inline(always)]
    const fn denied(reason: Reason) -> Self {
        Self(from_u8(reason.number()) << REASON_SHIFT)
    }

    /// Bytes of the ADU, 0 when it is not whole.
    ///
    /// # Errors
    /// The reason why it is denied.
    #[inline(always)]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "fields of a word"
    )]
    pub const fn outcome(self) -> Result<u32, Reason> {
        match (self.0 >> REASON_SHIFT) as u8 {
            0 => Ok(self.0 as u32 & 0x1ff),
            number => match Reason::from_number(number) {
                Some(reason) => Err(reason),
                None => Err(Reason::ModbusLength),
            },
        }
    }

    /// As a word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From a word that [`Self::to_bits`] made.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "widening, in a const")]
const fn from_u32(number: u32) -> u64 {
    number as u64
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "widening, in a const")]
const fn from_u8(number: u8) -> u64 {
    number as u64
}

/// Judges the ADU that begins at `at` in `source`, of which `bytes` bytes are there.
#[inline(always)]
pub fn judge_adu<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    at: u32,
    bytes: u32,
    rule_set: u16,
) -> Judged {
    let mut seen = EventOperation::default();
    match judge(p, source, at, bytes, rule_set, &mut seen) {
        Ok(consumed) => Judged::allowed(consumed),
        Err(reason) => {
            describe(source, at, bytes, &mut seen);
            p.workspace().operation = seen;
            Judged::denied(reason)
        }
    }
}

/// For the event, what the denied ADU asks for, as far as it is there.
#[inline(always)]
fn describe<B: ByteSource>(source: &B, at: u32, bytes: u32, seen: &mut EventOperation) {
    if seen.fields & field::FUNCTION == 0
        || seen.fields & field::ADDRESS != 0
        || bytes < 12
        || !FunctionCode(seen.function).has_address()
    {
        return;
    }
    let Ok(operands) = source.u32(at.wrapping_add(8)) else {
        return;
    };
    let [a1, a0, q1, q0] = operands.to_be_bytes();
    seen.address = u16::from_be_bytes([a1, a0]);
    seen.quantity = u16::from_be_bytes([q1, q0]);
    seen.fields |= field::ADDRESS;
    if FunctionCode(seen.function).has_quantity() {
        seen.fields |= field::QUANTITY;
    }
}

#[inline(always)]
fn judge<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    at: u32,
    bytes: u32,
    rule_set: u16,
    seen: &mut EventOperation,
) -> Result<u32, Reason> {
    if bytes < 8 {
        return begin(source, at, bytes);
    }
    let [t1, t0, p1, p0, l1, l0, unit, code] = source.u64(at)?.to_be_bytes();
    seen.transaction_id = u16::from_be_bytes([t1, t0]);
    seen.protocol_id = u16::from_be_bytes([p1, p0]);
    seen.length = u16::from_be_bytes([l1, l0]);
    seen.unit = unit;
    seen.function = code;
    seen.fields = field::HEADER | field::FUNCTION;
    check_header(seen.protocol_id, seen.length)?;

    let slot = p.seen().slot;
    let row = p.operation_row(slot, rule_set, unit);
    if row == 0 {
        return Err(Reason::UnitNotAllowed);
    }
    let rule = p
        .operation(slot, row, code)
        .ok_or(Reason::FunctionNotAllowed)?;
    if rule.kind == operation::DENIED {
        return Err(Reason::FunctionNotAllowed);
    }
    let body = FunctionCode(code).request_body();
    let length = u32::from(seen.length);
    let adu_bytes = length.wrapping_add(LENGTH_COUNTS_FROM);
    // The bytes that decide, before the whole is there.
    let mut counted_rule = rule.rule;
    if let Some(operand) = operand(source, at, bytes.min(adu_bytes), body, length, seen)? {
        if rule.kind == operation::RANGES {
            counted_rule = search(p, slot, rule.first, rule.count, operand)
                .ok_or(FunctionCode(code).operand_reason())?;
        }
    } else if bytes >= adu_bytes {
        // Whole, and yet without what the function must have.
        return Err(Reason::ModbusLengthMismatch);
    }
    if bytes < adu_bytes {
        return Ok(0);
    }
    p.count_rule(counted_rule);
    Ok(adu_bytes)
}

/// An ADU of which less than unit and function are there: what can be checked is.
#[inline(always)]
fn begin<B: ByteSource>(source: &B, at: u32, bytes: u32) -> Result<u32, Reason> {
    if bytes >= 4 && source.u16(at.wrapping_add(2))? != 0 {
        return Err(Reason::ModbusProtocolId);
    }
    if bytes >= 6 {
        check_header(0, source.u16(at.wrapping_add(4))?)?;
    }
    Ok(0)
}

#[inline(always)]
const fn check_header(protocol_id: u16, length: u16) -> Result<(), Reason> {
    if protocol_id != 0 {
        return Err(Reason::ModbusProtocolId);
    }
    if length < MINIMUM_LENGTH || length > MAXIMUM_LENGTH {
        return Err(Reason::ModbusLength);
    }
    Ok(())
}

/// Holds the length against the function, and reads what a rule may ask for: the sub-function, the
/// MEI type, or the address (0 where there is none). `None` when it is not there yet.
#[inline(always)]
fn operand<B: ByteSource>(
    source: &B,
    at: u32,
    bytes: u32,
    body: Body,
    length: u32,
    seen: &mut EventOperation,
) -> Result<Option<u16>, Reason> {
    let data_at = at.wrapping_add(8);
    let mismatch = Err(Reason::ModbusLengthMismatch);
    match body {
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
        Body::Diagnostics if length < 6 || length & 1 != 0 => return mismatch,
        Body::Encapsulated if length < 3 => return mismatch,
        Body::Fixed { .. } | Body::Any | Body::Diagnostics | Body::Encapsulated => {}
    }
    let code = FunctionCode(seen.function);
    if matches!(body, Body::Encapsulated) {
        if bytes < 9 {
            return Ok(None);
        }
        let mei_type = u16::from(source.u8(data_at)?);
        seen.sub_function = mei_type;
        seen.fields |= field::SUB_FUNCTION;
        if mei_type == function::MEI_READ_DEVICE_IDENTIFICATION && length != 5 {
            return mismatch;
        }
        return Ok(Some(mei_type));
    }
    if matches!(body, Body::Diagnostics) {
        if bytes < 10 {
            return Ok(None);
        }
        let sub_function = source.u16(data_at)?;
        seen.sub_function = sub_function;
        seen.fields |= field::SUB_FUNCTION;
        // Only an echo has data of any length (V1.1b3 §6.8.1).
        if sub_function != 0 && length != 6 {
            return mismatch;
        }
        return Ok(Some(sub_function));
    }
    if code.has_address() {
        if bytes < 12 {
            return Ok(if length < 6 { Some(0) } else { None });
        }
        seen.address = source.u16(data_at)?;
        seen.quantity = source.u16(data_at.wrapping_add(2))?;
        seen.fields |= field::ADDRESS;
        if code.has_quantity() {
            seen.fields |= field::QUANTITY;
        }
        return check_quantity(source, at, bytes, code, seen).map(|()| Some(seen.address));
    }
    Ok(Some(0))
}

/// A multiple write's byte count must be what its quantity implies (V1.1b3 §6.11, §6.12, §6.17).
#[inline(always)]
fn check_quantity<B: ByteSource>(
    source: &B,
    at: u32,
    bytes: u32,
    code: FunctionCode,
    seen: &EventOperation,
) -> Result<(), Reason> {
    let (quantity, count_at) = match code {
        FunctionCode::WRITE_MULTIPLE_COILS => (u32::from(seen.quantity).wrapping_add(7) >> 3, 12),
        FunctionCode::WRITE_MULTIPLE_REGISTERS => (u32::from(seen.quantity) << 1, 12),
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
    if u32::from(source.u8(at.wrapping_add(count_at))?) == quantity {
        Ok(())
    } else {
        Err(Reason::ModbusLengthMismatch)
    }
}

/// The rule of the interval that holds `operand`.
#[inline(always)]
fn search<P: Platform>(p: &P, slot: u32, first: u32, count: u32, operand: u16) -> Option<u16> {
    let mut low = first;
    let mut length = count;
    for _ in 0..INTERVAL_SEARCH_STEPS {
        if length <= 1 {
            break;
        }
        let half = length >> 1;
        let middle = low.wrapping_add(half);
        if p.interval(slot, middle)?.first <= operand {
            low = middle;
            length = length.wrapping_sub(half);
        } else {
            length = half;
        }
    }
    let interval = p.interval(slot, low)?;
    if length == 1 && interval.first <= operand && operand <= interval.last {
        Some(interval.rule)
    } else {
        None
    }
}

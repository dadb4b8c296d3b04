//! inspect and decide: Modbus/TCP.
//!
//! MODBUS Messaging on TCP/IP Implementation Guide V1.0b §3.1 (MBAP header) and MODBUS Application
//! Protocol Specification V1.1b3 (PDU). [`request`] judges what an initiator asks for, [`plain`] what is asked most, [`written`],
//! [`coils`] and [`files`] what it would write and where, [`last`] how far that is from before; [`outstanding`] remembers it for [`reply`].

mod asked;
pub mod coils;
pub mod files;
pub mod function;
pub mod last;
pub mod number;
pub mod outstanding;
pub mod plain;
pub mod plain_replies;
pub mod reply;
pub mod request;
pub mod written;

pub(crate) use asked::REQUEST_BYTES;

use crate::platform::Platform;
use crate::table::{INTERVAL_SEARCH_STEPS, Operation};
use crate::verdict::Reason;

/// Bytes of an MBAP header up to and with the length field, which the length does not count.
pub const LENGTH_COUNTS_FROM: u32 = 6;
/// Where the function code stands in an ADU.
pub const FUNCTION_AT: u32 = 7;
/// Lowest value of the length field: unit id and function code.
pub const MINIMUM_LENGTH: u16 = 2;
/// Highest value of the length field: unit id and a PDU of 253 bytes.
pub const MAXIMUM_LENGTH: u16 = 254;
/// The longest ADU: 6 + 254 bytes.
pub const MAXIMUM_ADU_BYTES: u32 = 260;

const REASON_SHIFT: u32 = 32;
const REGISTERS: u64 = 1 << 40;
const COILS: u64 = 1 << 41;
const FILES: u64 = 1 << 42;

/// What was found out about an ADU, small enough to cross a stage.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged(u64);

/// What of an ADU has still to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// The registers that it writes: [`written::check_registers`].
    Registers,
    /// The coils that it writes: [`coils::check_coils`].
    Coils,
    /// The files that it reads or writes: [`files::check`].
    Files,
}

impl Judged {
    /// The bytes could not be read.
    pub const UNREADABLE: Self = Self::denied(Reason::TruncatedFrame, 0);

    /// The ADU is allowed and this many bytes long; 0 when more bytes must come first.
    #[inline(always)]
    pub(crate) const fn allowed(bytes: u32) -> Self {
        Self(from_u32(bytes))
    }

    /// The ADU is denied; it is this many bytes long, or 0 when its header is not to be believed.
    #[inline(always)]
    pub(crate) const fn denied(reason: Reason, bytes: u32) -> Self {
        Self(from_u8(reason.number()) << REASON_SHIFT | from_u32(bytes))
    }

    /// The same, and the rest is to be looked at.
    #[inline(always)]
    pub(crate) const fn but(self, rest: Rest) -> Self {
        Self(
            self.0
                | match rest {
                    Rest::Nothing => 0,
                    Rest::Registers => REGISTERS,
                    Rest::Coils => COILS,
                    Rest::Files => FILES,
                },
        )
    }

    /// Bytes of the ADU; 0 when it is not whole, or denied for a header that is not to be believed.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "fields of a word"
    )]
    pub const fn bytes(self) -> u32 {
        self.0 as u32 & 0x1ff
    }

    /// Number of the reason; 0 when nothing is wrong.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "fields of a word"
    )]
    pub const fn reason_number(self) -> u8 {
        (self.0 >> REASON_SHIFT) as u8
    }

    /// What is still to be looked at.
    #[inline(always)]
    #[must_use]
    pub const fn rest(self) -> Rest {
        match self.0 & (REGISTERS | COILS | FILES) {
            0 => Rest::Nothing,
            REGISTERS => Rest::Registers,
            COILS => Rest::Coils,
            _ => Rest::Files,
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

/// The number of a result's reason, 0 for none.
#[inline(always)]
const fn number_of(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => u32::from_be_bytes([0, 0, 0, reason.number()]),
    }
}

/// Whether the intervals of a cell are searched, and not found by one look.
#[inline(always)]
const fn is_searched(cell: &Operation) -> bool {
    cell.count != 1 && cell.pages == 0
}

/// The interval of a cell that holds `operand`: its index within the slot plus 1, or 0.
#[inline(always)]
fn interval_of_cell<P: Platform>(p: &mut P, slot: u32, cell: &Operation, operand: u32) -> u32 {
    // A single one is held against the operand by whoever asks.
    if cell.count == 1 {
        return cell.first.wrapping_add(1);
    }
    if is_searched(cell) {
        return p.find_interval(cell.first, cell.count, operand);
    }
    let [_, beyond, page, low] = operand.to_be_bytes();
    if beyond != 0 || page < cell.first_page || page > cell.last_page {
        return 0;
    }
    let row = u32::from(cell.pages)
        .wrapping_sub(1)
        .wrapping_add(u32::from(page))
        .wrapping_sub(u32::from(cell.first_page));
    match p.page(slot, row, low) {
        0 => 0,
        number => cell.first.wrapping_add(u32::from(number)),
    }
}

/// The interval that holds `operand`, of `count` from `first` on in the slot in force: its index
/// plus 1, or 0.
#[inline(always)]
pub fn find_interval<P: Platform>(p: &P, first: u32, count: u32, operand: u32) -> u32 {
    let slot = p.seen().slot;
    let mut low = first;
    let mut length = count;
    for _ in 0..INTERVAL_SEARCH_STEPS {
        if length <= 1 {
            break;
        }
        let half = length >> 1;
        let middle = low.wrapping_add(half);
        let Some(interval) = p.interval(slot, middle) else {
            return 0;
        };
        if u32::from(interval.first) <= operand {
            low = middle;
            length = length.wrapping_sub(half);
        } else {
            length = half;
        }
    }
    match p.interval(slot, low) {
        Some(interval)
            if length == 1
                && u32::from(interval.first) <= operand
                && operand <= u32::from(interval.last) =>
        {
            low.wrapping_add(1)
        }
        _ => 0,
    }
}

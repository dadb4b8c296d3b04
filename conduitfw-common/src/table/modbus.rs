//! What a conduit that carries Modbus allows: operations, their operands, and what is written.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Address, PAGE_OPERANDS};

/// Value of `RULE_SETS[slot * MAX_RULE_SETS + id]`: which row of operations holds for each unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleSet {
    /// Row within the slot by unit id; 0 where no rule names the unit.
    pub rows: [u16; 256],
}

/// Value of `OPERATIONS[(slot * MAX_OPERATION_ROWS + row) * FUNCTIONS + function code]`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Operation {
    /// One of [`operation`].
    pub kind: u8,
    /// Upper byte of the operands of the first page.
    pub first_page: u8,
    /// Rule id when the kind is [`operation::ALLOWED`].
    pub rule: u16,
    /// First interval within the slot.
    pub first: u32,
    /// How many intervals: sorted, disjoint.
    pub count: u32,
    /// Row of `PAGES` of the first page within the slot, plus 1; 0 when there was no room, and the
    /// intervals are searched.
    pub pages: u16,
    /// Upper byte of the operands of the last page.
    pub last_page: u8,
    /// Zero.
    pub reserved: u8,
}

/// Value of `PAGES[slot * MAX_PAGES + row]`: for operands with the same upper byte, by their lower
/// byte, the interval that holds the operand: its number within the cell plus 1, or 0. One look
/// finds an interval, however many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Page {
    /// By the lower byte of the operand.
    pub intervals: [u16; PAGE_OPERANDS],
}

/// Kinds of [`Operation`].
pub mod operation {
    /// No rule allows the function.
    pub const DENIED: u8 = 0;
    /// Allowed with any operand.
    pub const ALLOWED: u8 = 1;
    /// Allowed when the operand lies in one of the intervals: the sub-function of function 8, the
    /// MEI type of 43, else registers or coils.
    pub const RANGES: u8 = 2;
}

/// Value of `INTERVALS[slot * MAX_INTERVALS + index]`: operands that one rule allows.
///
/// The operands are sub-functions (function 8), MEI types (43), file numbers (20, 21), else coils,
/// discrete inputs or registers, counted from 0. The intervals of one cell are sorted and disjoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Interval {
    /// First operand.
    pub first: u16,
    /// Last operand, inclusive.
    pub last: u16,
    /// The last operand, inclusive, that an operation which begins in this interval may reach: the
    /// intervals up to there follow without a gap, and none of them has a rate of another rule.
    pub reach: u16,
    /// Rule id.
    pub rule: u16,
    /// Row of `LIMITS` within the slot; 0 for none.
    pub limits: u16,
    /// Zero.
    pub reserved: u16,
}

/// Value of `LIMITS[slot * MAX_LIMITS + index]`: what a rule says about an operation beyond its
/// operands. A limit holds when its bit is set in `flags`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Limits {
    /// Bits of [`limit`].
    pub flags: u8,
    /// One of [`number`]: how written registers are read. Coils are written as 0 and 1.
    pub number: u8,
    /// 1: of a number of two registers, the first holds the lower half.
    pub low_word_first: u8,
    /// [`limit::LENGTH`]: highest MBAP length.
    pub max_length: u8,
    /// [`limit::BITS`]: bits that a write may set, and a mask write may touch.
    pub bits: u16,
    /// For [`limit::STEP`]: bits behind the point of a value in fixed point (two's complement).
    pub scale: i16,
    /// [`limit::VALUES`]: first row of `VALUE_RANGES` within the slot.
    pub first: u32,
    /// How many: sorted, disjoint.
    pub count: u32,
    /// [`limit::STEP`]: the largest change, in fixed point ([`crate::modbus::number::fixed`]).
    pub step: u64,
    /// [`limit::RATE`]: how far operations may run ahead of the rate, in 1/65,536 tick.
    pub rate_burst: u64,
    /// [`limit::RATE`]: time between two operations at the allowed rate, in 1/65,536 tick.
    pub rate_interval: u32,
    /// [`limit::RECORDS`]: first record of a file.
    pub first_record: u16,
    /// Last record, inclusive.
    pub last_record: u16,
}

/// Bits of [`Limits::flags`].
pub mod limit {
    /// Written values lie in one of `VALUE_RANGES`.
    pub const VALUES: u8 = 1;
    /// Written bits lie in [`super::Limits::bits`].
    pub const BITS: u8 = 2;
    /// A written value is not too far from the last one.
    pub const STEP: u8 = 4;
    /// Operations do not come faster than the rule allows.
    pub const RATE: u8 = 8;
    /// File records lie in a range.
    pub const RECORDS: u8 = 16;
    /// The length of the ADU is bounded, for functions that the specification does not define.
    pub const LENGTH: u8 = 32;
    /// The limits that concern each written register or coil by itself.
    pub const WRITTEN: u8 = VALUES | BITS | STEP;
}

/// How written registers are read: [`Limits::number`].
pub mod number {
    /// One register, unsigned.
    pub const U16: u8 = 0;
    /// One register, two's complement.
    pub const I16: u8 = 1;
    /// Two registers, unsigned.
    pub const U32: u8 = 2;
    /// Two registers, two's complement.
    pub const I32: u8 = 3;
    /// Two registers, IEEE 754 single precision.
    pub const F32: u8 = 4;
}

/// Value of `VALUE_RANGES[slot * MAX_VALUE_RANGES + index]`: values that may be written, as keys in
/// their order ([`crate::modbus::number::key`]).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ValueRange {
    /// First key.
    pub first: u32,
    /// Last key, inclusive.
    pub last: u32,
}

/// Key of `LAST_VALUES`: a register of a unit behind a responder.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RegisterKey {
    /// The responder.
    pub responder: Address,
    /// Its port.
    pub port: u16,
    /// The register or coil.
    pub register: u16,
    /// The unit id.
    pub unit: u32,
}

/// Value of `LAST_VALUES`: what was written to a register that a rule with `max_step` guards. A
/// step is held against both values: one that passed may never have arrived, and one that was
/// confirmed may be older.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LastValue {
    /// The value that passed last, as in [`crate::modbus::number::key`].
    pub passed: u32,
    /// The value of the last write that the responder answered with success.
    pub confirmed: u32,
    /// 1 when there is one.
    pub is_confirmed: u8,
    /// [`number`]: a register read in another way has no last value.
    pub number: u8,
    /// 1: low word first.
    pub low_word_first: u8,
    /// Zero.
    pub reserved: u8,
}

//! `[[conduits.modbus]]`: the operations that one rule allows.

use std::fmt;
use std::time::Duration;

use conduitfw_common::modbus::function::{Body, FunctionCode};

use super::super::source::Span;
use super::{ByteSet, Operands, PortRange, Written};

/// What a function works on: one of the four tables of a device (MODBUS Application Protocol
/// V1.1b3 §4.3), or its files (§6.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModbusTable {
    /// Bits that are read and written: functions 1, 5 and 15.
    Coils,
    /// Bits that are only read: function 2.
    DiscreteInputs,
    /// Registers that are only read: function 4.
    InputRegisters,
    /// Registers that are read and written: functions 3, 6, 16, 22, 23 and 24.
    HoldingRegisters,
    /// Files of records: functions 20 and 21.
    Files,
}

impl ModbusTable {
    /// Every table.
    pub const ALL: [Self; 5] = [
        Self::Coils,
        Self::DiscreteInputs,
        Self::InputRegisters,
        Self::HoldingRegisters,
        Self::Files,
    ];

    /// The table that a function works on; none for a function without one.
    #[must_use]
    pub const fn of(function: FunctionCode) -> Option<Self> {
        match function.0 {
            1 | 5 | 15 => Some(Self::Coils),
            2 => Some(Self::DiscreteInputs),
            4 => Some(Self::InputRegisters),
            3 | 6 | 16 | 22..=24 => Some(Self::HoldingRegisters),
            20 | 21 => Some(Self::Files),
            _ => None,
        }
    }

    /// The key that its ranges are given under.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Coils => "coils",
            Self::DiscreteInputs => "discrete_inputs",
            Self::InputRegisters => "input_registers",
            Self::HoldingRegisters => "holding_registers",
            Self::Files => "files",
        }
    }

    /// One of what it holds, for messages: "holding register".
    #[must_use]
    pub const fn item(self) -> &'static str {
        match self {
            Self::Coils => "coil",
            Self::DiscreteInputs => "discrete input",
            Self::InputRegisters => "input register",
            Self::HoldingRegisters => "holding register",
            Self::Files => "file",
        }
    }

    /// The leading digit of its Modicon numbers: 4 in `40011`. Files have none.
    #[must_use]
    pub const fn modicon_digit(self) -> Option<u32> {
        match self {
            Self::Coils => Some(0),
            Self::DiscreteInputs => Some(1),
            Self::InputRegisters => Some(3),
            Self::HoldingRegisters => Some(4),
            Self::Files => None,
        }
    }
}

/// Operands `first..=last`: addresses counted from 0, or file numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperandRange {
    /// The first.
    pub first: u16,
    /// The last, inclusive.
    pub last: u16,
}

impl fmt::Display for OperandRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(out, "{}", self.first)
        } else {
            write!(out, "{} to {}", self.first, self.last)
        }
    }
}

/// What a rule allows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableRanges {
    /// The table.
    pub table: ModbusTable,
    /// Ranges in the order of the text; never empty, and they may overlap.
    pub ranges: Vec<OperandRange>,
}

/// `max_rate`: `operations` in every `per`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub operations: u32,
    /// In which time: a second, a minute or an hour.
    pub per: Duration,
    /// How many at once.
    pub burst: u32,
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(out, "{}/{unit}", self.operations)?;
        if self.burst > 1 {
            write!(out, " burst {}", self.burst)?;
        }
        Ok(())
    }
}

/// `[[conduits.modbus]]`: operations that a conduit allows.
#[derive(Clone, Debug)]
pub struct ModbusRule {
    /// Its name within the conduit; `modbus-N` when the policy gives none.
    pub name: String,
    /// The responder's ports.
    pub ports: Vec<PortRange>,
    /// Unit ids.
    pub units: ByteSet,
    /// Function codes, without those of a group that the rest of the rule leaves nothing of: where
    /// `tables` is not empty, every function that works on a table has it there.
    pub functions: ByteSet,
    /// Sub-functions, where function 8 is allowed.
    pub sub_functions: Operands,
    /// MEI types, where function 43 is allowed.
    pub mei_types: Operands,
    /// Addresses and file numbers, one entry for each table that the rule names. Empty: the rule
    /// names none, and means all of every table.
    pub tables: Vec<TableRanges>,
    /// Records of the files (functions 20 and 21); none given, any.
    pub records: Option<OperandRange>,
    /// What may be written.
    pub written: Written,
    /// How fast operations may come: all that the rule allows together.
    pub max_rate: Option<Rate>,
    /// The highest MBAP length (unit id, function code and data) for functions that the
    /// specification does not define.
    pub max_length: Option<u8>,
    pub(in super::super) span: Span,
}

impl ModbusRule {
    /// The addresses or file numbers that the rule allows a function; none given, any.
    #[must_use]
    pub fn ranges(&self, function: FunctionCode) -> Option<&[OperandRange]> {
        let table = ModbusTable::of(function)?;
        if self.tables.is_empty() {
            return None;
        }
        let own = self.tables.iter().find(|own| own.table == table);
        Some(own.map_or(&[], |own| &own.ranges))
    }

    /// What the rule says about the values that a function writes, if it says anything.
    #[must_use]
    pub fn written(&self, function: FunctionCode) -> Option<&Written> {
        (self.written.is_limit() && Written::concerns(function)).then_some(&self.written)
    }

    /// The records that the rule allows a function; none given, any.
    #[must_use]
    pub fn records(&self, function: FunctionCode) -> Option<OperandRange> {
        self.records
            .filter(|_| ModbusTable::of(function) == Some(ModbusTable::Files))
    }

    /// The highest MBAP length that the rule allows a function, where it says so.
    #[must_use]
    pub fn max_length(&self, function: FunctionCode) -> Option<u8> {
        self.max_length
            .filter(|_| matches!(function.request_body(), Body::Any))
    }

    /// What the rule asks of a function beyond its operands, in words: "values 0 to 1500, steps of
    /// 50 at most". "no limits" when it asks nothing.
    #[must_use]
    pub fn limits_in_words(&self, function: FunctionCode) -> String {
        let mut words = Vec::new();
        if let Some(written) = self.written(function) {
            words.extend(written.in_words());
        }
        if let Some(records) = self.records(function) {
            words.push(format!("records {records}"));
        }
        if let Some(length) = self.max_length(function) {
            words.push(format!("a length of {length} at most"));
        }
        if let Some(rate) = self.max_rate {
            words.push(format!("{rate} at most"));
        }
        if words.is_empty() {
            return "no limits".to_owned();
        }
        words.join(", ")
    }
}

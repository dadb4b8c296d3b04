//! What functions work on, for the compiler: their operands, and which functions are alike.

use conduitfw_common::modbus::function::{Body, FunctionCode};

use super::super::model::{ModbusRule, ModbusTable, Operands, Written};

/// Functions that every rule treats alike, if it allows them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// By its table, and whether it writes what limits of values hold for.
    OfTable(ModbusTable, bool),
    /// By operands of its own.
    Own(u8),
    /// Without operands, and whether its length is known.
    Plain(bool),
}

impl Class {
    pub(super) fn of(function: FunctionCode) -> Self {
        if let Some(table) = ModbusTable::of(function) {
            return Self::OfTable(table, Written::concerns(function));
        }
        match function {
            FunctionCode::DIAGNOSTICS | FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT => {
                Self::Own(function.0)
            }
            _ => Self::Plain(!matches!(function.request_body(), Body::Any)),
        }
    }
}

/// The largest operand that there is.
pub(super) const fn largest_operand(function: FunctionCode) -> u16 {
    match function {
        FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT => 255,
        _ => u16::MAX,
    }
}

/// What a rule allows a function to be asked for: all of it where the rule names nothing.
pub(super) fn operands(rule: &ModbusRule, function: FunctionCode) -> Vec<(u16, u16)> {
    let own = match function {
        FunctionCode::DIAGNOSTICS => &rule.sub_functions,
        FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT => &rule.mei_types,
        _ => &Operands::All,
    };
    match (own, rule.ranges(function)) {
        (Operands::Ranges(ranges), _) => ranges.clone(),
        (Operands::All, None) => vec![(0, largest_operand(function))],
        (Operands::All, Some(ranges)) => ranges
            .iter()
            .map(|range| (range.first, range.last))
            .collect(),
    }
}

/// What a contradiction is about, for messages.
pub(super) fn operand_in_words(function: FunctionCode, operand: u16) -> String {
    let of_function = format!("(function {})", function.0);
    match (ModbusTable::of(function), Class::of(function)) {
        (Some(table), _) => format!("{} {operand} {of_function}", table.item()),
        (None, Class::Own(_)) => format!("operand {operand} {of_function}"),
        _ => format!("function {}", function.0),
    }
}

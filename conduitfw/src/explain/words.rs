//! Operations, and the ranges and sets of a policy, in words.

use std::fmt;

use conduitfw_common::modbus::function::FunctionCode;

use super::{
    fields::{function_words, modicon},
    operation::{Operands, Operation},
};
use crate::policy::{ByteSet, ModbusTable, OperandRange};

/// Ranges that are told at most.
pub(super) const RANGES_TOLD: usize = 6;

/// Sorted operands as ranges.
pub(super) fn runs(operands: &[u16]) -> Vec<OperandRange> {
    let mut sorted = operands.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<OperandRange> = Vec::new();
    for operand in sorted {
        match runs.last_mut() {
            Some(run) if run.last.saturating_add(1) >= operand => run.last = operand,
            _ => runs.push(OperandRange {
                first: operand,
                last: operand,
            }),
        }
    }
    runs
}

/// "holding registers 10 to 13 (40011 to 40014) and 20 (40021)".
pub(super) fn operands(table: ModbusTable, ranges: &[OperandRange]) -> String {
    if ranges.is_empty() {
        return format!("no {}", table.item());
    }
    let is_one = matches!(ranges, [one] if one.first == one.last);
    let words = ranges.iter().take(RANGES_TOLD).map(|range| {
        let first = modicon(table, range.first);
        match first {
            Some(first) if range.first == range.last => format!("{range} ({first})"),
            Some(first) => {
                let last = modicon(table, range.last).unwrap_or_default();
                format!("{range} ({first} to {last})")
            }
            None => range.to_string(),
        }
    });
    let mut words: Vec<String> = words.collect();
    if ranges.len() > RANGES_TOLD {
        words.push(format!("{} others", ranges.len() - RANGES_TOLD));
    }
    let what = if is_one {
        table.item().to_owned()
    } else {
        plural(table)
    };
    format!("{what} {}", joined(words))
}

pub(super) fn plural(table: ModbusTable) -> String {
    format!("{}s", table.item())
}

pub(super) fn bits_in_words(bits: u16) -> String {
    let set: Vec<u16> = (0..16).filter(|bit| bits >> bit & 1 == 1).collect();
    let words: Vec<String> = runs(&set).iter().map(ToString::to_string).collect();
    match set.len() {
        0 => "no bits".to_owned(),
        1 => format!("bit {}", joined(words)),
        _ => format!("bits {}", joined(words)),
    }
}

pub(super) fn named(names: &[(u16, &str)], first: u16, last: u16) -> String {
    let name = names.iter().find(|(number, _)| *number == first);
    match name {
        Some((_, name)) if first == last => format!("{name} ({first})"),
        _ if first == last => first.to_string(),
        _ => format!("{first} to {last}"),
    }
}

pub(super) fn byte_runs(set: &ByteSet) -> Vec<OperandRange> {
    runs(&set.iter().map(u16::from).collect::<Vec<_>>())
}

pub(super) fn units(set: &ByteSet) -> String {
    if *set == ByteSet::ALL {
        return "every unit".to_owned();
    }
    let ranges = byte_runs(set);
    let words: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    match ranges.as_slice() {
        [one] if one.first == one.last => format!("unit {}", one.first),
        _ => format!("units {}", joined(words)),
    }
}

pub(super) fn functions(set: &ByteSet) -> String {
    if *set == ByteSet::ALL {
        return "every function".to_owned();
    }
    let named: Vec<FunctionCode> = set.iter().map(FunctionCode).collect();
    let mut words: Vec<String> = named.iter().copied().map(function_words).collect();
    if words.len() > RANGES_TOLD {
        words = byte_runs(set).iter().map(ToString::to_string).collect();
        return format!("functions {}", joined(words));
    }
    joined(words)
}

/// "a, b and c".
pub(super) fn joined(mut words: Vec<String>) -> String {
    match (words.pop(), words.is_empty()) {
        (None, _) => "nothing".to_owned(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} and {last}", words.join(", ")),
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {} {}", self.unit, function_words(self.function))?;
        match &self.operands {
            Operands::Read { address, quantity } => {
                write!(f, " address {address} quantity {quantity}")
            }
            Operands::WriteOne { address, value } => write!(f, " address {address} value {value}"),
            Operands::WriteCoils { address, coils } => {
                let values: Vec<u16> = coils.iter().copied().map(u16::from).collect();
                write!(f, " address {address} values {}", listed(&values))
            }
            Operands::WriteRegisters {
                address,
                values,
                read,
            } => {
                write!(f, " address {address} values {}", listed(values))?;
                read.map_or(Ok(()), |(first, quantity)| {
                    write!(f, " read address {first} quantity {quantity}")
                })
            }
            Operands::Mask { address, and, or } => {
                write!(f, " address {address} and 0x{and:04x} or 0x{or:04x}")
            }
            Operands::Fifo { address } => write!(f, " address {address}"),
            Operands::Record {
                file,
                record,
                length,
                ..
            } => write!(f, " file {file} record {record} quantity {length}"),
            Operands::Sub { number, .. } if self.function == FunctionCode::DIAGNOSTICS => {
                write!(f, " sub-function {number}")
            }
            Operands::Sub { number, .. } => write!(f, " MEI type {number}"),
            Operands::Other { data } if data.is_empty() => Ok(()),
            Operands::Other { data } => write!(f, " with {} bytes", data.len()),
        }
    }
}

/// The first values, and how many more there are.
fn listed(values: &[u16]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = values.iter().take(SHOWN).map(u16::to_string).collect();
    let more = values.len().saturating_sub(SHOWN);
    if more == 0 {
        shown.join(", ")
    } else {
        format!("{} and {more} more", shown.join(", "))
    }
}

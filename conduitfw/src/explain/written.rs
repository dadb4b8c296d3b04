//! Written values against the rule that they fall to: which one it does not allow, and why.

use conduitfw_common::{
    modbus::{function::FunctionCode, number},
    table::RegisterKey,
};

use super::{
    Lack, Part,
    nearest::{Denied, holds},
    operation::{Operands, Operation},
    words::{RANGES_TOLD, bits_in_words, joined},
};
use crate::policy::{ModbusRule, ModbusTable, Number, WordOrder, Written};

impl<'a> Denied<'a> {
    /// What is written, number by number, with the rule that it falls to.
    fn writes(&self) -> Vec<Write<'a>> {
        let function = self.operation.function;
        let (first, values): (u16, Vec<u16>) = match &self.operation.operands {
            Operands::WriteOne { address, value } => (*address, vec![*value]),
            Operands::WriteCoils { address, coils } => {
                (*address, coils.iter().copied().map(u16::from).collect())
            }
            Operands::WriteRegisters {
                address, values, ..
            } => (*address, values.clone()),
            Operands::Mask { address, or, .. } => (*address, vec![*or]),
            _ => return Vec::new(),
        };
        let is_coil = ModbusTable::of(function) == Some(ModbusTable::Coils);
        let mut writes = Vec::new();
        let mut at = 0;
        while let (Some(&value), Ok(offset)) = (values.get(at), u16::try_from(at)) {
            let register = first.wrapping_add(offset);
            at += 1;
            let owner = self.allowing().find(|rule| holds(rule, function, register));
            let Some((rule, written)) =
                owner.and_then(|rule| Some((rule, rule.written(function)?)))
            else {
                continue;
            };
            let mut write = Write {
                rule,
                written,
                register,
                is_coil,
                raw: Some(u32::from(value)),
            };
            if is_coil {
                write.raw = Some(u32::from(value != 0));
            } else if written.number.registers() == 2 {
                write.raw = None;
                if is_first_half(rule, function, register)
                    && let Some(&second) = values.get(at)
                {
                    at += 1;
                    let (high, low) = match written.word_order {
                        WordOrder::HighFirst => (value, second),
                        WordOrder::LowFirst => (second, value),
                    };
                    write.raw = Some(u32::from(high) << 16 | u32::from(low));
                }
            }
            writes.push(write);
        }
        writes
    }

    pub(super) fn values(&self) -> Vec<Lack> {
        let is_mask = matches!(self.operation.operands, Operands::Mask { .. });
        for write in self.writes() {
            if let Some((part, allows)) = write.refused(self.operation, is_mask) {
                return vec![self.lack(part, write.rule, &allows)];
            }
        }
        // What the decision refuses is in the operation that it has seen.
        let told = self.allowing().take(1).map(|rule| {
            let function = self.operation.function;
            let found = self
                .seen
                .map_or_else(String::new, |seen| format!(", not {}", seen.value));
            let allows = format!("allows {}{found}", rule.limits_in_words(function));
            self.lack(Part::Value, rule, &allows)
        });
        told.collect()
    }

    pub(super) fn step(&self) -> Vec<Lack> {
        for write in self.writes() {
            let key = RegisterKey {
                register: write.register,
                unit: u32::from(self.operation.unit),
                ..RegisterKey::default()
            };
            let (Some(step), Some(raw)) = (write.written.max_step, write.raw) else {
                continue;
            };
            let Some(last) = (self.last_value)(&key) else {
                continue;
            };
            let kind = write.written.number;
            let (last, now) = (kind.number(last), kind.number(raw));
            let change = (as_real(now) - as_real(last)).abs();
            if change > as_real(step) {
                let change = rounded(change);
                let allows = format!(
                    "allows steps of {step}, not {change} from {last} to {now} ({} {})",
                    write.what(),
                    write.register
                );
                return vec![self.lack(Part::Step, write.rule, &allows)];
            }
        }
        let told = self.allowing().take(1).map(|rule| {
            let allows = format!("allows {}", rule.limits_in_words(self.operation.function));
            self.lack(Part::Step, rule, &allows)
        });
        told.collect()
    }
}

/// One written number.
struct Write<'a> {
    rule: &'a ModbusRule,
    written: &'a Written,
    register: u16,
    is_coil: bool,
    /// Nothing for half a number of two registers.
    raw: Option<u32>,
}

impl Write<'_> {
    fn what(&self) -> &'static str {
        if self.is_coil { "coil" } else { "register" }
    }

    /// What the rule says about the value, when it does not allow it.
    fn refused(&self, operation: &Operation, is_mask: bool) -> Option<(Part, String)> {
        let place = format!("{} {}", self.what(), self.register);
        let kind = self.written.number;
        if let (Operands::Mask { and, .. }, None) = (&operation.operands, self.written.bits)
            && *and != 0
        {
            let allows = "limits values, so that a mask must have and=0, which writes all bits";
            return Some((Part::Value, allows.to_owned()));
        }
        if let Some(bits) = self.written.bits {
            let touched = match &operation.operands {
                Operands::Mask { and, .. } => !and,
                _ => u16::try_from(self.raw.unwrap_or(0)).unwrap_or(u16::MAX),
            };
            if touched & !bits != 0 {
                let verb = if is_mask { "touches" } else { "sets" };
                let allows = format!(
                    "allows {}; the write {verb} {} ({place})",
                    bits_in_words(bits),
                    bits_in_words(touched & !bits)
                );
                return Some((Part::Value, allows));
            }
        }
        let Some(raw) = self.raw else {
            let allows = format!(
                "takes {} in two registers; the write has half of one ({place})",
                kind.label()
            );
            return Some((Part::Value, allows));
        };
        let values = self.written.values.as_ref()?;
        let fits = number::key(kind.kind(), raw).is_some_and(|key| {
            values.iter().any(|range| {
                let bound = |number: Number| number::key(kind.kind(), number.raw());
                bound(range.first) <= Some(key) && Some(key) <= bound(range.last)
            })
        });
        if fits {
            return None;
        }
        let words = values.iter().take(RANGES_TOLD).map(ToString::to_string);
        let mut words: Vec<String> = words.collect();
        if values.len() > RANGES_TOLD {
            words.push(format!("{} others", values.len() - RANGES_TOLD));
        }
        let found = kind.number(raw);
        let allows = format!("allows values {}, not {found} ({place})", joined(words));
        Some((Part::Value, allows))
    }
}

/// Whether a register is the first of a number of two, as the rule counts them.
fn is_first_half(rule: &ModbusRule, function: FunctionCode, register: u16) -> bool {
    let ranges = rule.ranges(function).unwrap_or_default();
    let own = ranges
        .iter()
        .find(|range| (range.first..=range.last).contains(&register));
    let first = own.map_or(0, |range| range.first);
    (register - first).is_multiple_of(2)
}

/// To as many digits as single precision has: 0.8 to 1 is 0.2.
fn rounded(number: f64) -> f64 {
    format!("{number:.6e}").parse().unwrap_or(number)
}

/// Only to be shown: near enough, and exact for numbers of 53 bits.
#[expect(clippy::cast_precision_loss, reason = "numbers of 32 bits")]
fn as_real(number: Number) -> f64 {
    match number {
        Number::Integer(number) => number as f64,
        Number::Real(number) => f64::from(number),
    }
}

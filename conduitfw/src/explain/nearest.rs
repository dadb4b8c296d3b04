//! The rule that almost allows an operation, and what it lacks.
//!
//! Nothing is decided here: the decision has said what it denies, and this is where the policy comes
//! nearest to it.

use conduitfw_common::{
    Reason,
    event::EventOperation,
    modbus::function::{FunctionCode, MEI_TYPES, SUB_FUNCTIONS},
    table::RegisterKey,
};

use super::{
    Lack, Part,
    fields::function_words,
    holds_port,
    operation::{Operands, Operation},
    words::{functions, joined, named, operands, plural, runs, units},
};
use crate::policy::{Conduit, ModbusRule, ModbusTable, Operands as RuleOperands};

/// Rules that are told at most.
const TOLD: usize = 2;

/// What is asked about, where it was denied.
pub(super) struct Denied<'a> {
    pub(super) conduit: &'a Conduit,
    pub(super) port: u16,
    pub(super) operation: &'a Operation,
    pub(super) seen: Option<EventOperation>,
    /// The value that a register was last written with, as the decision remembers it.
    pub(super) last_value: &'a dyn Fn(&RegisterKey) -> Option<u32>,
    /// Milliseconds until a rule takes another operation.
    pub(super) wait: &'a dyn Fn(&str) -> Option<u64>,
}

/// The rules that come nearest, by what the decision said.
pub(super) fn rules(denied: &Denied<'_>, reason: Reason) -> Vec<Lack> {
    match reason {
        Reason::UnitNotAllowed => denied.unit(),
        Reason::FunctionNotAllowed => denied.function(),
        Reason::SubFunctionNotAllowed | Reason::MeiTypeNotAllowed => denied.sub_function(),
        Reason::RegisterNotAllowed => denied.registers(),
        Reason::ValueNotAllowed => denied.values(),
        Reason::StepTooLarge => denied.step(),
        Reason::RateExceeded => denied.rate(),
        Reason::ModbusLength | Reason::ModbusLengthMismatch => denied.length(),
        Reason::TooManyOutstanding => vec![Lack {
            part: Part::Outstanding,
            rule: None,
            text: format!(
                "conduit `{}` allows {} requests without a reply in one connection",
                denied.conduit.name, denied.conduit.max_outstanding
            ),
        }],
        _ => Vec::new(),
    }
}

impl<'a> Denied<'a> {
    fn rules(&self) -> impl Iterator<Item = &'a ModbusRule> + use<'a> {
        let port = self.port;
        let all = self.conduit.modbus.iter();
        all.filter(move |rule| holds_port(&rule.ports, port))
    }

    /// The rules that allow the function on the unit, whatever else they ask.
    pub(super) fn allowing(&self) -> impl Iterator<Item = &'a ModbusRule> + use<'a> {
        let Operation { unit, function, .. } = *self.operation;
        self.rules()
            .filter(move |rule| rule.units.contains(unit) && rule.functions.contains(function.0))
    }

    pub(super) fn lack(&self, part: Part, rule: &ModbusRule, allows: &str) -> Lack {
        let label = self.conduit.rule_label(rule);
        Lack {
            part,
            text: format!("rule `{label}` {allows}"),
            rule: Some(label),
        }
    }

    fn unit(&self) -> Vec<Lack> {
        let Operation { unit, function, .. } = *self.operation;
        let told = self
            .rules()
            .filter(|rule| rule.functions.contains(function.0))
            .take(TOLD)
            .map(|rule| {
                let allows = format!(
                    "allows {} on {}, not on unit {unit}",
                    function_words(function),
                    units(&rule.units)
                );
                self.lack(Part::Unit, rule, &allows)
            });
        let told: Vec<Lack> = told.collect();
        if !told.is_empty() {
            return told;
        }
        let first = self.rules().next().map(|rule| {
            let allows = format!(
                "allows {} on {}; neither {} nor unit {unit} is among them",
                functions(&rule.functions),
                units(&rule.units),
                function_words(function)
            );
            self.lack(Part::Unit, rule, &allows)
        });
        first.into_iter().collect()
    }

    fn function(&self) -> Vec<Lack> {
        let Operation { unit, function, .. } = *self.operation;
        let is_write = FunctionCode::WRITES.contains(&function);
        let mut on_unit: Vec<&ModbusRule> = self
            .rules()
            .filter(|rule| rule.units.contains(unit))
            .collect();
        // A rule about writes is nearer to a write than one about reads.
        on_unit.sort_by_key(|rule| {
            let writes = rule.functions.iter().map(FunctionCode);
            let has_write = writes
                .into_iter()
                .any(|code| FunctionCode::WRITES.contains(&code));
            has_write != is_write
        });
        let mut told = Vec::new();
        if let Some(rule) = on_unit.first() {
            let allows = format!(
                "allows {} on unit {unit}, not {}",
                functions(&rule.functions),
                function_words(function)
            );
            told.push(self.lack(Part::Function, rule, &allows));
        }
        let elsewhere = self
            .rules()
            .find(|rule| rule.functions.contains(function.0));
        if let Some(rule) = elsewhere {
            let allows = format!(
                "allows {} on {}, not on unit {unit}",
                function_words(function),
                units(&rule.units)
            );
            told.push(self.lack(Part::Unit, rule, &allows));
        }
        told
    }

    fn sub_function(&self) -> Vec<Lack> {
        let Operands::Sub { number, .. } = self.operation.operands else {
            return Vec::new();
        };
        let is_diagnostics = self.operation.function == FunctionCode::DIAGNOSTICS;
        let (part, what, names) = if is_diagnostics {
            (Part::SubFunction, "sub-function", SUB_FUNCTIONS)
        } else {
            (Part::MeiType, "MEI type", MEI_TYPES)
        };
        let told = self.allowing().take(TOLD).map(|rule| {
            let operands = if is_diagnostics {
                &rule.sub_functions
            } else {
                &rule.mei_types
            };
            let allowed = match operands {
                RuleOperands::All => format!("every {what}"),
                RuleOperands::Ranges(ranges) => {
                    let words = ranges
                        .iter()
                        .map(|&(first, last)| named(names, first, last));
                    format!("{what} {}", joined(words.collect()))
                }
            };
            let allows = format!("allows {allowed}, not {}", named(names, number, number));
            self.lack(part, rule, &allows)
        });
        told.collect()
    }

    fn registers(&self) -> Vec<Lack> {
        let function = self.operation.function;
        let Some(table) = ModbusTable::of(function) else {
            return Vec::new();
        };
        if let (Operands::Record { file, .. }, Some(lack)) =
            (&self.operation.operands, self.record())
        {
            let _ = file;
            return vec![lack];
        }
        let asked = touched(self.operation);
        let is_allowed = |operand: u16| self.allowing().any(|rule| holds(rule, function, operand));
        let missing: Vec<u16> = asked
            .iter()
            .flat_map(Clone::clone)
            .filter_map(|operand| u16::try_from(operand).ok())
            .filter(|operand| !is_allowed(*operand))
            .collect();
        if asked.iter().any(|span| span.end > 0x1_0000) {
            return vec![Lack {
                part: Part::Register,
                rule: None,
                text: format!("there is no {} beyond 65535", table.item()),
            }];
        }
        if missing.is_empty() {
            return self.boundary(table, &asked);
        }
        let mut near: Vec<(u32, &ModbusRule)> = self
            .allowing()
            .map(|rule| (distance(rule, function, &missing), rule))
            .collect();
        near.sort_by_key(|(distance, _)| *distance);
        let nearest = near.first().map_or(0, |(distance, _)| *distance);
        let told = near
            .into_iter()
            .take_while(|(distance, _)| *distance == nearest)
            .take(TOLD)
            .map(|(_, rule)| {
                let own = rule.ranges(function).unwrap_or_default();
                let allows = format!(
                    "allows {}, not {}",
                    operands(table, own),
                    operands(table, &runs(&missing))
                );
                self.lack(Part::Register, rule, &allows)
            });
        told.collect()
    }

    /// Every operand is allowed, and yet not all of them in one operation.
    fn boundary(&self, table: ModbusTable, asked: &[std::ops::Range<u32>]) -> Vec<Lack> {
        let function = self.operation.function;
        let touches = |rule: &&ModbusRule| {
            let mut all = asked.iter().flat_map(Clone::clone);
            all.any(|operand| u16::try_from(operand).is_ok_and(|one| holds(rule, function, one)))
        };
        let rated = self
            .allowing()
            .filter(touches)
            .find(|rule| rule.max_rate.is_some());
        let Some(rule) = rated else {
            return Vec::new();
        };
        let allows = format!(
            "has a `max_rate`, so that one operation cannot touch {} of it and of another rule",
            plural(table)
        );
        vec![self.lack(Part::Register, rule, &allows)]
    }

    /// A rule that has the file, and not the records.
    fn record(&self) -> Option<Lack> {
        let Operands::Record {
            file,
            record,
            length,
            ..
        } = self.operation.operands
        else {
            return None;
        };
        let function = self.operation.function;
        let rule = self.allowing().find(|rule| holds(rule, function, file))?;
        let records = rule.records(function)?;
        let last = u32::from(record) + u32::from(length.max(1)) - 1;
        let allows = format!("allows records {records} of file {file}, not {record} to {last}");
        Some(self.lack(Part::Record, rule, &allows))
    }

    /// The rules that an operation falls to by its first operand.
    fn owning(&self) -> impl Iterator<Item = &'a ModbusRule> + use<'a> {
        let function = self.operation.function;
        let first = touched(self.operation).first().map(|span| span.start);
        let first = first.and_then(|operand| u16::try_from(operand).ok());
        self.allowing()
            .filter(move |rule| first.is_none_or(|first| holds(rule, function, first)))
    }

    fn length(&self) -> Vec<Lack> {
        let function = self.operation.function;
        let asked = self.operation.adu(0).len().saturating_sub(6);
        let told = self.owning().filter_map(|rule| {
            let longest = rule.max_length(function)?;
            let allows = format!(
                "allows {} with a length of {longest} at most, not {asked}",
                function_words(function)
            );
            Some(self.lack(Part::Length, rule, &allows))
        });
        told.take(TOLD).collect()
    }

    fn rate(&self) -> Vec<Lack> {
        let told = self.owning().filter_map(|rule| {
            let rate = rule.max_rate?;
            let wait = (self.wait)(&self.conduit.rule_label(rule));
            let next = wait.map_or_else(String::new, |wait| {
                format!("; the next one passes in {wait} ms")
            });
            Some(self.lack(Part::Rate, rule, &format!("allows {rate}{next}")))
        });
        told.take(TOLD).collect()
    }
}

/// The operands that an operation touches.
fn touched(operation: &Operation) -> Vec<std::ops::Range<u32>> {
    let span = |first: u16, many: usize| {
        let many = u32::try_from(many).unwrap_or(u32::MAX).max(1);
        u32::from(first)..u32::from(first).saturating_add(many)
    };
    match &operation.operands {
        Operands::Read { address, quantity } => vec![span(*address, usize::from(*quantity))],
        Operands::WriteOne { address, .. }
        | Operands::Mask { address, .. }
        | Operands::Fifo { address } => vec![span(*address, 1)],
        Operands::WriteCoils { address, coils } => vec![span(*address, coils.len())],
        Operands::WriteRegisters {
            address,
            values,
            read,
        } => {
            let read = read.map(|(first, many)| span(first, usize::from(many)));
            let mut spans: Vec<_> = read.into_iter().collect();
            spans.push(span(*address, values.len()));
            spans
        }
        Operands::Record { file, .. } => vec![span(*file, 1)],
        Operands::Sub { .. } | Operands::Other { .. } => Vec::new(),
    }
}

pub(super) fn holds(rule: &ModbusRule, function: FunctionCode, operand: u16) -> bool {
    rule.ranges(function).is_none_or(|ranges| {
        let mut ranges = ranges.iter();
        ranges.any(|range| (range.first..=range.last).contains(&operand))
    })
}

/// How far a rule is from the first operand that is missing.
fn distance(rule: &ModbusRule, function: FunctionCode, missing: &[u16]) -> u32 {
    let Some(&first) = missing.first() else {
        return 0;
    };
    let ranges = rule.ranges(function).unwrap_or_default();
    let far = ranges.iter().map(|range| {
        let to_first = range.first.abs_diff(first);
        u32::from(to_first.min(range.last.abs_diff(first)))
    });
    far.min().unwrap_or(u32::MAX)
}

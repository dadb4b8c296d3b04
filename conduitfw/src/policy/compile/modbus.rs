//! Modbus rules as rule sets, rows of operations and intervals of operands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use conduitfw_common::modbus::function::FunctionCode;
use conduitfw_common::table::{
    FUNCTIONS, Interval, Limits, MAX_INTERVALS, MAX_OPERATION_ROWS, MAX_RULE_SETS, Operation,
    RuleSet, ValueRange, operation,
};

use super::super::diagnostic::Diagnostics;
use super::super::model::{Conduit, ModbusRule, Operands, PortRange};
use super::super::resolve::does_not_fit;
use super::super::source::Span;

/// Functions that are allowed by an operand too, and the largest operand.
const DIAGNOSTICS: (FunctionCode, u16) = (FunctionCode::DIAGNOSTICS, u16::MAX);
const ENCAPSULATED_INTERFACE: (FunctionCode, u16) =
    (FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT, 255);

/// What every cell of a row that allows nothing holds.
const DENIED: Operation = Operation {
    kind: operation::DENIED,
    reserved: 0,
    rule: 0,
    first: 0,
    count: 0,
};

type Row = [Operation; FUNCTIONS as usize];

/// Ports of a conduit that the same Modbus rules hold for: indices into its rules.
pub(super) type PortGroup = (PortRange, Vec<usize>);

/// Rules listed in all port groups of a conduit together, at most.
const MAX_GROUPED_RULES: usize = 1 << 20;

/// Cuts the ports of a conduit's Modbus rules into runs that the same rules hold for.
pub(super) fn port_groups(conduit: &Conduit, diagnostics: &mut Diagnostics) -> Vec<PortGroup> {
    // For every port where something changes: the rules that begin and those that are over.
    let mut changes: BTreeMap<u32, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (index, rule) in conduit.modbus.iter().enumerate() {
        for ports in &rule.ports {
            changes
                .entry(u32::from(ports.first))
                .or_default()
                .0
                .push(index);
            changes
                .entry(u32::from(ports.last) + 1)
                .or_default()
                .1
                .push(index);
        }
    }
    let mut groups: Vec<PortGroup> = Vec::new();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut grouped = 0;
    let mut starts = changes.into_iter().peekable();
    while let Some((port, (begin, over))) = starts.next() {
        // First the end, then the beginning: a rule may list two runs that touch.
        for index in &over {
            open.remove(index);
        }
        open.extend(begin);
        let Some((next, _)) = starts.peek() else {
            break;
        };
        let (Ok(first), Ok(last)) = (u16::try_from(port), u16::try_from(next - 1)) else {
            break;
        };
        grouped += open.len();
        if grouped > MAX_GROUPED_RULES {
            let what = "Modbus rules on overlapping ports";
            does_not_fit(what, grouped, MAX_GROUPED_RULES, conduit.span, diagnostics);
            break;
        }
        if !open.is_empty() {
            groups.push((PortRange { first, last }, open.iter().copied().collect()));
        }
    }
    groups
}

/// The tables of Modbus rules, as they grow.
#[derive(Debug)]
pub(super) struct ModbusTables {
    pub(super) rule_sets: Vec<RuleSet>,
    pub(super) operations: Vec<Row>,
    pub(super) intervals: Vec<Interval>,
    pub(super) limits: Vec<Limits>,
    pub(super) value_ranges: Vec<ValueRange>,
    known_sets: HashMap<[u16; 256], u16>,
    known_rows: HashMap<Vec<(u8, u16, u32, u32)>, u16>,
    known_runs: HashMap<Vec<(u16, u16, u16)>, u32>,
    full: bool,
}

impl ModbusTables {
    pub(super) fn new() -> Self {
        Self {
            rule_sets: vec![RuleSet { rows: [0; 256] }],
            operations: vec![[DENIED; FUNCTIONS as usize]],
            intervals: Vec::new(),
            limits: vec![Limits::default()],
            value_ranges: Vec::new(),
            known_sets: HashMap::new(),
            known_rows: HashMap::new(),
            known_runs: HashMap::new(),
            full: false,
        }
    }

    /// The number of the rule set for rules of one conduit, given with their ids.
    pub(super) fn rule_set(
        &mut self,
        rules: &[(&ModbusRule, u16)],
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> u16 {
        let mut rows = [0; 256];
        let mut row_of: HashMap<Vec<usize>, u16> = HashMap::new();
        for (unit, row) in (0..=u8::MAX).zip(&mut rows) {
            let holding: Vec<usize> = (0..rules.len())
                .filter(|&index| rules[index].0.units.contains(unit))
                .collect();
            if holding.is_empty() {
                continue;
            }
            *row = if let Some(row) = row_of.get(&holding) {
                *row
            } else {
                let rules: Vec<_> = holding.iter().map(|&index| rules[index]).collect();
                let row = self.row(&rules, span, diagnostics);
                row_of.insert(holding, row);
                row
            };
        }
        if let Some(known) = self.known_sets.get(&rows) {
            return *known;
        }
        let limit = MAX_RULE_SETS as usize;
        let number = self.number(
            "sets of Modbus rules",
            self.rule_sets.len(),
            limit,
            span,
            diagnostics,
        );
        if let Some(number) = number {
            self.rule_sets.push(RuleSet { rows });
            self.known_sets.insert(rows, number);
        }
        number.unwrap_or(0)
    }

    fn row(
        &mut self,
        rules: &[(&ModbusRule, u16)],
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> u16 {
        let mut row = [DENIED; FUNCTIONS as usize];
        for (function, cell) in (0..=u8::MAX).zip(&mut row) {
            let allowing: Vec<_> = rules
                .iter()
                .copied()
                .filter(|rule| rule.0.functions.contains(function))
                .collect();
            *cell = self.operation(function, &allowing, span, diagnostics);
        }
        let key: Vec<_> = row
            .iter()
            .map(|cell| (cell.kind, cell.rule, cell.first, cell.count))
            .collect();
        if let Some(known) = self.known_rows.get(&key) {
            return *known;
        }
        let limit = MAX_OPERATION_ROWS as usize;
        let number = self.number(
            "distinct sets of Modbus units",
            self.operations.len(),
            limit,
            span,
            diagnostics,
        );
        if let Some(number) = number {
            self.operations.push(row);
            self.known_rows.insert(key, number);
        }
        number.unwrap_or(0)
    }

    fn operation(
        &mut self,
        function: u8,
        allowing: &[(&ModbusRule, u16)],
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> Operation {
        let Some(&(_, first_rule)) = allowing.first() else {
            return DENIED;
        };
        let allowed = Operation {
            kind: operation::ALLOWED,
            rule: first_rule,
            ..DENIED
        };
        let operands = |rule: &ModbusRule| match FunctionCode(function) {
            code if code == DIAGNOSTICS.0 => Some((rule.sub_functions.clone(), DIAGNOSTICS.1)),
            code if code == ENCAPSULATED_INTERFACE.0 => {
                Some((rule.mei_types.clone(), ENCAPSULATED_INTERFACE.1))
            }
            _ => None,
        };
        let mut ranges = Vec::new();
        let mut largest = 0;
        for &(rule, id) in allowing {
            let Some((own, end)) = operands(rule) else {
                return allowed;
            };
            largest = end;
            match own {
                // The rules before it keep what they allow, so that each counts its own.
                Operands::All => ranges.push((0, end, id)),
                Operands::Ranges(own) => {
                    ranges.extend(own.into_iter().map(|(first, last)| (first, last, id)));
                }
            }
        }
        let run = disjoint(&ranges);
        if let [(0, last, rule)] = run[..]
            && last == largest
        {
            return Operation { rule, ..allowed };
        }
        let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let first = self.interval_run(run, span, diagnostics);
        Operation {
            kind: operation::RANGES,
            first,
            count,
            ..DENIED
        }
    }

    fn interval_run(
        &mut self,
        run: Vec<(u16, u16, u16)>,
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> u32 {
        if let Some(known) = self.known_runs.get(&run) {
            return *known;
        }
        let first = self.intervals.len();
        if first + run.len() > MAX_INTERVALS as usize {
            self.refuse(
                "intervals of operands",
                first + run.len(),
                MAX_INTERVALS as usize,
                span,
                diagnostics,
            );
            return 0;
        }
        for &(first, last, rule) in &run {
            self.intervals.push(Interval {
                first,
                last,
                reach: last,
                rule,
                ..Interval::default()
            });
        }
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        self.known_runs.insert(run, first);
        first
    }

    /// The number of the next row of a table, unless the table is full.
    fn number(
        &mut self,
        what: &str,
        next: usize,
        limit: usize,
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> Option<u16> {
        if next >= limit {
            self.refuse(what, next, limit - 1, span, diagnostics);
            return None;
        }
        u16::try_from(next).ok()
    }

    /// Reports a full table, once.
    fn refuse(
        &mut self,
        what: &str,
        found: usize,
        limit: usize,
        span: Span,
        diagnostics: &mut Diagnostics,
    ) {
        if !self.full {
            self.full = true;
            does_not_fit(what, found, limit, span, diagnostics);
        }
    }
}

/// Sorted, disjoint ranges with rule ids; where two overlap, the first given one counts.
/// Neighbours of one rule are merged.
fn disjoint(ranges: &[(u16, u16, u16)]) -> Vec<(u16, u16, u16)> {
    // Every start of a range and every end opens a run in which nothing changes.
    let mut cuts: Vec<u32> = Vec::new();
    for &(first, last, _) in ranges {
        cuts.push(u32::from(first));
        cuts.push(u32::from(last) + 1);
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut run: Vec<(u16, u16, u16)> = Vec::new();
    for window in cuts.windows(2) {
        let &[start, next] = window else { continue };
        let (Ok(first), Ok(last)) = (u16::try_from(start), u16::try_from(next - 1)) else {
            continue;
        };
        let holding = ranges
            .iter()
            .find(|range| range.0 <= first && last <= range.1);
        let Some(&(_, _, rule)) = holding else {
            continue;
        };
        match run.last_mut() {
            Some(before) if before.2 == rule && u32::from(before.1) + 1 == start => before.1 = last,
            _ => run.push((first, last, rule)),
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_become_disjoint_and_the_first_counts() {
        assert_eq!(disjoint(&[]), []);
        assert_eq!(
            disjoint(&[(5, 9, 1), (10, 20, 1), (0, 2, 1)]),
            [(0, 2, 1), (5, 20, 1)]
        );
        assert_eq!(
            disjoint(&[(10, 20, 1), (5, 30, 2)]),
            [(5, 9, 2), (10, 20, 1), (21, 30, 2)]
        );
        assert_eq!(disjoint(&[(0, u16::MAX, 3)]), [(0, u16::MAX, 3)]);
        assert_eq!(disjoint(&[(7, 7, 1), (7, 7, 2)]), [(7, 7, 1)]);
    }
}

//! Modbus rules as rule sets, rows of operations and intervals of operands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use conduitfw_common::modbus::function::FunctionCode;
use conduitfw_common::table::{
    FUNCTIONS, Interval, MAX_INTERVALS, MAX_LIMITS, MAX_OPERATION_ROWS, MAX_RULE_SETS,
    MAX_VALUE_RANGES, Operation, RuleSet, operation,
};
use zerocopy::IntoBytes as _;

use super::super::diagnostic::Diagnostics;
use super::super::model::{Conduit, ModbusRule, PortRange};
use super::super::resolve::does_not_fit;
use super::contradictions::Said;
use super::intervals::{Piece, disjoint};
use super::limits::{LimitRows, NoRow};
use super::loopholes;
use super::operands::{Class, largest_operand, operands};
use super::pages::Pages;

/// What every cell of a row that allows nothing holds.
const DENIED: Operation = Operation {
    kind: operation::DENIED,
    first_page: 0,
    pages: 0,
    last_page: 0,
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

/// Rules that are compiled together, with their ids, and the conduit that they are of.
#[derive(Clone, Copy)]
pub(super) struct Rules<'p> {
    pub(super) conduit: &'p Conduit,
    pub(super) numbered: &'p [(&'p ModbusRule, u16)],
}

/// The tables of Modbus rules, as they grow.
#[derive(Debug)]
pub(super) struct ModbusTables {
    pub(super) rule_sets: Vec<RuleSet>,
    pub(super) operations: Vec<Row>,
    pub(super) intervals: Vec<Interval>,
    pub(super) pages: Pages,
    pub(super) limits: LimitRows,
    known_sets: HashMap<[u16; 256], u16>,
    known_rows: HashMap<Vec<(u8, u16, u32, u32)>, u16>,
    /// By their bytes.
    known_runs: HashMap<Vec<u8>, u32>,
    said: Said,
    full: bool,
}

impl ModbusTables {
    pub(super) fn new(ticks_per_second: u32) -> Self {
        Self {
            rule_sets: vec![RuleSet { rows: [0; 256] }],
            operations: vec![[DENIED; FUNCTIONS as usize]],
            intervals: Vec::new(),
            pages: Pages::default(),
            limits: LimitRows::new(ticks_per_second),
            known_sets: HashMap::new(),
            known_rows: HashMap::new(),
            known_runs: HashMap::new(),
            said: Said::default(),
            full: false,
        }
    }

    /// The number of the rule set for rules of one conduit.
    pub(super) fn rule_set(&mut self, rules: Rules<'_>, diagnostics: &mut Diagnostics) -> u16 {
        let mut holding: Vec<Vec<usize>> = vec![Vec::new(); 256];
        for (index, (rule, _)) in rules.numbered.iter().enumerate() {
            for unit in rule.units.iter() {
                holding[usize::from(unit)].push(index);
            }
        }
        let mut rows = [0; 256];
        let mut row_of: HashMap<Vec<usize>, u16> = HashMap::new();
        for (holding, row) in holding.into_iter().zip(&mut rows) {
            if holding.is_empty() {
                continue;
            }
            *row = if let Some(row) = row_of.get(&holding) {
                *row
            } else {
                let numbered: Vec<_> = holding.iter().map(|&index| rules.numbered[index]).collect();
                let of_unit = Rules {
                    numbered: &numbered,
                    ..rules
                };
                let row = self.row(of_unit, diagnostics);
                row_of.insert(holding, row);
                row
            };
        }
        if let Some(known) = self.known_sets.get(&rows) {
            return *known;
        }
        let (next, limit) = (self.rule_sets.len(), MAX_RULE_SETS as usize);
        let number = self.number("sets of Modbus rules", next, limit, rules, diagnostics);
        if let Some(number) = number {
            self.rule_sets.push(RuleSet { rows });
            self.known_sets.insert(rows, number);
        }
        number.unwrap_or(0)
    }

    fn row(&mut self, rules: Rules<'_>, diagnostics: &mut Diagnostics) -> u16 {
        let mut allowing: Vec<Vec<usize>> = vec![Vec::new(); FUNCTIONS as usize];
        for (index, (rule, _)) in rules.numbered.iter().enumerate() {
            for function in rule.functions.iter() {
                allowing[usize::from(function)].push(index);
            }
        }
        let mut row = [DENIED; FUNCTIONS as usize];
        // Functions that rules treat alike, and that the same rules allow, are the same cell.
        let mut known: HashMap<(Class, &[usize]), Operation> = HashMap::new();
        for ((function, cell), allowing) in (0..=u8::MAX).zip(&mut row).zip(&allowing) {
            if allowing.is_empty() {
                continue;
            }
            let function = FunctionCode(function);
            let key = (Class::of(function), allowing.as_slice());
            *cell = if let Some(known) = known.get(&key) {
                *known
            } else {
                let numbered: Vec<_> = allowing
                    .iter()
                    .map(|&index| rules.numbered[index])
                    .collect();
                let of_function = Rules {
                    numbered: &numbered,
                    ..rules
                };
                let operation = self.operation(function, of_function, diagnostics);
                known.insert(key, operation);
                operation
            };
        }
        let key: Vec<_> = row
            .iter()
            .map(|cell| (cell.kind, cell.rule, cell.first, cell.count))
            .collect();
        if let Some(known) = self.known_rows.get(&key) {
            return *known;
        }
        let (next, limit) = (self.operations.len(), MAX_OPERATION_ROWS as usize);
        let what = "distinct sets of Modbus units";
        let number = self.number(what, next, limit, rules, diagnostics);
        if let Some(number) = number {
            let found = loopholes::find(&row, &self.intervals, &self.limits.limits);
            self.said.loopholes(&found, rules, diagnostics);
            self.operations.push(row);
            self.known_rows.insert(key, number);
        }
        number.unwrap_or(0)
    }

    fn operation(
        &mut self,
        function: FunctionCode,
        allowing: Rules<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Operation {
        let mut pieces = Vec::new();
        for &(rule, id) in allowing.numbered {
            let limits = match self.limits.row(rule, id, function) {
                Ok(limits) => limits,
                Err(error) => {
                    self.no_row(&error, rule, allowing, diagnostics);
                    0
                }
            };
            let width = rule
                .written(function)
                .map_or(1, |written| written.number.registers());
            let piece = |(first, last)| Piece {
                first,
                last,
                rule: id,
                limits,
                width,
                is_rated: rule.max_rate.is_some(),
            };
            pieces.extend(operands(rule, function).into_iter().map(piece));
        }
        let (run, conflicts) = disjoint(&pieces);
        for conflict in conflicts {
            self.said
                .contradiction(function, allowing, &pieces, conflict, diagnostics);
        }
        // The whole of a table without limits needs no search.
        if let [only] = run.as_slice()
            && (only.first, only.last, only.limits) == (0, largest_operand(function), 0)
        {
            return Operation {
                kind: operation::ALLOWED,
                rule: only.rule,
                ..DENIED
            };
        }
        let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let first = self.interval_run(&run, allowing, diagnostics);
        let cell = Operation {
            kind: operation::RANGES,
            first,
            count,
            ..DENIED
        };
        self.pages.index(cell, &run)
    }

    fn interval_run(
        &mut self,
        run: &[Interval],
        rules: Rules<'_>,
        diagnostics: &mut Diagnostics,
    ) -> u32 {
        let key = run.as_bytes().to_vec();
        if let Some(known) = self.known_runs.get(&key) {
            return *known;
        }
        let first = self.intervals.len();
        let (found, limit) = (first + run.len(), MAX_INTERVALS as usize);
        if found > limit {
            self.refuse("intervals of operands", found, limit, rules, diagnostics);
            return 0;
        }
        self.intervals.extend(run);
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        self.known_runs.insert(key, first);
        first
    }

    fn no_row(
        &mut self,
        error: &NoRow,
        rule: &ModbusRule,
        rules: Rules<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        match *error {
            NoRow::Full(what, found) => {
                let limit = if what.starts_with("limits") {
                    MAX_LIMITS - 1
                } else {
                    MAX_VALUE_RANGES
                };
                self.refuse(what, found, limit as usize, rules, diagnostics);
            }
            NoRow::Rate => diagnostics.error(
                "does-not-fit",
                rule.span,
                format!(
                    "`max_rate` of rule `{}` does not fit the kernel's clock",
                    rule.name
                ),
                "choose another rate",
            ),
        }
    }

    /// The number of the next row of a table, unless the table is full.
    fn number(
        &mut self,
        what: &str,
        next: usize,
        limit: usize,
        rules: Rules<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Option<u16> {
        if next >= limit {
            self.refuse(what, next, limit - 1, rules, diagnostics);
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
        rules: Rules<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        if !self.full {
            self.full = true;
            does_not_fit(what, found, limit, rules.conduit.span, diagnostics);
        }
    }
}

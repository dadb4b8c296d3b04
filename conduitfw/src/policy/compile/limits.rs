//! What rules say beyond operands, as rows of limits and of values.

use std::collections::HashMap;

use conduitfw_common::modbus::function::FunctionCode;
use conduitfw_common::modbus::number;
use conduitfw_common::table::{Limits, MAX_LIMITS, MAX_VALUE_RANGES, ValueRange, limit};

use super::super::model::{ModbusRule, Number, NumberRange, NumberType, WordOrder, Written};
use super::rows::rate_cells;

/// The rows of limits and values, as they grow. Equal rows are shared.
#[derive(Debug)]
pub(super) struct LimitRows {
    pub(super) limits: Vec<Limits>,
    pub(super) values: Vec<ValueRange>,
    known: HashMap<Limits, u16>,
    known_values: HashMap<Vec<ValueRange>, u32>,
    /// By rule id and [`Kind`].
    of_rules: HashMap<(u16, Kind), u16>,
    ticks_per_second: u32,
}

/// Functions that one rule limits alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    is_written: bool,
    has_records: bool,
    has_length: bool,
}

/// Why there is no row.
pub(super) enum NoRow {
    /// More rows than there is room for: what, and how many.
    Full(&'static str, usize),
    /// The rate does not fit the kernel's clock.
    Rate,
}

impl LimitRows {
    pub(super) fn new(ticks_per_second: u32) -> Self {
        Self {
            // Row 0 limits nothing.
            limits: vec![Limits::default()],
            values: Vec::new(),
            known: HashMap::from([(Limits::default(), 0)]),
            known_values: HashMap::new(),
            of_rules: HashMap::new(),
            ticks_per_second,
        }
    }

    /// The row of what a rule asks of a function.
    pub(super) fn row(
        &mut self,
        rule: &ModbusRule,
        id: u16,
        function: FunctionCode,
    ) -> Result<u16, NoRow> {
        let kind = Kind {
            is_written: rule.written(function).is_some(),
            has_records: rule.records(function).is_some(),
            has_length: rule.max_length(function).is_some(),
        };
        if let Some(row) = self.of_rules.get(&(id, kind)) {
            return Ok(*row);
        }
        let limits = self.limits_of(rule, function)?;
        let row = if let Some(row) = self.known.get(&limits) {
            *row
        } else {
            let next = self.limits.len();
            let full = NoRow::Full("limits of Modbus rules", next);
            let row = u16::try_from(next)
                .ok()
                .filter(|_| next < MAX_LIMITS as usize)
                .ok_or(full)?;
            self.limits.push(limits);
            self.known.insert(limits, row);
            row
        };
        self.of_rules.insert((id, kind), row);
        Ok(row)
    }

    fn limits_of(&mut self, rule: &ModbusRule, function: FunctionCode) -> Result<Limits, NoRow> {
        let mut limits = Limits::default();
        if let Some(written) = rule.written(function) {
            self.write(written, &mut limits)?;
        }
        if let Some(records) = rule.records(function) {
            limits.flags |= limit::RECORDS;
            limits.first_record = records.first;
            limits.last_record = records.last;
        }
        if let Some(length) = rule.max_length(function) {
            limits.flags |= limit::LENGTH;
            limits.max_length = length;
        }
        if let Some(rate) = rule.max_rate {
            let cells = rate_cells(rate.operations, rate.per, rate.burst, self.ticks_per_second);
            let (interval, burst) = cells.ok_or(NoRow::Rate)?;
            limits.flags |= limit::RATE;
            limits.rate_interval = interval;
            limits.rate_burst = burst;
        }
        Ok(limits)
    }

    fn write(&mut self, written: &Written, limits: &mut Limits) -> Result<(), NoRow> {
        if written.values.is_some() || written.max_step.is_some() {
            limits.number = written.number.kind();
            limits.low_word_first = u8::from(written.word_order == WordOrder::LowFirst);
        }
        if let Some(values) = &written.values {
            let keys: Vec<ValueRange> = values
                .iter()
                .filter_map(|range| keys(written.number, range))
                .collect();
            limits.flags |= limit::VALUES;
            limits.count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            limits.first = self.run(keys)?;
        }
        if let Some(bits) = written.bits {
            limits.flags |= limit::BITS;
            limits.bits = bits;
        }
        if let Some(step) = written.fixed_step() {
            limits.flags |= limit::STEP;
            limits.scale = written.scale();
            limits.step = step;
        }
        Ok(())
    }

    /// The first row of a run of values.
    fn run(&mut self, keys: Vec<ValueRange>) -> Result<u32, NoRow> {
        if let Some(first) = self.known_values.get(&keys) {
            return Ok(*first);
        }
        let first = self.values.len();
        let rows = first + keys.len();
        let full = NoRow::Full("ranges of written values", rows);
        let number = u32::try_from(first)
            .ok()
            .filter(|_| rows <= MAX_VALUE_RANGES as usize)
            .ok_or(full)?;
        self.values.extend(&keys);
        self.known_values.insert(keys, number);
        Ok(number)
    }
}

/// A range of values by its keys. Minus zero is a zero: it is in where zero is.
fn keys(kind: NumberType, range: &NumberRange) -> Option<ValueRange> {
    let zero = |number: Number, as_zero: f32| match number {
        Number::Real(0.0) => Number::Real(as_zero),
        other => other,
    };
    let key = |number: Number| number::key(kind.kind(), number.raw());
    Some(ValueRange {
        first: key(zero(range.first, -0.0))?,
        last: key(zero(range.last, 0.0))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: Number, last: Number) -> NumberRange {
        NumberRange { first, last }
    }

    #[test]
    fn ranges_of_values_become_keys_in_their_order() {
        let holds = |kind: NumberType, one: &NumberRange, raw: u32| {
            let keys = keys(kind, one).unwrap();
            number::key(kind.kind(), raw).is_some_and(|key| keys.first <= key && key <= keys.last)
        };
        let signed = range(Number::Integer(-5), Number::Integer(5));
        for (value, is_in) in [
            (0_i16, true),
            (-5, true),
            (-6, false),
            (5, true),
            (6, false),
        ] {
            let raw = u32::from(value.cast_unsigned());
            assert_eq!(holds(NumberType::I16, &signed, raw), is_in, "{value}");
        }
        let real = range(Number::Real(0.0), Number::Real(1.5));
        for (value, is_in) in [
            (-0.0_f32, true),
            (0.0, true),
            (1.5, true),
            (1.500_001, false),
        ] {
            assert_eq!(
                holds(NumberType::F32, &real, value.to_bits()),
                is_in,
                "{value}"
            );
        }
        assert!(!holds(NumberType::F32, &real, f32::NAN.to_bits()));
        let up_to_zero = range(Number::Real(-1.0), Number::Real(-0.0));
        assert!(holds(NumberType::F32, &up_to_zero, 0.0_f32.to_bits()));
    }
}

//! Registers whose values are limited for one function, and written by another one without limits.

use conduitfw_common::modbus::function::FunctionCode;
use conduitfw_common::table::{FUNCTIONS, Interval, Limits, Operation, limit, operation};

/// Functions that write the same table, and whose values can be limited.
const WRITING: [&[FunctionCode]; 2] = [
    &[
        FunctionCode::WRITE_SINGLE_COIL,
        FunctionCode::WRITE_MULTIPLE_COILS,
    ],
    &[
        FunctionCode::WRITE_SINGLE_REGISTER,
        FunctionCode::WRITE_MULTIPLE_REGISTERS,
        FunctionCode::MASK_WRITE_REGISTER,
        FunctionCode::READ_WRITE_MULTIPLE_REGISTERS,
    ],
];

/// A register that is limited, and may be written all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loophole {
    /// The first such register.
    pub(super) operand: u16,
    /// Id of the rule that limits it, and the function that it does so for.
    pub(super) limited: (u16, FunctionCode),
    /// Id of the rule that does not, and the function that it allows.
    pub(super) open: (u16, FunctionCode),
}

/// Finds them in one row of operations: of each pair of rules and functions the first.
pub(super) fn find(
    row: &[Operation; FUNCTIONS as usize],
    intervals: &[Interval],
    limits: &[Limits],
) -> Vec<Loophole> {
    let is_limited = |interval: &Interval| {
        let limits = limits.get(usize::from(interval.limits));
        limits.is_some_and(|limits| limits.flags & limit::WRITTEN != 0)
    };
    let mut found = Vec::new();
    for functions in WRITING {
        for one in functions {
            let limited = run(row, intervals, *one).filter(|interval| is_limited(interval));
            let limited: Vec<Interval> = limited.collect();
            if limited.is_empty() {
                continue;
            }
            for other in functions.iter().filter(|other| *other != one) {
                let open = run(row, intervals, *other).filter(|interval| !is_limited(interval));
                for (limited, open) in overlaps(&limited, &open.collect::<Vec<_>>()) {
                    found.push(Loophole {
                        operand: limited.first.max(open.first),
                        limited: (limited.rule, *one),
                        open: (open.rule, *other),
                    });
                }
            }
        }
    }
    found
}

/// The intervals of a cell; one for all of a table that is allowed as a whole.
fn run<'t>(
    row: &'t [Operation; FUNCTIONS as usize],
    intervals: &'t [Interval],
    function: FunctionCode,
) -> impl Iterator<Item = Interval> + 't {
    let cell = row
        .get(usize::from(function.0))
        .copied()
        .unwrap_or_default();
    let whole = (cell.kind == operation::ALLOWED).then_some(Interval {
        last: u16::MAX,
        reach: u16::MAX,
        rule: cell.rule,
        ..Interval::default()
    });
    let first = usize::try_from(cell.first).unwrap_or(usize::MAX);
    let count = usize::try_from(cell.count).unwrap_or(0);
    whole
        .into_iter()
        .chain(intervals.iter().skip(first).take(count).copied())
}

/// Intervals of two sorted runs that share an operand.
fn overlaps(one: &[Interval], other: &[Interval]) -> Vec<(Interval, Interval)> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut found = Vec::new();
    while let (Some(left), Some(right)) = (one.peek().copied(), other.peek().copied()) {
        if left.first <= right.last && right.first <= left.last {
            found.push((*left, *right));
        }
        if left.last <= right.last {
            one.next();
        } else {
            other.next();
        }
    }
    found
}

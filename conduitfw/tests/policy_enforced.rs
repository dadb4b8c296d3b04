//! The decision about single operations is what the rules say, read as plainly as can be.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use conduitfw::explain::{Explainer, MODBUS_PORT, Operands, Operation, Question, Service};
use conduitfw::policy::{
    self, ModbusRule, Number, NumberType, Operands as OwnOperands, Policy, WordOrder, Written,
};
use conduitfw_common::modbus::function::FunctionCode;
use proptest::prelude::*;

const CONDUIT: &str = r#"
[site]
name = "Plant"

[zones.a]
interfaces = ["eth0"]
networks = ["10.0.0.0/24"]

[zones.b]
interfaces = ["eth1"]
networks = ["10.1.0.0/24"]

[[conduits]]
name = "c"
from = ["a"]
to = ["b"]
rationale = "Test"
on_deny = "exception"
"#;

/// Registers that the rules of this test are about.
const REGISTERS: u16 = 16;

/// What a rule asks of values, by the functions that it can be asked of.
fn limits() -> impl Strategy<Value = (Vec<u8>, &'static str)> {
    let registers = vec![6_u8, 16, 22, 23];
    let pairs = vec![16_u8, 23];
    prop_oneof![
        4 => Just((registers.clone(), "")),
        2 => Just((registers.clone(), "values = [0, \"3-5\", 65535]\n")),
        1 => Just((registers.clone(), "signed = true\nvalues = { min = -2, max = 3 }\n")),
        1 => Just((registers.clone(), "bits = [0, 2]\n")),
        1 => Just((vec![6, 16, 23], "bits = [0, 2]\nvalues = { max = 4 }\nmax_step = 1\n")),
        1 => Just((
            pairs.clone(),
            "type = \"u32\"\nword_order = \"high-first\"\nvalues = { min = 2, max = 65537 }\n"
        )),
        1 => Just((
            pairs.clone(),
            "type = \"i32\"\nword_order = \"low-first\"\nvalues = { min = -1, max = 3 }\n"
        )),
        1 => Just((
            pairs,
            "type = \"f32\"\nword_order = \"high-first\"\nvalues = { min = 0, max = 1 }\nmax_step \
             = 0.5\n"
        )),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    prop_oneof![5 => rule_of_a_table(), 1 => rule_without_a_table()]
}

/// Of functions that have no registers: by sub-function, by MEI type or by length.
fn rule_without_a_table() -> impl Strategy<Value = String> {
    let functions = prop::sample::subsequence(vec![7_u8, 8, 17, 43, 90], 1..4);
    let lengths = prop_oneof![Just(""), Just("max_length = 4\n")];
    let rate = prop_oneof![3 => Just(""), 1 => Just("max_rate = \"1/m\"\n")];
    (functions, lengths, rate, 0_u8..3).prop_map(|(functions, length, rate, unit)| {
        let when = |function: u8, text: &'static str| {
            if functions.contains(&function) {
                text
            } else {
                ""
            }
        };
        let sub_functions = when(8, "sub_functions = [\"0-1\", 10]\n");
        let mei_types = when(43, "mei_types = [14]\n");
        let length = when(90, length);
        format!(
            "[[conduits.modbus]]\nunits = [1, {unit}]\nfunctions = \
             {functions:?}\n{sub_functions}{mei_types}{length}{rate}"
        )
    })
}

fn rule_of_a_table() -> impl Strategy<Value = String> {
    let registers = (limits(), any::<u8>(), ranges()).prop_map(|((of, limits), which, ranges)| {
        let mut functions: Vec<u8> = of
            .into_iter()
            .filter(|f| which >> (f % 8) & 1 == 1)
            .collect();
        let limits = if functions.is_empty() { "" } else { limits };
        let is_empty = functions.is_empty();
        functions.extend(
            [3_u8, 24]
                .into_iter()
                .filter(|f| is_empty || which >> (f % 5) & 1 == 1),
        );
        (functions, "holding_registers", ranges, limits)
    });
    let coils = (any::<u8>(), ranges()).prop_map(|(which, ranges)| {
        let functions = match which % 4 {
            0 => vec![1],
            1 => vec![5],
            2 => vec![15],
            _ => vec![1, 5, 15],
        };
        let is_limited = which % 4 != 0 && which & 0x10 != 0;
        (
            functions,
            "coils",
            ranges,
            if is_limited { "values = [1]\n" } else { "" },
        )
    });
    let files = ranges().prop_map(|ranges| (vec![20, 21], "files", ranges, "records = \"2-6\"\n"));
    let body = prop_oneof![4 => registers, 1 => coils, 1 => files];
    let rate = prop_oneof![5 => Just(""), 1 => Just("max_rate = \"1/m\"\n")];
    (body, rate, 0_u8..3).prop_map(|((functions, key, ranges, limits), rate, unit)| {
        let is_files = key == "files";
        let entries: Vec<String> = ranges
            .iter()
            .map(|(first, last)| {
                if is_files {
                    format!("\"{}-{}\"", first + 1, last + 1)
                } else {
                    format!("{{ first = {first}, last = {last} }}")
                }
            })
            .collect();
        let mut text = format!(
            "[[conduits.modbus]]\nunits = [1, {unit}]\nfunctions = {functions:?}\n{limits}{rate}"
        );
        let _ = writeln!(text, "{key} = [{}]", entries.join(", "));
        text
    })
}

/// Of an even length, so that they hold numbers of two registers.
fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
    prop::collection::vec((0..REGISTERS - 6, 0_u16..3), 1..3).prop_map(|ranges| {
        let range = |(first, pairs)| (first, first + 2 * pairs + 1);
        ranges.into_iter().map(range).collect()
    })
}

fn value() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => 0_u16..7,
        1 => Just(0xffff),
        1 => Just(0xfffe),
        1 => Just(0x3f80),
        1 => Just(0x3f00),
        1 => Just(0x7fc0),
        1 => any::<u16>(),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let address = 0..REGISTERS;
    let values = || prop::collection::vec(value(), 1..6);
    let with = |functions: Vec<u8>, operands: BoxedStrategy<Operands>| {
        (0_u8..3, prop::sample::select(functions), operands).prop_map(|(unit, code, operands)| {
            Operation {
                unit,
                function: FunctionCode(code),
                operands,
            }
        })
    };
    let read = (address.clone(), 1_u16..6)
        .prop_map(|(address, quantity)| Operands::Read { address, quantity });
    let one = (address.clone(), value())
        .prop_map(|(address, value)| Operands::WriteOne { address, value });
    let coil = (address.clone(), prop::sample::select(vec![0, 0xff00_u16]))
        .prop_map(|(address, value)| Operands::WriteOne { address, value });
    let coils = (address.clone(), prop::collection::vec(any::<bool>(), 1..6))
        .prop_map(|(address, coils)| Operands::WriteCoils { address, coils });
    let many = (address.clone(), values()).prop_map(|(address, values)| Operands::WriteRegisters {
        address,
        values,
        read: None,
    });
    let both = (address.clone(), values(), (address.clone(), 1_u16..6)).prop_map(
        |(address, values, read)| Operands::WriteRegisters {
            address,
            values,
            read: Some(read),
        },
    );
    let and = prop::sample::select(vec![0, 0xffff, 0xfffe, 0xfffa, 0xfff8_u16]);
    let mask = (address.clone(), and, value()).prop_map(|(address, and, or)| Operands::Mask {
        address,
        and,
        or,
    });
    let fifo = address
        .clone()
        .prop_map(|address| Operands::Fifo { address });
    let record =
        (address, 0_u16..9, 1_u16..5).prop_map(|(file, record, length)| Operands::Record {
            file: file + 1,
            record,
            length,
            values: Vec::new(),
        });
    let sub_function = prop::sample::select(vec![0_u16, 1, 2, 10, 11]);
    let sub_function = sub_function.prop_map(|number| Operands::Sub {
        number,
        data: vec![0, 0],
    });
    let mei_type = prop::sample::select(vec![13_u16, 14]).prop_map(|number| Operands::Sub {
        number,
        data: vec![1, 0],
    });
    let bare = Just(Operands::Other { data: Vec::new() });
    let vendor = prop::collection::vec(any::<u8>(), 0..5).prop_map(|data| Operands::Other { data });
    prop_oneof![
        1 => with(vec![8], sub_function.boxed()),
        1 => with(vec![43], mei_type.boxed()),
        1 => with(vec![7, 17], bare.boxed()),
        1 => with(vec![90], vendor.boxed()),
        2 => with(vec![1, 2, 3, 4], read.boxed()),
        2 => with(vec![6], one.boxed()),
        1 => with(vec![5], coil.boxed()),
        1 => with(vec![15], coils.boxed()),
        4 => with(vec![16], many.boxed()),
        3 => with(vec![23], both.boxed()),
        2 => with(vec![22], mask.boxed()),
        1 => with(vec![24], fifo.boxed()),
        1 => with(vec![20], record.boxed()),
    ]
}

/// What was written last to registers that a step guards, as a number of which type and order; by
/// unit and register.
type Last = HashMap<(u8, u16), (NumberType, WordOrder, Number)>;

/// The policy read plainly.
struct Plain<'p, 'l> {
    policy: &'p Policy,
    unit: u8,
    function: FunctionCode,
    last: &'l Last,
}

impl<'p> Plain<'p, '_> {
    /// The first rule that has an operand.
    fn owner(&self, operand: u16) -> Option<&'p ModbusRule> {
        self.policy.conduits[0].modbus.iter().find(|rule| {
            let has_function = rule.functions.contains(self.function.0);
            has_function
                && rule.units.contains(self.unit)
                && range_of(rule, self.function, operand).is_some()
        })
    }

    /// Whether a run of operands is allowed: each has a rule, and no rate changes on the way.
    fn has_all(&self, mut operands: RangeInclusive<u32>) -> bool {
        let mut before: Option<&ModbusRule> = None;
        operands.all(|operand| {
            let owner = u16::try_from(operand)
                .ok()
                .and_then(|operand| self.owner(operand));
            let goes_on = match (before, owner) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(before), Some(owner)) => share_a_rate(before, owner),
            };
            before = owner;
            goes_on
        })
    }

    fn allows(&self, operands: &Operands) -> bool {
        let run = |first: u16, count: usize| {
            let first = u32::from(first);
            first..=first + u32::try_from(count).unwrap() - 1
        };
        match operands {
            Operands::Read { address, quantity } => {
                self.has_all(run(*address, usize::from(*quantity)))
            }
            Operands::Fifo { address } => self.has_all(run(*address, 1)),
            Operands::WriteOne { address, value } => {
                let value = if self.function == FunctionCode::WRITE_SINGLE_COIL {
                    u16::from(*value != 0)
                } else {
                    *value
                };
                self.has_all(run(*address, 1)) && self.writes(*address, &[value])
            }
            Operands::WriteCoils { address, coils } => {
                let values: Vec<u16> = coils.iter().map(|coil| u16::from(*coil)).collect();
                self.has_all(run(*address, coils.len())) && self.writes(*address, &values)
            }
            Operands::WriteRegisters {
                address,
                values,
                read,
            } => {
                let reads = read.is_none_or(|(first, quantity)| {
                    let rates = match (self.owner(first), self.owner(*address)) {
                        (Some(one), Some(other)) => share_a_rate(one, other),
                        _ => false,
                    };
                    rates && self.has_all(run(first, usize::from(quantity)))
                });
                reads && self.has_all(run(*address, values.len())) && self.writes(*address, values)
            }
            Operands::Mask { address, and, or } => {
                let Some(rule) = self.owner(*address) else {
                    return false;
                };
                let Some(written) = rule.written(self.function) else {
                    return true;
                };
                let touched = written.bits.is_none_or(|bits| !and & !bits == 0);
                let is_known = written.values.is_none() && written.max_step.is_none();
                touched && (is_known || (*and == 0 && self.writes(*address, &[*or])))
            }
            Operands::Record {
                file,
                record,
                length,
                ..
            } => self.owner(*file).is_some_and(|rule| {
                rule.records.is_none_or(|records| {
                    records.first <= *record && record + length - 1 <= records.last
                })
            }),
            Operands::Sub { number, .. } => self.owner(*number).is_some(),
            Operands::Other { data } => self.owner(0).is_some_and(|rule| {
                // Unit id and function code count too.
                let length = 2 + data.len();
                let longest = rule.max_length(self.function);
                longest.is_none_or(|longest| length <= usize::from(longest))
            }),
        }
    }

    /// Whether a number is within a step of the last one, where there is one.
    fn is_near(&self, written: &Written, register: u16, number: Number) -> bool {
        let Some(step) = written.max_step else {
            return true;
        };
        let last = self.last.get(&(self.unit, register));
        last.is_none_or(|(kind, order, last)| {
            (*kind, *order) != (written.number, written.word_order)
                || (real(*last) - real(number)).abs() <= real(step)
        })
    }

    /// The numbers under a step that an allowed operation writes.
    fn guarded(&self, operands: &Operands) -> Last {
        let (address, values) = match operands {
            Operands::WriteOne { address, value } => (*address, vec![*value]),
            Operands::WriteRegisters {
                address, values, ..
            } => (*address, values.clone()),
            Operands::Mask { address, or, .. } => (*address, vec![*or]),
            _ => return Last::new(),
        };
        let mut guarded = Last::new();
        let mut at = 0;
        while at < values.len() {
            let register = address + u16::try_from(at).unwrap();
            let written = self
                .owner(register)
                .and_then(|rule| rule.written(self.function));
            let width = written.map_or(1, |written| usize::from(written.number.registers()));
            if let Some(written) = written.filter(|written| written.max_step.is_some()) {
                let number = number(written, &values[at..at + width]);
                let last = (written.number, written.word_order, number);
                guarded.insert((self.unit, register), last);
            }
            at += width;
        }
        guarded
    }

    /// The rule whose rate an allowed operation is counted against: of function 23 both parts have
    /// the same, or none.
    fn account(&self, operands: &Operands) -> Option<&'p ModbusRule> {
        let first = match operands {
            Operands::Record { file, .. } => *file,
            Operands::Read { address, .. }
            | Operands::WriteOne { address, .. }
            | Operands::WriteCoils { address, .. }
            | Operands::WriteRegisters { address, .. }
            | Operands::Mask { address, .. }
            | Operands::Fifo { address } => *address,
            Operands::Sub { number, .. } => *number,
            Operands::Other { .. } => 0,
        };
        self.owner(first).filter(|rule| rule.max_rate.is_some())
    }

    /// Whether each number that is written may be, and is written as a whole.
    fn writes(&self, address: u16, values: &[u16]) -> bool {
        let mut at = 0;
        while at < values.len() {
            let register = address + u16::try_from(at).unwrap();
            let Some(rule) = self.owner(register) else {
                return false;
            };
            let Some(written) = rule.written(self.function) else {
                at += 1;
                continue;
            };
            let width = usize::from(written.number.registers());
            let first = range_of(rule, self.function, register).unwrap();
            let begins = (register - first).is_multiple_of(written.number.registers());
            let Some(words) = values.get(at..at + width).filter(|_| begins) else {
                return false;
            };
            let number = number(written, words);
            if !may_be(written, words[0], number) || !self.is_near(written, register, number) {
                return false;
            }
            at += width;
        }
        true
    }
}

/// Where the range of a rule begins that has an operand.
fn range_of(rule: &ModbusRule, function: FunctionCode, operand: u16) -> Option<u16> {
    let own = match function {
        FunctionCode::DIAGNOSTICS => &rule.sub_functions,
        FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT => &rule.mei_types,
        _ => &OwnOperands::All,
    };
    let Some(ranges) = rule.ranges(function) else {
        return own.contains(operand).then_some(0);
    };
    let range = ranges
        .iter()
        .find(|r| (r.first..=r.last).contains(&operand));
    range.map(|range| range.first)
}

fn share_a_rate(one: &ModbusRule, other: &ModbusRule) -> bool {
    std::ptr::eq(one, other) || (one.max_rate.is_none() && other.max_rate.is_none())
}

fn number(written: &Written, words: &[u16]) -> Number {
    let raw = match (words, written.word_order) {
        (&[word], _) => u32::from(word),
        (&[high, low], WordOrder::HighFirst) | (&[low, high], WordOrder::LowFirst) => {
            u32::from(high) << 16 | u32::from(low)
        }
        _ => panic!("a number has one or two registers"),
    };
    match written.number {
        NumberType::U16 | NumberType::U32 => Number::Integer(raw.into()),
        NumberType::I16 => Number::Integer(words[0].cast_signed().into()),
        NumberType::I32 => Number::Integer(raw.cast_signed().into()),
        NumberType::F32 => Number::Real(f32::from_bits(raw)),
    }
}

fn real(number: Number) -> f64 {
    match number {
        Number::Integer(number) => i32::try_from(number).map_or(f64::MAX, f64::from),
        Number::Real(number) => number.into(),
    }
}

fn may_be(written: &Written, word: u16, number: Number) -> bool {
    let has_bits = written.bits.is_none_or(|bits| word & !bits == 0);
    let is_among = written.values.as_ref().is_none_or(|values| {
        values
            .iter()
            .any(|range| range.first <= number && number <= range.last)
    });
    has_bits && is_among
}

fn read(rules: &str) -> Policy {
    let text = format!("{CONDUIT}{rules}");
    policy::load_text("p.toml", &text)
        .unwrap_or_else(|refusal| panic!("{}", refusal.render()))
        .policy
}

/// The longest beginning of the rules that is a policy.
fn accepted(rules: &[String]) -> Option<Policy> {
    (1..=rules.len()).rev().find_map(|count| {
        let text = format!("{CONDUIT}{}", rules[..count].concat());
        match policy::load_text("p.toml", &text) {
            Ok(loaded) => Some(loaded.policy),
            Err(refusal) => {
                let codes: Vec<_> = refusal.diagnostics().iter().map(|d| d.code).collect();
                assert!(
                    codes.iter().all(|code| *code == "limited-twice"),
                    "{}\n{text}",
                    refusal.render()
                );
                None
            }
        }
    })
}

fn ask(
    explainer: &Explainer<'_>,
    after: &[Operation],
    operation: &Operation,
) -> Option<&'static str> {
    let question = Question {
        from: "10.0.0.5".to_owned(),
        to: "10.1.0.5".to_owned(),
        service: Service::Modbus {
            port: MODBUS_PORT,
            operation: operation.clone(),
        },
        after: after.to_vec(),
        every: Duration::ZERO,
        repeat: 1,
        reply: None,
    };
    let answer = explainer.answer(&question).unwrap();
    answer.found.reason.map(conduitfw_common::Reason::label)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_operation_passes_when_the_rules_say_so(
        texts in prop::collection::vec(rule(), 1..6),
        operations in prop::collection::vec(operation(), 60),
    ) {
        let Some(policy) = accepted(&texts) else { return Ok(()) };
        let explainer = Explainer::new(&policy).unwrap();
        for operation in operations {
            let plain = Plain {
                policy: &policy,
                unit: operation.unit,
                function: operation.function,
                last: &Last::new(),
            };
            let reason = ask(&explainer, &[], &operation);
            prop_assert_eq!(
                reason.is_none(),
                plain.allows(&operation.operands),
                "{:?} {:?}\n{}", operation, reason, policy.text()
            );
        }
    }

    #[test]
    fn what_went_before_counts_for_steps_and_rates(
        texts in prop::collection::vec(rule(), 1..4),
        operations in prop::collection::vec(operation(), 2..24),
    ) {
        let Some(policy) = accepted(&texts) else { return Ok(()) };
        the_last_is_judged_by_all(&policy, &operations)?;
    }

    #[test]
    fn steps_are_taken_one_by_one(
        operations in prop::collection::vec(guarded_write(), 2..16),
    ) {
        let policy = read(GUARDED);
        the_last_is_judged_by_all(&policy, &operations)?;
    }
}

/// Three kinds of numbers under a step.
const GUARDED: &str = r#"
[[conduits.modbus]]
units = [1]
functions = [6, 16, 22, 23]
holding_registers = [{ first = 0, last = 3 }]
values = { max = 6 }
max_step = 2

[[conduits.modbus]]
units = [1]
functions = [16, 23]
holding_registers = [{ first = 4, last = 7 }]
type = "i32"
word_order = "low-first"
values = { min = -3, max = 6 }
max_step = 2

[[conduits.modbus]]
units = [1]
functions = [16, 23]
holding_registers = [{ first = 8, last = 11 }]
type = "f32"
word_order = "high-first"
values = { min = -1, max = 1 }
max_step = 0.5
"#;

/// A write of one number under a step, or of two that stand side by side.
fn guarded_write() -> impl Strategy<Value = Operation> {
    let place = (0_u16..3, 0_u16..4, 0_u8..4, -3_i8..7, any::<bool>());
    place.prop_map(|(kind, which, function, value, is_double)| {
        let words: Vec<u16> = match kind {
            0 => vec![value.unsigned_abs().into()],
            1 => {
                let raw = i32::from(value).cast_unsigned().to_be_bytes();
                vec![
                    u16::from_be_bytes([raw[2], raw[3]]),
                    u16::from_be_bytes([raw[0], raw[1]]),
                ]
            }
            _ => {
                let raw = (f32::from(value) / 4.0).to_be_bytes();
                vec![
                    u16::from_be_bytes([raw[0], raw[1]]),
                    u16::from_be_bytes([raw[2], raw[3]]),
                ]
            }
        };
        let width = u16::try_from(words.len()).unwrap();
        let address = kind * 4 + which % (4 / width) * width;
        let values = if is_double && function >= 2 {
            words.repeat(2)
        } else {
            words.clone()
        };
        let (function, operands) = match (kind, function) {
            (0, 0) => (
                6,
                Operands::WriteOne {
                    address,
                    value: words[0],
                },
            ),
            (0, 1) => (
                22,
                Operands::Mask {
                    address,
                    and: 0,
                    or: words[0],
                },
            ),
            (_, 0..=2) => (
                16,
                Operands::WriteRegisters {
                    address,
                    values,
                    read: None,
                },
            ),
            _ => (
                23,
                Operands::WriteRegisters {
                    address,
                    values,
                    read: Some((address, 1)),
                },
            ),
        };
        Operation {
            unit: 1,
            function: FunctionCode(function),
            operands,
        }
    })
}

/// Asks about the last operation, after all of the others.
fn the_last_is_judged_by_all(
    policy: &Policy,
    operations: &[Operation],
) -> Result<(), TestCaseError> {
    let explainer = Explainer::new(policy).unwrap();
    let mut last = Last::new();
    let mut used: Vec<&str> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        let plain = Plain {
            policy,
            unit: operation.unit,
            function: operation.function,
            last: &last,
        };
        // One a minute, and no time goes by.
        let account = plain
            .account(&operation.operands)
            .map(|rule| rule.name.as_str());
        let is_allowed =
            plain.allows(&operation.operands) && account.is_none_or(|rule| !used.contains(&rule));
        let guarded = is_allowed.then(|| plain.guarded(&operation.operands));
        if number + 1 == operations.len() {
            let reason = ask(&explainer, &operations[..number], operation);
            prop_assert_eq!(
                reason.is_none(),
                is_allowed,
                "{:?} {:?}\n{}",
                operation,
                reason,
                policy.text()
            );
        }
        if let Some(guarded) = guarded {
            last.extend(guarded);
            used.extend(account);
        }
    }
    Ok(())
}

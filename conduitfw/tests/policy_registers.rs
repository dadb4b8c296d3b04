//! Registers, values and rates in the compiled tables are what the rules say, register by register.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fmt::Write as _;

use conduitfw::policy::{
    self, CompiledTables, Ids, ModbusRule, ModbusTable, NameKind, Number, Policy, Surroundings,
};
use conduitfw_common::modbus::function::FunctionCode;
use conduitfw_common::modbus::number;
use conduitfw_common::table::{Limits, limit, operation};
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
"#;

/// Registers that the rules of these tests are about.
const REGISTERS: u16 = 24;

fn read(text: &str) -> Policy {
    policy::load_text("p.toml", text)
        .unwrap_or_else(|refusal| panic!("{}\n{text}", refusal.render()))
        .policy
}

fn compile(policy: &Policy) -> (CompiledTables, Ids) {
    let surroundings = Surroundings {
        ticks_per_second: 250,
        gateway_addresses: Vec::new(),
        generation: 1,
    };
    let mut ids = Ids::default();
    let tables = policy::compile(policy, &mut ids, &surroundings).unwrap();
    (tables, ids)
}

fn rules(text: &str) -> (Policy, CompiledTables) {
    let policy = read(&format!("{CONDUIT}{text}"));
    let (tables, _) = compile(&policy);
    (policy, tables)
}

/// The rows of limits of each interval of a cell, in order.
fn limits(tables: &CompiledTables, unit: u8, function: u8) -> Vec<Limits> {
    let cell = tables.operation(1, unit, function).unwrap();
    assert_eq!(cell.kind, operation::RANGES, "function {function}");
    let first = cell.first as usize;
    let run = &tables.intervals[first..first + cell.count as usize];
    run.iter()
        .map(|interval| tables.limits[usize::from(interval.limits)])
        .collect()
}

/// First, last and reach of each interval of a cell.
fn intervals(tables: &CompiledTables, unit: u8, function: u8) -> Vec<(u16, u16, u16)> {
    let cell = tables.operation(1, unit, function).unwrap();
    let first = cell.first as usize;
    let run = &tables.intervals[first..first + cell.count as usize];
    run.iter()
        .map(|interval| (interval.first, interval.last, interval.reach))
        .collect()
}

/// Whether the limits let a value pass, as the kernel reads them.
fn lets_pass(tables: &CompiledTables, limits: &Limits, raw: u32) -> bool {
    if limits.flags & limit::VALUES == 0 {
        return true;
    }
    let first = limits.first as usize;
    let ranges = &tables.value_ranges[first..first + limits.count as usize];
    assert!(ranges.windows(2).all(|two| two[0].last < two[1].first));
    number::key(limits.number, raw)
        .is_some_and(|key| ranges.iter().any(|r| r.first <= key && key <= r.last))
}

fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
    prop::collection::vec((0..REGISTERS - 4, 0_u16..4), 1..4)
        .prop_map(|ranges| {
            ranges
                .into_iter()
                .map(|(first, more)| (first, first + more))
        })
        .prop_map(Iterator::collect)
}

fn rule() -> impl Strategy<Value = String> {
    let table = prop_oneof![
        3 => Just(("holding_registers", '4', vec![3_u8, 6, 16, 22, 23, 24])),
        1 => Just(("coils", '0', vec![1, 5, 15])),
        1 => Just(("input_registers", '3', vec![4])),
    ];
    let limits = prop_oneof![
        5 => Just(""),
        2 => Just("values = [0, \"3-5\"]\n"),
        1 => Just("values = { min = 2, max = 4 }\nmax_step = 1\n"),
    ];
    let rate = prop_oneof![4 => Just(""), 1 => Just("max_rate = \"2/s\"\n")];
    let functions = (any::<u8>(), 1_usize..4);
    let places = prop::option::weighted(0.9, ranges());
    (
        table,
        functions,
        places,
        any::<bool>(),
        limits,
        rate,
        0_u8..3,
    )
        .prop_map(
            |((key, digit, of_table), (start, count), places, is_modicon, limits, rate, unit)| {
                let function = |n| of_table[(usize::from(start) + n) % of_table.len()];
                let functions: Vec<u8> = (0..count).map(function).collect();
                let mut text = format!(
                    "[[conduits.modbus]]\nunits = [1, {unit}]\nfunctions = {functions:?}\n{rate}"
                );
                let writes = functions.iter().any(|f| [6, 16, 22, 23].contains(f));
                if writes {
                    text.push_str(limits);
                }
                if let Some(places) = places {
                    let entry = |(first, last): &(u16, u16)| {
                        if is_modicon {
                            format!("\"{digit}{:04}-{digit}{:04}\"", first + 1, last + 1)
                        } else {
                            format!("{{ first = {first}, last = {last} }}")
                        }
                    };
                    let entries: Vec<String> = places.iter().map(entry).collect();
                    let _ = writeln!(text, "{key} = [{}]", entries.join(", "));
                }
                text
            },
        )
}

/// The rules that have a register for a function of a unit, in the order of the policy.
fn having(policy: &Policy, unit: u8, function: FunctionCode, register: u16) -> Vec<&ModbusRule> {
    let has = |rule: &&ModbusRule| {
        rule.units.contains(unit)
            && rule.functions.contains(function.0)
            && rule.ranges(function).is_none_or(|ranges| {
                ranges
                    .iter()
                    .any(|r| (r.first..=r.last).contains(&register))
            })
    };
    policy.conduits[0].modbus.iter().filter(has).collect()
}

/// The policy read plainly: every register has a rule, and from one rule to the next no rate is in
/// the way.
fn allows(policy: &Policy, unit: u8, function: FunctionCode, first: u16, last: u16) -> bool {
    let owners: Option<Vec<&ModbusRule>> = (first..=last)
        .map(|register| having(policy, unit, function, register).first().copied())
        .collect();
    owners.is_some_and(|owners| {
        owners.windows(2).all(|two| {
            std::ptr::eq(two[0], two[1]) || (two[0].max_rate.is_none() && two[1].max_rate.is_none())
        })
    })
}

/// Functions with a table of registers or coils.
fn functions() -> impl Iterator<Item = FunctionCode> {
    let has_table = |code: &FunctionCode| {
        ModbusTable::of(*code).is_some_and(|table| table != ModbusTable::Files)
    };
    (0..=u8::MAX).map(FunctionCode).filter(has_table)
}

/// Whether two rules say different things of one register.
fn contradicts(policy: &Policy) -> bool {
    let said = |rule: &ModbusRule, function| (rule.limits_in_words(function), rule.max_rate);
    functions().any(|function| {
        (0..3).any(|unit| {
            (0..=REGISTERS).any(|register| {
                let rules = having(policy, unit, function, register);
                let first = rules.first().map(|rule| said(rule, function));
                rules.iter().any(|rule| Some(said(rule, function)) != first)
            })
        })
    })
}

/// The longest beginning of the rules that is a policy.
fn accepted(rules: &[String]) -> (usize, Policy) {
    for count in (1..=rules.len()).rev() {
        let text = format!("{CONDUIT}{}", rules[..count].concat());
        match policy::load_text("p.toml", &text) {
            Ok(loaded) => return (count, loaded.policy),
            Err(refusal) => {
                let codes: Vec<_> = refusal.diagnostics().iter().map(|d| d.code).collect();
                assert!(
                    codes.iter().all(|code| *code == "limited-twice"),
                    "{codes:?}\n{text}"
                );
            }
        }
    }
    panic!("a single rule contradicts itself: {}", rules[0]);
}

/// A key of a rule with one of many values, right and wrong ones.
fn any_key() -> impl Strategy<Value = String> {
    let functions = [
        "[3]",
        "[6]",
        "[16]",
        "[5, 15]",
        "[22]",
        "[23]",
        "[20]",
        "[90]",
        "[\"reads\"]",
        "[\"writes\"]",
        "\"all\"",
        "[\"1-24\"]",
        "[8]",
        "[]",
    ];
    let places = [
        "[0]",
        "[65535]",
        "[65536]",
        "[-1]",
        "[40011]",
        "[\"40011\"]",
        "[\"40011-40014\"]",
        "[\"465535-465536\"]",
        "[\"00001\"]",
        "[\"30001\", \"40001\"]",
        "[\"40014-40011\"]",
        "[{ first = 0, last = 65535 }]",
        "[{ first = 10, last = 13 }, { first = 12, last = 15 }]",
        "[{ first = 10, last = 13 }, { first = 11, last = 14 }]",
        "[{}]",
        "[1.5]",
        "1",
        "\"1-4\"",
        "[\"1-4\"]",
        "[4, \"10-12\"]",
    ];
    let values = [
        "{ max = 10 }",
        "{ min = -5, max = 5 }",
        "{ min = 1 }",
        "[0]",
        "[0, 1]",
        "[\"5-1\"]",
        "[\"-5--1\"]",
        "[1e3]",
        "[0.5]",
        "[nan]",
        "[inf]",
        "[-0.0]",
        "[1e39]",
        "[4294967295]",
        "{ min = 0.0, max = 1.0 }",
        "[{ max = 3 }, 7]",
        "[]",
        "{}",
        "[\"\"]",
        "[\"-\"]",
        "[\"1e-3-2\"]",
        "[99999999999999999999999]",
    ];
    let steps = ["1", "0", "-1", "0.5", "1e-30", "65536", "\"1\"", "inf"];
    let of = |key: &'static str, values: &[&'static str]| {
        let values = prop::sample::select(values.to_vec());
        values
            .prop_map(move |value| format!("{key} = {value}\n"))
            .boxed()
    };
    prop_oneof![
        6 => of("functions", &functions),
        1 => of("coils", &places),
        1 => of("discrete_inputs", &places),
        1 => of("input_registers", &places),
        2 => of("holding_registers", &places),
        2 => of("registers", &places),
        1 => of("files", &places),
        1 => of("records", &["\"0-99\"", "7", "\"99-0\"", "10000", "[1]"]),
        3 => of("values", &values),
        1 => of("bits", &["[0]", "[\"0-15\"]", "[16]", "[]", "7"]),
        2 => of("type", &["\"u16\"", "\"i16\"", "\"u32\"", "\"i32\"", "\"f32\"", "\"f64\"", "1"]),
        1 => of("signed", &["true", "false", "1"]),
        2 => of("word_order", &["\"high-first\"", "\"low-first\"", "\"big\""]),
        1 => of("max_step", &steps),
        1 => of("max_rate", &["\"2/s\"", "\"1/m burst 3\"", "\"unlimited\"", "2"]),
        1 => of("max_length", &["2", "254", "1", "255"]),
        1 => of("sub_functions", &["[0]", "\"all\""]),
    ]
}

/// Everything that the searches of the data plane rely on.
fn well_formed(tables: &CompiledTables, text: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(tables.limits[0], Limits::default());
    for cell in tables.operations.iter().flatten() {
        let first = cell.first as usize;
        let run = &tables.intervals[first..first + cell.count as usize];
        prop_assert_eq!(cell.kind == operation::RANGES, !run.is_empty());
        for (index, interval) in run.iter().enumerate() {
            prop_assert!(interval.first <= interval.last && interval.last <= interval.reach);
            prop_assert!(interval.rule != 0, "{}", text);
            let limits = &tables.limits[usize::from(interval.limits)];
            if number::width(limits.number) == 2 {
                let is_odd = (interval.last - interval.first).is_multiple_of(2);
                prop_assert!(!is_odd, "half a number: {interval:?}\n{}", text);
            }
            if let Some(next) = run.get(index + 1) {
                prop_assert!(interval.last < next.first);
                prop_assert!(interval.reach == interval.last || interval.last + 1 == next.first);
            }
        }
    }
    for limits in &tables.limits {
        let first = limits.first as usize;
        let values = &tables.value_ranges[first..first + limits.count as usize];
        prop_assert_eq!(limits.flags & limit::VALUES != 0, !values.is_empty());
        prop_assert!(values.iter().all(|range| range.first <= range.last));
        prop_assert!(
            values.windows(2).all(|two| two[0].last < two[1].first),
            "{}",
            text
        );
        prop_assert_eq!(limits.flags & limit::STEP != 0, limits.step != 0);
        prop_assert_eq!(limits.flags & limit::RATE != 0, limits.rate_interval != 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_operation_is_allowed_when_all_of_its_registers_are(
        texts in prop::collection::vec(rule(), 1..7),
    ) {
        let (_, policy) = accepted(&texts);
        prop_assert!(!contradicts(&policy));
        let (tables, ids) = compile(&policy);
        for function in functions() {
            for unit in 0..3 {
                let cell = tables.operation(1, unit, function.0).unwrap();
                for first in 0..REGISTERS {
                    for last in first..REGISTERS + 4 {
                        prop_assert_eq!(
                            tables.reaches(cell, first, last),
                            allows(&policy, unit, function, first, last),
                            "function {} on unit {}, {} to {}", function.0, unit, first, last
                        );
                    }
                    let owner = having(&policy, unit, function, first).first().copied();
                    let rule = tables.rule(1, unit, function.0, first);
                    let label = rule.and_then(|rule| ids.name(NameKind::Rule, rule));
                    let wanted = owner.map(|rule| policy.conduits[0].rule_label(rule));
                    prop_assert_eq!(label, wanted.as_deref());
                    let Some(owner) = owner else { continue };
                    let row = tables.interval(cell, first).map_or(0, |found| found.limits);
                    let limits = &tables.limits[usize::from(row)];
                    prop_assert_eq!(limits.flags & limit::RATE != 0, owner.max_rate.is_some());
                    for value in 0..8_u32 {
                        let number = Number::Integer(value.into());
                        let wanted = owner.written(function).is_none_or(|written| {
                            written.values.as_ref().is_none_or(|values| {
                                values.iter().any(|r| r.first <= number && number <= r.last)
                            })
                        });
                        prop_assert_eq!(lets_pass(&tables, limits, value), wanted);
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_is_given_is_refused_or_well_formed(
        rules in prop::collection::vec(prop::collection::vec(any_key(), 1..6), 1..3),
    ) {
        let mut text = CONDUIT.to_owned();
        for keys in rules {
            text.push_str("[[conduits.modbus]]\nunits = [1]\n");
            let mut given: Vec<&str> = Vec::new();
            for line in &keys {
                let (key, _) = line.split_once(" = ").unwrap();
                if !given.contains(&key) {
                    given.push(key);
                    text.push_str(line);
                }
            }
        }
        match policy::load_text("p.toml", &text) {
            Err(refusal) => {
                for problem in refusal.diagnostics() {
                    prop_assert!(!problem.help.is_empty(), "{}\n{text}", problem.message);
                }
            }
            Ok(loaded) => well_formed(&compile(&loaded.policy).0, &text)?,
        }
    }

    #[test]
    fn two_rules_are_refused_if_and_only_if_they_disagree(
        texts in prop::collection::vec(rule(), 2..5),
    ) {
        let text = format!("{CONDUIT}{}", texts.concat());
        let is_refused = policy::load_text("p.toml", &text).is_err();
        // To ask the rules, each is read in a conduit of its own and put beside the others.
        let mut policy = read(&format!("{CONDUIT}{}", texts[0]));
        for text in &texts[1..] {
            let other = read(&format!("{CONDUIT}{text}"));
            policy.conduits[0].modbus.extend(other.conduits[0].modbus.clone());
        }
        prop_assert_eq!(is_refused, contradicts(&policy), "{}", text);
    }
}

#[test]
fn reads_are_not_limited_by_what_a_rule_says_of_writes() {
    let (_, tables) = rules(
        "[[conduits.modbus]]\nunits = [1]\nfunctions = [3, 6, 16, 23]\nregisters = \
         [\"40011-40014\"]\nvalues = { max = 1500 }\nmax_step = 50\n",
    );
    assert_eq!(limits(&tables, 1, 3), [Limits::default()]);
    for function in [6, 16, 23] {
        let own = limits(&tables, 1, function)[0];
        assert_eq!(own.flags, limit::VALUES | limit::STEP);
        assert_eq!((own.step, own.scale), (50, 0));
        for (value, passes) in [(0, true), (1500, true), (1501, false), (65_535, false)] {
            assert_eq!(lets_pass(&tables, &own, value), passes, "{value}");
        }
        assert_eq!(intervals(&tables, 1, function), [(10, 13, 13)]);
    }
    assert_eq!(tables.limits.len(), 2, "equal rows are shared");
}

#[test]
fn a_write_may_go_over_the_border_of_two_rules() {
    let (_, tables) = rules(
        "[[conduits.modbus]]\nunits = [1]\nfunctions = [16]\nregisters = [{ first = 0, last = 4 \
         }]\nvalues = { max = 10 }\n[[conduits.modbus]]\nunits = [1]\nfunctions = \
         [16]\nregisters = [{ first = 5, last = 9 }]\n",
    );
    assert_eq!(intervals(&tables, 1, 16), [(0, 4, 9), (5, 9, 9)]);
    let flags: Vec<u8> = limits(&tables, 1, 16).iter().map(|l| l.flags).collect();
    assert_eq!(flags, [limit::VALUES, 0]);
}

#[test]
fn a_rate_makes_an_interval_of_every_function() {
    let (_, tables) = rules(
        "[[conduits.modbus]]\nunits = [1]\nfunctions = [3, 7, 43, 90]\nmei_types = [14]\nmax_rate \
         = \"2/s burst 3\"\nmax_length = 40\n",
    );
    for function in [3, 7, 43, 90] {
        let own = limits(&tables, 1, function)[0];
        // 250 ticks a second: half a second is 125 ticks.
        assert_eq!(own.rate_interval, 125 << 16);
        assert_eq!(own.rate_burst, 2 * (125 << 16));
        let has_length = function == 90;
        assert_eq!(own.flags & limit::LENGTH != 0, has_length);
        assert_eq!(own.max_length, if has_length { 40 } else { 0 });
    }
    assert_eq!(intervals(&tables, 1, 7), [(0, u16::MAX, u16::MAX)]);
    assert_eq!(intervals(&tables, 1, 43), [(14, 14, 14)]);
}

#[test]
fn files_have_records() {
    let (_, tables) = rules(
        "[[conduits.modbus]]\nunits = [1]\nfunctions = [20]\nfiles = [4, \"10-12\"]\nrecords = \
         \"0-99\"\n",
    );
    assert_eq!(intervals(&tables, 1, 20), [(4, 4, 4), (10, 12, 12)]);
    let own = limits(&tables, 1, 20)[0];
    assert_eq!(
        (own.flags, own.first_record, own.last_record),
        (limit::RECORDS, 0, 99)
    );
}

#[test]
fn numbers_of_two_registers_are_limited_as_a_whole() {
    let (policy, tables) = rules(
        "[[conduits.modbus]]\nunits = [1]\nfunctions = [\"writes\"]\nregisters = \
         [\"40021-40024\"]\ntype = \"f32\"\nword_order = \"low-first\"\nvalues = { min = -1, max = \
         1.5 }\nmax_step = 0.25\n",
    );
    let own = limits(&tables, 1, 16)[0];
    assert_eq!(own.number, conduitfw_common::table::number::F32);
    assert_eq!(own.low_word_first, 1);
    // 1.5 * 2^60 is below 2^61, 1.5 * 2^61 is not.
    assert_eq!(own.scale, 60);
    assert_eq!(own.step, 1 << 58);
    for (value, passes) in [
        (-1.0_f32, true),
        (-1.000_001, false),
        (-0.0, true),
        (1.5, true),
        (1.500_001, false),
        (f32::NAN, false),
        (f32::INFINITY, false),
    ] {
        assert_eq!(lets_pass(&tables, &own, value.to_bits()), passes, "{value}");
    }
    // A group leaves out what can never write a whole number.
    let functions: Vec<u8> = policy.conduits[0].modbus[0].functions.iter().collect();
    assert_eq!(functions, [16, 23]);
}

#[test]
fn steps_are_as_fine_as_the_largest_value_allows() {
    for (max, step) in [
        (1.0_f32, 0.001_f32),
        (1500.0, 50.0),
        (1e30, 1e25),
        (1e-20, 1e-24),
    ] {
        let (policy, tables) = rules(&format!(
            "[[conduits.modbus]]\nunits = [1]\nfunctions = [16]\ntype = \"f32\"\nword_order = \
             \"high-first\"\nvalues = {{ min = 0, max = {max:?} }}\nmax_step = {step:?}\n"
        ));
        let own = limits(&tables, 1, 16)[0];
        let highest = number::fixed(own.number, max.to_bits(), own.scale);
        assert!(highest < 1 << 61, "{max}");
        assert!(own.scale == 100 || highest >= 1 << 59, "{max}: {highest}");
        let cut = number::fixed(own.number, step.to_bits(), own.scale);
        assert_eq!(i128::from(own.step), i128::from(cut), "{step}");
        assert_eq!(policy.conduits[0].modbus[0].written.scale(), own.scale);
    }
}

#[test]
fn a_group_stands_for_what_the_ranges_are_for() {
    let functions = |text: &str| -> Vec<u8> {
        let (policy, _) = rules(&format!("[[conduits.modbus]]\nunits = [1]\n{text}"));
        policy.conduits[0].modbus[0].functions.iter().collect()
    };
    assert_eq!(
        functions("functions = [\"reads\"]\nregisters = [\"40001\"]\n"),
        [3, 24]
    );
    assert_eq!(
        functions("functions = [\"reads\"]\nregisters = [\"40001\", \"30001\"]\n"),
        [3, 4, 24]
    );
    assert_eq!(
        functions("functions = \"all\"\nregisters = [\"40001\"]\n"),
        [3, 6, 16, 22, 23, 24]
    );
    assert_eq!(
        functions("functions = [\"all\", 17]\ncoils = [1]\nsub_functions = [0]\n"),
        [1, 5, 8, 15, 17]
    );
    assert_eq!(
        functions("functions = [\"writes\"]\nvalues = { max = 1500 }\n"),
        [6, 16, 22, 23]
    );
    assert_eq!(functions("functions = [\"writes\"]\nfiles = [1]\n"), [21]);
    assert_eq!(functions("functions = [\"reads\"]\n"), [1, 2, 3, 4, 20, 24]);
}

#[test]
fn what_may_surprise_is_told() {
    let notes = |text: &str| -> Vec<&'static str> {
        let text = format!("{CONDUIT}[[conduits.modbus]]\nunits = [1]\n{text}");
        let loaded = policy::load_text("p.toml", &text).unwrap();
        loaded.notes.iter().map(|note| note.code).collect()
    };
    assert_eq!(
        notes("functions = [6]\nregisters = [40011]\n"),
        ["looks-like-modicon"]
    );
    assert_eq!(notes("functions = [6]\nregisters = [10]\n"), [""; 0]);
    assert_eq!(notes("functions = [1]\ncoils = [40011]\n"), [""; 0]);
    assert_eq!(
        notes("functions = [\"writes\"]\nregisters = [\"40011\"]\n"),
        ["group-narrowed"]
    );
}

#[test]
fn a_way_around_the_limits_is_told() {
    let notes = |text: &str| -> Vec<String> {
        let loaded = policy::load_text("p.toml", &format!("{CONDUIT}{text}")).unwrap();
        let notes = loaded.notes.iter().map(|note| note.message.clone());
        notes.collect()
    };
    let rule = |name: &str, rest: &str| {
        format!("[[conduits.modbus]]\nname = \"{name}\"\nunits = [1]\n{rest}")
    };
    let limited = rule(
        "limited",
        "functions = [6]\nregisters = [{ first = 10, last = 13 }]\nvalues = { max = 5 }\n",
    );
    let other = |rest: &str| notes(&(limited.clone() + &rule("other", rest)));
    assert_eq!(
        other("functions = [16, 22]\nregisters = [{ first = 12, last = 20 }]\n"),
        [
            "rule `other` of conduit `c` writes holding register 12 (function 16) without the \
             limits that `limited` has for function 6"
        ]
    );
    assert_eq!(other("functions = [16]\n").len(), 1);
    assert_eq!(other("functions = [16]\nvalues = { max = 7 }\n"), [""; 0]);
    assert_eq!(other("functions = [3]\n"), [""; 0]);
    assert_eq!(other("functions = [16]\nregisters = [14]\n"), [""; 0]);
}

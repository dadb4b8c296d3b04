//! Requests at the borders of what a rule says, and a plain reading of whether a rule allows them.

use anyhow::{Context, Result};
use conduitfw_tests::frames::modbus;
use toml::Value;

use super::{FUNCTIONS, list};

/// A request that reads or writes one number: a coil, a register or two.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) function: u8,
    pub(super) address: u16,
    /// What is written, and how many registers are read.
    pub(super) words: Vec<u16>,
}

impl Probe {
    pub(super) fn pdu(&self) -> Vec<u8> {
        let Self {
            function,
            address,
            words,
        } = self;
        match function {
            5 => modbus::write_single(5, *address, if words[0] == 0 { 0 } else { 0xff00 }),
            6 => modbus::write_single(6, *address, words[0]),
            15 => {
                let coils: Vec<bool> = words.iter().map(|word| *word != 0).collect();
                modbus::write_coils(*address, &coils)
            }
            16 => modbus::write_registers(*address, words),
            22 => modbus::mask_write(*address, !words[0], words[0]),
            _ => modbus::read(*function, *address, 1),
        }
    }

    /// Registers from the first on that it is about.
    fn quantity(&self) -> u16 {
        let is_multiple = matches!(self.function, 15 | 16);
        u16::try_from(if is_multiple { self.words.len() } else { 1 }).unwrap_or(1)
    }
}

/// Requests at, before and behind every border that the rules name, and some without a border.
pub(super) fn around(rules: &[Value]) -> Result<Vec<Probe>> {
    let mut written = vec![vec![1]];
    for rule in rules {
        if let Some((min, max)) = bounds(rule) {
            let beyond = max + if type_of(rule) == "f32" { max } else { 1.0 };
            written.extend([words(rule, min), words(rule, beyond)]);
        }
        written.extend(bits(rule).iter().map(|bit| vec![1 << bit]));
        written.extend(bits(rule).iter().max().map(|bit| vec![2 << bit]));
    }
    let mut probes: Vec<Probe> = Vec::new();
    for (function, _) in FUNCTIONS {
        let mut addresses = vec![0];
        for rule in rules {
            for (first, last) in places(rule, function)?.into_iter().flatten() {
                addresses.extend([first, last, last.saturating_add(1)]);
                addresses.extend(first.checked_sub(1));
            }
        }
        for address in addresses {
            for words in &written {
                let is_write = matches!(function, 5 | 6 | 15 | 16 | 22);
                let probe = Probe {
                    function,
                    address,
                    words: if is_write { words.clone() } else { vec![1] },
                };
                if !probes.contains(&probe) && (words.len() == 1 || function == 16) {
                    probes.push(probe);
                }
            }
        }
    }
    Ok(probes)
}

/// Writes that go from the smallest value by a step, by more than one, and back; and whether each of
/// them is allowed. None when the rule limits no steps.
pub(super) fn steps(rule: &Value) -> Result<Vec<(Probe, bool)>> {
    let (Some(step), Some((min, _))) = (number(rule.get("max_step")), bounds(rule)) else {
        return Ok(Vec::new());
    };
    let place = places(rule, 16)?.and_then(|places| places.first().copied());
    let (address, _) = place.context("steps, and no registers")?;
    // A number of single precision is not quite the one that was asked for.
    let step = if type_of(rule) == "f32" {
        step * 0.99
    } else {
        step
    };
    let write = |value, is_allowed| {
        let probe = Probe {
            function: 16,
            address,
            words: words(rule, value),
        };
        (probe, is_allowed)
    };
    Ok(vec![
        write(min, true),
        write(min + 2.0 * step, false),
        write(min + step, true),
        write(min + 2.0 * step, true),
        write(min + step, true),
        write(min, true),
    ])
}

/// Whether a rule, for which unit and function are right, allows the rest of a request.
pub(super) fn allows(rule: &Value, probe: &Probe) -> Result<bool> {
    let last = probe.address + (probe.quantity() - 1);
    if let Some(places) = places(rule, probe.function)? {
        let mut asked = probe.address..=last;
        let has = |register: u16| {
            places
                .iter()
                .any(|place| (place.0..=place.1).contains(&register))
        };
        if !asked.all(has) {
            return Ok(false);
        }
    }
    if !matches!(probe.function, 5 | 6 | 15 | 16 | 22) {
        return Ok(true);
    }
    let bits = bits(rule);
    if !bits.is_empty() {
        let allowed: u16 = bits.iter().map(|bit| 1 << bit).sum();
        return Ok(probe.words.iter().all(|word| word & !allowed == 0));
    }
    let Some((min, max)) = bounds(rule) else {
        return Ok(true);
    };
    // Function 22 leaves something of the old value.
    let width = words(rule, min).len();
    if probe.function == 22 || !probe.words.len().is_multiple_of(width) {
        return Ok(false);
    }
    let is_within = |words: &[u16]| (min..=max).contains(&value(rule, words));
    Ok(probe.words.chunks(width).all(is_within))
}

fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        // As the kernel reads it: in single precision.
        Value::Float(number) => number.to_string().parse::<f32>().ok().map(f64::from),
        _ => None,
    }
}

/// The smallest and the largest value of a rule that limits values.
fn bounds(rule: &Value) -> Option<(f64, f64)> {
    match rule.get("values")? {
        Value::Table(range) => Some((number(range.get("min"))?, number(range.get("max"))?)),
        Value::Array(single) => {
            let single = number(single.first())?;
            Some((single, single))
        }
        _ => None,
    }
}

fn bits(rule: &Value) -> Vec<u16> {
    let entry = |value: &Value| match value {
        Value::Integer(bit) => u16::try_from(*bit).map(|bit| bit..=bit).ok(),
        Value::String(range) => {
            let (first, last) = range.split_once('-')?;
            Some(first.parse().ok()?..=last.parse().ok()?)
        }
        _ => None,
    };
    list(rule, "bits")
        .iter()
        .filter_map(entry)
        .flatten()
        .collect()
}

fn type_of(rule: &Value) -> &str {
    let is_signed = rule.get("signed").and_then(Value::as_bool) == Some(true);
    let named = rule.get("type").and_then(Value::as_str);
    named.unwrap_or(if is_signed { "i16" } else { "u16" })
}

/// A number as the rule has it in registers.
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of the examples fit"
)]
fn words(rule: &Value, number: f64) -> Vec<u16> {
    if type_of(rule) != "f32" {
        return vec![(number as i32).cast_unsigned() as u16];
    }
    let bits = (number as f32).to_bits();
    let [high, low] = [(bits >> 16) as u16, bits as u16];
    if rule.get("word_order").and_then(Value::as_str) == Some("low-first") {
        vec![low, high]
    } else {
        vec![high, low]
    }
}

/// Registers as the rule reads them.
fn value(rule: &Value, words: &[u16]) -> f64 {
    match (type_of(rule), words) {
        ("f32", &[one, other]) => {
            let is_low_first = rule.get("word_order").and_then(Value::as_str) == Some("low-first");
            let (high, low) = if is_low_first {
                (other, one)
            } else {
                (one, other)
            };
            f32::from_bits(u32::from(high) << 16 | u32::from(low)).into()
        }
        ("i16", &[word]) => word.cast_signed().into(),
        (_, &[word]) => word.into(),
        _ => f64::NAN,
    }
}

/// What the rule names of the table that a function works on: addresses from 0. None when it names
/// nothing of any table.
fn places(rule: &Value, function: u8) -> Result<Option<Vec<(u16, u16)>>> {
    let (own_key, digit) = match function {
        1 | 5 | 15 => ("coils", '0'),
        2 => ("discrete_inputs", '1'),
        4 => ("input_registers", '3'),
        _ => ("holding_registers", '4'),
    };
    let keys = [
        "coils",
        "discrete_inputs",
        "input_registers",
        "holding_registers",
        "registers",
    ];
    if !keys.iter().any(|key| rule.get(key).is_some()) {
        return Ok(None);
    }
    let mut places = Vec::new();
    for value in list(rule, own_key).iter().chain(list(rule, "registers")) {
        let Value::String(text) = value else {
            // The examples keep to Modicon numbers.
            anyhow::bail!("{value} is no Modicon number");
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        if first.starts_with(digit) {
            let address = |text: &str| -> Result<u16> { Ok(text[1..].parse::<u16>()? - 1) };
            places.push((address(first)?, address(last)?));
        }
    }
    Ok(Some(places))
}

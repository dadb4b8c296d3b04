//! `values`, `bits`, `max_step` and how the registers that they hold for are read.

use conduitfw_common::modbus::function::{Body, FunctionCode};
use toml::de::DeValue;

use super::super::super::diagnostic::Diagnostics;
use super::super::super::model::{Number, NumberRange, NumberType, WordOrder, Written};
use super::super::super::source::Span;
use super::super::super::value::{Fault, a};
use super::super::conduit::number_or_range;
use super::super::section::{Section, Value, integer, report, wrong_entry, wrong_type};
use super::super::unknown_word;
use super::functions::{Functions, in_words};

const VALUES: &str = "values";
const BITS: &str = "bits";
const MAX_STEP: &str = "max_step";
/// Keys that limit what is written.
const LIMITS: [&str; 3] = [VALUES, BITS, MAX_STEP];
/// Keys that say how registers are read.
const READINGS: [&str; 3] = ["type", "signed", "word_order"];

pub(super) fn read(
    section: &Section<'_>,
    functions: &mut Functions,
    diagnostics: &mut Diagnostics,
) -> Written {
    let before = diagnostics.errors();
    let number = number_type(section, diagnostics);
    let word_order = word_order(section, number, diagnostics);
    let reading = READINGS.into_iter().find(|key| section.has(key));
    let Some(limit) = LIMITS.into_iter().find(|key| section.has(key)) else {
        if let Some(key) = reading {
            diagnostics.error(
                "contradiction",
                section.place(key),
                format!("`{key}` says how values are read, and the rule limits none"),
                format!("add `values` or `max_step`, or remove `{key}`"),
            );
        }
        return Written::default();
    };
    if let Some(key) = reading
        && !section.has(VALUES)
        && !section.has(MAX_STEP)
    {
        diagnostics.error(
            "contradiction",
            section.place(key),
            format!("`{key}` is given, and `bits` are those of one register as it is"),
            format!("remove `{key}`, or give `values` or `max_step`"),
        );
    }
    let not_for_coils = [BITS, MAX_STEP].into_iter().chain(READINGS);
    let not_for_coils = not_for_coils.into_iter().find(|key| section.has(key));
    narrow(
        section,
        functions,
        (limit, number, not_for_coils),
        diagnostics,
    );

    let coils = functions.those(is_of_coils);
    let concerned = functions.those(Written::concerns);
    let bounds = if coils.len() == concerned.len() && !coils.is_empty() {
        Bounds::COIL
    } else {
        Bounds::of(number)
    };
    let values = values(section, &bounds, diagnostics);
    let fits_coils = values.as_ref().is_none_or(|values| {
        let is_bit = |range: &NumberRange| range.last <= Number::Integer(1);
        values.ranges.iter().all(is_bit)
    });
    if !fits_coils {
        let never = functions.leave_out(coils);
        let why = "a coil is written as 0 or 1: give coils and registers a rule each";
        refuse(section, &never, VALUES, why, diagnostics);
    }
    if functions.those(Written::concerns).is_empty() && section.has("functions") {
        diagnostics.error(
            "never-matches",
            section.place(limit),
            format!("`{limit}` is given, and the rule has no function that it holds for"),
            "it holds for functions 5, 6, 15, 16, 22 and 23: what they write is in the request",
        );
    }
    let max_step = max_step(section, &bounds, values.as_ref(), diagnostics);
    let written = Written {
        number,
        word_order,
        values: values.map(|values| values.ranges),
        bits: bits(section, number, diagnostics),
        max_step,
    };
    if diagnostics.errors() == before && written.fixed_step() == Some(0) {
        let fault = Fault::new(
            "out-of-range",
            "the step is too small beside the largest of the values",
            "such numbers cannot be told apart: choose a larger step, or smaller values",
        );
        report::<()>(fault, section.place(MAX_STEP), diagnostics);
    }
    written
}

fn is_of_coils(function: FunctionCode) -> bool {
    matches!(
        function,
        FunctionCode::WRITE_SINGLE_COIL | FunctionCode::WRITE_MULTIPLE_COILS
    )
}

/// Leaves out functions that write what the limits cannot be held against.
fn narrow(
    section: &Section<'_>,
    functions: &mut Functions,
    (limit, number, not_for_coils): (&str, NumberType, Option<&str>),
    diagnostics: &mut Diagnostics,
) {
    let unseen = functions.those(|code| {
        code == FunctionCode::WRITE_FILE_RECORD || matches!(code.request_body(), Body::Any)
    });
    let never = functions.leave_out(unseen);
    let why = "it cannot be held against what that function writes: give it a rule of its own";
    refuse(section, &never, limit, why, diagnostics);
    if number.registers() == 2 {
        let halves = functions.those(|code| {
            matches!(
                code,
                FunctionCode::WRITE_SINGLE_REGISTER | FunctionCode::MASK_WRITE_REGISTER
            )
        });
        let never = functions.leave_out(halves);
        let why = format!(
            "it writes one register, which is half of {}",
            a(number.label())
        );
        refuse(section, &never, "type", &why, diagnostics);
    }
    if let Some(key) = not_for_coils {
        let never = functions.leave_out(functions.those(is_of_coils));
        let why = "a coil is 0 or 1: give coils a rule of their own, with values = [0] or [1]";
        refuse(section, &never, key, why, diagnostics);
    }
}

fn refuse(
    section: &Section<'_>,
    never: &[FunctionCode],
    key: &str,
    why: &str,
    diagnostics: &mut Diagnostics,
) {
    if !never.is_empty() {
        diagnostics.error(
            "never-matches",
            section.place(key),
            format!("`{key}` is given, and {} is allowed", in_words(never)),
            why,
        );
    }
}

fn number_type(section: &Section<'_>, diagnostics: &mut Diagnostics) -> NumberType {
    let is_signed = section.flag("signed", diagnostics);
    let named = section.parsed("type", diagnostics, |text| {
        NumberType::ALL
            .into_iter()
            .find(|number| number.label() == text)
            .ok_or_else(|| {
                let labels = NumberType::ALL.map(NumberType::label);
                unknown_word("type", text, &labels)
            })
    });
    if section.has("signed") && section.has("type") {
        diagnostics.error(
            "contradiction",
            section.place("signed"),
            format!("{} has both `type` and `signed`", section.what),
            "signed = true is type = \"i16\": remove `signed`",
        );
    }
    match named {
        Some(named) => named.value,
        None if is_signed => NumberType::I16,
        None => NumberType::U16,
    }
}

fn word_order(
    section: &Section<'_>,
    number: NumberType,
    diagnostics: &mut Diagnostics,
) -> WordOrder {
    let orders = [WordOrder::HighFirst, WordOrder::LowFirst];
    let order = section.parsed("word_order", diagnostics, |text| {
        orders
            .into_iter()
            .find(|order| order.label() == text)
            .ok_or_else(|| unknown_word("word_order", text, &orders.map(WordOrder::label)))
    });
    if number.registers() == 2 {
        if !section.has("word_order") {
            diagnostics.error(
                "missing-key",
                section.place("type"),
                format!(
                    "{} takes two registers, and `word_order` is missing",
                    a(number.label())
                ),
                "add word_order = \"high-first\" or \"low-first\": devices differ, see the manual",
            );
        }
    } else if section.has("word_order") {
        diagnostics.error(
            "contradiction",
            section.place("word_order"),
            format!(
                "`word_order` is given, and {} is one register",
                a(number.label())
            ),
            "remove it, or give the type: \"u32\", \"i32\" or \"f32\"",
        );
    }
    order.map_or_else(WordOrder::default, |order| order.value)
}

/// What a written value can be.
struct Bounds {
    what: &'static str,
    first: Number,
    last: Number,
}

impl Bounds {
    const COIL: Self = Self {
        what: "value of a coil",
        first: Number::Integer(0),
        last: Number::Integer(1),
    };

    const fn of(number: NumberType) -> Self {
        let (first, last) = number.bounds();
        Self {
            what: number.label(),
            first,
            last,
        }
    }

    fn is_real(&self) -> bool {
        matches!(self.first, Number::Real(_))
    }

    fn number(&self, value: &Value<'_>) -> Result<Number, Fault> {
        let expected = if self.is_real() {
            "a number, \"first-last\" or { min = 0, max = 100 }"
        } else {
            "a whole number, \"first-last\" or { min = 0, max = 100 }"
        };
        match value.get_ref() {
            DeValue::Float(number) if self.is_real() => self.read(number.as_str()),
            other => match integer(other) {
                Some(number) => self.read(&number.to_string()),
                None => Err(wrong_entry(&a(self.what), value, expected)),
            },
        }
    }

    fn read(&self, text: &str) -> Result<Number, Fault> {
        let text = text.trim();
        let number = if self.is_real() {
            text.replace('_', "").parse().ok().map(Number::Real)
        } else {
            // One that is larger than any of ours counts as out of range.
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| Number::Integer(text.parse().unwrap_or(i64::MAX)))
        };
        let number = number.ok_or_else(|| {
            Fault::new(
                "bad-range",
                format!("`{text}` is not {}", a(self.what)),
                "a range is written \"first-last\", as in \"3-5\"",
            )
        })?;
        if number >= self.first && number <= self.last {
            return Ok(number);
        }
        Err(Fault::new(
            "out-of-range",
            format!("{text} is not {}", a(self.what)),
            match self.what {
                "u16" => format!("expected {} to {}, or give `type`", self.first, self.last),
                "f32" => "expected a finite number of single precision".to_owned(),
                _ => format!("expected {} to {}", self.first, self.last),
            },
        ))
    }
}

/// Values that may be written, and whether both ends of all of them were given.
struct Values {
    ranges: Vec<NumberRange>,
    has_ends: bool,
}

fn values(section: &Section<'_>, bounds: &Bounds, diagnostics: &mut Diagnostics) -> Option<Values> {
    let value = section.value(VALUES)?;
    let entries = match value.get_ref() {
        DeValue::Table(_) => match value_entry(value, bounds) {
            Ok(entry) => vec![entry],
            Err(fault) => report(fault, value.span().into(), diagnostics).unwrap_or_default(),
        },
        DeValue::Array(_) => section
            .entries(VALUES, diagnostics, |value| value_entry(value, bounds))
            .into_iter()
            .map(|entry| entry.value)
            .collect(),
        _ => {
            let expected = "{ min = 0, max = 100 } or a list of values";
            wrong_type(VALUES, value, expected, diagnostics).unwrap_or_default()
        }
    };
    let has_ends = entries.iter().all(|entry| entry.1);
    let mut ranges: Vec<NumberRange> = entries.into_iter().map(|entry| entry.0).collect();
    ranges.sort_by(|one, other| {
        one.first
            .partial_cmp(&other.first)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Some(Values {
        ranges: merged(ranges),
        has_ends,
    })
}

/// Sorted ranges without overlaps; whole numbers that follow one another are one range.
fn merged(sorted: Vec<NumberRange>) -> Vec<NumberRange> {
    let mut ranges: Vec<NumberRange> = Vec::new();
    for range in sorted {
        let touches = |before: &NumberRange| match (before.last, range.first) {
            (Number::Integer(last), Number::Integer(first)) => first <= last.saturating_add(1),
            (last, first) => first <= last,
        };
        match ranges.last_mut() {
            Some(before) if touches(before) => {
                if range.last > before.last {
                    before.last = range.last;
                }
            }
            _ => ranges.push(range),
        }
    }
    ranges
}

/// A range, and whether both of its ends were given.
fn value_entry(value: &Value<'_>, bounds: &Bounds) -> Result<(NumberRange, bool), Fault> {
    let (first, last, has_ends) = match value.get_ref() {
        DeValue::Table(table) => {
            let known = table
                .keys()
                .all(|key| matches!(key.get_ref().as_ref(), "min" | "max"));
            if !known || table.is_empty() {
                return Err(Fault::new(
                    "bad-range",
                    "this is not a range of values",
                    "expected { min = 0, max = 100 }, or one of the two",
                ));
            }
            let end = |key| table.get(key).map(|value| bounds.number(value)).transpose();
            let (min, max) = (end("min")?, end("max")?);
            let has_ends = min.is_some() && max.is_some();
            (
                min.unwrap_or(bounds.first),
                max.unwrap_or(bounds.last),
                has_ends,
            )
        }
        DeValue::String(text) => {
            let (first, last) = split(text).unwrap_or((text, text));
            (bounds.read(first)?, bounds.read(last)?, true)
        }
        _ => {
            let number = bounds.number(value)?;
            (number, number, true)
        }
    };
    if first > last {
        return Err(Fault::new(
            "range-upside-down",
            format!("values from {first} to {last} are upside down"),
            format!("did you mean {last} to {first}?"),
        ));
    }
    Ok((NumberRange { first, last }, has_ends))
}

/// The two ends of `"first-last"`. A sign and that of an exponent do not part them.
fn split(text: &str) -> Option<(&str, &str)> {
    let ends_a_number = |before: &str| {
        let last = before.trim_end().bytes().last();
        last.is_some_and(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let (at, _) = text
        .match_indices('-')
        .find(|(at, _)| text.get(..*at).is_some_and(ends_a_number))?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn bits(section: &Section<'_>, number: NumberType, diagnostics: &mut Diagnostics) -> Option<u16> {
    if !section.has(BITS) {
        return None;
    }
    if number.registers() == 2 {
        diagnostics.error(
            "contradiction",
            section.place(BITS),
            format!(
                "`bits` are those of one register, and {} takes two",
                a(number.label())
            ),
            "remove `bits`, or the type",
        );
    }
    let entries = section.entries(BITS, diagnostics, |value| number_or_range("bit", value, 15));
    let all = entries
        .into_iter()
        .flat_map(|entry| entry.value.0..=entry.value.1);
    Some(all.fold(0, |bits, bit| bits | 1 << bit))
}

fn max_step(
    section: &Section<'_>,
    bounds: &Bounds,
    values: Option<&Values>,
    diagnostics: &mut Diagnostics,
) -> Option<Number> {
    let value = section.value(MAX_STEP)?;
    let span: Span = value.span().into();
    if bounds.is_real() && !values.is_some_and(|values| values.has_ends) {
        diagnostics.error(
            "missing-key",
            span,
            "`max_step` of an f32 needs to know how large its values are",
            "add values = { min = ..., max = ... }, with both ends",
        );
    }
    let smallest = if bounds.is_real() {
        Number::Real(0.0)
    } else {
        Number::Integer(0)
    };
    let is_number =
        integer(value.get_ref()).is_some() || (bounds.is_real() && value.get_ref().is_float());
    if !is_number {
        let expected = if bounds.is_real() {
            "a number"
        } else {
            "a whole number"
        };
        return wrong_type(MAX_STEP, value, expected, diagnostics);
    }
    // From one end of the type to the other is the longest step.
    let steps = Bounds {
        what: "step",
        first: smallest,
        last: match (bounds.first, bounds.last) {
            (Number::Integer(first), Number::Integer(last)) => Number::Integer(last - first),
            (_, last) => last,
        },
    };
    match steps.number(value) {
        Ok(step) if step > smallest => Some(step),
        Ok(_) => {
            let fault = Fault::new(
                "out-of-range",
                "with a step of 0 no value could ever change",
                "expected a larger step; to write nothing, leave the rule out",
            );
            report(fault, span, diagnostics)
        }
        Err(fault) => report(fault, span, diagnostics),
    }
}

//! `values`: single ones and ranges, in the type that they are read as.

use super::super::super::diagnostic::Diagnostics;
use super::super::super::model::{Number, NumberRange, NumberType};
use super::super::super::value::{Fault, a};
use super::super::section::{Section, report, wrong_entry, wrong_type};
use super::super::tree::{Kind, Value};

pub(super) const VALUES: &str = "values";

/// What a written value can be.
pub(super) struct Bounds {
    pub(super) what: &'static str,
    pub(super) first: Number,
    pub(super) last: Number,
}

impl Bounds {
    pub(super) const COIL: Self = Self {
        what: "value of a coil",
        first: Number::Integer(0),
        last: Number::Integer(1),
    };

    pub(super) const fn of(number: NumberType) -> Self {
        let (first, last) = number.bounds();
        Self {
            what: number.label(),
            first,
            last,
        }
    }

    pub(super) fn is_real(&self) -> bool {
        matches!(self.first, Number::Real(_))
    }

    pub(super) fn number(&self, value: &Value<'_>) -> Result<Number, Fault> {
        let expected = if self.is_real() {
            "a number, \"first-last\" or { min = 0, max = 100 }"
        } else {
            "a whole number, \"first-last\" or { min = 0, max = 100 }"
        };
        match &value.kind {
            Kind::Float(number) if self.is_real() => self.read(number),
            _ => match value.integer() {
                // What is beyond all whole numbers is no longer known.
                Some(i128::MAX) if self.is_real() => Err(Fault::new(
                    "out-of-range",
                    format!(
                        "a whole number of so many digits is not read as {}",
                        a(self.what)
                    ),
                    "write it with an exponent, as in 3.0e38",
                )),
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
pub(super) struct Values {
    pub(super) ranges: Vec<NumberRange>,
    pub(super) has_ends: bool,
}

pub(super) fn read(
    section: &Section<'_>,
    bounds: &Bounds,
    diagnostics: &mut Diagnostics,
) -> Option<Values> {
    let value = section.value(VALUES)?;
    let entries = match &value.kind {
        Kind::Table(_) => match value_entry(value, bounds) {
            Ok(entry) => vec![entry],
            Err(fault) => report(fault, value.span(), diagnostics).unwrap_or_default(),
        },
        Kind::Array(_) => section
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
    let (first, last, has_ends) = match &value.kind {
        Kind::Table(table) => {
            let known = table.keys().all(|key| matches!(key, "min" | "max"));
            if !known || table.len() == 0 {
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
        Kind::String(text) => {
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

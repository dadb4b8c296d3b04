//! `values`, `bits`, `max_step` and how the registers that they hold for are read.

use conduitfw_common::modbus::function::{Body, FunctionCode};

use super::super::super::diagnostic::Diagnostics;
use super::super::super::model::{ByteSet, Number, NumberRange, NumberType, WordOrder, Written};
use super::super::super::value::{Fault, a};
use super::super::conduit::number_or_range;
use super::super::section::{Section, report, wrong_type};
use super::super::tree::Kind;
use super::super::unknown_word;
use super::functions::{Functions, in_words};
use super::values::{self, Bounds, VALUES, Values};

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

    let bits = bits(section, number, diagnostics);
    mask(section, functions, bits, diagnostics);

    let coils = functions.those(is_of_coils);
    let concerned = functions.those(Written::concerns);
    let bounds = if coils.len() == concerned.len() && !coils.is_empty() {
        Bounds::COIL
    } else {
        Bounds::of(number)
    };
    let values = values::read(section, &bounds, diagnostics);
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
        bits,
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

/// Function 22 says what it writes only where it touches every bit.
fn mask(
    section: &Section<'_>,
    functions: &mut Functions,
    bits: Option<u16>,
    diagnostics: &mut Diagnostics,
) {
    let key = [VALUES, MAX_STEP].into_iter().find(|key| section.has(key));
    let Some(key) = key.filter(|_| bits.is_some_and(|bits| bits != u16::MAX)) else {
        return;
    };
    let never =
        functions.leave_out(functions.those(|code| code == FunctionCode::MASK_WRITE_REGISTER));
    let why = "it is held against values only where it touches every bit, which `bits` forbid";
    refuse(section, &never, key, why, diagnostics);
}

fn refuse(
    section: &Section<'_>,
    never: &ByteSet,
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
    let span = value.span();
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
        value.integer().is_some() || (bounds.is_real() && matches!(value.kind, Kind::Float(_)));
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

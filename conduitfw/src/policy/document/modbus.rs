//! `[[conduits.modbus]]`, read; the words are those of the Modbus Application Protocol V1.1b3.

mod functions;
mod modicon;
mod operands;
mod registers;
mod values;
mod written;

use conduitfw_common::modbus::MAXIMUM_LENGTH;
use conduitfw_common::modbus::function::Body;

use super::super::diagnostic::Diagnostics;
use super::super::model::{ByteSet, OperandRange, Operands, PortRange, Rate, TableRanges, Written};
use super::super::source::{Span, Spanned};
use super::super::value::{self, Fault};
use super::conduit::{number_or_range, port_entry, ports as ports_of};
use super::section::{Section, report, wrong_type};
use super::tree::Value;
use functions::Functions;

/// The port of Modbus/TCP.
const MODBUS_PORT: u16 = 502;
/// Requests that may wait for a reply, by the Modbus/TCP implementation guide.
const MAX_OUTSTANDING: u32 = 16;
/// The group of all function codes, and all operands of one.
const ALL: &str = "all";

/// `[[conduits.modbus]]`.
#[derive(Debug)]
pub(in super::super) struct ModbusDocument {
    pub(in super::super) header: Span,
    /// `modbus-N` when it has none: its header's place is that of the name.
    pub(in super::super) name: Spanned<String>,
    pub(in super::super) ports: Vec<Spanned<PortRange>>,
    pub(in super::super) units: ByteSet,
    pub(in super::super) functions: ByteSet,
    pub(in super::super) sub_functions: Operands,
    pub(in super::super) mei_types: Operands,
    pub(in super::super) tables: Vec<TableRanges>,
    pub(in super::super) records: Option<OperandRange>,
    pub(in super::super) written: Written,
    pub(in super::super) max_rate: Option<Rate>,
    pub(in super::super) max_length: Option<u8>,
    pub(in super::super) max_outstanding: Option<Spanned<u8>>,
}

/// Rule `number` of its conduit, counted from 1.
pub(super) fn read(
    section: &Section<'_>,
    number: usize,
    diagnostics: &mut Diagnostics,
) -> ModbusDocument {
    section.missing("units", "add units = [1], or units = \"all\"", diagnostics);
    section.missing("functions", "add functions = [\"reads\"]", diagnostics);
    let name = section.text("name", diagnostics);
    if let Some(name) = &name {
        super::check_name("Modbus rule", name, diagnostics);
    }
    let mut functions = functions::read(section, diagnostics);
    let sub_functions = operands::SUB_FUNCTION.read(section, &functions, diagnostics);
    let mei_types = operands::MEI_TYPE.read(section, &functions, diagnostics);
    let tables = registers::read(section, &mut functions, diagnostics);
    let written = written::read(section, &mut functions, diagnostics);
    tables.check_numbers(written.number, diagnostics);
    functions.remark(section, diagnostics);
    ModbusDocument {
        header: section.span,
        name: name.as_ref().map_or_else(
            || Spanned::new(format!("modbus-{number}"), section.span),
            super::owned,
        ),
        ports: ports(section, diagnostics),
        units: units(section, diagnostics),
        functions: functions.set,
        sub_functions,
        mei_types,
        tables: tables.ranges,
        records: tables.records,
        written,
        max_rate: section
            .parsed("max_rate", diagnostics, value::max_rate)
            .map(|rate| rate.value),
        max_length: max_length(section, &functions, diagnostics),
        max_outstanding: byte(
            section,
            "max_outstanding",
            (1, MAX_OUTSTANDING),
            diagnostics,
        ),
    }
}

fn byte(
    section: &Section<'_>,
    key: &str,
    range: (u32, u32),
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<u8>> {
    let number = section.number(key, range, diagnostics)?;
    Some(Spanned {
        value: u8::try_from(number.value).ok()?,
        span: number.span,
    })
}

/// `max_length`: the MBAP length is all that is known of a function that nobody defined.
fn max_length(
    section: &Section<'_>,
    functions: &Functions,
    diagnostics: &mut Diagnostics,
) -> Option<u8> {
    let range = (2, u32::from(MAXIMUM_LENGTH));
    let length = byte(section, "max_length", range, diagnostics)?;
    let undefined = functions.those(|code| matches!(code.request_body(), Body::Any));
    if undefined.is_empty() && section.has("functions") {
        diagnostics.error(
            "never-matches",
            length.span,
            "`max_length` is given, and the specification says how long each function of the rule is",
            "it holds for functions that the specification does not define, as in functions = [90]",
        );
    }
    Some(length.value)
}

fn ports(section: &Section<'_>, diagnostics: &mut Diagnostics) -> Vec<Spanned<PortRange>> {
    if section.has("port") && section.has("ports") {
        diagnostics.error(
            "contradiction",
            section.place("port"),
            format!("{} has both `port` and `ports`", section.what),
            "put all of them into `ports`",
        );
    }
    let mut ports = ports_of(section, "ports", diagnostics);
    if let Some(value) = section.value("port") {
        match port_entry(value) {
            Ok(port) => ports.push(Spanned::new(port, value.span())),
            Err(fault) => report(fault, value.span(), diagnostics).unwrap_or(()),
        }
    } else if !section.has("ports") {
        let value = PortRange {
            first: MODBUS_PORT,
            last: MODBUS_PORT,
        };
        return vec![Spanned::new(value, section.span)];
    }
    ports
}

fn is_all(section: &Section<'_>, key: &str) -> bool {
    section.value(key).and_then(Value::as_str) == Some(ALL)
}

/// Reports a string that should have been a list or "all".
fn refuse_word<T>(section: &Section<'_>, key: &str, diagnostics: &mut Diagnostics) -> Option<T> {
    let value = section.value(key)?;
    match value.as_array() {
        Some(_) => None,
        None => wrong_type(key, value, "a list, or \"all\"", diagnostics),
    }
}

fn units(section: &Section<'_>, diagnostics: &mut Diagnostics) -> ByteSet {
    if is_all(section, "units") {
        return ByteSet::ALL;
    }
    let mut set = ByteSet::default();
    if !is_list(section, "units") {
        refuse_word::<()>(section, "units", diagnostics);
        return set;
    }
    let entries = section.entries("units", diagnostics, |value| byte_range("unit id", value));
    for entry in entries {
        set.insert(entry.value.0, entry.value.1);
    }
    set
}

fn is_list(section: &Section<'_>, key: &str) -> bool {
    section
        .value(key)
        .is_some_and(|value| value.as_array().is_some())
}

fn byte_range(what: &str, value: &Value<'_>) -> Result<(u8, u8), Fault> {
    let (first, last) = number_or_range(what, value, 255)?;
    // Both are at most 255 by now.
    Ok((
        u8::try_from(first).unwrap_or(u8::MAX),
        u8::try_from(last).unwrap_or(u8::MAX),
    ))
}

fn starts_with_digit(text: &str) -> bool {
    text.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_digit())
}

//! `coils`, `discrete_inputs`, `input_registers`, `holding_registers`, `registers`, `files` and
//! `records`: what of each table a rule allows.

use conduitfw_common::modbus::function::FunctionCode;

use super::super::super::diagnostic::Diagnostics;
use super::super::super::model::{ByteSet, ModbusTable, NumberType, OperandRange, TableRanges};
use super::super::super::source::Spanned;
use super::super::super::value::{self, Fault};
use super::super::conduit::number_or_range;
use super::super::section::{Section, report, wrong_entry};
use super::super::tree::{Kind, Value};
use super::functions::{Functions, in_words};
use super::modicon;

/// Registers of the table that the text or the rule's functions say.
const REGISTERS: &str = "registers";
const FILES: &str = "files";
const RECORDS: &str = "records";
/// The highest number of a record (MODBUS Application Protocol V1.1b3 §6.14).
const LAST_RECORD: u16 = 9999;

/// What a rule gives of the tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) ranges: Vec<TableRanges>,
    pub(super) records: Option<OperandRange>,
    /// Ranges of holding registers that do not hold whole numbers of two registers.
    odd: Vec<Spanned<OperandRange>>,
}

impl Tables {
    /// Reports ranges that end in the middle of a number.
    pub(super) fn check_numbers(&self, number: NumberType, diagnostics: &mut Diagnostics) {
        if number.registers() != 2 {
            return;
        }
        for Spanned { value, span } in &self.odd {
            let what = number.label();
            diagnostics.error(
                "half-a-number",
                *span,
                format!(
                    "{} takes two registers, and this range has an odd number of them",
                    value::a(what)
                ),
                match value.last.checked_add(1) {
                    Some(next) => format!("did you mean addresses {} to {next}?", value.first),
                    None => "name both registers of each number".to_owned(),
                },
            );
        }
    }
}

/// One entry of a list.
struct Entry {
    table: ModbusTable,
    range: OperandRange,
    /// A string that counts from 1, or else an address that counts from 0.
    is_modicon: bool,
}

pub(super) fn read(
    section: &Section<'_>,
    functions: &mut Functions,
    diagnostics: &mut Diagnostics,
) -> Tables {
    let before = diagnostics.errors();
    let mut entries = registers(section, functions, diagnostics);
    let mut given = Given::default();
    for entry in &entries {
        given.add(entry.value.table);
    }
    for table in ModbusTable::ALL {
        if !section.has(table.key()) {
            continue;
        }
        given.add(table);
        entries.extend(section.entries(table.key(), diagnostics, |value| {
            if table == ModbusTable::Files {
                return file(value);
            }
            entry(value, Some(table), table.key())
        }));
    }
    entries.sort_by_key(|entry| entry.span);
    both_ways(&entries, diagnostics);
    // Of lists that are wrong nothing follows.
    if !given.is_empty() && diagnostics.errors() == before {
        narrow(section, &given, functions, diagnostics);
    }
    let mut ranges = Vec::with_capacity(given.count());
    for table in ModbusTable::ALL
        .into_iter()
        .filter(|table| given.has(*table))
    {
        let of_table = entries.iter().filter(|entry| entry.value.table == table);
        let of_table: Vec<OperandRange> = of_table.map(|entry| entry.value.range).collect();
        if !of_table.is_empty() {
            ranges.push(TableRanges {
                table,
                ranges: of_table,
            });
        }
    }
    let odd = entries
        .iter()
        .filter(|entry| entry.value.table == ModbusTable::HoldingRegisters)
        .map(|entry| Spanned {
            value: entry.value.range,
            span: entry.span,
        })
        .filter(|Spanned { value, .. }| (value.last - value.first).is_multiple_of(2));
    Tables {
        ranges,
        records: records(section, diagnostics),
        odd: odd.collect(),
    }
}

/// Tables that a rule names.
#[derive(Default)]
struct Given([bool; ModbusTable::ALL.len()]);

impl Given {
    fn add(&mut self, table: ModbusTable) {
        if let Some(place) = self.0.get_mut(table as usize) {
            *place = true;
        }
    }

    fn has(&self, table: ModbusTable) -> bool {
        self.0.get(table as usize) == Some(&true)
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|given| **given).count()
    }
}

/// `registers`: a string names its table; what counts from 0 is in the one that all register
/// functions of the rule work on.
fn registers(
    section: &Section<'_>,
    functions: &Functions,
    diagnostics: &mut Diagnostics,
) -> Vec<Spanned<Entry>> {
    let works_on = |table| functions.those(|code| ModbusTable::of(code) == Some(table));
    let input = works_on(ModbusTable::InputRegisters);
    let holding = works_on(ModbusTable::HoldingRegisters);
    let table = match (input.is_empty(), holding.is_empty()) {
        (true, _) => ModbusTable::HoldingRegisters,
        (false, true) => ModbusTable::InputRegisters,
        (false, false) => {
            let list = section.value(REGISTERS).and_then(Value::as_array);
            let list = list.into_iter().flatten();
            let mut addresses = list.filter(|value| value.as_str().is_none());
            let Some(first) = addresses.next() else {
                return section.entries(REGISTERS, diagnostics, |value| {
                    entry(value, None, REGISTERS)
                });
            };
            let fault = Fault::new(
                "ambiguous-register",
                format!(
                    "this could be an input register ({}) or a holding register ({})",
                    in_words(&input),
                    in_words(&holding)
                ),
                "give `input_registers` and `holding_registers`, or Modicon numbers as in \"40011\"",
            );
            return report(fault, first.span(), diagnostics).unwrap_or_default();
        }
    };
    section.entries(REGISTERS, diagnostics, |value| {
        if value.as_str().is_some() {
            return entry(value, None, REGISTERS);
        }
        entry(value, Some(table), REGISTERS)
    })
}

/// An entry of the table `table`; of either table of registers when there is none.
fn entry(value: &Value<'_>, table: Option<ModbusTable>, key: &str) -> Result<Entry, Fault> {
    let Some(text) = value.as_str() else {
        let range = addresses(value, table.map_or("register", ModbusTable::item))?;
        return Ok(Entry {
            table: table.unwrap_or(ModbusTable::HoldingRegisters),
            range,
            is_modicon: false,
        });
    };
    let (found, range) = modicon::range(text)?;
    let fits = match table {
        Some(table) => table == found,
        None => matches!(
            found,
            ModbusTable::InputRegisters | ModbusTable::HoldingRegisters
        ),
    };
    if !fits {
        let digit = table.and_then(ModbusTable::modicon_digit);
        return Err(Fault::new(
            "bad-register",
            format!(
                "`{text}` is {}, and `{key}` does not take it",
                value::a(found.item())
            ),
            match digit {
                Some(digit) => format!(
                    "move it to `{}`; numbers of `{key}` begin with {digit}",
                    found.key()
                ),
                None => format!("move it to `{}`", found.key()),
            },
        ));
    }
    Ok(Entry {
        table: found,
        range,
        is_modicon: true,
    })
}

/// An address from 0, or `{ first = 10, last = 13 }`.
fn addresses(value: &Value<'_>, what: &str) -> Result<OperandRange, Fault> {
    let expected = "an address from 0 as an integer, { first = 10, last = 13 }, or a Modicon \
                    number as in \"40011\"";
    let item = value::a(what);
    let address = |value: &Value<'_>| {
        let number = value
            .integer()
            .ok_or_else(|| wrong_entry(&item, value, expected))?;
        value::integer(&format!("{what} address"), number, 0, u16::MAX)
    };
    let Kind::Table(table) = &value.kind else {
        let first = address(value)?;
        return Ok(OperandRange { first, last: first });
    };
    let malformed = || {
        Fault::new(
            "bad-range",
            "this is not a range of addresses",
            "expected { first = 10, last = 13 }",
        )
    };
    if table.len() != 2 {
        return Err(malformed());
    }
    let end = |key: &str| address(table.get(key).ok_or_else(malformed)?);
    upright(end("first")?, end("last")?)
}

fn upright(first: u16, last: u16) -> Result<OperandRange, Fault> {
    if first > last {
        return Err(Fault::new(
            "range-upside-down",
            format!("a range from {first} to {last} is upside down"),
            format!("did you mean {last} to {first}?"),
        ));
    }
    Ok(OperandRange { first, last })
}

fn file(value: &Value<'_>) -> Result<Entry, Fault> {
    let (first, last) = number_or_range("file number", value, u16::MAX)?;
    if first == 0 {
        return Err(Fault::new(
            "out-of-range",
            "0 is not a file number",
            "expected 1 to 65535",
        ));
    }
    Ok(Entry {
        table: ModbusTable::Files,
        range: OperandRange { first, last },
        is_modicon: false,
    })
}

fn records(section: &Section<'_>, diagnostics: &mut Diagnostics) -> Option<OperandRange> {
    let value = section.value(RECORDS)?;
    let span = value.span();
    if !section.has(FILES) {
        diagnostics.error(
            "missing-key",
            span,
            "`records` is given, and the rule does not say of which files",
            "add files = [...] with the numbers of the files",
        );
    }
    match number_or_range("record number", value, LAST_RECORD) {
        Ok((first, last)) => Some(OperandRange { first, last }),
        Err(fault) => report(fault, span, diagnostics),
    }
}

/// Refuses a rule that counts both ways, and remarks on an address that looks like a number.
fn both_ways(entries: &[Spanned<Entry>], diagnostics: &mut Diagnostics) {
    let of_registers = || {
        entries
            .iter()
            .filter(|entry| entry.value.table != ModbusTable::Files)
    };
    let modicon = of_registers().find(|entry| entry.value.is_modicon);
    let address = of_registers().find(|entry| !entry.value.is_modicon);
    if let (Some(modicon), Some(address)) = (modicon, address) {
        let reading = |entry: &Spanned<Entry>| {
            let Entry { table, range, .. } = &entry.value;
            format!(
                "`{}` is {} address {range}",
                diagnostics.text_of(entry.span),
                table.item()
            )
        };
        let message = format!(
            "the rule counts both ways: {}, {}",
            reading(modicon),
            reading(address)
        );
        diagnostics.error(
            "counted-both-ways",
            modicon.span.max(address.span),
            message,
            "give strings (Modicon numbers from 1) or integers (addresses from 0), not both",
        );
        return;
    }
    let looks_like_a_number = of_registers()
        .filter(|entry| !entry.value.is_modicon)
        .find_map(|entry| {
            Some((
                entry,
                modicon::reading(entry.value.table, entry.value.range.first)?,
            ))
        });
    if let Some((entry, address)) = looks_like_a_number {
        let Entry { table, range, .. } = &entry.value;
        diagnostics.note(
            "looks-like-modicon",
            entry.span,
            format!("this is {} address {}", table.item(), range.first),
            format!(
                "as a string, \"{}\", it would mean address {address}",
                range.first
            ),
        );
    }
}

/// Holds functions and tables against each other. What a group has beyond the tables is left out.
fn narrow(
    section: &Section<'_>,
    given: &Given,
    functions: &mut Functions,
    diagnostics: &mut Diagnostics,
) {
    for table in ModbusTable::ALL {
        let works_on = |code| ModbusTable::of(code) == Some(table);
        let working = functions.those(works_on);
        if given.has(table) {
            if working.is_empty() && section.has("functions") {
                unused(section, table, diagnostics);
            }
            continue;
        }
        let never = functions.leave_out(working);
        if !never.is_empty() {
            diagnostics.error(
                "never-matches",
                section.place("functions"),
                format!(
                    "{} can never match: the rule gives no {}s",
                    in_words(&never),
                    table.item()
                ),
                missing_table(table, given, &never),
            );
        }
    }
    // Whoever limits a group to registers does not mean what has none.
    let without = functions.those(|code| {
        let has_operand = (code == FunctionCode::DIAGNOSTICS && section.has("sub_functions"))
            || (code == FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT && section.has("mei_types"));
        ModbusTable::of(code).is_none() && !has_operand
    });
    functions.leave_out(without);
}

fn unused(section: &Section<'_>, table: ModbusTable, diagnostics: &mut Diagnostics) {
    let key = if section.has(table.key()) {
        table.key()
    } else {
        REGISTERS
    };
    let of_table: ByteSet = (0..=u8::MAX)
        .filter(|code| ModbusTable::of(FunctionCode(*code)) == Some(table))
        .collect();
    let only_read = match table {
        ModbusTable::DiscreteInputs | ModbusTable::InputRegisters => "only read: ",
        _ => "",
    };
    diagnostics.error(
        "never-matches",
        section.place(key),
        format!(
            "`{key}` is given, and no function of the rule works on {}s",
            table.item()
        ),
        format!(
            "{}s are {only_read}for {}; add it, or remove them",
            table.item(),
            in_words(&of_table)
        ),
    );
}

fn missing_table(table: ModbusTable, given: &Given, never: &ByteSet) -> String {
    let has_write = never
        .iter()
        .any(|code| FunctionCode::WRITES.contains(&FunctionCode(code)));
    let key = table.key();
    for (only_read, written) in [
        (ModbusTable::DiscreteInputs, ModbusTable::Coils),
        (ModbusTable::InputRegisters, ModbusTable::HoldingRegisters),
    ] {
        if has_write && table == written && given.has(only_read) {
            return format!("{}s are only read: writes need `{key}`", only_read.item());
        }
    }
    let them = if never.len() > 1 { "them" } else { "it" };
    format!("add `{key}`, or remove {them}")
}

//! `[[conduits.modbus]]`, read; the words are those of the Modbus Application Protocol V1.1b3.

use conduitfw_common::modbus::function::{FunctionCode, MEI_TYPES, SUB_FUNCTIONS};
use toml::de::DeValue;

use super::super::diagnostic::Diagnostics;
use super::super::model::{ByteSet, Operands, PortRange};
use super::super::source::{Span, Spanned};
use super::super::suggestion;
use super::super::value::{self, Fault};
use super::conduit::{number_or_range, port_entry, ports as ports_of};
use super::section::{Section, Value, integer, report, wrong_entry, wrong_type};

/// The port of Modbus/TCP.
const MODBUS_PORT: u16 = 502;
/// Requests that may wait for a reply, by the Modbus/TCP implementation guide.
const MAX_OUTSTANDING: u32 = 16;
/// The group of all function codes, and all operands of one.
const ALL: &str = "all";
/// Groups of function codes: what only looks, and what changes something.
const GROUPS: &[(&str, &[FunctionCode])] = &[
    ("reads", FunctionCode::READS),
    ("writes", FunctionCode::WRITES),
];

/// `[[conduits.modbus]]`.
#[derive(Debug)]
pub(in super::super) struct ModbusDocument {
    pub(in super::super) header: Span,
    pub(in super::super) name: Option<Spanned<String>>,
    pub(in super::super) ports: Vec<Spanned<PortRange>>,
    pub(in super::super) units: ByteSet,
    pub(in super::super) functions: ByteSet,
    pub(in super::super) sub_functions: Operands,
    pub(in super::super) mei_types: Operands,
    pub(in super::super) max_outstanding: Option<Spanned<u8>>,
}

pub(super) fn read(section: &Section<'_>, diagnostics: &mut Diagnostics) -> ModbusDocument {
    section.missing("units", "add units = [1], or units = \"all\"", diagnostics);
    section.missing("functions", "add functions = [\"reads\"]", diagnostics);
    let name = section.text("name", diagnostics);
    if let Some(name) = &name {
        super::check_name("Modbus rule", name, diagnostics);
    }
    let functions = functions(section, diagnostics);
    let outstanding = section.number("max_outstanding", (1, MAX_OUTSTANDING), diagnostics);
    let eight = Operand {
        function: FunctionCode::DIAGNOSTICS,
        key: "sub_functions",
        what: "sub-function",
    };
    let forty_three = Operand {
        function: FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT,
        key: "mei_types",
        what: "MEI type",
    };
    ModbusDocument {
        header: section.span,
        name: name.as_ref().map(super::owned),
        ports: ports(section, diagnostics),
        units: units(section, diagnostics),
        sub_functions: eight.read(section, &functions, SUB_FUNCTIONS, u16::MAX, diagnostics),
        mei_types: forty_three.read(section, &functions, MEI_TYPES, 255, diagnostics),
        functions: functions.set,
        max_outstanding: outstanding.and_then(|number| {
            let value = u8::try_from(number.value).ok()?;
            Some(Spanned {
                value,
                span: number.span,
            })
        }),
    }
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
            Err(fault) => report(fault, value.span().into(), diagnostics).unwrap_or(()),
        }
    } else if !section.has("ports") {
        let value = PortRange {
            first: MODBUS_PORT,
            last: MODBUS_PORT,
        };
        ports.push(Spanned {
            value,
            span: section.span,
        });
    }
    ports
}

fn is_all(section: &Section<'_>, key: &str) -> bool {
    section
        .value(key)
        .and_then(|value| value.get_ref().as_str())
        == Some(ALL)
}

/// Reports a string that should have been a list or "all".
fn refuse_word<T>(section: &Section<'_>, key: &str, diagnostics: &mut Diagnostics) -> Option<T> {
    let value = section.value(key)?;
    match value.get_ref() {
        DeValue::Array(_) => None,
        _ => wrong_type(key, value, "a list, or \"all\"", diagnostics),
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
        .is_some_and(|value| value.get_ref().is_array())
}

fn byte_range(what: &str, value: &Value<'_>) -> Result<(u8, u8), Fault> {
    let (first, last) = number_or_range(what, value, 255)?;
    // Both are at most 255 by now.
    Ok((
        u8::try_from(first).unwrap_or(u8::MAX),
        u8::try_from(last).unwrap_or(u8::MAX),
    ))
}

/// Function codes, and those among them that were asked for one by one.
#[derive(Default)]
struct Functions {
    set: ByteSet,
    named: ByteSet,
}

fn functions(section: &Section<'_>, diagnostics: &mut Diagnostics) -> Functions {
    let mut functions = Functions::default();
    if is_all(section, "functions") {
        functions.set = ByteSet::ALL;
        return functions;
    }
    if !is_list(section, "functions") {
        refuse_word::<()>(section, "functions", diagnostics);
        return functions;
    }
    let entries = section.entries("functions", diagnostics, function_entry);
    for entry in entries {
        match entry.value {
            FunctionEntry::All => functions.set = ByteSet::ALL,
            FunctionEntry::Group(codes) => {
                for code in codes {
                    functions.set.insert(code.0, code.0);
                }
            }
            FunctionEntry::Codes(first, last) => {
                functions.set.insert(first, last);
                functions.named.insert(first, last);
            }
        }
    }
    functions
}

enum FunctionEntry {
    All,
    Group(&'static [FunctionCode]),
    Codes(u8, u8),
}

fn function_entry(value: &Value<'_>) -> Result<FunctionEntry, Fault> {
    let text = match value.get_ref().as_str() {
        Some(text) if !starts_with_digit(text) => text,
        _ => {
            let (first, last) = byte_range("function code", value)?;
            return Ok(FunctionEntry::Codes(first, last));
        }
    };
    if text == ALL {
        return Ok(FunctionEntry::All);
    }
    if let Some((_, codes)) = GROUPS.iter().find(|(name, _)| *name == text) {
        return Ok(FunctionEntry::Group(codes));
    }
    if let Some((code, _)) = FunctionCode::NAMED.iter().find(|(_, name)| *name == text) {
        return Ok(FunctionEntry::Codes(code.0, code.0));
    }
    let groups = GROUPS.iter().map(|(name, _)| *name).chain([ALL]);
    let names = FunctionCode::NAMED
        .iter()
        .map(|(_, name)| *name)
        .chain(groups);
    Err(Fault::new(
        "unknown-function",
        format!("`{text}` is not a Modbus function"),
        suggestion::did_you_mean(text, names, || {
            "expected a name as in \"read-holding-registers\", a group \"reads\", \"writes\" or \
             \"all\", or a code from 0 to 255"
                .to_owned()
        }),
    ))
}

fn starts_with_digit(text: &str) -> bool {
    text.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_digit())
}

/// A function that is allowed by its operand too.
struct Operand {
    function: FunctionCode,
    key: &'static str,
    what: &'static str,
}

impl Operand {
    fn read(
        &self,
        section: &Section<'_>,
        functions: &Functions,
        names: &[(u16, &str)],
        largest: u16,
        diagnostics: &mut Diagnostics,
    ) -> Operands {
        let Self {
            function: FunctionCode(function),
            key,
            what,
        } = *self;
        if !section.has(key) {
            if functions.named.contains(function) {
                diagnostics.error(
                    "missing-key",
                    section.place("functions"),
                    format!("function {function} is allowed without `{key}`"),
                    format!("add {key} = [...] with each {what}, or {key} = \"all\""),
                );
            }
            return Operands::All;
        }
        if !functions.set.contains(function) && section.has("functions") {
            diagnostics.error(
                "contradiction",
                section.place(key),
                format!("`{key}` is given, and function {function} is not among `functions`"),
                format!("add {function} to `functions`, or remove `{key}`"),
            );
        }
        if is_all(section, key) {
            return Operands::All;
        }
        if !is_list(section, key) {
            refuse_word::<()>(section, key, diagnostics);
            return Operands::Ranges(Vec::new());
        }
        let entries = section.entries(key, diagnostics, |value| self.entry(value, names, largest));
        Operands::Ranges(entries.into_iter().map(|entry| entry.value).collect())
    }

    fn entry(
        &self,
        value: &Value<'_>,
        names: &[(u16, &str)],
        largest: u16,
    ) -> Result<(u16, u16), Fault> {
        let what = self.what;
        if let Some(number) = integer(value.get_ref()) {
            return value::integer(what, number, 0, largest).map(|number| (number, number));
        }
        let expected = "a name, a number or \"first-last\"";
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| wrong_entry(&format!("a {what}"), value, expected))?;
        if starts_with_digit(text) {
            return value::range(what, text, largest);
        }
        if let Some((number, _)) = names.iter().find(|(_, name)| *name == text) {
            return Ok((*number, *number));
        }
        Err(Fault::new(
            "unknown-function",
            format!("`{text}` is not a {what}"),
            suggestion::did_you_mean(text, names.iter().map(|(_, name)| *name), || {
                format!("expected {expected}, from 0 to {largest}")
            }),
        ))
    }
}

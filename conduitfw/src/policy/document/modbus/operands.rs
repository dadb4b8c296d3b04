//! `sub_functions` and `mei_types`: functions that are allowed by an operand of their own.

use conduitfw_common::modbus::function::{FunctionCode, MEI_TYPES, SUB_FUNCTIONS};

use super::super::super::diagnostic::Diagnostics;
use super::super::super::model::Operands;
use super::super::super::suggestion;
use super::super::super::value::{self, Fault};
use super::super::section::{Section, wrong_entry};
use super::super::tree::Value;
use super::functions::Functions;
use super::{is_all, is_list, refuse_word, starts_with_digit};

/// A function that is allowed by its operand too.
pub(super) struct Operand {
    pub(super) function: FunctionCode,
    pub(super) key: &'static str,
    what: &'static str,
    names: &'static [(u16, &'static str)],
    largest: u16,
}

/// Function 8 and its sub-functions.
pub(super) const SUB_FUNCTION: Operand = Operand {
    function: FunctionCode::DIAGNOSTICS,
    key: "sub_functions",
    what: "sub-function",
    names: SUB_FUNCTIONS,
    largest: u16::MAX,
};

/// Function 43 and its MEI types.
pub(super) const MEI_TYPE: Operand = Operand {
    function: FunctionCode::ENCAPSULATED_INTERFACE_TRANSPORT,
    key: "mei_types",
    what: "MEI type",
    names: MEI_TYPES,
    largest: 255,
};

impl Operand {
    pub(super) fn read(
        &self,
        section: &Section<'_>,
        functions: &Functions,
        diagnostics: &mut Diagnostics,
    ) -> Operands {
        let Self { key, what, .. } = *self;
        let number = self.function.0;
        if !section.has(key) {
            if functions.is_named(self.function) {
                diagnostics.error(
                    "missing-key",
                    section.place("functions"),
                    format!("function {number} is allowed without `{key}`"),
                    format!("add {key} = [...] with each {what}, or {key} = \"all\""),
                );
            }
            return Operands::All;
        }
        if !functions.has(self.function) && section.has("functions") {
            diagnostics.error(
                "contradiction",
                section.place(key),
                format!("`{key}` is given, and function {number} is not among `functions`"),
                format!("add {number} to `functions`, or remove `{key}`"),
            );
        }
        if is_all(section, key) {
            return Operands::All;
        }
        if !is_list(section, key) {
            refuse_word::<()>(section, key, diagnostics);
            return Operands::Ranges(Vec::new());
        }
        let entries = section.entries(key, diagnostics, |value| self.entry(value));
        Operands::Ranges(entries.into_iter().map(|entry| entry.value).collect())
    }

    fn entry(&self, value: &Value<'_>) -> Result<(u16, u16), Fault> {
        let Self {
            what,
            names,
            largest,
            ..
        } = *self;
        if let Some(number) = value.integer() {
            return value::integer(what, number, 0, largest).map(|number| (number, number));
        }
        let expected = "a name, a number or \"first-last\"";
        let text = value
            .as_str()
            .ok_or_else(|| wrong_entry(&value::a(what), value, expected))?;
        if starts_with_digit(text) {
            return value::range(what, text, largest);
        }
        if let Some((number, _)) = names.iter().find(|(_, name)| *name == text) {
            return Ok((*number, *number));
        }
        Err(Fault::new(
            "unknown-function",
            format!("`{text}` is not {}", value::a(what)),
            suggestion::did_you_mean(text, names.iter().map(|(_, name)| *name), || {
                format!("expected {expected}, from 0 to {largest}")
            }),
        ))
    }
}

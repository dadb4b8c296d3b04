//! `functions`, and which of them the rest of a rule leaves nothing of.

use conduitfw_common::modbus::function::{Body, FunctionCode};

use super::super::super::diagnostic::Diagnostics;
use super::super::super::model::ByteSet;
use super::super::super::suggestion;
use super::super::super::value::Fault;
use super::super::section::Section;
use super::super::tree::Value;
use super::{ALL, byte_range, is_all, is_list, refuse_word, starts_with_digit};

/// Groups of function codes: what only looks, and what changes something.
const GROUPS: &[(&str, &[FunctionCode])] = &[
    ("reads", FunctionCode::READS),
    ("writes", FunctionCode::WRITES),
];

/// Function codes: those that are allowed, those among them that were asked for by their own name
/// or number, and those of a group that the rest of the rule has nothing for.
#[derive(Default)]
pub(super) struct Functions {
    pub(super) set: ByteSet,
    named: ByteSet,
    left_out: ByteSet,
}

impl Functions {
    pub(super) fn has(&self, function: FunctionCode) -> bool {
        self.set.contains(function.0)
    }

    pub(super) fn is_named(&self, function: FunctionCode) -> bool {
        self.named.contains(function.0)
    }

    /// The functions allowed that `fits`, in order.
    pub(super) fn those(&self, fits: impl Fn(FunctionCode) -> bool) -> ByteSet {
        let codes = self.set.iter();
        codes.filter(|code| fits(FunctionCode(*code))).collect()
    }

    /// Takes out what came with a group. Returns what was named, which is a mistake.
    pub(super) fn leave_out(&mut self, functions: ByteSet) -> ByteSet {
        if functions.is_empty() {
            return functions;
        }
        let (named, of_groups): (ByteSet, ByteSet) = functions
            .iter()
            .partition(|code| self.named.contains(*code));
        for code in of_groups.iter() {
            self.set.remove(code);
            self.left_out.insert(code, code);
        }
        named
    }

    /// Tells what a group does not stand for in this rule.
    pub(super) fn remark(&self, section: &Section<'_>, diagnostics: &mut Diagnostics) {
        if self.left_out.is_empty() {
            return;
        }
        let left_out = self.left_out.iter();
        let (unknown, known): (ByteSet, ByteSet) =
            left_out.partition(|code| matches!(FunctionCode(*code).request_body(), Body::Any));
        let mut what = Vec::new();
        if !known.is_empty() {
            what.push(in_words(&known));
        }
        if !unknown.is_empty() {
            what.push("those that the specification does not define".to_owned());
        }
        diagnostics.note(
            "group-narrowed",
            section.place("functions"),
            format!("this rule does not allow {}", what.join(", nor ")),
            "what it says of registers or values cannot hold for them; they need a rule of their own",
        );
    }
}

/// "function 6", "functions 5, 6 and 15".
pub(super) fn in_words(functions: &ByteSet) -> String {
    let numbers: Vec<String> = functions.iter().map(|code| code.to_string()).collect();
    match numbers.as_slice() {
        [] => "no function".to_owned(),
        [one] => format!("function {one}"),
        [before @ .., last] => format!("functions {} and {last}", before.join(", ")),
    }
}

pub(super) fn read(section: &Section<'_>, diagnostics: &mut Diagnostics) -> Functions {
    let mut functions = Functions::default();
    if is_all(section, "functions") {
        functions.set = ByteSet::ALL;
        return functions;
    }
    if !is_list(section, "functions") {
        refuse_word::<()>(section, "functions", diagnostics);
        return functions;
    }
    let entries = section.entries("functions", diagnostics, entry);
    for entry in entries {
        match entry.value {
            Entry::All => functions.set = ByteSet::ALL,
            Entry::Group(codes) => {
                for code in codes {
                    functions.set.insert(code.0, code.0);
                }
            }
            Entry::Codes(first, last) => {
                functions.set.insert(first, last);
                functions.named.insert(first, last);
            }
        }
    }
    functions
}

enum Entry {
    All,
    Group(&'static [FunctionCode]),
    Codes(u8, u8),
}

fn entry(value: &Value<'_>) -> Result<Entry, Fault> {
    let text = match value.as_str() {
        Some(text) if !starts_with_digit(text) => text,
        _ => {
            let (first, last) = byte_range("function code", value)?;
            return Ok(Entry::Codes(first, last));
        }
    };
    if text == ALL {
        return Ok(Entry::All);
    }
    if let Some((_, codes)) = GROUPS.iter().find(|(name, _)| *name == text) {
        return Ok(Entry::Group(codes));
    }
    if let Some((code, _)) = FunctionCode::NAMED.iter().find(|(_, name)| *name == text) {
        return Ok(Entry::Codes(code.0, code.0));
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

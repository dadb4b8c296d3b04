//! One table of the text: its values by key, with every problem reported and none the last.

use std::borrow::Cow;

use super::super::diagnostic::Diagnostics;
use super::super::source::{Span, Spanned};
use super::super::suggestion;
use super::super::value::Fault;
use super::keys::{self, Table};
use super::tree::{self, Kind, Value};

/// A table, its keys checked.
pub(super) struct Section<'t> {
    /// What it is, for messages: "zone `control`".
    pub(super) what: Cow<'t, str>,
    /// Where it is named.
    pub(super) span: Span,
    table: &'t tree::Table<'t>,
    keys: &'static Table,
    /// A bit for each key that is given, and by chance of others: most keys of most tables are not.
    given: u64,
}

/// The bit of a key in [`Section::given`].
fn bit_of(key: &str) -> u64 {
    let (first, last) = match key.as_bytes() {
        [first, .., last] => (*first, *last),
        _ => (0, 0),
    };
    1 << ((key.len() + 7 * usize::from(first) + usize::from(last)) % 64)
}

impl<'t> Section<'t> {
    /// Reports the keys that the table should not have.
    pub(super) fn new(
        what: impl Into<Cow<'t, str>>,
        span: Span,
        table: &'t tree::Table<'t>,
        keys: &'static Table,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let given = table.keys().map(bit_of);
        let section = Self {
            what: what.into(),
            span,
            table,
            keys,
            given: given.fold(0, |given, bit| given | bit),
        };
        for (Spanned { value: name, span }, _) in table.iter() {
            if keys.later.contains(&name) {
                diagnostics.error(
                    "not-yet-supported",
                    span,
                    format!("`{name}` is not yet supported by this version"),
                    "remove it",
                );
            } else if !keys.keys.contains(&name) {
                diagnostics.error(
                    "unknown-key",
                    span,
                    format!("{} has an unknown key `{name}`", section.what),
                    section.unknown_key_help(name),
                );
            }
        }
        section
    }

    fn unknown_key_help(&self, name: &str) -> String {
        suggestion::did_you_mean(name, self.keys.keys.iter().copied(), || {
            let of_another = keys::ALL.iter().find(|table| table.keys.contains(&name));
            of_another.map_or_else(
                || {
                    format!(
                        "expected {}",
                        suggestion::list(self.keys.keys.iter().copied())
                    )
                },
                |table| format!("it belongs in {}", table.header),
            )
        })
    }

    pub(super) fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        if self.given & bit_of(key) == 0 {
            return None;
        }
        self.table.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Where `key` is given, else where the table is named.
    pub(super) fn place(&self, key: &str) -> Span {
        self.value(key).map_or(self.span, Value::span)
    }

    /// Reports that `key` is missing.
    pub(super) fn missing(&self, key: &str, help: &str, diagnostics: &mut Diagnostics) {
        if !self.has(key) {
            let message = format!("{} has no `{key}`", self.what);
            diagnostics.error("missing-key", self.span, message, help);
        }
    }

    pub(super) fn text(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Spanned<&'t str>> {
        let value = self.value(key)?;
        match value.as_str() {
            Some(text) => Some(Spanned::new(text, value.span())),
            None => wrong_type(key, value, "a string", diagnostics),
        }
    }

    /// A string that `read` understands.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Spanned<T>> {
        let text = self.text(key, diagnostics)?;
        match read(text.value) {
            Ok(value) => Some(Spanned {
                value,
                span: text.span,
            }),
            Err(fault) => report(fault, text.span, diagnostics),
        }
    }

    pub(super) fn flag(&self, key: &str, diagnostics: &mut Diagnostics) -> bool {
        let Some(value) = self.value(key) else {
            return false;
        };
        match &value.kind {
            Kind::Boolean(flag) => *flag,
            _ => wrong_type(key, value, "true or false", diagnostics).unwrap_or(false),
        }
    }

    /// A whole number within `smallest..=largest`.
    pub(super) fn number(
        &self,
        key: &str,
        (smallest, largest): (u32, u32),
        diagnostics: &mut Diagnostics,
    ) -> Option<Spanned<u32>> {
        let value = self.value(key)?;
        let Some(number) = value.integer() else {
            return wrong_type(key, value, "a whole number", diagnostics);
        };
        let fitting = u32::try_from(number)
            .ok()
            .filter(|n| (smallest..=largest).contains(n));
        if fitting.is_none() {
            let fault = Fault::new(
                "out-of-range",
                format!("`{key}` of {number} is out of range"),
                format!("expected {smallest} to {largest}"),
            );
            return report(fault, value.span(), diagnostics);
        }
        fitting.map(|number| Spanned::new(number, value.span()))
    }

    /// A list that is not empty.
    pub(super) fn list(&self, key: &str, diagnostics: &mut Diagnostics) -> Option<&'t [Value<'t>]> {
        let value = self.value(key)?;
        let Some(array) = value.as_array() else {
            return wrong_type(key, value, "a list", diagnostics);
        };
        if array.is_empty() {
            let fault = Fault::new(
                "empty-list",
                format!("{} has an empty list `{key}`", self.what),
                "name at least one, or remove the key",
            );
            return report(fault, value.span(), diagnostics);
        }
        Some(array)
    }

    /// The entries of a list that `read` understands; the others are reported.
    pub(super) fn entries<T>(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
        read: impl Fn(&Value<'t>) -> Result<T, Fault>,
    ) -> Vec<Spanned<T>> {
        let list = self.list(key, diagnostics).unwrap_or_default();
        let mut entries = Vec::with_capacity(list.len());
        for value in list {
            match read(value) {
                Ok(entry) => entries.push(Spanned::new(entry, value.span())),
                Err(fault) => report(fault, value.span(), diagnostics).unwrap_or(()),
            }
        }
        entries
    }

    /// The tables below `key`, by name, in the order of the text.
    pub(super) fn named_tables(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
    ) -> Vec<(Spanned<&'t str>, &'t tree::Table<'t>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Kind::Table(table) = &value.kind else {
            wrong_type::<()>(key, value, &format!("tables [{key}.NAME]"), diagnostics);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, value) in table.iter() {
            if let Kind::Table(table) = &value.kind {
                tables.push((name, table.as_ref()));
                continue;
            }
            let message = format!("`{key}.{}` is {}", name.value, value.kind_in_words());
            let help = format!("expected a table [{key}.NAME]");
            diagnostics.error("wrong-type", name.span, message, help);
        }
        tables
    }

    /// The tables of `[[key]]`.
    pub(super) fn table_list(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
    ) -> Vec<(Span, &'t tree::Table<'t>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Some(array) = value.as_array() else {
            wrong_type::<()>(
                key,
                value,
                "tables, each under its own [[...]]",
                diagnostics,
            );
            return Vec::new();
        };
        let mut tables = Vec::new();
        for value in array {
            match &value.kind {
                Kind::Table(table) => tables.push((value.span(), table.as_ref())),
                _ => wrong_type(key, value, "a table", diagnostics).unwrap_or(()),
            }
        }
        tables
    }

    /// The table `[key]`.
    pub(super) fn table(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<(Span, &'t tree::Table<'t>)> {
        let value = self.value(key)?;
        match &value.kind {
            Kind::Table(table) => Some((value.span(), table.as_ref())),
            _ => wrong_type(key, value, "a table", diagnostics),
        }
    }
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type<T>(
    key: &str,
    value: &Value<'_>,
    expected: &str,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let fault = Fault::new(
        "wrong-type",
        format!("`{key}` is {}", value.kind_in_words()),
        format!("expected {expected}"),
    );
    report(fault, value.span(), diagnostics)
}

/// Reports, and gives nothing.
pub(super) fn report<T>(fault: Fault, span: Span, diagnostics: &mut Diagnostics) -> Option<T> {
    diagnostics.error(fault.code, span, fault.message, fault.help);
    None
}

/// The string that a list entry is.
pub(super) fn entry_text<'v>(what: &str, value: &'v Value<'_>) -> Result<&'v str, Fault> {
    value
        .as_str()
        .ok_or_else(|| wrong_entry(what, value, "a string"))
}

/// A list entry of the wrong type.
pub(super) fn wrong_entry(what: &str, value: &Value<'_>, expected: &str) -> Fault {
    Fault::new(
        "wrong-type",
        format!("the entry for {what} is {}", value.kind_in_words()),
        format!("expected {expected}"),
    )
}

//! One table of the text: its values by key, with every problem reported and none the last.

use std::borrow::Cow;

use toml::de::{DeArray, DeTable, DeValue};

use super::super::diagnostic::Diagnostics;
use super::super::source::{Span, Spanned};
use super::super::suggestion;
use super::super::value::Fault;
use super::keys::{self, Table};

/// A value of the text and its place.
pub(super) type Value<'t> = toml::Spanned<DeValue<'t>>;

/// A table, its keys checked.
pub(super) struct Section<'t> {
    /// What it is, for messages: "zone `control`".
    pub(super) what: Cow<'t, str>,
    /// Where it is named.
    pub(super) span: Span,
    table: &'t DeTable<'t>,
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
        table: &'t DeTable<'t>,
        keys: &'static Table,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let given = table.keys().map(|key| bit_of(key.get_ref()));
        let section = Self {
            what: what.into(),
            span,
            table,
            keys,
            given: given.fold(0, |given, bit| given | bit),
        };
        for (key, _) in table {
            let (name, span) = (key.get_ref().as_ref(), Span::from(key.span()));
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
        self.value(key)
            .map_or(self.span, |value| value.span().into())
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
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(text.as_ref(), value.span())),
            _ => wrong_type(key, value, "a string", diagnostics),
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
        match value.get_ref() {
            DeValue::Boolean(flag) => *flag,
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
        let Some(number) = integer(value.get_ref()) else {
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
            return report(fault, value.span().into(), diagnostics);
        }
        fitting.map(|number| Spanned::new(number, value.span()))
    }

    /// A list that is not empty.
    pub(super) fn list(&self, key: &str, diagnostics: &mut Diagnostics) -> Option<&'t DeArray<'t>> {
        let value = self.value(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            return wrong_type(key, value, "a list", diagnostics);
        };
        if array.is_empty() {
            let fault = Fault::new(
                "empty-list",
                format!("{} has an empty list `{key}`", self.what),
                "name at least one, or remove the key",
            );
            return report(fault, value.span().into(), diagnostics);
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
        let mut entries = Vec::new();
        for value in self
            .list(key, diagnostics)
            .into_iter()
            .flat_map(|list| list.iter())
        {
            match read(value) {
                Ok(entry) => entries.push(Spanned::new(entry, value.span())),
                Err(fault) => report(fault, value.span().into(), diagnostics).unwrap_or(()),
            }
        }
        entries
    }

    /// The tables below `key`, by name, in the order of the text.
    pub(super) fn named_tables(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
    ) -> Vec<(Spanned<&'t str>, &'t DeTable<'t>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type::<()>(key, value, &format!("tables [{key}.NAME]"), diagnostics);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, value) in table {
            let span = Span::from(name.span());
            if let DeValue::Table(table) = value.get_ref() {
                tables.push((
                    Spanned {
                        value: name.get_ref().as_ref(),
                        span,
                    },
                    table,
                ));
                continue;
            }
            let message = format!("`{key}.{}` is {}", name.get_ref(), kind(value.get_ref()));
            let help = format!("expected a table [{key}.NAME]");
            diagnostics.error("wrong-type", span, message, help);
        }
        tables.sort_by_key(|(name, _)| name.span);
        tables
    }

    /// The tables of `[[key]]`.
    pub(super) fn table_list(
        &self,
        key: &str,
        diagnostics: &mut Diagnostics,
    ) -> Vec<(Span, &'t DeTable<'t>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
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
            match value.get_ref() {
                DeValue::Table(table) => tables.push((value.span().into(), table)),
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
    ) -> Option<(Span, &'t DeTable<'t>)> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some((value.span().into(), table)),
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
        format!("`{key}` is {}", kind(value.get_ref())),
        format!("expected {expected}"),
    );
    report(fault, value.span().into(), diagnostics)
}

/// Reports, and gives nothing.
pub(super) fn report<T>(fault: Fault, span: Span, diagnostics: &mut Diagnostics) -> Option<T> {
    diagnostics.error(fault.code, span, fault.message, fault.help);
    None
}

/// The string that a list entry is.
pub(super) fn entry_text<'v>(what: &str, value: &'v Value<'_>) -> Result<&'v str, Fault> {
    value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_entry(what, value, "a string"))
}

/// A list entry of the wrong type.
pub(super) fn wrong_entry(what: &str, value: &Value<'_>, expected: &str) -> Fault {
    Fault::new(
        "wrong-type",
        format!("the entry for {what} is {}", kind(value.get_ref())),
        format!("expected {expected}"),
    )
}

/// A TOML integer; one that is larger than any of ours counts as the largest.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    Some(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

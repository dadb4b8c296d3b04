//! The tree as `toml` makes it, slips included.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::super::source::Span;
use super::{Key, Kind, Place, Slip, Table, Value};

pub(super) fn read(text: &str) -> (Table<'_>, Vec<Slip>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let slips = errors.into_iter().map(|error| Slip {
        message: error.message().to_owned(),
        span: error.span().map_or_else(Span::default, Span::from),
    });
    (of_table(table.into_inner()), slips.collect())
}

fn of_table(table: DeTable<'_>) -> Table<'_> {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut table = Table::default();
    for (key, value) in entries {
        let place = place(&key);
        let name = key.into_inner();
        // Its keys are of a map: none is there twice.
        table.insert(Key { name, place }, of_value(value));
    }
    table
}

/// As deep as `toml` goes, which is 80 levels.
fn of_value(value: Spanned<DeValue<'_>>) -> Value<'_> {
    let place = place(&value);
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::String(text),
        DeValue::Integer(number) => Kind::integer(number.as_str(), number.radix()),
        DeValue::Float(number) => Kind::Float(number.as_str().to_owned().into()),
        DeValue::Boolean(flag) => Kind::Boolean(flag),
        DeValue::Datetime(_) => Kind::Date,
        DeValue::Array(values) => Kind::Array(values.into_iter().map(of_value).collect()),
        DeValue::Table(table) => Kind::Table(Box::new(of_table(table))),
    };
    Value::new(kind, place)
}

fn place<T>(of: &Spanned<T>) -> Place {
    let span = of.span();
    Place::new(span.start, span.end)
}

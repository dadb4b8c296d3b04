//! The tree as `toml` makes it, slips included.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::super::source::Span;
use super::{Key, Kind, Place, Slip, Table, Value};

/// Tables and lists in one another. `toml` takes 80 of them, and 80 parts of the key of each: more than a stack
/// has room for.
const DEPTH: usize = 64;

pub(super) fn read(text: &str) -> (Table<'_>, Vec<Slip>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let slips = errors.into_iter().map(|error| Slip {
        message: error.message().to_owned(),
        span: error.span().map_or_else(Span::default, Span::from),
    });
    let mut slips = slips.collect();
    (of_table(table.into_inner(), 0, &mut slips), slips)
}

fn of_table<'t>(table: DeTable<'t>, depth: usize, slips: &mut Vec<Slip>) -> Table<'t> {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut table = Table::default();
    for (key, value) in entries {
        let place = place(&key);
        let name = key.into_inner();
        // Its keys are of a map: none is there twice.
        table.insert(Key { name, place }, of_value(value, depth, slips));
    }
    table
}

fn of_value<'t>(value: Spanned<DeValue<'t>>, depth: usize, slips: &mut Vec<Slip>) -> Value<'t> {
    let place = place(&value);
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::String(text),
        DeValue::Integer(number) => Kind::integer(number.as_str(), number.radix()),
        DeValue::Float(number) => Kind::Float(number.as_str().to_owned().into()),
        DeValue::Boolean(flag) => Kind::Boolean(flag),
        DeValue::Datetime(_) => Kind::Date,
        DeValue::Array(_) | DeValue::Table(_) if depth == DEPTH => {
            slips.push(Slip {
                message: "tables and lists are nested too deeply".to_owned(),
                span: place.into(),
            });
            Kind::Array(Vec::new())
        }
        DeValue::Array(values) => {
            let values = values.into_iter();
            Kind::Array(
                values
                    .map(|value| of_value(value, depth + 1, slips))
                    .collect(),
            )
        }
        DeValue::Table(table) => Kind::Table(Box::new(of_table(table, depth + 1, slips))),
    };
    Value::new(kind, place)
}

fn place<T>(of: &Spanned<T>) -> Place {
    let span = of.span();
    Place::new(span.start, span.end)
}

//! The text as a tree of values, each with its place.
//!
//! What a text means, and what is wrong with it, is for `toml` to say (`whole`). Its own tree takes more than
//! twenty times the memory of the text, and took half the time of a reload. So a text that is right
//! is put together from the events of the parser that `toml` stands on (`quick`), and whatever is not certain
//! there, a mistake above all, goes to `toml`.

mod quick;
#[cfg(test)]
mod tests;
mod whole;

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::source::{Span, Spanned};

/// Keys of a table that are looked for one by one; with more there is an index.
const FEW_KEYS: usize = 16;

/// A value and where it stands.
#[derive(Debug)]
pub(in super::super) struct Value<'t> {
    pub(super) kind: Kind<'t>,
    place: Place,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind<'t> {
    String(Cow<'t, str>),
    Integer(i64),
    /// An integer beyond 64 bits; one beyond 128 counts as the largest of them.
    LargeInteger(Box<i128>),
    /// As it is written, without `_`.
    Float(Cow<'t, str>),
    Boolean(bool),
    Date,
    Array(Vec<Value<'t>>),
    Table(Box<Table<'t>>),
}

/// A [`Span`] in half the room: no policy has 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    end: u32,
}

/// A table: its keys are in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Table<'t> {
    entries: Vec<Entry<'t>>,
    #[expect(
        clippy::box_collection,
        reason = "most tables have none, and there are many"
    )]
    index: Option<Box<HashMap<Box<str>, usize>>>,
    made: Made,
}

/// How a table came to be, which says what may be added to it further down: for the quick reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Made {
    /// By a header of its own: `[a.b]` is b's.
    #[default]
    Header,
    /// By the header of a table in it: `[a.b]` makes a, too.
    Inner,
    /// By a key of several parts: `a.b = 1` makes a.
    Dotted,
    /// `{ a = 1 }`.
    Inline,
}

#[derive(Debug)]
struct Entry<'t> {
    key: Key<'t>,
    value: Value<'t>,
}

#[derive(Clone, Debug)]
struct Key<'t> {
    name: Cow<'t, str>,
    place: Place,
}

/// A slip in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slip {
    pub(super) message: String,
    pub(super) span: Span,
}

/// Reads the text. With slips, the table is what could be made of it.
pub(super) fn read(text: &str) -> (Table<'_>, Vec<Slip>) {
    match quick::read(text) {
        Some(table) => (table, Vec::new()),
        None => whole::read(text),
    }
}

impl<'t> Value<'t> {
    fn new(kind: Kind<'t>, place: Place) -> Self {
        Self { kind, place }
    }

    pub(super) fn span(&self) -> Span {
        self.place.into()
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<&[Value<'t>]> {
        match &self.kind {
            Kind::Array(values) => Some(values),
            _ => None,
        }
    }

    /// A whole number; one beyond 128 bits counts as the largest of them.
    pub(super) fn integer(&self) -> Option<i128> {
        match &self.kind {
            Kind::Integer(number) => Some((*number).into()),
            Kind::LargeInteger(number) => Some(**number),
            _ => None,
        }
    }

    /// For messages: "a string".
    pub(super) fn kind_in_words(&self) -> &'static str {
        match &self.kind {
            Kind::String(_) => "a string",
            Kind::Integer(_) | Kind::LargeInteger(_) => "a whole number",
            Kind::Float(_) => "a number with a fraction",
            Kind::Boolean(_) => "true or false",
            Kind::Date => "a date",
            Kind::Array(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }
}

impl Kind<'_> {
    /// `digits` have no prefix and no `_`.
    fn integer(digits: &str, radix: u32) -> Self {
        i64::from_str_radix(digits, radix).map_or_else(
            |_| {
                let number = i128::from_str_radix(digits, radix);
                Self::LargeInteger(Box::new(number.unwrap_or(i128::MAX)))
            },
            Self::Integer,
        )
    }
}

impl<'t> Table<'t> {
    fn made(made: Made) -> Self {
        Self {
            made,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value<'t>> {
        let entry = self.entries.get(self.position(key)?)?;
        Some(&entry.value)
    }

    /// Each key with its place, and its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Spanned<&str>, &Value<'t>)> {
        self.entries.iter().map(|Entry { key, value }| {
            let key = Spanned {
                value: key.name.as_ref(),
                span: key.place.into(),
            };
            (key, value)
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.name.as_ref())
    }

    fn position(&self, key: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key).copied(),
            None => self.entries.iter().position(|entry| entry.key.name == key),
        }
    }

    fn at(&mut self, position: usize) -> Option<&mut Value<'t>> {
        self.entries.get_mut(position).map(|entry| &mut entry.value)
    }

    /// Adds a value under a key that the table does not have, and says where; nothing otherwise.
    fn insert(&mut self, key: Key<'t>, value: Value<'t>) -> Option<usize> {
        if self.position(&key.name).is_some() {
            return None;
        }
        let position = self.entries.len();
        if let Some(index) = &mut self.index {
            index.insert(key.name.as_ref().into(), position);
        }
        self.entries.push(Entry { key, value });
        if self.index.is_none() && self.entries.len() > FEW_KEYS {
            let names = self.keys().map(Into::into).zip(0..);
            self.index = Some(Box::new(names.collect()));
        }
        Some(position)
    }
}

impl Place {
    /// A text of more than 4 GiB is none of ours: the end is as far as this goes.
    fn new(start: usize, end: usize) -> Self {
        let number = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Self {
            start: number(start),
            end: number(end),
        }
    }
}

impl From<Place> for Span {
    fn from(place: Place) -> Self {
        Self {
            start: place.start as usize,
            end: place.end as usize,
        }
    }
}

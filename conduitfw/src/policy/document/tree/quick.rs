//! The tree of a text that is right, from the parser's events.
//!
//! It need not know all of TOML's rules about tables that are made in one place and added to in another: where
//! it does not see at once that a text is right, it gives up.

use std::borrow::Cow;

use toml_parser::decoder::{Encoding, ScalarKind};
use toml_parser::lexer::TokenKind;
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, ParseError, Raw, Source, Span};

use super::{Key, Kind, Made, Place, Table, Value};

/// Arrays and inline tables in one another; `toml` goes deeper.
const DEPTH: usize = 16;
/// Parts of a key; `toml` takes more.
const PARTS: usize = 16;

/// Lexemes that are parsed at once: those of a whole policy would take ten times the memory of its text.
const PIECE: usize = 4096;

/// The tree, if the text is right beyond doubt.
pub(super) fn read(text: &str) -> Option<Table<'_>> {
    read_in_pieces(text, PIECE)
}

/// The text is cut at the end of a line that ends an expression, so that each piece is a document: all of them
/// are right if the whole is.
pub(super) fn read_in_pieces(text: &str, at_least: usize) -> Option<Table<'_>> {
    let source = Source::new(text);
    let mut reader = Reader::new(source);
    let mut slip: Option<ParseError> = None;
    let mut piece = Vec::new();
    let mut open: usize = 0;
    for token in source.lex() {
        piece.push(token);
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => open += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                open = open.saturating_sub(1);
            }
            TokenKind::Newline if open == 0 && piece.len() >= at_least => {
                parse_document(&piece, &mut reader, &mut slip);
                if reader.is_unsure || slip.is_some() {
                    return None;
                }
                piece.clear();
            }
            _ => {}
        }
    }
    parse_document(&piece, &mut reader, &mut slip);
    reader.finish_table();
    (!reader.is_unsure && slip.is_none()).then_some(reader.root)
}

struct Reader<'t> {
    source: Source<'t>,
    root: Table<'t>,
    /// The table that entries go to.
    current: Table<'t>,
    /// Its header; none in front of the first one.
    header: Option<Header>,
    header_keys: Vec<Key<'t>>,
    /// The key that is being read, in parts.
    keys: Vec<Key<'t>>,
    /// What is open around the value that is being read.
    open: Vec<Open<'t>>,
    /// Values of the arrays that are open.
    values: Vec<Value<'t>>,
    is_unsure: bool,
}

struct Header {
    place: Place,
    is_array: bool,
}

enum Open<'t> {
    Array {
        start: usize,
        /// How many values there were before its own.
        before: usize,
    },
    Inline {
        start: usize,
        table: Table<'t>,
        /// The key that it is the value of.
        keys: Vec<Key<'t>>,
    },
}

impl<'t> Reader<'t> {
    fn new(source: Source<'t>) -> Self {
        Self {
            source,
            root: Table::default(),
            current: Table::default(),
            header: None,
            header_keys: Vec::new(),
            keys: Vec::new(),
            open: Vec::new(),
            values: Vec::new(),
            is_unsure: false,
        }
    }

    fn start_table(&mut self, span: Span, is_array: bool) {
        self.finish_table();
        self.keys.clear();
        self.header = Some(Header {
            place: place(span),
            is_array,
        });
    }

    fn finish_header(&mut self, span: Span) {
        if let Some(header) = &mut self.header {
            header.place.end = place(span).end;
        }
        std::mem::swap(&mut self.keys, &mut self.header_keys);
        self.keys.clear();
    }

    /// Puts the table whose entries were read into its place.
    fn finish_table(&mut self) {
        self.is_unsure |= self.put_table().is_none();
    }

    fn put_table(&mut self) -> Option<()> {
        let table = std::mem::take(&mut self.current);
        let Some(header) = self.header.take() else {
            self.root = table;
            return Some(());
        };
        let table = Value::new(Kind::Table(Box::new(table)), header.place);
        let key = self.header_keys.pop()?;
        let parent = below_header(&mut self.root, &self.header_keys)?;
        if !header.is_array {
            return parent.insert(key, table).map(drop);
        }
        let Some(position) = parent.position(&key.name) else {
            let tables = Value::new(Kind::Array(vec![table]), header.place);
            return parent.insert(key, tables).map(drop);
        };
        match &mut parent.at(position)?.kind {
            Kind::Array(tables) if is_of_headers(tables) => tables.push(table),
            _ => return None,
        }
        Some(())
    }

    /// Takes a whole value to where it belongs.
    fn put(&mut self, value: Value<'t>) {
        self.is_unsure |= self.put_value(value).is_none();
    }

    fn put_value(&mut self, value: Value<'t>) -> Option<()> {
        let table = match self.open.last_mut() {
            Some(Open::Array { .. }) => {
                self.values.push(value);
                return Some(());
            }
            Some(Open::Inline { table, .. }) => table,
            None => &mut self.current,
        };
        let key = self.keys.pop()?;
        let table = below_dots(table, &self.keys)?;
        self.keys.clear();
        table.insert(key, value).map(drop)
    }

    fn raw(&self, span: Span, encoding: Option<Encoding>) -> Option<Raw<'t>> {
        let text = self.source.get(span)?.as_str();
        Some(Raw::new_unchecked(text, encoding, span))
    }

    fn key(&mut self, span: Span, encoding: Option<Encoding>, slips: &mut dyn ErrorSink) {
        let mut name = Cow::Borrowed("");
        match self.raw(span, encoding) {
            Some(raw) if self.keys.len() < PARTS => raw.decode_key(&mut name, slips),
            _ => self.is_unsure = true,
        }
        let place = place(span);
        self.keys.push(Key { name, place });
    }

    /// A value that is neither array nor table. Dates are for `toml` to look at.
    fn single(
        &self,
        span: Span,
        encoding: Option<Encoding>,
        slips: &mut dyn ErrorSink,
    ) -> Option<Value<'t>> {
        let mut text = Cow::Borrowed("");
        let kind = match self.raw(span, encoding)?.decode_scalar(&mut text, slips) {
            ScalarKind::String => Kind::String(text),
            ScalarKind::Integer(radix) => Kind::integer(&text, radix.value()),
            ScalarKind::Float => Kind::Float(text),
            ScalarKind::Boolean(flag) => Kind::Boolean(flag),
            ScalarKind::DateTime => return None,
        };
        Some(Value::new(kind, place(span)))
    }

    /// Whether one more array or inline table may be open.
    fn open(&mut self, one: Open<'t>) -> bool {
        let may = self.open.len() < DEPTH;
        self.is_unsure |= !may;
        self.open.push(one);
        may
    }
}

fn place(span: Span) -> Place {
    Place::new(span.start(), span.end())
}

/// The table that a header means by all of its key but the last part.
fn below_header<'a, 't>(
    mut table: &'a mut Table<'t>,
    path: &[Key<'t>],
) -> Option<&'a mut Table<'t>> {
    for key in path {
        table = match &mut inner(table, key, Made::Inner)?.kind {
            Kind::Table(inner) if inner.made != Made::Inline => inner,
            Kind::Array(tables) if is_of_headers(tables) => match &mut tables.last_mut()?.kind {
                Kind::Table(last) => last,
                _ => return None,
            },
            _ => return None,
        };
    }
    Some(table)
}

/// The table that an entry is of, by all of its key but the last part.
fn below_dots<'a, 't>(mut table: &'a mut Table<'t>, path: &[Key<'t>]) -> Option<&'a mut Table<'t>> {
    for key in path {
        table = match &mut inner(table, key, Made::Dotted)?.kind {
            Kind::Table(inner) if inner.made == Made::Dotted => inner,
            _ => return None,
        };
    }
    Some(table)
}

/// What stands under a key: a new table if there is nothing.
fn inner<'a, 't>(table: &'a mut Table<'t>, key: &Key<'t>, made: Made) -> Option<&'a mut Value<'t>> {
    let position = if let Some(position) = table.position(&key.name) {
        position
    } else {
        let new = Kind::Table(Box::new(Table::made(made)));
        table.insert(key.clone(), Value::new(new, key.place))?
    };
    table.at(position)
}

/// Whether an array was made by headers `[[...]]`, and not as a value.
fn is_of_headers(values: &[Value<'_>]) -> bool {
    let last = values.last().map(|value| &value.kind);
    matches!(last, Some(Kind::Table(table)) if table.made == Made::Header)
}

impl EventReceiver for Reader<'_> {
    fn std_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.start_table(span, false);
    }

    fn std_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.finish_header(span);
    }

    fn array_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.start_table(span, true);
    }

    fn array_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.finish_header(span);
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, slips: &mut dyn ErrorSink) {
        self.key(span, encoding, slips);
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, slips: &mut dyn ErrorSink) {
        match self.single(span, encoding, slips) {
            Some(value) => self.put(value),
            None => self.is_unsure = true,
        }
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        let before = self.values.len();
        self.open(Open::Array {
            start: span.start(),
            before,
        })
    }

    fn array_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        let Some(Open::Array { start, before }) = self.open.pop() else {
            self.is_unsure = true;
            return;
        };
        let own = self.values.drain(before.min(self.values.len())..);
        let values = Kind::Array(own.collect());
        self.put(Value::new(values, Place::new(start, span.end())));
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        let keys = std::mem::take(&mut self.keys);
        self.open(Open::Inline {
            start: span.start(),
            table: Table::made(Made::Inline),
            keys,
        })
    }

    fn inline_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        let Some(Open::Inline { start, table, keys }) = self.open.pop() else {
            self.is_unsure = true;
            return;
        };
        self.keys = keys;
        let place = Place::new(start, span.end());
        self.put(Value::new(Kind::Table(Box::new(table)), place));
    }

    fn comment(&mut self, span: Span, slips: &mut dyn ErrorSink) {
        match self.raw(span, None) {
            Some(raw) => raw.decode_comment(slips),
            None => self.is_unsure = true,
        }
    }

    fn newline(&mut self, span: Span, slips: &mut dyn ErrorSink) {
        match self.raw(span, None) {
            Some(raw) => raw.decode_newline(slips),
            None => self.is_unsure = true,
        }
    }

    fn error(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.is_unsure = true;
    }
}

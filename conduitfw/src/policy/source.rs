//! The text of a policy, and places in it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> Spanned<T> {
    pub(super) fn new(value: T, span: impl Into<Span>) -> Self {
        Self {
            value,
            span: span.into(),
        }
    }
}

/// The text, its name and where its lines begin.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: Arc<str>,
    /// Only what is to be shown has a line: most policies are right.
    line_starts: OnceLock<Vec<usize>>,
}

/// A place as people count: lines and columns (in characters) from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.into(),
            line_starts: OnceLock::new(),
        }
    }

    fn line_starts(&self) -> &[usize] {
        self.line_starts.get_or_init(|| {
            let behind = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(behind).collect()
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The text of a place.
    pub(super) fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// Where the line of `span` is the header of a table: from there to the next header.
    pub(super) fn table_from(&self, span: Span) -> Span {
        let line = self.line_start(self.place(span.start).line);
        let rest = self.text.get(line..).unwrap_or_default();
        if !rest.trim_start().starts_with('[') {
            return Span::default();
        }
        let end = rest.find("\n[").map_or(self.text.len(), |next| line + next);
        Span {
            start: span.start,
            end,
        }
    }

    /// The nearest character boundary at or before `offset`, within the text.
    pub(super) fn boundary(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        (0..=offset)
            .rev()
            .find(|&at| self.text.is_char_boundary(at))
            .unwrap_or(0)
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = self.boundary(offset);
        let line = self.line_starts().partition_point(|&start| start <= offset);
        let start = self.line_start(line);
        let column = 1 + self
            .text
            .get(start..offset)
            .unwrap_or_default()
            .chars()
            .count();
        Place { line, column }
    }

    /// Where line `line` (from 1) starts.
    pub(super) fn line_start(&self, line: usize) -> usize {
        self.line_starts()
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(self.text.len())
    }

    /// Line `line` (from 1) without its end.
    pub(super) fn line(&self, line: usize) -> &str {
        let rest = self.text.get(self.line_start(line)..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let source = Source::new("p", "a = 1\nname = \"Kläranlage\" # x\r\n");
        let offset = source.text().find('#').unwrap();
        assert_eq!(
            source.place(offset),
            Place {
                line: 2,
                column: 21
            }
        );
        assert_eq!(source.line(2), "name = \"Kläranlage\" # x");
    }

    #[test]
    fn a_place_behind_the_end_is_the_end() {
        let source = Source::new("p", "ab");
        assert_eq!(source.place(99), Place { line: 1, column: 3 });
        assert_eq!(Source::new("p", "").place(0), Place { line: 1, column: 1 });
    }
}

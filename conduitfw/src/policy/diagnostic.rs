//! What is wrong with a policy, where, and what to do about it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::source::{Source, Span};

/// Problems shown at most; a policy with more has one that causes the others.
const SHOWN_AT_MOST: usize = 200;
/// Characters of a source line shown at most.
const SNIPPET_WIDTH: usize = 96;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy is accepted; someone should know.
    Note,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Note => "note",
        }
    }
}

/// One problem or remark. Its `Display` is the whole of it, with the source line and a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for the kind of problem, for machines.
    pub code: &'static str,
    /// What was found.
    pub message: String,
    /// What was expected, or a likely fix; may be empty.
    pub help: String,
    /// The file.
    pub file: String,
    /// Line from 1; 0 when the problem has no place in the text.
    pub line: usize,
    /// Column from 1, in characters; 0 when the problem has no place in the text.
    pub column: usize,
    snippet: Option<Snippet>,
    start: usize,
}

impl Diagnostic {
    /// As JSON: `file`, `line`, `column`, `severity`, `code`, `message`, `help`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "severity": self.severity.label(),
            "code": self.code,
            "message": self.message,
            "help": self.help,
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = printable(&self.file);
        writeln!(
            out,
            "{}: {}",
            self.severity.label(),
            printable(&self.message)
        )?;
        let Some(snippet) = &self.snippet else {
            writeln!(out, "  --> {file}")?;
            if !self.help.is_empty() {
                writeln!(out, "  = {}", printable(&self.help))?;
            }
            return Ok(());
        };
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(out, "{margin}--> {file}:{}:{}", self.line, self.column)?;
        writeln!(out, "{margin} |")?;
        writeln!(out, "{number} | {}", snippet.text)?;
        let indent = " ".repeat(snippet.caret_column);
        let carets = "^".repeat(snippet.carets);
        let under = format!("{margin} | {indent}{carets} {}", printable(&self.help));
        writeln!(out, "{}", under.trim_end())
    }
}

/// One source line, made printable and cut to a width, and where its carets go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    text: String,
    caret_column: usize,
    carets: usize,
}

impl Snippet {
    fn new(source: &Source, line: usize, span: Span) -> Self {
        let text = source.line(line);
        let line_start = source.line_start(line);
        let start = span.start.saturating_sub(line_start).min(text.len());
        let end = span.end.saturating_sub(line_start).clamp(start, text.len());
        // Of a very long line only what is around the place is looked at.
        let before = printable(tail(text.get(..start).unwrap_or_default()));
        let marked = printable(head(text.get(start..end).unwrap_or_default()));
        let after = printable(head(text.get(end..).unwrap_or_default()));
        let (before_width, marked_width) = (before.chars().count(), marked.chars().count());
        let whole: Vec<char> = before
            .chars()
            .chain(marked.chars())
            .chain(after.chars())
            .collect();

        // Where the place is far to the right, the line is shown from a little before it.
        let fits = whole.len() <= SNIPPET_WIDTH || before_width <= SNIPPET_WIDTH / 2;
        let skipped = if fits {
            0
        } else {
            before_width - SNIPPET_WIDTH / 4
        };
        let shown: String = whole.iter().skip(skipped).take(SNIPPET_WIDTH).collect();
        let cut_left = if skipped > 0 { "..." } else { "" };
        let cut_right = if whole.len() > skipped + SNIPPET_WIDTH {
            "..."
        } else {
            ""
        };
        let room = (skipped + SNIPPET_WIDTH)
            .saturating_sub(before_width)
            .max(1);
        Self {
            text: format!("{cut_left}{shown}{cut_right}")
                .trim_end()
                .to_owned(),
            caret_column: cut_left.len() + before_width - skipped,
            carets: marked_width.clamp(1, room),
        }
    }
}

/// Bytes of a text that surely hold more characters than are shown.
const LOOKED_AT: usize = 5 * SNIPPET_WIDTH;

fn head(text: &str) -> &str {
    let mut end = (0..=text.len().min(LOOKED_AT)).rev();
    let end = end.find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(LOOKED_AT)..=text.len();
    let start = start.find(|at| text.is_char_boundary(*at));
    text.get(start.unwrap_or(0)..).unwrap_or_default()
}

/// The text without anything that a terminal would obey: control characters and the marks that
/// change the direction of writing are spelled out, a tab is four spaces.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push_str("    "),
            c if is_unprintable(c) => {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Control characters, marks that change the direction of writing, and what takes no room.
pub(super) fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Why a policy was refused: every problem, in the order of the text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.render().trim_end())]
pub struct Refusal {
    diagnostics: Vec<Diagnostic>,
    more: usize,
}

impl Refusal {
    /// [`Diagnostic::code`] of a file that cannot be read at all.
    pub(super) const UNREADABLE: &str = "file-not-readable";

    pub(super) fn without_place(
        file: &str,
        code: &'static str,
        message: String,
        help: &str,
    ) -> Self {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            code,
            message,
            help: help.to_owned(),
            file: file.to_owned(),
            line: 0,
            column: 0,
            snippet: None,
            start: 0,
        };
        Self {
            diagnostics: vec![diagnostic],
            more: 0,
        }
    }

    /// For people: each problem with its source line and a caret, an empty line between two.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text: Vec<String> = self.diagnostics.iter().map(ToString::to_string).collect();
        if self.more > 0 {
            text.push(format!(
                "error: {} more problems are not shown\n",
                self.more
            ));
        }
        text.join("\n")
    }

    /// For machines: an array of [`Diagnostic::to_json`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.diagnostics.iter().map(Diagnostic::to_json).collect()
    }

    /// Every problem.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// True when the file could not be read, so that nothing is known about the policy.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.code == Self::UNREADABLE)
    }
}

/// Collects problems and remarks while the stages go on.
#[derive(Debug)]
pub(super) struct Diagnostics {
    source: Arc<Source>,
    found: Vec<Diagnostic>,
    errors: usize,
}

impl Diagnostics {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            found: Vec::new(),
            errors: 0,
        }
    }

    pub(super) fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors += 1;
        if self.errors <= SHOWN_AT_MOST {
            self.add(Severity::Error, code, span, message.into(), help.into());
        }
    }

    pub(super) fn note(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.found.len() < SHOWN_AT_MOST {
            self.add(Severity::Note, code, span, message.into(), help.into());
        }
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
        help: String,
    ) {
        let place = self.source.place(span.start);
        self.found.push(Diagnostic {
            severity,
            code,
            message,
            help,
            file: self.source.name().to_owned(),
            line: place.line,
            column: place.column,
            snippet: Some(Snippet::new(&self.source, place.line, span)),
            start: span.start,
        });
    }

    /// "line 12", to point at another place from within a message.
    pub(super) fn line_of(&self, span: Span) -> String {
        format!("line {}", self.source.place(span.start).line)
    }

    /// The text of a place, to show it within a message.
    pub(super) fn text_of(&self, span: Span) -> &str {
        self.source.slice(span)
    }

    /// How many errors were reported, to see whether a step went well.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub(super) fn into_refusal(self) -> Refusal {
        let more = self.errors.saturating_sub(SHOWN_AT_MOST);
        let mut diagnostics = self.found;
        diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
        diagnostics.sort_by_key(|diagnostic| diagnostic.start);
        diagnostics.dedup();
        Refusal { diagnostics, more }
    }

    pub(super) fn into_notes(self) -> Vec<Diagnostic> {
        let mut notes = self.found;
        notes.sort_by_key(|diagnostic| diagnostic.start);
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, start: usize, end: usize) -> String {
        let mut diagnostics = Diagnostics::new(Arc::new(Source::new("p.toml", text)));
        diagnostics.error(
            "x",
            Span { start, end },
            "found `\u{1b}[31m`",
            "use \u{202e} less",
        );
        diagnostics.into_refusal().render()
    }

    #[test]
    fn the_caret_stands_under_what_is_wrong() {
        let text = "\nto = \"celll-a\"\n";
        let start = text.find('"').unwrap();
        assert_eq!(
            render(text, start, start + 9),
            "error: found `\\u{1b}[31m`\n --> p.toml:2:6\n  |\n2 | to = \"celll-a\"\n  |      \
             ^^^^^^^^^ use \\u{202e} less\n"
        );
    }

    #[test]
    fn no_control_character_of_the_policy_reaches_the_terminal() {
        let shown = render("a = \"\u{1b}]0;x\u{7}\t\u{9b}\u{200b}\"\r\n", 4, 12);
        assert!(
            shown
                .chars()
                .all(|c| c == '\n' || !c.is_control() && c != '\u{200b}'),
            "{shown}"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}WRONG{}", "a".repeat(5000), "b".repeat(5000));
        let shown = render(&text, 5000, 5005);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines.iter().all(|line| line.chars().count() < 130),
            "{shown}"
        );
        let caret = lines[4].find('^').unwrap();
        assert_eq!(&lines[3][caret..caret + 5], "WRONG");
        assert!(
            lines[3].starts_with("1 | ...a") && lines[3].ends_with("b..."),
            "{shown}"
        );
    }

    #[test]
    fn a_span_over_many_lines_is_marked_on_its_first() {
        let shown = render("a = [\n1,\n2]", 4, 12);
        assert!(shown.contains("1 | a = [\n  |     ^ use"), "{shown}");
    }

    #[test]
    fn a_span_at_the_end_of_the_text_has_a_caret() {
        assert!(render("a = ", 4, 4).contains("  |     ^ use"));
        assert!(render("", 0, 0).contains("  | ^ use"));
    }
}

//! Tests of a policy, kept beside it: what a site expects of `explain` and `replay`, and how far
//! that is from what was found.
//!
//! A file of expectations is TOML. What a case asks is the verb's own; the verdict that it wants,
//! and how a difference is told, are the same for all of them.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use conduitfw_common::{Reason, Verdict};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use thiserror::Error;

/// The largest file of expectations that is read.
pub const MAX_BYTES: usize = 16 << 20;

/// The word for a verdict: `pass`, `drop`, `reset` or `exception`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct VerdictWord(pub Verdict);

impl TryFrom<String> for VerdictWord {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let verdict = (0..=u8::MAX)
            .map_while(Verdict::from_number)
            .find(|verdict| verdict.label() == word);
        verdict.map(Self).ok_or_else(|| {
            format!("`{word}` is not a verdict, expected pass, drop, reset or exception")
        })
    }
}

/// The label of a reason, or `none` for a frame that nothing would be denied about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ReasonWord(pub Option<Reason>);

impl TryFrom<String> for ReasonWord {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        if word == "none" {
            return Ok(Self(None));
        }
        let mut reasons = Reason::ALL.iter().copied();
        if let Some(reason) = reasons.find(|reason| reason.label() == word) {
            return Ok(Self(Some(reason)));
        }
        let labels = Reason::ALL.iter().map(|reason| reason.label());
        let nearest = labels.min_by_key(|label| strsim::osa_distance(label, &word));
        Err(format!(
            "`{word}` is not a reason, did you mean `{}`?",
            nearest.unwrap_or("none")
        ))
    }
}

/// What a case wants. What is not said may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What happens to the frame.
    pub verdict: Verdict,
    /// Why; `Some(None)` for no reason at all.
    pub reason: Option<Option<Reason>>,
    /// The conduit that decides.
    pub conduit: Option<String>,
    /// The rule that allows it, as `conduit/rule`.
    pub rule: Option<String>,
}

impl Wanted {
    /// From the words of a case.
    #[must_use]
    pub fn new(verdict: VerdictWord, reason: Option<ReasonWord>) -> Self {
        Self {
            verdict: verdict.0,
            reason: reason.map(|word| word.0),
            conduit: None,
            rule: None,
        }
    }

    /// Whether it is what was found.
    #[must_use]
    pub fn is_met_by(&self, found: &Found) -> bool {
        let same =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        self.verdict == found.verdict
            && self.reason.is_none_or(|reason| reason == found.reason)
            && same(&self.conduit, &found.conduit)
            && same(&self.rule, &found.rule)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.label())?;
        match self.reason {
            Some(Some(reason)) => write!(f, ", reason {}", reason.label())?,
            Some(None) => f.write_str(", no reason")?,
            None => {}
        }
        write_names(f, self.conduit.as_deref(), self.rule.as_deref())
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What happens to the frame.
    pub verdict: Verdict,
    /// Why, when it is denied, or would be but for mode observe.
    pub reason: Option<Reason>,
    /// The conduit that decides, if one does.
    pub conduit: Option<String>,
    /// The rule that allows it, as `conduit/rule`.
    pub rule: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.label())?;
        if let Some(reason) = self.reason {
            write!(f, ", reason {}", reason.label())?;
        }
        write_names(f, self.conduit.as_deref(), self.rule.as_deref())
    }
}

fn write_names(
    f: &mut fmt::Formatter<'_>,
    conduit: Option<&str>,
    rule: Option<&str>,
) -> fmt::Result {
    match (conduit, rule) {
        (_, Some(rule)) => write!(f, ", rule {rule}"),
        (Some(conduit), None) => write!(f, ", conduit {conduit}"),
        (None, None) => Ok(()),
    }
}

/// Why a file of expectations cannot be used.
#[derive(Debug, Error)]
pub enum ExpectError {
    /// It cannot be read.
    #[error("{file}: cannot read it: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("{file}:{line}: {message}")]
    Malformed {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// A file of expectations.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// The name of the file.
    pub file: String,
    text: String,
}

impl Expectations {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It cannot be read, is too large, or is not text.
    pub fn open(path: &Path) -> Result<Self, ExpectError> {
        let file = path.display().to_string();
        let mut text = String::new();
        let read = File::open(path).and_then(|opened| {
            let one_more = MAX_BYTES as u64 + 1;
            opened.take(one_more).read_to_string(&mut text)
        });
        let source = match read {
            Ok(bytes) if bytes > MAX_BYTES => io::Error::other("it is larger than 16 MiB"),
            Ok(_) => return Ok(Self { file, text }),
            Err(error) => error,
        };
        Err(ExpectError::Unreadable { file, source })
    }

    /// Expectations given as text; `file` is only shown.
    #[must_use]
    pub fn from_text(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
        }
    }

    /// What the file says. Use [`toml::Spanned`] for what is told by its line.
    ///
    /// # Errors
    ///
    /// The file does not say what `T` holds.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ExpectError> {
        toml::from_str(&self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.malformed(at, error.message())
        })
    }

    /// The line, from 1, of a byte of the text.
    #[must_use]
    pub fn line(&self, at: usize) -> usize {
        let ends = self.text.match_indices('\n');
        1 + ends.take_while(|(end, _)| *end < at).count()
    }

    /// What is wrong at a byte of the text.
    #[must_use]
    pub fn malformed(&self, at: usize, message: &str) -> ExpectError {
        ExpectError::Malformed {
            file: self.file.clone(),
            line: self.line(at),
            message: message.lines().collect::<Vec<_>>().join(" "),
        }
    }
}

/// An expectation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it stands, from 1.
    pub line: usize,
    /// What it is called, or what it asks.
    pub name: String,
    /// What it wants.
    pub wanted: String,
    /// What was found.
    pub found: String,
    /// What would help to understand it; may be empty.
    pub remark: String,
}

/// How a file of expectations fared. Its `Display` ends with a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The file.
    pub file: String,
    /// Expectations that hold.
    pub held: usize,
    /// Those that do not, in the order of the file.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Nothing was compared yet.
    #[must_use]
    pub fn new(expectations: &Expectations) -> Self {
        Self {
            file: expectations.file.clone(),
            held: 0,
            failures: Vec::new(),
        }
    }

    /// Adds one expectation.
    pub fn add(&mut self, holds: bool, failure: impl FnOnce() -> Failure) {
        if holds {
            self.held += 1;
        } else {
            self.failures.push(failure());
        }
    }

    /// Whether every expectation holds.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.failures.is_empty()
    }

    /// As JSON: `ok`, `file`, `held`, and `failed` with `line`, `name`, `wanted`, `found` and
    /// `remark`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let failed = self.failures.iter().map(|failure| {
            json!({
                "line": failure.line,
                "name": failure.name,
                "wanted": failure.wanted,
                "found": failure.found,
                "remark": failure.remark,
            })
        });
        json!({
            "ok": self.is_met(),
            "file": self.file,
            "held": self.held,
            "failed": failed.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            let name = printable(&failure.name);
            writeln!(f, "{}:{}: {name}", self.file, failure.line)?;
            writeln!(f, "  wanted  {}", failure.wanted)?;
            writeln!(f, "  found   {}", failure.found)?;
            if !failure.remark.is_empty() {
                writeln!(f, "          {}", failure.remark)?;
            }
        }
        let all = self.held + self.failures.len();
        writeln!(f, "{}: {} of {all} expectations hold", self.file, self.held)
    }
}

/// The text without anything that a terminal would obey.
fn printable(text: &str) -> String {
    let spelled = text.chars().map(|character| {
        if character.is_control() {
            character.escape_unicode().to_string()
        } else {
            character.to_string()
        }
    });
    spelled.collect()
}

#[cfg(test)]
mod tests {
    use toml::Spanned;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cases {
        expect: Vec<Spanned<Case>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        frame: u64,
        verdict: VerdictWord,
        reason: Option<ReasonWord>,
    }

    const TWO: &str = "# Two cases\n\n[[expect]]\nframe = 1\nverdict = \"pass\"\n\n[[expect]]\n\
                       frame = 2\nverdict = \"reset\"\nreason = \"value-not-allowed\"\n";

    #[test]
    fn a_failing_case_is_told_with_its_line() {
        let expectations = Expectations::from_text("tests.toml", TWO);
        let cases: Cases = expectations.read().unwrap();
        let found = Found {
            verdict: Verdict::Pass,
            reason: None,
            conduit: Some("hmi-dosing".to_owned()),
            rule: None,
        };
        let mut outcome = Outcome::new(&expectations);
        for case in &cases.expect {
            let Case {
                frame,
                verdict,
                reason,
            } = *case.get_ref();
            let wanted = Wanted::new(verdict, reason);
            outcome.add(wanted.is_met_by(&found), || Failure {
                line: expectations.line(case.span().start),
                name: format!("frame {frame}"),
                wanted: wanted.to_string(),
                found: found.to_string(),
                remark: String::new(),
            });
        }
        assert_eq!(
            outcome.to_string(),
            "tests.toml:7: frame 2\n  wanted  reset, reason value-not-allowed\n  \
             found   pass, conduit hmi-dosing\ntests.toml: 1 of 2 expectations hold\n"
        );
        assert_eq!(outcome.to_json()["failed"][0]["line"], 7);
    }

    #[test]
    fn a_wrong_word_is_told_with_its_line() {
        let wrong = |from: &str, to: &str| {
            let expectations = Expectations::from_text("tests.toml", &TWO.replace(from, to));
            expectations.read::<Cases>().unwrap_err().to_string()
        };
        let said = wrong("\"reset\"", "\"deny\"");
        assert!(
            said.starts_with("tests.toml:9: `deny` is not a verdict"),
            "{said}"
        );
        let said = wrong("value-not-allowed", "value-not-alowed");
        assert!(said.contains("did you mean `value-not-allowed`?"), "{said}");
        let said = wrong("frame = 2", "frames = 2");
        assert!(said.starts_with("tests.toml:8:"), "{said}");
    }

    #[test]
    fn a_name_does_not_command_the_terminal() {
        let expectations = Expectations::from_text("tests.toml", "");
        let mut outcome = Outcome::new(&expectations);
        outcome.add(false, || Failure {
            line: 1,
            name: "red \u{1b}[31m".to_owned(),
            wanted: "pass".to_owned(),
            found: "drop".to_owned(),
            remark: String::new(),
        });
        assert!(
            outcome
                .to_string()
                .starts_with("tests.toml:1: red \\u{1b}[31m\n")
        );
    }

    #[test]
    fn no_reason_is_a_wish_of_its_own() {
        let found = Found {
            verdict: Verdict::Pass,
            reason: Some(Reason::ValueNotAllowed),
            conduit: None,
            rule: None,
        };
        let word = |text: &str| text.to_owned().try_into();
        let pass = VerdictWord(Verdict::Pass);
        assert!(Wanted::new(pass, None).is_met_by(&found));
        assert!(!Wanted::new(pass, word("none").ok()).is_met_by(&found));
        assert!(Wanted::new(pass, word("value-not-allowed").ok()).is_met_by(&found));
    }
}

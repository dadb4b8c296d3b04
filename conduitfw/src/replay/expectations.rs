//! Tests of a policy against a capture: which frames are wanted to be judged how.

use std::collections::BTreeMap;

use conduitfw_common::Reason;
use serde::Deserialize;
use toml::Spanned;

use super::{Line, Summary};
use crate::expect::{
    ExpectError, Expectations, Failure, Found, Outcome, ReasonWord, VerdictWord, Wanted,
};

/// A file of expectations about one capture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    expect: Vec<Spanned<Case>>,
    #[serde(default)]
    summary: BTreeMap<Spanned<String>, u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    frame: u64,
    verdict: VerdictWord,
    reason: Option<ReasonWord>,
    conduit: Option<String>,
}

/// The cases of a file, and what was found of them so far.
pub struct Cases {
    expectations: Expectations,
    /// Line, case and what was found, in the order of the frames.
    frames: Vec<(usize, Case, Option<Found>)>,
    next: usize,
    totals: BTreeMap<Spanned<String>, u64>,
}

impl Cases {
    /// Reads the cases.
    ///
    /// # Errors
    ///
    /// The file does not say what it should.
    pub fn new(expectations: Expectations) -> Result<Self, ExpectError> {
        let document: Document = expectations.read()?;
        for name in document.summary.keys() {
            if total(&Summary::default(), name.get_ref()).is_none() {
                let message = format!(
                    "`{}` is not counted: expected frames, allowed, denied, would_deny, flows, \
                     opened, adopted, operations, operations_allowed, operations_denied, \
                     cut_short, or a reason",
                    name.get_ref()
                );
                return Err(expectations.malformed(name.span().start, &message));
            }
        }
        let mut cases = Vec::new();
        for case in document.expect {
            let line = expectations.line(case.span().start);
            cases.push((line, case.into_inner(), None));
        }
        if let Some((line, ..)) = cases.iter().find(|(_, case, _)| case.frame == 0) {
            return Err(ExpectError::Malformed {
                file: expectations.file,
                line: *line,
                message: "there is no frame 0: the first is frame 1".to_owned(),
            });
        }
        cases.sort_by_key(|(_, case, _)| case.frame);
        Ok(Self {
            expectations,
            frames: cases,
            next: 0,
            totals: document.summary,
        })
    }

    /// Looks at the next frame.
    pub fn see(&mut self, line: &Line<'_>) {
        while let Some((_, case, found)) = self.frames.get_mut(self.next) {
            if case.frame != line.number {
                return;
            }
            *found = line.verdict.map(|verdict| Found {
                verdict,
                reason: line.reason,
                conduit: line.conduit.map(str::to_owned),
                rule: None,
            });
            self.next += 1;
        }
    }

    /// Compares what was wanted with what was found.
    #[must_use]
    pub fn outcome(mut self, summary: &Summary) -> Outcome {
        let mut outcome = Outcome::new(&self.expectations);
        self.frames.sort_by_key(|(line, ..)| *line);
        for (line, case, found) in self.frames {
            let mut wanted = Wanted::new(case.verdict, case.reason);
            wanted.conduit = case.conduit;
            let holds = found.as_ref().is_some_and(|found| wanted.is_met_by(found));
            outcome.add(holds, || Failure {
                line,
                name: case.name.map_or_else(
                    || format!("frame {}", case.frame),
                    |name| format!("{name} (frame {})", case.frame),
                ),
                wanted: wanted.to_string(),
                found: found.map_or_else(
                    || "no such frame was judged".to_owned(),
                    |found| found.to_string(),
                ),
                remark: String::new(),
            });
        }
        for (name, wanted) in self.totals {
            let found = total(summary, name.get_ref()).unwrap_or(0);
            outcome.add(found == wanted, || Failure {
                line: self.expectations.line(name.span().start),
                name: format!("summary: {}", name.get_ref()),
                wanted: wanted.to_string(),
                found: found.to_string(),
                remark: String::new(),
            });
        }
        outcome
    }
}

/// A count by its name; a reason counts the frames that it was given for.
fn total(summary: &Summary, name: &str) -> Option<u64> {
    Some(match name {
        "frames" => summary.frames,
        "allowed" => summary.allowed,
        "denied" => summary.denied,
        "would_deny" => summary.would_deny,
        "flows" => summary.flows(),
        "opened" => summary.opened,
        "adopted" => summary.adopted,
        "operations" => summary.operations_allowed + summary.operations_denied,
        "operations_allowed" => summary.operations_allowed,
        "operations_denied" => summary.operations_denied,
        "cut_short" => summary.cut_short,
        label => {
            let mut reasons = Reason::ALL.iter();
            let reason = reasons.find(|reason| reason.label() == label)?;
            summary.reason(*reason)
        }
    })
}

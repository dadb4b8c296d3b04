//! What is said on the control socket: one JSON object a line, a request and then its answers.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::policy::MAX_POLICY_BYTES;

/// Bytes of one line at most: a whole policy, every byte of it escaped.
pub const MAX_LINE_BYTES: usize = 2 * MAX_POLICY_BYTES + 4096;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is in force, and what it did.
    Status,
    /// Read the policy anew and put it in force.
    Reload {
        /// A policy to put in force in the place of the controller's own file. The client reads
        /// it, so that nobody learns through the controller what only root may read.
        policy: Option<PolicyText>,
    },
    /// Take the program off every interface, forget everything, and stop.
    Detach,
    /// The last events, and those to come.
    Events {
        /// Go on with events to come.
        follow: bool,
    },
}

/// A policy by its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// Name of the file, to be shown.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// An answer. Every request gets answers up to one that is final.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", try_from = "Line")]
pub enum Answer {
    /// It worked; final.
    Done {
        /// For machines: JSON as it is to be printed.
        result: Box<RawValue>,
        /// For people.
        text: String,
    },
    /// The policy was refused, and the one in force stays; final.
    Refused {
        /// For machines: JSON as it is to be printed.
        result: Box<RawValue>,
        /// For people.
        text: String,
    },
    /// It did not work for another reason; final.
    Failed {
        /// One sentence with the remedy.
        text: String,
    },
    /// One event; more may come.
    Event {
        /// The event's JSON object, as text.
        json: String,
        /// The event in words.
        words: String,
    },
    /// This follower was too slow and missed events; more may come.
    Missed {
        /// How many.
        count: u64,
    },
    /// There are no more events; final.
    End,
}

/// What a line with an answer may hold. serde takes an enum that names its kind within itself apart into
/// values before it knows the kind, and the result of a reload may name ten thousand rules.
#[derive(Deserialize)]
struct Line {
    answer: Kind,
    result: Option<Box<RawValue>>,
    text: Option<String>,
    json: Option<String>,
    words: Option<String>,
    count: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Done,
    Refused,
    Failed,
    Event,
    Missed,
    End,
}

impl TryFrom<Line> for Answer {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        fn given<T>(field: &str, value: Option<T>) -> Result<T, String> {
            value.ok_or_else(|| format!("the answer has no `{field}`"))
        }
        Ok(match line.answer {
            Kind::Done => Self::Done {
                result: given("result", line.result)?,
                text: given("text", line.text)?,
            },
            Kind::Refused => Self::Refused {
                result: given("result", line.result)?,
                text: given("text", line.text)?,
            },
            Kind::Failed => Self::Failed {
                text: given("text", line.text)?,
            },
            Kind::Event => Self::Event {
                json: given("json", line.json)?,
                words: given("words", line.words)?,
            },
            Kind::Missed => Self::Missed {
                count: given("count", line.count)?,
            },
            Kind::End => Self::End,
        })
    }
}

impl Answer {
    /// It worked.
    #[must_use]
    pub fn done(result: &impl Serialize, text: String) -> Self {
        match to_raw_value(result) {
            Ok(result) => Self::Done { result, text },
            Err(error) => Self::unwritable(&error),
        }
    }

    /// The policy was refused.
    #[must_use]
    pub fn refused(result: &impl Serialize, text: String) -> Self {
        match to_raw_value(result) {
            Ok(result) => Self::Refused { result, text },
            Err(error) => Self::unwritable(&error),
        }
    }

    fn unwritable(error: &serde_json::Error) -> Self {
        Self::Failed {
            text: format!("the answer cannot be written as JSON: {error}"),
        }
    }

    /// One line of the socket.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_else(|_| {
            r#"{"answer":"failed","text":"the answer cannot be written as JSON"}"#.to_owned()
        });
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_and_come_back() {
        let reload = Request::Reload {
            policy: Some(PolicyText {
                file: "a.toml".into(),
                text: "x\n\"y\"".into(),
            }),
        };
        for request in [Request::Status, Request::Events { follow: true }, reload] {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        assert_eq!(
            serde_json::to_string(&Request::Status).unwrap(),
            r#"{"verb":"status"}"#
        );
    }

    #[test]
    fn answers_are_one_line_and_come_back() {
        let answers = [
            Answer::done(&["a", "\n"], "a\nb".into()),
            Answer::refused(&[1.5], String::new()),
            Answer::Failed { text: "x".into() },
            Answer::Event {
                json: "{\"a\":1}".into(),
                words: "w".into(),
            },
            Answer::Missed { count: 7 },
            Answer::End,
        ];
        for answer in answers {
            let line = answer.to_line();
            assert_eq!(line.find('\n'), Some(line.len() - 1));
            let back: Answer = serde_json::from_str(&line).unwrap();
            assert_eq!(back.to_line(), line);
        }
        let done = Answer::done(&[1], "t".into()).to_line();
        assert_eq!(
            done,
            "{\"answer\":\"done\",\"result\":[1],\"text\":\"t\"}\n"
        );
        for line in [
            "{}",
            r#"{"answer":"done","text":"no result"}"#,
            r#"{"answer":"perhaps","text":"t"}"#,
            r#"{"answer":"missed","count":-1}"#,
        ] {
            assert!(serde_json::from_str::<Answer>(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for line in [
            "",
            "{}",
            r#"{"verb":"stop"}"#,
            r#"{"verb":"events","follow":1}"#,
        ] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }
}

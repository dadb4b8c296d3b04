//! What is said on the control socket: one JSON object a line, a request and then its answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It worked; final.
    Done {
        /// For machines.
        result: Value,
        /// For people.
        text: String,
    },
    /// The policy was refused, and the one in force stays; final.
    Refused {
        /// For machines.
        result: Value,
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

impl Answer {
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

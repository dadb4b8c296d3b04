//! The answer to a question, for people and for machines.

use std::fmt;

use conduitfw_common::{Reason, Verdict};
use serde_json::{Value, json};

use super::{JudgedFrame, fields::function_words, operation::Operation, party::Party};
use crate::expect::Found;

/// Which frame the answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The connection request.
    Connection,
    /// The operation: the first, or one of its repetitions, counted from 1.
    Operation {
        /// Which one.
        number: u32,
    },
    /// The reply to the operation.
    Reply,
    /// The datagram.
    Datagram,
    /// The echo request.
    Echo,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Operation { .. } => "operation",
            Self::Reply => "reply",
            Self::Datagram => "datagram",
            Self::Echo => "echo",
        }
    }
}

/// What a rule or a conduit lacks to allow what was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The unit id.
    Unit,
    /// The function code.
    Function,
    /// The sub-function.
    SubFunction,
    /// The MEI type.
    MeiType,
    /// Registers, coils or files.
    Register,
    /// Records of a file.
    Record,
    /// A written value.
    Value,
    /// The change of a written value.
    Step,
    /// The rate.
    Rate,
    /// The length of a vendor's function.
    Length,
    /// Requests without a reply.
    Outstanding,
    /// What the reply has to do with its request.
    Reply,
    /// The service, of a conduit between the two.
    Service,
    /// The initiator.
    From,
    /// The responder.
    To,
    /// Who opens the connection.
    Direction,
    /// Any conduit at all.
    Conduit,
}

impl Part {
    /// The word for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Function => "function",
            Self::SubFunction => "sub-function",
            Self::MeiType => "mei-type",
            Self::Register => "register",
            Self::Record => "record",
            Self::Value => "value",
            Self::Step => "step",
            Self::Rate => "rate",
            Self::Length => "length",
            Self::Outstanding => "outstanding",
            Self::Reply => "reply",
            Self::Service => "service",
            Self::From => "from",
            Self::To => "to",
            Self::Direction => "direction",
            Self::Conduit => "conduit",
        }
    }
}

/// What comes nearest, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing.
    pub part: Part,
    /// The rule that comes nearest, as `conduit/rule`, where it is one.
    pub rule: Option<String>,
    /// In words.
    pub text: String,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The initiator.
    pub from: Party,
    /// The responder.
    pub to: Party,
    /// Transport and port.
    pub service: String,
    /// The operation, in words.
    pub operation: Option<String>,
    /// The frame that was judged last: the first that was denied.
    pub stage: Stage,
    /// What the decision said.
    pub found: Found,
    /// In mode observe: it passes, and would be denied.
    pub would_deny: bool,
    /// What comes nearest, when it is denied.
    pub lacking: Vec<Lack>,
    /// What else should be known.
    pub remarks: Vec<String>,
    /// The frames that were judged; the answer is about the last one.
    pub frames: Vec<JudgedFrame>,
}

impl Answer {
    /// What happens to the frame, in a word or three.
    fn headline(&self) -> String {
        let reason = self.found.reason.map(Reason::label);
        match (self.found.verdict, reason) {
            (Verdict::Pass, None) => "allowed".to_owned(),
            (Verdict::Pass, Some(reason)) => format!("would be denied, but is observed: {reason}"),
            (verdict, reason) => format!(
                "denied ({}): {}",
                verdict.label(),
                reason.unwrap_or("without a reason")
            ),
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let lacking = self.lacking.iter().map(|lack| {
            json!({
                "part": lack.part.label(),
                "rule": lack.rule,
                "text": lack.text,
            })
        });
        json!({
            "verdict": self.found.verdict.label(),
            "reason": self.found.reason.map(Reason::label),
            "meaning": self.found.reason.map(Reason::meaning),
            "would_deny": self.would_deny,
            "conduit": self.found.conduit,
            "rule": self.found.rule,
            "judged": self.stage.label(),
            "number": match self.stage {
                Stage::Operation { number } => Some(number),
                _ => None,
            },
            "from": party_json(&self.from),
            "to": party_json(&self.to),
            "service": self.service,
            "operation": self.operation,
            "lacking": lacking.collect::<Vec<_>>(),
            "remarks": self.remarks,
        })
    }
}

fn party_json(party: &Party) -> Value {
    json!({
        "address": party.address,
        "asset": party.asset_name,
        "zone": party.zone_name,
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        write!(f, "  {} -> {}, {}", self.from, self.to, self.service)?;
        match &self.operation {
            Some(operation) => writeln!(f, ", modbus {operation}")?,
            None => writeln!(f)?,
        }
        match self.stage {
            Stage::Operation { number } if number > 1 => {
                writeln!(
                    f,
                    "  judged: the operation, for the {} time",
                    ordinal(number)
                )?;
            }
            Stage::Reply => writeln!(f, "  judged: the reply")?,
            Stage::Connection if self.operation.is_some() => {
                writeln!(f, "  judged: the connection request")?;
            }
            _ => {}
        }
        if let Some(reason) = self.found.reason {
            writeln!(f, "  {}", reason.meaning())?;
        }
        match (&self.found.rule, &self.found.conduit) {
            (Some(rule), _) => writeln!(f, "  rule `{rule}` allows it")?,
            (None, Some(conduit)) if self.found.reason.is_none() => {
                writeln!(f, "  conduit `{conduit}` allows it")?;
            }
            (None, Some(conduit)) => writeln!(f, "  conduit `{conduit}` decides")?,
            (None, None) => {}
        }
        for lack in &self.lacking {
            writeln!(f, "  {}", lack.text)?;
        }
        for remark in &self.remarks {
            writeln!(f, "  ({remark})")?;
        }
        Ok(())
    }
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Where a reply differs from the right one. Both are ADUs.
pub(super) fn reply_difference(request: &Operation, right: &[u8], sent: &[u8]) -> String {
    const UNIT: usize = 6;
    const FUNCTION: usize = 7;
    let byte = |adu: &[u8], at: usize| adu.get(at).copied().unwrap_or(0);
    let asked = format!("the request is {request}");
    if byte(sent, UNIT) != byte(right, UNIT) {
        return format!("{asked}; the reply is from unit {}", byte(sent, UNIT));
    }
    if byte(sent, FUNCTION) & 0x7f != byte(right, FUNCTION) {
        let function = conduitfw_common::modbus::function::FunctionCode(byte(sent, FUNCTION));
        return format!("{asked}; the reply is {}", function_words(function));
    }
    if sent.len() != right.len() {
        let count = |adu: &[u8]| adu.len().saturating_sub(FUNCTION + 1);
        return format!(
            "{asked}; its reply has {} bytes behind the function code, not {}",
            count(right),
            count(sent)
        );
    }
    let differs = right.iter().zip(sent).position(|(one, other)| one != other);
    let place = differs.map_or(0, |at| at.saturating_sub(FUNCTION));
    format!("{asked}; byte {place} behind the function code is not what the request implies")
}

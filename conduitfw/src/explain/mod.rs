//! What the policy in a file says about one operation or connection, without root and without a
//! kernel.
//!
//! The question becomes the frames that two hosts would send, and these go through the data plane's
//! own decision in ordinary memory ([`crate::simulator`]): the answer is the decision. Where it is a
//! denial, the policy is searched for what comes nearest, and what that lacks.

mod answer;
pub mod capture;
pub mod cases;
mod fields;
mod frames;
mod nearest;
mod operation;
mod party;
mod paths;
mod reply;
mod session;
mod values;
mod words;
mod written;

use std::time::Duration;

use conduitfw_common::{
    Reason, Verdict, event::field, platform::Platform as _, table::RegisterKey,
};
use thiserror::Error;

pub use answer::{Answer, Lack, Part, Stage};
pub use operation::{Operands, Operation};
pub use party::Party;
pub use reply::Reply;
pub use session::JudgedFrame;

use crate::policy::{ModbusTable, NameKind, Policy, PortRange, Refusal, address_words};
use session::{Decision, Session, TICKS_PER_SECOND, World};

/// The port of Modbus/TCP.
pub const MODBUS_PORT: u16 = 502;

/// What goes from the initiator to the responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// A Modbus operation on a TCP port.
    Modbus {
        /// The responder's port.
        port: u16,
        /// The operation.
        operation: Operation,
    },
    /// A connection to a TCP port.
    Tcp(u16),
    /// A datagram to a UDP port.
    Udp(u16),
    /// An echo request.
    IcmpEcho,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The initiator: an asset, a zone or an address, with or without a port.
    pub from: String,
    /// The responder: an asset, a zone or an address.
    pub to: String,
    /// What goes from one to the other.
    pub service: Service,
    /// Operations that went before, each answered.
    pub after: Vec<Operation>,
    /// Time between two operations.
    pub every: Duration,
    /// How often the operation is repeated: 1 for once.
    pub repeat: u32,
    /// The reply to the operation, to be judged when the operation passes.
    pub reply: Option<Reply>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// The question does not fit the policy.
    #[error("{0}")]
    Question(String),
    /// The policy does not fit the tables.
    #[error(transparent)]
    Policy(#[from] Refusal),
}

/// Answers questions about one policy.
pub struct Explainer<'p> {
    world: World<'p>,
}

impl<'p> Explainer<'p> {
    /// Lays out the policy's tables.
    ///
    /// # Errors
    ///
    /// The policy does not fit them.
    pub fn new(policy: &'p Policy) -> Result<Self, Refusal> {
        World::new(policy).map(|world| Self { world })
    }

    /// Answers one question. Every question meets a data plane that has seen nothing before.
    ///
    /// # Errors
    ///
    /// It names a host that the policy does not have.
    pub fn answer(&self, question: &Question) -> Result<Answer, ExplainError> {
        let policy = self.world.policy;
        let (from, from_port) = party::split_port(&question.from);
        let (from, to) =
            party::both(policy, &from, &question.to).map_err(ExplainError::Question)?;
        let to_port = match question.service.path() {
            paths::Path::Tcp(port) | paths::Path::Udp(port) => port,
            paths::Path::Echo => 0,
        };
        let mut conversation = Conversation {
            session: Session::new(&self.world, (&from, &to), (from_port, to_port)),
            question,
            from: &from,
            to: &to,
            remarks: Vec::new(),
        };
        let (stage, decision) = conversation.hold();
        let lacking = conversation.lacking(stage, &decision);
        let mut remarks = conversation.remarks;
        let frames = conversation.session.frames;
        remarks.extend(self.remark(question, &decision));
        Ok(Answer {
            service: paths::words(question.service.path()),
            operation: match &question.service {
                Service::Modbus { operation, .. } => Some(operation.to_string()),
                _ => None,
            },
            from,
            to,
            stage,
            would_deny: decision.would_deny,
            found: decision.found,
            lacking,
            remarks,
            frames,
        })
    }
}

impl Explainer<'_> {
    /// What somebody who asks this may not have in mind.
    fn remark(&self, question: &Question, decision: &Decision) -> Option<String> {
        let conduit = decision.found.conduit.as_deref();
        let conduit = conduit.and_then(|name| self.world.policy.conduit(name));
        match (&question.service, decision.found.reason) {
            (Service::Modbus { operation, .. }, Some(Reason::RegisterNotAllowed)) => {
                let address = operation.address()?;
                let table = ModbusTable::of(operation.function)?;
                let meant = fields::meant_as_modicon(table, address)?;
                Some(format!(
                    "{address} counts from 0; the Modicon number {address} is address {meant}: say \
                     register={address}"
                ))
            }
            (Service::Modbus { port, .. }, None) => {
                let rules = &conduit?.modbus;
                let is_inspected = rules.iter().any(|rule| holds_port(&rule.ports, *port));
                (!is_inspected).then(|| format!("what goes over tcp port {port} is not inspected"))
            }
            (Service::Tcp(port), None) => {
                let rules = &conduit?.modbus;
                let is_inspected = rules.iter().any(|rule| holds_port(&rule.ports, *port));
                is_inspected.then(|| {
                    "the connection is allowed; each Modbus operation on it is judged by itself: \
                     ask with modbus"
                        .to_owned()
                })
            }
            _ => None,
        }
    }
}

/// Whether a port is among these.
fn holds_port(ranges: &[PortRange], port: u16) -> bool {
    let mut ranges = ranges.iter();
    ranges.any(|range| (range.first..=range.last).contains(&port))
}

/// One question, in the course of being answered.
struct Conversation<'a, 'p> {
    session: Session<'a, 'p>,
    question: &'a Question,
    from: &'a Party,
    to: &'a Party,
    remarks: Vec<String>,
}

impl Conversation<'_, '_> {
    /// Sends frames until one is denied or all have passed.
    fn hold(&mut self) -> (Stage, Decision) {
        let is_answer = self.from.is_gateway();
        if is_answer {
            self.remarks.push(
                "what the gateway itself sends is not filtered; judged is the answer to it"
                    .to_owned(),
            );
        }
        match &self.question.service {
            Service::Modbus { operation, .. } if !is_answer && !self.to.is_gateway() => {
                self.modbus(operation)
            }
            Service::Modbus { .. } | Service::Tcp(_) if is_answer => {
                (Stage::Connection, self.session.answer_to_gateway())
            }
            Service::Modbus { .. } | Service::Tcp(_) => (Stage::Connection, self.session.ask()),
            Service::Udp(_) => (Stage::Datagram, self.session.datagram(is_answer)),
            Service::IcmpEcho => (Stage::Echo, self.session.echo(is_answer)),
        }
    }

    fn modbus(&mut self, operation: &Operation) -> (Stage, Decision) {
        let opened = self.session.open();
        if is_denied(&opened) {
            return (Stage::Connection, opened);
        }
        for before in &self.question.after {
            let decision = self.ask(before);
            self.settle(before, &decision);
            if let Some(reason) = decision.found.reason {
                let is = if decision.would_deny {
                    "would be"
                } else {
                    "is"
                };
                let remark = format!(
                    "{before}, which went before, {is} denied: {}",
                    reason.label()
                );
                self.remarks.push(remark);
            }
            if matches!(decision.found.verdict, Verdict::Drop | Verdict::Reset) {
                // That connection is over, and the next one a new one.
                self.session.leave();
                let opened = self.session.open();
                if is_denied(&opened) {
                    return (Stage::Connection, opened);
                }
            }
            self.session.wait(self.question.every);
        }
        for number in 1..self.question.repeat {
            let decision = self.ask(operation);
            if is_denied(&decision) {
                return (Stage::Operation { number }, decision);
            }
            self.settle(operation, &decision);
            self.session.wait(self.question.every);
        }
        let number = self.question.repeat.max(1);
        let decision = self.ask(operation);
        match &self.question.reply {
            Some(reply) if decision.passes() => {
                let adu = reply.adu(operation, self.session.transaction());
                (Stage::Reply, self.session.reply(&adu))
            }
            _ => (Stage::Operation { number }, decision),
        }
    }

    fn ask(&mut self, operation: &Operation) -> Decision {
        let session = &mut self.session;
        session.request(|transaction| operation.adu(transaction))
    }

    /// Sends what the responder answers to an operation that reached it.
    fn settle(&mut self, operation: &Operation, decision: &Decision) {
        let transaction = self.session.transaction();
        let adu = if decision.passes() {
            Reply::default().adu(operation, transaction)
        } else if decision.found.verdict == Verdict::Exception {
            reply::refusal(operation, transaction)
        } else {
            return;
        };
        let reply = self.session.reply(&adu);
        if let Some(reason) = reply.found.reason {
            let remark = format!("the reply to {operation} is denied: {}", reason.label());
            self.remarks.push(remark);
        }
    }

    /// What the policy lacks for what was denied.
    fn lacking(&self, stage: Stage, decision: &Decision) -> Vec<Lack> {
        let Some(reason) = decision.found.reason else {
            return Vec::new();
        };
        let policy = self.session.world.policy;
        let conduit = decision.found.conduit.as_deref();
        let conduit = conduit.and_then(|name| policy.conduit(name));
        let (Service::Modbus { port, operation }, Some(conduit)) =
            (&self.question.service, conduit)
        else {
            return paths::lacks(policy, self.question, (self.from, self.to), reason);
        };
        if stage == Stage::Reply {
            return self.reply_lacks(operation, reason);
        }
        if stage == Stage::Connection {
            return paths::lacks(policy, self.question, (self.from, self.to), reason);
        }
        let denied = nearest::Denied {
            conduit,
            port: *port,
            operation,
            seen: decision
                .operation
                .filter(|seen| seen.fields & field::VALUE != 0),
            last_value: &|key| self.last_value(key, *port),
            wait: &|label| self.wait_for(label),
        };
        nearest::rules(&denied, reason)
    }

    fn last_value(&self, key: &RegisterKey, port: u16) -> Option<u32> {
        let last = self.session.simulator.last_value(&RegisterKey {
            responder: address_words(self.to.address),
            port,
            ..*key
        });
        last.map(|last| last.passed)
    }

    /// Milliseconds until a rule's rate takes another operation.
    fn wait_for(&self, label: &str) -> Option<u64> {
        let world = self.session.world;
        let rule = world.ids.find(NameKind::Rule, label)?;
        let intervals = &world.tables.intervals;
        let interval = intervals.iter().find(|row| row.rule == rule)?;
        let limits = world.tables.limits.get(usize::from(interval.limits))?;
        let due = self.session.simulator.rule_rate(rule);
        // In 1/65,536 tick.
        let at = due.saturating_sub(limits.rate_burst);
        let parts = at.saturating_sub(self.session.now_ticks << 16);
        Some(parts.div_ceil(65_536) * 1000 / u64::from(TICKS_PER_SECOND))
    }

    fn reply_lacks(&self, request: &Operation, reason: Reason) -> Vec<Lack> {
        let right = Reply::default().adu(request, self.session.transaction());
        let given = self.question.reply.clone().unwrap_or_default();
        let sent = given.adu(request, self.session.transaction());
        let text = match reason {
            Reason::UnsolicitedReply => {
                "no request with this transaction id waits for a reply".to_owned()
            }
            Reason::ReplyMismatch | Reason::ModbusLengthMismatch => {
                answer::reply_difference(request, &right, &sent)
            }
            _ => return Vec::new(),
        };
        vec![Lack {
            part: Part::Reply,
            rule: None,
            text,
        }]
    }
}

/// Denied, or only let through because somebody observes.
fn is_denied(decision: &Decision) -> bool {
    decision.found.reason.is_some()
}

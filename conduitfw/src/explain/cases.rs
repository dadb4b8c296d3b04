//! Questions with the answers that a site expects, in a file beside its policy.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{ExplainError, Explainer, MODBUS_PORT, Operation, Question, Reply, Service, party};
use crate::expect::{ExpectError, Expectations, Failure, Outcome, ReasonWord, VerdictWord, Wanted};

/// Time between two operations, unless said.
pub const EVERY: Duration = Duration::from_secs(1);
/// How often an operation is repeated at most.
pub const MOST_REPEATED: u32 = 100_000;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    expect: Vec<Spanned<Case>>,
}

/// One question, and what is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    from: String,
    to: String,
    modbus: Option<String>,
    port: Option<u16>,
    tcp: Option<u16>,
    udp: Option<u16>,
    #[serde(default)]
    icmp_echo: bool,
    #[serde(default)]
    after: Vec<String>,
    every: Option<String>,
    repeat: Option<u32>,
    reply: Option<String>,
    verdict: VerdictWord,
    reason: Option<ReasonWord>,
    conduit: Option<String>,
    rule: Option<String>,
}

/// A question in words, as the command line and the cases have it.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// The initiator.
    pub from: String,
    /// The responder.
    pub to: String,
    /// The Modbus operation.
    pub modbus: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// A TCP port.
    pub tcp: Option<u16>,
    /// A UDP port.
    pub udp: Option<u16>,
    /// An echo request.
    pub icmp_echo: bool,
    /// Operations that went before.
    pub after: Vec<String>,
    /// Time between operations.
    pub every: Option<String>,
    /// How often the operation is repeated.
    pub repeat: Option<u32>,
    /// The reply.
    pub reply: Option<String>,
}

impl Words {
    /// The question.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one sentence.
    pub fn read(&self) -> Result<Question, String> {
        let named = [
            self.modbus.is_some(),
            self.tcp.is_some(),
            self.udp.is_some(),
            self.icmp_echo,
        ];
        if named.into_iter().filter(|given| *given).count() != 1 {
            return Err("ask about one of modbus, tcp, udp and icmp echo".to_owned());
        }
        let (to, to_port) = party::split_port(&self.to);
        let said = self.port.or(self.tcp).or(self.udp);
        let is_same = said.is_none_or(|said| to_port == Some(said)) && !self.icmp_echo;
        if let (Some(port), false) = (to_port, is_same) {
            return Err(format!(
                "`{}` contradicts what is asked about: port {port}",
                self.to
            ));
        }
        let service = match (&self.modbus, self.tcp, self.udp) {
            (Some(operation), ..) => Service::Modbus {
                port: said.or(to_port).unwrap_or(MODBUS_PORT),
                operation: Operation::parse(operation)?,
            },
            (None, Some(port), _) => Service::Tcp(port),
            (None, None, Some(port)) => Service::Udp(port),
            (None, None, None) => Service::IcmpEcho,
        };
        let is_modbus = self.modbus.is_some();
        let only_modbus = [
            ("port", self.port.is_some()),
            ("after", !self.after.is_empty()),
            ("every", self.every.is_some()),
            ("repeat", self.repeat.is_some()),
            ("reply", self.reply.is_some()),
        ];
        if let Some((key, _)) = only_modbus.iter().find(|(_, given)| *given && !is_modbus) {
            return Err(format!("`{key}` is for questions about modbus"));
        }
        let repeat = self.repeat.unwrap_or(1);
        if !(1..=MOST_REPEATED).contains(&repeat) {
            return Err(format!(
                "repeat is out of range, expected 1 to {MOST_REPEATED}"
            ));
        }
        let after = self.after.iter().map(|text| Operation::parse(text));
        Ok(Question {
            from: self.from.clone(),
            to,
            service,
            after: after.collect::<Result<_, _>>()?,
            every: match &self.every {
                Some(text) => duration(text)?,
                None => EVERY,
            },
            repeat,
            reply: self.reply.as_deref().map(Reply::parse).transpose()?,
        })
    }
}

/// `100ms`, `2s`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let read: Result<jiff::SignedDuration, _> = text.parse();
    read.ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("`{text}` is not a time, expected a number and a unit as in 100ms"))
}

impl Case {
    fn words(&self) -> Words {
        Words {
            from: self.from.clone(),
            to: self.to.clone(),
            modbus: self.modbus.clone(),
            port: self.port,
            tcp: self.tcp,
            udp: self.udp,
            icmp_echo: self.icmp_echo,
            after: self.after.clone(),
            every: self.every.clone(),
            repeat: self.repeat,
            reply: self.reply.clone(),
        }
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new(self.verdict, self.reason);
        wanted.conduit.clone_from(&self.conduit);
        wanted.rule.clone_from(&self.rule);
        wanted
    }

    fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let service = match (&self.modbus, self.tcp, self.udp) {
            (Some(operation), ..) => operation.clone(),
            (None, Some(port), _) => format!("tcp {port}"),
            (None, None, Some(port)) => format!("udp {port}"),
            (None, None, None) => "icmp echo".to_owned(),
        };
        format!("{} -> {}: {service}", self.from, self.to)
    }
}

/// Asks every question of the file and compares the answers with what is expected.
///
/// # Errors
///
/// The file does not say what it should.
pub fn compare(
    explainer: &Explainer<'_>,
    expectations: &Expectations,
) -> Result<Outcome, ExpectError> {
    let file: File = expectations.read()?;
    let mut outcome = Outcome::new(expectations);
    for case in &file.expect {
        let at = case.span().start;
        let case = case.get_ref();
        let malformed = |message: &str| expectations.malformed(at, message);
        let question = case.words().read().map_err(|said| malformed(&said))?;
        let answer = explainer.answer(&question).map_err(|error| match error {
            ExplainError::Question(said) => malformed(&said),
            ExplainError::Policy(refusal) => malformed(&refusal.to_string()),
        })?;
        let wanted = case.wanted();
        outcome.add(wanted.is_met_by(&answer.found), || {
            let lacking = answer.lacking.iter().map(|lack| lack.text.clone());
            Failure {
                line: expectations.line(at),
                name: case.title(),
                wanted: wanted.to_string(),
                found: answer.found.to_string(),
                remark: lacking.collect::<Vec<_>>().join("; "),
            }
        });
    }
    Ok(outcome)
}

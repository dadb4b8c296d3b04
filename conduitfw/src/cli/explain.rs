//! `conduitfw explain`: what a policy says about one operation or connection, without root and
//! without a kernel.

use std::{fs::File, io::BufWriter, path::PathBuf};

use clap::Args;

use super::{Failure, check::read_policy, complain, print, print_json};
use crate::{
    expect::Expectations,
    explain::{
        ExplainError, Explainer, capture,
        cases::{self, Words},
    },
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Who opens the connection: an asset, a zone, or an address with or without a port
    #[arg(long, value_name = "HOST", required_unless_present = "expect")]
    from: Option<String>,
    /// Who is asked: an asset, a zone or an address
    #[arg(long, value_name = "HOST", required_unless_present = "expect")]
    to: Option<String>,
    /// A Modbus operation, as in "unit=1 fc=6 address=10 value=9999"
    #[arg(long, value_name = "OPERATION", group = "service")]
    modbus: Option<String>,
    /// The port of the Modbus server [default: 502]
    #[arg(long, value_name = "PORT", requires = "modbus")]
    port: Option<u16>,
    /// A connection to a TCP port
    #[arg(long, value_name = "PORT", group = "service")]
    tcp: Option<u16>,
    /// A datagram to a UDP port
    #[arg(long, value_name = "PORT", group = "service")]
    udp: Option<u16>,
    /// An echo request (ping)
    #[arg(long, group = "service")]
    icmp_echo: bool,
    /// An operation that went before; may be given several times
    #[arg(long, value_name = "OPERATION", requires = "modbus")]
    after: Vec<String>,
    /// Time between two operations [default: 1s]
    #[arg(long, value_name = "TIME", requires = "modbus")]
    every: Option<String>,
    /// How often the operation is repeated
    #[arg(long, value_name = "TIMES", requires = "modbus")]
    repeat: Option<u32>,
    /// Judge the reply too: the right one with changes, as in "bytes=18", "exception=2",
    /// "unsolicited"
    #[arg(long, value_name = "REPLY", requires = "modbus")]
    reply: Option<String>,
    /// Write the frames that were judged to a capture, the one that is answered about last
    #[arg(long, value_name = "FILE", conflicts_with = "expect")]
    pcap: Option<PathBuf>,
    /// Ask the questions in this file, and compare
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "service"])]
    expect: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(arguments: Arguments) -> Result<(), Failure> {
    let loaded = read_policy(&arguments.policy, arguments.json)?;
    let explainer = Explainer::new(&loaded.policy).map_err(|refusal| {
        complain(&refusal.render());
        Failure::Refused
    })?;
    if let Some(file) = &arguments.expect {
        let expectations = Expectations::open(file).map_err(Failure::system)?;
        let outcome = cases::compare(&explainer, &expectations).map_err(Failure::system)?;
        if arguments.json {
            print_json(&outcome.to_json())?;
        } else {
            print(&outcome.to_string())?;
        }
        return if outcome.is_met() {
            Ok(())
        } else {
            Err(Failure::Refused)
        };
    }
    let words = Words {
        from: arguments.from.unwrap_or_default(),
        to: arguments.to.unwrap_or_default(),
        modbus: arguments.modbus,
        port: arguments.port,
        tcp: arguments.tcp,
        udp: arguments.udp,
        icmp_echo: arguments.icmp_echo,
        after: arguments.after,
        every: arguments.every,
        repeat: arguments.repeat,
        reply: arguments.reply,
    };
    let question = words
        .read()
        .map_err(|said| Failure::System(anyhow::anyhow!(said)))?;
    let answer = explainer.answer(&question).map_err(|error| match error {
        ExplainError::Question(said) => Failure::System(anyhow::anyhow!(said)),
        ExplainError::Policy(refusal) => {
            complain(&refusal.render());
            Failure::Refused
        }
    })?;
    if let Some(file) = &arguments.pcap {
        let written =
            File::create(file).and_then(|to| capture::write(BufWriter::new(to), &answer.frames));
        written.map_err(|error| {
            Failure::System(anyhow::anyhow!(
                "{} cannot be written: {error}",
                file.display()
            ))
        })?;
    }
    if arguments.json {
        print_json(&answer.to_json())
    } else {
        print(&answer.to_string())
    }
}

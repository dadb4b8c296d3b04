//! `conduitfw events`: what was denied, as it happens or just before.

use clap::Args;

use super::{
    Failure, print,
    reload::{connect, unexpected},
};
use crate::{
    control::protocol::{Answer, Request},
    instance::Instance,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Go on with events as they come
    #[arg(long)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn events(instance: &Instance, arguments: &Arguments) -> Result<(), Failure> {
    let request = Request::Events {
        follow: arguments.follow,
    };
    let mut client = connect(instance, &request)?.ok_or_else(|| {
        Failure::System(anyhow::anyhow!(
            "no controller answers on {}: events need one, start it with `conduitfw run --policy \
             FILE` (`conduitfw status` counts denied frames without one)",
            instance.socket().display()
        ))
    })?;
    loop {
        match client.next_answer().map_err(Failure::system)? {
            Some(Answer::Event { json, .. }) if arguments.json => print(&format!("{json}\n"))?,
            Some(Answer::Event { words, .. }) => print(&format!("{words}\n"))?,
            Some(Answer::Missed { count }) if arguments.json => {
                print(&format!("{{\"event\":\"missed\",\"count\":{count}}}\n"))?;
            }
            Some(Answer::Missed { count }) => {
                print(&format!(
                    "MISSED {count} events: they came faster than they were read here\n"
                ))?;
            }
            Some(Answer::End) if !arguments.follow => return Ok(()),
            // Whoever passes events on is to notice, and to follow again.
            Some(Answer::End) | None => {
                return Err(Failure::System(anyhow::anyhow!(
                    "no more events come: the controller stopped, or they were not read for ten seconds; \
                     `conduitfw status` says what is enforced"
                )));
            }
            Some(answer) => return Err(unexpected(answer)),
        }
    }
}

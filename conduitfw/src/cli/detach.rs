//! `conduitfw detach`: take the program off every interface.

use clap::Args;

use super::{
    Failure, print, print_json,
    reload::{connect, unexpected},
};
use crate::{
    control::protocol::{Answer, Request},
    daemon::detached,
    dataplane,
    instance::Instance,
    lock::InstanceLock,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Without asking a controller, for one that hangs; stop it afterwards
    #[arg(long)]
    force: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn detach_all(instance: &Instance, arguments: &Arguments) -> Result<(), Failure> {
    match detach(instance, arguments.force)? {
        Answer::Done { result, .. } if arguments.json => print_json(&result),
        Answer::Done { text, .. } => print(&text),
        answer => Err(unexpected(answer)),
    }
}

/// A running controller detaches and stops, so that none is left that reports what is not so.
fn detach(instance: &Instance, force: bool) -> Result<Answer, Failure> {
    if !force && let Some(mut client) = connect(instance, &Request::Detach)? {
        let answer = client.next_answer().map_err(Failure::system)?;
        return answer.ok_or_else(|| {
            Failure::System(anyhow::anyhow!(
                "the controller stopped before it answered: try again"
            ))
        });
    }
    let _lock = if force {
        None
    } else {
        Some(InstanceLock::take(instance).map_err(Failure::system)?)
    };
    dataplane::detach(instance)
        .map(|interfaces| detached(&interfaces))
        .map_err(Failure::system)
}

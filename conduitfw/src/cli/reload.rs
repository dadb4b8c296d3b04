//! `conduitfw reload`: put a changed policy in force, or say why not.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, check::refused, complain, print, print_json};
use crate::{
    control::{
        client::Client,
        protocol::{Answer, PolicyText, Request},
    },
    instance::Instance,
    policy,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Put this policy in force; without it, the controller reads its own file anew
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn reload(instance: &Instance, arguments: &Arguments) -> Result<(), Failure> {
    let policy = match &arguments.file {
        Some(file) => {
            // Read here, with the rights of whoever asks.
            let text =
                policy::read_text(file).or_else(|refusal| refused(&refusal, arguments.json))?;
            Some(PolicyText {
                file: file.display().to_string(),
                text,
            })
        }
        None => None,
    };
    match ask(instance, &Request::Reload { policy })? {
        Answer::Done { result, .. } if arguments.json => print_json(&result),
        Answer::Done { text, .. } => print(&text),
        Answer::Refused { result, text } => {
            if arguments.json {
                print_json(&result)?;
            } else {
                complain(&text);
                complain("the policy in force stays\n");
            }
            Err(Failure::Refused)
        }
        answer => Err(unexpected(answer)),
    }
}

/// Asks the running controller for one answer.
pub(super) fn ask(instance: &Instance, request: &Request) -> Result<Answer, Failure> {
    let socket = instance.socket();
    let mut client = connect(instance, request)?.ok_or_else(|| {
        Failure::System(anyhow::anyhow!(
            "no controller answers on {}: start one with `conduitfw run --policy FILE`",
            socket.display()
        ))
    })?;
    let answer = client.next_answer().map_err(Failure::system)?;
    client.leave();
    answer.ok_or_else(|| {
        Failure::System(anyhow::anyhow!("the controller stopped before it answered"))
    })
}

/// Sends a request; nothing when no controller runs.
pub(super) fn connect(instance: &Instance, request: &Request) -> Result<Option<Client>, Failure> {
    let socket = instance.socket();
    Client::send(&socket, request).map_err(|error| {
        let remedy = if error.kind() == std::io::ErrorKind::PermissionDenied {
            ": run this as root, or join the group that owns the socket"
        } else {
            ""
        };
        Failure::System(anyhow::anyhow!(
            "{} cannot be used: {error}{remedy}",
            socket.display()
        ))
    })
}

/// An answer that says why it did not work, or that no such request gets.
pub(super) fn unexpected(answer: Answer) -> Failure {
    Failure::System(match answer {
        Answer::Failed { text } => anyhow::anyhow!(text),
        _ => anyhow::anyhow!(
            "the controller gave an answer of another version: restart it, enforcement goes on"
        ),
    })
}

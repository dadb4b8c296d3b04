//! `conduitfw status`: what is in force and what it did, with or without a controller.

use clap::Args;

use super::{
    Failure, print, print_json,
    reload::{connect, unexpected},
};
use crate::{
    control::protocol::{Answer, Request},
    dataplane,
    dataplane::{DataPlaneError, Pins, maps::Maps},
    instance::Instance,
    state::{InForce, tables_id},
    status::Status,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn status(instance: &Instance, arguments: &Arguments) -> Result<(), Failure> {
    if let Some(mut client) = connect(instance, &Request::Status)? {
        match client.next_answer().map_err(Failure::system)? {
            Some(Answer::Done { result, .. }) if arguments.json => return print_json(&result),
            Some(Answer::Done { text, .. }) => return print(&text),
            Some(answer) => return Err(unexpected(answer)),
            // It stops just now: the maps know the rest.
            None => {}
        }
    }
    let pins = Pins::of(instance);
    if !pins.exist() {
        return Err(Failure::System(anyhow::anyhow!(
            "nothing of instance `{}` is loaded, or it may not be seen: as root, start it with \
             `conduitfw run --policy FILE`",
            instance.name.as_str()
        )));
    }
    let maps = dataplane::check_version(&pins)
        .and_then(|_| Maps::open(pins.directory()).map_err(DataPlaneError::from));
    let status = maps
        .and_then(|maps| {
            let settings = maps.settings.get(&0, 0)?.0;
            let generation = maps.in_force()?.1.number;
            let in_force = InForce::load(instance, generation, Some(&tables_id(&settings)));
            Ok(Status::read(instance, &maps, None, in_force)?)
        })
        .map_err(Failure::system)?;
    if arguments.json {
        let value = serde_json::to_value(&status).map_err(Failure::system)?;
        print_json(&value)
    } else {
        print(&status.to_string())
    }
}

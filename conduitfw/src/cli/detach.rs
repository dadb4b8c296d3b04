//! `conduitfw detach`: take the program off every interface.

use clap::Args;
use serde_json::json;

use super::{Failure, print, print_json};
use crate::{controller::InstanceLock, dataplane, instance::Instance};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Also while a controller runs
    #[arg(long)]
    force: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn detach_all(instance: &Instance, arguments: &Arguments) -> Result<(), Failure> {
    let _lock = if arguments.force {
        None
    } else {
        Some(InstanceLock::take(instance).map_err(|error| {
            Failure::System(anyhow::anyhow!(
                "{error}; to detach while it runs, add --force (it then has nothing to report)"
            ))
        })?)
    };
    let interfaces = dataplane::detach(instance).map_err(Failure::system)?;
    if arguments.json {
        return print_json(&json!({ "ok": true, "interfaces": interfaces }));
    }
    if interfaces.is_empty() {
        return print("nothing was attached\n");
    }
    print(&format!(
        "detached from {}: nothing is filtered there any more\n",
        interfaces.join(", ")
    ))
}

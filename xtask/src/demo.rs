//! The demonstration: a lab of three hosts in network namespaces.

use std::{os::unix::process::CommandExt as _, path::PathBuf};

use anyhow::{Result, bail};

use crate::{
    build,
    setup::{self, Purpose},
    shell,
};

/// How to show it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave the lab up afterwards, for playing.
    #[arg(long)]
    keep: bool,
    /// Show this policy instead of rules/quickstart.toml.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Anything else, handed to the demonstration as it is.
    #[arg(last = true)]
    more: Vec<String>,
}

/// Sets up, builds, and becomes the demonstration, so that Ctrl-C reaches it alone.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !shell::is_root() {
        bail!(
            "the demonstration makes network namespaces and loads a kernel program: run it as root"
        );
    }
    let policy = arguments
        .policy
        .as_ref()
        .map(|policy| policy.canonicalize())
        .transpose()?;
    setup::ensure(Purpose::Demo)?;
    build::debug()?;
    let mut command = shell::cargo();
    command.args([
        "run",
        "--quiet",
        "--package",
        "conduitfw-tests",
        "--bin",
        "demo",
        "--",
    ]);
    if arguments.keep {
        command.arg("--keep");
    }
    if let Some(policy) = policy {
        command.arg("--policy").arg(policy);
    }
    let error = command.args(&arguments.more).exec();
    Err(error.into())
}

//! The kernel program and everything that runs beside it.

use anyhow::Result;

use crate::{ebpf, shell};

/// How to build.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the optimised version, for gateways.
    #[arg(long)]
    release: bool,
}

/// Builds all.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    build(arguments.release)
}

/// Builds the version that the tests and the demonstration run.
pub(crate) fn debug() -> Result<()> {
    build(false)
}

fn build(release: bool) -> Result<()> {
    ebpf::run()?;
    let profile = if release { "release" } else { "debug" };
    shell::step(
        "controller and tests; one to three minutes the first time",
        || {
            let mut command = shell::cargo();
            command.arg("build");
            if release {
                command.arg("--release");
            }
            shell::run(&mut command)
        },
    )?;
    eprintln!("    target/{profile}/conduitfw");
    Ok(())
}

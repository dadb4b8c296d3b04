//! What the build, the demonstration and the tests need: found, or installed after saying so.

mod plan;
mod steps;

use anyhow::{Context, Result, bail};

use crate::{shell, toolchain::Found};
use plan::Missing;
use steps::Step;

pub(crate) use plan::{Purpose, python_is_complete, tools};

/// The version of bpf-linker that the project is built with.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// The client and server that the tests meet, from the Python package index.
pub(crate) const PYMODBUS: &str = "pymodbus==3.16.*";

/// What to set up for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what this needs; `test` needs all.
    #[arg(long = "for", value_enum, default_value = "test")]
    purpose: Purpose,
}

/// Sets up and says so.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure(arguments.purpose)
}

/// Sees to it that everything is here.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let mut refreshed = false;
    // A second and third look, because what a step installs says what the next one is.
    for _ in 0..3 {
        let missing = Missing::look(purpose);
        if missing.is_nothing() {
            eprintln!("==> set-up: all is here ({})", found_in_words());
            return Ok(());
        }
        if missing.wants_packages() && !refreshed && shell::is_root() {
            refreshed = true;
            shell::step("apt-get update, to know what this machine can have", || {
                shell::capture(shell::command("apt-get").arg("update")).map(drop)
            })?;
        }
        let steps = missing.steps()?;
        announce(&steps);
        refuse_without_root(&steps, purpose)?;
        for step in steps {
            install(step)?;
        }
    }
    let still = Missing::look(purpose);
    if still.is_nothing() {
        return Ok(());
    }
    bail!(
        "after the set-up this is still missing: {}",
        still.names().join(", ")
    )
}

fn found_in_words() -> String {
    Found::look().best().map_or_else(
        || "no compiler for BPF".into(),
        |best| best.name().to_owned(),
    )
}

fn announce(steps: &[Step]) {
    eprintln!("==> set-up is going to run:");
    for step in steps {
        eprintln!("      {}", step.line());
        eprintln!("        for {}; {}", step.reason, step.duration);
    }
}

fn refuse_without_root(steps: &[Step], purpose: Purpose) -> Result<()> {
    let root_steps: Vec<String> = steps
        .iter()
        .filter(|step| step.needs_root)
        .map(|step| format!("    {}", step.line()))
        .collect();
    if root_steps.is_empty() || shell::is_root() {
        return Ok(());
    }
    bail!(
        "root is needed to install packages. As root, run:\n    apt-get update\n{}\n\
         then, as yourself, run again:\n    cargo xtask setup --for {purpose}",
        root_steps.join("\n")
    )
}

fn install(step: Step) -> Result<()> {
    let mut command = step.command;
    shell::step(&shell::line_of(&command), || {
        shell::capture(&mut command).map(drop)
    })
    .with_context(|| format!("set-up failed at {}; {}", step.reason, step.remedy))
}

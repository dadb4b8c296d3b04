//! The bench: builds all that is measured, optimised, and hands over to the program that measures.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{ebpf, shell};

/// What the bench is to do; `--help` after `--` tells.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `--json`, `--save FILE`, `--compare FILE`, `--only PARTS`, ...
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    options: Vec<String>,
}

impl Arguments {
    /// Whether single frames alone are measured. Then the kernel does the work, and it does not
    /// matter how well this side is optimised.
    fn is_quick(&self) -> bool {
        let mut options = self.options.iter();
        options.any(|option| option == "--case" || option.starts_with("--case="))
    }
}

/// Builds and measures.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !shell::is_root() {
        bail!("the bench loads kernel programs and makes network namespaces: run it as root");
    }
    ebpf::run()?;
    let floors = ebpf::floors()?;
    let objects = floors.parent().context("an object lies nowhere")?;
    let program = build(arguments.is_quick())?;
    let commit = shell::capture(shell::command("git").args(["describe", "--always", "--dirty"]))
        .unwrap_or_default();
    let mut command = shell::command(&program.to_string_lossy());
    command
        .env("CONDUITFW_COMMIT", commit.trim())
        .arg("--objects")
        .arg(objects)
        .arg("--page")
        .arg(shell::root().join("docs/performance.md"))
        .args(&arguments.options);
    shell::run(&mut command)
}

/// Builds the bench, and the controller if that is to be measured; the program.
fn build(is_quick: bool) -> Result<PathBuf> {
    if is_quick {
        shell::step("bench", || {
            let mut command = shell::cargo();
            shell::run(command.args(["build", "--quiet", "--package", "conduitfw-bench"]))
        })?;
        return Ok(shell::target("debug/conduitfw-bench"));
    }
    shell::step("controller and bench, optimised; a minute or two", || {
        let packages = ["--package", "conduitfw", "--package", "conduitfw-bench"];
        let mut command = shell::cargo();
        shell::run(
            command
                .args(["build", "--quiet", "--release"])
                .args(packages),
        )
    })?;
    Ok(shell::target("release/conduitfw-bench"))
}

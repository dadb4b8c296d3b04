//! The bench: builds all that is measured, optimised, and hands over to the program that measures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf,
    kernels::{self, guest::executable},
    shell,
};

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
    /// Whether instructions are counted, and no time is taken.
    fn counts_instructions(&self) -> bool {
        self.options.iter().any(|option| option == "--instructions")
    }

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
    if arguments.counts_instructions() {
        return instructions(arguments, objects);
    }
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

/// Frames whose instructions are counted, unless cases are named: those whose tables are small.
const COUNTED: [&str; 15] = [
    "only returns",
    "parsed",
    "bare LRU",
    "ACK of",
    "FC3, r",
    "FC16",
    "ADUs",
    "split",
    "plain",
    "denied",
    "exception",
    "handshake",
    "no conduit",
    "no flow",
    "spoofed",
];

/// Runs the bench in a machine that counts instructions, and keeps the table beside the bench.
fn instructions(arguments: &Arguments, objects: &Path) -> Result<()> {
    let program = shell::step("static bench; one to two minutes the first time", || {
        let mut command = shell::cargo();
        executable(
            command.args(["build", "--package", "conduitfw-bench"]),
            "conduitfw-bench",
        )
    })?;
    let mut words = vec!["--objects".to_owned(), objects.display().to_string()];
    words.extend(arguments.options.iter().cloned());
    if !arguments.is_quick() {
        for case in COUNTED {
            words.extend(["--case".to_owned(), case.to_owned()]);
        }
    }
    let files = vec![objects.join("conduitfw-ebpf"), objects.join("floors")];
    let console = kernels::count_instructions(&program, &words, files)?;
    let lines: Vec<&str> = console
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    if lines.is_empty() {
        bail!("nothing was counted: {}", shell::last_lines(&console, 20));
    }
    let table = lines.join("\n") + "\n";
    print!("{table}");
    if !arguments.is_quick() {
        fs::write(shell::root().join("bench/instructions.txt"), table)?;
    }
    Ok(())
}

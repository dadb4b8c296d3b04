//! The proof: what is denied does not get through, what is allowed is not cut off, and kernel and
//! user space agree. At length; `cargo xtask test` runs the same in a bounded form.

use std::{
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    build,
    fuzz::{self, Fuzzed, Took as _},
    setup::{self, Purpose},
    shell,
};

/// How long and how.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long to try.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Where the generators start from; the same seed tries the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the proof; the exit status is 1 when anything must not have happened.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !shell::is_root() {
        bail!("the proof makes network namespaces and loads a kernel program: run it as root");
    }
    setup::ensure(Purpose::Test)?;
    build::debug()?;
    let time = Duration::from_secs(arguments.minutes * 60);
    // A tenth for each target of the fuzzer, and the rest for everything else.
    let fuzzed = fuzz::run(time / 10)?;
    let others = time.saturating_sub(fuzzed.took());
    let mut parts = prove(arguments.seed, others)?;
    parts.extend(fuzzed.into_iter().map(Fuzzed::into_part));
    let counterexamples = parts.iter().map(|part| list(part, "counterexamples").len());
    let counterexamples: usize = counterexamples.sum();
    if arguments.json {
        let whole = json!({
            "seed": arguments.seed, "minutes": arguments.minutes,
            "counterexamples": counterexamples, "parts": parts,
        });
        println!("{whole}");
    } else {
        print(&parts, arguments.seed, counterexamples);
    }
    Ok(ExitCode::from(u8::from(counterexamples != 0)))
}

/// Runs the part that is a program of its own.
fn prove(seed: u64, time: Duration) -> Result<Vec<Value>> {
    let mut command = shell::command(&shell::target("debug/prove").to_string_lossy());
    command.arg("--seconds").arg(time.as_secs().to_string());
    command.arg("--seed").arg(seed.to_string());
    command.env("CONDUITFW_PYTHON", shell::target("python/bin/python3"));
    shell::give_captures(&mut command);
    eprintln!("==> {}", shell::line_of(&command));
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the proof")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stdout);
        format!("the proof ended with {} and said {said}", output.status)
    })
}

fn list<'a>(part: &'a Value, key: &str) -> &'a [Value] {
    part[key].as_array().map_or(&[], Vec::as_slice)
}

fn print(parts: &[Value], seed: u64, counterexamples: usize) {
    println!("\n{:<24}{:>9}  what was done", "part", "seconds");
    for part in parts {
        let figures: Vec<String> = list(part, "figures")
            .iter()
            .map(|figure| format!("{} {}", figure[1], figure[0].as_str().unwrap_or("?")))
            .collect();
        println!(
            "{:<24}{:>9.1}  {}",
            part["name"].as_str().unwrap_or("?"),
            part["seconds"].as_f64().unwrap_or(0.0),
            figures.join(", "),
        );
        if let Some(reason) = part["left_out"].as_str() {
            println!("{:<24}{:>9}  left out: {reason}", "", "");
        }
    }
    for part in parts {
        for found in list(part, "counterexamples") {
            let name = part["name"].as_str().unwrap_or("?");
            println!("\n{name}: {}", found.as_str().unwrap_or("?"));
        }
    }
    println!("\nseed {seed}, {counterexamples} counterexamples");
}

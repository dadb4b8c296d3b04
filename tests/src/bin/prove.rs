//! The proof at length; `cargo xtask prove` runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use conduitfw_tests::fuzzing;
use conduitfw_tests::lab::{remove_on_signals, source_directory};
use conduitfw_tests::proof::{self, Part};

/// Tries to get a denied operation through, and to cut off what is allowed.
#[derive(Parser)]
struct Arguments {
    /// How long to try, in seconds.
    #[arg(long)]
    seconds: u64,
    /// Where the generators start from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Transactions of honest clients.
    #[arg(long, default_value_t = 100_000)]
    transactions: u64,
    /// A directory of captures for the agreement of kernel and simulator.
    #[arg(long, value_name = "DIRECTORY", env = "CONDUITFW_CAPTURES")]
    captures: Option<PathBuf>,
    /// Only write inputs for the fuzzer to begin with.
    #[arg(long, value_name = "DIRECTORY")]
    write_seeds: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(directory) = &arguments.write_seeds {
        fuzzing::write_seeds(directory, &source_directory().join("rules"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the proof makes network namespaces and loads a kernel program: run it as root");
    }
    remove_on_signals();
    let time = Duration::from_secs(arguments.seconds);
    let seed = arguments.seed;
    let deadline = Instant::now() + time;
    // One processor for the decision alone, the other for everything that needs the kernel.
    let alongside = thread::spawn(move || proof::oracle(seed, time));
    let mut parts = Vec::new();
    let mut add = |part: Part| {
        eprintln!("    {}: {:.0} s", part.name, part.seconds);
        parts.push(part);
    };
    add(proof::captures(arguments.captures.as_deref()));
    add(proof::agreement(seed, time / 8));
    add(proof::harmless(seed, arguments.transactions));
    add(proof::oracle_live(seed, left(deadline) / 3));
    // Whatever the parts before took of the time.
    add(proof::oracle_in_kernel(seed, left(deadline).max(time / 8)));
    add(alongside
        .join()
        .map_err(|_| anyhow!("the oracle panicked"))?);
    let is_proved = parts.iter().all(|part| part.counterexamples.is_empty());
    println!("{}", serde_json::to_string(&parts)?);
    Ok(if is_proved {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

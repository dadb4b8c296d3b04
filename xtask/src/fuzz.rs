//! The fuzz targets of `fuzz/`, for a share of the proof's time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::shell;

const TARGETS: [&str; 3] = ["frame", "stream", "policy"];

/// How a target went.
#[derive(Default)]
pub(crate) struct Fuzzed {
    target: &'static str,
    runs: u64,
    coverage: u64,
    found: Vec<String>,
    left_out: Option<String>,
    took: Duration,
}

impl Fuzzed {
    /// As a part of the proof.
    pub(crate) fn into_part(self) -> Value {
        json!({
            "name": format!("fuzz {}", self.target),
            "figures": [["inputs", self.runs], ["places reached", self.coverage]],
            "counterexamples": self.found,
            "left_out": self.left_out,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// The time that the targets took.
pub(crate) trait Took {
    /// All together.
    fn took(&self) -> Duration;
}

impl Took for Vec<Fuzzed> {
    fn took(&self) -> Duration {
        self.iter().map(|fuzzed| fuzzed.took).sum()
    }
}

/// Whether cargo-fuzz and a nightly compiler are here; else what is missing.
pub(crate) fn missing() -> Option<String> {
    if shell::which("cargo-fuzz").is_none() {
        return Some("cargo-fuzz is missing: run `cargo xtask setup --for prove`".to_owned());
    }
    let mut nightly = shell::command("rustup");
    let is_here = shell::capture(nightly.args(["run", "nightly", "rustc", "--version"])).is_ok();
    (!is_here)
        .then(|| "a nightly compiler is missing: `rustup toolchain install nightly`".to_owned())
}

/// Fuzzes each target for as long.
pub(crate) fn run(each: Duration) -> Result<Vec<Fuzzed>> {
    if let Some(missing) = missing() {
        eprintln!("==> no fuzzing: {missing}");
        let left_out = |target| Fuzzed {
            target,
            left_out: Some(missing.clone()),
            ..Fuzzed::default()
        };
        return Ok(TARGETS.map(left_out).into());
    }
    shell::step("fuzz targets; some minutes the first time", || {
        shell::capture(cargo_fuzz("build").args(["--release"])).map(drop)
    })?;
    let corpus = shell::target("fuzz/corpus");
    let mut seeds = shell::command(&shell::target("debug/prove").to_string_lossy());
    seeds.args(["--seconds", "0", "--write-seeds"]).arg(&corpus);
    shell::capture(&mut seeds)?;
    TARGETS
        .into_iter()
        .map(|target| fuzz(target, &corpus.join(target), each))
        .collect()
}

fn cargo_fuzz(verb: &str) -> std::process::Command {
    let mut command = shell::command("cargo");
    command.args(["+nightly", "fuzz", verb]);
    // The toolchain is chosen by the `+`, not by the one that runs this task.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command.arg("--target-dir").arg(shell::target("fuzz/build"));
    command
}

fn fuzz(target: &'static str, corpus: &Path, time: Duration) -> Result<Fuzzed> {
    let artifacts = shell::target("fuzz/found").join(target);
    fs::create_dir_all(&artifacts)?;
    let before = files(&artifacts)?;
    let mut command = cargo_fuzz("run");
    command.arg("--release").arg(target).arg(corpus).arg("--");
    command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"]);
    eprintln!("==> {}", shell::line_of(&command));
    let began = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start cargo-fuzz")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let mut fuzzed = Fuzzed {
        target,
        runs: number_after(&said, "stat::number_of_executed_units:"),
        coverage: last_number_after(&said, " cov: "),
        took: began.elapsed(),
        ..Fuzzed::default()
    };
    for file in files(&artifacts)? {
        if !before.contains(&file) {
            let file = file.display();
            let remedy = format!("copy it to fuzz/named/{target}");
            fuzzed.found.push(format!(
                "{file} ({remedy})\n{}",
                shell::last_lines(&said, 60)
            ));
        }
    }
    if !output.status.success() && fuzzed.found.is_empty() {
        fuzzed.found.push(shell::last_lines(&said, 60));
    }
    Ok(fuzzed)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()
}

fn number_after(text: &str, words: &str) -> u64 {
    let rest = text.split_once(words).map_or("", |(_, rest)| rest);
    let number = rest.split_whitespace().next().unwrap_or("0");
    number.parse().unwrap_or(0)
}

fn last_number_after(text: &str, words: &str) -> u64 {
    let rest = text.rsplit_once(words).map_or("", |(_, rest)| rest);
    let number = rest.split_whitespace().next().unwrap_or("0");
    number.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_figures_are_read() {
        let said = "#1 INITED cov: 10 ft: 2\n#9 DONE   cov: 25 ft: 3\n\
                    stat::number_of_executed_units: 1234\n";
        assert_eq!(number_after(said, "stat::number_of_executed_units:"), 1234);
        assert_eq!(last_number_after(said, " cov: "), 25);
        assert_eq!(number_after("", "cov:"), 0);
    }
}

//! What a frame costs and what a gateway carries, as ratios to floors of the same run.
//!
//! `cargo xtask bench` builds all that this program measures and runs it.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "numbers of frames and nanoseconds are far below what 32 bits and a mantissa hold"
)]

mod builder;
mod cases;
mod control;
mod frames;
mod links;
mod machine;
mod pacer;
mod page;
mod pairs;
mod paths;
mod peers;
mod policy;
mod rates;
mod report;
mod rig;
#[allow(dead_code, reason = "the yardsticks need the rest")]
mod script;
mod site;
mod talk;
mod targets;
mod time;
mod tuning;
mod wires;
mod worst;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};

use builder::Wanted;
use machine::Machine;
use report::Report;

/// Measures what a frame costs and what a gateway carries.
#[derive(Parser)]
#[command(name = "cargo xtask bench", disable_help_subcommand = true)]
struct Arguments {
    /// Where the kernel program and the yardsticks lie.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    objects: PathBuf,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds, each with every case once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Keep the figures in this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Hold the figures against those that `--save` kept.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Write the page of the documentation here.
    #[arg(long, value_name = "FILE", hide = true)]
    page: Option<PathBuf>,
    /// Where the slowest frames that are known are recorded.
    #[arg(
        long,
        value_name = "FILE",
        hide = true,
        default_value = "bench/slowest.txt"
    )]
    slowest: PathBuf,
    /// Record the slowest frames instead of holding them against the record.
    #[arg(long)]
    record_slowest: bool,
    /// Only frames in whose name this stands, and the floor: a few seconds for each.
    #[arg(long, value_name = "WORDS", conflicts_with = "only")]
    case: Vec<String>,
    /// Hold those frames against the ones of another build of the kernel program, turn about.
    #[arg(long, value_name = "OBJECT", requires = "case")]
    against: Option<PathBuf>,
    /// Count instructions instead of nanoseconds, in a virtual machine where they are the same.
    #[arg(long, requires = "case")]
    instructions: bool,
    /// Give the frames of one case until interrupted, for a profiler to watch.
    #[arg(long, value_name = "CASE")]
    spin: Option<String>,
}

/// Measures a part.
type Measure<'a> = &'a dyn Fn(&mut Report) -> Result<()>;

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Single frames in the kernel program.
    Frames,
    /// Frames beside those that they may cost hardly more than.
    Pairs,
    /// Real connections through a gateway.
    Paths,
    /// The same at the pace of a plant.
    Time,
    /// Frames a second through a gateway.
    Rates,
    /// The controller.
    Control,
    /// The slowest frame.
    Worst,
    /// Settings of the gateway; only when it is named.
    Tuning,
}

impl Arguments {
    /// Whether a part is to be measured; the settings of the gateway only when they are named.
    fn wants(&self, part: Part) -> bool {
        if self.only.is_empty() {
            part != Part::Tuning
        } else {
            self.only.contains(&part)
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench loads kernel programs and makes network namespaces: run it as root");
    }
    // Whatever else the machine does comes after the bench. Without `renice` it is as it is.
    let _ = Command::new("renice")
        .args(["-n", "-20", "-p", &std::process::id().to_string()])
        .output();
    let began = Instant::now();
    let (object, floors) = (
        arguments.objects.join("conduitfw-ebpf"),
        arguments.objects.join("floors"),
    );
    if let Some(name) = &arguments.spin {
        return spin((&object, &floors), name);
    }
    let mut report = Report {
        machine: Machine::look(),
        rounds: arguments.rounds,
        ..Report::default()
    };
    if !arguments.case.is_empty() {
        return quick(arguments, (&object, &floors), report);
    }
    let registers = policy::knows_registers();
    let frames = (object.as_path(), floors.as_path());
    let parts: [(Part, Measure<'_>); 7] = [
        (Part::Frames, &|report| {
            frames::measure(report, frames, Wanted::All)
        }),
        (Part::Pairs, &|report| pairs::measure(report, frames)),
        (Part::Paths, &|report| {
            paths::measure(report, &floors, registers)
        }),
        (Part::Time, &|report| {
            time::measure(report, &floors, registers)
        }),
        (Part::Tuning, &|report| {
            tuning::measure(report, &floors, registers)
        }),
        (Part::Rates, &|report| {
            rates::measure(report, &floors, registers)
        }),
        (Part::Control, &|report| {
            control::measure(report, &arguments.objects, registers)
        }),
    ];
    for (part, measure) in parts {
        if arguments.wants(part) {
            let began = Instant::now();
            measure(&mut report)?;
            eprintln!("    done in {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    let mut slowest = Ok(());
    if arguments.wants(Part::Worst) {
        let is_recording = arguments.record_slowest;
        let (objects, record) = (&arguments.objects, &arguments.slowest);
        slowest = worst::measure(&mut report, objects, record, is_recording);
    }
    if !registers {
        let line = "registers and values: rules cannot name them in this build";
        report.not_measured.push(line.to_owned());
    }
    if !site::knows_fast() {
        let line = "fast forwarding: this build does not know it";
        report.not_measured.push(line.to_owned());
    }
    report.targets = targets::judge(&report);
    if !arguments.only.is_empty() {
        // Of a whole run each that was not measured is missed.
        report.targets.retain(|target| target.found.is_some());
    }
    report.machine.load[1] = machine::load();
    report.seconds = began.elapsed().as_secs_f64();
    tell(arguments, &report)?;
    slowest.context("the slowest frame")
}

fn tell(arguments: &Arguments, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    if let Some(file) = &arguments.save {
        fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.json {
        println!("{json}");
    } else {
        println!("{}", report.tables());
    }
    if let Some(file) = arguments
        .page
        .as_ref()
        .filter(|_| arguments.only.is_empty())
    {
        let counts = arguments.slowest.with_file_name("instructions.txt");
        fs::write(file, page::write(report, &counts))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &arguments.compare {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let before: Report = serde_json::from_str(&text)
            .with_context(|| format!("{} holds no figures of the bench", file.display()))?;
        println!(
            "## Against {}\n\n{}",
            file.display(),
            report.compare(&before)
        );
    }
    Ok(())
}

fn spin((object, floors): (&Path, &Path), name: &str) -> Result<()> {
    let mut cases = frames::cases(object, floors, Wanted::Exactly(&[name]))?;
    let case = cases.iter_mut().find(|case| case.title() == name);
    let case = case.with_context(|| format!("there is no case `{name}`"))?;
    eprintln!("giving frames; Ctrl-C ends it");
    loop {
        case.spin()?;
    }
}

/// A few frames, again and again.
fn quick(arguments: &Arguments, objects: (&Path, &Path), mut report: Report) -> Result<()> {
    let wanted = Wanted::Words(&arguments.case);
    // What one round costs in time is little: more of them find a quiet moment.
    report.rounds = arguments.rounds.max(25);
    if arguments.instructions {
        // They are the same every time.
        report.rounds = 2;
        frames::measure(&mut report, objects, wanted)?;
        println!("{}", frames::instructions(&report));
        return Ok(());
    }
    let text = if let Some(before) = &arguments.against {
        frames::against(&mut report, objects, before, wanted)?
    } else {
        frames::measure(&mut report, objects, wanted)?;
        frames::quick(&report)
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{text}");
    }
    Ok(())
}

//! The proof, part by part: each runs for as long as it is given, counts what it did, and says in
//! words what must not have happened.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::agreement;
use crate::oracle::gate::{Both, Gate, Simulated};
use crate::oracle::receiver::MODELS;
use crate::oracle::site::{SITES, Site};
use crate::oracle::{Figures, attack};

/// Frames that one run of [`agreement()`] holds against each other at least.
pub const AGREEMENT_FRAMES: u64 = 1_000_000;
/// Schedules between two looks at the clock.
const BATCH: u64 = 50;

/// How a part went.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What was counted, in the order in which it is told.
    pub figures: Vec<(&'static str, u64)>,
    /// What must not have happened.
    pub counterexamples: Vec<String>,
    /// What was left out, and why.
    pub left_out: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Part {
    /// Runs a part.
    pub fn run(name: &'static str, work: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        let began = Instant::now();
        let mut part = Self {
            name,
            figures: Vec::new(),
            counterexamples: Vec::new(),
            left_out: None,
            seconds: 0.0,
        };
        if let Err(error) = work(&mut part) {
            part.counterexamples.push(format!("{error:#}"));
        }
        part.seconds = began.elapsed().as_secs_f64();
        part
    }

    /// Adds a figure.
    pub fn count(&mut self, what: &'static str, number: u64) {
        self.figures.push((what, number));
    }
}

/// The oracle against the decision in ordinary memory.
#[must_use]
pub fn oracle(seed: u64, time: Duration) -> Part {
    Part::run("oracle, decision", |part| {
        attacks(part, seed, time, |site| {
            Ok(Box::new(Simulated::new(site)?) as Box<dyn Gate>)
        })
    })
}

/// The oracle against the program in the kernel.
#[must_use]
pub fn oracle_in_kernel(seed: u64, time: Duration) -> Part {
    Part::run("oracle, kernel", |part| {
        attacks(part, seed, time, |site| {
            Ok(Box::new(Both::new(site)?) as Box<dyn Gate>)
        })
    })
}

fn attacks(
    part: &mut Part,
    seed: u64,
    time: Duration,
    gate: impl Fn(&Site) -> Result<Box<dyn Gate>>,
) -> Result<()> {
    let began = Instant::now();
    let mut gates = Vec::new();
    for site in SITES {
        gates.push((site, gate(site)?));
    }
    let (mut all, mut seed) = (Figures::default(), seed);
    'time: loop {
        for (site, gate) in &mut gates {
            let (figures, found) = attack(site, gate.as_mut(), seed, |so_far| {
                so_far.schedules >= BATCH || began.elapsed() >= time
            })?;
            all.schedules += figures.schedules;
            all.plays += figures.plays;
            all.frames += figures.frames;
            all.passed += figures.passed;
            all.requests += figures.requests;
            if let Some(found) = found {
                part.counterexamples.push(found.to_string());
                break 'time;
            }
        }
        seed += BATCH;
        if began.elapsed() >= time {
            break;
        }
    }
    let size = |number: usize| u64::try_from(number).unwrap_or(0);
    part.count("policies", size(SITES.len()));
    part.count("receivers", size(MODELS.len()));
    part.count("schedules", all.schedules);
    part.count("plays", all.plays);
    part.count("frames", all.frames);
    part.count("frames let through", all.passed);
    part.count("requests read", all.requests);
    Ok(())
}

/// Kernel and simulator on generated frames, at least [`AGREEMENT_FRAMES`] of them.
#[must_use]
pub fn agreement(seed: u64, time: Duration) -> Part {
    Part::run("agreement", |part| {
        let began = Instant::now();
        let figures = agreement::changed_frames(seed, |so_far| {
            so_far >= AGREEMENT_FRAMES && began.elapsed() >= time
        })?;
        part.count("frames", figures.frames);
        let reasons = u64::try_from(figures.reasons.len())?;
        part.count("reasons", reasons);
        Ok(())
    })
}

/// Kernel and simulator on the captures of a directory.
#[must_use]
pub fn captures(directory: Option<&Path>) -> Part {
    Part::run("agreement, captures", |part| {
        let Some(directory) = directory else {
            part.left_out = Some("no directory of captures was named".to_owned());
            return Ok(());
        };
        let all = agreement::captures(directory)?;
        part.count("captures", u64::try_from(all.len())?);
        let frames = all.iter().map(|(_, figures)| figures.frames).sum();
        part.count("frames", frames);
        Ok(())
    })
}

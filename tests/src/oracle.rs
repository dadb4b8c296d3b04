//! The evasion oracle: schedules of segments as an attacker would send them, played through the
//! data plane to receivers of every habit. No application may read an operation that the policy
//! denies (`no-smuggling`).
//!
//! What is denied is decided by [`site::Site::denies`], which shares no code with the data plane.
//! That the oracle can find something is shown with gates that have a hole ([`gate::Weak`]).

pub mod gate;
pub mod generator;
pub mod live;
pub mod play;
pub mod reader;
pub mod receiver;
mod requests;
pub mod schedule;
pub mod shrink;
pub mod site;
pub mod wire;

use std::fmt;

use anyhow::{Context as _, Result};

use gate::Gate;
use play::{Tally, Violation, play};
use reader::Reader;
use receiver::{MODELS, Model};
use schedule::Schedule;
use site::Site;

/// A schedule that got a denied operation through.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The policy.
    pub site: &'static str,
    /// Where the generator started.
    pub seed: u64,
    /// The receiver.
    pub model: Model,
    /// The application that answered.
    pub application: Reader,
    /// What happened.
    pub violation: Violation,
    /// The smallest schedule that still does it.
    pub schedule: Schedule,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}: seed {}, receiver \"{}\", answers as {:?}: {}\n{}",
            self.site, self.seed, self.model.name, self.application, self.violation, self.schedule
        )
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Schedules.
    pub schedules: u64,
    /// Schedules times receivers.
    pub plays: u64,
    /// Frames given to the gate.
    pub frames: u64,
    /// Those that went on.
    pub passed: u64,
    /// Requests that applications read.
    pub requests: u64,
}

impl Figures {
    /// Adds a play.
    pub fn add(&mut self, tally: Tally) {
        self.plays += 1;
        self.frames += tally.frames;
        self.passed += tally.passed;
        self.requests += tally.requests;
    }
}

/// Plays schedules of consecutive seeds to every receiver until `enough`; the first counterexample
/// ends it.
///
/// # Errors
/// When kernel and simulator differ; the error holds the seed.
pub fn attack(
    site: &Site,
    gate: &mut dyn Gate,
    first_seed: u64,
    enough: impl Fn(&Figures) -> bool,
) -> Result<(Figures, Option<Counterexample>)> {
    let mut figures = Figures::default();
    let mut port = 1024_u16;
    for seed in first_seed.. {
        if enough(&figures) {
            break;
        }
        let schedule = generator::schedule(site, seed);
        figures.schedules += 1;
        for (index, model) in MODELS.into_iter().enumerate() {
            let turn = index + usize::try_from(seed % 3).unwrap_or(0);
            let application = site.readers[turn % site.readers.len()];
            port = port.checked_add(1).unwrap_or(1024);
            let receiver = (model, application);
            let outcome = play(site, gate, &schedule, receiver, port)
                .with_context(|| format!("{}, seed {seed}\n{schedule}", site.name))?;
            figures.add(outcome.0);
            if let Some(violation) = outcome.1 {
                let (schedule, violation) =
                    shrink::shrink(site, gate, (schedule, violation), receiver, port)?;
                let found = Counterexample {
                    site: site.name,
                    seed,
                    model,
                    application,
                    violation,
                    schedule,
                };
                return Ok((figures, Some(found)));
            }
        }
    }
    Ok((figures, None))
}

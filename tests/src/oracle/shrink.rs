//! Makes a counterexample small: fewer steps, fewer bytes, nothing that is not needed.

use anyhow::Result;

use super::gate::Gate;
use super::play::{Violation, play};
use super::reader::Reader;
use super::receiver::Model;
use super::schedule::{Acknowledges, Fate, Schedule, Spoil, Step};
use super::site::Site;

/// Plays at most.
const BUDGET: u32 = 3000;

struct Shrinking<'a> {
    site: &'a Site,
    gate: &'a mut dyn Gate,
    receiver: (Model, Reader),
    port: u16,
    left: u32,
    best: (Schedule, Violation),
}

/// The smallest schedule found that still gets something through.
///
/// # Errors
/// When kernel and simulator differ.
pub fn shrink(
    site: &Site,
    gate: &mut dyn Gate,
    found: (Schedule, Violation),
    receiver: (Model, Reader),
    port: u16,
) -> Result<(Schedule, Violation)> {
    let mut shrinking = Shrinking {
        site,
        gate,
        receiver,
        port,
        left: BUDGET,
        best: found,
    };
    loop {
        let before = shrinking.best.0.clone();
        shrinking.fewer_steps()?;
        shrinking.plainer_steps()?;
        if shrinking.best.0 == before || shrinking.left == 0 {
            return Ok(shrinking.best);
        }
    }
}

impl Shrinking<'_> {
    /// Whether this still does it; then it is the best one.
    fn does(&mut self, candidate: Schedule) -> Result<bool> {
        if self.left == 0 || candidate == self.best.0 {
            return Ok(false);
        }
        self.left -= 1;
        // A port of its own for each, so that no play sees the flow of another.
        self.port = self.port.checked_add(1).unwrap_or(1024);
        let outcome = play(self.site, self.gate, &candidate, self.receiver, self.port)?;
        let Some(violation) = outcome.1 else {
            return Ok(false);
        };
        self.best = (candidate, violation);
        Ok(true)
    }

    fn fewer_steps(&mut self) -> Result<()> {
        let mut size = self.best.0.steps.len().div_ceil(2).max(1);
        while size > 0 {
            let mut at = 0;
            while at < self.best.0.steps.len() {
                let mut candidate = self.best.0.clone();
                let end = (at + size).min(candidate.steps.len());
                candidate.steps.drain(at..end);
                if !self.does(candidate)? {
                    at += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    fn plainer_steps(&mut self) -> Result<()> {
        for index in 0..self.best.0.steps.len() {
            for change in CHANGES {
                let mut candidate = self.best.0.clone();
                if let Some(step) = candidate.steps.get_mut(index) {
                    change(step);
                }
                self.does(candidate)?;
            }
        }
        Ok(())
    }
}

const CHANGES: [fn(&mut Step); 5] = [
    |step| {
        if let Step::Send(sent) = step {
            sent.fate = Fate::Arrives;
        }
    },
    |step| {
        if let Step::Send(sent) = step {
            sent.spoil = Spoil::Nothing;
        }
    },
    |step| {
        if let Step::Send(sent) = step {
            sent.acknowledges = Acknowledges::All;
        }
    },
    |step| {
        if let Step::Send(sent) = step {
            (sent.flags, sent.urgent, sent.bare) = (0, 0, false);
        }
    },
    |step| {
        if let Step::Acknowledge { back, window } = step {
            (*back, *window) = (0, 64_240);
        }
    },
];

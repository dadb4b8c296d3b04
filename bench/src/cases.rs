//! A case: the frames of a script, and what they cost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};

use crate::pacer::Pacer;
use crate::rig::{PASSED, Rig, account};
use crate::script::BLOCKS;

/// A script, the program that judges its frames, and what must become of them.
pub(crate) struct Case {
    /// What a template's frames are called in the report; nothing for those that only go along.
    pub(crate) names: Vec<Option<String>>,
    /// The script, aimed at the program under measurement.
    pub(crate) paced: Pacer,
    /// The same script, aimed at nothing.
    pub(crate) empty: Pacer,
    /// Where the program's maps are; nothing for a yardstick.
    pub(crate) rig: Option<Arc<Mutex<Rig>>>,
    /// The reason for the denial of each template's frames, or that they pass; one for all, or one
    /// for each.
    pub(crate) outcomes: &'static [&'static str],
    /// Whether events are taken out of the rings between the samples, and each denial is to have one.
    pub(crate) drained: bool,
    /// Frames of each template in one block, a power of two.
    pub(crate) frames: u32,
}

/// A program that several cases have frames judged by.
pub(crate) fn held(rig: &Mutex<Rig>) -> MutexGuard<'_, Rig> {
    rig.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds of a template's frames in one round.
pub(crate) struct Figure {
    /// Lower quartile of the blocks, without what the script costs: other work on the machine makes blocks
    /// dearer, and none cheaper.
    pub(crate) usual: f64,
    /// The lowest block, the script included.
    pub(crate) lowest_with: f64,
    /// The lowest of the script alone.
    pub(crate) lowest_without: f64,
}

impl Case {
    /// Measures once: by template.
    pub(crate) fn measure(&mut self) -> Result<Vec<Figure>> {
        self.drain()?;
        let before = self.counts()?;
        let with = self.paced.clock(self.frames)?;
        let frames = self.frames * BLOCKS * self.names.len() as u32;
        let told = self.drain()?;
        self.check(&before, u64::from(frames), told)?;
        let without = self.empty.clock(self.frames)?;
        let lowest = |blocks: &[f64]| blocks.iter().copied().fold(f64::INFINITY, f64::min);
        let figure = |(with, without): (&mut Vec<f64>, &mut Vec<f64>)| Figure {
            usual: lower_quartile(with) - lower_quartile(without),
            lowest_with: lowest(with),
            lowest_without: lowest(without),
        };
        Ok(with
            .into_iter()
            .zip(without)
            .map(|(mut with, mut without)| figure((&mut with, &mut without)))
            .collect())
    }

    /// Gives frames without taking the time.
    pub(crate) fn spin(&mut self) -> Result<()> {
        self.drain()?;
        self.paced.run(8192)?;
        Ok(())
    }

    /// How many events there were.
    fn drain(&mut self) -> Result<u64> {
        match &self.rig {
            _ if !self.drained => Ok(0),
            Some(rig) => Ok(held(rig).drain()),
            None => self.paced.drain(),
        }
    }

    /// Nanoseconds of the empty program, the loop of a test run included.
    pub(crate) fn empty_loop(&mut self) -> Result<f64> {
        self.empty.repeat("nothing", 200_000)
    }

    fn counts(&self) -> Result<Vec<u64>> {
        match &self.rig {
            Some(rig) => held(rig).counts(),
            None => Ok(Vec::new()),
        }
    }

    /// A figure for frames that met another fate would be worth nothing.
    fn check(&self, before: &[u64], frames: u64, told: u64) -> Result<()> {
        if self.rig.is_none() {
            return Ok(());
        }
        let account = account(before, &self.counts()?);
        let denied = self.outcomes.iter().filter(|outcome| **outcome != PASSED);
        let due = frames * denied.count() as u64 / self.outcomes.len() as u64;
        ensure!(
            !self.drained || told >= due,
            "{}: {told} events of {due} frames that were denied",
            self.title()
        );
        for outcome in self.outcomes {
            let alike = self.outcomes.iter().filter(|other| *other == outcome);
            let share = frames * alike.count() as u64 / self.outcomes.len() as u64;
            let right = account.get(outcome).copied().unwrap_or(0);
            ensure!(
                right >= share,
                "{}: {right} frames of {share} were `{outcome}`: {account:?}",
                self.title()
            );
        }
        Ok(())
    }

    /// The name of its first template.
    pub(crate) fn title(&self) -> &str {
        let name = self.names.iter().flatten().next();
        name.map_or("a script", String::as_str)
    }
}

/// The value that a quarter of them are below.
pub(crate) fn lower_quartile(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or(0.0)
}

/// The middle value; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count == 0 {
        return 0.0;
    }
    f64::midpoint(values[(count - 1) / 2], values[count / 2])
}

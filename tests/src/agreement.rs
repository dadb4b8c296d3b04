//! Frames through kernel and simulator at length: [`Twin`] compares each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use conduitfw_common::Reason;

use crate::captures::{captures_in, frames_of};
use crate::chance::Chance;
use crate::conversations::{CAPTURE_POLICY, POLICY, good_frames};
use crate::frames::Frame;
use crate::twin::{SHORTEST, Sizes, Twin};

/// So many that nothing is evicted before [`Twin::forget`].
pub const SIZES: Sizes = Sizes {
    buckets: 16_384,
    streams: 8192,
};

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Frames that both judged alike.
    pub frames: u64,
    /// Frames that the kernel takes no program for, because of their length.
    pub left_out: u64,
    /// Why frames were denied, and how many.
    pub reasons: BTreeMap<Option<Reason>, u64>,
}

/// Good frames, each also changed at random, until `enough` says so of the changed ones.
///
/// # Errors
/// When kernel and simulator differ; the error holds the seed.
pub fn changed_frames(seed: u64, enough: impl Fn(u64) -> bool) -> Result<Figures> {
    let mut figures = Figures::default();
    run(seed, enough, &mut figures).with_context(|| format!("seed {seed}"))?;
    Ok(figures)
}

fn run(seed: u64, enough: impl Fn(u64) -> bool, figures: &mut Figures) -> Result<()> {
    let mut chance = Chance::new(seed);
    let mut both = Twin::new(POLICY, SIZES)?;
    let mut changed_ones = 0;
    for round in 0.. {
        // Before the tables get crowded.
        if round % 400 == 399 {
            both.compare_rest()?;
            both.forget()?;
        }
        let frames: Vec<Vec<u8>> = good_frames(round).iter().map(Frame::build).collect();
        for (index, frame) in frames.iter().enumerate() {
            let now = 1_000_000 + both.sent() / 4096;
            let mut changed = frame.clone();
            if let Some(other) = chance.one_of(&frames).cloned() {
                chance.change(&mut changed, &other, SHORTEST);
            }
            // Most conversations go on, with something odd in between.
            if !chance.once_in(30) {
                both.send(frame, now)?;
            }
            if let Some(judged) = both.send(&changed, now)? {
                *figures
                    .reasons
                    .entry(judged.judgement.reason())
                    .or_default() += 1;
                changed_ones += 1;
            }
            if chance.once_in(10)
                && let Some(again) = frames.get(chance.below(index + 1))
            {
                both.send(again, now)?;
            }
        }
        figures.frames = both.sent();
        if enough(changed_ones) {
            break;
        }
    }
    both.compare_rest()
}

/// Every capture of a directory, each through tables of its own.
///
/// # Errors
/// When a file cannot be read, or kernel and simulator differ; the error names the file.
pub fn captures(directory: &Path) -> Result<Vec<(PathBuf, Figures)>> {
    let mut all = Vec::new();
    let mut both = Twin::new(CAPTURE_POLICY, SIZES)?;
    for file in captures_in(directory)? {
        both.forget()?;
        let figures = capture(&mut both, &file);
        let figures = figures.with_context(|| file.display().to_string())?;
        all.push((file, figures));
    }
    Ok(all)
}

fn capture(both: &mut Twin, file: &Path) -> Result<Figures> {
    let mut figures = Figures::default();
    for frame in frames_of(file)? {
        match both.send(&frame, 1_000_000)? {
            Some(judged) => {
                figures.frames += 1;
                *figures
                    .reasons
                    .entry(judged.judgement.reason())
                    .or_default() += 1;
            }
            None => figures.left_out += 1,
        }
    }
    both.compare_rest()?;
    Ok(figures)
}

//! What stands between the attacker and the receivers.

use anyhow::{Result, bail};
use conduitfw::policy::Ids;
use conduitfw::simulator::{Judged, Outcome, Simulator};
use conduitfw_common::table::Settings;

use super::site::Site;
use super::wire::Segment;
use crate::frames::{ACK, URG};
use crate::twin::{LOOPBACK, Sizes, Twin, compiled, indexes, settings};

/// Few, so that they are made and emptied quickly.
const SIZES: Sizes = Sizes {
    buckets: 256,
    streams: 256,
};
/// Schedules between two times of forgetting: fewer than any table has room for.
const ROOM: u32 = 200;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// This goes on towards where the frame was going.
    On(Vec<u8>),
    /// Nothing goes on.
    Stopped,
}

/// A firewall, or something that pretends to be one.
pub trait Gate {
    /// Begins a schedule; the tables have room for its flows.
    ///
    /// # Errors
    /// When the kernel refuses something.
    fn begin(&mut self) -> Result<()>;

    /// Judges a frame at a time.
    ///
    /// # Errors
    /// When kernel and simulator differ.
    fn pass(&mut self, frame: &[u8], now_ticks: u64) -> Result<Passage>;
}

fn passage(frame: &[u8], judged: Judged) -> Passage {
    match judged.outcome {
        Outcome::Pass => Passage::On(frame.to_vec()),
        Outcome::Reset(bytes) | Outcome::Exception(bytes) | Outcome::Edited(bytes) => {
            Passage::On(bytes)
        }
        Outcome::Drop | Outcome::ResetBack(_) => Passage::Stopped,
    }
}

/// The simulator alone: for volume.
pub struct Simulated {
    policy: String,
    adopts: bool,
    simulator: Simulator,
    begun: u32,
}

impl Simulated {
    /// With the policy of a site.
    ///
    /// # Errors
    /// When the policy is refused.
    pub fn new(site: &Site) -> Result<Self> {
        let policy = site.policy();
        Ok(Self {
            simulator: fresh(&policy, site.adopts)?,
            adopts: site.adopts,
            policy,
            begun: 0,
        })
    }
}

fn fresh(policy: &str, adopts: bool) -> Result<Simulator> {
    let tables = compiled(policy, &mut Ids::default(), 1)?;
    let mut simulator = Simulator::new(Settings {
        adopt_until_ticks: if adopts { u64::MAX } else { 0 },
        ..settings(SIZES)
    });
    simulator.apply(&tables, &indexes());
    Ok(simulator)
}

impl Gate for Simulated {
    fn begin(&mut self) -> Result<()> {
        self.begun += 1;
        if self.begun.is_multiple_of(ROOM) {
            self.simulator = fresh(&self.policy, self.adopts)?;
        }
        Ok(())
    }

    fn pass(&mut self, frame: &[u8], now_ticks: u64) -> Result<Passage> {
        Ok(passage(
            frame,
            self.simulator.judge(frame, LOOPBACK, now_ticks),
        ))
    }
}

/// The program in the kernel, held against the simulator frame by frame.
pub struct Both {
    twin: Twin,
    begun: u32,
}

impl Both {
    /// With the policy of a site.
    ///
    /// # Errors
    /// When the program cannot be loaded, or the policy is refused.
    pub fn new(site: &Site) -> Result<Self> {
        let mut twin = Twin::new(&site.policy(), SIZES)?;
        if site.adopts {
            twin.adopt_until(u64::MAX)?;
        }
        Ok(Self { twin, begun: 0 })
    }
}

impl Gate for Both {
    fn begin(&mut self) -> Result<()> {
        self.begun += 1;
        if self.begun.is_multiple_of(ROOM) {
            self.twin.compare_rest()?;
            self.twin.forget()?;
        }
        Ok(())
    }

    fn pass(&mut self, frame: &[u8], now_ticks: u64) -> Result<Passage> {
        match self.twin.send(frame, now_ticks)? {
            Some(judged) => Ok(passage(frame, judged)),
            None => bail!("a frame of {} bytes", frame.len()),
        }
    }
}

/// How a gate can be weaker than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// It lets everything pass that belongs to a connection.
    NoInspection,
    /// What begins below the highest number so far passes unseen.
    AnyRepetition,
    /// What is ahead passes unseen.
    AnyOrder,
    /// It takes what it saw for delivered: every repetition is new to it.
    NoReassembly,
    /// Segments with the urgent flag pass unseen.
    Urgent,
    /// Nothing is cut off the end of a segment.
    Splits,
}

impl Weakness {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::NoInspection,
        Self::AnyRepetition,
        Self::AnyOrder,
        Self::NoReassembly,
        Self::Urgent,
        Self::Splits,
    ];
}

/// The simulator with a hole in it: to see that the oracle finds it.
pub struct Weak {
    sound: Simulated,
    weakness: Weakness,
    highest: Option<u32>,
}

impl Weak {
    /// With the policy of a site.
    ///
    /// # Errors
    /// When the policy is refused.
    pub fn new(site: &Site, weakness: Weakness) -> Result<Self> {
        Ok(Self {
            sound: Simulated::new(site)?,
            weakness,
            highest: None,
        })
    }

    fn overlooks(&self, segment: &Segment) -> bool {
        if segment.payload.is_empty() {
            return false;
        }
        let Some(highest) = self.highest else {
            return false;
        };
        let ahead = segment.sequence.wrapping_sub(highest);
        let is_ahead = ahead != 0 && ahead < 1 << 31;
        match self.weakness {
            Weakness::NoInspection => true,
            Weakness::AnyRepetition => ahead >= 1 << 31,
            Weakness::AnyOrder => is_ahead,
            // Whatever does not hold a whole denied request by itself.
            Weakness::NoReassembly => segment.payload.len() < 8,
            Weakness::Urgent => segment.flags & URG != 0,
            Weakness::Splits => false,
        }
    }
}

impl Gate for Weak {
    fn begin(&mut self) -> Result<()> {
        self.highest = None;
        self.sound.begin()
    }

    fn pass(&mut self, frame: &[u8], now_ticks: u64) -> Result<Passage> {
        let segment = Segment::read(frame).filter(|_| frame.get(12..14) == Some(&[8, 0]));
        let Some(segment) = segment else {
            return self.sound.pass(frame, now_ticks);
        };
        if self.overlooks(&segment) {
            return Ok(Passage::On(frame.to_vec()));
        }
        let mut passage = self.sound.pass(frame, now_ticks)?;
        if self.weakness == Weakness::Splits && passage != Passage::Stopped {
            passage = Passage::On(frame.to_vec());
        }
        let length = u32::try_from(segment.payload.len())?;
        let end = segment.sequence.wrapping_add(length);
        let is_first = self.highest.is_none() && segment.flags & ACK != 0;
        let is_higher = self
            .highest
            .is_some_and(|highest| end.wrapping_sub(highest) < 1 << 31);
        if passage != Passage::Stopped && (is_first || is_higher) {
            self.highest = Some(end);
        }
        Ok(passage)
    }
}

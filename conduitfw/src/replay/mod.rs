//! A capture judged frame by frame, as the data plane would have judged it: in ordinary memory, or
//! by the kernel's program, which both answer the same.
//!
//! [`Capture`] reads the frames, [`Interfaces`] says where each came in, [`Replay`] has them judged
//! at the capture's own times and adds up the [`Summary`].

mod capture;
mod expectations;
mod interfaces;
mod judge;
mod line;
mod ng;
mod source;
mod summary;
mod world;

use conduitfw_common::{Reason, event::EventOperation, judgement::Judgement, table::Settings};
use thiserror::Error;

pub use capture::{Capture, CaptureError, CaptureTime, CapturedFrame};
pub use expectations::Cases;
pub use interfaces::{Interfaces, Port};
pub use judge::Means;
pub use line::Line;
pub use summary::{ConduitSummary, Summary};

use crate::{
    dataplane::{DataPlaneError, TableSizes},
    policy::{Ids, NameKind, Policy, Refusal, Surroundings, compile},
};
use judge::Judge;

/// The clock that frames are judged by: a tick is a millisecond.
const TICKS_PER_SECOND: u32 = 1000;
const NANOSECONDS_OF_A_TICK: i128 = 1_000_000;
/// The tick of a capture's first frame: some time after the gateway came up.
const FIRST_TICK: u64 = 1_000_000;
/// Times that a damaged file gives end here, 557 years after the first frame.
const MOST_TICKS: i128 = 1 << 44;
/// The flow hash of a replay is always the same, so that its answers are.
const HASH_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Why a replay cannot begin or go on.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The policy does not fit the tables.
    #[error("the policy does not fit the tables")]
    Refused(Box<Refusal>),
    /// The kernel's program cannot be used.
    #[error("{0}")]
    DataPlane(#[from] DataPlaneError),
    /// There is nothing for frames to come in on.
    #[error(
        "`--kernel` needs network interfaces of its own, and {action}: {source}; run it as root, \
         or without `--kernel`"
    )]
    World {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A policy, and the flows and counts of the frames that it has judged so far.
pub struct Replay<'a> {
    policy: &'a Policy,
    conduits: Vec<Option<String>>,
    interfaces: Interfaces,
    judge: Judge,
    clock: Clock,
    operations: Vec<(EventOperation, Option<Reason>)>,
    summary: Summary,
}

impl<'a> Replay<'a> {
    /// Puts a policy in force where nothing but a capture will come by. With [`Means::Kernel`] the
    /// calling thread moves into a network namespace of its own, for good.
    ///
    /// # Errors
    ///
    /// The policy does not fit, or the kernel's program cannot be used.
    pub fn new(policy: &'a Policy, means: Means) -> Result<Self, ReplayError> {
        let surroundings = Surroundings {
            ticks_per_second: TICKS_PER_SECOND,
            gateway_addresses: Vec::new(),
            generation: 1,
        };
        let mut ids = Ids::default();
        let mut tables = compile(policy, &mut ids, &surroundings)
            .map_err(|refusal| ReplayError::Refused(Box::new(refusal)))?;
        let interfaces = Interfaces::new(policy, &mut tables);
        let sizes = TableSizes {
            flows: policy.limits.flows,
            opening_flows: policy.limits.opening_flows,
            inspected_flows: policy.limits.inspected_flows,
        };
        let settings = settings(sizes.rounded(), policy);
        let judge = Judge::new(means, sizes, settings, &tables, interfaces.names())?;
        let mut conduits = Vec::new();
        for (kind, number, name) in ids.iter() {
            if kind == NameKind::Conduit {
                let number = usize::from(number);
                conduits.resize(conduits.len().max(number + 1), None);
                if let Some(place) = conduits.get_mut(number) {
                    *place = Some(name.to_owned());
                }
            }
        }
        Ok(Self {
            policy,
            conduits,
            interfaces,
            judge,
            clock: Clock::default(),
            operations: Vec::new(),
            summary: Summary::default(),
        })
    }

    /// Judges the next frame.
    ///
    /// # Errors
    ///
    /// The kernel does not run its program.
    pub fn judge(&mut self, frame: &CapturedFrame<'_>) -> Result<Line<'_>, ReplayError> {
        let now = self.clock.ticks(frame.time);
        let port = self
            .interfaces
            .of(self.policy, frame.bytes, frame.interface);
        let is_own = port == Interfaces::UNKNOWN && Interfaces::is_own(self.policy, frame.bytes);
        self.summary.own += u64::from(is_own);
        self.operations.clear();
        let judged = self
            .judge
            .judge(frame.bytes, port, now, &mut self.operations)?;
        self.summary.add(frame, judged, &self.operations);
        let conduit = judged.map_or(0, Judgement::conduit);
        Ok(Line {
            number: self.summary.frames,
            time: frame.time,
            verdict: judged.map(Judgement::verdict),
            reason: judged.and_then(Judgement::reason),
            conduit: self
                .conduits
                .get(usize::from(conduit))
                .and_then(Option::as_deref),
            operations: &self.operations,
        })
    }

    /// What all frames come to.
    ///
    /// # Errors
    ///
    /// The kernel's tables cannot be read.
    pub fn finish(mut self) -> Result<Summary, ReplayError> {
        self.summary.opened = self.judge.flows_opened()?;
        self.summary.name(&self.conduits);
        Ok(self.summary)
    }
}

fn settings(sizes: TableSizes, policy: &Policy) -> Settings {
    let mut keys = 1..;
    let hash_keys = [(); 12].map(|()| HASH_SEED.wrapping_mul(keys.next().unwrap_or(1)));
    let adopt = u64::try_from(policy.adopt.as_millis()).unwrap_or(u64::MAX / 2);
    let adopt_until_ticks = if adopt == 0 { 0 } else { FIRST_TICK + adopt };
    // No room for events: nobody takes them here.
    sizes.settings(None, hash_keys, adopt_until_ticks)
}

/// The time of the frames, which never goes backwards.
#[derive(Default)]
struct Clock {
    first: Option<CaptureTime>,
    latest: u64,
}

impl Clock {
    fn ticks(&mut self, time: CaptureTime) -> u64 {
        let CaptureTime(first) = *self.first.get_or_insert(time);
        let ticks = (time.0 - first) / NANOSECONDS_OF_A_TICK;
        let ticks = FIRST_TICK + u64::try_from(ticks.clamp(0, MOST_TICKS)).unwrap_or(0);
        self.latest = self.latest.max(ticks);
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_first_frame_and_never_back() {
        let mut clock = Clock::default();
        let at = |milliseconds: i128| CaptureTime(milliseconds * NANOSECONDS_OF_A_TICK);
        assert_eq!(clock.ticks(at(5_000)), FIRST_TICK);
        assert_eq!(clock.ticks(at(5_010)), FIRST_TICK + 10);
        assert_eq!(clock.ticks(at(4_000)), FIRST_TICK + 10);
        assert_eq!(clock.ticks(at(5_011)), FIRST_TICK + 11);
        assert_eq!(clock.ticks(CaptureTime(i128::MIN / 4)), FIRST_TICK + 11);
        assert_eq!(
            clock.ticks(CaptureTime(i128::MAX / 4)),
            FIRST_TICK + (1 << 44)
        );
    }
}

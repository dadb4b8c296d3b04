//! What all frames of a capture come to.

use std::{collections::BTreeMap, fmt};

use conduitfw_common::{Reason, Verdict, event::EventOperation, judgement::Judgement};

use super::{CaptureTime, CapturedFrame};

/// Counts of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames.
    pub frames: u64,
    /// Those that pass.
    pub allowed: u64,
    /// Those that do not.
    pub denied: u64,
    /// Those that pass and would not but for mode observe.
    pub would_deny: u64,
    /// Those that the capture does not have in full; they were judged as they are.
    pub cut_short: u64,
    /// Those that the gateway itself sent, which a gateway does not judge.
    pub own: u64,
    /// Those that the kernel does not take, for they are too long; they were not judged.
    pub too_long: u64,
    /// Flows that were opened.
    pub opened: u64,
    /// Flows that began before the capture and were picked up.
    pub adopted: u64,
    /// Operations that were allowed.
    pub operations_allowed: u64,
    /// Operations that were not, or would not be.
    pub operations_denied: u64,
    /// Time of the first frame.
    pub first: Option<CaptureTime>,
    /// Time of the last frame.
    pub last: Option<CaptureTime>,
    /// By conduit id; 0 is for those that belong to none.
    pub conduits: BTreeMap<u16, ConduitSummary>,
}

/// Counts of a conduit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConduitSummary {
    /// Its name.
    pub name: Option<String>,
    /// Frames that pass.
    pub allowed: u64,
    /// Frames that do not.
    pub denied: u64,
    /// Those that do not pass, or would not, by reason.
    pub reasons: BTreeMap<Reason, u64>,
}

impl Summary {
    pub(super) fn add(
        &mut self,
        frame: &CapturedFrame<'_>,
        judged: Option<Judgement>,
        operations: &[(EventOperation, Option<Reason>)],
    ) {
        self.frames += 1;
        self.cut_short += u64::from(frame.is_cut_short);
        self.first.get_or_insert(frame.time);
        self.last = Some(frame.time);
        let Some(judgement) = judged else {
            self.too_long += 1;
            return;
        };
        for (_, reason) in operations {
            match reason {
                None => self.operations_allowed += 1,
                Some(_) => self.operations_denied += 1,
            }
        }
        let conduit = self.conduits.entry(judgement.conduit()).or_default();
        if judgement.verdict() == Verdict::Pass {
            self.allowed += 1;
            conduit.allowed += 1;
        } else {
            self.denied += 1;
            conduit.denied += 1;
        }
        let reason = judgement.reason();
        let is_adopted = reason == Some(Reason::FlowAdopted);
        self.adopted += u64::from(is_adopted);
        self.would_deny += u64::from(judgement.is_observed() && !is_adopted);
        if let Some(reason) = reason {
            *conduit.reasons.entry(reason).or_default() += 1;
        }
    }

    pub(super) fn name(&mut self, names: &[Option<String>]) {
        for (id, conduit) in &mut self.conduits {
            conduit.name = names.get(usize::from(*id)).cloned().flatten();
        }
    }

    /// Flows: opened and picked up.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.opened + self.adopted
    }

    /// How often a reason was given.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> u64 {
        let counts = self.conduits.values();
        counts
            .filter_map(|conduit| conduit.reasons.get(&reason))
            .sum()
    }

    /// Seconds from the first frame to the last.
    fn seconds(&self) -> CaptureTime {
        let time = |time: Option<CaptureTime>| time.unwrap_or_default().0;
        CaptureTime(time(self.last) - time(self.first))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            frames,
            allowed,
            denied,
            ..
        } = self;
        let length = self.seconds().to_string();
        // Milliseconds will do here.
        let length = length
            .get(..length.len().saturating_sub(6))
            .unwrap_or_default();
        writeln!(f, "time          {length} seconds")?;
        write!(
            f,
            "frames        {frames} seen = {allowed} allowed + {denied} denied"
        )?;
        if self.too_long > 0 {
            write!(f, " + {} too long for the kernel", self.too_long)?;
        }
        writeln!(f)?;
        if self.would_deny > 0 {
            let count = self.would_deny;
            writeln!(
                f,
                "              {count} of the allowed would be denied in mode enforce"
            )?;
        }
        if self.cut_short > 0 {
            let count = self.cut_short;
            writeln!(
                f,
                "              {count} cut short by the capture, and judged by the bytes there"
            )?;
        }
        if self.own > 0 {
            let count = self.own;
            writeln!(
                f,
                "              {count} from the gateway's own addresses: a gateway does not judge \
                 what it sends"
            )?;
        }
        write!(f, "flows         {} opened", self.opened)?;
        if self.adopted > 0 {
            write!(f, ", {} that began before were picked up", self.adopted)?;
        }
        writeln!(f)?;
        let (allowed, denied) = (self.operations_allowed, self.operations_denied);
        writeln!(
            f,
            "operations    {} judged = {allowed} allowed + {denied} denied",
            allowed + denied
        )?;
        // Those without a conduit come last, as in `status`.
        let mut conduits: Vec<_> = self.conduits.values().collect();
        conduits.sort_by_key(|conduit| (conduit.name.is_none(), &conduit.name));
        for conduit in conduits {
            write_conduit(f, conduit)?;
        }
        Ok(())
    }
}

fn write_conduit(f: &mut fmt::Formatter<'_>, conduit: &ConduitSummary) -> fmt::Result {
    let name = conduit.name.as_deref().unwrap_or("(no conduit)");
    writeln!(
        f,
        "conduit       {name}: {} allowed, {} denied",
        conduit.allowed, conduit.denied
    )?;
    for (reason, count) in &conduit.reasons {
        writeln!(f, "              {count} {}", reason.label())?;
    }
    Ok(())
}

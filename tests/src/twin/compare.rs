//! What must be the same.

use anyhow::{Result, bail};
use conduitfw::simulator::{Judged, Outcome};
use conduitfw_common::REASON_SLOTS;
use conduitfw_common::event::EventRecord;
use conduitfw_common::platform::{FlowTable, Platform as _};
use zerocopy::IntoBytes as _;

use super::kernel::Verdict;
use super::{Twin, hex};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The action and the bytes that go on.
pub(super) fn outcome(frame: &[u8], kernel: &Verdict, judged: &Judged) -> Option<String> {
    let (action, bytes) = match &judged.outcome {
        Outcome::Pass => (XDP_PASS, frame),
        Outcome::Drop => (XDP_DROP, frame),
        Outcome::ResetBack(bytes) => (XDP_REDIRECT, &**bytes),
        Outcome::Reset(bytes) | Outcome::Exception(bytes) | Outcome::Edited(bytes) => {
            (XDP_PASS, &**bytes)
        }
    };
    if kernel.action != action {
        return Some(format!(
            "the kernel's action is {}, not {action}",
            kernel.action
        ));
    }
    // What becomes of a dropped frame's bytes is nobody's business.
    (action != XDP_DROP && kernel.bytes != bytes)
        .then(|| format!("the kernel's bytes are {}", hex(&kernel.bytes)))
}

/// The judgement, and every operation on the way to it.
pub(super) fn trace(kernel: &Verdict, judged: &Judged) -> Option<String> {
    if kernel.judgement != judged.judgement {
        return Some("the kernel judges otherwise".to_owned());
    }
    (kernel.operations != judged.operations).then(|| "the kernel sees other operations".to_owned())
}

/// The event, field by field.
pub(super) fn event(frame: &[u8], event: Option<&EventRecord>, judged: &Judged) -> Option<String> {
    let (judgement, packet) = (judged.judgement, &judged.packet);
    let Some(event) = event else {
        return judgement
            .is_event()
            .then(|| "the kernel sent no event".to_owned());
    };
    if !judgement.is_event() {
        return Some("the kernel sent an event".to_owned());
    }
    let captured = (frame.len() & !7).min(64);
    let operation = (event.operation.fields != 0).then_some(event.operation);
    let wanted = (judged.operation.fields != 0).then_some(judged.operation);
    let same = event.reason == judgement.reason_number()
        && event.verdict == judgement.verdict().number()
        && event.conduit == judgement.conduit()
        && event.direction == judgement.direction_number()
        && event.would_deny == u8::from(judgement.is_observed())
        && (event.source, event.destination) == (packet.source, packet.destination)
        && (event.vlans, event.ether_type, event.transport)
            == (packet.vlans, packet.ether_type, packet.transport)
        && operation == wanted
        && usize::try_from(event.captured) == Ok(captured)
        && event.frame.as_bytes().get(..captured) == frame.get(..captured);
    (!same).then(|| "the kernel's event says something else".to_owned())
}

impl Twin {
    /// Each frame adds to exactly one counter: the one that the simulator expects.
    pub(super) fn compare_counter(
        &mut self,
        frame: &[u8],
        judged: &Judged,
    ) -> Result<Option<String>> {
        let judgement = judged.judgement;
        let reason = if judgement.is_observed() || judgement.is_notice() {
            0
        } else {
            judgement.reason_number()
        };
        let index = u32::from(judgement.conduit()) * REASON_SLOTS + u32::from(reason);
        let length = u64::try_from(frame.len())?;
        let counted = self.counted.entry(index).or_default();
        let wanted = (counted.0 + 1, counted.1 + length);
        let found = self.kernel.count(index)?;
        if found != wanted {
            return Ok(Some(format!(
                "counter {index} is {found:?}, not {wanted:?}"
            )));
        }
        *counted = wanted;
        Ok(None)
    }

    /// How often each rule allowed an operation, and the tags of every flow.
    ///
    /// # Errors
    /// When they differ.
    pub fn compare_rest(&self) -> Result<()> {
        for rule in 0..64 {
            let before = self.rules_before.get(&rule).copied().unwrap_or(0);
            let (found, wanted) = (
                self.kernel.rule_count(rule)?,
                before + self.simulator.rule_count(rule),
            );
            if found != wanted {
                bail!("rule {rule} allowed {found} operations, not {wanted}");
            }
        }
        for (name, table) in [
            ("FLOW_BUCKETS", FlowTable::Flows),
            ("OPENING_BUCKETS", FlowTable::Openings),
        ] {
            let tags = self.kernel.tags(name)?;
            for bucket in 0..self.sizes.buckets {
                if Some(&tags.get(&bucket, 0)?) != self.simulator.bucket(table, bucket) {
                    bail!("{name} {bucket} differs");
                }
            }
        }
        Ok(())
    }
}

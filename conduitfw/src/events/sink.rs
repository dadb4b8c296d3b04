//! Where events go: a bounded memory of the last ones, and everybody who follows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use conduitfw_common::{Reason, event::EventRecord};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use tokio::sync::broadcast;
use zerocopy::FromBytes as _;

use super::{
    Event, LostEvents, Names, PolicyInForce, WallClock, in_words, lost_in_words, policy_in_words,
};

/// Events remembered for `conduitfw events`.
const REMEMBERED: usize = 1000;
/// Events that a follower may be behind before it misses some.
const FOLLOWER_BACKLOG: usize = 1024;

/// An event as it leaves the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// One JSON object, without a line end.
    pub json: String,
    /// The same in words.
    pub words: String,
}

/// Takes records, hands out lines.
pub struct EventSink {
    recent: VecDeque<Arc<Published>>,
    followers: broadcast::Sender<Arc<Published>>,
    next_sequence: BTreeMap<u32, u64>,
    zone: TimeZone,
    delivered: u64,
    lost: u64,
    adopted: u64,
}

impl Default for EventSink {
    fn default() -> Self {
        Self::new(TimeZone::system())
    }
}

impl EventSink {
    /// A sink whose words tell the time of a time zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self {
            recent: VecDeque::with_capacity(REMEMBERED),
            followers: broadcast::Sender::new(FOLLOWER_BACKLOG),
            next_sequence: BTreeMap::new(),
            zone,
            delivered: 0,
            lost: 0,
            adopted: 0,
        }
    }

    /// Takes the bytes of one record.
    pub fn take(&mut self, bytes: &[u8], clock: WallClock, names: &dyn Names) {
        let Ok((record, _)) = EventRecord::read_from_prefix(bytes) else {
            tracing::warn!(
                length = bytes.len(),
                "a record in the ring buffer is cut short"
            );
            return;
        };
        self.note_gap(record.cpu, record.sequence);
        self.delivered += 1;
        if record.reason == Reason::FlowAdopted.number() {
            self.adopted += 1;
        }
        let event = Event::from_record(&record, clock.time_of(record.time_ns), names);
        let words = in_words(&event, &self.zone);
        self.publish(&event, words);
    }

    /// Tells everybody that a policy came into force.
    pub fn policy_in_force(&mut self, policy: &PolicyInForce) {
        let words = policy_in_words(policy, &self.zone);
        self.publish(policy, words);
    }

    /// Events that arrived here, and events that are known not to have.
    #[must_use]
    pub fn delivered_and_lost(&self) -> (u64, u64) {
        (self.delivered, self.lost)
    }

    /// Connections that were picked up, as far as their events arrived here.
    #[must_use]
    pub fn flows_adopted(&self) -> u64 {
        self.adopted
    }

    /// The last events, oldest first, and those to come.
    #[must_use]
    pub fn follow(&self) -> (Vec<Arc<Published>>, broadcast::Receiver<Arc<Published>>) {
        (
            self.recent.iter().cloned().collect(),
            self.followers.subscribe(),
        )
    }

    /// Each processor counts its events by itself; a number that is skipped was lost.
    fn note_gap(&mut self, cpu: u32, sequence: u64) {
        let expected = self.next_sequence.insert(cpu, sequence.wrapping_add(1));
        let count = expected.map_or(0, |expected| sequence.saturating_sub(expected));
        if count > 0 {
            self.lost += count;
            let lost = LostEvents {
                time: Timestamp::now(),
                event: "lost",
                cpu,
                count,
            };
            let words = lost_in_words(&lost, &self.zone);
            self.publish(&lost, words);
        }
    }

    fn publish(&mut self, event: &impl Serialize, words: String) {
        let json = match serde_json::to_string(event) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!("an event cannot be written as JSON: {error}");
                return;
            }
        };
        let published = Arc::new(Published { json, words });
        if self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&published));
        // Nobody listening is no error.
        let _ = self.followers.send(published);
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::{
        super::record::tests::{Plant, denied_write},
        *,
    };

    fn take(sink: &mut EventSink, cpu: u32, sequence: u64) {
        let record = EventRecord {
            cpu,
            sequence,
            ..denied_write()
        };
        sink.take(record.as_bytes(), WallClock::read(), &Plant);
    }

    #[test]
    fn a_skipped_number_is_reported_as_lost() {
        let mut sink = EventSink::new(TimeZone::UTC);
        take(&mut sink, 0, 5);
        take(&mut sink, 1, 0);
        take(&mut sink, 0, 6);
        assert_eq!(sink.delivered_and_lost(), (3, 0));
        take(&mut sink, 0, 10);
        assert_eq!(sink.delivered_and_lost(), (4, 3));
        let (recent, _) = sink.follow();
        assert!(
            recent[3]
                .json
                .contains("\"event\":\"lost\",\"cpu\":0,\"count\":3")
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut sink = EventSink::new(TimeZone::UTC);
        for sequence in 0..3000 {
            take(&mut sink, 0, sequence);
        }
        let (recent, _) = sink.follow();
        assert_eq!(recent.len(), REMEMBERED);
        assert!(recent[999].json.contains("\"sequence\":2999"));
    }

    #[test]
    fn a_short_record_is_survived() {
        let mut sink = EventSink::new(TimeZone::UTC);
        sink.take(&[0; 10], WallClock::read(), &Plant);
        assert_eq!(sink.delivered_and_lost(), (0, 0));
    }
}

//! Where events go: a bounded memory of the last ones, and everybody who follows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use conduitfw_common::{Reason, event::EventRecord};
use jiff::tz::TimeZone;
use tokio::sync::broadcast;

use super::{Names, PolicyInForce, Taken, WallClock};

/// Events remembered for `conduitfw events`.
const REMEMBERED: usize = 1000;
/// Events that a follower may be behind before it misses some.
const FOLLOWER_BACKLOG: usize = 1024;

/// Where the names of events come from.
pub trait NameSource {
    /// What the policy of a generation calls things.
    fn at(&self, generation: u32) -> Arc<dyn Names>;
    /// Name of an interface, as long as there is one.
    fn interface(&mut self, ifindex: u32) -> Option<Arc<str>>;
}

/// The last events, oldest first, those to come, and the time zone to tell them in.
pub type Following = (Vec<Arc<Taken>>, broadcast::Receiver<Arc<Taken>>, TimeZone);

/// Takes records and keeps the last of them. They are put into words by those who read them: a
/// flood costs no more than its records.
pub struct EventSink {
    recent: VecDeque<Arc<Taken>>,
    followers: broadcast::Sender<Arc<Taken>>,
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

    /// Takes one record.
    pub fn take(&mut self, record: EventRecord, clock: WallClock, names: &mut impl NameSource) {
        self.note_gap(record.cpu, record.sequence, clock);
        self.delivered += 1;
        if record.reason == Reason::FlowAdopted.number() {
            self.adopted += 1;
        }
        self.publish(Taken::Frame {
            interface: names.interface(record.ifindex),
            names: names.at(record.generation),
            record,
            clock,
        });
    }

    /// Tells everybody that a policy came into force.
    pub fn policy_in_force(&mut self, policy: PolicyInForce) {
        self.publish(Taken::Policy(policy));
    }

    /// Puts remembered events of a policy into words, so that nothing else of it need be kept.
    pub fn forget_names(&mut self, generation: u32) {
        for taken in &mut self.recent {
            if taken.generation() == Some(generation) {
                *taken = Arc::new(Taken::Told(taken.tell(&self.zone)));
            }
        }
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

    /// The last events, and those to come.
    #[must_use]
    pub fn follow(&self) -> Following {
        (
            self.recent.iter().cloned().collect(),
            self.followers.subscribe(),
            self.zone.clone(),
        )
    }

    /// Each processor counts its events by itself; a number that is skipped was lost.
    fn note_gap(&mut self, cpu: u32, sequence: u64, clock: WallClock) {
        let expected = self.next_sequence.insert(cpu, sequence.wrapping_add(1));
        let count = expected.map_or(0, |expected| sequence.saturating_sub(expected));
        if count > 0 {
            self.lost += count;
            self.publish(Taken::Lost { cpu, count, clock });
        }
    }

    fn publish(&mut self, taken: Taken) {
        let taken = Arc::new(taken);
        if self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&taken));
        // Nobody listening is no error.
        let _ = self.followers.send(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::tests::{Plant, denied_write},
        *,
    };

    impl NameSource for Plant {
        fn at(&self, _: u32) -> Arc<dyn Names> {
            Arc::new(Plant)
        }

        fn interface(&mut self, _: u32) -> Option<Arc<str>> {
            Some("eth0".into())
        }
    }

    fn take(sink: &mut EventSink, cpu: u32, sequence: u64) {
        let record = EventRecord {
            cpu,
            sequence,
            ..denied_write()
        };
        sink.take(record, WallClock::read(), &mut Plant);
    }

    fn recent(sink: &EventSink) -> Vec<String> {
        let (recent, _, zone) = sink.follow();
        recent.iter().map(|taken| taken.tell(&zone).json).collect()
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
        assert!(recent(&sink)[3].contains("\"event\":\"lost\",\"cpu\":0,\"count\":3"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut sink = EventSink::new(TimeZone::UTC);
        for sequence in 0..3000 {
            take(&mut sink, 0, sequence);
        }
        assert_eq!(recent(&sink).len(), REMEMBERED);
        assert!(recent(&sink)[999].contains("\"sequence\":2999"));
    }

    #[test]
    fn an_event_is_told_alike_before_and_after_its_policy_is_forgotten() {
        let mut sink = EventSink::new(TimeZone::UTC);
        take(&mut sink, 0, 7);
        take(&mut sink, 0, 9);
        let before = recent(&sink);
        assert!(
            before[0].contains("\"source_asset\":\"hmi-1\""),
            "{}",
            before[0]
        );
        sink.forget_names(denied_write().generation);
        assert_eq!(recent(&sink), before);
        let (kept, ..) = sink.follow();
        let told = kept.iter().filter(|t| matches!(***t, Taken::Told(_)));
        assert_eq!(told.count(), 2);
    }
}

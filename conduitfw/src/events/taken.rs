//! An event that was taken, and not yet told: it is put into words when somebody wants to read it.

use std::sync::Arc;

use conduitfw_common::event::EventRecord;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{
    Event, LostEvents, Names, PolicyInForce, WallClock, in_words, lost_in_words, policy_in_words,
};

/// An event as it leaves the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// One JSON object, without a line end.
    pub json: String,
    /// The same in words.
    pub words: String,
}

impl Published {
    fn new(event: &impl Serialize, words: String) -> Self {
        let json = serde_json::to_string(event).unwrap_or_else(|error| {
            tracing::error!("an event cannot be written as JSON: {error}");
            "{}".to_owned()
        });
        Self { json, words }
    }
}

/// An event, with all that it takes to tell it.
pub enum Taken {
    /// Of a frame.
    Frame {
        /// As the kernel wrote it.
        record: EventRecord,
        /// What time it was.
        clock: WallClock,
        /// Name of its interface, as long as there was one.
        interface: Option<Arc<str>>,
        /// Names of the policy that decided.
        names: Arc<dyn Names>,
    },
    /// Of events that did not arrive.
    Lost {
        /// The processor.
        cpu: u32,
        /// How many.
        count: u64,
        /// When that was noticed.
        clock: WallClock,
    },
    /// Of a policy.
    Policy(PolicyInForce),
    /// Put into words already.
    Told(Published),
}

impl Taken {
    /// Puts it into words, with the time of a time zone.
    #[must_use]
    pub fn tell(&self, zone: &TimeZone) -> Published {
        match self {
            Self::Frame {
                record,
                clock,
                interface,
                names,
            } => {
                let time = clock.time_of(record.time_ns);
                let event = Event::from_record(record, time, interface.as_deref(), names.as_ref());
                Published::new(&event, in_words(&event, zone))
            }
            Self::Lost { cpu, count, clock } => {
                let lost = LostEvents {
                    time: clock.time_of(clock.read_at()),
                    event: "lost",
                    cpu: *cpu,
                    count: *count,
                };
                Published::new(&lost, lost_in_words(&lost, zone))
            }
            Self::Policy(policy) => Published::new(policy, policy_in_words(policy, zone)),
            Self::Told(published) => published.clone(),
        }
    }

    /// The policy whose names it is told with.
    pub(super) fn generation(&self) -> Option<u32> {
        match self {
            Self::Frame { record, .. } => Some(record.generation),
            _ => None,
        }
    }
}

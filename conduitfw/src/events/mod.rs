//! Denied frames, from the kernel's rings to people and machines.

mod clock;
mod record;
mod sink;
mod taken;
mod words;

pub use clock::WallClock;
pub use record::{Event, EventKind, LostEvents, ModbusFields, Names, PolicyInForce};
pub use sink::{EventSink, Following, NameSource};
pub use taken::{Published, Taken};
pub use words::{in_words, lost_in_words, policy_in_words};

//! What is counted and told of, by processor.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of `COUNTERS[conduit id * REASON_SLOTS + reason number]`, one per processor. Reason 0
/// holds what passed; each frame adds to exactly one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub frames: u64,
    /// Bytes of those frames, from the Ethernet header on.
    pub bytes: u64,
}

/// Value of `REPORTING[processor]`. The processor alone writes the first 64 bytes, and the reader the rest:
/// neither takes a line of the other's cache away but where it has to look.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Reporting {
    /// Sequence number of the next event of this processor.
    pub next_sequence: u64,
    /// Events that found no room in the processor's ring, or were more than it tells of.
    pub lost: u64,
    /// Frames that would have been denied, had their conduit not been in mode observe.
    pub would_deny: u64,
    /// Events that may still be written before the next tick.
    pub room: u32,
    /// Lower half of the tick counter when `room` was last added to.
    pub room_ticks: u32,
    /// Lower half of the tick counter when the reader was last woken.
    pub woken_ticks: u32,
    /// Records that were written to the ring, counted round: those from [`Self::taken`] on are the
    /// reader's.
    pub written: u32,
    /// [`Self::taken`] when the ring last seemed full: what the reader's line says is asked for only then.
    pub known_taken: u32,
    /// Zero.
    pub reserved: [u32; 5],
    /// Records that the reader has taken.
    pub taken: u32,
    /// Zero.
    pub reserved_for_reader: [u32; 15],
}

/// Events that a processor may write at once; as many as its ring holds, unless there are very many
/// processors.
pub const EVENT_BURST: u32 = 8192;
/// Events that a processor may write in a second, once that many are written: a flood of denials is
/// counted to the last frame, and does not have the gateway spend its time on telling of it.
pub const EVENTS_A_SECOND: u32 = 320_000;

impl Reporting {
    /// Takes the room for one event out of what there is for `events_a_tick`; `false` when it is used up.
    #[inline(always)]
    pub const fn take_room(&mut self, now_ticks: u32, events_a_tick: u32) -> bool {
        // Nothing has been put in force yet.
        let events_a_tick = if events_a_tick == 0 {
            EVENT_BURST
        } else {
            events_a_tick
        };
        let passed = now_ticks.wrapping_sub(self.room_ticks);
        if passed != 0 {
            self.room_ticks = now_ticks;
            let more = passed.saturating_mul(events_a_tick);
            let room = self.room.saturating_add(more);
            let most = if events_a_tick > EVENT_BURST {
                events_a_tick
            } else {
                EVENT_BURST
            };
            self.room = if room > most { most } else { room };
        }
        if self.room == 0 {
            return false;
        }
        self.room = self.room.wrapping_sub(1);
        true
    }

    /// Whether a ring of so many records has none that is free, as far as is known.
    #[inline(always)]
    #[must_use]
    pub const fn is_full(&self, records: u32) -> bool {
        self.written.wrapping_sub(self.known_taken) >= records
    }

    /// Whether the reader is to be woken for an event that was written to a ring of so many records: for the
    /// first in each tick, and whenever another half of the ring is written. It looks again by itself after
    /// it was woken, for what comes later in the tick.
    #[inline(always)]
    pub const fn is_to_wake(&mut self, now_ticks: u32, records: u32) -> bool {
        let is_first = self.woken_ticks != now_ticks;
        self.woken_ticks = now_ticks;
        is_first || self.written & (records / 2).wrapping_sub(1) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_events_is_held_to_so_many_in_a_tick() {
        let mut reporting = Reporting::default();
        let mut written =
            |now: u32, tries: u32| (0..tries).filter(|_| reporting.take_room(now, 100)).count();
        assert_eq!(
            written(1_000_000, 20_000),
            8192,
            "as many as a ring takes at once"
        );
        assert_eq!(written(1_000_000, 10), 0);
        assert_eq!(written(1_000_001, 200), 100);
        assert_eq!(written(1_000_003, 500), 200);
        assert_eq!(written(2_000_000, 20_000), 8192, "and no more after a rest");
        assert_eq!(written(5, 20_000), 8192, "the counter goes round");
    }

    #[test]
    fn the_reader_is_woken_once_in_a_tick_and_for_half_a_ring() {
        let mut reporting = Reporting::default();
        let mut woken = |now| {
            reporting.written += 1;
            reporting.is_to_wake(now, 8)
        };
        let in_three_ticks = [7, 7, 7, 8, 9, 9].map(&mut woken);
        assert_eq!(in_three_ticks, [true, false, false, true, true, false]);
        let in_a_flood = [9; 8].map(woken);
        let half_a_ring = [false, true, false, false, false, true, false, false];
        assert_eq!(in_a_flood, half_a_ring);
    }
}

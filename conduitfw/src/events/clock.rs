//! The kernel stamps events with its monotonic clock; people read the wall's.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// How far the wall clock is ahead of the monotonic one, as measured now.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    offset_ns: i64,
    read_ns: u64,
}

impl WallClock {
    /// Reads both clocks. To be read anew from time to time: the wall clock may be set.
    #[must_use]
    pub fn read() -> Self {
        let nanoseconds = |clock| {
            clock_gettime(clock).map_or(0, |time| {
                time.tv_sec()
                    .saturating_mul(1_000_000_000)
                    .saturating_add(time.tv_nsec())
            })
        };
        let monotonic = nanoseconds(ClockId::CLOCK_MONOTONIC);
        Self {
            offset_ns: nanoseconds(ClockId::CLOCK_REALTIME).saturating_sub(monotonic),
            read_ns: u64::try_from(monotonic).unwrap_or(0),
        }
    }

    /// When the clocks were read, by the monotonic one.
    #[must_use]
    pub fn read_at(self) -> u64 {
        self.read_ns
    }

    /// The wall-clock time of a monotonic time.
    #[must_use]
    pub fn time_of(self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.offset_ns) + i128::from(monotonic_ns))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

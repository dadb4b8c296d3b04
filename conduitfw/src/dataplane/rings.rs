//! Events on their way from the kernel: a ring for each processor, in memory that both sides see.
//!
//! A processor writes its own ring and nobody else does; this reads it. What was written is handed over by
//! a count (`Reporting::written`), and given back by another (`Reporting::taken`). There is no lock, and no
//! system call for a record: the kernel's own ring buffer, which has one lock for all processors, takes
//! three times as long for a record; here one only wakes this side.

use std::{
    fs, io,
    mem::offset_of,
    os::fd::{AsRawFd, RawFd},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use conduitfw_common::{
    event::EventRecord,
    table::{EVENT_BURST, Reporting},
};
use memmap2::{MmapOptions, MmapRaw};

use super::{
    DataPlaneError,
    maps::{OpenMapError, Table, open, refused, take},
};

/// Processors from which on each has half the room: there every table for each processor counts.
const MANY_PROCESSORS: u32 = 16;

/// How much room there is for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRoom {
    processors: u32,
    records: u32,
}

impl EventRoom {
    /// On this machine.
    ///
    /// # Errors
    ///
    /// It does not say which processors it may have.
    pub fn of_machine() -> io::Result<Self> {
        const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
        let possible = fs::read_to_string(POSSIBLE)?;
        last_of(&possible)
            .and_then(|last| last.checked_add(1))
            .map(Self::of)
            .ok_or_else(|| io::Error::other(format!("{POSSIBLE} says `{}`", possible.trim())))
    }

    /// On a machine whose processors have numbers below this.
    const fn of(processors: u32) -> Self {
        Self {
            processors,
            records: if processors > MANY_PROCESSORS {
                EVENT_BURST / 2
            } else {
                EVENT_BURST
            },
        }
    }

    /// Records of each processor: `Settings::events`.
    #[must_use]
    pub const fn records(self) -> u32 {
        self.records
    }

    /// Rows of each table.
    #[must_use]
    pub const fn rows(self) -> [(&'static str, u32); 2] {
        [
            ("REPORTING", self.processors),
            ("EVENTS", self.processors.saturating_mul(self.records)),
        ]
    }
}

/// The reader's side of the rings. There is one reader at most: the controller, or who loaded the program
/// for himself.
pub struct EventRings {
    events: MmapRaw,
    reporting: MmapRaw,
    bell: RingBuf<MapData>,
    rings: Vec<Ring>,
    records: u32,
}

/// One processor's ring, as far as it was looked at.
#[derive(Clone, Copy, Default)]
struct Ring {
    taken: u32,
    written: u32,
    /// When the next record was written.
    time_ns: u64,
}

impl Ring {
    const fn is_waiting(&self) -> bool {
        self.taken != self.written
    }
}

impl EventRings {
    /// Opens the rings that are pinned in a directory.
    ///
    /// # Errors
    ///
    /// A map is missing, may not be opened, is of another kind, or cannot be mapped.
    pub fn open(directory: &Path) -> Result<Self, OpenMapError> {
        let events = open(directory, "EVENTS")?;
        let reporting = open(directory, "REPORTING")?;
        let bell = open(directory, "BELL")?;
        Self::over(&events, &reporting, bell).map_err(|source| refused(directory, "EVENTS", source))
    }

    /// Takes the rings of a program that was loaded and pinned nothing.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`].
    pub fn take(ebpf: &mut Ebpf, reporting: &Table<Reporting>) -> Result<Self, DataPlaneError> {
        let events = take(ebpf, "EVENTS")?;
        let bell = take(ebpf, "BELL")?;
        Ok(Self::over(&events, reporting, bell)?)
    }

    fn over(
        events: &Table<EventRecord>,
        reporting: &Table<Reporting>,
        bell: RingBuf<MapData>,
    ) -> Result<Self, MapError> {
        let records = events.len() / reporting.len().max(1);
        if !records.is_power_of_two() || records * reporting.len() != events.len() {
            return Err(MapError::IoError(io::Error::other(format!(
                "{} records for {} processors: the same power of two was expected for each",
                events.len(),
                reporting.len()
            ))));
        }
        let mut rings = Self {
            events: mapped(events)?,
            reporting: mapped(reporting)?,
            bell,
            rings: vec![Ring::default(); reporting.len() as usize],
            records,
        };
        for processor in 0..rings.rings.len() {
            let taken = rings
                .word(processor, offset_of!(Reporting, taken))
                .load(Ordering::Relaxed);
            rings.rings[processor] = Ring {
                taken,
                written: taken,
                time_ns: 0,
            };
        }
        Ok(rings)
    }

    /// Takes a record. Those of one processor come in their order; of several processors that have some,
    /// the oldest comes first, as far as the kernel's coarse clock tells them apart.
    #[expect(
        clippy::should_implement_trait,
        reason = "there may be more after none"
    )]
    pub fn next(&mut self) -> Option<EventRecord> {
        if !self.rings.iter().any(Ring::is_waiting) {
            self.look();
        }
        let processor = self.oldest()?;
        let mut ring = self.rings[processor];
        let record = self.record(processor, ring.taken);
        ring.taken = ring.taken.wrapping_add(1);
        self.give_back(processor, ring.taken);
        if ring.is_waiting() {
            ring.time_ns = self.record(processor, ring.taken).time_ns;
        }
        self.rings[processor] = ring;
        Some(record)
    }

    fn oldest(&self) -> Option<usize> {
        let rings = self.rings.iter().enumerate();
        let waiting = rings.filter(|(_, ring)| ring.is_waiting());
        let (processor, _) = waiting.min_by_key(|(_, ring)| ring.time_ns)?;
        Some(processor)
    }

    /// Sees what was written since. The bell first: what it is rung for after this is seen the next time.
    fn look(&mut self) {
        while self.bell.next().is_some() {}
        for processor in 0..self.rings.len() {
            let mut ring = self.rings[processor];
            ring.written = self
                .word(processor, offset_of!(Reporting, written))
                .load(Ordering::Acquire);
            if ring.written.wrapping_sub(ring.taken) > self.records {
                tracing::warn!(
                    processor,
                    ring.written,
                    ring.taken,
                    "the counts of a ring of events make no sense: what it holds is left out"
                );
                self.give_back(processor, ring.written);
                ring.taken = ring.written;
            }
            if ring.is_waiting() {
                ring.time_ns = self.record(processor, ring.taken).time_ns;
            }
            self.rings[processor] = ring;
        }
    }

    /// Says that all records before this one were read.
    fn give_back(&self, processor: usize, taken: u32) {
        self.word(processor, offset_of!(Reporting, taken))
            .store(taken, Ordering::Release);
    }

    /// A count of a processor's row. Rows are multiples of eight bytes, from the beginning of a page on.
    fn word(&self, processor: usize, offset: usize) -> &AtomicU32 {
        let at = processor * size_of::<Reporting>() + offset;
        debug_assert!(at < self.reporting.len());
        let word = self.reporting.as_mut_ptr().wrapping_add(at).cast();
        // SAFETY: `processor` is an index of `rings`, which has one for each row of the mapping, and
        // `offset` is that of a u32 in a row; the mapping lives as long as `self`. The kernel writes the
        // word as a whole.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// A record that was handed over.
    #[expect(clippy::cast_ptr_alignment, reason = "as for `word`")]
    fn record(&self, processor: usize, number: u32) -> EventRecord {
        let row = processor * self.records as usize + (number & (self.records - 1)) as usize;
        let at = row * size_of::<EventRecord>();
        debug_assert!(at < self.events.len());
        let record = self.events.as_ptr().wrapping_add(at).cast::<EventRecord>();
        // SAFETY: the mapping has `records` rows for each processor and lives as long as `self`; whatever
        // bytes there are, they are a record. The kernel does not write this one before it is given back.
        unsafe { record.read_volatile() }
    }
}

impl AsRawFd for EventRings {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

/// The values of a map, in memory.
fn mapped<V>(table: &Table<V>) -> io::Result<MmapRaw>
where
    super::maps::Plain<V>: aya::Pod,
{
    // Rows stand one after the other without gaps only then.
    const { assert!(size_of::<V>().is_multiple_of(8)) };
    MmapOptions::new()
        .len(table.len() as usize * size_of::<V>())
        .map_raw(table.descriptor())
}

/// The last of a list of processors: "0-3,8-11".
fn last_of(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_every_processor_that_there_may_be() {
        for (possible, processors) in [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 12), ("0,2\n", 3)] {
            let last = last_of(possible).unwrap();
            let [(_, reporting), (_, events)] = EventRoom::of(last + 1).rows();
            assert_eq!((reporting, events), (processors, processors * EVENT_BURST));
        }
        assert_eq!(EventRoom::of(16).records(), EVENT_BURST);
        assert_eq!(EventRoom::of(17).records(), EVENT_BURST / 2);
        assert_eq!(last_of(""), None);
        assert_eq!(last_of("0-x"), None);
    }
}

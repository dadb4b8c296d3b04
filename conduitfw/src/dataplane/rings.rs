//! Events on their way from the kernel: a ring for each processor, in memory that both sides see.
//!
//! A processor writes its own ring and nobody else does; this reads it. What was written is handed over by
//! a count (`Reporting::written`), and given back by another (`Reporting::taken`). There is no lock, and no
//! system call for a record: the kernel's own ring buffer, which has one lock for all processors, takes
//! three times as long for a record, and only wakes this side here.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsRawFd, RawFd},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
    util::nr_cpus,
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

/// Records for all processors together, at most: 22 MiB.
const MOST_RECORDS: u32 = 16 * EVENT_BURST;

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
    /// It does not say how many processors it may have.
    pub fn of_machine() -> io::Result<Self> {
        let processors = nr_cpus().map_err(|(path, error)| {
            io::Error::new(
                error.kind(),
                format!("how many processors: {path}: {error}"),
            )
        })?;
        Ok(Self::of(u32::try_from(processors).unwrap_or(u32::MAX)))
    }

    /// On a machine that may have so many processors.
    const fn of(processors: u32) -> Self {
        let processors = if processors == 0 { 1 } else { processors };
        let mut records = EVENT_BURST;
        while records > 1 && records.saturating_mul(processors) > MOST_RECORDS {
            records /= 2;
        }
        Self {
            processors,
            records,
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
                // No ring of this program: nothing in it is believed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_a_burst_unless_there_are_very_many_processors() {
        assert_eq!(EventRoom::of(0), EventRoom::of(1));
        for processors in [1, 2, 16] {
            assert_eq!(EventRoom::of(processors).records(), EVENT_BURST);
        }
        assert_eq!(EventRoom::of(17).records(), EVENT_BURST / 2);
        assert_eq!(EventRoom::of(128).records(), EVENT_BURST / 8);
        for processors in 1..=8192 {
            let room = EventRoom::of(processors);
            assert!(room.records().is_power_of_two());
            let [(_, reporting), (_, events)] = room.rows();
            assert_eq!(reporting, processors);
            assert_eq!(events, processors * room.records());
            assert!(events <= MOST_RECORDS);
        }
    }
}

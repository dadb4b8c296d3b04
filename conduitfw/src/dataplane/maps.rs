//! The maps of the data plane, opened from their pins as typed handles.

use std::path::{Path, PathBuf};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie},
};
use conduitfw_common::forward::Port;
use conduitfw_common::table::{
    ACTIVE_SLOT, Active, Conduit, Counter, Generation, Interface, InterfaceKey, Interval, Limits,
    Network, NetworkKey, Operation, Page, Pair, PairKey, Reporting, RuleSet, Service, Settings,
    ValueRange,
};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::DataPlaneError;
pub use super::batch::Table;

/// A record that maps may hold: plain bytes on both sides of the system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: `IntoBytes` says that T has no padding and `FromBytes` that every bit pattern is a T,
// which is what aya asks of a Pod; `repr(transparent)` gives Plain<T> the same layout.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> Pod for Plain<T> {}

/// Name of a conduit or rule as it stands in `NAMES`: padded with zeros.
pub type NameBytes = [u8; 128];

/// Key of `NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct NameKey {
    /// One of [`NAME_CONDUIT`] and [`NAME_RULE`].
    pub kind: u32,
    /// The id.
    pub id: u32,
}

/// [`NameKey::kind`] of a conduit.
pub const NAME_CONDUIT: u32 = 1;
/// [`NameKey::kind`] of a rule.
pub const NAME_RULE: u32 = 2;

/// Every map that is pinned, by name. What a map is for stands in `conduitfw_common::table`.
pub const PINNED: &[&str] = &[
    "ACTIVE",
    "GENERATIONS",
    "SETTINGS",
    "INTERFACES",
    "NETWORKS",
    "PAIRS",
    "SERVICES",
    "CONDUITS",
    "RULE_SETS",
    "OPERATIONS",
    "INTERVALS",
    "PAGES",
    "LIMITS",
    "VALUE_RANGES",
    "LAST_VALUES",
    "RULE_RATES",
    "RESPONSE_TIMES",
    "COUNTERS",
    "RULES",
    "REPORTING",
    "EVENTS",
    "BELL",
    "RATES",
    "FLOW_BUCKETS",
    "FLOWS",
    "OPENING_BUCKETS",
    "OPENINGS",
    "STREAMS",
    "NAMES",
    "PORTS",
    "TAGGED",
    "FORWARDING",
];

/// A pinned map that cannot be opened or used.
#[derive(Debug, Error)]
#[error("the pinned map {} cannot be {action}", path.display())]
pub struct OpenMapError {
    path: PathBuf,
    action: &'static str,
    #[source]
    source: MapError,
}

impl OpenMapError {
    /// Whether the map is there, with rows of another size.
    #[must_use]
    pub fn is_of_another_layout(&self) -> bool {
        matches!(
            self.source,
            MapError::InvalidValueSize { .. } | MapError::InvalidKeySize { .. }
        )
    }
}

/// The maps that user space reads and writes. The kernel's own tables are not among them.
pub struct Maps {
    /// What is in force.
    pub active: Table<Active>,
    /// What holds for a whole policy, by slot.
    pub generations: Table<Generation>,
    /// Fixed when the program was loaded.
    pub settings: Table<Settings>,
    /// Zones by interface.
    pub interfaces: HashMap<MapData, Plain<InterfaceKey>, Plain<Interface>>,
    /// Zones and assets by address.
    pub networks: LpmTrie<MapData, Plain<NetworkKey>, Plain<Network>>,
    /// Runs of services by pair of parties.
    pub pairs: HashMap<MapData, Plain<PairKey>, Plain<Pair>>,
    /// Ports that conduits open.
    pub services: Table<Service>,
    /// Conduits by id.
    pub conduits: Table<Conduit>,
    /// Rows of operations by unit.
    pub rule_sets: Table<RuleSet>,
    /// Operations by row and function code.
    pub operations: Table<Operation>,
    /// Operands that operations allow.
    pub intervals: Table<Interval>,
    /// Which interval holds an operand.
    pub pages: Table<Page>,
    /// Limits of operations.
    pub limits: Table<Limits>,
    /// Values that may be written.
    pub value_ranges: Table<ValueRange>,
    /// Response times by conduit: `RESPONSE_BUCKETS` each.
    pub response_times: PerCpuArray<MapData, u64>,
    /// Frames and bytes by conduit and reason.
    pub counters: PerCpuArray<MapData, Plain<Counter>>,
    /// Operations allowed, by rule id.
    pub rules: PerCpuArray<MapData, u64>,
    /// What became of the events, by processor.
    pub reporting: Table<Reporting>,
    /// Devices that frames come in by or leave by.
    pub ports: Table<Port>,
    /// VLAN devices by interface and tags.
    pub tagged: HashMap<MapData, Plain<InterfaceKey>, u32>,
    /// Frames that left fast, and that were left to the kernel, by cause.
    pub forwarding: PerCpuArray<MapData, u64>,
    /// Names by id, so that counters can be read without a controller.
    pub names: HashMap<MapData, Plain<NameKey>, NameBytes>,
}

/// Key of a row of `NETWORKS`.
pub type NetworkRow = lpm_trie::Key<Plain<NetworkKey>>;

impl Maps {
    /// Opens the maps that are pinned in a directory.
    ///
    /// # Errors
    ///
    /// A map that is missing, may not be opened, or has another layout.
    pub fn open(directory: &Path) -> Result<Self, OpenMapError> {
        Ok(Self {
            active: open(directory, "ACTIVE")?,
            generations: open(directory, "GENERATIONS")?,
            settings: open(directory, "SETTINGS")?,
            interfaces: open(directory, "INTERFACES")?,
            networks: open(directory, "NETWORKS")?,
            pairs: open(directory, "PAIRS")?,
            services: open(directory, "SERVICES")?,
            conduits: open(directory, "CONDUITS")?,
            rule_sets: open(directory, "RULE_SETS")?,
            operations: open(directory, "OPERATIONS")?,
            intervals: open(directory, "INTERVALS")?,
            pages: open(directory, "PAGES")?,
            limits: open(directory, "LIMITS")?,
            value_ranges: open(directory, "VALUE_RANGES")?,
            response_times: open(directory, "RESPONSE_TIMES")?,
            counters: open(directory, "COUNTERS")?,
            rules: open(directory, "RULES")?,
            reporting: open(directory, "REPORTING")?,
            ports: open(directory, "PORTS")?,
            tagged: open(directory, "TAGGED")?,
            forwarding: open(directory, "FORWARDING")?,
            names: open(directory, "NAMES")?,
        })
    }

    /// Takes the maps of a program that was loaded and pinned nothing.
    ///
    /// # Errors
    ///
    /// A map that is missing or has another layout.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, DataPlaneError> {
        Ok(Self {
            active: take(ebpf, "ACTIVE")?,
            generations: take(ebpf, "GENERATIONS")?,
            settings: take(ebpf, "SETTINGS")?,
            interfaces: take(ebpf, "INTERFACES")?,
            networks: take(ebpf, "NETWORKS")?,
            pairs: take(ebpf, "PAIRS")?,
            services: take(ebpf, "SERVICES")?,
            conduits: take(ebpf, "CONDUITS")?,
            rule_sets: take(ebpf, "RULE_SETS")?,
            operations: take(ebpf, "OPERATIONS")?,
            intervals: take(ebpf, "INTERVALS")?,
            pages: take(ebpf, "PAGES")?,
            limits: take(ebpf, "LIMITS")?,
            value_ranges: take(ebpf, "VALUE_RANGES")?,
            response_times: take(ebpf, "RESPONSE_TIMES")?,
            counters: take(ebpf, "COUNTERS")?,
            rules: take(ebpf, "RULES")?,
            reporting: take(ebpf, "REPORTING")?,
            ports: take(ebpf, "PORTS")?,
            tagged: take(ebpf, "TAGGED")?,
            forwarding: take(ebpf, "FORWARDING")?,
            names: take(ebpf, "NAMES")?,
        })
    }

    /// The slot in force, and what holds for it.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read the maps.
    pub fn in_force(&self) -> Result<(u32, Generation), MapError> {
        let slot = self.active.get(&0, 0)?.0.word & ACTIVE_SLOT;
        Ok((slot, self.generations.get(&slot, 0)?.0))
    }
}

/// Readies the row of `ACTIVE` for a generation that is written to a slot, and then puts it in force:
/// the second of these two writes changes one byte.
///
/// # Errors
///
/// The kernel refuses to read or write a map.
pub fn put_in_force(
    active: &mut Table<Active>,
    settings: Settings,
    slot: u32,
    generation: &Generation,
) -> Result<(), MapError> {
    let mut row = active.get(&0, 0)?.0;
    row.settings = settings;
    row.events_a_tick = generation.events_a_tick();
    if let Some(number) = row.numbers.get_mut((slot & ACTIVE_SLOT) as usize) {
        *number = generation.number;
    }
    active.set(0, Plain(row), 0)?;
    row.word = generation.active(slot);
    active.set(0, Plain(row), 0)
}

/// Opens the fixed settings alone, before anything else is believed about the pins.
///
/// # Errors
///
/// The map is missing or may not be opened.
pub fn open_settings(directory: &Path) -> Result<Settings, OpenMapError> {
    let settings: Table<Settings> = open(directory, "SETTINGS")?;
    let row = settings.get(&0, 0).map_err(|source| OpenMapError {
        path: directory.join("SETTINGS"),
        action: "read",
        source,
    })?;
    Ok(row.0)
}

pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DataPlaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or(DataPlaneError::Incomplete(name))?;
    Ok(M::try_from(map)?)
}

/// A map that was opened and cannot be used after all.
pub(super) fn refused(directory: &Path, name: &str, source: MapError) -> OpenMapError {
    OpenMapError {
        path: directory.join(name),
        action: "used",
        source,
    }
}

pub(super) fn open<M: TryFrom<Map, Error = MapError>>(
    directory: &Path,
    name: &str,
) -> Result<M, OpenMapError> {
    let path = directory.join(name);
    match MapData::from_pin(&path).and_then(Map::from_map_data) {
        Ok(map) => M::try_from(map).map_err(|source| refused(directory, name, source)),
        Err(source) => Err(OpenMapError {
            path,
            action: "opened",
            source,
        }),
    }
}

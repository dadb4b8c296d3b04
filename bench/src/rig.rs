//! The kernel program as it was built, with a policy in its maps, and attached to nothing.
//!
//! Frames of a test run come in on the loopback interface, so every zone is there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use conduitfw::dataplane::TableSizes;
use conduitfw::dataplane::maps::{NetworkRow, Plain, Table};
use conduitfw::dataplane::rings::{EventRings, EventRoom};
use conduitfw::policy::{CompiledTables, Ids, Surroundings, compile, load_text};
use conduitfw_common::table::{
    Active, Conduit, Counter, FUNCTIONS, Generation, Interface, InterfaceKey, Interval, Limits,
    MAX_CONDUITS, MAX_INTERVALS, MAX_LIMITS, MAX_OPERATION_ROWS, MAX_PAGES, MAX_RULE_SETS,
    MAX_SERVICES, MAX_VALUE_RANGES, Network, NetworkKey, Operation, Page, Pair, PairKey, RuleSet,
    Service, Settings, ValueRange,
};
use conduitfw_common::{REASON_SLOTS, Reason};

/// The loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;
/// What a policy gets that says nothing.
pub(crate) const USUAL_SIZES: TableSizes = TableSizes {
    flows: 16_384,
    opening_flows: 4096,
    inspected_flows: 2048,
};

/// The loaded program and the policy in its maps.
pub(crate) struct Rig {
    ebpf: Ebpf,
    events: EventRings,
    counters: PerCpuArray<MapData, Plain<Counter>>,
    active: Table<Active>,
    in_force: Active,
    conduits: u32,
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the object has no {name}"))?;
    Ok(M::try_from(map)?)
}

/// Keys as good as drawn ones, and the same in every run (`splitmix64`).
fn hash_keys() -> [u64; 12] {
    let mut state = 0_u64;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

/// Compiles a policy as the controller does.
pub(crate) fn tables(policy: &str, ids: &mut Ids, generation: u32) -> Result<CompiledTables> {
    let loaded = load_text("policy.toml", policy).map_err(|refusal| anyhow!(refusal.render()))?;
    let surroundings = Surroundings {
        // Slower than any kernel: time-outs do not come while frames are measured.
        ticks_per_second: 1000,
        gateway_addresses: vec![IpAddr::from([10, 10, 255, 254])],
        generation,
    };
    compile(&loaded.policy, ids, &surroundings).map_err(|refusal| anyhow!(refusal.render()))
}

impl Rig {
    /// Loads the object and puts a policy in force.
    pub(crate) fn load(object: &Path, policy: &str, sizes: TableSizes) -> Result<Self> {
        Self::of(object, &[policy], sizes)
    }

    /// The same with a second policy, which [`Self::switch`] puts in force.
    pub(crate) fn with_both(object: &Path, policies: [&str; 2], sizes: TableSizes) -> Result<Self> {
        Self::of(object, &policies, sizes)
    }

    fn of(object: &Path, policies: &[&str], sizes: TableSizes) -> Result<Self> {
        let mut ids = Ids::default();
        let policies = (1..)
            .zip(policies)
            .map(|(generation, policy)| tables(policy, &mut ids, generation))
            .collect::<Result<Vec<_>>>()?;
        let mut loader = EbpfLoader::new();
        let room = EventRoom::of_machine()?;
        for (name, rows) in sizes.rows().into_iter().chain(room.rows()) {
            loader.map_max_entries(name, rows);
        }
        let mut ebpf = loader
            .load_file(object)
            .with_context(|| format!("{}: run `cargo xtask ebpf`", object.display()))?;
        let program: &mut Xdp = ebpf
            .program_mut("conduitfw")
            .context("the object has no program")?
            .try_into()?;
        program.load()?;
        let settings = sizes.settings(Some(room), hash_keys(), 0);
        let mut table: Table<Settings> = take(&mut ebpf, "SETTINGS")?;
        table.set(0, Plain(settings), 0)?;
        write(&mut ebpf, &policies)?;
        let mut active: Table<Active> = take(&mut ebpf, "ACTIVE")?;
        let in_force = Active {
            word: 0,
            // Each frame is to get its event.
            events_a_tick: u32::MAX,
            numbers: [1, 2],
            settings,
        };
        active.set(0, Plain(in_force), 0)?;
        let reporting = take(&mut ebpf, "REPORTING")?;
        let conduits = policies.iter().map(|tables| tables.conduits.len()).max();
        let conduits = conduits.unwrap_or_default();
        Ok(Self {
            events: EventRings::take(&mut ebpf, &reporting)?,
            counters: take(&mut ebpf, "COUNTERS")?,
            active,
            in_force,
            conduits: conduits as u32 + 1,
            ebpf,
        })
    }

    /// The program.
    pub(crate) fn program(&self) -> Result<ProgramFd> {
        let program: &Xdp = self
            .ebpf
            .program("conduitfw")
            .context("the object has no program")?
            .try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Puts the policy of a slot in force: the one write of a switch.
    pub(crate) fn switch(&mut self, slot: u32) -> Result<()> {
        self.in_force.word = slot;
        Ok(self.active.set(0, Plain(self.in_force), 0)?)
    }

    /// Takes every event out of the rings; how many there were.
    pub(crate) fn drain(&mut self) -> u64 {
        let mut count = 0;
        while self.events.next().is_some() {
            count += 1;
        }
        count
    }

    /// Frames by reason, over all conduits; the number 0 is for those that passed.
    pub(crate) fn counts(&self) -> Result<Vec<u64>> {
        let mut counts = vec![0; REASON_SLOTS as usize];
        for index in 0..self.conduits * REASON_SLOTS {
            let values = self.counters.get(&index, 0)?;
            let frames: u64 = values.iter().map(|value| value.0.frames).sum();
            counts[(index % REASON_SLOTS) as usize] += frames;
        }
        Ok(counts)
    }
}

/// What became of frames that were not denied.
pub(crate) const PASSED: &str = "passed";

/// What became of frames between two counts, in words.
pub(crate) fn account(before: &[u64], after: &[u64]) -> BTreeMap<&'static str, u64> {
    let label = |number: usize| {
        let reason = u8::try_from(number).ok().and_then(Reason::from_number);
        reason.map_or(PASSED, Reason::label)
    };
    before
        .iter()
        .zip(after)
        .enumerate()
        .filter(|(_, (before, after))| after > before)
        .map(|(number, (before, after))| (label(number), after - before))
        .collect()
}

/// Writes each policy to a slot of its own.
fn write(ebpf: &mut Ebpf, policies: &[CompiledTables]) -> Result<()> {
    let slots = || (0..).zip(policies);
    let mut map: HashMap<MapData, Plain<InterfaceKey>, Plain<Interface>> =
        take(ebpf, "INTERFACES")?;
    for (slot, tables) in slots() {
        let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
        for (_, vlans, row) in &tables.interfaces {
            let sum = interfaces.entry(*vlans).or_default();
            *sum = sum.and(row);
        }
        for (vlans, interface) in interfaces {
            let key = InterfaceKey {
                slot,
                ifindex: LOOPBACK,
                vlans,
            };
            map.insert(Plain(key), Plain(interface), 0)?;
        }
    }
    let mut map: LpmTrie<MapData, Plain<NetworkKey>, Plain<Network>> = take(ebpf, "NETWORKS")?;
    for (slot, tables) in slots() {
        for (prefix, address, row) in &tables.networks {
            let key = NetworkKey {
                slot,
                address: *address,
            };
            map.insert(&NetworkRow::new(*prefix, Plain(key)), Plain(*row), 0)?;
        }
    }
    let mut map: HashMap<MapData, Plain<PairKey>, Plain<Pair>> = take(ebpf, "PAIRS")?;
    for (slot, tables) in slots() {
        for (key, row) in &tables.pairs {
            map.insert(
                Plain(PairKey {
                    slot: slot as u16,
                    ..*key
                }),
                Plain(*row),
                0,
            )?;
        }
    }
    let mut conduits: Table<Conduit> = take(ebpf, "CONDUITS")?;
    for (slot, tables) in slots() {
        for (id, row) in &tables.conduits {
            conduits.set(slot * MAX_CONDUITS + u32::from(*id), Plain(*row), 0)?;
        }
    }
    let mut runs = Runs { ebpf, policies };
    runs.write::<Service>("SERVICES", MAX_SERVICES, |tables| &tables.services)?;
    runs.write::<RuleSet>("RULE_SETS", MAX_RULE_SETS, |tables| &tables.rule_sets)?;
    runs.write::<Operation>("OPERATIONS", MAX_OPERATION_ROWS * FUNCTIONS, |tables| {
        tables.operations.as_flattened()
    })?;
    runs.write::<Interval>("INTERVALS", MAX_INTERVALS, |tables| &tables.intervals)?;
    runs.write::<Page>("PAGES", MAX_PAGES, |tables| &tables.pages)?;
    runs.write::<Limits>("LIMITS", MAX_LIMITS, |tables| &tables.limits)?;
    runs.write::<ValueRange>("VALUE_RANGES", MAX_VALUE_RANGES, |tables| {
        &tables.value_ranges
    })?;
    runs.write::<Generation>("GENERATIONS", 1, |tables| {
        std::slice::from_ref(&tables.generation)
    })
}

/// Tables of rows that stand in a row, so many to a slot.
struct Runs<'a> {
    ebpf: &'a mut Ebpf,
    policies: &'a [CompiledTables],
}

impl Runs<'_> {
    fn write<V: Copy>(
        &mut self,
        name: &str,
        rows_of_a_slot: u32,
        rows: impl Fn(&CompiledTables) -> &[V],
    ) -> Result<()>
    where
        Plain<V>: Pod,
    {
        let mut table: Table<V> = take(self.ebpf, name)?;
        for (slot, tables) in (0..).zip(self.policies) {
            for (index, row) in (slot * rows_of_a_slot..).zip(rows(tables)) {
                table.set(index, Plain(*row), 0)?;
            }
        }
        Ok(())
    }
}

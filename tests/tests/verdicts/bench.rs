//! The loaded program, its maps, and the policy in them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, Pod};
use conduitfw::dataplane::TableSizes;
use conduitfw::dataplane::maps::{NetworkRow, Plain, Table, put_in_force};
use conduitfw::dataplane::rings::{EventRings, EventRoom};
use conduitfw::policy::{CompiledTables, Ids, Surroundings, compile, load_text};
use conduitfw_common::flow::entry::{FlowEntry, Stream};
use conduitfw_common::table::{
    Active, Conduit, Counter, FUNCTIONS, Generation, Interface, InterfaceKey, Interval,
    MAX_CONDUITS, MAX_INTERVALS, MAX_OPERATION_ROWS, MAX_RULE_SETS, MAX_SERVICES, Network,
    NetworkKey, Operation, Pair, PairKey, Reporting, RuleSet, Service, Settings,
};
use conduitfw_tests::lab::{ebpf_object, skipped_without_root};
use conduitfw_tests::scene::{GATEWAY, GATEWAY_V6, HMI, HMI_V6, PLC, PLC_V6};

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_REDIRECT: u32 = 4;
/// The loopback interface, in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;
pub(crate) const FLOWS: u32 = 16_384;
pub(crate) const OPENINGS: u32 = 4096;
pub(crate) const STREAMS: u32 = 1024;
const SIZES: TableSizes = TableSizes {
    flows: FLOWS,
    opening_flows: OPENINGS,
    inspected_flows: STREAMS,
};
pub(crate) const WAYS: u32 = 8;

pub(crate) const OUTSIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 5));
pub(crate) const FAMILIES: [(IpAddr, IpAddr); 2] = [(HMI, PLC), (HMI_V6, PLC_V6)];

/// The bytes of a flow.
pub(crate) type Entry = [u8; size_of::<FlowEntry>()];

/// The loaded program and its maps.
pub(crate) struct Bench {
    pub(crate) ebpf: Ebpf,
    pub(crate) active: Table<Active>,
    pub(crate) generations: Table<Generation>,
    pub(crate) interfaces: HashMap<MapData, Plain<InterfaceKey>, Plain<Interface>>,
    pub(crate) networks: LpmTrie<MapData, Plain<NetworkKey>, Plain<Network>>,
    pub(crate) pairs: HashMap<MapData, Plain<PairKey>, Plain<Pair>>,
    pub(crate) services: Table<Service>,
    pub(crate) conduits: Table<Conduit>,
    pub(crate) rule_sets: Table<RuleSet>,
    pub(crate) operations: Table<Operation>,
    pub(crate) intervals: Table<Interval>,
    pub(crate) counters: PerCpuArray<MapData, Plain<Counter>>,
    pub(crate) reporting: Table<Reporting>,
    pub(crate) events: EventRings,
    pub(crate) rates: Array<MapData, u64>,
    pub(crate) buckets: [(Array<MapData, [u32; 8]>, u32); 2],
    /// Lent to a test at most for as long as that lasts.
    pub(crate) flows: Option<Array<MapData, Entry>>,
    pub(crate) streams: Array<MapData, [u8; size_of::<Stream>()]>,
    pub(crate) ids: Ids,
    pub(crate) generation: u32,
    pub(crate) complaints: Vec<String>,
}

pub(crate) fn event_room() -> EventRoom {
    EventRoom::of_machine().unwrap()
}

pub(crate) fn settings() -> Settings {
    SIZES.settings(Some(event_room()), hash_keys(), 0)
}

/// Keys as good as drawn ones, and the same in every run (`splitmix64`).
pub(crate) fn hash_keys() -> [u64; 12] {
    let mut state = 0_u64;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

pub(crate) fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> M {
    M::try_from(ebpf.take_map(name).unwrap()).unwrap()
}

pub(crate) fn write_run<V>(table: &mut Table<V>, first: u32, rows: impl IntoIterator<Item = V>)
where
    Plain<V>: Pod,
{
    for (index, row) in (first..).zip(rows) {
        table.set(index, Plain(row), 0).unwrap();
    }
}

/// The bench with this policy in force and nothing remembered, or nothing without root.
pub(crate) fn bench(policy: &str) -> Option<MutexGuard<'static, Bench>> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    if skipped_without_root() {
        return None;
    }
    let bench = BENCH.get_or_init(|| Mutex::new(Bench::load()));
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    bench.forget();
    bench.apply(policy);
    Some(bench)
}

/// Declares the [`Bench`] of a test, or ends the test in peace when there is no root.
macro_rules! bench {
    ($policy:expr) => {
        match bench($policy) {
            Some(bench) => bench,
            None => return,
        }
    };
}

impl Bench {
    pub(crate) fn load() -> Self {
        let object = ebpf_object();
        let mut loader = EbpfLoader::new();
        for (name, rows) in SIZES.rows().into_iter().chain(event_room().rows()) {
            loader.map_max_entries(name, rows);
        }
        let mut ebpf = loader.load_file(&object).unwrap_or_else(|error| {
            panic!("{}: {error}: run `cargo xtask ebpf`", object.display());
        });
        let program: &mut Xdp = ebpf.program_mut("conduitfw").unwrap().try_into().unwrap();
        let start = Instant::now();
        program.load().unwrap();
        let took = start.elapsed().as_micros();
        let count = program.info().unwrap().verified_instruction_count();
        println!(
            "verifier: instructions={} time={took}us",
            count.unwrap_or(0)
        );
        let mut table: Table<Settings> = take(&mut ebpf, "SETTINGS");
        table.set(0, Plain(settings()), 0).unwrap();
        let reporting = take(&mut ebpf, "REPORTING");
        Self {
            active: take(&mut ebpf, "ACTIVE"),
            generations: take(&mut ebpf, "GENERATIONS"),
            interfaces: take(&mut ebpf, "INTERFACES"),
            networks: take(&mut ebpf, "NETWORKS"),
            pairs: take(&mut ebpf, "PAIRS"),
            services: take(&mut ebpf, "SERVICES"),
            conduits: take(&mut ebpf, "CONDUITS"),
            rule_sets: take(&mut ebpf, "RULE_SETS"),
            operations: take(&mut ebpf, "OPERATIONS"),
            intervals: take(&mut ebpf, "INTERVALS"),
            counters: take(&mut ebpf, "COUNTERS"),
            events: EventRings::take(&mut ebpf, &reporting).unwrap(),
            reporting,
            rates: take(&mut ebpf, "RATES"),
            buckets: [
                (take(&mut ebpf, "FLOW_BUCKETS"), FLOWS * 2 / WAYS),
                (take(&mut ebpf, "OPENING_BUCKETS"), OPENINGS * 2 / WAYS),
            ],
            flows: Some(take(&mut ebpf, "FLOWS")),
            streams: take(&mut ebpf, "STREAMS"),
            ebpf,
            ids: Ids::default(),
            generation: 0,
            complaints: Vec::new(),
        }
    }

    /// Forgets every flow, rate, event and name.
    pub(crate) fn forget(&mut self) {
        self.forget_flows();
        for id in 0..MAX_CONDUITS {
            self.rates.set(id, 0, 0).unwrap();
        }
        self.events();
        self.ids = Ids::default();
        self.complaints.clear();
    }

    pub(crate) fn forget_flows(&mut self) {
        for (buckets, count) in &mut self.buckets {
            for bucket in 0..*count {
                buckets.set(bucket, [0; 8], 0).unwrap();
            }
        }
        // The processor may remember where they were.
        let flows = self.flows.as_mut().unwrap();
        for place in 0..FLOWS * 2 {
            flows.set(place, [0; size_of::<FlowEntry>()], 0).unwrap();
        }
        for stream in 0..STREAMS {
            self.streams
                .set(stream, [0; size_of::<Stream>()], 0)
                .unwrap();
        }
    }

    /// Writes a policy to the slot that is not in force, and puts it in force.
    pub(crate) fn apply(&mut self, text: &str) {
        let loaded = load_text("policy.toml", text).unwrap_or_else(|r| panic!("{}", r.render()));
        self.generation += 1;
        let surroundings = Surroundings {
            ticks_per_second: 1000,
            gateway_addresses: vec![GATEWAY, GATEWAY_V6],
            generation: self.generation,
        };
        let tables = compile(&loaded.policy, &mut self.ids, &surroundings)
            .unwrap_or_else(|r| panic!("{}", r.render()));
        let slot = self.generation & 1;
        self.clear(slot);
        self.write(slot, &tables);
        put_in_force(&mut self.active, settings(), slot, &tables.generation).unwrap();
    }

    pub(crate) fn clear(&mut self, slot: u32) {
        let keys: Vec<_> = self.interfaces.keys().map(Result::unwrap).collect();
        for key in keys.iter().filter(|key| key.0.slot == slot) {
            self.interfaces.remove(key).unwrap();
        }
        let keys: Vec<_> = self.networks.keys().map(Result::unwrap).collect();
        for key in keys.iter().filter(|key| key.data().0.slot == slot) {
            self.networks.remove(key).unwrap();
        }
        let keys: Vec<_> = self.pairs.keys().map(Result::unwrap).collect();
        for key in keys.iter().filter(|key| u32::from(key.0.slot) == slot) {
            self.pairs.remove(key).unwrap();
        }
    }

    pub(crate) fn write(&mut self, slot: u32, tables: &CompiledTables) {
        // Zones of different interfaces meet on the only one there is.
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
            self.interfaces
                .insert(Plain(key), Plain(interface), 0)
                .unwrap();
        }
        for (prefix, address, row) in &tables.networks {
            let key = NetworkKey {
                slot,
                address: *address,
            };
            let key = NetworkRow::new(*prefix, Plain(key));
            self.networks.insert(&key, Plain(*row), 0).unwrap();
        }
        for (key, row) in &tables.pairs {
            let key = PairKey {
                slot: u16::from(slot != 0),
                ..*key
            };
            self.pairs.insert(Plain(key), Plain(*row), 0).unwrap();
        }
        write_run(
            &mut self.services,
            slot * MAX_SERVICES,
            tables.services.iter().copied(),
        );
        let first = slot * MAX_CONDUITS;
        for id in 0..16 {
            self.conduits
                .set(first + id, Plain(Conduit::default()), 0)
                .unwrap();
        }
        for (id, row) in &tables.conduits {
            self.conduits
                .set(first + u32::from(*id), Plain(*row), 0)
                .unwrap();
        }
        write_run(
            &mut self.rule_sets,
            slot * MAX_RULE_SETS,
            tables.rule_sets.iter().copied(),
        );
        let operations = tables.operations.iter().flatten().copied();
        write_run(
            &mut self.operations,
            slot * MAX_OPERATION_ROWS * FUNCTIONS,
            operations,
        );
        write_run(
            &mut self.intervals,
            slot * MAX_INTERVALS,
            tables.intervals.iter().copied(),
        );
        self.generations
            .set(slot, Plain(tables.generation), 0)
            .unwrap();
    }
}

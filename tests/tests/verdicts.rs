//! The verdict on single frames and on conversations, given by the program in the kernel itself:
//! the object is loaded, a policy stands in its maps, and frames go through `BPF_PROG_TEST_RUN`.
//!
//! Frames given to the program that way come in on the loopback interface, so every zone of these
//! policies is there. Nothing is attached or pinned.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, helpers included, ends where it fails"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};
use conduitfw::dataplane::maps::{NetworkRow, Plain, Table};
use conduitfw::policy::{CompiledTables, Ids, Surroundings, compile, load_text};
use conduitfw_common::event::{EventRecord, field};
use conduitfw_common::flow::entry::Stream;
use conduitfw_common::inspect::MAX_ADUS;
use conduitfw_common::table::{
    ABI_VERSION, Conduit, Counter, FUNCTIONS, Generation, Interface, InterfaceKey, Interval,
    MAX_CONDUITS, MAX_INTERVALS, MAX_OPERATION_ROWS, MAX_RULE_SETS, MAX_SERVICES, Network,
    NetworkKey, Operation, Pair, PairKey, Reporting, RuleSet, Service, Settings,
};
use conduitfw_common::{REASON_SLOTS, Reason, Verdict};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{
    ACK, DESTINATION_MAC, FIN, Frame, PSH, RST, SOURCE_MAC, SYN, URG, arp, arp_reply, arp_request,
    echo_reply, echo_request, ethernet, icmp, ip, neighbour_advertisement, neighbour_solicitation,
    port_unreachable, tcp, udp,
};
use conduitfw_tests::lab::{ebpf_object, skipped_without_root};
use conduitfw_tests::scene::{DOSING, GATEWAY, HMI, HMI_V6, PLANT, PLC, PLC_V6, STRANGER, dosing};
use zerocopy::FromBytes as _;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
/// The loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;
const FLOWS: u32 = 16_384;
const OPENINGS: u32 = 4096;
const STREAMS: u32 = 1024;
const WAYS: u32 = 8;

const OUTSIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 5));
const FAMILIES: [(IpAddr, IpAddr); 2] = [(HMI, PLC), (HMI_V6, PLC_V6)];

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Pass,
    Drop(Reason),
    /// The segment goes on as a reset.
    Reset(Reason),
    /// The segment comes back as a reset.
    SendBack(Reason),
    /// It passes, and is reported.
    Observed(Reason),
}
use Want::{Drop, Observed, Pass, SendBack};

impl Want {
    fn action(self) -> u32 {
        match self {
            Pass | Observed(_) | Want::Reset(_) => XDP_PASS,
            Drop(_) => XDP_DROP,
            SendBack(_) => XDP_REDIRECT,
        }
    }

    fn reason(self) -> Option<Reason> {
        match self {
            Pass => None,
            Drop(reason) | Want::Reset(reason) | SendBack(reason) | Observed(reason) => {
                Some(reason)
            }
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Pass | Observed(_) => Verdict::Pass,
            Drop(_) => Verdict::Drop,
            Want::Reset(_) | SendBack(_) => Verdict::Reset,
        }
    }
}

/// The loaded program and its maps.
struct Bench {
    ebpf: Ebpf,
    active: Array<MapData, u32>,
    generations: Table<Generation>,
    interfaces: HashMap<MapData, Plain<InterfaceKey>, Plain<Interface>>,
    networks: LpmTrie<MapData, Plain<NetworkKey>, Plain<Network>>,
    pairs: HashMap<MapData, Plain<PairKey>, Plain<Pair>>,
    services: Table<Service>,
    conduits: Table<Conduit>,
    rule_sets: Table<RuleSet>,
    operations: Table<Operation>,
    intervals: Table<Interval>,
    counters: PerCpuArray<MapData, Plain<Counter>>,
    reporting: PerCpuArray<MapData, Plain<Reporting>>,
    events: RingBuf<MapData>,
    rates: Array<MapData, u64>,
    buckets: [(Array<MapData, [u32; 8]>, u32); 2],
    streams: Array<MapData, [u8; size_of::<Stream>()]>,
    ids: Ids,
    generation: u32,
    complaints: Vec<String>,
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

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> M {
    M::try_from(ebpf.take_map(name).unwrap()).unwrap()
}

fn write_run<V>(table: &mut Table<V>, first: u32, rows: impl IntoIterator<Item = V>)
where
    Plain<V>: Pod,
{
    for (index, row) in (first..).zip(rows) {
        table.set(index, Plain(row), 0).unwrap();
    }
}

/// The bench with this policy in force and nothing remembered, or nothing without root.
fn bench(policy: &str) -> Option<MutexGuard<'static, Bench>> {
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
    fn load() -> Self {
        let object = ebpf_object();
        let mut loader = EbpfLoader::new();
        for (name, rows) in [
            ("FLOW_BUCKETS", FLOWS * 2 / WAYS),
            ("FLOWS", FLOWS * 2),
            ("OPENING_BUCKETS", OPENINGS * 2 / WAYS),
            ("OPENINGS", OPENINGS * 2),
            ("STREAMS", STREAMS),
        ] {
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
        let mut settings: Table<Settings> = take(&mut ebpf, "SETTINGS");
        let row = Settings {
            hash_keys: hash_keys(),
            abi_version: ABI_VERSION,
            flow_bucket_mask: FLOWS * 2 / WAYS - 1,
            opening_bucket_mask: OPENINGS * 2 / WAYS - 1,
            stream_mask: STREAMS - 1,
            adopt_until_ticks: 0,
        };
        settings.set(0, Plain(row), 0).unwrap();
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
            reporting: take(&mut ebpf, "REPORTING"),
            events: take(&mut ebpf, "EVENTS"),
            rates: take(&mut ebpf, "RATES"),
            buckets: [
                (take(&mut ebpf, "FLOW_BUCKETS"), FLOWS * 2 / WAYS),
                (take(&mut ebpf, "OPENING_BUCKETS"), OPENINGS * 2 / WAYS),
            ],
            streams: take(&mut ebpf, "STREAMS"),
            ebpf,
            ids: Ids::default(),
            generation: 0,
            complaints: Vec::new(),
        }
    }

    /// Forgets every flow, rate, event and name.
    fn forget(&mut self) {
        self.forget_flows();
        for id in 0..MAX_CONDUITS {
            self.rates.set(id, 0, 0).unwrap();
        }
        self.events();
        self.ids = Ids::default();
        self.complaints.clear();
    }

    fn forget_flows(&mut self) {
        for (buckets, count) in &mut self.buckets {
            for bucket in 0..*count {
                buckets.set(bucket, [0; 8], 0).unwrap();
            }
        }
        for stream in 0..STREAMS {
            self.streams
                .set(stream, [0; size_of::<Stream>()], 0)
                .unwrap();
        }
    }

    /// Writes a policy to the slot that is not in force, and puts it in force.
    fn apply(&mut self, text: &str) {
        let loaded = load_text("policy.toml", text).unwrap_or_else(|r| panic!("{}", r.render()));
        self.generation += 1;
        let surroundings = Surroundings {
            ticks_per_second: 1000,
            gateway_addresses: vec![GATEWAY],
            generation: self.generation,
        };
        let tables = compile(&loaded.policy, &mut self.ids, &surroundings)
            .unwrap_or_else(|r| panic!("{}", r.render()));
        let slot = self.generation & 1;
        self.clear(slot);
        self.write(slot, &tables);
        self.active.set(0, slot, 0).unwrap();
    }

    fn clear(&mut self, slot: u32) {
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

    fn write(&mut self, slot: u32, tables: &CompiledTables) {
        // Zones of different interfaces meet on the only one there is.
        let mut interfaces: BTreeMap<u32, u64> = BTreeMap::new();
        for (_, vlans, row) in &tables.interfaces {
            *interfaces.entry(*vlans).or_default() |= row.zones;
        }
        for (vlans, zones) in interfaces {
            let key = InterfaceKey {
                slot,
                ifindex: LOOPBACK,
                vlans,
            };
            self.interfaces
                .insert(Plain(key), Plain(Interface { zones }), 0)
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

    /// The frame goes in; what the program answers, and the frame that it leaves.
    fn give(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 2048];
        let program = self.ebpf.program_mut("conduitfw").unwrap();
        let program: &mut Xdp = program.try_into().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ..TestRunOptions::new()
            })
            .unwrap();
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        (result.return_value, out)
    }

    /// Frames and bytes by conduit and reason, of the first conduits.
    fn counts(&self) -> Vec<(u64, u64)> {
        let conduits = u32::try_from(self.ids.iter().count()).unwrap_or(0).min(3) + 1;
        let sum = |index| {
            let values = self.counters.get(&index, 0).unwrap();
            let add = |(frames, bytes), value: &Plain<Counter>| {
                (frames + value.0.frames, bytes + value.0.bytes)
            };
            values.iter().fold((0, 0), add)
        };
        (0..conduits * REASON_SLOTS).map(sum).collect()
    }

    fn would_deny(&self) -> u64 {
        let values = self.reporting.get(&0, 0).unwrap();
        values.iter().map(|value| value.0.would_deny).sum()
    }

    fn events(&mut self) -> Vec<EventRecord> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(EventRecord::read_from_bytes(&item).unwrap());
        }
        events
    }

    fn complain(&mut self, name: &str, what: &str) {
        self.complaints.push(format!("{name}: {what}"));
    }

    /// The frame goes in, and action, counters and events must be what is wanted. Returns the
    /// frame that comes out.
    fn expect(&mut self, name: &str, frame: &[u8], want: Want) -> Vec<u8> {
        let (before, would_deny) = (self.counts(), self.would_deny());
        let (action, out) = self.give(frame);
        let (after, would_deny_after) = (self.counts(), self.would_deny());
        let changed: Vec<_> = (0..after.len())
            .filter(|&i| after[i] != before[i])
            .collect();
        let named = |index: usize| {
            let number = u8::try_from(index % 64).unwrap();
            Reason::from_number(number).map_or("passed", Reason::label)
        };
        let events = self.events();
        let reported = events
            .first()
            .map(|event| Reason::from_number(event.reason).map_or("passed", Reason::label));
        let counted: Vec<_> = changed.iter().map(|&index| named(index)).collect();
        let is_observed = matches!(want, Observed(_));
        let wanted = want.reason().filter(|_| !is_observed);
        let right = action == want.action()
            && counted == [wanted.map_or("passed", Reason::label)]
            && changed.iter().all(|&index| {
                after[index].0 == before[index].0 + 1
                    && after[index].1 == before[index].1 + frame.len() as u64
            });
        if !right {
            let seen = format!("action {action}, counted {counted:?}, event {reported:?}");
            self.complain(
                name,
                &format!("wanted {want:?}; {seen}; frame {frame:02x?}"),
            );
            return out;
        }
        if would_deny_after - would_deny != u64::from(is_observed) {
            self.complain(name, "would_deny is not what it should be");
        }
        self.check_events(name, frame, want, &events);
        if want == Pass && out != frame {
            self.complain(name, &format!("the frame was changed: {out:02x?}"));
        }
        out
    }

    fn check_events(&mut self, name: &str, frame: &[u8], want: Want, events: &[EventRecord]) {
        let silent = [
            Reason::OutOfOrder,
            Reason::HistoryFull,
            Reason::FlowEnded,
            Reason::FlowBusy,
        ];
        let due = want.reason().filter(|reason| !silent.contains(reason));
        let (Some(reason), [event]) = (due, events) else {
            if due.is_some() || !events.is_empty() {
                self.complain(name, &format!("{} events for {want:?}", events.len()));
            }
            return;
        };
        let bytes: Vec<u8> = event
            .frame
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let captured = usize::try_from(event.captured).unwrap();
        let right = event.reason == reason.number()
            && event.verdict == want.verdict() as u8
            && event.would_deny == u8::from(matches!(want, Observed(_)))
            && usize::from(event.frame_length) == frame.len()
            && event.generation == self.generation
            && event.ifindex == LOOPBACK
            && captured == frame.len().min(64) / 8 * 8
            && bytes[..captured] == frame[..captured];
        if !right {
            self.complain(name, &format!("the event is not right: {event:?}"));
        }
    }

    fn all(&mut self, cases: &[(&str, Frame, Want)]) {
        for (name, frame, want) in cases {
            self.expect(name, &frame.build(), *want);
        }
        self.finish();
    }

    #[track_caller]
    fn finish(&mut self) {
        let complaints = std::mem::take(&mut self.complaints);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}

/// A TCP connection, followed from both ends.
#[derive(Clone, Copy)]
struct Talk {
    hmi: SocketAddr,
    plc: SocketAddr,
    /// The initiator's next sequence number, and the responder's.
    next: (u32, u32),
}

impl Talk {
    /// Opens a connection to port 502. The sequence numbers soon wrap.
    fn open(bench: &mut Bench, (hmi, plc): (IpAddr, IpAddr), port: u16) -> Self {
        let mut talk = Self {
            hmi: (hmi, port).into(),
            plc: (plc, 502).into(),
            next: (0xffff_fff0, 7000),
        };
        let syn = tcp(talk.hmi, talk.plc)
            .flags(SYN)
            .seq(talk.next.0)
            .tcp_options(&[2, 4, 5, 180]);
        bench.expect("SYN", &syn.build(), Pass);
        talk.next.0 = talk.next.0.wrapping_add(1);
        let answer = talk.plc_sends(&[]).flags(SYN | ACK);
        bench.expect("SYN ACK", &answer.build(), Pass);
        talk.next.1 += 1;
        bench.expect("ACK", &talk.hmi_sends(&[]).build(), Pass);
        talk
    }

    fn hmi_sends(&self, payload: &[u8]) -> Frame {
        let flags = if payload.is_empty() { ACK } else { PSH | ACK };
        let frame = tcp(self.hmi, self.plc).flags(flags);
        frame.seq(self.next.0).ack(self.next.1).payload(payload)
    }

    fn plc_sends(&self, payload: &[u8]) -> Frame {
        let flags = if payload.is_empty() { ACK } else { PSH | ACK };
        let frame = tcp(self.plc, self.hmi).flags(flags);
        frame.seq(self.next.1).ack(self.next.0).payload(payload)
    }

    /// The initiator sends; what passes counts.
    fn ask(&mut self, bench: &mut Bench, name: &str, payload: &[u8], want: Want) -> Vec<u8> {
        let out = bench.expect(name, &self.hmi_sends(payload).build(), want);
        if matches!(want, Pass | Observed(_)) {
            let bytes = u32::try_from(payload.len()).unwrap();
            self.next.0 = self.next.0.wrapping_add(bytes);
        }
        out
    }

    /// The responder answers, which acknowledges all that went by.
    fn answer(&mut self, bench: &mut Bench, name: &str, payload: &[u8]) {
        bench.expect(name, &self.plc_sends(payload).build(), Pass);
        self.next.1 += u32::try_from(payload.len()).unwrap();
    }

    /// The initiator sends what is denied; a reset must go on in its place, and each side is told
    /// no more than it needs.
    fn denied(&self, bench: &mut Bench, name: &str, payload: &[u8], reason: Reason) {
        let out = bench.expect(name, &self.hmi_sends(payload).build(), Want::Reset(reason));
        let reset = tcp(self.hmi, self.plc).flags(RST | ACK).window(0);
        let reset = reset.seq(self.next.0).ack(self.next.1).build();
        if out != reset {
            bench.complain(name, &format!("reset {out:02x?}, not {reset:02x?}"));
        }
        self.is_ended(bench, name, payload);
    }

    fn is_ended(&self, bench: &mut Bench, name: &str, payload: &[u8]) {
        let ended = Reason::FlowEnded;
        let out = bench.expect(name, &self.hmi_sends(payload).build(), SendBack(ended));
        let bytes = u32::try_from(payload.len()).unwrap();
        let back = tcp(self.plc, self.hmi).flags(RST | ACK).window(0);
        let back = back.seq(self.next.1).ack(self.next.0.wrapping_add(bytes));
        let back = back.macs(DESTINATION_MAC, SOURCE_MAC).build();
        if out != back {
            bench.complain(name, &format!("sent back {out:02x?}, not {back:02x?}"));
        }
        bench.expect(name, &self.plc_sends(&[1, 2, 3]).build(), Drop(ended));
    }
}

/// The plant, with services other than Modbus, a VLAN and the gateway's own.
fn broad() -> String {
    let more = r#"tcp = [80]
udp = [5000]
icmp_echo = true
new_flows = "unlimited"

[[conduits]]
name = "administration"
from = ["operations"]
to = ["gateway"]
rationale = "Maintenance"
tcp = [22]
icmp_echo = true

[[conduits]]
name = "time"
from = ["gateway"]
to = ["control"]
rationale = "Clocks"
udp = [123]

[zones.cell]
interfaces = ["eth2"]
networks = ["10.30.0.0/24"]
vlans = ["10", "100.20"]
"#;
    format!("{PLANT}{DOSING}{more}")
}

fn to(port: u16) -> Frame {
    tcp((HMI, 40_000), (PLC, port)).flags(SYN)
}

fn to_v6(port: u16) -> Frame {
    tcp((HMI_V6, 40_000), (PLC_V6, port)).flags(SYN)
}

const fn v4(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, network, 0, host)
}

#[test]
fn address_resolution_is_for_hosts_that_the_policy_knows() {
    let mut bench = bench!(&broad());
    let hmi = v4(10, 5);
    let plc = v4(20, 10);
    let outsider = v4(99, 5);
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let (hmi6, plc6, lost) = (v6("fd00:10::5"), v6("fd00:20::10"), v6("fd00:99::1"));
    bench.all(&[
        ("ARP request", arp_request(hmi, plc), Pass),
        ("ARP reply", arp_reply(plc, hmi), Pass),
        ("ARP probe", arp_request(Ipv4Addr::UNSPECIFIED, hmi), Pass),
        (
            "ARP for a stranger",
            arp_request(hmi, outsider),
            Drop(Reason::NeighbourNotAllowed),
        ),
        (
            "ARP from a stranger",
            arp_request(outsider, plc),
            Drop(Reason::SpoofedSource),
        ),
        (
            "ARP of another kind",
            arp(3, (SOURCE_MAC, hmi), ([0; 6], plc)),
            Drop(Reason::BadArpPacket),
        ),
        ("solicitation", neighbour_solicitation(hmi6, plc6), Pass),
        ("advertisement", neighbour_advertisement(plc6, hmi6), Pass),
        (
            "solicitation of a stranger",
            neighbour_solicitation(hmi6, lost),
            Drop(Reason::NeighbourNotAllowed),
        ),
        (
            "solicitation from afar",
            neighbour_solicitation(hmi6, plc6).hop_limit(254),
            Drop(Reason::UnknownDestination),
        ),
    ]);
}

#[test]
fn who_may_talk_to_whom() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "stranger",
            tcp((OUTSIDER, 1), (PLC, 80)).flags(SYN),
            Drop(Reason::SpoofedSource),
        ),
        (
            "the gateway's own address from outside",
            tcp((GATEWAY, 1), (PLC, 80)).flags(SYN),
            Drop(Reason::SpoofedSource),
        ),
        (
            "unknown destination",
            tcp((HMI, 1), (OUTSIDER, 80)).flags(SYN),
            Drop(Reason::UnknownDestination),
        ),
        (
            "not the asset",
            tcp((STRANGER, 1), (PLC, 80)).flags(SYN),
            Drop(Reason::NoConduit),
        ),
        (
            "the other way round",
            tcp((PLC, 1), (HMI, 80)).flags(SYN),
            Drop(Reason::NoConduit),
        ),
        ("wrong port", to(81), Drop(Reason::NoConduit)),
        (
            "wrong transport",
            udp((HMI, 1), (PLC, 80)),
            Drop(Reason::NoConduit),
        ),
        ("right port", to(80), Pass),
        ("right port, IPv6", to_v6(80), Pass),
    ]);
}

#[test]
fn fragments_never_pass() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "first fragment",
            to(80).fragment(0, true),
            Drop(Reason::Fragment),
        ),
        (
            "last fragment",
            to(80).fragment(3, false),
            Drop(Reason::Fragment),
        ),
        (
            "first fragment, IPv6",
            to_v6(80).fragment(0, true),
            Drop(Reason::Fragment),
        ),
        (
            "last fragment, IPv6",
            to_v6(80).fragment(3, false),
            Drop(Reason::Fragment),
        ),
        (
            "atomic fragment, IPv6",
            to_v6(80).fragment(0, false),
            Drop(Reason::Fragment),
        ),
    ]);
}

#[test]
fn tags_are_part_of_the_interface() {
    let mut bench = bench!(&broad());
    let plc = v4(20, 10);
    let cell = v4(30, 3);
    bench.all(&[
        (
            "three tags",
            to(80).vlan2(1, 2).vlan(3),
            Drop(Reason::TooManyVlanTags),
        ),
        (
            "a VLAN of nobody",
            to(80).vlan(11),
            Drop(Reason::UnknownInterface),
        ),
        (
            "a VLAN of another zone",
            to(80).vlan(10),
            Drop(Reason::SpoofedSource),
        ),
        ("the cell's VLAN", arp_request(cell, plc).vlan(10), Pass),
        (
            "the cell's two tags",
            arp_request(cell, plc).vlan2(100, 20),
            Pass,
        ),
        (
            "two tags swapped",
            arp_request(cell, plc).vlan2(20, 100),
            Drop(Reason::UnknownInterface),
        ),
        (
            "the cell untagged",
            arp_request(cell, plc),
            Drop(Reason::SpoofedSource),
        ),
    ]);
}

#[test]
fn odd_headers_are_refused() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "loose source route",
            to(80).ipv4_options(&[131, 3, 4]),
            Drop(Reason::SourceRoute),
        ),
        (
            "strict source route",
            to(80).ipv4_options(&[1, 137, 3, 4]),
            Drop(Reason::SourceRoute),
        ),
        (
            "an option of no length",
            to(80).ipv4_options(&[7, 0]),
            Drop(Reason::BadIpv4Header),
        ),
        ("router alert", to(80).ipv4_options(&[148, 4, 0, 0]), Pass),
        ("hop-by-hop options", to_v6(80).hop_by_hop(), Pass),
        (
            "routing header",
            to_v6(80).routing(0),
            Drop(Reason::Ipv6ExtensionNotAllowed),
        ),
        (
            "LLDP",
            ethernet(0x88cc, vec![0; 46]),
            Drop(Reason::EtherTypeNotAllowed),
        ),
        (
            "GRE",
            ip(HMI, PLC, 47, vec![0; 20]),
            Drop(Reason::TransportNotAllowed),
        ),
        (
            "ICMP redirect",
            icmp(HMI, PLC, (5, 1), vec![0; 32]),
            Drop(Reason::IcmpTypeNotAllowed),
        ),
    ]);
}

#[test]
fn a_segment_without_a_flow_opens_one_or_is_refused() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "SYN with data",
            to(80).payload([1, 2]),
            Drop(Reason::SynWithData),
        ),
        (
            "SYN FIN",
            to(80).flags(SYN | FIN),
            Drop(Reason::BadTcpFlags),
        ),
        (
            "SYN RST",
            to(80).flags(SYN | RST),
            Drop(Reason::BadTcpFlags),
        ),
        (
            "no flags",
            tcp((HMI, 40_001), (PLC, 80)).flags(0),
            Drop(Reason::BadTcpFlags),
        ),
        (
            "data without a flow",
            tcp((HMI, 2), (PLC, 80)).payload([1]),
            Drop(Reason::NoFlow),
        ),
        (
            "a reset without a flow",
            tcp((PLC, 80), (HMI, 2)).flags(RST),
            Drop(Reason::NoFlow),
        ),
    ]);
}

#[test]
fn echo_and_reply_are_one_flow() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "echo reply unasked",
            echo_reply(PLC, HMI, 9, 1),
            Drop(Reason::NoFlow),
        ),
        ("echo request", echo_request(HMI, PLC, 7, 1), Pass),
        ("echo request again", echo_request(HMI, PLC, 7, 2), Pass),
        ("echo reply", echo_reply(PLC, HMI, 7, 1), Pass),
        ("echo request answered", echo_request(HMI, PLC, 7, 3), Pass),
        (
            "echo reply to another",
            echo_reply(PLC, HMI, 8, 1),
            Drop(Reason::NoFlow),
        ),
        (
            "echo of the PLC",
            echo_request(PLC, HMI, 7, 1),
            Drop(Reason::NoConduit),
        ),
        (
            "echo request, IPv6",
            echo_request(HMI_V6, PLC_V6, 7, 1),
            Pass,
        ),
        ("echo reply, IPv6", echo_reply(PLC_V6, HMI_V6, 7, 1), Pass),
    ]);
}

#[test]
fn datagrams_answers_and_errors_about_them() {
    let mut bench = bench!(&broad());
    let quoted = udp((HMI, 41_000), (PLC, 5000));
    bench.all(&[
        (
            "an error about nothing",
            port_unreachable(PLC, HMI, &quoted),
            Drop(Reason::IcmpErrorWithoutFlow),
        ),
        ("datagram", quoted.clone(), Pass),
        (
            "an error about it",
            port_unreachable(PLC, HMI, &quoted),
            Pass,
        ),
        (
            "an error about it to another",
            port_unreachable(PLC, STRANGER, &quoted),
            Drop(Reason::IcmpErrorWithoutFlow),
        ),
        ("its answer", udp((PLC, 5000), (HMI, 41_000)), Pass),
        ("the next one", quoted.clone(), Pass),
        (
            "an error about the answer",
            port_unreachable(HMI, PLC, &udp((PLC, 5000), (HMI, 41_000))),
            Pass,
        ),
        (
            "an answer unasked",
            udp((PLC, 5000), (HMI, 41_001)),
            Drop(Reason::NoConduit),
        ),
    ]);
}

#[test]
fn the_gateway_is_a_zone() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "to the gateway",
            tcp((STRANGER, 1), (GATEWAY, 22)).flags(SYN),
            Pass,
        ),
        (
            "to the gateway, more",
            tcp((STRANGER, 1), (GATEWAY, 22)).payload([1]),
            Pass,
        ),
        (
            "to the gateway's echo",
            echo_request(STRANGER, GATEWAY, 1, 1),
            Pass,
        ),
        (
            "to the gateway, wrong port",
            tcp((HMI, 1), (GATEWAY, 23)).flags(SYN),
            Drop(Reason::NoConduit),
        ),
        (
            "to the gateway, wrong zone",
            tcp((PLC, 1), (GATEWAY, 22)).flags(SYN),
            Drop(Reason::NoConduit),
        ),
        (
            "answer to the gateway",
            udp((PLC, 123), (GATEWAY, 123)),
            Pass,
        ),
        (
            "no answer to the gateway",
            udp((HMI, 123), (GATEWAY, 123)),
            Drop(Reason::NoConduit),
        ),
    ]);
}

#[test]
fn a_frame_cut_short_never_passes() {
    let mut bench = bench!(&broad());
    for (name, frame) in [
        (
            "TCP",
            tcp((HMI, 1), (PLC, 80))
                .flags(SYN)
                .tcp_options(&[2, 4, 5, 180]),
        ),
        ("TCP, IPv6", tcp((HMI_V6, 1), (PLC_V6, 80)).flags(SYN)),
        (
            "options",
            tcp((HMI, 2), (PLC, 80))
                .flags(SYN)
                .ipv4_options(&[148, 4, 0, 0]),
        ),
        ("UDP", udp((HMI, 1), (PLC, 5000)).payload([1, 2, 3])),
        ("UDP, IPv6", udp((HMI_V6, 1), (PLC_V6, 5000)).hop_by_hop()),
        ("echo", echo_request(HMI, PLC, 1, 1)),
        ("echo, IPv6", echo_request(HMI_V6, PLC_V6, 1, 1)),
        ("ARP", arp_request(v4(10, 5), v4(10, 66))),
        ("VLAN", arp_request(v4(30, 1), v4(10, 5)).vlan2(100, 20)),
    ] {
        let whole = frame.build();
        for length in 14..whole.len() {
            let (action, _) = bench.give(&whole[..length]);
            if action != XDP_DROP {
                bench.complain(name, &format!("action {action} on {length} bytes"));
            }
        }
        bench.events();
        bench.expect(name, &whole, Pass);
    }
    bench.finish();
}

#[test]
fn every_function_code_passes_where_all_are_allowed() {
    let mut bench = bench!(&dosing(r#""all""#));
    for (family, port) in FAMILIES.into_iter().zip(50_000..) {
        let mut talk = Talk::open(&mut bench, family, port);
        for function in 0..=255_u8 {
            let name = format!("function {function}");
            let transaction = u16::from(function);
            let request = adu(transaction, 1, modbus::request(function));
            talk.ask(&mut bench, &name, &request, Pass);
            talk.answer(
                &mut bench,
                &name,
                &adu(transaction, 1, [function | 0x80, 1]),
            );
        }
        let fin = talk.hmi_sends(&[]).flags(FIN | ACK).build();
        bench.expect("FIN", &fin, Pass);
        talk.next.0 = talk.next.0.wrapping_add(1);
        let fin = talk.plc_sends(&[]).flags(FIN | ACK).build();
        bench.expect("FIN of the responder", &fin, Pass);
        talk.next.1 += 1;
        bench.expect("the last ACK", &talk.hmi_sends(&[]).build(), Pass);
    }
    bench.finish();
}

/// [`dosing`] without a limit of new flows, and with other keys of the conduit.
fn unhurried(functions: &str, keys: &str) -> String {
    let keys = format!("{DOSING}new_flows = \"unlimited\"\n{keys}");
    dosing(functions).replace(DOSING, &keys)
}

#[test]
fn every_function_code_is_reset_where_none_is_allowed() {
    let mut bench = bench!(&unhurried(r#""read-coils""#, ""));
    for family in FAMILIES {
        for function in (0..=255_u8).filter(|function| *function != 1) {
            let name = format!("function {function}");
            let port = 50_000 + u16::from(function);
            let talk = Talk::open(&mut bench, family, port);
            let request = adu(1, 1, modbus::request(function));
            talk.denied(&mut bench, &name, &request, Reason::FunctionNotAllowed);
        }
        let talk = Talk::open(&mut bench, family, 49_000);
        let request = adu(1, 2, modbus::read(1, 0, 1));
        talk.denied(&mut bench, "unit", &request, Reason::UnitNotAllowed);
        let talk = Talk::open(&mut bench, family, 49_001);
        let request = modbus::with_header(1, 1, 6, 1, &modbus::read(1, 0, 1));
        talk.denied(&mut bench, "protocol", &request, Reason::ModbusProtocolId);
        let talk = Talk::open(&mut bench, family, 49_002);
        let request = modbus::with_header(1, 0, 7, 1, &modbus::read(1, 0, 1));
        talk.denied(
            &mut bench,
            "length",
            &[&request[..], &[0]].concat(),
            Reason::ModbusLengthMismatch,
        );
        let talk = Talk::open(&mut bench, family, 49_003);
        let request = modbus::with_header(1, 0, 255, 1, &modbus::read(1, 0, 1));
        talk.denied(&mut bench, "too long", &request, Reason::ModbusLength);
    }
    bench.finish();
}

#[test]
fn a_denied_request_may_be_dropped_alone() {
    let mut bench = bench!(&unhurried(r#""reads""#, "on_deny = \"drop\"\n"));
    let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    talk.ask(
        &mut bench,
        "write",
        &write,
        Drop(Reason::FunctionNotAllowed),
    );
    talk.ask(
        &mut bench,
        "write again",
        &write,
        Drop(Reason::FunctionNotAllowed),
    );
    talk.ask(&mut bench, "read", &adu(2, 1, modbus::read(3, 0, 1)), Pass);
    bench.finish();
}

#[test]
fn an_adu_is_judged_however_it_is_cut() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let mut port = 50_000;
    for (request, is_allowed) in [
        (adu(1, 1, modbus::read(3, 0, 10)), true),
        (adu(1, 1, modbus::write_single(6, 0, 10)), false),
        (adu(1, 1, modbus::write_registers(0, &[1, 2, 3])), false),
    ] {
        for cut in 1..request.len() {
            port += 1;
            let name = format!("cut at {cut}, allowed {is_allowed}");
            let mut talk = Talk::open(&mut bench, FAMILIES[usize::from(port % 2)], port);
            let (first, second) = request.split_at(cut);
            // The eighth byte is the function code.
            if is_allowed || cut < 8 {
                talk.ask(&mut bench, &name, first, Pass);
            }
            if is_allowed {
                talk.ask(&mut bench, &name, second, Pass);
                talk.ask(&mut bench, &name, &request, Pass);
            } else {
                let rest = if cut < 8 { second } else { first };
                talk.denied(&mut bench, &name, rest, Reason::FunctionNotAllowed);
            }
        }
    }
    bench.finish();
}

/// What a server answers to reads of registers and to single writes.
fn replies(requests: &[u8]) -> Vec<u8> {
    let reply = |request: &[u8]| match request[7] {
        3 | 4 => {
            let bytes = request[11] * 2;
            let head = [&request[..5], &[bytes + 3], &request[6..8], &[bytes]].concat();
            [head, vec![0; usize::from(bytes)]].concat()
        }
        _ => request.to_vec(),
    };
    requests.chunks(12).flat_map(reply).collect()
}

#[test]
fn many_adus_share_a_segment() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    talk.ask(&mut bench, "16", &read.repeat(16), Pass);
    talk.answer(&mut bench, "answers", &replies(&read.repeat(16)));
    let last = [read.repeat(15), write].concat();
    talk.denied(
        &mut bench,
        "the 16th denied",
        &last,
        Reason::FunctionNotAllowed,
    );
    let talk = Talk::open(&mut bench, FAMILIES[1], 50_000);
    let many = read.repeat(17);
    talk.denied(&mut bench, "too many", &many, Reason::TooManyOutstanding);
    bench.finish();
}

#[test]
fn a_repeated_segment_must_be_the_same() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    for (family, port) in FAMILIES.into_iter().zip(50_000..) {
        let mut talk = Talk::open(&mut bench, family, port);
        let read = adu(1, 1, modbus::read(3, 0, 1));
        let before = talk;
        talk.ask(&mut bench, "first", &read, Pass);
        bench.expect("again", &before.hmi_sends(&read).build(), Pass);
        bench.expect("a part again", &before.hmi_sends(&read[..5]).build(), Pass);
        let more = [&read[..], &read[..]].concat();
        bench.expect("again and more", &before.hmi_sends(&more).build(), Pass);
        talk.next.0 = talk.next.0.wrapping_add(u32::try_from(read.len()).unwrap());
        let mut later = talk;
        later.next.0 = later.next.0.wrapping_add(1);
        let early = later.hmi_sends(&read).build();
        bench.expect("ahead", &early, Drop(Reason::OutOfOrder));
        talk.ask(&mut bench, "in order", &read, Pass);
        let mut changed = read.clone();
        changed[7] = 6;
        let changed = before.hmi_sends(&changed).build();
        let want = Want::Reset(Reason::ChangedRetransmission);
        let out = bench.expect("changed", &changed, want);
        let reset = talk.hmi_sends(&[]).flags(RST | ACK).window(0).build();
        if out != reset {
            bench.complain("changed", &format!("reset {out:02x?}, not {reset:02x?}"));
        }
        talk.is_ended(&mut bench, "after the change", &read);
        let talk = Talk::open(&mut bench, family, port + 100);
        let urgent = talk.hmi_sends(&read).flags(ACK | URG).urgent(1).build();
        bench.expect("urgent", &urgent, Want::Reset(Reason::UrgentData));
    }
    bench.finish();
}

#[test]
fn in_mode_observe_everything_passes_and_is_reported() {
    let observing = PLANT.replace(
        "[zones.operations]",
        "[settings]\nmode = \"observe\"\n\n[zones.operations]",
    );
    let mut bench = bench!(&unhurried(r#""reads""#, "").replace(PLANT, &observing));
    let stray = tcp((OUTSIDER, 1), (PLC, 80)).flags(SYN).build();
    bench.expect("stranger", &stray, Observed(Reason::SpoofedSource));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    for policy in [None, Some(unhurried(r#""reads""#, "mode = \"observe\"\n"))] {
        if let Some(policy) = policy {
            bench.apply(&policy);
        }
        let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
        talk.ask(
            &mut bench,
            "write",
            &write,
            Observed(Reason::FunctionNotAllowed),
        );
        talk.ask(&mut bench, "read", &read, Pass);
        talk.ask(
            &mut bench,
            "write again",
            &write,
            Observed(Reason::FunctionNotAllowed),
        );
        talk.ask(&mut bench, "read again", &read, Pass);
        talk.answer(&mut bench, "answer", &replies(&read));
        bench.forget_flows();
    }
    bench.expect("stranger", &stray, Drop(Reason::SpoofedSource));
    bench.finish();
}

#[test]
fn a_reload_judges_flows_anew() {
    let all = unhurried(r#""all""#, "udp = [5000]\n");
    let mut bench = bench!(&all);
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let question = udp((HMI, 1), (PLC, 5000)).build();
    let answer = udp((PLC, 5000), (HMI, 1)).build();
    let mut goes_on = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let mut narrowed = Talk::open(&mut bench, FAMILIES[0], 50_001);
    let ended = Talk::open(&mut bench, FAMILIES[1], 50_002);
    let told_late = Talk::open(&mut bench, FAMILIES[1], 50_003);
    bench.expect("question", &question, Pass);
    bench.expect("answer", &answer, Pass);
    goes_on.ask(&mut bench, "write", &write[..9], Pass);
    bench.apply(&all);
    goes_on.ask(&mut bench, "the write's end", &write[9..], Pass);
    goes_on.answer(&mut bench, "its answer", &replies(&write));
    narrowed.ask(&mut bench, "write", &write, Pass);
    bench.expect("question", &question, Pass);
    bench.apply(&unhurried(r#""reads""#, ""));
    narrowed.denied(&mut bench, "write", &write, Reason::FunctionNotAllowed);
    bench.expect("question", &question, Drop(Reason::PolicyChanged));
    let other = format!("{PLANT}{DOSING}tcp = [80]\n");
    bench.apply(&other);
    ended.denied(&mut bench, "no conduit left", &write, Reason::PolicyChanged);
    let late = told_late.plc_sends(&write).build();
    bench.expect("the responder first", &late, Drop(Reason::PolicyChanged));
    let reset = told_late.hmi_sends(&write).build();
    bench.expect("then the initiator", &reset, Want::Reset(Reason::FlowEnded));
    told_late.is_ended(&mut bench, "both told", &write);
    bench.finish();
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() {
    const NEW: u32 = 70_000;
    let more = r#"
[[conduits]]
name = "telemetry"
from = ["operations"]
to = ["plc-dosing"]
rationale = "Measurements"
udp = [5000]
new_flows = "unlimited"
"#;
    let mut bench = bench!(&format!("{}{more}", dosing(r#""reads""#)));
    let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let ends = |number: u32| -> (SocketAddr, SocketAddr) {
        let port = u16::try_from(1024 + number % 32_768).unwrap();
        let bank = u8::try_from(number / 32_768).unwrap();
        (
            (Ipv4Addr::new(10, 10, 0, 100 + bank), port).into(),
            (PLC, 5000).into(),
        )
    };
    let mut kept = Vec::new();
    let before = bench.counts();
    for number in 0..NEW {
        let (from, to) = ends(number);
        let (asked, _) = bench.give(&udp(from, to).build());
        let (answered, _) = bench.give(&udp(to, from).build());
        if asked != XDP_PASS {
            bench.complain("question", &format!("number {number}: {asked}"));
        }
        if answered == XDP_PASS {
            kept.push(number);
        }
        if number % 4096 == 0 {
            bench.events();
        }
    }
    bench.events();
    let after = bench.counts();
    let reason = usize::from(Reason::FlowTableFull.number());
    let full = |counts: &[(u64, u64)]| -> u64 {
        counts
            .iter()
            .skip(reason)
            .step_by(64)
            .map(|count| count.0)
            .sum()
    };
    let refused = full(&after) - full(&before);
    assert_eq!(refused + kept.len() as u64, u64::from(NEW));
    assert!(
        kept.len() >= usize::try_from(FLOWS).unwrap(),
        "{} flows",
        kept.len()
    );
    println!("{} of {NEW} flows kept in a table for {FLOWS}", kept.len());
    for number in kept {
        let (from, to) = ends(number);
        let (answered, _) = bench.give(&udp(to, from).build());
        if answered != XDP_PASS {
            bench.complain("kept", &format!("flow {number} is forgotten"));
        }
    }
    talk.ask(&mut bench, "the first flow", &read, Pass);
    talk.answer(&mut bench, "its answer", &replies(&read));
    bench.finish();
}

fn segment(from: SocketAddr, to: SocketAddr, flags: u8, (seq, ack): (u32, u32)) -> Frame {
    tcp(from, to).flags(flags).seq(seq).ack(ack)
}

#[test]
fn a_handshake_takes_three_segments_of_the_right_numbers() {
    let mut bench = bench!(&broad());
    for (hmi, plc) in FAMILIES {
        let (hmi, plc) = ((hmi, 40_000).into(), (plc, 80).into());
        let there = |flags: u8, seq: u32, ack: u32| segment(hmi, plc, flags, (seq, ack));
        let back = |flags: u8, seq: u32, ack: u32| segment(plc, hmi, flags, (seq, ack));
        bench.all(&[
            ("SYN", there(SYN, 9, 0), Pass),
            ("SYN again", there(SYN, 9, 0), Pass),
            (
                "data too early",
                there(ACK, 10, 500).payload([1]),
                Drop(Reason::NoFlow),
            ),
            (
                "answer to another",
                back(SYN | ACK, 499, 11),
                Drop(Reason::NoFlow),
            ),
            (
                "answer with data",
                back(SYN | ACK, 499, 10).payload([1]),
                Drop(Reason::NoFlow),
            ),
            ("SYN ACK", back(SYN | ACK, 499, 10), Pass),
            ("SYN ACK again", back(SYN | ACK, 499, 10), Pass),
            ("ACK of another", there(ACK, 10, 501), Drop(Reason::NoFlow)),
            ("ACK elsewhere", there(ACK, 11, 500), Drop(Reason::NoFlow)),
            ("ACK", there(ACK, 10, 500), Pass),
            ("data", there(PSH | ACK, 10, 500).payload([1, 2, 3]), Pass),
            ("data back", back(PSH | ACK, 500, 13).payload([1, 2]), Pass),
            ("FIN", there(FIN | ACK, 13, 502), Pass),
            (
                "data after FIN",
                there(ACK, 14, 502).payload([1]),
                Drop(Reason::DataAfterFin),
            ),
            (
                "data to the closed side",
                back(ACK, 502, 14).payload([1]),
                Pass,
            ),
            ("FIN back", back(FIN | ACK, 503, 14), Pass),
            ("last ACK", there(ACK, 14, 504), Pass),
            ("SYN anew", there(SYN, 90_000, 0), Pass),
            ("refused", back(RST | ACK, 0, 90_001), Pass),
        ]);
    }
}

#[test]
fn an_event_says_what_was_asked_for() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let write = adu(77, 1, modbus::write_single(6, 1234, 5));
    bench.give(&talk.hmi_sends(&write).build());
    let events = bench.events();
    let [event] = &events[..] else {
        panic!("{} events", events.len())
    };
    let asked = event.operation;
    assert_eq!((event.source_port, event.destination_port), (50_000, 502));
    assert_eq!(
        (event.protocol, event.direction, event.transport),
        (1, 1, 6)
    );
    assert_eq!(
        (asked.transaction_id, asked.unit, asked.function),
        (77, 1, 6)
    );
    assert_eq!((asked.protocol_id, asked.length), (0, 6));
    assert_ne!(asked.fields & field::ADDRESS, 0, "{asked:?}");
    assert_eq!(asked.address, 1234);
}

#[test]
fn new_flows_come_no_faster_than_allowed() {
    let mut bench = bench!(&format!(
        "{PLANT}{DOSING}tcp = [80]\nnew_flows = \"1/s burst 50\"\n"
    ));
    for number in 0..60 {
        let syn = tcp((HMI, 2000 + number), (PLC, 80)).flags(SYN).build();
        let want = if number < 50 {
            Pass
        } else {
            Drop(Reason::NewFlowRate)
        };
        bench.expect(&format!("flow {number}"), &syn, want);
    }
    bench.finish();
}

#[test]
fn more_inspected_flows_than_there_is_memory_for_are_refused() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let mut first = Talk::open(&mut bench, FAMILIES[0], 1024);
    let mut refused = 0;
    for port in 1025..1024 + 3 * u16::try_from(STREAMS).unwrap() {
        let (hmi, plc) = ((HMI, port).into(), (PLC, 502).into());
        let opening = [
            segment(hmi, plc, SYN, (9, 0)),
            segment(plc, hmi, SYN | ACK, (499, 10)),
        ];
        for frame in opening {
            if bench.give(&frame.build()).0 != XDP_PASS {
                bench.complain("opening", &format!("port {port}"));
            }
        }
        let (confirmed, _) = bench.give(&segment(hmi, plc, ACK, (10, 500)).build());
        if confirmed != XDP_PASS {
            refused += 1;
            let reasons: Vec<u8> = bench.events().iter().map(|event| event.reason).collect();
            if reasons != [Reason::FlowTableFull.number()] {
                bench.complain("full", &format!("port {port}: {reasons:?}"));
            }
        }
    }
    assert!(refused >= 2 * STREAMS - 1, "{refused} flows refused");
    first.ask(&mut bench, "the first flow", &read, Pass);
    first.answer(&mut bench, "its answer", &replies(&read));
    bench.finish();
}

#[test]
fn a_flow_is_ended_once_whichever_way_it_is_repeated() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    for (family, port) in FAMILIES.into_iter().zip(50_000..) {
        let mut talk = Talk::open(&mut bench, family, port);
        talk.ask(&mut bench, "read", &read, Pass);
        talk.answer(&mut bench, "answer", &replies(&read));
        talk.denied(
            &mut bench,
            "read and write",
            &[&read[..], &write].concat(),
            Reason::FunctionNotAllowed,
        );
        talk.is_ended(&mut bench, "read", &read);
        let reset = talk.hmi_sends(&[]).flags(RST).build();
        bench.expect("reset", &reset, Drop(Reason::FlowEnded));
        // The same ports, anew.
        let mut talk = Talk::open(&mut bench, family, port);
        talk.ask(&mut bench, "read anew", &read, Pass);
        let stray = talk.plc_sends(&[]).flags(RST).build();
        bench.expect("the responder's reset", &stray, Pass);
        talk.ask(&mut bench, "after it", &read, Drop(Reason::NoFlow));
    }
    bench.finish();
}

/// On a thread with a network namespace of its own, which ends with it.
#[test]
fn the_program_attaches_in_native_mode_to_veth() {
    let mut bench = bench!(&broad());
    let ebpf = &mut bench.ebpf;
    std::thread::scope(|scope| {
        let attached = scope.spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let ip = |words: &str| {
                let output = std::process::Command::new("ip")
                    .args(words.split_whitespace())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "ip {words}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            ip("link add cfw-a type veth peer name cfw-b");
            let program: &mut Xdp = ebpf.program_mut("conduitfw").unwrap().try_into().unwrap();
            let link = program.attach("cfw-a", XdpMode::Driver).unwrap();
            let shown = ip("link show dev cfw-a");
            program.detach(link).unwrap();
            shown
        });
        let shown = attached.join().unwrap();
        assert!(shown.contains("prog/xdp"), "{shown}");
        assert!(!shown.contains("xdpgeneric"), "{shown}");
    });
}

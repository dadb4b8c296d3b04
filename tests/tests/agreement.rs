//! The kernel and the simulator agree: the same frames through both, one by one, with the same
//! policy, end in the same action, the same reason, the same event and the same bytes.
//!
//! `CONDUITFW_AGREEMENT_FRAMES` is the number of changed frames (100,000 unless said),
//! `CONDUITFW_AGREEMENT_SEED` where the chance starts from, `CONDUITFW_CAPTURES` a directory of
//! captures (pcap, Ethernet) that are sent as well.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, helpers included, ends where it fails"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use conduitfw::policy::{CompiledTables, Ids, Surroundings, compile, load_text};
use conduitfw::simulator::{Judged, Outcome, Simulator};
use conduitfw_common::event::EventRecord;
use conduitfw_common::table::{
    ABI_VERSION, Conduit, Counter, FUNCTIONS, Generation, Interface, InterfaceKey, Interval,
    MAX_CONDUITS, MAX_INTERVALS, MAX_OPERATION_ROWS, MAX_RULE_SETS, MAX_SERVICES, Network,
    NetworkKey, Operation, Pair, PairKey, RuleSet, Service, Settings,
};
use conduitfw_common::{REASON_SLOTS, Reason};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{
    ACK, FIN, Frame, PSH, RST, SYN, URG, arp_reply, arp_request, echo_reply, echo_request,
    ethernet, ip, neighbour_advertisement, neighbour_solicitation, packet_too_big,
    port_unreachable, tcp, udp,
};
use conduitfw_tests::lab::{ebpf_object, skipped_without_root};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
/// Frames given to the program without a context come in on the loopback interface.
const LOOPBACK: u32 = 1;
/// An Ethernet header: the kernel takes no shorter frame.
const SHORTEST: usize = 14;
/// What fits in one page with the room that XDP keeps free.
const LONGEST: usize = 3500;
/// So many that nothing is evicted: which flow is the oldest depends on the clock.
const BUCKETS: u32 = 16_384;
const STREAMS: u32 = 8192;
const WAYS: u32 = 8;

const POLICY: &str = r#"
[site]
name = "agreement"
[settings.timeouts]
tcp_established = "7d"
tcp_opening = "7d"
tcp_closing = "7d"
datagram = "7d"
datagram_opening = "7d"
[gateway]
addresses = ["10.10.0.1", "fd00:10::1"]
[zones.control]
interfaces = ["lo"]
networks = ["10.10.0.0/24", "fd00:10::/64"]
vlans = ["untagged", 10, "100.10"]
[zones.field]
interfaces = ["lo"]
networks = ["10.20.0.0/24", "fd00:20::/64"]
vlans = ["any"]
[assets.hmi]
zone = "control"
addresses = ["10.10.0.5", "fd00:10::5"]
[assets.plc]
zone = "field"
addresses = ["10.20.0.10", "fd00:20::10"]
[assets.pump]
zone = "field"
address = "10.20.0.11"
[assets.valve]
zone = "field"
address = "10.20.0.12"
[[conduits]]
name = "hmi-plc"
from = ["hmi"]
to = ["plc"]
rationale = "test"
new_flows = "unlimited"
[[conduits.modbus]]
port = 502
units = [1, "3-5"]
functions = ["reads", 6, 8, 16, 43]
sub_functions = [0, "10-12"]
mei_types = [14]
[[conduits]]
name = "hmi-pump"
from = ["hmi"]
to = ["pump"]
rationale = "test"
on_deny = "drop"
new_flows = "unlimited"
[[conduits.modbus]]
port = 502
units = "all"
functions = ["reads", 15, 23]
[[conduits]]
name = "hmi-valve"
from = ["hmi"]
to = ["valve"]
rationale = "test"
mode = "observe"
new_flows = "unlimited"
[[conduits.modbus]]
port = 502
units = [1]
functions = [3]
[[conduits]]
name = "control-field"
from = ["control"]
to = ["field"]
rationale = "test"
new_flows = "unlimited"
tcp = [4840, "5000-5010"]
udp = [47808]
icmp_echo = true
[[conduits]]
name = "control-gateway"
from = ["control"]
to = ["gateway"]
rationale = "test"
new_flows = "unlimited"
tcp = [22]
icmp_echo = true
"#;

/// For captures: whoever speaks Modbus to whomever.
const CAPTURE_POLICY: &str = r#"
[site]
name = "captures"
[settings.timeouts]
tcp_opening = "7d"
tcp_closing = "7d"
datagram = "7d"
datagram_opening = "7d"
[gateway]
addresses = ["192.0.2.1"]
[zones.here]
interfaces = ["lo"]
networks = ["1.0.0.0/8", "2.0.0.0/7", "4.0.0.0/6", "8.0.0.0/5", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/3", "96.0.0.0/4", "112.0.0.0/5", "128.0.0.0/3", "160.0.0.0/5", "172.0.0.0/6", "176.0.0.0/4", "192.0.0.0/4", "208.0.0.0/4", "2000::/3", "fc00::/7"]
vlans = ["any"]
[[conduits]]
name = "anybody"
from = ["here"]
to = ["here"]
rationale = "test"
new_flows = "unlimited"
udp = ["1-65535"]
icmp_echo = true
[[conduits.modbus]]
port = 502
units = "all"
functions = ["all"]
sub_functions = "all"
mei_types = "all"
"#;

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> M {
    M::try_from(ebpf.take_map(name).unwrap()).unwrap()
}

fn raw<const N: usize>(value: &(impl IntoBytes + Immutable)) -> [u8; N] {
    value.as_bytes().try_into().unwrap()
}

/// Writes rows into an array map from an index on.
fn write<T: IntoBytes + Immutable, const N: usize>(
    ebpf: &mut Ebpf,
    name: &str,
    first: u32,
    rows: impl IntoIterator<Item = T>,
) {
    let map = ebpf.map_mut(name).unwrap();
    let mut map: Array<&mut MapData, [u8; N]> = map.try_into().unwrap();
    for (index, row) in (first..).zip(rows) {
        map.set(index, raw(&row), 0).unwrap();
    }
}

/// Writes rows into an array map for a slot.
macro_rules! write_run {
    ($ebpf:expr, $name:literal, $first:expr, $type:ty, $rows:expr) => {
        write::<$type, { size_of::<$type>() }>($ebpf, $name, $first, $rows)
    };
}

/// The kernel's program and the simulator, side by side.
struct SideBySide {
    ebpf: Ebpf,
    counters: PerCpuArray<MapData, [u8; size_of::<Counter>()]>,
    events: RingBuf<MapData>,
    simulator: Simulator,
    /// What the counters must say.
    counted: BTreeMap<u32, (u64, u64)>,
    sent: u64,
}

impl SideBySide {
    fn new(policy: &str) -> Self {
        let settings = Settings {
            hash_keys: std::array::from_fn(|index| {
                (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            }),
            abi_version: ABI_VERSION,
            flow_bucket_mask: BUCKETS - 1,
            opening_bucket_mask: BUCKETS - 1,
            stream_mask: STREAMS - 1,
            adopt_until_ticks: 0,
        };
        let loaded = load_text("agreement.toml", policy)
            .unwrap_or_else(|refusal| panic!("{}", refusal.render()));
        let surroundings = Surroundings {
            ticks_per_second: 250,
            gateway_addresses: Vec::new(),
            generation: 1,
        };
        let tables = compile(&loaded.policy, &mut Ids::default(), &surroundings)
            .unwrap_or_else(|refusal| panic!("{}", refusal.render()));
        let mut simulator = Simulator::new(settings);
        let indexes = BTreeMap::from([("lo".to_owned(), LOOPBACK)]);
        simulator.apply(&tables, &indexes);
        let mut ebpf = load();
        write_run!(&mut ebpf, "SETTINGS", 0, Settings, [settings]);
        write_tables(&mut ebpf, simulator.slot_in_force(), &tables);
        Self {
            counters: take(&mut ebpf, "COUNTERS"),
            events: take(&mut ebpf, "EVENTS"),
            ebpf,
            simulator,
            counted: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Sends a frame through both.
    fn send(&mut self, frame: &[u8]) -> Option<Judged> {
        if !(SHORTEST..=LONGEST).contains(&frame.len()) {
            return None;
        }
        self.sent += 1;
        let mut bytes = vec![0; LONGEST + 256];
        let program: &mut Xdp = self
            .ebpf
            .program_mut("conduitfw")
            .unwrap()
            .try_into()
            .unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut bytes),
                ..TestRunOptions::new()
            })
            .unwrap();
        bytes.truncate(result.data_size_out as usize);
        let judged = self
            .simulator
            .judge(frame, LOOPBACK, 1_000_000 + self.sent / 4096);
        let event = self
            .events
            .next()
            .map(|item| EventRecord::read_from_bytes(&item).unwrap());
        let complaint = compare_action(frame, result.return_value, &bytes, &judged)
            .or_else(|| self.compare_counter(frame, &judged))
            .or_else(|| compare_event(frame, event.as_ref(), &judged));
        if let Some(complaint) = complaint {
            panic!(
                "frame {}: {complaint}\nsimulator: {judged:?} ({:?})\nkernel: action {}, counted {}, event {event:?}\nframe: {}",
                self.sent,
                judged.judgement.reason(),
                result.return_value,
                self.surplus(),
                hex(frame),
            );
        }
        Some(judged)
    }

    /// Each frame adds to exactly one counter: the one that the simulator expects.
    fn compare_counter(&mut self, frame: &[u8], judged: &Judged) -> Option<String> {
        let judgement = judged.judgement;
        let reason = if judgement.is_observed() {
            0
        } else {
            judgement.reason_number()
        };
        let index = u32::from(judgement.conduit()) * REASON_SLOTS + u32::from(reason);
        let counted = self.counted.entry(index).or_default();
        let wanted = (counted.0 + 1, counted.1 + frame.len() as u64);
        let found = count(&self.counters, index);
        if found != wanted {
            return Some(format!("counter {index} is {found:?}, not {wanted:?}"));
        }
        *counted = wanted;
        None
    }

    /// The counters that are not as expected: what the kernel did instead.
    fn surplus(&self) -> String {
        let is_other = |index: &u32| {
            let expected = self.counted.get(index).copied().unwrap_or_default();
            count(&self.counters, *index) != expected
        };
        let others = (0..MAX_CONDUITS * REASON_SLOTS).filter(is_other);
        let words: Vec<String> = others
            .map(|index| {
                let reason = u8::try_from(index % REASON_SLOTS).unwrap();
                let reason = Reason::from_number(reason);
                format!("conduit {} {reason:?}", index / REASON_SLOTS)
            })
            .collect();
        words.join(", ")
    }

    /// How often each rule allowed an operation, and the tags of every flow.
    fn compare_rest(&mut self) {
        let rules: PerCpuArray<&MapData, u64> = self.ebpf.map("RULES").unwrap().try_into().unwrap();
        for rule in 0..64 {
            let found: u64 = rules.get(&u32::from(rule), 0).unwrap().iter().sum();
            assert_eq!(found, self.simulator.rule_count(rule), "rule {rule}");
        }
        for (name, table) in [
            ("FLOW_BUCKETS", conduitfw_common::platform::FlowTable::Flows),
            (
                "OPENING_BUCKETS",
                conduitfw_common::platform::FlowTable::Openings,
            ),
        ] {
            use conduitfw_common::platform::Platform as _;
            let map: Array<&MapData, [u32; 8]> = self.ebpf.map(name).unwrap().try_into().unwrap();
            for bucket in 0..BUCKETS {
                let found = map.get(&bucket, 0).unwrap();
                assert_eq!(
                    Some(&found),
                    self.simulator.bucket(table, bucket),
                    "{name} {bucket}"
                );
            }
        }
    }
}

fn count(counters: &PerCpuArray<MapData, [u8; size_of::<Counter>()]>, index: u32) -> (u64, u64) {
    let values = counters.get(&index, 0).unwrap();
    values.iter().fold((0, 0), |(frames, bytes), value| {
        let counter = Counter::read_from_bytes(value).unwrap();
        (frames + counter.frames, bytes + counter.bytes)
    })
}

fn compare_action(frame: &[u8], action: u32, bytes: &[u8], judged: &Judged) -> Option<String> {
    let (wanted, wanted_bytes) = match &judged.outcome {
        Outcome::Pass => (XDP_PASS, frame),
        Outcome::Drop => (XDP_DROP, frame),
        Outcome::Reset(bytes) => (XDP_PASS, &**bytes),
        Outcome::ResetBack(bytes) => (XDP_REDIRECT, &**bytes),
    };
    if action != wanted {
        return Some(format!("the kernel's action is {action}, not {wanted}"));
    }
    let (found, wanted) = (bytes, wanted_bytes);
    let complain = || format!("the kernel's bytes are {}, not {}", hex(found), hex(wanted));
    (found != wanted).then(complain)
}

fn compare_event(frame: &[u8], event: Option<&EventRecord>, judged: &Judged) -> Option<String> {
    let (judgement, packet) = (judged.judgement, &judged.packet);
    let Some(event) = event else {
        return judgement
            .is_event()
            .then(|| "the kernel sent no event".to_owned());
    };
    if !judgement.is_event() {
        return Some("the kernel sent an event".to_owned());
    }
    let captured = (frame.len() & !7).min(64);
    let operation = (event.operation.fields != 0).then_some(event.operation);
    let wanted = (judged.operation.fields != 0).then_some(judged.operation);
    let same = event.reason == judgement.reason_number()
        && event.verdict == judgement.verdict().number()
        && event.conduit == judgement.conduit()
        && event.direction == judgement.direction_number()
        && event.would_deny == u8::from(judgement.is_observed())
        && (event.source, event.destination) == (packet.source, packet.destination)
        && (event.vlans, event.ether_type, event.transport)
            == (packet.vlans, packet.ether_type, packet.transport)
        && operation == wanted
        && event.captured as usize == captured
        && event.frame.as_bytes().get(..captured) == frame.get(..captured);
    (!same).then(|| "the kernel's event says something else".to_owned())
}

fn load() -> Ebpf {
    let object = ebpf_object();
    let mut loader = EbpfLoader::new();
    for (name, rows) in [
        ("FLOW_BUCKETS", BUCKETS),
        ("FLOWS", BUCKETS * WAYS),
        ("OPENING_BUCKETS", BUCKETS),
        ("OPENINGS", BUCKETS * WAYS),
        ("STREAMS", STREAMS),
    ] {
        loader.map_max_entries(name, rows);
    }
    let mut ebpf = loader.load_file(&object).unwrap_or_else(|error| {
        panic!("{}: {error}: run `cargo xtask ebpf`", object.display());
    });
    let program: &mut Xdp = ebpf.program_mut("conduitfw").unwrap().try_into().unwrap();
    program.load().unwrap();
    ebpf
}

fn write_tables(ebpf: &mut Ebpf, slot: u32, tables: &CompiledTables) {
    let map = ebpf.map_mut("INTERFACES").unwrap();
    let mut interfaces: HashMap<_, [u8; size_of::<InterfaceKey>()], [u8; size_of::<Interface>()]> =
        map.try_into().unwrap();
    for (_, vlans, row) in &tables.interfaces {
        let key = InterfaceKey {
            slot,
            ifindex: LOOPBACK,
            vlans: *vlans,
        };
        interfaces.insert(raw(&key), raw(row), 0).unwrap();
    }
    let map = ebpf.map_mut("NETWORKS").unwrap();
    let mut networks: LpmTrie<_, [u8; size_of::<NetworkKey>()], [u8; size_of::<Network>()]> =
        map.try_into().unwrap();
    for (prefix, address, row) in &tables.networks {
        let key = NetworkKey {
            slot,
            address: *address,
        };
        networks
            .insert(&Key::new(*prefix, raw(&key)), raw(row), 0)
            .unwrap();
    }
    let map = ebpf.map_mut("PAIRS").unwrap();
    let mut pairs: HashMap<_, [u8; size_of::<PairKey>()], [u8; size_of::<Pair>()]> =
        map.try_into().unwrap();
    for (key, row) in &tables.pairs {
        let key = PairKey {
            slot: u16::try_from(slot).unwrap(),
            ..*key
        };
        pairs.insert(raw(&key), raw(row), 0).unwrap();
    }
    let services = tables.services.iter().copied();
    write_run!(ebpf, "SERVICES", slot * MAX_SERVICES, Service, services);
    for (id, row) in &tables.conduits {
        let index = slot * MAX_CONDUITS + u32::from(*id);
        write_run!(ebpf, "CONDUITS", index, Conduit, [*row]);
    }
    let rule_sets = tables.rule_sets.iter().copied();
    write_run!(ebpf, "RULE_SETS", slot * MAX_RULE_SETS, RuleSet, rule_sets);
    let operations = tables.operations.iter().flatten().copied();
    let first = slot * MAX_OPERATION_ROWS * FUNCTIONS;
    write_run!(ebpf, "OPERATIONS", first, Operation, operations);
    let intervals = tables.intervals.iter().copied();
    write_run!(ebpf, "INTERVALS", slot * MAX_INTERVALS, Interval, intervals);
    write_run!(ebpf, "GENERATIONS", slot, Generation, [tables.generation]);
    write_run!(ebpf, "ACTIVE", 0, u32, [slot]);
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// A connection with its numbers kept.
struct Talk {
    client: SocketAddr,
    server: SocketAddr,
    next: [u32; 2],
    frames: Vec<Frame>,
}

impl Talk {
    fn new(client: SocketAddr, server: SocketAddr) -> Self {
        let start = [0xffff_ff00 ^ u32::from(client.port()), 0x7fff_ffff];
        let mut talk = Self {
            client,
            server,
            next: start,
            frames: Vec::new(),
        };
        talk.say(true, SYN, &[]);
        talk.say(false, SYN | ACK, &[]);
        talk.say(true, ACK, &[]);
        talk
    }

    fn segment(&self, up: bool, flags: u8, bytes: &[u8]) -> Frame {
        let (from, to) = if up {
            (self.client, self.server)
        } else {
            (self.server, self.client)
        };
        let [mine, theirs] = if up {
            self.next
        } else {
            [self.next[1], self.next[0]]
        };
        let ack = if flags & ACK == 0 { 0 } else { theirs };
        tcp(from, to).flags(flags).seq(mine).ack(ack).payload(bytes)
    }

    fn say(&mut self, up: bool, flags: u8, bytes: &[u8]) {
        let frame = self.segment(up, flags, bytes);
        self.frames.push(frame);
        let more = u32::try_from(bytes.len()).unwrap() + u32::from(flags & (SYN | FIN) != 0);
        let side = usize::from(!up);
        self.next[side] = self.next[side].wrapping_add(more);
    }

    /// A request in pieces of `size` bytes, and its acknowledgement.
    fn ask(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            self.say(true, PSH | ACK, piece);
        }
        self.say(false, ACK, &[]);
    }

    fn requests(&mut self) {
        for size in [1, 3, 7, 8, 11, 300] {
            self.ask(&adu(1, 1, modbus::read(3, 0, 10)), size);
            self.ask(&adu(2, 3, modbus::write_registers(7, &[1, 2, 3, 4])), size);
        }
        let several: Vec<u8> = (0..5)
            .flat_map(|n| adu(n, 1, modbus::read(3, n, 1)))
            .collect();
        self.ask(&several, 300);
        self.ask(&several, 17);
        self.ask(&adu(6, 1, modbus::diagnostics(0, 0x1234)), 300);
        self.ask(&adu(7, 1, modbus::diagnostics(11, 0)), 9);
        self.ask(&adu(8, 1, modbus::encapsulated(14, &[1, 0])), 300);
        self.ask(&adu(9, 1, modbus::write_registers(0, &[7; 120])), 100);
        self.say(false, PSH | ACK, &adu(9, 1, [16, 0, 0, 0, 120]));
        // A repetition, one that is partly new, and one that is ahead.
        let again = self.frames.iter().rev().nth(1).cloned();
        self.frames.extend(again);
        self.frames.push(
            self.segment(true, ACK, &[])
                .seq(self.next[0].wrapping_add(5))
                .payload([1]),
        );
        self.frames.push(self.segment(true, URG | ACK, &[0]));
    }

    fn close(mut self) -> Vec<Frame> {
        self.say(true, FIN | ACK, &[]);
        self.say(false, FIN | ACK, &[]);
        self.say(true, ACK, &[]);
        self.frames
    }
}

fn v4(host: [u8; 4], port: u16) -> SocketAddr {
    (host, port).into()
}

fn v6(host: &str, port: u16) -> SocketAddr {
    (host.parse::<Ipv6Addr>().unwrap(), port).into()
}

/// Connections and datagrams as the policy knows them; `round` moves the ports.
fn good_frames(round: u16) -> Vec<Frame> {
    let port = 20_000 + (round % 2_000) * 20;
    let (hmi, plc) = ([10, 10, 0, 5], [10, 20, 0, 10]);
    let (hmi6, plc6): (Ipv6Addr, Ipv6Addr) = (
        "fd00:10::5".parse().unwrap(),
        "fd00:20::10".parse().unwrap(),
    );
    let mut frames = Vec::new();
    for (client, server) in [
        (v4(hmi, port), v4(plc, 502)),
        (v6("fd00:10::5", port), v6("fd00:20::10", 502)),
        (v4(hmi, port + 1), v4([10, 20, 0, 11], 502)),
        (v4(hmi, port + 2), v4([10, 20, 0, 12], 502)),
        (v4([10, 10, 0, 9], port + 3), v4(plc, 4840)),
        (v4(hmi, port + 4), v4([10, 10, 0, 1], 22)),
    ] {
        let mut talk = Talk::new(client, server);
        talk.requests();
        frames.extend(talk.close());
    }
    // What is refused, each in its own connection, and what follows.
    for (index, pdu) in [
        modbus::write_single(5, 0, 0xff00),
        modbus::diagnostics(1, 0),
        modbus::encapsulated(13, &[0]),
        vec![3, 0],
    ]
    .into_iter()
    .enumerate()
    {
        let from = port + 6 + u16::try_from(index).unwrap();
        for server in [plc, [10, 20, 0, 11], [10, 20, 0, 12]] {
            let mut talk = Talk::new(v4(hmi, from), v4(server, 502));
            talk.ask(&adu(1, 1, modbus::read(3, 0, 10)), 300);
            talk.ask(&adu(2, 1, &pdu), 300);
            talk.ask(&adu(3, 1, modbus::read(3, 0, 10)), 300);
            frames.extend(talk.close());
        }
        let mut talk = Talk::new(v6("fd00:10::5", from), v6("fd00:20::10", 502));
        talk.ask(&adu(2, 9, &pdu), 5);
        talk.ask(&modbus::with_header(1, 7, 6, 1, &pdu), 300);
        talk.say(true, RST | ACK, &[]);
        frames.extend(talk.frames);
    }
    // A connection under tags and with options.
    let talk = Talk::new(v4(hmi, port + 12), v4(plc, 502));
    frames.extend(
        talk.frames
            .into_iter()
            .map(|frame| frame.vlan(10).tcp_options(&[2, 4, 5, 180])),
    );
    let talk = Talk::new(v6("fd00:10::5", port + 13), v6("fd00:20::10", 502));
    frames.extend(
        talk.frames
            .into_iter()
            .map(|frame| frame.vlan2(100, 10).hop_by_hop()),
    );
    frames.extend(single_frames(port + 14, hmi.into(), plc.into()));
    frames.extend(single_frames(port + 14, hmi6.into(), plc6.into()));
    frames.extend([
        arp_request(hmi.into(), [10, 10, 0, 1].into()),
        arp_reply([10, 10, 0, 1].into(), hmi.into()),
        neighbour_solicitation(hmi6, "fd00:10::1".parse().unwrap()),
        neighbour_advertisement(hmi6, "fd00:10::1".parse().unwrap()),
        ethernet(0x88cc, vec![0; 46]),
        udp((hmi, port), (plc, 47_808)).ipv4_options(&[148, 4, 0, 0]),
        udp((hmi, port), (plc, 47_808)).ipv4_options(&[131, 7, 4, 10, 0, 0, 1]),
        udp((hmi6, port), (plc6, 47_808))
            .hop_by_hop()
            .destination_options(),
        udp((hmi6, port), (plc6, 47_808)).routing(0),
        udp((hmi6, port), (plc6, 47_808)).routing(2).hop_by_hop(),
    ]);
    frames
}

fn single_frames(port: u16, hmi: IpAddr, plc: IpAddr) -> Vec<Frame> {
    let (client, server) = (SocketAddr::new(hmi, port), SocketAddr::new(plc, 47_808));
    let datagram = udp(client, server).payload(vec![5; 40]);
    vec![
        datagram.clone(),
        port_unreachable(plc, hmi, &datagram),
        udp(server, client).payload(vec![6; 20]),
        datagram.clone(),
        packet_too_big(plc, hmi, 1280, &datagram),
        echo_request(hmi, plc, port, 1),
        echo_reply(plc, hmi, port, 1),
        echo_request(plc, hmi, port, 1),
        datagram.clone().fragment(2, true),
        datagram.vlan(7),
        ip(hmi, plc, 47, vec![0; 30]),
        tcp(client, server).flags(SYN),
        tcp(client, SocketAddr::new(plc, 5005)).flags(SYN | FIN),
        tcp(client, SocketAddr::new(plc, 5005))
            .flags(SYN)
            .payload([1]),
    ]
}

/// A small generator (splitmix64): the same frames for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % limit.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        let interesting = [0, 1, 2, 4, 5, 6, 8, 0x10, 0x7f, 0x80, 0xfe, 0xff];
        match self.below(2) {
            0 => interesting[self.below(interesting.len())],
            _ => u8::try_from(self.below(256)).unwrap(),
        }
    }

    fn change(&mut self, frame: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(3) {
            let at = self.below(frame.len());
            match self.below(8) {
                0 => frame.truncate(at.max(SHORTEST)),
                1 => frame.extend_from_slice(&other[self.below(other.len())..]),
                2 => frame[at] ^= 1 << self.below(8),
                3 => {
                    let end = (at + self.below(8)).min(frame.len());
                    for byte in &mut frame[at..end] {
                        *byte = self.byte();
                    }
                }
                4 => {
                    let end = frame.len().min(other.len());
                    let at = at.min(end);
                    frame[at..end].copy_from_slice(&other[at..end]);
                }
                5 => frame.insert(at, self.byte()),
                _ => frame[at] = self.byte(),
            }
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn every_prefix_of_every_good_frame() {
    if skipped_without_root() {
        return;
    }
    let mut both = SideBySide::new(POLICY);
    let mut reasons = BTreeMap::<_, u64>::new();
    for frame in good_frames(0) {
        let frame = frame.build();
        for bytes in SHORTEST..=frame.len() {
            let judged = both.send(&frame[..bytes]).unwrap();
            *reasons.entry(judged.judgement.reason()).or_default() += 1;
        }
    }
    both.compare_rest();
    println!("{} frames: {reasons:?}", both.sent);
    // The frames are what they are meant to be: many pass, and many reasons are seen.
    assert!(reasons.get(&None).is_some_and(|passed| *passed > 200));
    assert!(reasons.len() > 20, "{reasons:?}");
}

#[test]
fn good_frames_changed_at_random() {
    if skipped_without_root() {
        return;
    }
    let wanted = number("CONDUITFW_AGREEMENT_FRAMES", 100_000);
    let seed = number("CONDUITFW_AGREEMENT_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut reasons = BTreeMap::<_, u64>::new();
    let (mut both, mut sent) = (SideBySide::new(POLICY), 0);
    for round in 0.. {
        // New tables before the old ones get crowded.
        if round % 400 == 399 {
            both.compare_rest();
            both = SideBySide::new(POLICY);
        }
        let frames: Vec<Vec<u8>> = good_frames(round).iter().map(Frame::build).collect();
        for (index, frame) in frames.iter().enumerate() {
            let mut changed = frame.clone();
            let other = &frames[chance.below(frames.len())];
            chance.change(&mut changed, other);
            // Most conversations go on, with something odd in between.
            if chance.below(30) != 0 {
                both.send(frame);
            }
            if let Some(judged) = both.send(&changed) {
                *reasons.entry(judged.judgement.reason()).or_default() += 1;
                sent += 1;
            }
            if chance.below(10) == 0 {
                both.send(&frames[chance.below(index + 1)]);
            }
        }
        if sent >= wanted {
            break;
        }
    }
    both.compare_rest();
    println!("{sent} changed frames: {reasons:?}");
    assert!(reasons.len() > 25, "{reasons:?}");
}

#[test]
fn captures() {
    let Some(directory) = std::env::var_os("CONDUITFW_CAPTURES") else {
        println!("no CONDUITFW_CAPTURES: left out");
        return;
    };
    if skipped_without_root() || !Path::new(&directory).exists() {
        return;
    }
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let frames = read_capture(&std::fs::read(&file).unwrap());
        let (mut both, mut left_out) = (SideBySide::new(CAPTURE_POLICY), 0);
        let mut reasons = BTreeMap::<_, u64>::new();
        for frame in &frames {
            match both.send(frame) {
                Some(judged) => *reasons.entry(judged.judgement.reason()).or_default() += 1,
                None => left_out += 1,
            }
        }
        both.compare_rest();
        let count = frames.len();
        println!(
            "{}: {count} frames, {left_out} left out: {reasons:?}",
            file.display()
        );
    }
}

/// The frames of a capture in the classic format with an Ethernet link; none of any other.
fn read_capture(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some((header, mut rest)) = bytes.split_at_checked(24) else {
        return Vec::new();
    };
    let is_swapped = matches!(header[..4], [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d]);
    let number = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().unwrap();
        if is_swapped {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    if number(&header[..4]) & 0xffff_0000 != 0xa1b2_0000 || number(&header[20..]) != 1 {
        return Vec::new();
    }
    let mut frames = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let Some((frame, after)) = after.split_at_checked(number(&record[8..12]) as usize) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

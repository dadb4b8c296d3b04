//! The headers that a frame leaves with: addresses, tags, hops and checksums, in a world of ordinary
//! memory around the code of the kernel program.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conduitfw_common::bytes::{ByteSource, Truncated};
use conduitfw_common::forward::{
    KNOWN_WAYS, Kept, KnownWay, NextHop, Port, Query, Ways, finish_checksum, forward,
    forward_as_before, port_flag,
};
use conduitfw_common::packet::{self, Packet};
use conduitfw_common::reset::FrameEditor;
use conduitfw_common::table::Address;
use conduitfw_tests::frames::{self, ACK, Frame, PSH, SERVICE_VLAN, VLAN, internet_checksum};

const HMI: [u8; 6] = [2, 0, 0, 0, 0, 1];
const INSIDE: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const OUTSIDE: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
const PLC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const V4: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(10, 10, 0, 5)),
    IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10)),
);
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 5)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 10)),
);
/// Tags as (outer, inner), 0 for none.
const TAGS: [(u16, u16); 3] = [(0, 0), (10, 0), (100, 20)];
/// Interfaces, and the devices of their VLANs.
const IN: u32 = 2;
const OUT: u32 = 3;

/// A gateway with an interface on each side, and what its kernel would say.
struct World {
    ifindex: u32,
    frame: Vec<u8>,
    ports: HashMap<u32, Port>,
    tagged: HashMap<(u32, u32), u32>,
    hop: Result<u32, Kept>,
    is_at_home: bool,
    has_room: bool,
    route_mtu: u32,
    known: HashMap<u32, KnownWay>,
    ticks: u64,
    generation: u32,
    asked: std::cell::Cell<Option<(u32, u16)>>,
}

fn port(device: u32, port: u32, vlans: u32, address: [u8; 6]) -> Port {
    let (high, low) = address.split_at(4);
    Port {
        device,
        port,
        vlans,
        tag_types: if vlans.trailing_zeros() >= 16 {
            u32::from(VLAN) << 16
        } else {
            u32::from(SERVICE_VLAN) << 16 | u32::from(VLAN)
        },
        mtu: 1500,
        address_high: word(high),
        address_low: word(low),
        flags: port_flag::TAKES,
        ..Port::default()
    }
}

/// Bytes as a number.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// How many bytes there are.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn vlans((outer, inner): (u16, u16)) -> u32 {
    u32::from(outer) << 16 | u32::from(inner)
}

impl World {
    /// A world that forwards from tags to tags.
    fn new(frame: Vec<u8>, inlet: (u16, u16), outlet: (u16, u16)) -> Self {
        let mut world = Self {
            ifindex: IN,
            frame,
            ports: HashMap::from([
                (IN, port(IN, IN, 0, INSIDE)),
                (OUT, port(OUT, OUT, 0, OUTSIDE)),
            ]),
            tagged: HashMap::new(),
            hop: Ok(OUT),
            is_at_home: true,
            has_room: true,
            route_mtu: 1500,
            known: HashMap::new(),
            ticks: 7,
            generation: 3,
            asked: std::cell::Cell::default(),
        };
        if inlet != (0, 0) {
            world.ports.insert(12, port(12, IN, vlans(inlet), INSIDE));
            world.tagged.insert((IN, vlans(inlet)), 12);
        }
        if outlet != (0, 0) {
            world
                .ports
                .insert(13, port(13, OUT, vlans(outlet), OUTSIDE));
            world.hop = Ok(13);
        }
        world
    }

    fn forward(&mut self) -> Result<u32, Kept> {
        let mut packet = Packet::default();
        let parsed = packet::parse(self.frame.as_slice(), length(&self.frame), &mut packet);
        assert_eq!(parsed, Ok(()));
        match forward_as_before(self, &packet) {
            Ok(0) => forward(self, &packet),
            known => known,
        }
    }

    /// Another frame; whether its way had to be asked for.
    fn forward_another(&mut self, frame: Vec<u8>) -> (Result<u32, Kept>, bool) {
        self.frame = frame;
        self.asked.set(None);
        let left = self.forward();
        (left, self.asked.get().is_some())
    }
}

impl ByteSource for World {
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        self.frame.as_slice().u8(at)
    }
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        self.frame.as_slice().u16(at)
    }
    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        self.frame.as_slice().u32(at)
    }
    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        self.frame.as_slice().u64(at)
    }
    fn address(&self, at: u32) -> Result<Address, Truncated> {
        self.frame.as_slice().address(at)
    }
}

impl World {
    fn set(&mut self, at: u32, bytes: &[u8]) -> Result<(), Truncated> {
        let place = self.frame.get_mut(at as usize..at as usize + bytes.len());
        place.ok_or(Truncated)?.copy_from_slice(bytes);
        Ok(())
    }
}

impl FrameEditor for World {
    fn replace_u8(&mut self, at: u32, value: u8) -> Result<u8, Truncated> {
        let place = self.frame.get_mut(at as usize).ok_or(Truncated)?;
        Ok(std::mem::replace(place, value))
    }
    fn set_u16(&mut self, at: u32, value: u16) -> Result<(), Truncated> {
        self.set(at, &value.to_be_bytes())
    }
    fn set_u32(&mut self, at: u32, value: u32) -> Result<(), Truncated> {
        self.set(at, &value.to_be_bytes())
    }
    fn sum(&self, at: u32, bytes: u32) -> Result<u16, Truncated> {
        let bytes = self.frame.get(at as usize..(at + bytes) as usize);
        Ok(!internet_checksum(bytes.ok_or(Truncated)?))
    }
    fn cut(&mut self, bytes: u32) -> Result<(), Truncated> {
        self.frame.truncate(bytes as usize);
        Ok(())
    }
}

impl Ways for World {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    fn frame_bytes(&self) -> u32 {
        length(&self.frame)
    }
    fn port(&self, device: u32) -> Option<Port> {
        self.ports.get(&device).copied()
    }
    fn tagged(&self, ifindex: u32, vlans: u32) -> u32 {
        self.tagged.get(&(ifindex, vlans)).copied().unwrap_or(0)
    }
    fn next_hop(&self, _packet: &Packet, device: u32, query: &Query) -> Result<NextHop, Kept> {
        self.asked.set(Some((device, query.bytes)));
        let addresses = [PLC, OUTSIDE].concat();
        let mut words = addresses.chunks(4).map(word);
        Ok(NextHop {
            device: self.hop?,
            addresses: std::array::from_fn(|_| words.next().unwrap_or(0)),
            mtu: self.route_mtu,
        })
    }
    fn known_way(&mut self, row: u32) -> Option<&mut KnownWay> {
        assert!(row < KNOWN_WAYS);
        Some(self.known.entry(row).or_default())
    }
    fn now_ticks(&self) -> u64 {
        self.ticks
    }
    fn generation(&self) -> u32 {
        self.generation
    }
    fn is_at_home(&self, _ifindex: u32, _vlans: u32, _destination: &Address) -> bool {
        self.is_at_home
    }
    fn move_head(&mut self, bytes: i32) -> Result<(), Truncated> {
        if !self.has_room {
            return Err(Truncated);
        }
        if let Ok(less) = usize::try_from(bytes) {
            self.frame.drain(..less);
        } else {
            let more = bytes.unsigned_abs() as usize;
            self.frame.splice(0..0, vec![0xee; more]);
        }
        Ok(())
    }
    fn finish_checksum(&mut self, packet: &Packet, at: u32, bytes: u32) -> Result<(), Truncated> {
        finish_checksum(self, packet, at, bytes)
    }
}

fn tagged(frame: Frame, tags: (u16, u16)) -> Frame {
    match tags {
        (0, 0) => frame,
        (outer, 0) => frame.vlan(outer),
        (outer, inner) => frame.vlan2(outer, inner),
    }
}

/// What crosses: segments, datagrams, echoes.
fn kinds((hmi, plc): (IpAddr, IpAddr)) -> [Frame; 4] {
    [
        frames::tcp((hmi, 40_000), (plc, 502))
            .flags(PSH | ACK)
            .payload(*b"an odd one"),
        frames::tcp((hmi, 40_000), (plc, 502)),
        frames::udp((hmi, 9), (plc, 7000)).payload(*b"datagram!"),
        frames::echo_request(hmi, plc, 7, 1),
    ]
}

#[test]
fn a_frame_leaves_with_the_tags_and_addresses_of_its_way_out_and_one_hop_less() {
    let mut crossings = 0;
    for pair in [V4, V6] {
        for inlet in TAGS {
            for outlet in TAGS {
                for frame in kinds(pair) {
                    for hops in [2, 64, 255] {
                        let frame = frame.clone().hop_limit(hops);
                        let came = tagged(frame.clone().macs(HMI, INSIDE), inlet).build();
                        let left = frame.hop_limit(hops - 1).macs(OUTSIDE, PLC);
                        let left = tagged(left, outlet).build();
                        let mut world = World::new(came, inlet, outlet);
                        assert_eq!(world.forward(), Ok(OUT), "{inlet:?} {outlet:?}");
                        assert_eq!(world.frame, left, "{inlet:?} {outlet:?}");
                        let device = if inlet == (0, 0) { IN } else { 12 };
                        let asked = world.asked.get().unwrap();
                        assert_eq!(asked.0, device);
                        let headers =
                            14 + 4 * usize::from(outlet.0 != 0) + 4 * usize::from(outlet.1 != 0);
                        assert_eq!(usize::from(asked.1), world.frame.len() - headers);
                        crossings += 1;
                    }
                }
            }
        }
    }
    assert_eq!(crossings, 2 * 9 * 4 * 3);
}

#[test]
fn every_ipv4_checksum_comes_out_right() {
    // The identification goes through all values of the sum, the last carry included.
    for identification in 0..=u16::MAX {
        let mut frame = kinds(V4)[1].clone().macs(HMI, INSIDE).build();
        frame[18..20].copy_from_slice(&identification.to_be_bytes());
        frame[24..26].copy_from_slice(&[0, 0]);
        let checksum = internet_checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        let mut world = World::new(frame, (0, 0), (0, 0));
        assert_eq!(world.forward(), Ok(OUT));
        assert_eq!(
            internet_checksum(&world.frame[14..34]),
            0,
            "{identification}"
        );
    }
}

/// Puts the sum of the pseudo-header where the checksum belongs, as a kernel does that leaves the rest
/// to a device.
fn unfinished(frame: &mut [u8], transport_at: usize) {
    let (protocol, at) = (
        frame[if transport_at == 34 { 23 } else { 20 }],
        transport_at,
    );
    let checksum_at = at + if protocol == 6 { 16 } else { 6 };
    let addresses = if at == 34 { 26..34 } else { 22..54 };
    let mut pseudo = frame[addresses].to_vec();
    pseudo.extend(u32::from(protocol).to_be_bytes());
    pseudo.extend(length(&frame[at..]).to_be_bytes());
    let sum = !internet_checksum(&pseudo);
    frame[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_checksum_that_was_left_to_a_device_is_finished_and_others_stay() {
    for pair in [V4, V6] {
        for outlet in TAGS {
            let transport_at = if pair == V4 { 34 } else { 54 };
            for length in [0, 1, 2, 7, 1000, 1001] {
                let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
                for frame in [
                    frames::tcp((pair.0, 40_000), (pair.1, 502)).payload(payload.clone()),
                    frames::udp((pair.0, 40_000), (pair.1, 502)).payload(payload.clone()),
                ] {
                    let mut came = frame.clone().macs(HMI, INSIDE).build();
                    unfinished(&mut came, transport_at);
                    let left = tagged(frame.hop_limit(63).macs(OUTSIDE, PLC), outlet).build();
                    let mut world = World::new(came, (0, 0), outlet);
                    assert_eq!(world.forward(), Ok(OUT));
                    assert_eq!(world.frame, left, "{length} bytes");
                }
            }
            let spoiled = frames::tcp((pair.0, 40_000), (pair.1, 502)).payload(*b"spoiled");
            let spoiled = spoiled.spoil_checksum();
            let left = tagged(spoiled.clone().hop_limit(63).macs(OUTSIDE, PLC), outlet).build();
            let mut world = World::new(spoiled.macs(HMI, INSIDE).build(), (0, 0), outlet);
            assert_eq!((world.forward(), world.frame), (Ok(OUT), left));
        }
    }
}

#[test]
fn what_only_the_kernel_does_is_left_to_it_unchanged() {
    let frame = |pair| kinds(pair)[0].clone().macs(HMI, INSIDE);
    let plain = || World::new(frame(V4).build(), (0, 0), (0, 0));
    let of = |frame: Frame| World::new(frame.build(), (0, 0), (0, 0));
    let mut cases = vec![
        (of(frame(V4).hop_limit(1)), Kept::HopLimit),
        (of(frame(V6).hop_limit(0)), Kept::HopLimit),
        (of(frame(V4).ipv4_options(&[1, 1, 1, 1])), Kept::Options),
        (of(frame(V6).destination_options()), Kept::Options),
        (of(frame(V4).macs(HMI, PLC)), Kept::Address),
        (of(frame(V4).vlan(0)), Kept::Address),
        (of(frame(V4).vlan(11)), Kept::Address),
        (
            of(frames::arp_request(
                [10, 10, 0, 5].into(),
                [10, 10, 0, 1].into(),
            )),
            Kept::Resolution,
        ),
        (
            of(frame((
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5).into(),
                V6.1,
            ))),
            Kept::Route,
        ),
    ];
    for kept in [Kept::Route, Kept::Neighbour, Kept::TooLong] {
        let mut world = plain();
        world.hop = Err(kept);
        cases.push((world, kept));
    }
    let mut same = plain();
    same.hop = Ok(IN);
    cases.push((same, Kept::SamePort));
    let mut unknown = plain();
    unknown.hop = Ok(99);
    cases.push((unknown, Kept::Port));
    let mut deaf = plain();
    deaf.ports.get_mut(&OUT).unwrap().flags = 0;
    cases.push((deaf, Kept::Port));
    let mut deaf_below = World::new(frame(V4).build(), (0, 0), (10, 0));
    deaf_below.ports.get_mut(&OUT).unwrap().flags = 0;
    cases.push((deaf_below, Kept::Port));
    let mut bridged = plain();
    bridged.ports.get_mut(&OUT).unwrap().peer = 9;
    cases.push((bridged, Kept::Port));
    let mut small = plain();
    small.ports.get_mut(&OUT).unwrap().mtu = 40;
    cases.push((small, Kept::TooLong));
    let mut astray = plain();
    astray.is_at_home = false;
    cases.push((astray, Kept::NotAtHome));
    let mut tight = World::new(frame(V4).build(), (0, 0), (10, 0));
    tight.has_room = false;
    cases.push((tight, Kept::Room));
    let mut long = of(frame(V4).payload([0; 9217 - 20]));
    long.ports.get_mut(&OUT).unwrap().mtu = 65_535;
    cases.push((long, Kept::Checksum));
    for (mut world, wanted) in cases {
        let before = world.frame.clone();
        assert_eq!(world.forward(), Err(wanted));
        assert_eq!(world.frame, before, "{wanted:?}");
    }
}

#[test]
fn a_frame_like_the_one_before_leaves_alike_without_a_question() {
    for pair in [V4, V6] {
        for inlet in TAGS {
            for outlet in TAGS {
                for kind in &kinds(pair)[..3] {
                    let frame = tagged(kind.clone().macs(HMI, INSIDE), inlet).build();
                    let mut world = World::new(frame.clone(), inlet, outlet);
                    assert_eq!(world.forward(), Ok(OUT));
                    let first = world.frame.clone();
                    assert_eq!(world.forward_another(frame), (Ok(OUT), false));
                    assert_eq!(world.frame, first);
                }
            }
        }
    }
}

/// The row of the table that the way of a frame is kept in.
fn row(frame: &[u8]) -> u32 {
    let mut packet = Packet::default();
    assert_eq!(packet::parse(frame, length(frame), &mut packet), Ok(()));
    KnownWay::row(&packet)
}

/// Each of these frames would find the way of the first, were it not for the one thing that differs.
#[test]
fn whatever_a_route_may_depend_on_is_asked_for_anew() {
    let tcp = |hmi: (IpAddr, u16), plc: (IpAddr, u16)| {
        let frame = frames::tcp(hmi, plc).flags(PSH | ACK);
        frame.payload(*b"an odd one").macs(HMI, INSIDE)
    };
    let v4 = || tcp((V4.0, 40_000), (V4.1, 502));
    let v6 = || tcp((V6.0, 40_000), (V6.1, 502));
    let mut type_of_service = v4().build();
    type_of_service[15] = 0xb8;
    let mut flow_label = v6().build();
    flow_label[17] = 1;
    let udp = frames::udp((V4.0, 40_000), (V4.1, 502)).macs(HMI, INSIDE);
    let far = |address: IpAddr| match address {
        // Words that have no part in the row.
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[0] = 0xfdff;
            IpAddr::V6(Ipv6Addr::from(segments))
        }
        other @ IpAddr::V4(_) => other,
    };
    let both = ([10, 11, 0, 5].into(), [10, 21, 0, 10].into());
    let cases = [
        (
            "ports",
            v4().build(),
            tcp((V4.0, 40_001), (V4.1, 503)).build(),
        ),
        (
            "addresses",
            v4().build(),
            tcp((both.0, 40_000), (both.1, 502)).build(),
        ),
        (
            "source",
            v6().build(),
            tcp((far(V6.0), 40_000), (V6.1, 502)).build(),
        ),
        (
            "destination",
            v6().build(),
            tcp((V6.0, 40_000), (far(V6.1), 502)).build(),
        ),
        ("transport", v4().build(), udp.build()),
        ("type of service", v4().build(), type_of_service),
        ("flow label", v6().build(), flow_label),
        ("a tag", v4().build(), v4().vlan(10).build()),
        ("no tag", v4().vlan(10).build(), v4().build()),
    ];
    for (name, first, other) in cases {
        assert_eq!(row(&first), row(&other), "{name}: another row");
        let mut world = World::new(first.clone(), (10, 0), (0, 0));
        assert_eq!(world.forward(), Ok(OUT));
        assert_eq!(world.forward_another(first.clone()), (Ok(OUT), false));
        assert_eq!(world.forward_another(other), (Ok(OUT), true), "{name}");
    }
    let mut world = World::new(v4().build(), (0, 0), (0, 0));
    let known = (Ok(OUT), false);
    let asked = (Ok(OUT), true);
    assert_eq!(world.forward(), Ok(OUT));
    assert_eq!(world.forward_another(v4().build()), known);
    world.ticks += 1;
    assert_eq!(world.forward_another(v4().build()), asked);
    world.ticks += 1 << 32;
    assert_eq!(world.forward_another(v4().build()), asked);
    world.generation += 1;
    assert_eq!(world.forward_another(v4().build()), asked);
    world.ifindex = 4;
    world.ports.insert(4, port(4, 4, 0, INSIDE));
    assert_eq!(world.forward_another(v4().build()), asked);
    assert_eq!(world.forward_another(v4().build()), known);
    // An echo has more that tells it apart: it is never kept.
    let echo = kinds(V4)[3].clone().macs(HMI, INSIDE);
    assert_eq!(world.forward_another(echo.build()), asked);
    assert_eq!(world.forward_another(echo.build()), asked);
}

/// As no VLAN interface has them: an inner tag without a VLAN id, and tags of another Ethernet type.
#[test]
fn tags_that_only_look_like_those_of_a_vlan_are_left_to_the_kernel() {
    let frame = || kinds(V4)[0].clone().macs(HMI, INSIDE);
    let mut service = frame().vlan(10).build();
    service[12..14].copy_from_slice(&SERVICE_VLAN.to_be_bytes());
    let mut inner_type = frame().vlan2(100, 20).build();
    inner_type[16..18].copy_from_slice(&SERVICE_VLAN.to_be_bytes());
    for (tags, odd) in [
        ((10, 0), frame().vlan(10).vlan(0).build()),
        ((10, 0), service),
        ((100, 20), inner_type),
    ] {
        for (inlet, outlet) in [(tags, tags), (tags, (0, 0))] {
            let mut world = World::new(odd.clone(), inlet, outlet);
            assert_eq!(world.forward(), Err(Kept::Address));
            assert_eq!(world.frame, odd);
            // Nor when a frame that is as it should be has just left.
            let plain = tagged(frame(), tags).build();
            assert_eq!(world.forward_another(plain).0, Ok(OUT));
            assert_eq!(world.forward_another(odd.clone()).0, Err(Kept::Address));
        }
    }
}

#[test]
fn neighbouring_ports_and_both_directions_have_rows_of_their_own() {
    let mut rows = std::collections::HashSet::new();
    for port in 49_152..49_152 + 512 {
        for (source_port, destination_port) in [(port, 502), (502, port)] {
            rows.insert(KnownWay::row(&Packet {
                source_port,
                destination_port,
                ..Packet::default()
            }));
        }
    }
    assert_eq!(rows.len(), 1024);
}

#[test]
fn a_known_way_does_not_carry_what_the_kernel_has_to_see() {
    let frame = || kinds(V4)[0].clone().macs(HMI, INSIDE);
    let world = || {
        let mut world = World::new(frame().build(), (0, 0), (0, 0));
        assert_eq!(world.forward(), Ok(OUT));
        world
    };
    let of = |frame: Frame| world().forward_another(frame.build()).0;
    assert_eq!(of(frame().hop_limit(1)), Err(Kept::HopLimit));
    assert_eq!(of(frame().ipv4_options(&[1, 1, 1, 1])), Err(Kept::Options));
    assert_eq!(of(frame().macs(HMI, PLC)), Err(Kept::Address));
    assert_eq!(of(frame().vlan(0)), Err(Kept::Address));
    let mut deaf = world();
    deaf.ports.get_mut(&OUT).unwrap().flags = 0;
    assert_eq!(deaf.forward_another(frame().build()).0, Err(Kept::Port));
    let mut small = world();
    small.ports.get_mut(&OUT).unwrap().mtu = 40;
    assert_eq!(small.forward_another(frame().build()).0, Err(Kept::TooLong));
    // The route may carry less than its device: a longer packet has to be asked for.
    let mut narrow = World::new(frame().build(), (0, 0), (0, 0));
    narrow.route_mtu = 60;
    assert_eq!(narrow.forward(), Ok(OUT));
    narrow.hop = Err(Kept::TooLong);
    let longer = narrow.forward_another(frame().payload([0; 100]).build());
    assert_eq!(longer, (Err(Kept::TooLong), true));
    // A policy of no number is none.
    let mut without = World::new(frame().build(), (0, 0), (0, 0));
    without.generation = 0;
    assert_eq!(without.forward(), Ok(OUT));
    assert_eq!(
        without.forward_another(frame().build()),
        (Ok(OUT), true),
        "a free row"
    );
}

#[test]
fn a_bridge_leaves_frames_as_they_are() {
    let bridged = |frame: Vec<u8>, flags: u32| {
        let mut world = World::new(frame, (0, 0), (0, 0));
        for (one, other) in [(IN, OUT), (OUT, IN)] {
            let port = world.ports.get_mut(&one).unwrap();
            port.peer = other;
            port.flags |= flags;
        }
        world
    };
    for pair in [V4, V6] {
        for tags in TAGS {
            for frame in kinds(pair) {
                let frame = tagged(frame.macs(HMI, PLC), tags).build();
                let mut world = bridged(frame.clone(), 0);
                assert_eq!((world.forward(), world.frame), (Ok(OUT), frame));
            }
        }
        let own = kinds(pair)[0].clone().macs(HMI, OUTSIDE).build();
        assert_eq!(bridged(own, 0).forward(), Err(Kept::Address));
    }
    let arp = frames::arp_request([10, 10, 0, 5].into(), [10, 10, 0, 1].into());
    let arp = arp.macs(HMI, [0xff; 6]).build();
    // A Linux bridge beneath carries it, and learns.
    assert_eq!(bridged(arp.clone(), 0).forward(), Err(Kept::Address));
    assert_eq!(bridged(arp, port_flag::ALONE).forward(), Ok(OUT));
    let mut astray = bridged(
        kinds(V4)[0].clone().macs(HMI, PLC).build(),
        port_flag::ALONE,
    );
    astray.is_at_home = false;
    assert_eq!(astray.forward(), Err(Kept::NotAtHome));
}

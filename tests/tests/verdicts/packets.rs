//! Single frames: who may talk to whom, and what is refused for its form.

use std::net::{Ipv4Addr, Ipv6Addr};

use conduitfw_common::Reason;
use conduitfw_tests::frames::{
    FIN, Frame, RST, SOURCE_MAC, SYN, arp, arp_reply, arp_request, echo_request, ethernet, icmp,
    ip, neighbour_advertisement, neighbour_solicitation, tcp, udp,
};
use conduitfw_tests::scene::{DOSING, GATEWAY, HMI, HMI_V6, PLANT, PLC, PLC_V6, STRANGER};

use crate::bench::{OUTSIDER, XDP_DROP, bench};
use crate::outcome::Want::{Drop, Pass};

/// The plant, with services other than Modbus, a VLAN and the gateway's own.
pub(crate) fn broad() -> String {
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
networks = ["10.30.0.0/24", "fd00:30::/64"]
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

/// A message of neighbour discovery about `target`.
fn about(kind: u8, source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let rest = [&[0; 4][..], &target.octets()].concat();
    icmp(source, destination, (kind, 0), rest).hop_limit(255)
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
        (
            "solicitation, to a group of the site",
            about(135, hmi6, v6("ff05::1:ff00:10"), plc6),
            Drop(Reason::NeighbourNotAllowed),
        ),
        // Whatever it carries would be routed to a host in another zone.
        (
            "advertisement to another zone",
            neighbour_advertisement(hmi6, v6("fd00:30::5")),
            Drop(Reason::NeighbourNotAllowed),
        ),
        (
            "advertisement within the zone",
            neighbour_advertisement(hmi6, v6("fd00:10::6")),
            Pass,
        ),
        (
            "advertisement to the gateway, beyond its interface here",
            neighbour_advertisement(hmi6, v6("fd00:20::1")),
            Pass,
        ),
        (
            "advertisement to the gateway's link",
            neighbour_advertisement(hmi6, v6("fe80::1")),
            Pass,
        ),
        (
            "advertisement of a stranger to another zone",
            neighbour_advertisement(lost, plc6),
            Drop(Reason::SpoofedSource),
        ),
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
fn an_address_is_not_another_zones_to_take_nor_to_keep_its_host_from() {
    let mut bench = bench!(&broad());
    let hmi = v4(10, 5);
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let hmi6 = v6("fd00:10::5");
    bench.all(&[
        (
            "advertisement of another zone's host",
            about(136, hmi6, v6("ff02::1"), v6("fd00:30::5")),
            Drop(Reason::SpoofedSource),
        ),
        (
            "the same by link",
            about(136, v6("fe80::5"), v6("ff02::1"), v6("fd00:30::5")),
            Drop(Reason::SpoofedSource),
        ),
        (
            "advertisement of the gateway",
            about(136, hmi6, v6("ff02::1"), v6("fd00:20::1")),
            Drop(Reason::SpoofedSource),
        ),
        (
            "probe for an address of one's own",
            neighbour_solicitation(Ipv6Addr::UNSPECIFIED, hmi6),
            Pass,
        ),
        (
            "probe for another zone's address",
            neighbour_solicitation(Ipv6Addr::UNSPECIFIED, v6("fd00:30::5")),
            Drop(Reason::SpoofedSource),
        ),
        (
            "ARP probe for an address of one's own",
            arp_request(Ipv4Addr::UNSPECIFIED, hmi),
            Pass,
        ),
        (
            "ARP probe for another zone's address",
            arp_request(Ipv4Addr::UNSPECIFIED, v4(30, 5)),
            Drop(Reason::SpoofedSource),
        ),
        (
            "advertisement about half an address",
            icmp(hmi6, v6("ff02::1"), (136, 0), vec![0; 12]).hop_limit(255),
            Drop(Reason::BadIcmpMessage),
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

//! Connections and datagrams of every kind that the data plane knows, as frames; and policies for
//! them.

#[macro_use]
mod limited;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::frames::modbus::{self, adu};
use crate::frames::{
    ACK, FIN, Frame, PSH, RST, SYN, URG, arp_reply, arp_request, echo_reply, echo_request,
    ethernet, ip, neighbour_advertisement, neighbour_solicitation, packet_too_big,
    port_unreachable, tcp, udp,
};

const HMI_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 5);
const PLC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 1);

/// Every kind of conduit between two zones, and every kind of rule.
pub const POLICY: &str = concat!(
    r#"
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
"#,
    limited!()
);

/// For captures: whoever speaks Modbus to whomever.
pub const CAPTURE_POLICY: &str = r#"
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

/// A connection with its numbers kept.
pub struct Talk {
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
        let more = u32::try_from(bytes.len()).unwrap_or(0) + u32::from(flags & (SYN | FIN) != 0);
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

fn v6(host: Ipv6Addr, port: u16) -> SocketAddr {
    (host, port).into()
}

/// Connections and datagrams as the policy knows them; `round` moves the ports.
#[must_use]
pub fn good_frames(round: u16) -> Vec<Frame> {
    let port = 20_000 + (round % 2_000) * 20;
    let (hmi, plc) = ([10, 10, 0, 5], [10, 20, 0, 10]);
    let (hmi6, plc6) = (HMI_V6, PLC_V6);
    let mut frames = Vec::new();
    for (client, server) in [
        (v4(hmi, port), v4(plc, 502)),
        (v6(HMI_V6, port), v6(PLC_V6, 502)),
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
    for (index, pdu) in (0..).zip([
        modbus::write_single(5, 0, 0xff00),
        modbus::diagnostics(1, 0),
        modbus::encapsulated(13, &[0]),
        vec![3, 0],
    ]) {
        let from = port + 6 + index;
        for server in [plc, [10, 20, 0, 11], [10, 20, 0, 12]] {
            let mut talk = Talk::new(v4(hmi, from), v4(server, 502));
            talk.ask(&adu(1, 1, modbus::read(3, 0, 10)), 300);
            talk.ask(&adu(2, 1, &pdu), 300);
            talk.ask(&adu(3, 1, modbus::read(3, 0, 10)), 300);
            frames.extend(talk.close());
        }
        let mut talk = Talk::new(v6(HMI_V6, from), v6(PLC_V6, 502));
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
    let talk = Talk::new(v6(HMI_V6, port + 13), v6(PLC_V6, 502));
    frames.extend(
        talk.frames
            .into_iter()
            .map(|frame| frame.vlan2(100, 10).hop_by_hop()),
    );
    frames.extend(limited::frames(v4(hmi, 60_000 + (round % 120) * 40)));
    frames.extend(single_frames(port + 14, hmi.into(), plc.into()));
    frames.extend(single_frames(port + 14, hmi6.into(), plc6.into()));
    frames.extend([
        arp_request(hmi.into(), [10, 10, 0, 1].into()),
        arp_reply([10, 10, 0, 1].into(), hmi.into()),
        neighbour_solicitation(hmi6, GATEWAY_V6),
        neighbour_advertisement(hmi6, GATEWAY_V6),
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

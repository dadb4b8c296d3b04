//! Frames from Ethernet up, with right lengths and checksums unless asked otherwise.
//!
//! ```
//! use conduitfw_tests::frames::{ACK, PSH, SYN, modbus, tcp};
//!
//! let hmi = ([10, 10, 0, 5], 40_000);
//! let plc = ([10, 20, 0, 10], 502);
//! let open = tcp(hmi, plc).flags(SYN).seq(99).build();
//! let read = tcp(hmi, plc)
//!     .flags(PSH | ACK)
//!     .seq(100)
//!     .ack(1)
//!     .payload(modbus::adu(1, 1, modbus::read(3, 0, 10)))
//!     .vlan(10)
//!     .build();
//! assert_eq!(open.len(), 14 + 20 + 20);
//! assert_eq!(read.len(), 18 + 20 + 20 + 12);
//! ```
//!
//! Addresses are anything that turns into a [`SocketAddr`] or [`IpAddr`]: `([10, 0, 0, 1], 502)`,
//! `(Ipv6Addr::LOCALHOST, 502)`, `"[fd00::1]:502".parse().unwrap()`.

mod layout;
pub mod modbus;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use layout::{Checksum, Packet, Segment, Transport, short};

pub use layout::internet_checksum;

/// TCP flag FIN.
pub const FIN: u8 = 1;
/// TCP flag SYN.
pub const SYN: u8 = 2;
/// TCP flag RST.
pub const RST: u8 = 4;
/// TCP flag PSH.
pub const PSH: u8 = 8;
/// TCP flag ACK.
pub const ACK: u8 = 16;
/// TCP flag URG.
pub const URG: u8 = 32;

/// `EtherType` of a customer VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// `EtherType` of a service VLAN tag (IEEE 802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// The sender's MAC address, unless [`Frame::macs`] says otherwise.
pub const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// The receiver's MAC address, unless [`Frame::macs`] says otherwise.
pub const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// A frame in the making. Start with [`tcp`], [`udp`], [`echo_request`], [`arp_request`], ...
#[derive(Clone, Debug)]
pub struct Frame {
    macs: [[u8; 6]; 2],
    tags: Vec<(u16, u16)>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// An `EtherType` and what follows it.
    Raw(u16, Vec<u8>),
    Packet(Packet),
}

/// A TCP segment: flags `ACK`, numbers 0, window 64,240, no payload, unless said.
#[must_use]
pub fn tcp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Frame {
    let (source, destination) = (source.into(), destination.into());
    Frame::packet_of(
        source.ip(),
        destination.ip(),
        Transport::Tcp(Segment {
            ports: (source.port(), destination.port()),
            flags: ACK,
            seq: 0,
            ack: 0,
            window: 64_240,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }),
    )
}

/// A UDP datagram.
#[must_use]
pub fn udp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Frame {
    let (source, destination) = (source.into(), destination.into());
    let ports = (source.port(), destination.port());
    let payload = Vec::new();
    Frame::packet_of(
        source.ip(),
        destination.ip(),
        Transport::Udp { ports, payload },
    )
}

/// An ICMP or ICMPv6 message: type, code, and all after the checksum.
#[must_use]
pub fn icmp(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    (kind, code): (u8, u8),
    rest: Vec<u8>,
) -> Frame {
    Frame::packet_of(
        source.into(),
        destination.into(),
        Transport::Icmp { kind, code, rest },
    )
}

/// An echo request (ICMP type 8, ICMPv6 type 128).
#[must_use]
pub fn echo_request(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    identifier: u16,
    sequence: u16,
) -> Frame {
    let source = source.into();
    let kind = if source.is_ipv4() { 8 } else { 128 };
    icmp(
        source,
        destination,
        (kind, 0),
        echo_rest(identifier, sequence),
    )
}

/// An echo reply (ICMP type 0, ICMPv6 type 129).
#[must_use]
pub fn echo_reply(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    identifier: u16,
    sequence: u16,
) -> Frame {
    let source = source.into();
    let kind = if source.is_ipv4() { 0 } else { 129 };
    icmp(
        source,
        destination,
        (kind, 0),
        echo_rest(identifier, sequence),
    )
}

fn echo_rest(identifier: u16, sequence: u16) -> Vec<u8> {
    let mut rest = [identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
    rest.extend_from_slice(b"conduitfw echo..");
    rest
}

/// "Destination unreachable, port unreachable" about `quoted` (its IP packet, cut to 512 bytes).
#[must_use]
pub fn port_unreachable(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    quoted: &Frame,
) -> Frame {
    let source = source.into();
    let kind = if source.is_ipv4() { (3, 3) } else { (1, 4) };
    let mut rest = vec![0; 4];
    rest.extend(quoted.packet().into_iter().take(512));
    icmp(source, destination, kind, rest)
}

/// "Packet too big" (ICMP 3/4, ICMPv6 2/0) about `quoted`.
#[must_use]
pub fn packet_too_big(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    mtu: u16,
    quoted: &Frame,
) -> Frame {
    let source = source.into();
    let kind = if source.is_ipv4() { (3, 4) } else { (2, 0) };
    let mut rest = u32::from(mtu).to_be_bytes().to_vec();
    rest.extend(quoted.packet().into_iter().take(512));
    icmp(source, destination, kind, rest)
}

/// A neighbour solicitation (RFC 4861 §4.3) sent to the target's solicited-node group.
#[must_use]
pub fn neighbour_solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let octets = target.octets();
    let low = u16::from_be_bytes([octets[14], octets[15]]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(octets[13]), low);
    let mut rest = vec![0; 4];
    rest.extend_from_slice(&octets);
    rest.extend_from_slice(&[1, 1]);
    rest.extend_from_slice(&SOURCE_MAC);
    icmp(source, group, (135, 0), rest).hop_limit(255)
}

/// A solicited neighbour advertisement (RFC 4861 §4.4) of `source` about itself.
#[must_use]
pub fn neighbour_advertisement(source: Ipv6Addr, destination: Ipv6Addr) -> Frame {
    let mut rest = vec![0x60, 0, 0, 0];
    rest.extend_from_slice(&source.octets());
    rest.extend_from_slice(&[2, 1]);
    rest.extend_from_slice(&SOURCE_MAC);
    icmp(source, destination, (136, 0), rest).hop_limit(255)
}

/// "Who has `target`? Tell `sender`."
#[must_use]
pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
    arp(1, (SOURCE_MAC, sender), ([0; 6], target)).macs(SOURCE_MAC, [0xff; 6])
}

/// "`sender` is at the sender's MAC address."
#[must_use]
pub fn arp_reply(sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
    arp(2, (SOURCE_MAC, sender), (DESTINATION_MAC, target))
}

/// Any ARP operation (RFC 826).
#[must_use]
pub fn arp(operation: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Frame {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend_from_slice(&operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        bytes.extend_from_slice(&mac);
        bytes.extend_from_slice(&address.octets());
    }
    ethernet(0x0806, bytes)
}

/// An IP packet of any protocol number.
#[must_use]
pub fn ip(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    payload: Vec<u8>,
) -> Frame {
    Frame::packet_of(
        source.into(),
        destination.into(),
        Transport::Other(protocol, payload),
    )
}

/// An Ethernet frame of any `EtherType`.
#[must_use]
pub fn ethernet(ether_type: u16, payload: Vec<u8>) -> Frame {
    Frame::new(Content::Raw(ether_type, payload))
}

impl Frame {
    fn new(content: Content) -> Self {
        Self {
            macs: [SOURCE_MAC, DESTINATION_MAC],
            tags: Vec::new(),
            content,
        }
    }

    fn packet_of(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        Self::new(Content::Packet(Packet {
            source,
            destination,
            hop_limit: 64,
            identification: 1,
            fragment: None,
            ipv4_options: Vec::new(),
            extensions: Vec::new(),
            transport,
            checksum: Checksum::Right,
        }))
    }

    fn with_packet(mut self, change: impl FnOnce(&mut Packet)) -> Self {
        if let Content::Packet(packet) = &mut self.content {
            change(packet);
        }
        self
    }

    fn with_segment(self, change: impl FnOnce(&mut Segment)) -> Self {
        self.with_packet(|packet| {
            if let Transport::Tcp(segment) = &mut packet.transport {
                change(segment);
            }
        })
    }

    /// The MAC addresses of sender and receiver.
    #[must_use]
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        self.macs = [source, destination];
        self
    }

    /// One more VLAN tag, inside those there are.
    #[must_use]
    pub fn tag(mut self, tpid: u16, id: u16) -> Self {
        self.tags.push((tpid, id));
        self
    }

    /// One 802.1Q tag.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(VLAN, id)
    }

    /// Two tags: 802.1ad outside, 802.1Q inside.
    #[must_use]
    pub fn vlan2(self, outer: u16, inner: u16) -> Self {
        self.tag(SERVICE_VLAN, outer).tag(VLAN, inner)
    }

    /// Time to live or hop limit.
    #[must_use]
    pub fn hop_limit(self, hop_limit: u8) -> Self {
        self.with_packet(|packet| packet.hop_limit = hop_limit)
    }

    /// IPv4 options, padded to a multiple of four bytes (at most 40).
    #[must_use]
    pub fn ipv4_options(self, options: &[u8]) -> Self {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        self.with_packet(|packet| packet.ipv4_options = options)
    }

    /// One more IPv6 extension header of this type, `content` padded to fill eight-byte units.
    #[must_use]
    pub fn extension(self, kind: u8, content: &[u8]) -> Self {
        let mut content = content.to_vec();
        content.resize((content.len() + 2).next_multiple_of(8) - 2, 0);
        self.with_packet(|packet| packet.extensions.push((kind, content)))
    }

    /// An IPv6 hop-by-hop header that holds only padding.
    #[must_use]
    pub fn hop_by_hop(self) -> Self {
        self.extension(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
    }

    /// An IPv6 destination options header that holds only padding.
    #[must_use]
    pub fn destination_options(self) -> Self {
        self.extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0])
    }

    /// An IPv6 routing header of this type with no segments left.
    #[must_use]
    pub fn routing(self, kind: u8) -> Self {
        self.extension(ROUTING, &[kind, 0, 0, 0, 0, 0])
    }

    /// Marks the packet as a fragment; the offset counts units of eight bytes. What the frame
    /// carries stays whole: see [`Frame::fragments`] for a packet that is really cut.
    #[must_use]
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        self.with_packet(|packet| packet.fragment = Some((offset, more)))
    }

    /// TCP flags.
    #[must_use]
    pub fn flags(self, flags: u8) -> Self {
        self.with_segment(|segment| segment.flags = flags)
    }

    /// TCP sequence number.
    #[must_use]
    pub fn seq(self, seq: u32) -> Self {
        self.with_segment(|segment| segment.seq = seq)
    }

    /// TCP acknowledgement number.
    #[must_use]
    pub fn ack(self, ack: u32) -> Self {
        self.with_segment(|segment| segment.ack = ack)
    }

    /// TCP window.
    #[must_use]
    pub fn window(self, window: u16) -> Self {
        self.with_segment(|segment| segment.window = window)
    }

    /// TCP urgent pointer.
    #[must_use]
    pub fn urgent(self, pointer: u16) -> Self {
        self.with_segment(|segment| segment.urgent = pointer)
    }

    /// TCP options, padded to a multiple of four bytes (at most 40).
    #[must_use]
    pub fn tcp_options(self, options: &[u8]) -> Self {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        self.with_segment(|segment| segment.options = options)
    }

    /// What TCP or UDP carries.
    #[must_use]
    pub fn payload(self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        self.with_packet(|packet| match &mut packet.transport {
            Transport::Tcp(Segment { payload, .. }) | Transport::Udp { payload, .. } => {
                *payload = bytes;
            }
            Transport::Icmp { .. } | Transport::Other(..) => {}
        })
    }

    /// Makes the checksum of TCP, UDP or ICMP wrong.
    #[must_use]
    pub fn spoil_checksum(self) -> Self {
        self.with_packet(|packet| packet.checksum = Checksum::Spoilt)
    }

    /// Leaves the checksum of TCP, UDP or ICMP to the device, as a sender does whose device sums up.
    #[must_use]
    pub fn partial_checksum(self) -> Self {
        self.with_packet(|packet| packet.checksum = Checksum::Partial)
    }

    /// The frame's bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let packet = match &self.content {
            Content::Raw(_, bytes) => bytes.clone(),
            Content::Packet(packet) => packet.build(packet.fragment, &packet.transport_bytes()),
        };
        self.envelope(&packet)
    }

    /// The IP packet alone, or what follows the `EtherType`.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        match &self.content {
            Content::Raw(_, bytes) => bytes.clone(),
            Content::Packet(packet) => packet.build(packet.fragment, &packet.transport_bytes()),
        }
    }

    /// The packet cut into fragments of `size` bytes (rounded down to eight) of its transport.
    #[must_use]
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let Content::Packet(packet) = &self.content else {
            return vec![self.build()];
        };
        let transport = packet.transport_bytes();
        let size = (size & !7).max(8);
        let count = transport.len().div_ceil(size);
        let cut = |(index, piece): (usize, &[u8])| {
            let place = (short(index * size / 8), index + 1 < count);
            self.envelope(&packet.build(Some(place), piece))
        };
        transport.chunks(size).enumerate().map(cut).collect()
    }

    fn envelope(&self, packet: &[u8]) -> Vec<u8> {
        let ether_type = match &self.content {
            Content::Raw(ether_type, _) => *ether_type,
            Content::Packet(packet) if packet.source.is_ipv4() => 0x0800,
            Content::Packet(_) => 0x86dd,
        };
        let [source, destination] = self.macs;
        let mut frame = [destination, source].concat();
        for (tpid, id) in &self.tags {
            frame.extend_from_slice(&tpid.to_be_bytes());
            frame.extend_from_slice(&id.to_be_bytes());
        }
        frame.extend_from_slice(&ether_type.to_be_bytes());
        frame.extend_from_slice(packet);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HMI: ([u8; 4], u16) = ([10, 10, 0, 5], 40_000);
    const PLC: ([u8; 4], u16) = ([10, 20, 0, 10], 502);

    #[test]
    fn a_segment_is_laid_out_as_the_specifications_say() {
        let frame = tcp(HMI, PLC).flags(SYN).seq(1).vlan2(100, 10).build();
        assert_eq!(&frame[12..22], &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 10, 8, 0]);
        assert_eq!(&frame[22..26], &[0x45, 0, 0, 40]);
        assert_eq!(internet_checksum(&frame[22..42]), 0);
        assert_eq!(&frame[42..46], &[0x9c, 0x40, 1, 0xf6]);
        assert_eq!(&frame[54..56], &[0x50, SYN]);
    }

    #[test]
    fn extension_headers_are_chained() {
        let source: Ipv6Addr = "fd00:10::5".parse().unwrap();
        let target: Ipv6Addr = "fd00:20::10".parse().unwrap();
        let packet = udp((source, 1), (target, 2))
            .hop_by_hop()
            .fragment(2, true)
            .packet();
        assert_eq!(packet[6], HOP_BY_HOP);
        assert_eq!(packet[40], layout::FRAGMENT);
        assert_eq!(packet[48], 17);
        assert_eq!(&packet[50..52], &[0, 17]);
    }

    #[test]
    fn fragments_carry_the_whole_transport() {
        let whole = udp(HMI, PLC).payload(vec![7; 50]);
        let pieces = whole.fragments(24);
        let carried: usize = pieces.iter().map(|piece| piece.len() - 34).sum();
        assert_eq!((pieces.len(), carried), (3, 58));
    }

    #[test]
    fn an_adu_has_its_length() {
        assert_eq!(
            modbus::adu(1, 9, modbus::read(3, 0, 10)),
            [0, 1, 0, 0, 0, 6, 9, 3, 0, 0, 0, 10]
        );
        assert_eq!(
            modbus::write_coils(0, &[true, false, true]),
            [15, 0, 0, 0, 3, 1, 5]
        );
    }
}

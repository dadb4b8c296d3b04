//! How an IP packet is laid out in bytes.

use std::net::IpAddr;

pub(super) const FRAGMENT: u8 = 44;

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    pub(super) identification: u32,
    /// Offset in units of eight bytes, and "more fragments".
    pub(super) fragment: Option<(u16, bool)>,
    pub(super) ipv4_options: Vec<u8>,
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    pub(super) transport: Transport,
    pub(super) checksum: Checksum,
}

/// What stands where the checksum of TCP, UDP or ICMP belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Checksum {
    Right,
    Spoilt,
    /// That of the pseudo-header alone, not complemented: the device is to complete it.
    Partial,
}

#[derive(Clone, Debug)]
pub(super) enum Transport {
    Tcp(Segment),
    Udp {
        ports: (u16, u16),
        payload: Vec<u8>,
    },
    /// ICMP or ICMPv6, after the family of the addresses: type, code, the rest.
    Icmp {
        kind: u8,
        code: u8,
        rest: Vec<u8>,
    },
    /// An IP protocol number and its bytes.
    Other(u8, Vec<u8>),
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) ports: (u16, u16),
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    fn protocol(&self) -> u8 {
        match (&self.transport, self.source) {
            (Transport::Tcp(_), _) => 6,
            (Transport::Udp { .. }, _) => 17,
            (Transport::Icmp { .. }, IpAddr::V4(_)) => 1,
            (Transport::Icmp { .. }, IpAddr::V6(_)) => 58,
            (Transport::Other(protocol, _), _) => *protocol,
        }
    }

    pub(super) fn transport_bytes(&self) -> Vec<u8> {
        let (mut bytes, checksum_at) = match &self.transport {
            Transport::Tcp(segment) => (segment.build(), 16),
            Transport::Udp { ports, payload } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend_from_slice(&short(8 + payload.len()).to_be_bytes());
                bytes.extend_from_slice(&[0, 0]);
                bytes.extend_from_slice(payload);
                (bytes, 6)
            }
            Transport::Icmp { kind, code, rest } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend_from_slice(rest);
                (bytes, 2)
            }
            Transport::Other(_, bytes) => return bytes.clone(),
        };
        let mut covered = self.pseudo_header(bytes.len());
        let of_pseudo_header = internet_checksum(&covered);
        covered.extend_from_slice(&bytes);
        let mut checksum = internet_checksum(&covered);
        if checksum == 0 && matches!(self.transport, Transport::Udp { .. }) {
            checksum = 0xffff;
        }
        let checksum = match self.checksum {
            Checksum::Right => checksum,
            Checksum::Spoilt => checksum ^ 0x5555,
            Checksum::Partial => !of_pseudo_header,
        };
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        if matches!(
            (&self.transport, self.source),
            (Transport::Icmp { .. }, IpAddr::V4(_))
        ) {
            return Vec::new();
        }
        let mut bytes = octets(self.source);
        bytes.extend(octets(self.destination));
        bytes.extend_from_slice(&u32::from(self.protocol()).to_be_bytes());
        bytes.extend_from_slice(&u32::from(short(length)).to_be_bytes());
        bytes
    }

    pub(super) fn build(&self, fragment: Option<(u16, bool)>, transport: &[u8]) -> Vec<u8> {
        if self.source.is_ipv4() {
            self.build_ipv4(fragment, transport)
        } else {
            self.build_ipv6(fragment, transport)
        }
    }

    fn build_ipv4(&self, fragment: Option<(u16, bool)>, transport: &[u8]) -> Vec<u8> {
        let header_bytes = 20 + self.ipv4_options.len();
        let (offset, more) = fragment.unwrap_or((0, false));
        let dont_fragment = if fragment.is_none() { 0x4000 } else { 0 };
        let flags = dont_fragment | u16::from(more) << 13 | offset & 0x1fff;
        let [.., version_and_length] = (0x40 + header_bytes / 4).to_be_bytes();
        let mut header = vec![version_and_length, 0];
        header.extend_from_slice(&short(header_bytes + transport.len()).to_be_bytes());
        header.extend_from_slice(&self.identification.to_be_bytes()[2..]);
        header.extend_from_slice(&flags.to_be_bytes());
        header.extend_from_slice(&[self.hop_limit, self.protocol(), 0, 0]);
        header.extend(octets(self.source));
        header.extend(octets(self.destination));
        header.extend_from_slice(&self.ipv4_options);
        let checksum = internet_checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header.extend_from_slice(transport);
        header
    }

    fn build_ipv6(&self, fragment: Option<(u16, bool)>, transport: &[u8]) -> Vec<u8> {
        let mut headers = self.extensions.clone();
        if let Some((offset, more)) = fragment {
            // RFC 8200 §4.5; its length byte is reserved, and 0 as for any eight-byte header.
            let mut content = (offset << 3 | u16::from(more)).to_be_bytes().to_vec();
            content.extend_from_slice(&self.identification.to_be_bytes());
            headers.push((FRAGMENT, content));
        }
        let mut body = Vec::new();
        for (index, (_, content)) in headers.iter().enumerate() {
            let next = headers
                .get(index + 1)
                .map_or(self.protocol(), |(kind, _)| *kind);
            let [.., units] = ((content.len() + 2) / 8 - 1).to_be_bytes();
            body.extend_from_slice(&[next, units]);
            body.extend_from_slice(content);
        }
        body.extend_from_slice(transport);
        let first = headers.first().map_or(self.protocol(), |(kind, _)| *kind);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend_from_slice(&short(body.len()).to_be_bytes());
        packet.extend_from_slice(&[first, self.hop_limit]);
        packet.extend(octets(self.source));
        packet.extend(octets(self.destination));
        packet.extend_from_slice(&body);
        packet
    }
}

impl Segment {
    fn build(&self) -> Vec<u8> {
        let [.., offset] = ((20 + self.options.len()) / 4 * 16).to_be_bytes();
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.ack.to_be_bytes());
        bytes.extend_from_slice(&[offset, self.flags]);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.urgent.to_be_bytes());
        bytes.extend_from_slice(&self.options);
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The Internet checksum (RFC 1071): 0 over anything that already holds its own.
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

//! Frames as two hosts would send them, for the decision to judge.

use std::net::IpAddr;

use conduitfw_common::wire::{ethernet, tcp::flag};

use crate::policy::Vlans;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// IEEE 802.1Q and 802.1ad.
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;
const HOP_LIMIT: u8 = 64;
/// What a host may send before it is acknowledged.
const WINDOW: u16 = 0xffff;
/// Maximum segment size (RFC 9293 §3.7.1), for a connection's first segments.
const SEGMENT_SIZE_OPTION: [u8; 4] = [2, 4, 0x05, 0xb4];

/// From whom to whom, and with which VLAN tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) vlans: Vlans,
}

/// A TCP segment, without its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
}

/// A frame with a TCP segment (RFC 9293 §3.1).
pub(super) fn tcp(path: &Path, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let options: &[u8] = if segment.flags & flag::SYN == 0 {
        &[]
    } else {
        &SEGMENT_SIZE_OPTION
    };
    let words = 5 + options.len() / 4;
    let mut bytes = Vec::with_capacity(words * 4 + payload.len());
    bytes.extend(segment.source_port.to_be_bytes());
    bytes.extend(segment.destination_port.to_be_bytes());
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgement.to_be_bytes());
    bytes.extend([low_byte(words) << 4, segment.flags]);
    bytes.extend(WINDOW.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(options);
    bytes.extend(payload);
    finish(path, TCP, bytes, 16)
}

/// A frame with a UDP datagram (RFC 768).
pub(super) fn udp(path: &Path, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(length(8 + payload.len()).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    finish(path, UDP, bytes, 6)
}

/// A frame with an echo request or its answer (RFC 792, RFC 4443 §4).
pub(super) fn echo(path: &Path, is_reply: bool, identifier: u16) -> Vec<u8> {
    let (protocol, kind) = match (path.source, is_reply) {
        (IpAddr::V4(_), false) => (ICMP, 8),
        (IpAddr::V4(_), true) => (ICMP, 0),
        (IpAddr::V6(_), false) => (ICMPV6, 128),
        (IpAddr::V6(_), true) => (ICMPV6, 129),
    };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(*b"conduitfw explain");
    finish(path, protocol, bytes, 2)
}

/// Sets the transport's checksum and puts the headers below in front.
fn finish(path: &Path, protocol: u8, mut transport: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let mut covered = Vec::new();
    if protocol != ICMP {
        covered.extend(octets(path.source));
        covered.extend(octets(path.destination));
        covered.extend(u32::from(length(transport.len())).to_be_bytes());
        covered.extend(u32::from(protocol).to_be_bytes());
    }
    covered.extend(&transport);
    let mut checksum = internet_checksum(&covered);
    if checksum == 0 && protocol == UDP {
        checksum = 0xffff;
    }
    put(&mut transport, checksum_at, checksum);
    let mut frame = ethernet_header(path);
    frame.extend(ip_header(path, protocol, transport.len()));
    frame.extend(transport);
    frame
}

fn ethernet_header(path: &Path) -> Vec<u8> {
    // Locally administered addresses.
    let mut header = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let mut tag = |kind: u16, id: u16| {
        header.extend(kind.to_be_bytes());
        header.extend(id.to_be_bytes());
    };
    match path.vlans {
        Vlans::Untagged | Vlans::Any => {}
        Vlans::Single(id) => tag(CUSTOMER_TAG, id),
        Vlans::Double(outer, inner) => {
            tag(SERVICE_TAG, outer);
            tag(CUSTOMER_TAG, inner);
        }
    }
    let ether_type = if path.source.is_ipv4() {
        ethernet::IPV4
    } else {
        ethernet::IPV6
    };
    header.extend(ether_type.to_be_bytes());
    header
}

fn ip_header(path: &Path, protocol: u8, payload_bytes: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(40);
    if path.source.is_ipv6() {
        header.extend([0x60, 0, 0, 0]);
        header.extend(length(payload_bytes).to_be_bytes());
        header.extend([protocol, HOP_LIMIT]);
        header.extend(octets(path.source));
        header.extend(octets(path.destination));
        return header;
    }
    header.extend([0x45, 0]);
    header.extend(length(20 + payload_bytes).to_be_bytes());
    // Not to be fragmented.
    header.extend([0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
    header.extend(octets(path.source));
    header.extend(octets(path.destination));
    let checksum = internet_checksum(&header);
    put(&mut header, 10, checksum);
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn put(bytes: &mut [u8], at: usize, number: u16) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(number.to_be_bytes()) {
        *place = byte;
    }
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

fn low_byte(number: usize) -> u8 {
    u8::try_from(number & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: &str, destination: &str) -> Path {
        Path {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            vlans: Vlans::Single(20),
        }
    }

    #[test]
    fn checksums_add_up() {
        let segment = Segment {
            source_port: 49_152,
            destination_port: 502,
            sequence: 1,
            acknowledgement: 0,
            flags: flag::SYN,
        };
        let frame = tcp(&path("10.10.0.5", "10.20.0.10"), segment, &[]);
        assert_eq!(frame.len(), 14 + 4 + 20 + 24);
        assert_eq!(internet_checksum(&frame[18..38]), 0);
        let mut covered = frame[30..38].to_vec();
        covered.extend([0, 6, 0, 24]);
        covered.extend(&frame[38..]);
        assert_eq!(internet_checksum(&covered), 0);
    }

    #[test]
    fn a_datagram_over_ipv6_has_a_checksum_too() {
        let frame = udp(&path("fd00:10::5", "fd00:20::10"), (49_152, 123), b"odd");
        let mut covered = frame[26..58].to_vec();
        covered.extend([0, 0, 0, 11, 0, 0, 0, 17]);
        covered.extend(&frame[58..]);
        assert_eq!(internet_checksum(&covered), 0);
    }
}

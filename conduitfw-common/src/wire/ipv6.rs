//! IPv6 with bounded extension headers: RFC 8200 §3, §4.

use zerocopy::big_endian::U16;
use zerocopy::native_endian;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::bytes::Headers;
use crate::packet::{Packet, transport};
use crate::verdict::Reason;

/// The fixed header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    version_and_class: u8,
    _class_and_flow_label: [u8; 3],
    payload_bytes: U16,
    /// Next Header.
    next: u8,
    hop_limit: u8,
    source: [native_endian::U32; 4],
    destination: [native_endian::U32; 4],
}

const HEADER_BYTES: u32 = 40;
/// Extension headers that are followed; hosts send at most hop-by-hop and destination options.
const MAXIMUM_EXTENSIONS: u32 = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ENCAPSULATING_SECURITY: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Sets the addresses, `transport`, `transport_at` and `packet_end`.
#[inline(always)]
pub(crate) fn parse<B: Headers + ?Sized>(
    frame: &B,
    frame_bytes: u32,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let start = packet.network_at;
    let header = frame.header::<Header>(start)?;
    packet.hop_limit = header.hop_limit;
    let mut next = header.next;
    packet.transport = next;
    packet.source = header.source.map(native_endian::U32::get);
    packet.destination = header.destination.map(native_endian::U32::get);
    // While the addresses are at hand: later they would have to be kept.
    if is_mapped(packet) {
        return Err(Reason::BadIpv6Header);
    }
    let payload_bytes = u32::from(header.payload_bytes.get());
    let end = start.wrapping_add(HEADER_BYTES).wrapping_add(payload_bytes);
    // A payload length of 0 announces a jumbogram (RFC 2675), which nobody here sends.
    if header.version_and_class >> 4 != 6 || payload_bytes == 0 || end > frame_bytes {
        return Err(Reason::BadIpv6Header);
    }
    packet.packet_end = end;
    let mut at = start.wrapping_add(HEADER_BYTES);
    // Nearly every packet.
    if matches!(next, transport::TCP | transport::UDP) {
        packet.transport_at = at;
        return Ok(());
    }
    for _ in 0..MAXIMUM_EXTENSIONS {
        match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let header = frame.u16(at)?;
                let [after, eighths] = header.to_be_bytes();
                next = after;
                at = at.wrapping_add(u32::from(eighths).wrapping_mul(8).wrapping_add(8));
                if at > end {
                    return Err(Reason::BadIpv6Header);
                }
            }
            _ => break,
        }
    }
    packet.transport = next;
    packet.transport_at = at;
    match next {
        FRAGMENT => Err(Reason::Fragment),
        HOP_BY_HOP
        | DESTINATION_OPTIONS
        | ROUTING
        | ENCAPSULATING_SECURITY
        | AUTHENTICATION
        | NO_NEXT_HEADER
        | MOBILITY => Err(Reason::Ipv6ExtensionNotAllowed),
        _ => Ok(()),
    }
}

/// An IPv6 packet whose addresses pose as IPv4 ones would be judged by the IPv4 rules.
#[inline(always)]
const fn is_mapped(packet: &Packet) -> bool {
    let [s0, s1, s2, _] = packet.source;
    let [d0, d1, d2, _] = packet.destination;
    (s0 | s1 == 0 && s2 == crate::table::IPV4_MAPPED)
        || (d0 | d1 == 0 && d2 == crate::table::IPV4_MAPPED)
}

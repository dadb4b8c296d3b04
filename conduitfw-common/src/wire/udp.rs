//! UDP: RFC 768.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::bytes::Headers;
use crate::packet::Packet;
use crate::verdict::Reason;
use crate::wire::tcp::set_ports;

/// The header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    ports: U32,
    length: U16,
    _checksum: U16,
}

const HEADER_BYTES: u32 = 8;

/// Sets ports and the payload. The length must be exactly what the IP packet holds.
#[inline(always)]
pub(crate) fn parse<B: Headers + ?Sized>(frame: &B, packet: &mut Packet) -> Result<(), Reason> {
    let (at, packet_end) = (packet.transport_at, packet.packet_end);
    if at.wrapping_add(HEADER_BYTES) > packet_end {
        return Err(Reason::BadUdpHeader);
    }
    let header = frame.header::<Header>(at)?;
    let length = u32::from(header.length.get());
    set_ports(packet, header.ports.get());
    if length < HEADER_BYTES || at.wrapping_add(length) != packet_end {
        return Err(Reason::BadUdpHeader);
    }
    packet.payload_at = at.wrapping_add(HEADER_BYTES);
    packet.payload_bytes = length.wrapping_sub(HEADER_BYTES);
    Ok(())
}

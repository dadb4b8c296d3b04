//! UDP: RFC 768.

use crate::bytes::ByteSource;
use crate::packet::Packet;
use crate::verdict::Reason;
use crate::wire::tcp::set_ports;

const HEADER_BYTES: u32 = 8;

/// Sets ports and the payload. The length must be exactly what the IP packet holds.
#[inline(always)]
pub(crate) fn parse<B: ByteSource + ?Sized>(
    frame: &B,
    packet_end: u32,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let at = packet.transport_at;
    let ports = frame.u32(at)?;
    let length = u32::from(frame.u16(at.wrapping_add(4))?);
    set_ports(packet, ports);
    if length < HEADER_BYTES || at.wrapping_add(length) != packet_end {
        return Err(Reason::BadUdpHeader);
    }
    packet.payload_at = at.wrapping_add(HEADER_BYTES);
    packet.payload_bytes = length.wrapping_sub(HEADER_BYTES);
    Ok(())
}

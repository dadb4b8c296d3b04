//! ICMP and ICMPv6: RFC 792, RFC 4443, RFC 4861 §4.
//!
//! An echo has no ports. Its identifier stands in for the initiator's, and 0 for the responder's,
//! so that request and reply are the two directions of one flow.

use crate::bytes::ByteSource;
use crate::packet::Packet;
use crate::verdict::Reason;
use crate::wire::ethernet;

const HEADER_BYTES: u32 = 8;
/// Hop limit that only a neighbour can deliver (RFC 4861 §7.1).
const NEIGHBOUR_HOP_LIMIT: u8 = 255;
/// Asks who has an address (RFC 4861 §4.3).
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Says who has an address (RFC 4861 §4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What an ICMP message is to a firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for an echo.
    EchoRequest,
    /// Answers one.
    EchoReply,
    /// Reports an error about a packet that it quotes.
    Error,
    /// IPv6 neighbour solicitation or advertisement.
    Neighbour,
    /// Anything else.
    Other,
}

/// Sets `icmp_type`, `icmp_code`, the payload, and the stand-ins for ports.
#[inline(always)]
pub(crate) fn parse<B: ByteSource + ?Sized>(frame: &B, packet: &mut Packet) -> Result<(), Reason> {
    let (at, packet_end) = (packet.transport_at, packet.packet_end);
    if at.wrapping_add(HEADER_BYTES) > packet_end {
        return Err(Reason::BadIcmpMessage);
    }
    let [icmp_type, icmp_code] = frame.u16(at)?.to_be_bytes();
    let identifier = frame.u16(at.wrapping_add(4))?;
    packet.icmp_type = icmp_type;
    packet.icmp_code = icmp_code;
    packet.payload_at = at.wrapping_add(HEADER_BYTES);
    packet.payload_bytes = packet_end.wrapping_sub(packet.payload_at);
    (packet.source_port, packet.destination_port) = (0, 0);
    match kind(packet) {
        Kind::EchoRequest => packet.source_port = identifier,
        Kind::EchoReply => packet.destination_port = identifier,
        _ => {}
    }
    Ok(())
}

/// The kind of the ICMP message in `packet`.
#[inline(always)]
#[must_use]
pub const fn kind(packet: &Packet) -> Kind {
    if packet.ether_type == ethernet::IPV4 {
        match packet.icmp_type {
            8 => Kind::EchoRequest,
            0 => Kind::EchoReply,
            3 | 11 | 12 => Kind::Error,
            _ => Kind::Other,
        }
    } else {
        match packet.icmp_type {
            128 => Kind::EchoRequest,
            129 => Kind::EchoReply,
            1..=4 => Kind::Error,
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT
                if packet.hop_limit == NEIGHBOUR_HOP_LIMIT && packet.icmp_code == 0 =>
            {
                Kind::Neighbour
            }
            _ => Kind::Other,
        }
    }
}

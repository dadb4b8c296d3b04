//! ARP for IPv4 on Ethernet: RFC 826.

use crate::bytes::ByteSource;
use crate::packet::Packet;
use crate::table::IPV4_MAPPED;
use crate::verdict::Reason;

/// Hardware Ethernet, protocol IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: u64 = 0x0001_0800_0604;

/// Sets the sender's and the target's address as source and destination.
#[inline(always)]
pub(crate) fn parse<B: ByteSource + ?Sized>(frame: &B, packet: &mut Packet) -> Result<(), Reason> {
    let at = packet.network_at;
    let first = frame.u64(at)?;
    let sender = frame.u32(at.wrapping_add(14))?;
    let target = frame.u32(at.wrapping_add(24))?;
    packet.source = [0, 0, IPV4_MAPPED, sender.to_be()];
    packet.destination = [0, 0, IPV4_MAPPED, target.to_be()];
    let operation = first & 0xffff;
    if first >> 16 != ETHERNET_IPV4 || !matches!(operation, 1 | 2) {
        return Err(Reason::BadArpPacket);
    }
    Ok(())
}

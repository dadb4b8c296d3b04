//! Checksums that were left to a device.

use crate::bytes::Truncated;
use crate::packet::{Packet, transport};
use crate::reset::{CHECKSUM_AT, FrameEditor, fold, pseudo_header};

/// Finishes a checksum that is the sum of the pseudo-header alone, as it stands in a frame of this very
/// machine (a container's, a virtual machine's) whose device is to finish it: frames from program to
/// program do not tell of that. `at` is where the transport header stands now.
///
/// # Errors
/// [`Truncated`] when the frame is not there as its headers say, or is too long to be summed up.
#[inline(always)]
pub fn finish_checksum<F: FrameEditor>(
    way: &mut F,
    packet: &Packet,
    at: u32,
    bytes: u32,
) -> Result<(), Truncated> {
    let Some(offset) = checksum_at(packet) else {
        return Ok(());
    };
    let checksum_at = at.wrapping_add(offset);
    let found = way.u16(checksum_at)?;
    let pseudo = pseudo_header_of(packet, bytes);
    if found != fold(pseudo) {
        return Ok(());
    }
    let sum = fold(pseudo.wrapping_add(u64::from(way.sum(at, bytes)?)));
    if sum == u16::MAX {
        // It is right as it is: so it is for one segment in 65,536.
        return Ok(());
    }
    // Without what stood there; a sum of zero would say that there is none (RFC 768).
    let checksum = !fold(u64::from(sum).wrapping_add(u64::from(!found)));
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    way.set_u16(checksum_at, checksum)
}

/// Whether the checksum of a segment or datagram is more than the sum of the pseudo-header.
#[inline(always)]
pub(super) fn is_finished<F: FrameEditor>(way: &F, packet: &Packet, bytes: u32) -> bool {
    let Some(offset) = checksum_at(packet) else {
        return false;
    };
    match way.u16(way.within(packet.transport_at.wrapping_add(offset), 0x7fff)) {
        Ok(found) => found != fold(pseudo_header_of(packet, bytes)),
        Err(Truncated) => false,
    }
}

/// Where the checksum stands in a transport header, of those that have a pseudo-header.
#[inline(always)]
const fn checksum_at(packet: &Packet) -> Option<u32> {
    match packet.transport {
        transport::TCP => Some(CHECKSUM_AT),
        transport::UDP => Some(UDP_CHECKSUM_AT),
        _ => None,
    }
}

/// The pseudo-header of a TCP segment, made one of the packet's own transport.
#[inline(always)]
fn pseudo_header_of(packet: &Packet, bytes: u32) -> u64 {
    pseudo_header(packet, bytes)
        .wrapping_sub(u64::from(transport::TCP))
        .wrapping_add(u64::from(packet.transport))
}

const UDP_CHECKSUM_AT: u32 = 6;

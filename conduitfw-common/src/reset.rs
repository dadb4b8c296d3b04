//! The verdict reset: the denied segment becomes a RST (RFC 9293 §3.10.7.4), in place.

use crate::bytes::{ByteSource, Truncated};
use crate::packet::{Packet, transport};
use crate::wire::{ethernet, tcp};

/// Bytes that are summed up at most: a jumbo frame.
pub const MAX_SUM_BYTES: u32 = 9216;

/// A frame that can be changed. Integers are written in network order.
pub trait FrameEditor: ByteSource {
    /// Writes a byte; answers the one that was there.
    ///
    /// # Errors
    /// [`Truncated`].
    fn replace_u8(&mut self, at: u32, value: u8) -> Result<u8, Truncated>;

    /// Writes two bytes.
    ///
    /// # Errors
    /// [`Truncated`] when the frame ends before them; the same holds for every method here.
    fn set_u16(&mut self, at: u32, value: u16) -> Result<(), Truncated>;

    /// Writes four bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    fn set_u32(&mut self, at: u32, value: u32) -> Result<(), Truncated>;

    /// The ones' complement sum of `bytes` bytes from `at` on, as 16-bit words in network order (RFC
    /// 1071 §1), folded.
    ///
    /// # Errors
    /// [`Truncated`], also when they are more than [`MAX_SUM_BYTES`].
    fn sum(&self, at: u32, bytes: u32) -> Result<u16, Truncated>;

    /// Cuts the frame to `bytes` bytes.
    ///
    /// # Errors
    /// [`Truncated`] when it is shorter already, or cannot be cut.
    fn cut(&mut self, bytes: u32) -> Result<(), Truncated>;
}

/// Data offset 5, flags RST and ACK, window 0.
const RESET_WORD: u32 = 0x5000_0000 | 0x0014_0000;
const IPV6_HEADER_BYTES: u32 = 40;

/// Turns the TCP segment of `packet` into a reset for its destination, whose receiver expects
/// `sequence`; or, with `to_initiator`, into one that goes back to its sender.
///
/// # Errors
/// [`Truncated`] when the frame cannot be changed: it must then be dropped.
#[inline(always)]
pub fn rewrite<F: FrameEditor>(
    frame: &mut F,
    packet: &Packet,
    sequence: u32,
    to_initiator: bool,
) -> Result<(), Truncated> {
    let at = packet.transport_at;
    let checksum_at = at.wrapping_add(CHECKSUM_AT);
    // What is put in the place of a sum that the device is to complete must be completed as well.
    let is_partial = !to_initiator && is_left_to_device(frame, packet)?;

    let (next, acknowledgement) = if to_initiator {
        (
            packet.acknowledgement,
            packet.sequence.wrapping_add(packet.payload_bytes),
        )
    } else {
        (sequence, packet.acknowledgement)
    };
    if to_initiator {
        turn_around(frame, packet)?;
    }
    frame.set_u32(at.wrapping_add(4), next)?;
    frame.set_u32(at.wrapping_add(8), acknowledgement)?;
    frame.set_u32(at.wrapping_add(12), RESET_WORD)?;
    let pseudo = pseudo_header(packet, tcp::HEADER_BYTES);
    let checksum = if is_partial {
        fold(pseudo)
    } else {
        let sum = pseudo
            .wrapping_add(u64::from(packet.source_port))
            .wrapping_add(u64::from(packet.destination_port))
            .wrapping_add(u64::from(next))
            .wrapping_add(u64::from(acknowledgement))
            .wrapping_add(u64::from(RESET_WORD));
        !fold(sum)
    };
    // Checksum, and an urgent pointer of 0.
    frame.set_u32(checksum_at, u32::from(checksum) << 16)?;
    set_ip_length(frame, packet, tcp::HEADER_BYTES)?;
    frame.cut(at.wrapping_add(tcp::HEADER_BYTES))
}

/// Whether the TCP checksum is the sum of the pseudo-header alone, for the device to complete: so it
/// is in a frame from this very machine. The right checksum of one segment in 65,536 looks the same,
/// so the segment is summed up before it is believed.
#[inline(always)]
pub(crate) fn is_left_to_device<F: FrameEditor>(
    frame: &F,
    packet: &Packet,
) -> Result<bool, Truncated> {
    let at = packet.transport_at;
    let bytes = tcp_bytes(packet);
    let pseudo = pseudo_header(packet, bytes);
    if frame.u16(at.wrapping_add(CHECKSUM_AT))? != fold(pseudo) {
        return Ok(false);
    }
    let sum = u64::from(frame.sum(at, bytes)?);
    Ok(fold(pseudo.wrapping_add(sum)) != u16::MAX)
}

/// Bytes of the segment, with its header.
#[inline(always)]
pub(crate) const fn tcp_bytes(packet: &Packet) -> u32 {
    packet
        .payload_at
        .wrapping_sub(packet.transport_at)
        .wrapping_add(packet.payload_bytes)
}

/// Where the checksum stands in a TCP header.
pub(crate) const CHECKSUM_AT: u32 = 16;

/// Swaps the hardware addresses, the IP addresses and the ports.
#[inline(always)]
fn turn_around<F: FrameEditor>(frame: &mut F, packet: &Packet) -> Result<(), Truncated> {
    let (d0, d1) = (frame.u32(0)?, frame.u16(4)?);
    let (s0, s1) = (frame.u16(6)?, frame.u32(8)?);
    frame.set_u16(0, s0)?;
    frame.set_u32(2, s1)?;
    frame.set_u32(6, d0)?;
    frame.set_u16(10, d1)?;
    let ports = u32::from(packet.destination_port) << 16 | u32::from(packet.source_port);
    frame.set_u32(packet.transport_at, ports)?;
    let at = packet.network_at;
    if packet.ether_type == ethernet::IPV4 {
        let [_, _, _, source] = packet.source;
        let [_, _, _, destination] = packet.destination;
        frame.set_u32(at.wrapping_add(12), u32::from_be(destination))?;
        return frame.set_u32(at.wrapping_add(16), u32::from_be(source));
    }
    let (mut to, mut from) = (at.wrapping_add(8), at.wrapping_add(24));
    for (source, destination) in packet.source.into_iter().zip(packet.destination) {
        frame.set_u32(to, u32::from_be(destination))?;
        frame.set_u32(from, u32::from_be(source))?;
        to = to.wrapping_add(4);
        from = from.wrapping_add(4);
    }
    Ok(())
}

/// The IP packet is as long as its header and a segment of so many bytes.
#[inline(always)]
pub(crate) fn set_ip_length<F: FrameEditor>(
    frame: &mut F,
    packet: &Packet,
    tcp_bytes: u32,
) -> Result<(), Truncated> {
    let at = packet.network_at;
    let ip_bytes = packet.transport_at.wrapping_sub(at).wrapping_add(tcp_bytes);
    if packet.ether_type == ethernet::IPV6 {
        return frame.set_u16(
            at.wrapping_add(4),
            low(ip_bytes.wrapping_sub(IPV6_HEADER_BYTES)),
        );
    }
    let length_at = at.wrapping_add(2);
    let checksum_at = at.wrapping_add(10);
    let old_length = frame.u16(length_at)?;
    let old_checksum = frame.u16(checksum_at)?;
    let length = low(ip_bytes);
    frame.set_u16(length_at, length)?;
    // RFC 1624 §3, equation 3.
    let sum = u64::from(!old_checksum)
        .wrapping_add(u64::from(!old_length))
        .wrapping_add(u64::from(length));
    frame.set_u16(checksum_at, !fold(sum))
}

/// Sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1), not folded.
#[inline(always)]
pub(crate) fn pseudo_header(packet: &Packet, tcp_bytes: u32) -> u64 {
    let mut sum = u64::from(transport::TCP).wrapping_add(u64::from(tcp_bytes));
    let [s0, s1, s2, s3] = packet.source;
    let [d0, d1, d2, d3] = packet.destination;
    sum = sum
        .wrapping_add(u64::from(u32::from_be(s3)))
        .wrapping_add(u64::from(u32::from_be(d3)));
    if packet.ether_type == ethernet::IPV6 {
        sum = sum
            .wrapping_add(u64::from(u32::from_be(s0)))
            .wrapping_add(u64::from(u32::from_be(s1)))
            .wrapping_add(u64::from(u32::from_be(s2)))
            .wrapping_add(u64::from(u32::from_be(d0)))
            .wrapping_add(u64::from(u32::from_be(d1)))
            .wrapping_add(u64::from(u32::from_be(d2)));
    }
    sum
}

/// Folds a sum of 32-bit words into a ones' complement sum of 16-bit words (RFC 1071 §2).
#[inline(always)]
pub(crate) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32).wrapping_add(sum & 0xffff_ffff);
    let sum = (sum >> 16).wrapping_add(sum & 0xffff);
    let sum = (sum >> 16).wrapping_add(sum & 0xffff);
    let sum = (sum >> 16).wrapping_add(sum & 0xffff);
    low64(sum)
}

#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the lower half is meant"
)]
const fn low(number: u32) -> u16 {
    number as u16
}

#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the lower half is meant"
)]
const fn low64(number: u64) -> u16 {
    number as u16
}

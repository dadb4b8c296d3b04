//! A TCP segment as a receiver reads it from a frame of the oracle: one tag at most, IPv4 without
//! options.

use super::reader::short;
use crate::frames::{VLAN, internet_checksum};

/// What a receiver sees.
#[derive(Clone, Debug)]
pub struct Segment {
    /// TTL, as it left the gateway's XDP program.
    pub hop_limit: u8,
    /// Flags.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Urgent pointer.
    pub urgent: u16,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether the checksums of IP and TCP are right.
    pub is_sound: bool,
    /// Whether the checksum of TCP is the sum of the pseudo-header alone.
    pub looks_partial: bool,
}

impl Segment {
    /// Reads a frame; nothing when it is no TCP over IPv4.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let at = if short(frame, 12)? == VLAN { 18 } else { 14 };
        let packet = frame.get(at..)?;
        let packet = packet.get(..usize::from(short(packet, 2)?))?;
        let (ip, tcp) = packet.split_at_checked(20)?;
        if ip.first() != Some(&0x45) || ip.get(9) != Some(&6) {
            return None;
        }
        let data_at = usize::from(tcp.get(12)? >> 4) * 4;
        let mut covered = ip.get(12..20)?.to_vec();
        covered.extend_from_slice(&[0, 6]);
        covered.extend_from_slice(&u16::try_from(tcp.len()).ok()?.to_be_bytes());
        let pseudo_sum = !internet_checksum(&covered);
        covered.extend_from_slice(tcp);
        let word = |at: usize| {
            let bytes = tcp.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        Some(Self {
            looks_partial: short(tcp, 16) == Some(pseudo_sum),
            hop_limit: *ip.get(8)?,
            flags: *tcp.get(13)?,
            sequence: word(4)?,
            acknowledgement: word(8)?,
            urgent: short(tcp, 18)?,
            payload: tcp.get(data_at..)?.to_vec(),
            is_sound: internet_checksum(ip) == 0 && internet_checksum(&covered) == 0,
        })
    }
}

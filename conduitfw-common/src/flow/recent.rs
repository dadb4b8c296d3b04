//! Where the flows of the last frames are: most frames are of a flow that had one a moment ago, and need no
//! hash. What is remembered is a hint, one of each processor's own: the entry itself says whose it is.

use crate::packet::Packet;
use crate::platform::Platform;

/// Hints of a processor; a power of two.
const HINTS: usize = 1024;
const MASK: u32 = 1023;

/// A flow's mark, and its place; 0 for none, which is no flow's.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
struct Hint {
    mark: u32,
    place: u32,
}

/// The hints, by the lower bits of the mark.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Recent([Hint; HINTS]);

impl Default for Recent {
    fn default() -> Self {
        Self([Hint::default(); HINTS])
    }
}

/// What tells the flow of a packet from most others, the same for both directions. Nothing rests on it: flows
/// that share one only cost each other a hash.
#[inline(always)]
#[must_use]
pub fn mark_of(packet: &Packet) -> u32 {
    let [_, _, _, source] = packet.source;
    let [_, _, _, destination] = packet.destination;
    let ports = u32::from(packet.source_port ^ packet.destination_port);
    (ports | ports << 16) ^ u32::from_be(source ^ destination)
}

/// The place of the flow that had this mark last; 0 when none had.
#[inline(always)]
#[must_use]
pub fn place<P: Platform>(p: &P, mark: u32) -> u32 {
    match p.seen().recent.0.get(index(p.within(mark, MASK))) {
        Some(hint) if hint.mark == mark => hint.place,
        _ => 0,
    }
}

/// Remembers it.
#[inline(always)]
pub fn set<P: Platform>(p: &mut P, mark: u32, place: u32) {
    let row = index(p.within(mark, MASK));
    if let Some(hint) = p.workspace().recent.0.get_mut(row) {
        *hint = Hint { mark, place };
    }
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "ten bits")]
const fn index(row: u32) -> usize {
    row as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::IPV4_MAPPED;

    #[test]
    fn both_directions_of_a_flow_have_one_mark_and_flows_that_are_alike_have_not() {
        let address = |last: [u8; 4]| [0, 0, IPV4_MAPPED, u32::from_ne_bytes(last)];
        let packet = |host, source_port| Packet {
            source: address([10, 1, 0, host]),
            destination: address([10, 2, 0, 9]),
            source_port,
            destination_port: 502,
            ..Packet::default()
        };
        let mut seen = [0; 64];
        for (number, mark) in seen.iter_mut().enumerate() {
            let number = u16::try_from(number).unwrap();
            let there = packet(u8::try_from(number % 8).unwrap(), 49_152 + number / 8);
            let back = Packet {
                source: there.destination,
                destination: there.source,
                source_port: there.destination_port,
                destination_port: there.source_port,
                ..there
            };
            *mark = mark_of(&there);
            assert_eq!(mark_of(&back), *mark);
        }
        seen.sort_unstable();
        assert!(seen.iter().zip(seen.iter().skip(1)).all(|(a, b)| a != b));
    }
}

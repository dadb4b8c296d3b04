//! From addresses and ports to a place in the flow table.
//!
//! The hash is multilinear over 32-bit words with secret 64-bit keys: for two flows chosen
//! without knowing the keys, the chance of a collision is 2^-32 whatever the flows are, so nobody
//! can fill one bucket on purpose.

use crate::packet::Packet;
use crate::table::Settings;
use crate::wire::ethernet;

/// Ways of a bucket. Way 0 is the bucket's lock, so seven flows fit.
pub const WAYS: u32 = 8;

/// The two buckets a flow may be in, and its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Upper half of the hash; masked, the bucket tried first.
    pub first: u32,
    /// Masked, the bucket tried second.
    pub second: u32,
    /// Stands in the bucket for the flow; at least [`FIRST_TAG`].
    pub tag: u32,
}

/// Tag of a free way.
pub const FREE: u32 = 0;
/// Tag of a way that is being filled.
pub const CLAIMED: u32 = 1;
/// Lowest tag of a flow.
pub const FIRST_TAG: u32 = 2;

/// Where the flow of `packet` belongs: the same for both directions. `again` is the same packet, for what
/// only IPv6 needs of it ([`crate::platform::Platform::again`]).
#[inline(always)]
#[must_use]
#[expect(clippy::as_conversions, reason = "halves of a word")]
pub fn place(packet: &Packet, again: &Packet, settings: &Settings) -> Place {
    let [_, _, _, source] = packet.source;
    let [_, _, _, destination] = packet.destination;
    let source_low = join(source, packet.source_port);
    let destination_low = join(destination, packet.destination_port);
    let swap = source_low > destination_low;
    let mut hash = if swap {
        hash_low(packet.transport, destination_low, source_low, settings)
    } else {
        hash_low(packet.transport, source_low, destination_low, settings)
    };
    // The other words of an IPv4 address are always the same.
    if packet.ether_type != ethernet::IPV4 {
        hash = hash.wrapping_add(hash_high(
            again,
            source_low == destination_low,
            swap,
            settings,
        ));
    }
    let first = (hash >> 32) as u32;
    // All 64 bits have a part in the tag: those of `first` are alike within a bucket.
    let tag = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 | FIRST_TAG;
    // The way between the two buckets depends on the tag alone and is never zero.
    let second = first ^ (tag.wrapping_mul(0x9e37_79b1) | 1);
    Place { first, second, tag }
}

/// The transport, the ports, and the last words of the addresses, each as [`join`] has it.
#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the lower half is meant"
)]
fn hash_low(transport: u8, low: u64, high: u64, settings: &Settings) -> u64 {
    // By reference: read all at once, they take stack that the stages need.
    let [k0, k1, k2, k3, k4, ..] = &settings.hash_keys;
    k0.wrapping_add(k1.wrapping_mul(u64::from(low as u32)))
        .wrapping_add(k2.wrapping_mul(u64::from(high as u32)))
        .wrapping_add(k3.wrapping_mul((low >> 32) << 16 | high >> 32))
        .wrapping_add(k4.wrapping_mul(u64::from(transport)))
}

/// The words of IPv6 addresses before the last.
#[inline(always)]
fn hash_high(packet: &Packet, is_level: bool, swap: bool, settings: &Settings) -> u64 {
    let [.., k5, k6, k7, k8, k9, k10, _] = &settings.hash_keys;
    let swap = if is_level {
        let ([s0, s1, s2, _], [d0, d1, d2, _]) = (packet.source, packet.destination);
        (join32(s0, s1), s2) > (join32(d0, d1), d2)
    } else {
        swap
    };
    // By reference: the words are chosen at once, and not one by one.
    let (l, h) = if swap {
        (&packet.destination, &packet.source)
    } else {
        (&packet.source, &packet.destination)
    };
    k5.wrapping_mul(u64::from(l[0]))
        .wrapping_add(k6.wrapping_mul(u64::from(l[1])))
        .wrapping_add(k7.wrapping_mul(u64::from(l[2])))
        .wrapping_add(k8.wrapping_mul(u64::from(h[0])))
        .wrapping_add(k9.wrapping_mul(u64::from(h[1])))
        .wrapping_add(k10.wrapping_mul(u64::from(h[2])))
}

/// Port in the upper half, last word of the address in the lower.
#[inline(always)]
fn join(address: u32, port: u16) -> u64 {
    u64::from(port) << 32 | u64::from(address)
}

#[inline(always)]
fn join32(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::transport;
    use crate::table::IPV4_MAPPED;

    fn settings() -> Settings {
        let mut hash_keys = [0; 12];
        let mut state: u64 = 0x1234_5678_9abc_def1;
        for key in &mut hash_keys {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *key = state;
        }
        Settings {
            hash_keys,
            ..Settings::default()
        }
    }

    fn packet(source: [u32; 4], source_port: u16, destination: [u32; 4], port: u16) -> Packet {
        Packet {
            source,
            source_port,
            destination,
            destination_port: port,
            transport: transport::TCP,
            ether_type: if source[2] == IPV4_MAPPED {
                ethernet::IPV4
            } else {
                ethernet::IPV6
            },
            ..Packet::default()
        }
    }

    fn at(packet: &Packet, settings: &Settings) -> Place {
        place(packet, packet, settings)
    }

    #[test]
    fn both_directions_of_a_flow_have_one_place() {
        let settings = settings();
        let v4 = |last: u32| [0, 0, IPV4_MAPPED, last];
        let v6 = |first: u32, last: u32| [first, 1, 2, last];
        for (one, other) in [
            (v4(1), v4(2)),
            (v4(2), v4(1)),
            (v6(1, 5), v6(2, 5)),
            (v6(7, 1), v6(7, 1)),
        ] {
            let there = at(&packet(one, 1024, other, 502), &settings);
            let back = at(&packet(other, 502, one, 1024), &settings);
            assert_eq!(there, back);
        }
    }

    #[test]
    fn one_bucket_holds_many_tags() {
        let settings = settings();
        let mut by_bucket: [[u32; 64]; 8] = [[0; 64]; 8];
        let mut filled = [0_usize; 8];
        for port in 0..512_u16 {
            let source = [0, 0, IPV4_MAPPED, 10];
            let at = at(
                &packet(source, port, [0, 0, IPV4_MAPPED, 11], 502),
                &settings,
            );
            let bucket = usize::try_from(at.first & 7).unwrap();
            let tags = by_bucket.get_mut(bucket).unwrap();
            let used = filled.get_mut(bucket).unwrap();
            if let Some(room) = tags.get_mut(*used) {
                *room = at.tag;
                *used = used.wrapping_add(1);
            }
            assert!(at.tag >= FIRST_TAG);
            assert_ne!(
                at.first & 7,
                at.second & 7,
                "the second bucket is another one"
            );
        }
        for (tags, used) in by_bucket.iter().zip(filled) {
            for (index, tag) in tags.iter().take(used).enumerate() {
                assert!(!tags.iter().take(index).any(|other| other == tag));
            }
        }
    }
}

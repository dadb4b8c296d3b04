//! Requests of an attacker: allowed ones, denied ones of the same length, and such that lie about
//! their length.

use super::site::{Operands, Site};
use crate::chance::Chance;
use crate::frames::modbus::{
    adu, mask_write, read, read_write, request, with_header, write_coils, write_registers,
    write_single,
};

/// Two streams of the same layout.
pub(super) struct Pair {
    pub(super) allowed: Vec<u8>,
    pub(super) denied: Vec<u8>,
    /// Where requests begin.
    pub(super) starts: Vec<usize>,
}

impl Pair {
    pub(super) fn new(site: &Site, chance: &mut Chance) -> Self {
        let mut pair = Self {
            allowed: Vec::new(),
            denied: Vec::new(),
            starts: Vec::new(),
        };
        for _ in 0..2 + chance.below(6) {
            pair.starts.push(pair.allowed.len());
            let allowed = allowed_request(site, chance);
            let denied = if chance.once_in(3) {
                allowed.clone()
            } else {
                denied_like(site, chance, &allowed)
            };
            pair.allowed.extend(allowed);
            pair.denied.extend(denied);
        }
        // A tail that only one of them has: lengths that lie, anything.
        if chance.once_in(3) {
            let odd = odd_request(site, chance);
            pair.denied.extend(odd);
        }
        pair
    }
}

fn transaction(chance: &mut Chance) -> u16 {
    // A transaction id whose bytes look like function codes, for those who lose their place.
    let bytes = [chance.byte(), chance.byte()];
    if chance.once_in(4) {
        // Few of them, which are looked for in one place.
        return u16::from(bytes[0] & 1) << 4 | 1;
    }
    if chance.once_in(3) {
        u16::from_be_bytes([6, bytes[0]])
    } else {
        u16::from_be_bytes(bytes)
    }
}

/// A request that the site allows.
pub(super) fn allowed_request(site: &Site, chance: &mut Chance) -> Vec<u8> {
    let Some(permit) = chance.one_of(site.permits).copied() else {
        return Vec::new();
    };
    let (first, last, highest) = match permit.operands {
        Operands::Any => (0, 0xffff, 0xffff),
        Operands::Within(first, last, highest) => (first, last, highest),
    };
    let room = (last - first).saturating_add(1).min(20);
    let quantity = 1 + chance.short(room);
    let address = first
        + chance.short(
            (last - first)
                .saturating_sub(quantity - 1)
                .saturating_add(1),
        );
    let value = chance.short(highest.saturating_add(1));
    let count = usize::from(quantity);
    let pdu = match permit.function {
        1..=4 => read(permit.function, address, quantity),
        5 => write_single(5, address, if value == 0 { 0 } else { 0xff00 }),
        6 => write_single(6, address, value),
        15 => write_coils(address, &vec![value & 1 != 0; count]),
        16 => write_registers(address, &vec![value; count]),
        22 => mask_write(address, 0, value),
        23 => read_write((address, quantity), address, &vec![value; count]),
        other => request(other),
    };
    adu(transaction(chance), 1, pdu)
}

/// A denied request of the same length as an allowed one, where there is one.
pub(super) fn denied_like(site: &Site, chance: &mut Chance, allowed: &[u8]) -> Vec<u8> {
    let mut bytes = allowed.to_vec();
    let set = |bytes: &mut Vec<u8>, at: usize, value: u8| {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    };
    match chance.below(5) {
        // Another unit.
        0 => set(&mut bytes, 6, 2 + chance.byte() % 200),
        // Another function, of the same length when the length is the common one.
        1 | 2 => {
            let denied: Vec<u8> = [5, 6, 1, 2, 15, 16, 22, 23, 90, 8, 43]
                .into_iter()
                .filter(|function| {
                    site.permits
                        .iter()
                        .all(|permit| permit.function != *function)
                })
                .collect();
            let function = chance.one_of(&denied).copied().unwrap_or(99);
            set(&mut bytes, 7, function);
        }
        // Another address, quantity or value.
        3 => {
            let at = 8 + chance.below(bytes.len().saturating_sub(8));
            let value = chance.byte();
            set(&mut bytes, at, value);
        }
        _ => {
            let pdu = write_single(6, chance.short(100), chance.short(0xffff));
            let other = adu(transaction(chance), 1, pdu);
            let length = bytes.len().min(other.len());
            bytes.splice(..length, other.into_iter().take(length));
        }
    }
    bytes
}

/// A request with a length that lies, or that is not known at all; a denied one hides in it.
fn odd_request(site: &Site, chance: &mut Chance) -> Vec<u8> {
    let hidden = adu(7, 1, write_single(6, 1, 1));
    let outer = allowed_request(site, chance);
    let pdu = outer.get(7..).unwrap_or_default();
    let length = u16::try_from(pdu.len() + 1).unwrap_or(2);
    let id = transaction(chance);
    let mut bytes = match chance.below(6) {
        // Inflated: the hidden request is within by the header, behind it by the function.
        0 => with_header(id, 0, length + 12, 1, pdu),
        // Deflated.
        1 => with_header(id, 0, length.saturating_sub(chance.short(length)), 1, pdu),
        2 => with_header(id, 0, chance.short(600), 1, pdu),
        3 => with_header(id, u16::from(chance.byte()), length, 1, pdu),
        4 => {
            let function = chance.byte();
            adu(id, 1, [&[function][..], &hidden].concat())
        }
        _ => {
            // A byte count that lies.
            let mut pdu = write_registers(0, &[0; 6]);
            let count = chance.byte();
            if let Some(byte) = pdu.get_mut(5) {
                *byte = count;
            }
            pdu.truncate(6);
            pdu.extend(&hidden);
            adu(id, 1, pdu)
        }
    };
    bytes.extend(hidden);
    bytes
}

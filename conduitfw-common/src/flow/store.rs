//! The flow tables: finding, adding and removing flows.
//!
//! A flow has two buckets of seven ways. Lookups take no lock: a tag is published after its entry
//! is whole and withdrawn before it is reused, and the caller holds the entry's own lock while it
//! judges. Adding takes the lock of the flow's first bucket, so that one flow is never added twice,
//! and claims a way by exchanging its tag.

use crate::flow::entry::{Direction, FlowEntry, phase, request_state};
use crate::flow::key::{CLAIMED, FREE, Place, WAYS, place};
use crate::packet::{Packet, transport};
use crate::platform::{FlowTable, Platform};
use crate::table::Generation;

/// A flow that was found: its place and the packet's direction in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bucket x 8 + way.
    pub place: u32,
    /// The direction of the packet.
    pub direction: Direction,
}

/// Finds the flow of the packet at hand. It is not locked.
#[inline(always)]
pub fn find<P: Platform>(p: &P, table: FlowTable, packet: &Packet) -> Option<Found> {
    let place = find_place(p, table, packet, packet);
    if place == 0 {
        return None;
    }
    let direction = p.flow_seen(table, place)?.direction_of(packet)?;
    Some(Found { place, direction })
}

/// The place of the only flow that may be the packet's, or 0: way 0 of bucket 0 is a lock. Its
/// addresses have still to be compared. `again` is for [`place`].
#[inline(always)]
pub fn find_place<P: Platform>(p: &P, table: FlowTable, packet: &Packet, again: &Packet) -> u32 {
    let Some(settings) = p.settings() else {
        return 0;
    };
    let mask = match table {
        FlowTable::Flows => settings.flow_bucket_mask,
        FlowTable::Openings => settings.opening_bucket_mask,
    };
    let at = place(packet, again, settings);
    match find_in(p, table, at.first & mask, at.tag) {
        // No tag stands in both buckets of a flow.
        0 => find_in(p, table, at.second & mask, at.tag),
        place => place,
    }
}

#[inline(always)]
fn find_in<P: Platform>(p: &P, table: FlowTable, bucket: u32, tag: u32) -> u32 {
    let Some(tags) = p.bucket(table, bucket) else {
        return 0;
    };
    let [_, t1, t2, t3, t4, t5, t6, t7] = *tags;
    let first = bucket.wrapping_mul(WAYS);
    for (way, candidate) in [
        (1, t1),
        (2, t2),
        (3, t3),
        (4, t4),
        (5, t5),
        (6, t6),
        (7, t7),
    ] {
        if candidate == tag {
            return first.wrapping_add(way);
        }
    }
    0
}

/// How many ticks a flow may go without a frame.
#[inline(always)]
#[must_use]
pub fn lifetime_ticks(transport: u8, in_phase: u8, generation: &Generation) -> u64 {
    u64::from(if transport == transport::TCP {
        match in_phase {
            phase::ESTABLISHED => generation.tcp_established_ticks,
            phase::OPENING | phase::ANSWERED => generation.tcp_opening_ticks,
            _ => generation.tcp_closing_ticks,
        }
    } else if in_phase == phase::ESTABLISHED {
        generation.datagram_ticks
    } else {
        generation.datagram_opening_ticks
    })
}

/// Adds the flow of the packet at hand, or finds the one that another processor just added: that has a
/// phase.
///
/// Returns its place plus 1, locked, with a fresh `serial`, its ends, and everything else zero
/// when new; or 0. A number and not an `Option`: the verifier does not follow an `Option` through
/// a loop (Linux 6.1 to 6.18).
#[inline(always)]
pub fn insert<P: Platform>(p: &mut P, packet: &Packet, table: FlowTable) -> u32 {
    let Some(settings) = p.settings() else {
        return 0;
    };
    let mask = match table {
        FlowTable::Flows => settings.flow_bucket_mask,
        FlowTable::Openings => settings.opening_bucket_mask,
    };
    let at = place(packet, packet, settings);
    let first = at.first & mask;
    if !p.lock_bucket(table, first) {
        return 0;
    }
    let inserted = insert_locked(p, packet, table, at, mask);
    p.unlock_bucket(table, first);
    inserted
}

#[inline(always)]
fn insert_locked<P: Platform>(
    p: &mut P,
    packet: &Packet,
    table: FlowTable,
    at: Place,
    mask: u32,
) -> u32 {
    if let Some(found) = find(p, table, packet) {
        if !p.lock_flow(table, found.place) {
            return 0;
        }
        // Whoever held it may have removed it.
        let is_there = p
            .flow_seen(table, found.place)
            .is_some_and(|entry| entry.phase != 0 && entry.direction_of(packet).is_some());
        if is_there {
            return found.place.wrapping_add(1);
        }
        p.unlock_flow(table, found.place);
        return 0;
    }
    // Two flows with one tag in one bucket could not be told apart by it.
    if has_tag(p, table, at.first & mask, at.tag) || has_tag(p, table, at.second & mask, at.tag) {
        return 0;
    }
    let place = p.claim(table, at.first & mask, at.second & mask);
    if place == 0 {
        return 0;
    }
    if !p.lock_flow(table, place) {
        // Whoever holds it is about to let go; another flow may try the way.
        p.replace_tag(table, place, CLAIMED, FREE);
        return 0;
    }
    let Some(entry) = p.flow(table, place) else {
        return 0;
    };
    let (lock, serial) = (entry.lock, entry.serial);
    *entry = FlowEntry {
        initiator: packet.source,
        responder: packet.destination,
        initiator_port: packet.source_port,
        responder_port: packet.destination_port,
        transport: packet.transport,
        lock,
        serial: serial.wrapping_add(1),
        place,
        tag: at.tag,
        ..FlowEntry::default()
    };
    p.replace_tag(table, place, CLAIMED, at.tag);
    place.wrapping_add(1)
}

#[inline(always)]
fn has_tag<P: Platform>(p: &P, table: FlowTable, bucket: u32, tag: u32) -> bool {
    let Some(tags) = p.bucket(table, bucket) else {
        return true;
    };
    let [_, t1, t2, t3, t4, t5, t6, t7] = *tags;
    t1 == tag || t2 == tag || t3 == tag || t4 == tag || t5 == tag || t6 == tag || t7 == tag
}

/// Claims a free way in either bucket, else one whose flow has timed out, else (openings only)
/// the one that was seen longest ago. Returns its place, or 0: way 0 of bucket 0 is a lock.
#[inline(always)]
pub fn claim<P: Platform>(p: &mut P, table: FlowTable, first: u32, second: u32) -> u32 {
    let now = p.now_ticks();
    let slot = p.seen().slot;
    let mut oldest = 0;
    let mut oldest_age = 0;
    let mut oldest_tag = 0;
    for try_number in 0..2 * WAYS {
        let bucket = if try_number < WAYS { first } else { second };
        let way = try_number % WAYS;
        if way == 0 {
            continue;
        }
        let place = bucket.wrapping_mul(WAYS).wrapping_add(way);
        let tag = tag_at(p, table, bucket, way);
        if tag == FREE && p.replace_tag(table, place, FREE, CLAIMED) {
            return place;
        }
        if tag == FREE || tag == CLAIMED {
            continue;
        }
        let Some((age, lifetime)) = age_and_lifetime(p, table, place, now, slot) else {
            return 0;
        };
        let is_spent = age > lifetime || table == FlowTable::Openings;
        if is_spent && age >= oldest_age {
            oldest = place;
            oldest_age = age;
            oldest_tag = tag;
        }
    }
    if oldest != 0 && p.replace_tag(table, oldest, oldest_tag, CLAIMED) {
        oldest
    } else {
        0
    }
}

#[inline(always)]
fn age_and_lifetime<P: Platform>(
    p: &P,
    table: FlowTable,
    place: u32,
    now: u64,
    slot: u32,
) -> Option<(u64, u64)> {
    let entry = p.flow_seen(table, place)?;
    let generation = p.generation(slot)?;
    Some((
        // Read before another processor has seen the flow a tick later: 0, and not the oldest there is.
        now.saturating_sub(entry.last_seen_ticks),
        lifetime_ticks(entry.transport, entry.phase, generation),
    ))
}

#[inline(always)]
fn tag_at<P: Platform>(p: &P, table: FlowTable, bucket: u32, way: u32) -> u32 {
    let Some(tags) = p.bucket(table, bucket) else {
        return CLAIMED;
    };
    let index = usize::try_from(way & (WAYS - 1)).unwrap_or(0);
    tags.get(index).copied().unwrap_or(CLAIMED)
}

/// Removes a flow that the caller has locked, and goes on to hold.
#[inline(always)]
pub fn remove<P: Platform>(p: &mut P, table: FlowTable, place: u32) {
    let Some(entry) = p.flow(table, place) else {
        return;
    };
    let tag = entry.tag;
    entry.phase = 0;
    if table == FlowTable::Flows {
        free_stream(p, place);
    }
    p.replace_tag(table, place, tag, FREE);
}

/// Takes the stream away from a flow that the caller has locked.
#[inline(always)]
pub fn free_stream<P: Platform>(p: &mut P, place: u32) {
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return;
    };
    let stream = entry.stream;
    entry.stream = 0;
    if stream != 0 {
        p.replace_owner(stream.wrapping_sub(1), place.wrapping_add(1), FREE);
    }
}

/// Streams tried before a flow is refused.
const STREAM_TRIES: u32 = 16;

/// Gives an inspected flow, which the caller has locked, a stream whose requests start at `sequence`
/// and whose replies at `reply_sequence`. Returns whether there was one.
#[inline(always)]
pub fn open_stream<P: Platform>(p: &mut P, place: u32, sequence: u32, reply_sequence: u32) -> bool {
    let Some(mask) = p.settings().map(|settings| settings.stream_mask) else {
        return false;
    };
    let owner = place.wrapping_add(1);
    let Some((serial, tag)) = p.flow(FlowTable::Flows, place).map(|e| (e.serial, e.tag)) else {
        return false;
    };
    for try_number in 0..STREAM_TRIES {
        let index = tag.wrapping_add(try_number) & mask;
        let Some(stream) = p.stream(index) else {
            return false;
        };
        let (held_by, held_serial) = (stream.owner, stream.serial);
        let is_taken = if held_by == FREE {
            p.replace_owner(index, FREE, owner)
        } else {
            !is_owner_alive(p, held_by, held_serial, index)
                && take_stale(p, index, held_by, held_serial, owner)
        };
        if is_taken {
            let Some(stream) = p.stream(index) else {
                return false;
            };
            stream.serial = serial;
            stream.adu_start = sequence;
            stream.reply_start = reply_sequence;
            stream.waiting = 0;
            stream.edited = 0;
            stream.forgotten = 0;
            stream.known.key = 0;
            for row in &mut stream.outstanding {
                row.state = request_state::FREE;
                row.bytes = 0;
                row.reason = 0;
            }
            if let Some(entry) = p.flow(FlowTable::Flows, place) {
                entry.stream = index.wrapping_add(1);
            }
            return true;
        }
    }
    false
}

/// Takes a stream from an owner that seems to be gone, while that is held: a segment of it may be judged
/// right now, and go on writing what would be another's.
#[inline(always)]
fn take_stale<P: Platform>(p: &mut P, index: u32, held_by: u32, serial: u32, owner: u32) -> bool {
    let place = held_by.wrapping_sub(1);
    if held_by == owner {
        // The caller holds that one.
        return true;
    }
    if !p.lock_flow(FlowTable::Flows, place) {
        return false;
    }
    let is_taken =
        !is_owner_alive(p, held_by, serial, index) && p.replace_owner(index, held_by, owner);
    p.unlock_flow(FlowTable::Flows, place);
    is_taken
}

#[inline(always)]
fn is_owner_alive<P: Platform>(p: &P, owner: u32, serial: u32, index: u32) -> bool {
    let slot = p.seen().slot;
    let place = owner.wrapping_sub(1);
    match age_and_lifetime(p, FlowTable::Flows, place, p.now_ticks(), slot) {
        Some((age, lifetime)) if age <= lifetime => {}
        _ => return false,
    }
    match p.flow_seen(FlowTable::Flows, place) {
        // A closed flow needs its stream for repeated segments alone, and gives way.
        Some(entry) => {
            entry.serial == serial
                && entry.stream == index.wrapping_add(1)
                && entry.phase < phase::CLOSED
        }
        None => false,
    }
}

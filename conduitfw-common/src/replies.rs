//! inspect: the responder's byte stream of an inspected flow, reply by reply.
//!
//! Bytes are taken in order only. Nothing of them is kept but the first bytes of a reply that is not
//! yet whole: a responder that repeats itself repeats what the initiator has asked for.

use crate::flow::connection::{ahead, close};
use crate::flow::entry::{Direction, flow_flag, side_flag};
use crate::inspect::{Held, MAX_ADUS, enter};
use crate::judge::end;
use crate::judgement::Judgement;
use crate::modbus::Judged;
use crate::packet::Packet;
use crate::platform::{FlowTable, Platform};
use crate::verdict::Reason;
use crate::wire::tcp::flag;

/// Judges the segment at hand, of the responder of the flow at `place`, which the caller has locked.
#[inline(always)]
pub fn inspect<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Judgement {
    let Some(entry) = p.flow_seen(FlowTable::Flows, place) else {
        return Judgement::deny(Reason::NoFlow, 0);
    };
    let held = Held::of(entry);
    let (conduit, observe) = (entry.conduit, entry.observe);
    // A FIN that was counted stands one behind the data.
    let due = entry
        .reply
        .next
        .wrapping_sub(entry.reply.flags & side_flag::FIN);
    match take_segment(p, packet, place, &held, due) {
        Ok(is_edited) => {
            let judgement = Judgement::pass(conduit).going(Direction::Reply);
            if is_edited {
                judgement.edited()
            } else {
                judgement
            }
        }
        Err(reason) => {
            let workspace = p.workspace();
            workspace.denied = workspace.operation.told();
            let judgement = Judgement::deny(reason, conduit).going(Direction::Reply);
            let judgement = match p.flow(FlowTable::Flows, place) {
                Some(entry) => end(entry, judgement, observe),
                None => judgement,
            };
            if judgement.is_observed() {
                resynchronise(p, packet, place);
            }
            judgement
        }
    }
}

/// In mode observe a denied segment passes, and the next one is taken to begin with a reply.
#[inline(always)]
fn resynchronise<P: Platform>(p: &mut P, packet: &Packet, place: u32) {
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return;
    };
    if ahead(data_end, entry.reply.next) <= 0 {
        return;
    }
    entry.reply.next = data_end;
    entry.flags |= flow_flag::MISPLACED;
    if packet.tcp_flags & flag::FIN != 0 {
        close(entry, Direction::Reply, data_end);
    }
    let index = p.seen().stream;
    if let Some(stream) = p.stream(index) {
        stream.reply_start = data_end;
    }
}

/// Takes the segment into the stream, or says why not. Answers whether it may have to be changed.
#[inline(always)]
fn take_segment<P: Platform>(
    p: &mut P,
    packet: &Packet,
    place: u32,
    held: &Held,
    due: u32,
) -> Result<bool, Reason> {
    let (_, mut start) = enter(p, place, held)?;
    if ahead(packet.sequence, due) > 0 {
        return Err(Reason::OutOfOrder);
    }
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    if ahead(data_end, due) > 0 {
        let skip = due.wrapping_sub(packet.sequence);
        let at = packet.payload_at.wrapping_add(skip);
        let bytes = packet.payload_bytes.wrapping_sub(skip);
        start = walk(p, start, due, at, bytes)?;
        if let Some(entry) = p.flow(FlowTable::Flows, place) {
            entry.reply.next = data_end;
        }
    }
    if packet.tcp_flags & flag::FIN != 0
        && let Some(entry) = p.flow(FlowTable::Flows, place)
    {
        close(entry, Direction::Reply, data_end);
    }
    let stream = p.stream(held.stream).ok_or(Reason::NoFlow)?;
    stream.reply_start = start;
    Ok(stream.edited != 0)
}

/// Judges every reply whose head the new bytes reach; returns where the next one begins.
#[inline(always)]
fn walk<P: Platform>(p: &mut P, start: u32, due: u32, at: u32, bytes: u32) -> Result<u32, Reason> {
    // Negative: so many bytes of a reply are kept already. Positive: a judged one goes on.
    let lead = ahead(start, due);
    let mut offset = p.seen().plain_bytes;
    if lead > 0 {
        offset = start.wrapping_sub(due);
    } else if lead < 0 {
        let had = due.wrapping_sub(start);
        let judged = Judged::from_bits(p.judge_split_reply(at, bytes, had));
        let reply_bytes = outcome(judged)?;
        if reply_bytes == 0 {
            return Ok(start);
        }
        offset = reply_bytes.wrapping_sub(had);
    }
    for _ in 0..MAX_ADUS {
        if ahead(offset, bytes) >= 0 {
            return Ok(due.wrapping_add(offset));
        }
        let here = at.wrapping_add(offset);
        let rest = bytes.wrapping_sub(offset);
        let judged = Judged::from_bits(p.judge_reply(here, rest, due.wrapping_add(offset)));
        let reply_bytes = outcome(judged)?;
        if reply_bytes == 0 {
            p.judge_split_reply(here, rest, 0);
            return Ok(due.wrapping_add(offset));
        }
        offset = offset.wrapping_add(reply_bytes);
    }
    if ahead(offset, bytes) >= 0 {
        Ok(due.wrapping_add(offset))
    } else {
        Err(Reason::TooManyAdus)
    }
}

/// Bytes of the reply, 0 when too few are there to tell.
#[inline(always)]
fn outcome(judged: Judged) -> Result<u32, Reason> {
    match Reason::from_number(judged.reason_number()) {
        None => Ok(judged.bytes()),
        Some(reason) => Err(reason),
    }
}

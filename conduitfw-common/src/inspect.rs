//! inspect: the initiator's byte stream of an inspected flow, ADU by ADU.
//!
//! Bytes are taken in order only. What was forwarded and not yet acknowledged by the responder is
//! kept, and may be repeated only byte for byte; what is acknowledged may be repeated freely, for
//! its receiver ignores it. An ADU is decided before its last byte is forwarded, so nothing has to
//! be held back; what is not yet whole waits in the history.

use crate::flow::connection::{ahead, close};
use crate::flow::entry::{Direction, HISTORY_BYTES, side_flag};
use crate::judge::end;
use crate::judgement::Judgement;
use crate::modbus::Judged;
use crate::packet::Packet;
use crate::platform::{FlowTable, Platform};
use crate::verdict::Reason;
use crate::wire::tcp::flag;

/// ADUs judged in one segment.
pub const MAX_ADUS: u32 = 32;

/// Whether a segment of the inspected direction has anything to inspect.
#[inline(always)]
#[must_use]
pub const fn concerns(packet: &Packet) -> bool {
    packet.tcp_flags & flag::RST == 0
        && (packet.payload_bytes != 0 || packet.tcp_flags & flag::FIN != 0)
}

/// Judges the segment at hand, of the initiator of the flow at `place`, which the caller has
/// locked.
#[inline(always)]
pub fn inspect<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Judgement {
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return Judgement::deny(Reason::NoFlow, 0);
    };
    let (conduit, observe, next) = (entry.conduit, entry.observe, entry.request.next);
    let judgement = match take_segment(p, packet, place) {
        Ok(()) => Judgement::pass(conduit).going(Direction::Request),
        Err(reason) => {
            p.workspace().reset_sequence = next;
            let judgement = Judgement::deny(reason, conduit).going(Direction::Request);
            match p.flow(FlowTable::Flows, place) {
                Some(entry) => end(entry, judgement, observe),
                None => judgement,
            }
        }
    };
    if judgement.is_observed() {
        resynchronise(p, packet, place);
    }
    judgement
}

/// In mode observe a denied segment passes, and the next one is taken to begin with an ADU.
#[inline(always)]
fn resynchronise<P: Platform>(p: &mut P, packet: &Packet, place: u32) {
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return;
    };
    if ahead(data_end, entry.request.next) <= 0 {
        return;
    }
    entry.request.next = data_end;
    let stream = entry.stream.wrapping_sub(1);
    if packet.tcp_flags & flag::FIN != 0 {
        close(entry, Direction::Request, data_end);
    }
    if let Some(stream) = p.stream(stream) {
        stream.adu_start = data_end;
    }
}

/// Takes the segment into the stream, or says why not.
#[inline(always)]
fn take_segment<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Result<(), Reason> {
    let entry = p.flow(FlowTable::Flows, place).ok_or(Reason::NoFlow)?;
    let (side, serial, stream, rule_set) = (
        entry.request,
        entry.serial,
        entry.stream.wrapping_sub(1),
        entry.rule_set,
    );
    let held = p.stream(stream).ok_or(Reason::NoFlow)?;
    if held.owner != place.wrapping_add(1) || held.serial != serial {
        return Err(Reason::NoFlow);
    }
    let adu_start = held.adu_start;

    // A sequence number is due; a FIN that was counted stands one behind the data.
    let fin = side.flags & side_flag::FIN;
    let due = side.next.wrapping_sub(fin);
    if ahead(packet.sequence, due) > 0 {
        return Err(Reason::OutOfOrder);
    }
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    let is_new = ahead(data_end, due) > 0;
    let known_end = if is_new { due } else { data_end };
    check_repetition(p, stream, packet, side.acknowledged, known_end)?;
    if is_new {
        let kept_from = if ahead(side.acknowledged, adu_start) > 0 {
            adu_start
        } else {
            side.acknowledged
        };
        if data_end.wrapping_sub(kept_from) > HISTORY_BYTES {
            return Err(Reason::HistoryFull);
        }
        let skip = due.wrapping_sub(packet.sequence);
        let at = packet.payload_at.wrapping_add(skip);
        let bytes = packet.payload_bytes.wrapping_sub(skip);
        let next_adu = walk(
            p,
            stream,
            u32::from(rule_set),
            Span {
                adu_start,
                due,
                at,
                bytes,
            },
        )?;
        if let Some(stream) = p.stream(stream) {
            stream.adu_start = next_adu;
        }
        if let Some(entry) = p.flow(FlowTable::Flows, place) {
            entry.request.next = data_end;
        }
    }
    if packet.tcp_flags & flag::FIN != 0
        && let Some(entry) = p.flow(FlowTable::Flows, place)
    {
        close(entry, Direction::Request, data_end);
    }
    Ok(())
}

/// Bytes that went by before and that the responder may not have read yet must be the same.
#[inline(always)]
fn check_repetition<P: Platform>(
    p: &mut P,
    stream: u32,
    packet: &Packet,
    acknowledged: u32,
    known_end: u32,
) -> Result<(), Reason> {
    let from = if ahead(packet.sequence, acknowledged) > 0 {
        packet.sequence
    } else {
        acknowledged
    };
    if ahead(known_end, from) <= 0 {
        return Ok(());
    }
    let at = packet
        .payload_at
        .wrapping_add(from.wrapping_sub(packet.sequence));
    if p.repeats(stream, from, at, known_end.wrapping_sub(from)) {
        Ok(())
    } else {
        Err(Reason::ChangedRetransmission)
    }
}

/// New bytes of the stream, and where they stand in the frame.
#[derive(Clone, Copy)]
struct Span {
    /// Sequence number where the ADU begins that these bytes go on with.
    adu_start: u32,
    /// Sequence number of the first new byte.
    due: u32,
    /// Where it stands in the frame.
    at: u32,
    /// How many there are.
    bytes: u32,
}

/// Judges every ADU that the new bytes reach; returns where the next one begins.
#[inline(always)]
fn walk<P: Platform>(p: &mut P, stream: u32, rule_set: u32, span: Span) -> Result<u32, Reason> {
    let Span {
        adu_start,
        due,
        at,
        bytes,
    } = span;
    if !p.remember(stream, due, at, bytes) {
        return Err(Reason::HistoryFull);
    }
    let mut offset = 0;
    if adu_start != due {
        // The first part of the ADU went by in an earlier segment.
        let before = due.wrapping_sub(adu_start);
        let judged = Judged::from_bits(p.judge_remembered_adu(
            stream,
            adu_start,
            before.wrapping_add(bytes),
            rule_set,
        ));
        let consumed = judged.outcome()?;
        if consumed == 0 {
            return Ok(adu_start);
        }
        // An ADU cannot end before bytes that it was still waiting for.
        offset = consumed.checked_sub(before).ok_or(Reason::ModbusLength)?;
    }
    for _ in 0..MAX_ADUS {
        if offset >= bytes {
            return Ok(due.wrapping_add(offset));
        }
        let judged = Judged::from_bits(p.judge_adu(
            at.wrapping_add(offset),
            bytes.wrapping_sub(offset),
            rule_set,
        ));
        let consumed = judged.outcome()?;
        if consumed == 0 {
            return Ok(due.wrapping_add(offset));
        }
        offset = offset.wrapping_add(consumed);
    }
    if offset == bytes {
        Ok(due.wrapping_add(offset))
    } else {
        Err(Reason::TooManyAdus)
    }
}

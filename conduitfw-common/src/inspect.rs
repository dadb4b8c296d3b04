//! inspect: the initiator's byte stream of an inspected flow, ADU by ADU.
//!
//! Bytes are taken in order only. What was forwarded and not yet acknowledged by the responder is
//! kept, and may be repeated only byte for byte; what is acknowledged may be repeated freely, for
//! its receiver ignores it. An ADU is decided before its last byte is forwarded, so nothing has to
//! be kept and sent later; what is not yet whole waits in the history. What may not go on yet its sender
//! repeats.

use crate::edit::refused;
use crate::flow::connection::{ahead, close};
use crate::flow::entry::{Direction, FlowEntry, HISTORY_BYTES, Side, flow_flag, side_flag};
use crate::judge::end;
use crate::judgement::Judgement;
use crate::modbus::{FUNCTION_AT, Judged, Rest};
use crate::packet::Packet;
use crate::platform::{FlowTable, MAX_PENDING_WRITES, Platform};
use crate::verdict::{Reason, Verdict};
use crate::wire::tcp::flag;

/// ADUs judged in one segment behind those that are plain: as many as may be outstanding, and the
/// beginning of another.
pub const MAX_ADUS: u32 = 17;

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
    let Some(entry) = p.flow_seen(FlowTable::Flows, place) else {
        return Judgement::deny(Reason::NoFlow, 0);
    };
    let held = Held::of(entry);
    let (side, conduit, observe) = (entry.request, entry.conduit, entry.observe);
    let judgement = match take_segment(p, packet, place, &held, &side) {
        Ok(is_edited) => allowed(p, conduit, observe, is_edited),
        Err(reason) => {
            let workspace = p.workspace();
            if workspace.denied.fields == 0 {
                workspace.denied = workspace.operation.told();
            }
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

/// The segment goes on, as it is or with what it holds of denied requests changed.
#[inline(always)]
fn allowed<P: Platform>(p: &mut P, conduit: u16, observe: u8, is_edited: bool) -> Judgement {
    if let Some(reason) = Reason::from_number(p.seen().neutralised) {
        let judgement = Judgement::deny(reason, conduit).going(Direction::Request);
        return if observe == 0 {
            judgement.neutralised()
        } else {
            judgement.observed()
        };
    }
    if p.seen().held_back != 0 {
        return Judgement::held_back(conduit).going(Direction::Request);
    }
    let judgement = Judgement::pass(conduit).going(Direction::Request);
    if is_edited {
        judgement.edited()
    } else {
        judgement
    }
}

/// What of a flow's entry is needed while its bytes are inspected.
pub(crate) struct Held {
    serial: u32,
    /// Index into `STREAMS`.
    pub(crate) stream: u32,
    conduit: u16,
    rule_set: u16,
    outstanding: u8,
    on_deny: u8,
    pub(crate) is_picked_up: bool,
}

impl Held {
    #[inline(always)]
    pub(crate) fn of(entry: &FlowEntry) -> Self {
        Self {
            serial: entry.serial,
            stream: entry.stream.wrapping_sub(1),
            conduit: entry.conduit,
            rule_set: entry.rule_set,
            outstanding: entry.outstanding,
            on_deny: if entry.observe == 0 {
                entry.on_deny
            } else {
                Verdict::Pass.number()
            },
            is_picked_up: entry.flags & flow_flag::ADOPTED != 0,
        }
    }
}

/// Readies the workspace for the ADUs of the flow at `place`, and answers where in its streams the ADU
/// and the reply begin that are due or not yet whole.
#[inline(always)]
pub(crate) fn enter<P: Platform>(p: &mut P, place: u32, held: &Held) -> Result<(u32, u32), Reason> {
    let workspace = p.workspace();
    workspace.rule_set = held.rule_set;
    workspace.on_deny = held.on_deny;
    workspace.stream = held.stream;
    workspace.place = place;
    workspace.conduit = held.conduit;
    workspace.outstanding = held.outstanding;
    workspace.is_picked_up = u8::from(held.is_picked_up);
    workspace.pending_writes = 0;
    let stream = p.stream(held.stream).ok_or(Reason::NoFlow)?;
    if stream.owner != place.wrapping_add(1) || stream.serial != held.serial {
        return Err(Reason::NoFlow);
    }
    Ok((stream.adu_start, stream.reply_start))
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
    entry.flags |= flow_flag::MISPLACED;
    let stream = entry.stream.wrapping_sub(1);
    if packet.tcp_flags & flag::FIN != 0 {
        close(entry, Direction::Request, data_end);
    }
    if let Some(stream) = p.stream(stream) {
        stream.adu_start = data_end;
    }
}

/// Takes the segment into the stream, or says why not. Answers whether it may have to be changed.
#[inline(always)]
fn take_segment<P: Platform>(
    p: &mut P,
    packet: &Packet,
    place: u32,
    held: &Held,
    side: &Side,
) -> Result<bool, Reason> {
    let (mut adu_start, _) = enter(p, place, held)?;
    let stream = held.stream;

    // A sequence number is due; a FIN that was counted stands one behind the data.
    let fin = side.flags & side_flag::FIN;
    let due = side.next.wrapping_sub(fin);
    if ahead(packet.sequence, due) > 0 {
        return Err(Reason::OutOfOrder);
    }
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    let is_new = ahead(data_end, due) > 0;
    if held.is_picked_up {
        check_picked_up(p, packet, due, is_new)?;
    }
    // An end before what went by already: whoever has not got that yet would believe it.
    if !is_new && packet.tcp_flags & flag::FIN != 0 && data_end != due {
        // Whoever does not know where the connection is has to guess, and must not end it.
        return Err(if ahead(data_end, side.acknowledged) > 0 {
            Reason::ChangedRetransmission
        } else {
            Reason::OutOfOrder
        });
    }
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
        forget_overwritten(p, stream, data_end);
        let skip = due.wrapping_sub(packet.sequence);
        let at = packet.payload_at.wrapping_add(skip);
        let bytes = packet.payload_bytes.wrapping_sub(skip);
        let span = Span {
            adu_start,
            due,
            at,
            bytes,
        };
        let walked = walk(p, stream, span).and_then(|next| keep_writes(p).map(|()| next));
        let next_adu = match walked {
            Ok(next) => next,
            Err(reason) => {
                p.take_requests_back(adu_start);
                return Err(reason);
            }
        };
        let held_back = p.seen().held_back;
        if let Some(entry) = p.flow(FlowTable::Flows, place) {
            entry.request.next = data_end.wrapping_sub(held_back);
        }
        adu_start = next_adu;
    } else if held.on_deny != Verdict::Pass.number() && ahead(data_end, side.acknowledged) > 0 {
        // What went by whole may come again in parts, after the whole was lost on the way.
        hold_back(p, packet.payload_bytes, data_end, adu_start);
    }
    // Behind what is held back nothing ends.
    if packet.tcp_flags & flag::FIN != 0
        && p.seen().held_back == 0
        && let Some(entry) = p.flow(FlowTable::Flows, place)
    {
        close(entry, Direction::Request, data_end);
    }
    let stream = p.stream(stream).ok_or(Reason::NoFlow)?;
    stream.adu_start = adu_start;
    Ok(stream.edited != 0)
}

/// What a connection that is picked up may send before a reply shows that its responder waits for
/// these very bytes. It may be behind, and take what comes below for new; or ahead, and begin to
/// read in the middle. So one request goes by, in which no other one fits, and is repeated at most.
#[inline(always)]
fn check_picked_up<P: Platform>(
    p: &mut P,
    packet: &Packet,
    due: u32,
    is_new: bool,
) -> Result<(), Reason> {
    let index = p.seen().stream;
    let is_first = p.stream(index).is_some_and(|stream| stream.waiting == 0);
    if is_first {
        if packet.payload_bytes != READ_BYTES {
            return Err(Reason::NoFlow);
        }
        let function = p.u8(packet.payload_at.wrapping_add(FUNCTION_AT))?;
        return if matches!(function, 1..=4) {
            Ok(())
        } else {
            Err(Reason::NoFlow)
        };
    }
    if is_new || ahead(packet.sequence, due.wrapping_sub(READ_BYTES)) < 0 {
        return Err(Reason::OutOfOrder);
    }
    Ok(())
}

/// Holds back the first part of a request that may not go on without the rest
/// ([`crate::modbus::outstanding::split`]), and no more than `most` bytes. Returns whether there is any.
#[inline(always)]
fn hold_back<P: Platform>(p: &mut P, most: u32, data_end: u32, adu_start: u32) -> bool {
    let split = p.split(data_end, adu_start);
    let held_back = if split < most { split } else { most };
    p.workspace().held_back = held_back;
    held_back != 0
}

/// Bytes of a request of functions 1 to 4.
const READ_BYTES: u32 = 12;

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
fn walk<P: Platform>(p: &mut P, stream: u32, span: Span) -> Result<u32, Reason> {
    let Span {
        adu_start,
        due,
        at,
        bytes,
    } = span;
    let end = due.wrapping_add(bytes);
    // Behind `due` when the first part of the ADU went by in an earlier segment; ahead of it when
    // the rest of a denied one is due.
    let mut start = adu_start;
    if adu_start == due {
        start = due.wrapping_add(p.seen().plain_bytes);
    }
    if !p.remember(stream, due, at, bytes) {
        return Err(Reason::HistoryFull);
    }
    for _ in 0..MAX_ADUS {
        let there = end.wrapping_sub(start);
        if ahead(end, start) <= 0 {
            return Ok(start);
        }
        let judged = judge_adu(p, start, there);
        let adu_bytes = judged.bytes();
        let number = judged.reason_number();
        if (adu_bytes == 0 || adu_bytes > there)
            && (number == 0 || is_framed(number))
            && ahead(start, due) >= 0
            && is_held_back(p, number, end, start)
        {
            return Ok(start);
        }
        if let Some(reason) = Reason::from_number(number) {
            // What was denied can go on when the responder has not seen its function code.
            let is_unseen = ahead(start.wrapping_add(FUNCTION_AT), due) >= 0;
            let workspace = p.workspace();
            if workspace.denied.fields == 0 {
                workspace.denied = workspace.operation.told();
            }
            if adu_bytes == 0 || !is_framed(number) {
                return Err(reason);
            }
            let on_deny = p.seen().on_deny;
            if on_deny == Verdict::Pass.number() {
                // Only reported: its reply is no surprise.
                p.neutralise_adu(start, adu_bytes, 0);
            } else if on_deny != Verdict::Exception.number()
                || !is_unseen
                || !has_form(adu_bytes)
                || !p.neutralise_adu(start, adu_bytes, u32::from(number))
            {
                return Err(reason);
            }
            let workspace = p.workspace();
            if workspace.neutralised == 0 {
                workspace.neutralised = number;
            }
        }
        if adu_bytes == 0 {
            return Ok(start);
        }
        start = start.wrapping_add(adu_bytes);
    }
    if ahead(end, start) <= 0 {
        Ok(start)
    } else {
        Err(Reason::TooManyAdus)
    }
}

/// [`hold_back`] for an ADU that is denied for this reason, or for none.
#[inline(always)]
fn is_held_back<P: Platform>(p: &mut P, reason: u8, end: u32, start: u32) -> bool {
    let on_deny = p.seen().on_deny;
    if on_deny == Verdict::Pass.number() || (reason != 0 && on_deny != Verdict::Exception.number())
    {
        return false;
    }
    hold_back(p, end.wrapping_sub(start), end, start)
}

/// Judges one ADU, with what it writes.
#[inline(always)]
fn judge_adu<P: Platform>(p: &mut P, start: u32, there: u32) -> Judged {
    let judged = Judged::from_bits(p.judge_adu(start, there));
    let bytes = judged.bytes();
    let mut number = u32::from(judged.reason_number());
    if number == 0 {
        number = match judged.rest() {
            Rest::Nothing if bytes == 0 => return judged,
            Rest::Nothing => 0,
            Rest::Registers => p.check_registers(start),
            Rest::Coils => p.check_coils(start),
            Rest::Files => p.check_files(start),
        };
        if number == 0 {
            number = p.accept_adu(start, bytes);
        }
    }
    let [_, _, _, number] = number.to_be_bytes();
    match Reason::from_number(number) {
        None => judged,
        Some(reason) => {
            p.judged(number);
            Judged::denied(reason, bytes)
        }
    }
}

/// Whether an ADU denied for this reason is framed beyond doubt, so that what comes behind it can
/// be judged.
#[inline(always)]
const fn is_framed(number: u8) -> bool {
    const FIRST: u8 = Reason::UnitNotAllowed.number();
    const LAST: u8 = Reason::RateExceeded.number();
    const OUTSTANDING: u8 = Reason::TooManyOutstanding.number();
    (number >= FIRST && number <= LAST) || number == OUTSTANDING
}

/// Whether a denied ADU of so many bytes has a form that the responder refuses.
#[inline(always)]
const fn has_form(adu_bytes: u32) -> bool {
    let [_, _, high, low] = adu_bytes.to_be_bytes();
    refused(u16::from_be_bytes([high, low])) != 0
}

/// What a request wrote is not known any more once the ring holds other bytes in its place, be it those of a
/// segment that is denied: an answer to it confirms nothing.
#[inline(always)]
fn forget_overwritten<P: Platform>(p: &mut P, stream: u32, data_end: u32) {
    let Some(stream) = p.stream(stream) else {
        return;
    };
    for row in &mut stream.outstanding {
        if row.is_guarded != 0 && data_end.wrapping_sub(row.sequence) > HISTORY_BYTES {
            row.is_guarded = 0;
        }
    }
}

/// Remembers what the segment wrote under `max_step`.
///
/// # Errors
/// There is no room for it: what is not remembered limits no later write.
#[inline(always)]
fn keep_writes<P: Platform>(p: &mut P) -> Result<(), Reason> {
    for write in 0..MAX_PENDING {
        if write >= p.seen().pending_writes {
            break;
        }
        if !p.keep_written(write) {
            return Err(Reason::StepTooLarge);
        }
    }
    Ok(())
}

/// As [`MAX_PENDING_WRITES`], in the workspace's own unit.
const MAX_PENDING: u32 = 4;
const _: () = assert!(MAX_PENDING_WRITES == 4);

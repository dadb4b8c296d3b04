//! Requests as nearly all of them are: whole, with eight bytes behind the MBAP header's length, for
//! registers or coils that rules allow without limits. A segment that begins where an ADU does is judged
//! from the frame's bytes, one such request after the other; whatever is any different is left to
//! [`crate::inspect`], which judges these alike.

use crate::event::EventOperation;
use crate::flow::connection;
use crate::flow::entry::{
    Direction, FlowEntry, HISTORY_BYTES, KnownCell, OUTSTANDING, Outstanding, Stream, request_state,
};
use crate::judge::end;
use crate::judgement::Judgement;
use crate::packet::Packet;
use crate::platform::Platform;
use crate::table::{Interval, operation};
use crate::verdict::{Reason, Verdict};

use super::asked::{Asked, REQUEST_BYTES};
use super::outstanding::{first_row, low};
use super::reply::echo;
use super::{interval_of_cell, is_searched};

/// [`REQUEST_BYTES`], for a row.
const ROW_BYTES: u16 = 12;

/// Judges the segment at hand, of the initiator of the flow at `place`, which the caller holds: data and
/// nothing else, of a connection about which nothing is unusual ([`Judgement::PLAIN`]). It is tracked
/// here. When all of it is plain and allowed, it passes, and the flow is let go of. A request that no
/// rule allows at all may be denied: then the judgement is [`Judgement::of_plain_request`], and the flow is
/// let go of as well. With any other denial the caller still holds it. Else [`Judgement::INSPECT`]: so many
/// bytes as [`crate::platform::Workspace::plain_bytes`] says are judged and in the history; nothing has
/// happened to the rest.
#[inline(always)]
pub fn judge<P: Platform>(p: &mut P, packet: &Packet, place: u32, slot: u32) -> Judgement {
    p.workspace().plain_bytes = 0;
    let Some(flow) = p.flow_pointer(place) else {
        return Judgement::INSPECT;
    };
    let Some(entry) = p.flow_at(flow) else {
        return Judgement::INSPECT;
    };
    if let Err(reason) = connection::track_data(entry, packet, Direction::Request) {
        return out_of_turn(entry, reason, Direction::Request);
    }
    let index = entry.stream.wrapping_sub(1);
    let Some(row) = p.stream_pointer(index) else {
        return Judgement::INSPECT;
    };
    let Some(entry) = p.flow_at(flow) else {
        return Judgement::INSPECT;
    };
    let (serial, due, acknowledged) =
        (entry.serial, entry.request.next, entry.request.acknowledged);
    let run = Run {
        flow,
        row,
        index,
        slot,
    };
    let Some(stream) = p.stream_at(row) else {
        return Judgement::INSPECT;
    };
    let data_end = due.wrapping_add(packet.payload_bytes);
    if packet.sequence != due
        || !is_of(stream, place, serial)
        || stream.adu_start != due
        || data_end.wrapping_sub(acknowledged) > HISTORY_BYTES
    {
        return Judgement::INSPECT;
    }
    // Nearly every segment is one request; by itself, for what a loop keeps from one round to the next
    // costs.
    if packet.payload_bytes == REQUEST_BYTES {
        let Some(asked) = Asked::read(p, packet.payload_at) else {
            return Judgement::INSPECT;
        };
        if !run.judge_one(p, &asked, due) {
            return refuse(p, &run, &asked);
        }
    } else {
        let taken = run.judge_all(p, packet.payload_at, due, packet.payload_bytes);
        if taken != packet.payload_bytes {
            p.workspace().plain_bytes = taken;
            return Judgement::INSPECT;
        }
    }
    if let Some(stream) = p.stream_at(row) {
        stream.adu_start = data_end;
    }
    let Some(entry) = p.flow_at(flow) else {
        return Judgement::INSPECT;
    };
    entry.request.next = data_end;
    let judgement = Judgement::pass(entry.conduit).going(Direction::Request);
    P::let_go(entry);
    judgement
}

/// A segment as long as one request, which is not plain and allowed: of a plain one for a unit or with a
/// function that no rule allows it is known what becomes, as [`crate::inspect`] has it, where denied segments
/// are dropped. Whoever floods the gateway with those is not to cost it more than he must.
#[inline(always)]
fn refuse<P: Platform>(p: &mut P, run: &Run<P>, asked: &Asked) -> Judgement {
    let Some(reason) = run
        .rules(p)
        .and_then(|rules| rules.reason_against(p, run.row, asked))
    else {
        return Judgement::INSPECT;
    };
    if p.is_followed() {
        p.workspace().operation = asked.told();
    }
    let Some(entry) = p.flow_at(run.flow) else {
        return Judgement::INSPECT;
    };
    let conduit = entry.conduit;
    if entry.on_deny != Verdict::Drop.number() || entry.observe != 0 {
        return Judgement::INSPECT;
    }
    if reason == Reason::FunctionNotAllowed {
        entry.set_refused(asked.unit_and_function());
    }
    P::let_go(entry);
    if p.is_followed() {
        p.judged(reason.number());
    }
    Judgement::deny(reason, conduit)
        .going(Direction::Request)
        .of_plain_request()
}

/// Whether the segment at hand, as long as one request, is a plain one for this unit and with this function.
#[inline(always)]
pub(crate) fn is_alike<P: Platform>(p: &mut P, packet: &Packet, unit_and_function: u32) -> bool {
    let Some(asked) = Asked::read(p, packet.payload_at) else {
        return false;
    };
    let is_alike = u32::from(asked.unit_and_function()) == unit_and_function;
    if is_alike && p.is_followed() {
        p.workspace().operation = asked.told();
        p.judged(Reason::FunctionNotAllowed.number());
    }
    is_alike
}

/// What the segment at hand asks for, when its judgement is [`Judgement::of_plain_request`]: it was read
/// when it was judged, and stands there still.
#[inline(always)]
pub fn denied<P: Platform>(p: &P, packet: &Packet) -> EventOperation {
    match Asked::read(p, packet.payload_at) {
        Some(asked) => asked.told(),
        None => EventOperation::default(),
    }
}

/// What becomes of a segment that cannot belong to its connection.
#[inline(always)]
pub(super) fn out_of_turn(
    entry: &mut FlowEntry,
    reason: Reason,
    direction: Direction,
) -> Judgement {
    let observe = entry.observe;
    let judgement = Judgement::deny(reason, entry.conduit).going(direction);
    end(entry, judgement, observe)
}

/// Whether the stream is the flow's, and none of its requests was changed.
#[inline(always)]
pub(super) const fn is_of(stream: &Stream, place: u32, serial: u32) -> bool {
    stream.owner == place.wrapping_add(1) && stream.serial == serial && stream.edited == 0
}

/// The requests of a segment.
struct Run<P: Platform> {
    flow: P::FlowPointer,
    row: P::StreamPointer,
    /// Index into `STREAMS`.
    index: u32,
    slot: u32,
}

impl<P: Platform> Run<P> {
    /// The rules that hold for the flow. Read where they are needed, and not kept.
    #[inline(always)]
    fn rules(&self, p: &mut P) -> Option<Rules> {
        let entry = p.flow_at(self.flow)?;
        Some(Rules {
            slot: self.slot,
            generation: entry.generation,
            rule_set: entry.rule_set,
        })
    }

    /// Judges the requests in `bytes` bytes of the frame from `at` on, the first of which has this
    /// sequence number. Answers the bytes of those that are plain and allowed.
    #[inline(always)]
    fn judge_all(&self, p: &mut P, at: u32, sequence: u32, bytes: u32) -> u32 {
        let mut taken = 0_u32;
        let mut known = Known::NOTHING;
        for _ in 0..OUTSTANDING {
            let here = at.wrapping_add(taken);
            if bytes < taken.wrapping_add(REQUEST_BYTES)
                || !self.is_allowed(p, &mut known, here, sequence.wrapping_add(taken))
            {
                break;
            }
            taken = taken.wrapping_add(REQUEST_BYTES);
        }
        known.count(p);
        taken
    }

    /// Judges the one request of a segment: whether it is plain and allowed.
    #[inline(always)]
    fn judge_one(&self, p: &mut P, asked: &Asked, sequence: u32) -> bool {
        let Some(rules) = self.rules(p) else {
            return false;
        };
        let wanted = asked.unit_and_function();
        let Some(interval) = rules.interval_of(p, self.row, wanted, asked.address) else {
            return false;
        };
        if asked.last() > u32::from(interval.reach) || !self.remember(p, asked, sequence) {
            return false;
        }
        p.count_rule(interval.rule, 1);
        true
    }

    /// Judges the request that begins at `at` of the frame.
    #[inline(always)]
    fn is_allowed(&self, p: &mut P, known: &mut Known, at: u32, sequence: u32) -> bool {
        let Some(asked) = Asked::read(p, at) else {
            return false;
        };
        if !known.holds(&asked) {
            known.count(p);
            let Some(rules) = self.rules(p) else {
                return false;
            };
            let workspace = p.workspace();
            (workspace.slot, workspace.generation) = (rules.slot, rules.generation);
            (workspace.stream, workspace.rule_set) = (self.index, rules.rule_set);
            known.unit_and_function = asked.unit_and_function();
            known.interval = p.find_plain(asked.unit, asked.function, asked.address);
        }
        if !known.holds(&asked)
            || u64::from(asked.last()) > known.reach()
            || !self.remember(p, &asked, sequence)
        {
            return false;
        }
        known.hits = known.hits.wrapping_add(1);
        true
    }

    /// Notes a request in the row of its transaction id, and in the history; `false` when the row is
    /// taken, or too many wait.
    #[inline(always)]
    fn remember(&self, p: &mut P, asked: &Asked, sequence: u32) -> bool {
        let Some(entry) = p.flow_at(self.flow) else {
            return false;
        };
        // The frame's own time, as the short way noted it.
        let (limit, now) = (u32::from(entry.outstanding), low(entry.last_seen_ticks));
        let Some(stream) = p.stream_at(self.row) else {
            return false;
        };
        if stream.waiting >= limit {
            return false;
        }
        let [t1, t0, ..] = asked.head.to_ne_bytes();
        let first = first_row(u16::from_be_bytes([t1, t0]));
        let Some(row) = stream.outstanding.get_mut(first) else {
            return false;
        };
        if row.state != request_state::FREE {
            return false;
        }
        stream.waiting = stream.waiting.wrapping_add(1);
        *row = Outstanding {
            head: asked.head,
            sequence,
            asked_ticks: now,
            reply_sequence: 0,
            operands: asked.operands,
            bytes: ROW_BYTES,
            reply_length: 0,
            echo: 0,
            echo_kind: echo::PLAIN,
            state: request_state::WAITING,
            reason: 0,
            is_guarded: 0,
            reserved: [0; 6],
        };
        P::keep_twelve(stream, sequence, asked.head, asked.operands);
        if p.is_followed() {
            p.workspace().operation = asked.told();
            p.judged(0);
        }
        true
    }
}

/// Where the rules for a flow stand.
#[derive(Clone, Copy)]
struct Rules {
    slot: u32,
    generation: u32,
    rule_set: u16,
}

impl Rules {
    /// The interval of the rule that allows an operation which begins with this operand, whatever is
    /// written and however often.
    #[inline(always)]
    fn interval_of<P: Platform>(
        &self,
        p: &mut P,
        row: P::StreamPointer,
        unit_and_function: u16,
        address: u16,
    ) -> Option<Interval> {
        if p.stream_at(row)?.known.key != self.key(unit_and_function) {
            self.look_up(p, row, unit_and_function)?;
        }
        let cell = p.stream_at(row)?.known.cell;
        if cell.kind == operation::ALLOWED {
            return Some(Interval {
                first: 0,
                last: u16::MAX,
                reach: u16::MAX,
                rule: cell.rule,
                limits: 0,
                reserved: 0,
            });
        }
        if cell.kind != operation::RANGES || is_searched(&cell) {
            return None;
        }
        let found = interval_of_cell(p, self.slot, &cell, u32::from(address));
        if found == 0 {
            return None;
        }
        let interval = p.interval(self.slot, found.wrapping_sub(1))?;
        if address >= interval.first && address <= interval.last && interval.limits == 0 {
            Some(interval)
        } else {
            None
        }
    }

    #[inline(always)]
    fn key(&self, unit_and_function: u16) -> u64 {
        KnownCell::key(self.generation, self.rule_set, unit_and_function)
    }

    /// Why no rule allows the function for the unit, if none does.
    #[inline(always)]
    fn reason_against<P: Platform>(
        &self,
        p: &mut P,
        row: P::StreamPointer,
        asked: &Asked,
    ) -> Option<Reason> {
        let known = &p.stream_at(row)?.known;
        if known.key == self.key(asked.unit_and_function()) {
            return (known.cell.kind == operation::DENIED).then_some(Reason::FunctionNotAllowed);
        }
        let operations = p.operation_row(self.slot, self.rule_set, asked.unit);
        (operations == 0).then_some(Reason::UnitNotAllowed)
    }

    /// Keeps the cell for a unit and a function with the stream.
    #[inline(always)]
    fn look_up<P: Platform>(
        &self,
        p: &mut P,
        row: P::StreamPointer,
        unit_and_function: u16,
    ) -> Option<()> {
        let [unit, function] = unit_and_function.to_ne_bytes();
        let operations = p.operation_row(self.slot, self.rule_set, unit);
        if operations == 0 {
            return None;
        }
        let cell = p.operation(self.slot, operations, function)?;
        p.stream_at(row)?.known = KnownCell {
            key: self.key(unit_and_function),
            cell,
        };
        Some(())
    }
}

/// What the request before was allowed by: the next one is often for the same unit and function, and not
/// far away.
#[derive(Clone, Copy)]
struct Known {
    /// Unit id and function code, as they went by.
    unit_and_function: u16,
    /// What [`find`] gave.
    interval: u64,
    /// Requests that were allowed by it and are not counted yet.
    hits: u32,
}

impl Known {
    /// Function code 0 is no plain request's.
    const NOTHING: Self = Self {
        unit_and_function: 0,
        interval: NO_INTERVAL,
        hits: 0,
    };

    /// Whether a request is allowed by this, if it does not reach too far.
    #[inline(always)]
    fn holds(&self, asked: &Asked) -> bool {
        let operand = u64::from(asked.address);
        self.unit_and_function == asked.unit_and_function()
            && operand >= self.interval & 0xffff
            && operand <= (self.interval >> 16) & 0xffff
    }

    #[inline(always)]
    const fn reach(&self) -> u64 {
        (self.interval >> 32) & 0xffff
    }

    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "sixteen bits are left")]
    fn count<P: Platform>(&mut self, p: &mut P) {
        if self.hits != 0 {
            p.count_rule((self.interval >> 48) as u16, self.hits);
            self.hits = 0;
        }
    }
}

/// Stage: the interval that allows an operation of the flow that the workspace names, from its first
/// operand on, whatever is written and however often. [`Interval::first`], [`Interval::last`],
/// [`Interval::reach`] and [`Interval::rule`], the first in the lowest bits; one that holds nothing when
/// there is none.
#[inline(always)]
pub fn find<P: Platform>(p: &mut P, unit: u8, function: u8, address: u16) -> u64 {
    let workspace = p.seen();
    let (slot, generation) = (workspace.slot, workspace.generation);
    let (index, rule_set) = (workspace.stream, workspace.rule_set);
    let Some(row) = p.stream_pointer(index) else {
        return NO_INTERVAL;
    };
    let rules = Rules {
        slot,
        generation,
        rule_set,
    };
    let wanted = u16::from_ne_bytes([unit, function]);
    match rules.interval_of(p, row, wanted, address) {
        Some(interval) => {
            u64::from(interval.first)
                | u64::from(interval.last) << 16
                | u64::from(interval.reach) << 32
                | u64::from(interval.rule) << 48
        }
        None => NO_INTERVAL,
    }
}

/// From 1 to 0.
const NO_INTERVAL: u64 = 1;

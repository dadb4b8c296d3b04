//! The whole street on one page: parse, classify, track, inspect, decide.

use crate::admit::observe_or;
use crate::flow::connection;
use crate::flow::entry::{Direction, FlowEntry, phase};
use crate::flow::recent;
use crate::flow::store::find_place;
use crate::inspect;
use crate::judgement::Judgement;
use crate::packet::{self, Packet, transport};
use crate::platform::{FlowTable, Platform};
use crate::refused::{self, Came};
use crate::table::protocol;
use crate::verdict::{Reason, Verdict};
use crate::wire::{ethernet, tcp::flag};

/// Judges the frame at hand by the tables of a slot. Its headers go to `packet`, whatever that was
/// before. Of most frames there is nothing more to say than the conduit on whose account they pass.
///
/// # Errors
/// The judgement of any other frame.
#[inline(always)]
pub fn judge<P: Platform>(p: &mut P, packet: &mut Packet, slot: u32) -> Result<u16, Judgement> {
    let number = p.generation_number(slot);
    let judgement = match packet::parse(p, p.frame_bytes(), packet) {
        Ok(()) => match short_way(p, packet, number) {
            Ok(conduit) => return Ok(conduit),
            Err(judgement) => plain_way(p, packet, slot, judgement),
        },
        Err(reason) => unreadable(p, packet, reason, slot),
    };
    if judgement.is_plain_pass() {
        return Ok(judgement.conduit());
    }
    let workspace = p.workspace();
    workspace.slot = slot;
    workspace.generation = number;
    if judgement.is_of_plain_request() {
        return Err(judgement);
    }
    workspace.operation.fields = 0;
    workspace.denied.fields = 0;
    workspace.neutralised = 0;
    workspace.held_back = 0;
    workspace.doubted = 0;
    let judgement = long_way(p, packet, judgement);
    if judgement.is_plain_pass() {
        return Ok(judgement.conduit());
    }
    if judgement.reason_number() == 0 || judgement.is_notice() {
        return Err(judgement);
    }
    if is_observed(p) {
        Err(judgement.observed())
    } else {
        Err(judgement)
    }
}

/// Whether the policy in force only reports.
#[inline(always)]
fn is_observed<P: Platform>(p: &P) -> bool {
    p.generation(p.seen().slot)
        .is_some_and(|generation| generation.observe != 0)
}

/// A frame whose headers are none that a conduit could allow.
#[inline(always)]
fn unreadable<P: Platform>(p: &mut P, packet: &mut Packet, reason: Reason, slot: u32) -> Judgement {
    p.read_as_far_as_it_goes(packet);
    p.workspace().held = 0;
    if reason != Reason::EtherTypeNotAllowed {
        return Judgement::deny(reason, 0);
    }
    p.workspace().slot = slot;
    p.judge_link(packet)
}

/// The way of most frames: of an established flow in an unchanged world. What is unusual goes on from
/// what this answers, and so does what is to be inspected: then the caller holds the flow that the
/// workspace says. It says it in memory, for each of the many ends of this would carry it.
#[inline(always)]
fn short_way<P: Platform>(p: &mut P, packet: &Packet, generation: u32) -> Result<u16, Judgement> {
    p.workspace().held = 0;
    if packet.ether_type == ethernet::ARP {
        return Err(Judgement::AGAIN);
    }
    let came = Came {
        ifindex: p.ifindex(),
        generation,
        now: p.now_ticks(),
    };
    let mark = recent::mark_of(packet);
    let mut place = recent::place(p, mark);
    let mut held = None;
    if place != 0
        && let Some(flow) = p.flow_pointer(place)
        && let Some(entry) = p.flow_glimpsed(flow)
    {
        if entry.refused() != 0
            && let Some(judgement) = refused::judge(p, packet, flow, &came)
        {
            return Err(judgement);
        }
        // It may be another's, for which nobody waits.
        if let Some(entry) = p.hold_flow_at_once(flow) {
            match entry.ends_of(packet) {
                Some(direction) if entry.is_usual(packet.transport) => {
                    held = Some((flow, direction));
                }
                _ => P::let_go(entry),
            }
        }
    }
    if held.is_none() {
        place = find_place(p, FlowTable::Flows, packet, p.again(packet));
        if place == 0 {
            return Err(Judgement::AGAIN);
        }
        recent::set(p, mark, place);
        let Some(flow) = p.flow_pointer(place) else {
            return Err(Judgement::AGAIN);
        };
        let Some(entry) = p.hold_flow(flow, place) else {
            return Err(Judgement::deny(Reason::FlowBusy, 0));
        };
        match whose(entry, packet) {
            Ok(direction) => held = Some((flow, direction)),
            Err(judgement) => {
                p.workspace().held = place;
                return Err(judgement);
            }
        }
    }
    let Some((flow, direction)) = held else {
        return Err(Judgement::AGAIN);
    };
    let Some(entry) = p.flow_at(flow) else {
        return Err(Judgement::AGAIN);
    };
    let judged = judge_flow(entry, packet, direction, &came);
    if judged.is_ok() {
        P::let_go(entry);
    } else {
        p.workspace().held = place;
    }
    judged
}

/// The way of most segments that are to be inspected: what is plain in them is judged at once. Lets go
/// of the flow when nothing is left.
#[inline(always)]
fn plain_way<P: Platform>(
    p: &mut P,
    packet: &Packet,
    slot: u32,
    judgement: Judgement,
) -> Judgement {
    let place = p.seen().held;
    if judgement == Judgement::PLAIN {
        p.judge_plain(packet, place, slot)
    } else if judgement == Judgement::PLAIN_REPLY {
        p.judge_plain_replies(packet, place)
    } else {
        p.workspace().plain_bytes = 0;
        judgement
    }
}

/// What a frame needs beyond the short way.
#[inline(always)]
fn long_way<P: Platform>(p: &mut P, packet: &Packet, judgement: Judgement) -> Judgement {
    let place = p.seen().held;
    if place != 0 {
        let judgement = on_the_way(p, packet, place, judgement);
        leave(p, place, judgement);
        if judgement != Judgement::AGAIN {
            return judgement;
        }
    } else if judgement != Judgement::AGAIN {
        return judgement;
    }
    let mut judgement = without_flow(p, packet);
    if !judgement.is_decided() {
        // Another processor changed what this one had found.
        judgement = Judgement::deny(Reason::FlowBusy, 0);
    }
    if judgement.reason_number() == Reason::FlowTableFull.number() {
        judgement = observe_or(p, judgement.conduit(), judgement);
    }
    let doubted = p.seen().doubted;
    if doubted == 0 || (judgement.is_drop() && !is_observed(p)) || p.doubt(packet, doubted) {
        judgement
    } else {
        Judgement::deny(Reason::FlowBusy, 0)
    }
}

/// A frame of no flow that is known, or of one that gives way.
#[inline(always)]
fn without_flow<P: Platform>(p: &mut P, packet: &Packet) -> Judgement {
    let judgement = p.admit(packet);
    if judgement == Judgement::QUOTES {
        return p.icmp_error(packet);
    }
    if judgement == Judgement::OPEN {
        return open(p, packet);
    }
    if judgement == Judgement::ADOPT {
        return adopt(p, packet);
    }
    let opening = judgement.to_be_established();
    if opening == 0 {
        return judgement;
    }
    let is_reply = judgement.direction_number() == crate::event::direction::REPLY;
    let direction = if is_reply {
        Direction::Reply
    } else {
        Direction::Request
    };
    let inserted = p.insert(packet, FlowTable::Flows);
    if inserted == 0 {
        let conduit = p
            .flow_seen(FlowTable::Openings, opening.wrapping_sub(1))
            .map_or(0, |entry| entry.conduit);
        return Judgement::deny(Reason::FlowTableFull, conduit).going(direction);
    }
    let place = inserted.wrapping_sub(1);
    let judgement = p.establish(packet, opening.wrapping_sub(1), place, is_reply);
    let judgement = on_the_way(p, packet, place, judgement);
    leave(p, place, judgement);
    judgement
}

/// Lets go of a flow. A reset to its responder bears the number that is due.
#[inline(always)]
fn leave<P: Platform>(p: &mut P, place: u32, judgement: Judgement) {
    if matches!(judgement.verdict(), Verdict::Reset)
        && let Some(sequence) = p
            .flow_seen(FlowTable::Flows, place)
            .map(|entry| entry.request.next)
    {
        p.workspace().reset_sequence = sequence;
    }
    p.unlock_flow(FlowTable::Flows, place);
}

/// Adds an opening flow that the policy allows.
#[inline(always)]
fn open<P: Platform>(p: &mut P, packet: &Packet) -> Judgement {
    let inserted = p.insert(packet, FlowTable::Openings);
    if inserted == 0 {
        return Judgement::deny(Reason::FlowTableFull, p.seen().service.conduit);
    }
    let place = inserted.wrapping_sub(1);
    let judgement = p.opened(packet, place);
    p.unlock_flow(FlowTable::Openings, place);
    judgement
}

/// Adds the flow of a connection that was open before the gateway, if its segment checks out.
#[inline(always)]
fn adopt<P: Platform>(p: &mut P, packet: &Packet) -> Judgement {
    let inserted = p.insert(packet, FlowTable::Flows);
    if inserted == 0 {
        return Judgement::deny(Reason::FlowTableFull, p.seen().service.conduit);
    }
    let place = inserted.wrapping_sub(1);
    let judgement = p.adopt(packet, place);
    let is_added = judgement == Judgement::SETTLE;
    let mut judgement = on_the_way(p, packet, place, judgement);
    if is_added {
        judgement = p.adopted(packet, place, judgement);
    }
    leave(p, place, judgement);
    judgement
}

/// The stages that a flow's frame may still need. They are called from here and not from one
/// another, for the kernel gives a chain of calls 512 bytes of stack in all.
#[inline(always)]
fn on_the_way<P: Platform>(
    p: &mut P,
    packet: &Packet,
    place: u32,
    judgement: Judgement,
) -> Judgement {
    let mut judgement = judgement;
    if judgement == Judgement::SETTLE {
        judgement = p.settle(packet, place);
    }
    if judgement == Judgement::INSPECT {
        p.inspect(packet, place)
    } else if judgement == Judgement::INSPECT_REPLY {
        p.inspect_reply(packet, place)
    } else {
        judgement
    }
}

/// Which way a frame goes that is believed to be of the flow in `entry`, which the caller holds.
///
/// # Errors
/// It is of another flow, or goes to [`crate::settle`].
#[inline(always)]
fn whose(entry: &FlowEntry, packet: &Packet) -> Result<Direction, Judgement> {
    // Another flow may have the same tag, or have taken the place between the look and the lock.
    let Some(direction) = entry.ends_of(packet) else {
        return Err(Judgement::AGAIN);
    };
    if entry.is_usual(packet.transport) {
        return Ok(direction);
    }
    Err(if entry.transport == packet.transport {
        Judgement::SETTLE
    } else {
        Judgement::AGAIN
    })
}

/// Judges a frame of the flow in `entry`, which the caller holds. Whatever is unusual goes to
/// [`crate::settle`].
#[inline(always)]
fn judge_flow(
    entry: &mut FlowEntry,
    packet: &Packet,
    direction: Direction,
    came: &Came,
) -> Result<u16, Judgement> {
    let now = came.now;
    if entry.refused() != 0 {
        entry.set_refused(0);
    }
    if entry.generation != came.generation
        || !entry.came_in_at(direction, came.ifindex, packet.vlans)
        || now.wrapping_sub(entry.last_seen_ticks) > SETTLE_AFTER_TICKS
    {
        return Err(Judgement::SETTLE);
    }
    // First of all, and before it is asked whether this is TCP: nothing else has these flags.
    if connection::is_acknowledgement(packet) {
        entry.last_seen_ticks = now;
        connection::acknowledge_only(entry, packet, direction);
        return Ok(entry.conduit);
    }
    if connection::is_data(packet) && entry.protocol != protocol::NONE {
        entry.last_seen_ticks = now;
        return Err(match direction {
            Direction::Request => Judgement::PLAIN,
            Direction::Reply => Judgement::PLAIN_REPLY,
        });
    }
    if packet.tcp_flags & flag::SYN != 0 || packet.transport == transport::ICMP {
        return Err(Judgement::SETTLE);
    }
    entry.last_seen_ticks = now;
    track(entry, packet, direction)
}

/// An entry that has been silent for as long is looked at closely: it may have timed out. Not a
/// time-out itself, so it need not be exact: one second at 1,000 ticks a second.
pub(crate) const SETTLE_AFTER_TICKS: u64 = 1000;

/// Track, for a flow that the policy in force allows; what is to be inspected says so.
#[inline(always)]
pub(crate) fn follow(entry: &mut FlowEntry, packet: &Packet, direction: Direction) -> Judgement {
    if matches!(direction, Direction::Reply) && packet.tcp_flags & flag::RST == 0 {
        connection::is_there(entry);
    }
    if connection::is_acknowledgement(packet) {
        connection::acknowledge_only(entry, packet, direction);
        return Judgement::pass(entry.conduit);
    }
    match track(entry, packet, direction) {
        Ok(conduit) => Judgement::pass(conduit),
        Err(judgement) => judgement,
    }
}

/// The same for anything but an acknowledgement; of what passes as it is, the conduit.
#[inline(always)]
fn track(entry: &mut FlowEntry, packet: &Packet, direction: Direction) -> Result<u16, Judgement> {
    let (conduit, observe) = (entry.conduit, entry.observe);
    if packet.transport != transport::TCP {
        return Ok(conduit);
    }
    if let Err(reason) = connection::track(entry, packet, direction) {
        let judgement = Judgement::deny(reason, conduit).going(direction);
        return Err(end(entry, judgement, observe));
    }
    if entry.protocol != protocol::NONE && inspect::concerns(packet) {
        return Err(match direction {
            Direction::Request => Judgement::INSPECT,
            Direction::Reply => Judgement::INSPECT_REPLY,
        });
    }
    Ok(conduit)
}

/// Carries out what the conduit says about a denied segment of a flow.
#[inline(always)]
pub(crate) fn end(entry: &mut FlowEntry, judgement: Judgement, observe: u8) -> Judgement {
    if observe != 0 {
        return judgement.observed();
    }
    if entry.on_deny == Verdict::Drop.number() || !is_final(judgement.reason_number()) {
        return judgement;
    }
    if judgement.direction_number() == crate::event::direction::REQUEST {
        entry.phase = phase::ENDED;
        judgement.reset_responder()
    } else {
        entry.phase = phase::ENDING;
        judgement
    }
}

/// Whether a denial ends the flow. A segment that its sender mends by repeating it does not, nor
/// does one that anybody could have forged into the flow.
#[inline(always)]
const fn is_final(reason: u8) -> bool {
    const CHANGED: u8 = Reason::ChangedRetransmission.number();
    const URGENT: u8 = Reason::UrgentData.number();
    const POLICY: u8 = Reason::PolicyChanged.number();
    const INSPECTED: u8 = Reason::ModbusProtocolId.number();
    matches!(reason, CHANGED | URGENT | POLICY) || reason >= INSPECTED
}

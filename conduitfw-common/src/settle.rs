//! The long way for a frame of a known flow: the policy changed, the interface differs, the
//! connection opens anew or ends.

use crate::admit::observe_or;
use crate::adopt::may_be_adopted;
use crate::classify;
use crate::flow::connection::{CONTROL_FLAGS, ahead};
use crate::flow::entry::{Direction, FlowEntry, flow_flag, phase};
use crate::flow::store::{find, free_stream, lifetime_ticks, remove};
use crate::judge::{end, follow};
use crate::judgement::Judgement;
use crate::packet::{Packet, transport};
use crate::platform::{FlowTable, Platform};
use crate::table::protocol;
use crate::verdict::Reason;
use crate::wire::{icmp, tcp::flag};

/// Judges a frame of the flow at `place`, which the caller has locked. May answer
/// [`Judgement::AGAIN`]: the caller lets go of the entry and treats the frame as one without a flow.
#[inline(always)]
pub fn settle<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Judgement {
    let now = p.now_ticks();
    let (ifindex, number, slot) = (p.ifindex(), p.seen().generation, p.seen().slot);

    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return Judgement::deny(Reason::NoFlow, 0);
    };
    let Some(direction) = entry.direction_of(packet) else {
        return Judgement::AGAIN;
    };
    let (conduit, age) = (entry.conduit, now.saturating_sub(entry.last_seen_ticks));
    let (is_current, is_here) = (
        entry.generation == number,
        entry.came_in_at(direction, ifindex, packet.vlans),
    );
    let (was_in, had_flags) = (entry.phase, entry.flags);

    // What is behind an interface or a tag may be another zone in another policy.
    if !is_here || !is_current {
        if let Err(reason) = classify::source(p, &packet.source, packet.vlans) {
            return Judgement::deny(reason, 0);
        }
        if let Some(entry) = p.flow(FlowTable::Flows, place) {
            match direction {
                Direction::Request => {
                    entry.initiator_ifindex = ifindex;
                    entry.initiator_vlans = packet.vlans;
                }
                Direction::Reply => {
                    entry.responder_ifindex = ifindex;
                    entry.responder_vlans = packet.vlans;
                }
            }
        }
    }
    let is_timed_out = match p.generation(slot) {
        Some(generation) => age > lifetime_ticks(packet.transport, was_in, generation),
        None => true,
    };
    let is_syn = packet.transport == transport::TCP && packet.tcp_flags & flag::SYN != 0;
    let second = p.generation(slot).map_or(0, |g| g.ticks_per_second);
    let would_take_old_data = is_syn
        && direction == Direction::Request
        && p.flow_seen(FlowTable::Flows, place)
            .is_some_and(|entry| takes_old_data(entry, packet));
    if would_take_old_data && age < u64::from(second).wrapping_mul(QUIET_SECONDS) {
        let judgement = Judgement::deny(Reason::OutOfWindow, conduit).going(direction);
        return observe_or(p, conduit, judgement);
    }
    let was_seen_from_the_start = had_flags & flow_flag::ADOPTED == 0;
    if is_timed_out && was_seen_from_the_start && may_be_adopted(p, packet) {
        // What its responder has got of it since is not known: it is none to be picked up.
        let judgement = Judgement::deny(Reason::NoFlow, conduit).going(direction);
        return observe_or(p, conduit, judgement);
    }
    // A closed one is remembered until the next of its ports is open: the SYN may yet be denied.
    if is_timed_out || (is_syn && was_in > phase::CLOSED && direction == Direction::Request) {
        remove(p, FlowTable::Flows, place);
        return Judgement::AGAIN;
    }
    if was_in >= phase::ENDING {
        return ended(p, packet, place, direction, conduit);
    }
    if !is_current && !rejudge(p, place, direction) {
        let Some(entry) = p.flow(FlowTable::Flows, place) else {
            return Judgement::deny(Reason::NoFlow, conduit);
        };
        let judgement = Judgement::deny(Reason::PolicyChanged, conduit).going(direction);
        if packet.transport != transport::TCP {
            return judgement;
        }
        return end(entry, judgement, 0);
    }
    if (is_syn || had_flags & flow_flag::REOPENING != 0)
        && reopen(p, packet, place, direction, is_syn)
    {
        if would_take_old_data && was_in < phase::CLOSED {
            p.workspace().doubted = place;
        }
        return Judgement::AGAIN;
    }
    if had_flags & flow_flag::IN_DOUBT != 0 && is_held(p, packet, place, direction) {
        let judgement = Judgement::deny(Reason::OutOfOrder, conduit).going(direction);
        return observe_or(p, conduit, judgement);
    }
    if packet.transport == transport::ICMP {
        let wanted = match direction {
            Direction::Request => icmp::Kind::EchoRequest,
            Direction::Reply => icmp::Kind::EchoReply,
        };
        if icmp::kind(packet) != wanted {
            return Judgement::AGAIN;
        }
    }
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return Judgement::deny(Reason::NoFlow, conduit);
    };
    // Of a connection that ends only its responder says that it goes on: what the initiator sends may be for nobody,
    // and would keep the flow, and its stream, as long as he likes.
    let is_believed = was_in < phase::CLOSING
        || (direction == Direction::Reply && packet.tcp_flags & flag::RST == 0);
    if is_believed {
        entry.last_seen_ticks = now;
    }
    follow(entry, packet, direction)
}

/// A SYN passes whose connection would take the data of the one at `place` for its own: that one is in doubt.
/// Not before it is known to pass: the responder would never see it, and have no reason to speak. Answers
/// whether the flow could be told; it need not be there any more.
#[inline(always)]
pub fn doubt<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> bool {
    if !p.lock_flow(FlowTable::Flows, place) {
        return false;
    }
    if let Some(entry) = p.flow(FlowTable::Flows, place)
        && entry.direction_of(packet) == Some(Direction::Request)
    {
        entry.flags |= flow_flag::IN_DOUBT;
    }
    p.unlock_flow(FlowTable::Flows, place);
    true
}

/// How long after the last segment of a connection the next one of the same ports may not begin with
/// a number that the last one has used (RFC 9293 §3.4.3): what is on its way yet would be taken for its
/// own.
const QUIET_SECONDS: u64 = 2;
/// How far below the last number of a connection: more than windows of 16 bits leave room for.
const USED_NUMBERS: u32 = 1 << 20;

/// Whether the connection that a SYN opens would take what the old one has sent, or may yet send:
/// nothing more once it is closed.
#[inline(always)]
fn takes_old_data(entry: &FlowEntry, packet: &Packet) -> bool {
    let (first, side) = (packet.sequence.wrapping_add(1), &entry.request);
    let lowest = side.next.wrapping_sub(USED_NUMBERS).wrapping_add(1);
    let highest = if entry.phase < phase::CLOSED && ahead(side.edge, side.next) > 0 {
        side.edge
    } else {
        side.next
    };
    entry.protocol != protocol::NONE && first.wrapping_sub(lowest) <= highest.wrapping_sub(lowest)
}

/// Whether the segment waits: the responder may have taken a new connection that would read it in
/// the middle. An answer of the old connection ends the doubt; one that the new connection has been
/// given does not, whatever its numbers.
#[inline(always)]
fn is_held<P: Platform>(p: &mut P, packet: &Packet, place: u32, direction: Direction) -> bool {
    if direction == Direction::Request {
        return packet.payload_bytes != 0 || packet.tcp_flags & flag::FIN != 0;
    }
    let new_first = find(p, FlowTable::Openings, packet)
        .and_then(|found| p.flow_seen(FlowTable::Openings, found.place))
        .map(|entry| (entry.phase, entry.request.next));
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return true;
    };
    let is_new = new_first.is_some_and(|(in_phase, first)| {
        in_phase != phase::OPENING || first == packet.acknowledgement
    });
    let is_old = packet.tcp_flags & (flag::ACK | flag::SYN | flag::RST) == flag::ACK
        && packet.sequence == entry.reply.next
        && ahead(packet.acknowledgement, entry.request.acknowledged) >= 0
        && ahead(packet.acknowledgement, entry.request.next) <= 0;
    if is_old && !is_new {
        entry.flags &= !flow_flag::IN_DOUBT;
    }
    false
}

/// Looks the flow up in the policy that is in force now. Returns whether it is still allowed. Whether the
/// other side is where it was is asked when it speaks: no interface has the number 0.
#[inline(always)]
fn rejudge<P: Platform>(p: &mut P, place: u32, direction: Direction) -> bool {
    let (slot, number) = (p.seen().slot, p.seen().generation);
    let Some(entry) = p.flow_seen(FlowTable::Flows, place) else {
        return false;
    };
    let (transport, inspected_as) = (entry.transport, entry.protocol);
    let is_misplaced = entry.flags & flow_flag::MISPLACED != 0;
    let port = entry.service_port();
    let Some(from) = p.network(slot, &entry.initiator) else {
        return false;
    };
    let Some(to) = p.network(slot, &entry.responder) else {
        return false;
    };
    let Some(service) = classify::service(p, from, to, transport, port) else {
        return false;
    };
    let Some(conduit) = p.conduit(slot, service.conduit) else {
        return false;
    };
    if service.protocol != inspected_as {
        // Where an ADU begins is not known in a stream that was not followed from its start.
        if service.protocol != protocol::NONE {
            return false;
        }
        free_stream(p, place);
    }
    let observe = classify::observes(p, slot);
    if is_misplaced && service.protocol != protocol::NONE && conduit.observe | observe == 0 {
        return false;
    }
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return false;
    };
    entry.take_service(&service, &conduit, number, observe);
    match direction {
        Direction::Request => entry.responder_ifindex = 0,
        Direction::Reply => entry.initiator_ifindex = 0,
    }
    true
}

/// A frame of a flow that was ended: each side is told once it speaks.
#[inline(always)]
fn ended<P: Platform>(
    p: &mut P,
    packet: &Packet,
    place: u32,
    direction: Direction,
    conduit: u16,
) -> Judgement {
    let judgement = Judgement::deny(Reason::FlowEnded, conduit).going(direction);
    let is_reset = packet.tcp_flags & flag::RST != 0;
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return judgement;
    };
    if direction == Direction::Reply || is_reset {
        return judgement;
    }
    if entry.phase == phase::ENDING {
        entry.phase = phase::ENDED;
        return judgement.reset_responder();
    }
    judgement.reset_initiator()
}

/// A SYN for the ports of a connection that is believed alive: one end may have restarted. The SYN
/// carries no data, so it is harmless; whether the responder takes it shows in its answer.
///
/// Returns `false` when the segment belongs to the old connection after all.
#[inline(always)]
fn reopen<P: Platform>(
    p: &mut P,
    packet: &Packet,
    place: u32,
    direction: Direction,
    is_syn: bool,
) -> bool {
    if is_syn {
        let flags = packet.tcp_flags & CONTROL_FLAGS;
        let Some(entry) = p.flow(FlowTable::Flows, place) else {
            return true;
        };
        if direction == Direction::Request && flags == flag::SYN {
            entry.flags |= flow_flag::REOPENING;
        }
        // The responder repeats its answer when the third segment was lost on the way to it. Until
        // that is repeated too, it holds the connection for half open, and gives it up in the end.
        return direction == Direction::Request
            || entry.phase == phase::CLOSED
            || flags != flag::SYN | flag::ACK
            || packet.payload_bytes != 0
            || packet.sequence.wrapping_add(1) != entry.reply.next;
    }
    // The third segment of the new handshake, if it is one, moves the new flow into this place.
    if direction == Direction::Request {
        if crate::admit::is_handshake_confirmed(p, packet) {
            remove(p, FlowTable::Flows, place);
            return true;
        }
        // It gave way, or timed out.
        if find(p, FlowTable::Openings, packet).is_none()
            && let Some(entry) = p.flow(FlowTable::Flows, place)
        {
            entry.flags &= !flow_flag::REOPENING;
        }
    }
    false
}

//! The long way for a frame without an established flow: may it open one?

use crate::adopt::may_be_adopted;
use crate::classify::{self, Ends};
use crate::flow::connection::CONTROL_FLAGS;
use crate::flow::entry::{Direction, FlowEntry, Side, phase, side_flag};
use crate::flow::store::{Found, find, lifetime_ticks, open_stream, remove};
use crate::judgement::Judgement;
use crate::neighbour;
use crate::packet::{Packet, transport};
use crate::platform::{FlowTable, Platform};
use crate::rate;
use crate::table::{GATEWAY_ZONE, protocol};
use crate::verdict::Reason;
use crate::wire::tcp::{MAX_SHIFT, flag};
use crate::wire::{ethernet, icmp};

/// Judges a frame that no established flow claims.
#[inline(always)]
pub fn admit<P: Platform>(p: &mut P, packet: &Packet) -> Judgement {
    if packet.ether_type == ethernet::ARP {
        return neighbour::resolution(p, packet, &packet.destination);
    }
    let kind = icmp::kind(packet);
    if packet.transport == transport::ICMP && kind == icmp::Kind::Neighbour {
        return neighbour::discovery(p, packet);
    }
    let ends = match classify::ends(p, packet) {
        Ok(ends) => ends,
        Err(reason) => return Judgement::deny(reason, 0),
    };
    if packet.transport == transport::ICMP {
        match kind {
            icmp::Kind::Error => return Judgement::QUOTES,
            icmp::Kind::Other | icmp::Kind::Neighbour => {
                return Judgement::deny(Reason::IcmpTypeNotAllowed, 0);
            }
            icmp::Kind::EchoRequest | icmp::Kind::EchoReply => {}
        }
    }
    if ends.destination.zone == GATEWAY_ZONE {
        return to_gateway(p, packet, ends);
    }
    match find(p, FlowTable::Openings, packet) {
        Some(found) => go_on_opening(p, packet, ends, found),
        None => open(p, packet, ends),
    }
}

/// Below are the ports of services (RFC 6335 §6).
const FIRST_PORT_OF_CLIENTS: u16 = 1024;

/// Traffic to the gateway itself is matched frame by frame: the gateway's own TCP follows its
/// connections, and a flood of them must not fill the flow table. What answers a connection that
/// the gateway opened matches a conduit from the gateway in reverse.
#[inline(always)]
fn to_gateway<P: Platform>(p: &mut P, packet: &Packet, ends: Ends) -> Judgement {
    let is_reply_only =
        packet.transport == transport::ICMP && icmp::kind(packet) == icmp::Kind::EchoReply;
    if !is_reply_only {
        let port = classify::service_port(packet);
        if let Some(service) =
            classify::service(p, ends.source, ends.destination, packet.transport, port)
        {
            return observe_or(p, service.conduit, Judgement::pass(service.conduit));
        }
    }
    // A datagram to a port of the gateway's services answers nothing, unless it is between two of a kind.
    let is_to_service = packet.transport == transport::UDP
        && packet.destination_port < FIRST_PORT_OF_CLIENTS
        && packet.destination_port != packet.source_port;
    let opens = packet.transport == transport::TCP
        && packet.tcp_flags & (flag::SYN | flag::ACK) == flag::SYN
        || packet.transport == transport::ICMP && !is_reply_only
        || is_to_service;
    if !opens {
        let port = if packet.transport == transport::ICMP {
            0
        } else {
            packet.source_port
        };
        if let Some(service) =
            classify::service(p, ends.destination, ends.source, packet.transport, port)
        {
            return observe_or(p, service.conduit, Judgement::pass(service.conduit));
        }
    }
    Judgement::deny(Reason::NoConduit, 0)
}

/// A judgement on the account of a conduit whose mode may be observe.
#[inline(always)]
pub(crate) fn observe_or<P: Platform>(p: &P, conduit: u16, judgement: Judgement) -> Judgement {
    match p.conduit(p.seen().slot, conduit) {
        Some(entry) if entry.observe != 0 && judgement.reason_number() != 0 => judgement.observed(),
        _ => judgement,
    }
}

/// Whether a conduit allows a new flow and its rate is not used up: then [`Judgement::OPEN`].
#[inline(always)]
fn open<P: Platform>(p: &mut P, packet: &Packet, ends: Ends) -> Judgement {
    let is_echo_reply =
        packet.transport == transport::ICMP && icmp::kind(packet) == icmp::Kind::EchoReply;
    let is_syn = packet.tcp_flags & CONTROL_FLAGS == flag::SYN;
    let is_late = is_echo_reply || (packet.transport == transport::TCP && !is_syn);
    if is_late && !may_be_adopted(p, packet) {
        return strayed(p, packet, ends, stray(packet));
    }
    let port = classify::service_port(packet);
    let Some(service) = classify::service(p, ends.source, ends.destination, packet.transport, port)
    else {
        let reason = if is_syn || packet.transport != transport::TCP {
            Reason::NoConduit
        } else {
            stray(packet)
        };
        if is_syn {
            return Judgement::deny(reason, 0);
        }
        return strayed(p, packet, ends, reason);
    };
    let slot = p.seen().slot;
    let Some(conduit) = p.conduit(slot, service.conduit) else {
        return Judgement::deny(Reason::NoConduit, 0);
    };
    if is_syn && packet.payload_bytes != 0 {
        let judgement = Judgement::deny(Reason::SynWithData, service.conduit);
        return observe_or(p, service.conduit, judgement);
    }
    if !rate::take(
        p,
        service.conduit,
        conduit.new_flow_interval,
        conduit.new_flow_burst,
    ) {
        let judgement = Judgement::deny(Reason::NewFlowRate, service.conduit);
        return observe_or(p, service.conduit, judgement);
    }
    p.workspace().service = service;
    if packet.transport != transport::TCP || is_syn {
        return Judgement::OPEN;
    }
    // Only data shows where an ADU begins.
    if service.protocol != protocol::NONE && packet.payload_bytes == 0 {
        let judgement = Judgement::deny(Reason::NoFlow, service.conduit);
        return observe_or(p, service.conduit, judgement);
    }
    Judgement::ADOPT
}

/// Fills the opening flow at `place`, which the caller has added and holds, with what [`admit`]
/// left in [`crate::platform::Workspace::service`].
#[inline(always)]
pub fn opened<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Judgement {
    let (ifindex, number, now) = (p.ifindex(), p.seen().generation, p.now_ticks());
    let (slot, service) = (p.seen().slot, p.seen().service);
    let conduit = p.conduit(slot, service.conduit).unwrap_or_default();
    let observe = classify::observes(p, slot);
    let shift = if packet.transport == transport::TCP {
        p.window_shift(packet)
    } else {
        0
    };
    let pass = Judgement::pass(service.conduit).going(Direction::Request);
    if let Some(entry) = p.flow(FlowTable::Openings, place) {
        // Another processor was faster, and its frame may have been answered since.
        if entry.phase != 0 {
            let is_same = entry.direction_of(packet) == Some(Direction::Request)
                && (packet.transport != transport::TCP
                    || entry.request.next == packet.sequence.wrapping_add(1));
            return if is_same {
                pass
            } else {
                Judgement::deny(Reason::FlowBusy, service.conduit).going(Direction::Request)
            };
        }
        entry.phase = phase::OPENING;
        entry.take_service(&service, &conduit, number, observe);
        entry.last_seen_ticks = now;
        entry.initiator_ifindex = ifindex;
        entry.initiator_vlans = packet.vlans;
        let after_syn = packet.sequence.wrapping_add(1);
        entry.request = Side {
            next: after_syn,
            acknowledged: after_syn,
            flags: shift << side_flag::WINDOW_SHIFT_AT & side_flag::WINDOW_SHIFT,
            edge: after_syn,
        };
    }
    pass
}

/// A frame that is of no flow and cannot open one. Where a conduit only observes, a flow that was too much for
/// it was never opened, and passes all the same, both ways.
#[inline(always)]
fn strayed<P: Platform>(p: &mut P, packet: &Packet, ends: Ends, reason: Reason) -> Judgement {
    let is_echo = packet.transport == transport::ICMP;
    let back = if is_echo { 0 } else { packet.source_port };
    let mut judgement = Judgement::deny(reason, 0);
    for (from, to, port, direction) in [
        (
            ends.source,
            ends.destination,
            classify::service_port(packet),
            Direction::Request,
        ),
        (ends.destination, ends.source, back, Direction::Reply),
    ] {
        if let Some(service) = classify::service(p, from, to, packet.transport, port)
            && let Some(conduit) = p.conduit(p.seen().slot, service.conduit)
            && conduit.observe != 0
        {
            let denied = Judgement::deny(reason, service.conduit);
            judgement = denied.going(direction).observed();
            break;
        }
    }
    judgement
}

/// Why a segment without a flow cannot open one.
#[inline(always)]
const fn stray(packet: &Packet) -> Reason {
    const SYN_FIN: u8 = flag::SYN | flag::FIN;
    const SYN_RST: u8 = flag::SYN | flag::RST;
    const SYN_URG: u8 = flag::SYN | flag::URG;
    if packet.transport != transport::TCP {
        return Reason::NoFlow;
    }
    let flags = packet.tcp_flags & CONTROL_FLAGS;
    if flags == 0
        || flags & SYN_FIN == SYN_FIN
        || flags & SYN_RST == SYN_RST
        || flags & SYN_URG == SYN_URG
    {
        Reason::BadTcpFlags
    } else {
        Reason::NoFlow
    }
}

/// Another frame of a flow that is opening. Two processors may have one at the same time.
#[inline(always)]
fn go_on_opening<P: Platform>(p: &mut P, packet: &Packet, ends: Ends, found: Found) -> Judgement {
    let Found { place, direction } = found;
    if !p.lock_flow(FlowTable::Openings, place) {
        return Judgement::deny(Reason::FlowBusy, 0).going(direction);
    }
    let judgement = go_on_locked(p, packet, ends, found);
    p.unlock_flow(FlowTable::Openings, place);
    if judgement == Judgement::AGAIN {
        return open(p, packet, ends);
    }
    if judgement.is_decided() {
        return observe_or(p, judgement.conduit(), judgement);
    }
    judgement
}

/// The same for a place that is locked. Answers [`Judgement::AGAIN`] when the frame may open a flow, and
/// this one is gone.
#[inline(always)]
fn go_on_locked<P: Platform>(p: &mut P, packet: &Packet, ends: Ends, found: Found) -> Judgement {
    let Found { place, direction } = found;
    let busy = Judgement::deny(Reason::FlowBusy, 0).going(direction);
    let Some(entry) = p.flow_seen(FlowTable::Openings, place) else {
        return busy;
    };
    // Another flow may have taken the place between the look and the lock.
    if entry.phase == 0 || entry.direction_of(packet) != Some(direction) {
        return busy;
    }
    let (conduit, in_phase) = (entry.conduit, entry.phase);
    let is_current = entry.generation == p.seen().generation;
    let slot = p.seen().slot;
    let age = p.now_ticks().saturating_sub(entry.last_seen_ticks);
    let is_timed_out = p
        .generation(slot)
        .is_none_or(|g| age > lifetime_ticks(packet.transport, in_phase, g));
    let is_request = direction == Direction::Request;
    let is_syn = packet.tcp_flags & CONTROL_FLAGS == flag::SYN;
    // One that its sender repeats, or the line doubles, must not undo the answer to the first.
    let is_repeated = is_request
        && is_syn
        && packet.payload_bytes == 0
        && entry.request.next == packet.sequence.wrapping_add(1);
    let starts_again = is_timed_out || (is_request && is_syn && !is_repeated);
    if starts_again || (!is_current && !rejudge_opening(p, ends, place, direction)) {
        remove(p, FlowTable::Openings, place);
        return if is_request {
            Judgement::AGAIN
        } else if starts_again {
            Judgement::deny(Reason::NoFlow, conduit)
        } else {
            Judgement::deny(Reason::PolicyChanged, conduit).going(direction)
        };
    }
    let conduit = p
        .flow_seen(FlowTable::Openings, place)
        .map_or(0, |entry| entry.conduit);
    if packet.transport == transport::TCP && !is_repeated {
        return handshake(p, packet, conduit, place, direction);
    }
    if packet.transport == transport::ICMP {
        let wanted = if is_request {
            icmp::Kind::EchoRequest
        } else {
            icmp::Kind::EchoReply
        };
        if icmp::kind(packet) != wanted {
            return Judgement::deny(Reason::NoFlow, conduit).going(direction);
        }
    }
    if is_request {
        let now = p.now_ticks();
        if let Some(entry) = p.flow(FlowTable::Openings, place) {
            entry.last_seen_ticks = now;
        }
        return Judgement::pass(conduit).going(direction);
    }
    Judgement::establish(place, direction)
}

/// Looks an opening flow up in the policy that is in force now. Returns whether it is still allowed.
#[inline(always)]
fn rejudge_opening<P: Platform>(p: &mut P, ends: Ends, place: u32, direction: Direction) -> bool {
    let (slot, number) = (p.seen().slot, p.seen().generation);
    let Some(entry) = p.flow_seen(FlowTable::Openings, place) else {
        return false;
    };
    let (transport, port) = (entry.transport, entry.service_port());
    let (from, to) = match direction {
        Direction::Request => (ends.source, ends.destination),
        Direction::Reply => (ends.destination, ends.source),
    };
    let Some(service) = classify::service(p, from, to, transport, port) else {
        return false;
    };
    let Some(conduit) = p.conduit(slot, service.conduit) else {
        return false;
    };
    let observe = classify::observes(p, slot);
    let Some(entry) = p.flow(FlowTable::Openings, place) else {
        return false;
    };
    entry.take_service(&service, &conduit, number, observe);
    true
}

/// The second and third segment of a TCP handshake (RFC 9293 §3.5), or its refusal.
#[inline(always)]
fn handshake<P: Platform>(
    p: &mut P,
    packet: &Packet,
    conduit: u16,
    place: u32,
    direction: Direction,
) -> Judgement {
    let flags = packet.tcp_flags & CONTROL_FLAGS;
    let pass = Judgement::pass(conduit).going(direction);
    let deny = Judgement::deny(Reason::NoFlow, conduit).going(direction);
    let Some(entry) = p.flow(FlowTable::Openings, place) else {
        return deny;
    };
    if direction == Direction::Reply {
        if flags & flag::ACK == 0
            || packet.acknowledgement != entry.request.next
            || packet.payload_bytes != 0
        {
            return deny;
        }
        if flags == flag::SYN | flag::ACK {
            let (now, ifindex) = (p.now_ticks(), p.ifindex());
            let shift = p.window_shift(packet);
            if let Some(entry) = p.flow(FlowTable::Openings, place) {
                let after_syn = packet.sequence.wrapping_add(1);
                // Windows are scaled only when both sides said so (RFC 7323 §2.2). The window of a
                // SYN never is.
                let asked = entry.request.flags & side_flag::WINDOW_SHIFT;
                let is_scaled = shift <= MAX_SHIFT && asked != side_flag::WINDOW_SHIFT;
                let answered = if is_scaled {
                    shift << side_flag::WINDOW_SHIFT_AT
                } else {
                    entry.request.flags = 0;
                    0
                };
                let window = u32::from(packet.window);
                entry.request.edge = packet.acknowledgement.wrapping_add(window);
                entry.phase = phase::ANSWERED;
                entry.last_seen_ticks = now;
                entry.responder_ifindex = ifindex;
                entry.responder_vlans = packet.vlans;
                entry.reply = Side {
                    next: after_syn,
                    acknowledged: after_syn,
                    flags: answered,
                    edge: after_syn,
                };
            }
            return pass;
        }
        // A refusal, or the challenge to a SYN that the responder takes for an old connection's.
        return if flags == flag::RST | flag::ACK {
            pass
        } else {
            deny
        };
    }
    if flags & flag::RST != 0 && flags & (flag::SYN | flag::FIN) == 0 && packet.payload_bytes == 0 {
        return pass;
    }
    if flags & flag::SYN != 0 || !confirms(entry, packet) {
        return deny;
    }
    Judgement::establish(place, direction)
}

#[inline(always)]
const fn confirms(entry: &FlowEntry, packet: &Packet) -> bool {
    entry.phase == phase::ANSWERED
        && packet.tcp_flags & (flag::ACK | flag::SYN | flag::RST) == flag::ACK
        && packet.sequence == entry.request.next
        && packet.acknowledgement == entry.reply.next
}

/// Whether the segment at hand confirms a handshake that waits in the table of opening flows.
#[inline(always)]
pub(crate) fn is_handshake_confirmed<P: Platform>(p: &P, packet: &Packet) -> bool {
    find(p, FlowTable::Openings, packet)
        .and_then(|found| p.flow_seen(FlowTable::Openings, found.place))
        .is_some_and(|entry| confirms(entry, packet))
}

/// Moves the opening flow at `opening_place` to `place` among the established ones, which the
/// caller has added or found, and holds. The answer is [`Judgement::SETTLE`], or a denial with the flow
/// gone.
#[inline(always)]
pub fn establish<P: Platform>(
    p: &mut P,
    packet: &Packet,
    opening_place: u32,
    place: u32,
    reply: bool,
) -> Judgement {
    let direction = if reply {
        Direction::Reply
    } else {
        Direction::Request
    };
    let busy = Judgement::deny(Reason::FlowBusy, 0).going(direction);
    // Another processor was faster, and may have judged data since: what it has followed stays.
    let is_there = p
        .flow_seen(FlowTable::Flows, place)
        .is_some_and(|entry| entry.phase != 0 && entry.direction_of(packet) == Some(direction));
    if is_there {
        return Judgement::SETTLE;
    }
    if !p.lock_flow(FlowTable::Openings, opening_place) {
        remove(p, FlowTable::Flows, place);
        return busy;
    }
    let judgement = establish_from(p, packet, opening_place, place, direction);
    if judgement == Judgement::SETTLE {
        remove(p, FlowTable::Openings, opening_place);
    } else {
        remove(p, FlowTable::Flows, place);
    }
    p.unlock_flow(FlowTable::Openings, opening_place);
    judgement
}

/// The same with both places locked. The flow is whole if the answer is [`Judgement::SETTLE`].
#[inline(always)]
fn establish_from<P: Platform>(
    p: &mut P,
    packet: &Packet,
    opening_place: u32,
    place: u32,
    direction: Direction,
) -> Judgement {
    let busy = Judgement::deny(Reason::FlowBusy, 0).going(direction);
    let (now, ifindex) = (p.now_ticks(), p.ifindex());
    let Some(opening) = p.flow_seen(FlowTable::Openings, opening_place).copied() else {
        return busy;
    };
    // Another flow may have taken its place, or another handshake, since it was looked at.
    let is_it = opening.phase != 0
        && opening.direction_of(packet) == Some(direction)
        && (packet.transport != transport::TCP || confirms(&opening, packet));
    if !is_it {
        return busy;
    }
    let full = Judgement::deny(Reason::FlowTableFull, opening.conduit).going(direction);
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return full;
    };
    *entry = FlowEntry {
        lock: entry.lock,
        serial: entry.serial,
        place: entry.place,
        tag: entry.tag,
        phase: phase::ESTABLISHED,
        last_seen_ticks: now,
        stream: 0,
        flags: 0,
        ..opening
    };
    if direction == Direction::Reply {
        entry.responder_ifindex = ifindex;
        entry.responder_vlans = packet.vlans;
    }
    let has_room = opening.protocol == protocol::NONE
        || open_stream(p, place, opening.request.next, opening.reply.next);
    if has_room { Judgement::SETTLE } else { full }
}

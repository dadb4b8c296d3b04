//! A connection that was open before the gateway, picked up in the middle.

use crate::admit::observe_or;
use crate::classify;
use crate::flow::connection::CONTROL_FLAGS;
use crate::flow::entry::{Direction, Side, flow_flag, phase, side_flag};
use crate::flow::store::{open_stream, remove};
use crate::judgement::Judgement;
use crate::packet::{Packet, transport};
use crate::platform::{FlowTable, Platform};
use crate::table::protocol;
use crate::verdict::{Reason, Verdict};
use crate::wire::tcp::{MAX_SHIFT, flag};

/// Whether a connection that was open before the gateway may be picked up, and the segment at hand
/// may be of one.
#[inline(always)]
pub(crate) fn may_be_adopted<P: Platform>(p: &P, packet: &Packet) -> bool {
    packet.transport == transport::TCP
        && packet.tcp_flags & CONTROL_FLAGS == flag::ACK
        && p.settings()
            .is_some_and(|settings| p.now_ticks() < settings.adopt_until_ticks)
}

/// Fills the flow at `place`, which the caller has added and holds, from a segment of the initiator
/// of a connection that was open before the gateway. The answer is [`Judgement::SETTLE`], or a
/// denial with the flow gone.
///
/// An inspected one denies by dropping until [`adopted`] has seen that the segment checks out.
#[inline(always)]
pub fn adopt<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Judgement {
    let (ifindex, number, now) = (p.ifindex(), p.seen().generation, p.now_ticks());
    let (slot, service) = (p.seen().slot, p.seen().service);
    let conduit = p.conduit(slot, service.conduit).unwrap_or_default();
    let full = Judgement::deny(Reason::FlowTableFull, service.conduit).going(Direction::Request);
    let Some(entry) = p.flow(FlowTable::Flows, place) else {
        return full;
    };
    // The shifts of the windows went by unseen: the largest there is.
    let flags = MAX_SHIFT << side_flag::WINDOW_SHIFT_AT;
    let room = u32::from(packet.window) << MAX_SHIFT;
    // Until its responder speaks: a segment of which nothing is known may be of no connection at all.
    entry.phase = phase::CLOSING;
    entry.take_service(&service, &conduit, number, 0);
    entry.on_deny = Verdict::Drop.number();
    entry.observe = 0;
    entry.last_seen_ticks = now;
    entry.initiator_ifindex = ifindex;
    entry.initiator_vlans = packet.vlans;
    entry.request = Side {
        next: packet.sequence,
        acknowledged: packet.sequence,
        flags,
        edge: packet.sequence.wrapping_add(ADOPTED_ROOM),
    };
    entry.reply = Side {
        next: packet.acknowledgement,
        acknowledged: packet.acknowledgement,
        flags,
        edge: packet.acknowledgement.wrapping_add(room),
    };
    if service.protocol != protocol::NONE {
        entry.flags = flow_flag::ADOPTED;
        if !open_stream(p, place, packet.sequence, packet.acknowledgement) {
            remove(p, FlowTable::Flows, place);
            return full;
        }
    }
    Judgement::SETTLE
}

/// What the responder of a connection that is picked up has room for, until it says so.
const ADOPTED_ROOM: u32 = 65_535;

/// The end of [`adopt`]: the flow stays when its first segment is allowed and, where it is
/// inspected, ends with an ADU. `judgement` is what the segment got.
#[inline(always)]
pub fn adopted<P: Platform>(
    p: &mut P,
    packet: &Packet,
    place: u32,
    judgement: Judgement,
) -> Judgement {
    let (slot, service) = (p.seen().slot, p.seen().service);
    let conduit = p.conduit(slot, service.conduit).unwrap_or_default();
    let observe = classify::observes(p, slot);
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    let index = p.seen().stream;
    let is_whole = service.protocol == protocol::NONE
        || p.stream(index)
            .is_some_and(|stream| stream.adu_start == data_end);
    if judgement.reason_number() != 0 || !is_whole {
        remove(p, FlowTable::Flows, place);
        let denied = if judgement.reason_number() == 0 {
            Judgement::deny(Reason::NoFlow, service.conduit).going(Direction::Request)
        } else {
            judgement
        };
        return observe_or(p, service.conduit, denied);
    }
    if let Some(entry) = p.flow(FlowTable::Flows, place) {
        entry.on_deny = conduit.on_deny;
        entry.observe = conduit.observe | observe;
    }
    Judgement::notice(Reason::FlowAdopted, service.conduit).going(Direction::Request)
}

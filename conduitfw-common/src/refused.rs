//! What a flow is denied again and again: whoever floods the gateway with it is not to cost it more than he
//! must. Of a request like the one before it is known what becomes without holding the flow.

use crate::flow::connection::is_data;
use crate::flow::entry::Direction;
use crate::judge::SETTLE_AFTER_TICKS;
use crate::judgement::Judgement;
use crate::modbus::{REQUEST_BYTES, plain};
use crate::packet::{Packet, transport};
use crate::platform::Platform;
use crate::verdict::Reason;

/// Where and when a frame came in, and by which policy it is judged.
pub(crate) struct Came {
    pub(crate) ifindex: u32,
    pub(crate) generation: u32,
    /// The tick counter.
    pub(crate) now: u64,
}

/// Judges a frame of a flow whose last request was denied and dropped, if it is another such request: plain,
/// in the same place in the stream, and for the same unit and function. Nothing is written, and nothing is
/// held: what is read may be of two moments, and then a frame is denied that its sender repeats. None is let
/// through.
#[inline(always)]
pub(crate) fn judge<P: Platform>(
    p: &mut P,
    packet: &Packet,
    flow: P::FlowPointer,
    came: &Came,
) -> Option<Judgement> {
    if !is_data(packet) || packet.payload_bytes != REQUEST_BYTES {
        return None;
    }
    let entry = p.flow_glimpsed(flow)?;
    // What the flow is denied by cannot have changed since: only the generation changes it.
    let is_alike = matches!(entry.ends_of(packet), Some(Direction::Request))
        && entry.is_usual(transport::TCP)
        && entry.generation == came.generation
        && entry.came_in_at(Direction::Request, came.ifindex, packet.vlans)
        && came.now.wrapping_sub(entry.last_seen_ticks) <= SETTLE_AFTER_TICKS
        && entry.request.next == packet.sequence;
    let (conduit, refused) = (entry.conduit, entry.refused());
    if !is_alike || !plain::is_alike(p, packet, refused) {
        return None;
    }
    let denied = Judgement::deny(Reason::FunctionNotAllowed, conduit);
    Some(denied.going(Direction::Request).of_plain_request())
}

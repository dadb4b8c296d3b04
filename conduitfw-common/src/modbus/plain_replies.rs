//! The replies to [`super::plain`] requests, whole and as they are expected: judged from the frame's
//! bytes, one after the other. Whatever is any different is left to [`crate::replies`], which judges
//! these alike.

use zerocopy::native_endian::U64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::flow::connection;
use crate::flow::entry::{Direction, OUTSTANDING, Outstanding, request_state};
use crate::judgement::Judgement;
use crate::packet::Packet;
use crate::platform::Platform;

use super::outstanding::{first_row, low};
use super::plain::{is_of, out_of_turn};
use super::reply::{bucket, echo, expected_of_plain};
use super::{LENGTH_COUNTS_FROM, MAXIMUM_LENGTH};

/// What says whether a reply is the one that is expected, as it stands in the frame.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Reply {
    /// MBAP header and function code.
    head: U64,
    behind: [u8; 2],
}

const HEAD_BYTES: u32 = 10;
/// All of an MBAP header and function code but the length.
const ALIKE: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff]);

/// Judges the segment at hand, of the responder of the flow at `place`, which the caller holds: as for
/// [`super::plain::judge`], with [`Judgement::PLAIN_REPLY`]. When all of it is plain replies, it passes,
/// and the flow is let go of. Else [`Judgement::INSPECT_REPLY`]: so many bytes as
/// [`crate::platform::Workspace::plain_bytes`] says are judged; nothing has happened to the rest.
#[inline(always)]
pub fn judge<P: Platform>(p: &mut P, packet: &Packet, place: u32) -> Judgement {
    p.workspace().plain_bytes = 0;
    let Some(flow) = p.flow_pointer(place) else {
        return Judgement::INSPECT_REPLY;
    };
    let Some(entry) = p.flow_at(flow) else {
        return Judgement::INSPECT_REPLY;
    };
    if let Err(reason) = connection::track_data(entry, packet, Direction::Reply) {
        return out_of_turn(entry, reason, Direction::Reply);
    }
    let (index, serial) = (entry.stream.wrapping_sub(1), entry.serial);
    let (due, conduit) = (entry.reply.next, entry.conduit);
    // The frame's own time, as the short way noted it.
    let now = low(entry.last_seen_ticks);
    let Some(row) = p.stream_pointer(index) else {
        return Judgement::INSPECT_REPLY;
    };
    let Some(stream) = p.stream_at(row) else {
        return Judgement::INSPECT_REPLY;
    };
    if packet.sequence != due || !is_of(stream, place, serial) || stream.reply_start != due {
        return Judgement::INSPECT_REPLY;
    }
    let taken = run(p, row, packet, conduit, now);
    if taken < packet.payload_bytes {
        p.workspace().plain_bytes = taken;
        return Judgement::INSPECT_REPLY;
    }
    // The last of them may go on in the next segment.
    if let Some(stream) = p.stream_at(row) {
        stream.reply_start = due.wrapping_add(taken);
    }
    let Some(entry) = p.flow_at(flow) else {
        return Judgement::INSPECT_REPLY;
    };
    entry.reply.next = due.wrapping_add(packet.payload_bytes);
    P::let_go(entry);
    Judgement::pass(conduit).going(Direction::Reply)
}

/// Judges the replies in the segment. Answers the bytes of those that are plain, which may be more than
/// are there.
#[inline(always)]
fn run<P: Platform>(
    p: &mut P,
    row: P::StreamPointer,
    packet: &Packet,
    conduit: u16,
    now: u32,
) -> u32 {
    let (at, bytes) = (packet.payload_at, packet.payload_bytes);
    let mut taken = 0_u32;
    for _ in 0..OUTSTANDING {
        if bytes < taken.wrapping_add(HEAD_BYTES) {
            break;
        }
        let Ok(reply) = p.header::<Reply>(at.wrapping_add(taken)) else {
            break;
        };
        let (head, behind) = (reply.head.get(), reply.behind);
        let Some(stream) = p.stream_at(row) else {
            break;
        };
        let [t1, t0, _, _, l1, l0, ..] = head.to_ne_bytes();
        let length = u16::from_be_bytes([l1, l0]);
        let first = first_row(u16::from_be_bytes([t1, t0]));
        let Some(asked) = stream.outstanding.get_mut(first) else {
            break;
        };
        if !is_answered_by(asked, head, length, behind) {
            break;
        }
        asked.state = request_state::FREE;
        let ticks = now.wrapping_sub(asked.asked_ticks);
        stream.waiting = stream.waiting.wrapping_sub(1);
        p.count_response(conduit, bucket(ticks));
        taken = taken
            .wrapping_add(LENGTH_COUNTS_FROM)
            .wrapping_add(u32::from(length));
    }
    taken
}

/// Whether a plain request waits in the row, and this is its reply and no exception.
#[inline(always)]
fn is_answered_by(asked: &Outstanding, head: u64, length: u16, behind: [u8; 2]) -> bool {
    if asked.state != request_state::WAITING
        || asked.echo_kind != echo::PLAIN
        || (asked.head ^ head) & ALIKE != 0
    {
        return false;
    }
    let [a1, a0, q1, q0] = asked.operands.to_ne_bytes();
    let address = u16::from_be_bytes([a1, a0]);
    let expected = expected_of_plain(asked.function(), address, u16::from_be_bytes([q1, q0]));
    let [count, _] = behind;
    let has_echo = if expected.echo_kind == echo::COUNT {
        u16::from(count).wrapping_add(3) == length
    } else {
        u16::from_be_bytes(behind) == expected.echo
    };
    // A rule may allow to ask for more than a reply has room for.
    expected.length == length && length <= MAXIMUM_LENGTH && has_echo
}

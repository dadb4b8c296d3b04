//! One TCP segment against what is known of its connection: RFC 9293 §3.3, §3.10.

use crate::flow::entry::{Direction, FlowEntry, Side, phase, side_flag};
use crate::packet::Packet;
use crate::table::protocol;
use crate::verdict::Reason;
use crate::wire::tcp::flag;

/// Flags that decide what a segment is; PSH and the ECN bits do not.
pub const CONTROL_FLAGS: u8 = flag::FIN | flag::SYN | flag::RST | flag::ACK | flag::URG;

/// How far `later` is ahead of `earlier` in sequence space (RFC 9293 §3.4): negative when behind.
#[inline(always)]
#[must_use]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_wrap,
    reason = "modulo 2^32 by definition"
)]
pub const fn ahead(later: u32, earlier: u32) -> i32 {
    later.wrapping_sub(earlier) as i32
}

/// Whether a segment does nothing but acknowledge, as every other one does.
#[inline(always)]
#[must_use]
pub const fn is_acknowledgement(packet: &Packet) -> bool {
    packet.tcp_flags & CONTROL_FLAGS == flag::ACK && packet.payload_bytes == 0
}

/// Whether a segment that is no [`is_acknowledgement`] is data and nothing else.
#[inline(always)]
#[must_use]
pub const fn is_data(packet: &Packet) -> bool {
    packet.tcp_flags & CONTROL_FLAGS == flag::ACK
}

/// Follows a segment that [`is_data`], of a connection that is established and inspected: neither side
/// has sent its FIN.
///
/// # Errors
/// [`Reason::OutOfWindow`].
#[inline(always)]
pub fn track_data(
    entry: &mut FlowEntry,
    packet: &Packet,
    direction: Direction,
) -> Result<(), Reason> {
    let (mine, other) = match direction {
        Direction::Request => (&mut entry.request, &mut entry.reply),
        Direction::Reply => (&mut entry.reply, &mut entry.request),
    };
    acknowledge(other, mine.flags, packet);
    check_room(mine, packet)
}

/// One byte more than there is room for may be a probe of a closed window (RFC 9293 §3.8.6.1).
#[inline(always)]
const fn check_room(mine: &Side, packet: &Packet) -> Result<(), Reason> {
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    if ahead(data_end, mine.edge) > 1 {
        Err(Reason::OutOfWindow)
    } else {
        Ok(())
    }
}

/// Follows a segment that [`is_acknowledgement`].
#[inline(always)]
pub fn acknowledge_only(entry: &mut FlowEntry, packet: &Packet, direction: Direction) {
    match direction {
        Direction::Request => acknowledge(&mut entry.reply, entry.request.flags, packet),
        Direction::Reply => acknowledge(&mut entry.request, entry.reply.flags, packet),
    }
}

/// Follows one segment of a connection that is established, closing or closed. The data of an
/// inspected direction is not counted here: [`crate::inspect`] does it once it is judged.
///
/// # Errors
/// The reason why the segment cannot belong to the connection.
#[inline(always)]
pub fn track(entry: &mut FlowEntry, packet: &Packet, direction: Direction) -> Result<(), Reason> {
    let flags = packet.tcp_flags & CONTROL_FLAGS;
    let is_inspected = entry.protocol != protocol::NONE;
    let was_closed = entry.phase == phase::CLOSED;
    let (mine, other) = match direction {
        Direction::Request => (&mut entry.request, &mut entry.reply),
        Direction::Reply => (&mut entry.reply, &mut entry.request),
    };
    if flags & flag::RST != 0 {
        if flags & (flag::FIN | flag::URG) != 0 || packet.payload_bytes != 0 {
            return Err(Reason::BadTcpFlags);
        }
        // Only a reset at the very number is sure to end the connection (RFC 5961 §3.2). One below it may
        // be at the number of a receiver that has not got all of it: the flow does not stay for long
        // unless that speaks.
        if packet.sequence == mine.next {
            entry.phase = phase::CLOSED;
        } else if entry.phase == phase::ESTABLISHED
            && ahead(packet.sequence, mine.acknowledged) >= 0
            && ahead(packet.sequence, mine.next) < 0
        {
            entry.phase = phase::CLOSING;
        }
        return Ok(());
    }
    if flags & flag::ACK == 0 {
        return Err(Reason::BadTcpFlags);
    }
    if is_inspected && flags & flag::URG != 0 {
        // It ends the connection, which nobody is to do who does not know where it is.
        return Err(if packet.sequence == mine.next {
            Reason::UrgentData
        } else {
            Reason::OutOfOrder
        });
    }
    acknowledge(other, mine.flags, packet);
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    if is_inspected {
        check_room(mine, packet)?;
    }
    // The number that a FIN counts for is no byte's.
    let fin = mine.flags & side_flag::FIN;
    if fin != 0
        && (ahead(data_end, mine.next) > 0
            || (packet.payload_bytes != 0 && ahead(data_end, mine.next.wrapping_sub(fin)) > 0))
    {
        return Err(Reason::DataAfterFin);
    }
    if was_closed && mine.flags & side_flag::FIN == 0 && packet.payload_bytes != 0 {
        return Err(Reason::NoFlow);
    }
    if is_inspected {
        return Ok(());
    }
    if ahead(data_end, mine.next) > 0 {
        mine.next = data_end;
    }
    if flags & flag::FIN != 0 {
        close(entry, direction, data_end);
    }
    Ok(())
}

/// The responder speaks: a connection that was picked up, or seemed to be reset, is there.
#[inline(always)]
pub const fn is_there(entry: &mut FlowEntry) {
    if entry.phase == phase::CLOSING
        && (entry.request.flags | entry.reply.flags) & side_flag::FIN == 0
    {
        entry.phase = phase::ESTABLISHED;
    }
}

/// Takes a FIN into account once all data before it is.
#[inline(always)]
pub fn close(entry: &mut FlowEntry, direction: Direction, data_end: u32) {
    let mine = match direction {
        Direction::Request => &mut entry.request,
        Direction::Reply => &mut entry.reply,
    };
    if mine.flags & side_flag::FIN == 0 && mine.next == data_end {
        mine.flags |= side_flag::FIN;
        mine.next = data_end.wrapping_add(1);
    }
    if entry.phase == phase::ESTABLISHED && mine.flags & side_flag::FIN != 0 {
        entry.phase = phase::CLOSING;
    }
    if entry.request.flags & entry.reply.flags & side_flag::FIN != 0
        && entry.phase == phase::CLOSING
    {
        entry.phase = phase::CLOSED;
    }
}

/// Moves the acknowledged edge of the other side, never beyond what that side has sent, and the edge
/// of the room that it has. A window that shrinks takes nothing back: what was on its way is taken.
#[inline(always)]
fn acknowledge(other: &mut Side, my_flags: u32, packet: &Packet) {
    let acknowledgement = packet.acknowledgement;
    if ahead(acknowledgement, other.next) > 0 {
        return;
    }
    if ahead(acknowledgement, other.acknowledged) > 0 {
        other.acknowledged = acknowledgement;
    }
    let shift = (my_flags & side_flag::WINDOW_SHIFT) >> side_flag::WINDOW_SHIFT_AT;
    let edge = acknowledgement.wrapping_add(u32::from(packet.window) << (shift & 0x1f));
    if ahead(edge, other.edge) > 0 {
        other.edge = edge;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::flag::{ACK, FIN, PSH, RST, URG};

    fn established(protocol: u8) -> FlowEntry {
        let request = Side {
            next: 100,
            acknowledged: 100,
            flags: 0,
            edge: 200,
        };
        let reply = Side {
            next: 900,
            acknowledged: 900,
            flags: 0,
            edge: 1000,
        };
        FlowEntry {
            phase: phase::ESTABLISHED,
            protocol,
            request,
            reply,
            ..FlowEntry::default()
        }
    }

    fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload_bytes: u32) -> Packet {
        Packet {
            tcp_flags: flags,
            sequence,
            acknowledgement,
            payload_bytes,
            ..Packet::default()
        }
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert_eq!(ahead(2, u32::MAX), 3);
        assert_eq!(ahead(u32::MAX, 2), -3);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_moves_nothing() {
        let mut entry = established(protocol::MODBUS);
        assert_eq!(
            track(&mut entry, &segment(ACK, 900, 101, 0), Direction::Reply),
            Ok(())
        );
        assert_eq!(entry.request.acknowledged, 100);
    }

    #[test]
    fn data_beyond_the_window_is_denied_but_for_a_probe() {
        let mut entry = established(protocol::MODBUS);
        for (bytes, wanted) in [
            (100, Ok(())),
            (101, Ok(())),
            (102, Err(Reason::OutOfWindow)),
        ] {
            let data = segment(ACK, 100, 900, bytes);
            assert_eq!(track(&mut entry, &data, Direction::Request), wanted);
        }
        entry.reply.flags |= 3 << side_flag::WINDOW_SHIFT_AT;
        let mut wider = segment(ACK, 900, 100, 0);
        wider.window = 50;
        assert_eq!(track(&mut entry, &wider, Direction::Reply), Ok(()));
        assert_eq!(entry.request.edge, 100 + (50 << 3));
        wider.window = 0;
        assert_eq!(track(&mut entry, &wider, Direction::Reply), Ok(()));
        assert_eq!(entry.request.edge, 100 + (50 << 3), "nothing is taken back");
    }

    #[test]
    fn only_a_reset_at_the_very_number_closes() {
        let mut entry = established(protocol::NONE);
        assert_eq!(
            track(&mut entry, &segment(RST, 101, 0, 0), Direction::Request),
            Ok(())
        );
        assert_eq!(entry.phase, phase::ESTABLISHED);
        assert_eq!(
            track(&mut entry, &segment(RST, 100, 0, 0), Direction::Request),
            Ok(())
        );
        assert_eq!(entry.phase, phase::CLOSED);
    }

    #[test]
    fn a_close_of_both_sides_ends_the_connection_and_new_data_is_denied() {
        let mut entry = established(protocol::NONE);
        assert_eq!(
            track(
                &mut entry,
                &segment(FIN | ACK, 100, 900, 0),
                Direction::Request
            ),
            Ok(())
        );
        assert_eq!(entry.phase, phase::CLOSING);
        let more = segment(PSH | ACK, 101, 900, 5);
        assert_eq!(
            track(&mut entry, &more, Direction::Request),
            Err(Reason::DataAfterFin)
        );
        assert_eq!(
            track(
                &mut entry,
                &segment(FIN | ACK, 900, 101, 0),
                Direction::Reply
            ),
            Ok(())
        );
        assert_eq!(entry.phase, phase::CLOSED);
        assert_eq!(
            track(&mut entry, &segment(ACK, 101, 901, 0), Direction::Request),
            Ok(())
        );
    }

    #[test]
    fn urgent_data_is_denied_where_it_is_inspected() {
        let urgent = segment(URG | ACK, 100, 900, 5);
        let mut inspected = established(protocol::MODBUS);
        assert_eq!(
            track(&mut inspected, &urgent, Direction::Request),
            Err(Reason::UrgentData)
        );
        assert_eq!(
            track(
                &mut established(protocol::NONE),
                &urgent,
                Direction::Request
            ),
            Ok(())
        );
    }

    #[test]
    fn flags_that_no_connection_has_are_denied() {
        for flags in [0, FIN, PSH, URG, RST | FIN, RST | URG] {
            let mut entry = established(protocol::NONE);
            assert_eq!(
                track(&mut entry, &segment(flags, 100, 900, 0), Direction::Request),
                Err(Reason::BadTcpFlags),
                "flags {flags:#x}"
            );
        }
    }
}

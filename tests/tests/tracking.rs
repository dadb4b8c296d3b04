//! Segments of an inspected connection that are not simply the next one: windows, probes, resets,
//! the end, the beginning, and sequence numbers that wrap. Every conversation here wraps early.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Drop, Pass, Reset};
use conduitfw_tests::conversation::{FIRST_ANSWER, FIRST_SEQUENCE, Stage, Talk, plant};
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::frames::{ACK, FIN, Frame, PSH, RST, SYN, URG, tcp};
use conduitfw_tests::scene::{HMI, PLC};
use conduitfw_tests::stage;

const BEYOND: Want = Drop(Reason::OutOfWindow);
const STRAY: Want = Drop(Reason::NoFlow);

fn policy() -> String {
    plant("", &["functions = [\"reads\"]"])
}

fn ask(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, read(3, 0, 1))
}

fn reply(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, [3, 2, 0, 7])
}

/// A connection whose ends offer these shifts of their windows; the responder has this much room.
fn scaled(stage: &mut Stage, (hmi, plc): (Option<u8>, Option<u8>), window: u16) -> Result<Talk> {
    let options = |shift: Option<u8>| match shift {
        Some(shift) => vec![2, 4, 5, 180, 1, 3, 3, shift],
        None => vec![2, 4, 5, 180],
    };
    let mut talk = stage.unopened(HMI, PLC);
    let syn = tcp(talk.hmi, talk.plc)
        .flags(SYN)
        .seq(talk.next.0)
        .tcp_options(&options(hmi));
    stage.expect("SYN", &syn.build(), Pass)?;
    talk.asked(1);
    let answer = talk
        .plc_sends(&[])
        .flags(SYN | ACK)
        .window(window)
        .tcp_options(&options(plc));
    stage.expect("SYN+ACK", &answer.build(), Pass)?;
    talk.answered(1);
    stage.expect("ACK", &talk.hmi_sends(&[]).window(window).build(), Pass)?;
    Ok(talk)
}

#[test]
fn data_stays_in_the_window() -> Result<()> {
    let mut stage = stage!(&policy());
    let request = ask(1);
    for (window, want) in [
        (12, Pass),
        (11, Pass),
        (10, BEYOND),
        (1, BEYOND),
        (0, BEYOND),
    ] {
        let mut talk = scaled(&mut stage, (None, None), window)?;
        talk.asks(
            &mut stage,
            &format!("12 bytes into {window}"),
            &request,
            want,
        )?;
    }
    let mut talk = scaled(&mut stage, (None, None), 0)?;
    for (at, byte) in request.iter().enumerate() {
        // A probe of a closed window is one byte; each one that is taken makes place for the next.
        talk.asks(&mut stage, &format!("probe {at}"), &[*byte], Pass)?;
        talk.asks(&mut stage, "one more is too much", &[0], BEYOND)?;
        stage.expect("taken", &talk.plc_sends(&[]).window(0).build(), Pass)?;
    }
    talk.answers(&mut stage, "and answered", &reply(1), Pass)?;
    stage.finish()
}

#[test]
fn windows_are_scaled_when_both_ends_said_so() -> Result<()> {
    let mut stage = stage!(&policy());
    let requests = [ask(1), ask(2), ask(3), ask(4)].concat();
    for (shifts, is_scaled) in [
        ((Some(3), Some(2)), true),
        ((None, Some(2)), false),
        ((Some(3), None), false),
        ((None, None), false),
        // Above 14 is taken for 14 (RFC 7323 §2.3).
        ((Some(0), Some(15)), true),
    ] {
        let mut talk = scaled(&mut stage, shifts, 12)?;
        let name = format!("{shifts:?}");
        // The window of a SYN is never scaled.
        talk.asks(&mut stage, &name, &requests, BEYOND)?;
        talk.asks(&mut stage, &name, &requests[..12], Pass)?;
        talk.asks(&mut stage, &name, &requests[12..24], BEYOND)?;
        stage.expect(&name, &talk.plc_sends(&[]).window(9).build(), Pass)?;
        let want = if is_scaled { Pass } else { BEYOND };
        talk.asks(&mut stage, &name, &requests[12..], want)?;
    }
    // What the initiator has room for holds for the responder.
    let mut talk = scaled(&mut stage, (Some(1), Some(0)), 20)?;
    let request = talk.hmi_sends(&requests[..24]).window(5).build();
    let wide = talk.plc_sends(&[]).window(100).build();
    stage.expect("room for requests", &wide, Pass)?;
    stage.expect("two requests", &request, Pass)?;
    talk.asked(24);
    let replies = [reply(1), reply(2)].concat();
    talk.answers(&mut stage, "within what was once offered", &replies, Pass)?;
    let mut many = talk;
    let late: Vec<u8> = vec![0; 42 - 22 + 1];
    many.answers(&mut stage, "beyond it", &late, BEYOND)?;
    stage.finish()
}

#[test]
fn keep_alives_of_either_kind() -> Result<()> {
    let mut stage = stage!(&policy());
    let mut talk = stage.talk()?;
    for round in 0..3 {
        let behind = Talk {
            next: (talk.next.0.wrapping_sub(1), talk.next.1.wrapping_sub(1)),
            ..talk
        };
        let acknowledging = |frame: Frame, number: u32| frame.ack(number);
        let name = format!("round {round}");
        let bare = acknowledging(behind.hmi_sends(&[]), talk.next.1);
        stage.expect(&name, &bare.build(), Pass)?;
        let bare = acknowledging(behind.plc_sends(&[]), talk.next.0);
        stage.expect(&name, &bare.build(), Pass)?;
        // With one byte, which its receiver has already: any byte.
        let garbage = acknowledging(behind.hmi_sends(&[0x55]).flags(ACK), talk.next.1);
        stage.expect(&name, &garbage.build(), Pass)?;
        let garbage = acknowledging(behind.plc_sends(&[0x55]).flags(ACK), talk.next.0);
        stage.expect(&name, &garbage.build(), Pass)?;
        talk.asks(&mut stage, "asks", &ask(round), Pass)?;
        talk.answers(&mut stage, "answers", &reply(round), Pass)?;
    }
    // Not yet acknowledged, the byte must be the same.
    talk.asks(&mut stage, "asks", &ask(9), Pass)?;
    let behind = Talk {
        next: (talk.next.0.wrapping_sub(1), talk.next.1),
        ..talk
    };
    stage.expect("the same", &behind.hmi_sends(&[1]).build(), Pass)?;
    let changed = Reset(Reason::ChangedRetransmission);
    stage.expect("another", &behind.hmi_sends(&[2]).build(), changed)?;
    stage.finish()
}

#[test]
fn a_reset_ends_only_at_the_very_number() -> Result<()> {
    let mut stage = stage!(&policy());
    for (name, from_hmi, off, ends) in [
        ("initiator", true, 0, true),
        ("initiator, ahead", true, 1, false),
        ("initiator, behind", true, u32::MAX, false),
        ("initiator, far", true, 40_000, false),
        ("responder", false, 0, true),
        ("responder, ahead", false, 1, false),
    ] {
        for flags in [RST, RST | ACK] {
            let mut talk = stage.talk()?;
            talk.asks(&mut stage, name, &ask(1), Pass)?;
            talk.answers(&mut stage, name, &reply(1), Pass)?;
            let number = if from_hmi { talk.next.0 } else { talk.next.1 };
            let frame = if from_hmi {
                talk.hmi_sends(&[])
            } else {
                talk.plc_sends(&[])
            };
            let frame = frame.flags(flags).seq(number.wrapping_add(off));
            stage.expect(name, &frame.build(), Pass)?;
            let want = if ends { STRAY } else { Pass };
            talk.asks(&mut stage, name, &ask(2), want)?;
        }
    }
    let talk = stage.talk()?;
    let bad = Drop(Reason::BadTcpFlags);
    for (name, frame) in [
        ("with data", talk.hmi_sends(&ask(1)).flags(RST)),
        ("with FIN", talk.hmi_sends(&[]).flags(RST | FIN)),
        ("with URG", talk.hmi_sends(&[]).flags(RST | URG)),
        ("no ACK", talk.hmi_sends(&ask(1)).flags(PSH)),
        ("FIN alone", talk.hmi_sends(&[]).flags(FIN)),
        ("nothing", talk.hmi_sends(&[]).flags(0)),
    ] {
        stage.expect(name, &frame.build(), bad)?;
    }
    stage.finish()
}

#[test]
fn the_end_of_a_connection() -> Result<()> {
    let mut stage = stage!(&policy());
    let late = Drop(Reason::DataAfterFin);
    let mut talk = stage.talk()?;
    let last = talk.hmi_sends(&ask(1)).flags(PSH | ACK | FIN).build();
    stage.expect("FIN with a request", &last, Pass)?;
    stage.expect("repeated", &last, Pass)?;
    talk.asked(12);
    // Instead of the FIN, or behind it.
    stage.expect(
        "data in place of the FIN",
        &talk.hmi_sends(&ask(2)).build(),
        late,
    )?;
    talk.asked(1);
    stage.expect("data behind it", &talk.hmi_sends(&ask(2)).build(), late)?;
    stage.expect(
        "another FIN behind it",
        &talk.hmi_sends(&[]).flags(FIN | ACK).build(),
        Drop(Reason::OutOfOrder),
    )?;
    talk.answers(&mut stage, "the answer", &reply(1), Pass)?;
    talk.answers(
        &mut stage,
        "one too many",
        &reply(1),
        Drop(Reason::UnsolicitedReply),
    )?;
    stage.finish()?;

    let mut stage = stage!(&policy());
    let mut talk = stage.talk()?;
    let mut ahead = talk;
    ahead.asked(12);
    let fin = ahead.hmi_sends(&[]).flags(FIN | ACK).build();
    stage.expect("a FIN ahead of the data", &fin, Drop(Reason::OutOfOrder))?;
    talk.asks(&mut stage, "the data", &ask(1), Pass)?;
    talk.answers(&mut stage, "the answer", &reply(1), Pass)?;
    let half = [&ask(2)[..5]].concat();
    let fin = talk.hmi_sends(&half).flags(PSH | ACK | FIN).build();
    stage.expect("FIN in the middle of an ADU", &fin, Pass)?;
    talk.asked(5);
    let rest = talk.hmi_sends(&ask(2)[5..]).build();
    stage.expect("the rest in its place", &rest, late)?;
    talk.asked(1);
    let rest = talk.hmi_sends(&ask(2)[5..]).build();
    stage.expect("the rest behind it", &rest, late)?;
    let fin = talk.plc_sends(&[]).flags(FIN | ACK).build();
    stage.expect("the responder's FIN", &fin, Pass)?;
    stage.expect("again", &fin, Pass)?;
    talk.answered(1);
    stage.expect("the last ACK", &talk.hmi_sends(&[]).build(), Pass)?;
    stage.finish()
}

#[test]
fn urgent_data_is_never_inspected() -> Result<()> {
    let mut stage = stage!(&policy());
    for pointer in [0, 1, 12, 65_535] {
        let talk = stage.talk()?;
        let frame = talk
            .hmi_sends(&ask(1))
            .flags(PSH | ACK | URG)
            .urgent(pointer);
        let want = Reset(Reason::UrgentData);
        stage.expect(&format!("pointer {pointer}"), &frame.build(), want)?;
    }
    let mut talk = stage.talk()?;
    // Without the flag the pointer is nothing.
    let frame = talk.hmi_sends(&ask(1)).urgent(3);
    stage.expect("a pointer without the flag", &frame.build(), Pass)?;
    talk.asked(12);
    let frame = talk.plc_sends(&reply(1)).flags(PSH | ACK | URG).urgent(1);
    stage.expect("of the responder", &frame.build(), Drop(Reason::UrgentData))?;
    stage.finish()
}

#[test]
fn how_a_connection_must_not_begin() -> Result<()> {
    let mut stage = stage!(&policy());
    let mut talk = stage.unopened(HMI, PLC);
    let syn = tcp(talk.hmi, talk.plc).flags(SYN).seq(FIRST_SEQUENCE);
    for (name, frame, reason) in [
        (
            "SYN with data",
            syn.clone().payload(ask(1)),
            Reason::SynWithData,
        ),
        ("SYN+FIN", syn.clone().flags(SYN | FIN), Reason::BadTcpFlags),
        ("SYN+URG", syn.clone().flags(SYN | URG), Reason::BadTcpFlags),
        (
            "SYN+ACK of the initiator",
            syn.clone().flags(SYN | ACK),
            Reason::NoFlow,
        ),
        ("data alone", talk.hmi_sends(&ask(1)), Reason::NoFlow),
        (
            "FIN alone",
            talk.hmi_sends(&[]).flags(FIN | ACK),
            Reason::NoFlow,
        ),
    ] {
        stage.expect(name, &frame.build(), Drop(reason))?;
    }
    stage.expect("SYN", &syn.build(), Pass)?;
    talk.asked(1);
    // The responder opens as well (RFC 9293, figure 8): no conduit goes that way.
    let both = tcp(talk.plc, talk.hmi).flags(SYN).seq(FIRST_ANSWER).build();
    stage.expect("both open", &both, STRAY)?;
    for (name, frame) in [
        ("data before the answer", talk.hmi_sends(&ask(1))),
        ("ACK before the answer", talk.hmi_sends(&[])),
        (
            "an answer with data",
            talk.plc_sends(&reply(1)).flags(SYN | ACK),
        ),
        (
            "an answer to another",
            talk.plc_sends(&[]).flags(SYN | ACK).ack(9),
        ),
    ] {
        stage.expect(name, &frame.build(), STRAY)?;
    }
    stage.expect(
        "SYN+ACK",
        &talk.plc_sends(&[]).flags(SYN | ACK).build(),
        Pass,
    )?;
    talk.answered(1);
    let wrong = talk.hmi_sends(&ask(1)).ack(talk.next.1.wrapping_add(1));
    stage.expect("data that confirms another", &wrong.build(), STRAY)?;
    let denied = adu(1, 1, write_single(6, 0, 1));
    let want = Reset(Reason::FunctionNotAllowed);
    talk.asks(&mut stage, "a denied request confirms", &denied, want)?;
    stage.finish()
}

/// A first number beyond the window of any connection here.
const ELSEWHERE: u32 = 0x4000_0000;

#[test]
fn ports_are_used_again() -> Result<()> {
    let mut stage = stage!(&policy());
    let first = stage.talk()?;
    let mut talk = first;
    talk.asks(&mut stage, "half a request", &ask(1)[..7], Pass)?;
    // The HMI restarts; the PLC still has the old connection.
    let near = tcp(talk.hmi, talk.plc).flags(SYN).seq(5000).build();
    stage.expect(
        "SYN whose connection would take this one's data",
        &near,
        Drop(Reason::OutOfWindow),
    )?;
    let mut anew = Talk {
        next: (ELSEWHERE, talk.next.1),
        ..talk
    };
    let syn = tcp(anew.hmi, anew.plc).flags(SYN).seq(anew.next.0).build();
    stage.expect("SYN on an open connection", &syn, Pass)?;
    let challenge = talk.plc_sends(&[]).build();
    stage.expect("the PLC's challenge", &challenge, Pass)?;
    talk.asks(&mut stage, "the old one goes on", &ask(1)[7..], Pass)?;
    anew.asked(1);
    let data = anew.hmi_sends(&ask(1)).build();
    stage.expect(
        "data of one that is not open",
        &data,
        Drop(Reason::OutOfWindow),
    )?;
    let rst = tcp(anew.hmi, anew.plc).flags(RST).seq(talk.next.0).build();
    stage.expect("the HMI resets the old one", &rst, Pass)?;
    talk.asks(&mut stage, "the old one is closed", &ask(2), STRAY)?;
    anew.next.0 = ELSEWHERE;
    let mut anew = anew.open(&mut stage)?;
    anew.asks(&mut stage, "the new one begins with an ADU", &ask(3), Pass)?;
    anew.answers(&mut stage, "and its answer", &reply(3), Pass)?;
    anew.answers(
        &mut stage,
        "not those of the old one",
        &reply(1),
        Drop(Reason::UnsolicitedReply),
    )?;
    stage.finish()
}
